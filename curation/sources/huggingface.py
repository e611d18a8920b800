"""Data sets saved by ``datasets.Dataset.save_to_disk``; each saved folder is one shard."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from curation.config import Source
from curation.sources import pictures
from curation.sources.base import SourceError, some
from curation.sources.images import matching_folders
from curation.sources.pictures import PictureError
from curation.sources.tables import UNPARSED

_FILES = ("state.json", "dataset_info.json")
_REPAIR = "Save the data set again with save_to_disk, or remove the folder."
_BAD = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, pa.ArrowException)


# A row's pictures by column, and why the row cannot be used.
_Decoded = tuple[dict[str, NDArray[np.uint8]], str | None]


def shard_folders(folder: Path, *, pattern: str, dataset: str) -> list[Path]:
    """Return the saved data sets below `folder`, at any depth, that match; sorted.

    A saved ``DatasetDict`` gives one shard per split.

    Parameters
    ----------
    folder : Path
        The source's folder.
    pattern : str
        A glob relative to it; ``**/*`` matches every folder. Hidden folders never match.
    dataset : str
        Name of the data set, for error messages.

    Raises
    ------
    SourceError
        If the folder is missing or a saved data set itself, the glob is not valid, or a folder that
        matches lies outside.
    """
    if _is_saved(folder):
        raise SourceError(
            f"{dataset}: {folder} is one saved data set, which would be one shard without a name. "
            f"Make {folder.parent} the source's folder, with `pattern` {folder.name!r}."
        )
    found = matching_folders(folder, pattern=pattern, dataset=dataset)
    return [path for path in found if _is_saved(path)]


def _is_saved(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read one saved data set, mapped from its files, in slices; nothing is fetched or executed.

    ======================  ======================================================================
    feature                 column
    ======================  ======================================================================
    Value, List, a mapping  as it is
    Array2D to Array5D      List, flattened row by row
    ClassLabel              String, the class's name; null for -1, by which `datasets` means none
    Image                   List of UInt8 as `pictures.decode` gives it, and ``<name>_width`` and
                            ``<name>_height`` (UInt32) unless the data has such columns
    anything else           left out: Audio, Video, Pdf and the like, also within lists
    ======================  ======================================================================

    Class labels within lists stay numbers.

    Parameters
    ----------
    path : Path
        The folder, with ``state.json`` and ``dataset_info.json``.
    config : Source
        `image_mode`, `image_size` and `block_mib`.
    where : str
        Data set and shard, the beginning of an error's message.

    Yields
    ------
    pl.DataFrame
        The columns above, and ``_unparsed`` (String): why a row cannot be used, null where it can.
        A picture must be in the data set: the path of one elsewhere is never followed.

    Raises
    ------
    SourceError
        If `datasets` is missing, the folder is damaged or names files outside it, or no row can be
        used.
    """
    data = _open(path, where=where)
    features = {name: f for name, f in data.features.items() if _is_kept(f)}
    if UNPARSED in features or not features:
        raise SourceError(
            f"{where}: {path} has the columns {some(data.features)}. "
            f"It needs one that can be read, and none may have the name {UNPARSED!r}; rename it."
        )
    if "Image" in map(_kind, features.values()):
        pictures.need_pillow(where)
    data = data.select_columns(list(features)).with_format("arrow")
    frames = _frames(data, features, path=path, config=config, where=where)
    yield from pictures.some_usable(frames, path=path, where=where)


def _open(path: Path, *, where: str) -> Any:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise SourceError(
            f"{where}: {path} is read with the package datasets, which is not installed. "
            "Install it: pip install 'curation[huggingface]'."
        ) from error
    try:
        _refuse_elsewhere(path, where=where)
        return datasets.load_from_disk(str(path), keep_in_memory=False)
    except _BAD as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise SourceError(f"{where}: cannot read {path}: {reason}. {_REPAIR}") from error


def _refuse_elsewhere(path: Path, *, where: str) -> None:
    """Refuse a state that names no files, or some outside the folder, and a path with ``::``.

    By the two colons fsspec, with which `datasets` opens the path, would see a chain of addresses.
    """
    if "::" in str(path):
        raise ValueError("its path holds '::', rename that folder")
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if not state["_data_files"]:
        raise ValueError("it has no rows")
    for file in state["_data_files"]:
        if not (path / file["filename"]).resolve().is_relative_to(path.resolve()):
            raise SourceError(
                f"{where}: {path / 'state.json'} names the file {file['filename']!r}, which lies "
                f"outside the folder. {_REPAIR}"
            )


def _kind(feature: Any) -> str:
    return type(feature).__name__


def _is_kept(feature: Any) -> bool:
    """Whether a feature becomes a column: media only at the top, and only pictures."""
    return _kind(feature) == "Image" or _is_plain(feature)


def _is_plain(feature: Any) -> bool:
    if isinstance(feature, dict):
        return all(map(_is_plain, feature.values()))
    if isinstance(feature, list):
        return all(map(_is_plain, feature))
    if _kind(feature) in ("List", "LargeList", "Sequence"):
        return _is_plain(feature.feature)
    known = ("Value", "ClassLabel", "Translation", "TranslationVariableLanguages")
    return _kind(feature) in (*known, "Array2D", "Array3D", "Array4D", "Array5D")


def _frames(
    data: Any, features: dict[str, Any], *, path: Path, config: Source, where: str
) -> Iterator[pl.DataFrame]:
    images = [name for name, feature in features.items() if _kind(feature) == "Image"]
    for part in _slices(data, path=path, config=config, where=where):
        start = 0
        decoded = (_decoded(row, config=config) for row in _pictures(part, images))
        for rows in pictures.in_blocks(decoded, size=_size, config=config):
            try:
                frame = _frame(part.slice(start, len(rows)), features, rows)
            except (*_BAD, pl.exceptions.PolarsError) as error:
                raise SourceError(f"{where}: cannot read {path}: {error}. {_REPAIR}") from error
            yield frame
            start += len(rows)


def _slices(data: Any, *, path: Path, config: Source, where: str) -> Iterator[pa.Table]:
    """Return runs of rows of at most about ``config.block_mib`` MiB as they are stored."""
    most = config.block_mib * 2**20
    start, rows = 0, len(data)
    while start < len(data):
        try:
            part = data[start : start + rows]
            part.validate()  # the ends of the slice, which its size is taken from
            if part.nbytes > most and rows > 1:
                rows = max(1, min(rows // 2, rows * most // part.nbytes))
                continue
            # Anyone may have written the file, and polars trusts what it is handed.
            part.validate(full=True)
        except _BAD as error:
            raise SourceError(f"{where}: cannot read {path}: {error}. {_REPAIR}") from error
        yield part
        start, rows = start + part.num_rows, 2 * rows  # the next ones may be smaller


def _pictures(part: pa.Table, images: list[str]) -> Iterator[dict[str, Any]]:
    """Return each row's pictures as they are stored; they are copied one row at a time."""
    columns = [part[name] for name in images]
    if not columns:
        yield from ({} for _ in range(part.num_rows))
    for row in zip(*columns, strict=True):
        yield {name: value.as_py() for name, value in zip(images, row, strict=True)}


def _decoded(row: dict[str, Any], *, config: Source) -> _Decoded:
    pixels: dict[str, NDArray[np.uint8]] = {}
    for name, stored in row.items():
        try:
            if stored is None:
                continue
            if stored["bytes"] is None:
                raise PictureError("leads outside the data set, which holds only its path")
            pixels[name] = pictures.decode(stored["bytes"], config=config)
        except PictureError as error:
            return {}, f"{name}: {error}"
    return pixels, None


def _size(row: _Decoded) -> int:
    return sum(pixels.nbytes for pixels in row[0].values())


def _frame(part: pa.Table, features: dict[str, Any], rows: list[_Decoded]) -> pl.DataFrame:
    faults = pl.Series(UNPARSED, [fault for _, fault in rows], dtype=pl.String)
    columns: list[pl.Series] = []
    for name, feature in features.items():
        if _kind(feature) == "Image":
            columns += _picture_columns(name, [row.get(name) for row, _ in rows], features)
            continue
        series = _plain(name, part[name])
        if _kind(feature) == "ClassLabel":
            series, wrong = _named(series, feature.names)
            faults = faults.to_frame().select(pl.coalesce(UNPARSED, wrong)).to_series()
        columns.append(series)
    kept = pl.when(pl.col(UNPARSED).is_null()).then(pl.exclude(UNPARSED))
    return pl.DataFrame([*columns, faults.alias(UNPARSED)]).with_columns(kept)


def _plain(name: str, column: pa.ChunkedArray) -> pl.Series:
    kind = column.type
    if not isinstance(kind, pa.ExtensionType):
        return pl.Series(name, column)
    # The arrays of `datasets` are lists of lists in storage.
    stored = [chunk.storage for chunk in column.chunks]
    series = pl.Series(name, pa.chunked_array(stored, type=kind.storage_type))
    while isinstance(getattr(series.dtype, "inner", None), pl.List):
        series = series.list.eval(pl.element().explode())
    return series


def _named(numbers: pl.Series, names: list[str]) -> tuple[pl.Series, pl.Series]:
    """Return the names of classes, and what is wrong with those that have none."""
    named = numbers.replace_strict(range(len(names)), names, default=None, return_dtype=pl.String)
    column = pl.col(numbers.name)
    reason = pl.format(
        f"{{}}: class {{}}, but there are {len(names)}", pl.lit(numbers.name), column
    )
    outside = (column < -1) | (column >= len(names))
    wrong = numbers.to_frame().select(pl.when(outside).then(reason).alias("wrong"))
    return named, wrong.to_series()


def _picture_columns(
    name: str, pixels: list[NDArray[np.uint8] | None], taken: Container[str]
) -> list[pl.Series]:
    columns = [pictures.lists(name, pixels, inner=pl.UInt8)]
    for axis, what in ((1, "width"), (0, "height")):
        if f"{name}_{what}" not in taken:
            sizes = [None if p is None else p.shape[axis] for p in pixels]
            columns.append(pl.Series(f"{name}_{what}", sizes, dtype=pl.UInt32))
    return columns

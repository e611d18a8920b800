"""Formats that are a folder of files: Hugging Face ``datasets`` and WebDataset."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curation.config import Columns

SAMPLES_PER_ARCHIVE = 10_000
BYTES_PER_ARCHIVE = 256 * 2**20


class ExportError(Exception):
    """A subset can't be written as it was asked for."""


def write_huggingface(frame: pl.DataFrame, folder: Path, columns: Columns) -> None:
    """Write a folder that ``datasets.load_from_disk`` reads.

    Raises
    ------
    ExportError
        If ``datasets`` is not installed.
    """
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise ExportError(
            "format huggingface needs the package `datasets`: pip install 'curation[huggingface]'"
        ) from None
    # the oldest form of strings: what readers older than polars know
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset(table).save_to_disk(str(folder))
    finally:
        if bars:
            datasets.enable_progress_bars()


def write_webdataset(frame: pl.DataFrame, folder: Path, columns: Columns) -> None:
    """Write tar archives of samples, ``subset-000000.tar`` and so on.

    A sample's key is its number. Its members are ``json`` with all plain columns, weights included,
    ``txt`` with the input if that is text, ``cls`` with the label if all labels are whole numbers
    (as readers expect), ``png`` for a picture (``image``, ``width``, ``height``), and ``NAME.npy``
    for a column of lists of numbers. The same subset gives the same bytes.
    """
    lists = [c for c, kind in frame.schema.items() if kind.is_nested()]
    picture = _has_picture(frame)
    if picture:
        lists.remove("image")
    for name in lists:
        inner = frame.schema[name]
        if not (isinstance(inner, pl.List | pl.Array) and inner.inner.is_numeric()):
            raise ExportError(
                f"format webdataset has no place for the column {name!r} ({inner}); "
                "export as parquet, jsonl or huggingface"
            )
    numbered = columns.label is not None and _whole(frame[columns.label])
    plain = [c for c in frame.columns if c not in lists and not (picture and c == "image")]
    archives = _Archives(folder, digits=max(6, len(str(len(frame)))))
    try:
        for number, row in enumerate(frame.iter_rows(named=True)):
            members = {"json": _json({name: row[name] for name in plain})}
            if frame.schema[columns.input] == pl.String and row[columns.input] is not None:
                members["txt"] = row[columns.input].encode()
            if numbered and columns.label:
                members["cls"] = str(row[columns.label]).encode()
            if picture:
                members["png"] = _png(row)
            for name in lists:
                if row[name] is not None:
                    members[f"{_ending(name)}.npy"] = _npy(row[name], frame.schema[name])
            archives.add(number, members)
    finally:
        archives.close()


class _Archives:
    """Archives filled one after another."""

    def __init__(self, folder: Path, *, digits: int) -> None:
        self.folder, self.digits = folder, digits
        self.made = self.samples = self.bytes = 0
        self.open: tarfile.TarFile | None = None

    def add(self, number: int, members: dict[str, bytes]) -> None:
        """Write one sample; its members stand together."""
        full = self.samples >= SAMPLES_PER_ARCHIVE or self.bytes >= BYTES_PER_ARCHIVE
        if self.open is None or full:
            self.close()
            path = self.folder / f"subset-{self.made:06d}.tar"
            self.open = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self.made, self.samples, self.bytes = self.made + 1, 0, 0
        for ending, content in members.items():
            entry = tarfile.TarInfo(f"{number:0{self.digits}d}.{ending}")
            entry.size, entry.mode = len(content), 0o644  # no clock, no user: same rows, same bytes
            self.open.addfile(entry, io.BytesIO(content))
            self.bytes += len(content)
        self.samples += 1

    def close(self) -> None:
        """End the archive that is being filled."""
        if self.open is not None:
            self.open.close()
            self.open = None


def _whole(labels: pl.Series) -> bool:
    return labels.null_count() == 0 and bool(
        labels.cast(pl.String).str.contains(r"^[0-9]{1,9}$").all()
    )


def _has_picture(frame: pl.DataFrame) -> bool:
    return {"image", "width", "height"} <= set(frame.columns) and frame.schema["image"] in (
        pl.List(pl.UInt8),
        pl.Binary,
    )


def _png(row: dict[str, Any]) -> bytes:
    from PIL import Image

    width, height = int(row["width"]), int(row["height"])
    pixels = np.asarray(row["image"], dtype=np.uint8)
    channels = len(pixels) // max(width * height, 1)
    shape = (height, width) if channels == 1 else (height, width, channels)
    out = io.BytesIO()
    Image.fromarray(pixels.reshape(shape)).save(out, format="PNG")
    return out.getvalue()


def _npy(values: list[Any], kind: pl.DataType) -> bytes:
    inner = kind.inner  # type: ignore[attr-defined]
    out = io.BytesIO()
    wanted = pl.Series([], dtype=inner).to_numpy().dtype
    np.save(out, np.asarray(values, dtype=wanted), allow_pickle=False)
    return out.getvalue()


def _ending(name: str) -> str:
    """Return a column's name as part of a member's name: no dot, no separator."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in name.lower()) or "column"


def _json(row: dict[str, Any]) -> bytes:
    return json.dumps(dict(_plain(row)), ensure_ascii=False).encode()


def _plain(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield name, None  # JSON has no word for it
        elif value is None or isinstance(value, str | int | float | bool):
            yield name, value
        else:  # dates, decimals
            yield name, str(value)

"""Images and labels in the idx format of MNIST, cut into shards."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.config import Source, matches
from curation.sources.base import Shard, SourceError, cut, digest, numbered, safe_key
from curation.sources.folder import expand, hash_file, list_files
from curation.sources.units import File, unknown_shard

_NAME = re.compile(r"(?P<prefix>.*?)[-_.]?(?P<kind>images|labels)[-.]idx[13]-ubyte(\.gz)?")
_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class Pair:
    """An images file with its labels file."""

    images: File
    labels: File


def read_header(path: Path, *, dimensions: int, where: str) -> tuple[int, ...]:
    """Return the shape an idx file states.

    The header is four bytes (two zeros, the type code, the number of dimensions) and one
    big-endian 32-bit size per dimension.

    Raises
    ------
    SourceError
        If the file is not an idx file of unsigned bytes with `dimensions` dimensions.
    """
    size = 4 + 4 * dimensions
    return _shape(_bytes(path, size, where=where), path, dimensions=dimensions, where=where)


def _bytes(path: Path, size: int, *, where: str) -> bytes:
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path) as file:
                return file.read(size)
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{where}: cannot read {path}: {error}. Fetch the file again.") from error


def _shape(data: bytes, path: Path, *, dimensions: int, where: str) -> tuple[int, ...]:
    expected = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if data[:4] != expected:
        raise SourceError(
            f"{where}: {path} is not an idx file of unsigned bytes with {dimensions} dimension(s): "
            f"it begins with {data[:4].hex() or 'nothing'}, expected {expected.hex()}."
        )
    if len(data) < 4 + 4 * dimensions:
        raise SourceError(f"{where}: {path} ends within its header. Fetch the file again.")
    return tuple(int(n) for n in np.frombuffer(data, dtype=">u4", count=dimensions, offset=4))


@lru_cache(maxsize=4)
def _parse(file: File, dimensions: int, where: str) -> NDArray[np.uint8]:
    """Return the file as uint8 of shape (n, values per row), read-only.

    Its state is part of the cache's key: sixty shards of a file parse it once, a new file anew.
    """
    path = Path(file.place)
    data = _bytes(path, -1, where=where)
    shape = _shape(data, path, dimensions=dimensions, where=where)
    offset = 4 + 4 * dimensions
    stated = int(np.prod(shape, dtype=np.int64))
    if len(data) - offset != stated:
        raise SourceError(
            f"{where}: {path} states {' x '.join(map(str, shape))} bytes, "
            f"but holds {len(data) - offset}. Fetch the file again."
        )
    width = int(np.prod(shape[1:], dtype=np.int64))
    return np.frombuffer(data, dtype=np.uint8, offset=offset).reshape(shape[0], width)


@dataclass(frozen=True)
class IdxSource:
    """Pairs ``*-images-idx3-ubyte`` and ``*-labels-idx1-ubyte`` in a folder (`ShardSource`).

    Columns of a shard: `id` (String, e.g. ``train-00042``), `image` (Array of UInt8, the pixels
    row by row) and `label` (String, the class number).
    """

    config: Source
    dataset: str
    root: Path

    def shards(self) -> list[Shard]:
        """Return the shards of all pairs, sorted by key."""
        return sorted((shard for shard, *_ in self._slices()), key=lambda shard: shard.key)

    def content(self, key: str) -> str:
        """Return a hash of the files' content and of which of their rows these are."""
        group, pair, rows = self._slice(key)
        where = f"{self.dataset}: shard {key}"
        return digest(group, rows, [hash_file(f, where=where) for f in (pair.images, pair.labels)])

    def blocks(self, key: str) -> Iterator[pl.DataFrame]:
        """Return the rows of one shard, about ``block_mib`` MiB at a time."""
        group, pair, (start, stop) = self._slice(key)
        width = self._images(pair).shape[1]
        step = max(1, self.config.block_mib * 2**20 // width)
        for first in range(start, stop, step):
            yield self._rows(group, pair, first, min(first + step, stop))

    def read(self, key: str) -> pl.DataFrame:
        """Return the rows of one shard."""
        return pl.concat(self.blocks(key))

    def _slice(self, key: str) -> tuple[str, Pair, tuple[int, int]]:
        known = []
        for shard, group, pair, rows in self._slices():
            known.append(shard.key)
            if shard.key == key:
                return group, pair, rows
        place = str(expand(self.config.folder or "", root=self.root, dataset=self.dataset))
        raise unknown_shard(key, known=sorted(known), dataset=self.dataset, place=place)

    def _images(self, pair: Pair) -> NDArray[np.uint8]:
        return _parse(pair.images, 3, self.dataset)

    def _rows(self, group: str, pair: Pair, start: int, stop: int) -> pl.DataFrame:
        images = self._images(pair)
        labels = _parse(pair.labels, 1, self.dataset)
        digits = max(5, len(str(len(images) - 1)))
        pixels = pl.Array(pl.UInt8, images.shape[1])
        return pl.DataFrame(
            {
                "id": [f"{group}-{i:0{digits}d}" for i in range(start, stop)],
                "image": pl.Series(images[start:stop], dtype=pixels),
                "label": labels[start:stop, 0].astype(str),
            }
        )

    def _slices(self) -> Iterator[tuple[Shard, str, Pair, tuple[int, int]]]:
        for group, pair in self._pairs().items():
            rows = self._rows_stated(group, pair)
            bounds = cut(rows, shards=1, rows_per_shard=self.config.rows_per_shard or 1000)
            state = [(f.relative, *f.state) for f in (pair.images, pair.labels)]
            for key, (start, stop) in zip(numbered(group, len(bounds)), bounds, strict=True):
                if matches(key, self.config.include):
                    origin = f"{pair.images.place} rows {start}-{stop - 1}"
                    shard = Shard(key, digest(state, start, stop), origin)
                    yield shard, group, pair, (start, stop)

    def _rows_stated(self, group: str, pair: Pair) -> int:
        where = f"{self.dataset}: {group}"
        images, height, width = read_header(Path(pair.images.place), dimensions=3, where=where)
        (labels,) = read_header(Path(pair.labels.place), dimensions=1, where=where)
        if images != labels or height * width == 0:
            raise SourceError(
                f"{where}: {pair.images.place} holds {images} images of {height} x {width} pixels, "
                f"{pair.labels.place} holds {labels} labels. Fetch both files again."
            )
        return images

    def _pairs(self) -> dict[str, Pair]:
        folder = expand(self.config.folder or "", root=self.root, dataset=self.dataset)
        files: dict[str, dict[str, File]] = {}
        for file in list_files(folder, pattern=self.config.pattern, dataset=self.dataset):
            name = _NAME.fullmatch(file.relative)
            if name is None:
                continue
            kinds = files.setdefault(safe_key(name["prefix"] or "all"), {})
            if name["kind"] in kinds:
                raise SourceError(
                    f"{self.dataset}: two files of {name['kind']} have the same key, "
                    f"{kinds[name['kind']].place} and {file.place}. Remove or rename one of them."
                )
            kinds[name["kind"]] = file
        if not files:
            raise SourceError(
                f"{self.dataset}: no *-images-idx3-ubyte(.gz) that matches {self.config.pattern!r} "
                f"in {folder}. Put the files there, or correct `folder` of the source."
            )
        for group, kinds in files.items():
            if len(kinds) == 1:
                ((kind, file),) = kinds.items()
                other = "labels" if kind == "images" else "images"
                raise SourceError(
                    f"{self.dataset}: {group}: {file.place} has no file of {other} beside it. "
                    "Images and labels come in pairs with the same beginning of the name."
                )
        return {g: Pair(k["images"], k["labels"]) for g, k in sorted(files.items())}

"""Tar archives of samples, by the WebDataset convention; each archive is one shard.

Consecutive members whose path agrees up to the first dot of the last name are one sample. A
member that repeats an ending begins a new one.

========================================  =====================================================
a member that ends in                     gives
========================================  =====================================================
txt, text, transcript, caption, title     a column of that name (String)
cls, label, id, ... (see `LABELS`)        the same, without blanks around it
json                                      a column per field of the object; nested values as
                                          JSON text, and any other JSON as one column `json`
png, jpg, ... (see `pictures.ENDINGS`)    `image` (List of UInt8), `width`, `height` (UInt32)
npy                                       `npy`, flattened: List of Float32, or of Float64 where
                                          an array of the archive needs it; never pickled
anything else                             nothing; a sample of such members only is set aside
========================================  =====================================================

Endings of several parts, as in ``a.left.png``, give ``left.image`` and so on. A field whose
name is taken becomes ``json.<field>``, a member's ``member.<ending>``. Fields that are whole
numbers here and fractions there are Float64; other mixtures are text. Hidden files and
``__names__`` are ignored.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from curation.config import Source
from curation.sources import pictures
from curation.sources.base import SourceError
from curation.sources.pictures import MOST_BYTES, PictureError, readable
from curation.sources.tables import UNPARSED

TEXTS = frozenset(["txt", "text", "transcript", "caption", "title"])
"""Endings of members that are kept as they are."""

LABELS = frozenset(["cls", "cls2", "class", "label", "target", "count", "index", "inx", "id"])
"""Endings of members whose text is kept without the blanks around it."""

MOST_COLUMNS = 1000

_KNOWN = TEXTS | LABELS | pictures.ENDINGS | {"json", "npy"}
_MOST_DECODED = 4 * MOST_BYTES
# Types of members that say more about the next one: its long name, its further attributes.
_EXTENSIONS = (b"x", b"g", b"X", b"L", b"K")
_MOST_EXTENSION = 2**20
_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, IndexError)

# Whether it is a field of a JSON object, and its name.
Column = tuple[bool, str]


class _FaultError(Exception):
    """Why a member, and with it its sample, cannot be used."""


@dataclass
class _Sample:
    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    fault: str | None = None
    held: int = 0

    def refuse(self, name: str, reason: object) -> None:
        """Keep the first fault; what was read so far is of no use any more."""
        self.fault = self.fault or f"{readable(name)}: {reason}"
        self.members = dict.fromkeys(self.members, b"")
        self.held = 0


class _Header(tarfile.TarInfo):
    """A header that must be right: by itself, tarfile takes a broken one for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)  # the mark of the end
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends without the mark of its end")
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a broken header ({error})") from error
        if header.size < 0:
            raise tarfile.ReadError("a member of negative size")
        if header.type in _EXTENSIONS and header.size > _MOST_EXTENSION:
            raise tarfile.ReadError(f"a name or header of {header.size} bytes")
        return header


def blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read the samples of one archive, in its order; nothing is written to disk.

    The archive is read twice: first to find the columns and their types, then for the rows.

    Parameters
    ----------
    path : Path
        A tar archive, plain or gzipped.
    config : Source
        `image_mode`, `image_size` and `block_mib`.
    where : str
        Data set and shard, the beginning of an error's message.

    Yields
    ------
    pl.DataFrame
        `id` (String, the sample's key), the members' columns in the order they are first met, then
        the fields', and ``_unparsed`` (String): why a sample cannot be used, null where it can.

    Raises
    ------
    SourceError
        If the archive is damaged or ends too early, or no sample can be used.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise SourceError(f"{where}: cannot read {path}: {error}. Fetch it again.") from error
    with file:  # held open, so that both readings see the same file
        schema = _schema(file, path, where=where)
        rows = (
            schema.row(sample, config=config)
            for sample in _samples(file, path, decoded=True, where=where)
        )
        gathered = pictures.in_blocks(rows, size=lambda row: row.size, config=config)
        yield from pictures.some_usable(map(schema.frame, gathered), path=path, where=where)


def _schema(file: IO[bytes], path: Path, *, where: str) -> _Schema:
    """Read the archive for its columns; whatever breaks it is found here, before the first row."""
    seen: dict[Column, set[str]] = {}
    for sample in _samples(file, path, decoded=False, where=where):
        if sample.fault is None:
            _look(sample, seen)
        if len(seen) > MOST_COLUMNS:
            raise SourceError(
                f"{where}: {path} has more than {MOST_COLUMNS} different fields. "
                "Write what differs from sample to sample as one nested field."
            )
    if any("uint8" in kinds for kinds in seen.values()):
        pictures.need_pillow(where)
    return _Schema(seen)


def _samples(file: IO[bytes], path: Path, *, decoded: bool, where: str) -> Iterator[_Sample]:
    """Return samples; without the content of texts and pictures unless they are `decoded`."""
    sample: _Sample | None = None
    for archive, header in _headers(file, path, where=where):
        unsafe = _unsafe(header)
        parts = _parts(header.name)
        if not unsafe and (parts is None or header.isdir()):
            continue
        key, ending = parts or (header.name, "")
        if sample is None or sample.key != key or ending in sample.members:
            if sample is not None:
                yield sample
            sample = _Sample(key)
        last, content = ending.rpartition(".")[2], b""
        if unsafe:
            sample.refuse(header.name, f"unsafe name or type ({unsafe})")
        elif last not in _KNOWN:
            continue
        elif sample.held + header.size > MOST_BYTES:
            sample.refuse(header.name, f"its sample is larger than {MOST_BYTES // 2**20} MiB")
        elif sample.fault is None:
            if decoded or last in ("json", "npy"):
                content = _content(archive, header, path, where=where)
            sample.held += len(content)
        sample.members[ending] = content
    if sample is not None:
        yield sample


def _headers(
    file: IO[bytes], path: Path, *, where: str
) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Return every header, in order, and refuse an archive that is not whole."""
    try:
        file.seek(0)
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        # Through gzip rather than tarfile's own reading of it, which checks no checksum.
        stream: Any = gzip.GzipFile(fileobj=file) if packed else file
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
            while (header := archive.next()) is not None:
                # tarfile keeps every header it has read; of a million samples that is a GiB.
                archive.members = []  # type: ignore[attr-defined]
                yield archive, header
            # What follows the mark of the end: zeros, and the checksum of a gzipped archive.
            rest: Any = archive.fileobj
            while chunk := rest.read(2**20):
                if chunk.strip(b"\0"):
                    raise tarfile.ReadError("it goes on after the mark of its end")
    except _DAMAGED as error:
        raise _damaged(path, error, where=where) from error


def _damaged(path: Path, error: Exception, *, where: str) -> SourceError:
    return SourceError(
        f"{where}: cannot read {path} to its end: {str(error) or type(error).__name__}. "
        "Fetch it again, or pack it again as one tar archive."
    )


def _content(archive: tarfile.TarFile, header: tarfile.TarInfo, path: Path, *, where: str) -> bytes:
    try:
        member = archive.extractfile(header)
        return b"" if member is None else member.read()
    except _DAMAGED as error:
        raise _damaged(path, error, where=where) from error


def _unsafe(header: tarfile.TarInfo) -> str | None:
    if header.name.startswith("/"):
        return "an absolute path"
    if ".." in header.name.split("/"):
        return "a path that leaves the archive"
    if header.issym() or header.islnk():
        return "a link"
    return None if header.isreg() or header.isdir() else "a device or pipe"


def _parts(name: str) -> tuple[str, str] | None:
    """Return key and ending, or None for what belongs to no sample."""
    while name.startswith("./"):
        name = name[2:]
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    if not (stem and dot and ending) or (stem.startswith("__") and stem.endswith("__")):
        return None
    return f"{folder}{slash}{stem}", ending.lower()


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _FaultError(f"not UTF-8 (byte {error.start})") from error


def _fields(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(_text(data))
    except (ValueError, RecursionError) as error:
        raise _FaultError(f"not JSON ({error})") from error
    return value if isinstance(value, dict) else {"json": value}


def _array(data: bytes) -> np.ndarray[Any, Any]:
    """Return the array as float32 if that holds all its values, else as float64."""
    try:
        if not data.startswith(b"\x93NUMPY"):
            raise ValueError("the format is another one")
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # hostile headers make numpy raise nearly anything
        raise _FaultError(f"not an array ({str(error) or type(error).__name__})") from error
    if array.dtype.kind not in "fiub" or array.size == 0:
        raise _FaultError(f"not an array of numbers ({array.dtype} of shape {array.shape})")
    return array.astype(np.float32 if np.can_cast(array.dtype, np.float32) else np.float64)


def _look(sample: _Sample, seen: dict[Column, set[str]]) -> None:
    """Note the columns a sample gives, and the kinds of their values."""
    for ending, data in sample.members.items():
        try:
            for column, value in _values(ending, data, config=None):
                seen.setdefault(column, set()).add(_kind(value))
        except _FaultError:
            pass  # the second reading sets the sample aside


def _kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if -(2**63) <= value < 2**63 else "large"
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else str(dtype)


def _values(ending: str, data: bytes, *, config: Source | None) -> list[tuple[Column, Any]]:
    """Return what a member gives; without `config`, a picture is not decoded."""
    front, dot, last = ending.rpartition(".")
    if last == "json":  # the fields of ``meta.json`` are ``meta.<field>``
        return [((True, f"{front}{dot}{name}"), value) for name, value in _fields(data).items()]
    if last == "npy":
        return [((False, ending), _array(data))]
    if last in pictures.ENDINGS:
        if config is None:
            pixels = np.zeros((1, 1), dtype=np.uint8)
        else:
            pixels = pictures.decode(data, config=config)
        height, width = map(np.uint32, pixels.shape[:2])
        values = {"image": pixels, "width": width, "height": height}
        return [((False, f"{front}{dot}{name}"), value) for name, value in values.items()]
    text = _text(data)
    return [((False, ending), text if last in TEXTS else text.strip())]


def _type(kinds: set[str]) -> Any:
    """Return the type that holds all values of a column."""
    kinds = kinds - {"NoneType"}
    if kinds == {"float32", "float64"}:
        return pl.List(pl.Float64)
    if kinds == {"int", "float"}:
        return pl.Float64
    alone = {
        "uint8": pl.List(pl.UInt8),
        "uint32": pl.UInt32,
        "float32": pl.List(pl.Float32),
        "float64": pl.List(pl.Float64),
        "int": pl.Int64,
        "float": pl.Float64,
        "bool": pl.Boolean,
    }
    return alone.get(kinds.pop(), pl.String) if len(kinds) == 1 else pl.String


def _stored(value: Any, kind: Any) -> Any:
    """Return a value as its column holds it."""
    if value is None or kind != pl.String:
        return value
    # Not str: true, 1e5 and the like stay as JSON writes them.
    return readable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


@dataclass(frozen=True)
class _Row:
    key: str | None
    values: dict[str, Any]
    fault: str | None
    size: int = 200


class _Schema:
    """The columns of a whole archive: their names, their types, and rows made of them."""

    def __init__(self, seen: dict[Column, set[str]]) -> None:
        self.names: dict[Column, str] = {}
        self.types: dict[str, Any] = {}
        taken = {"id", UNPARSED}
        for column in sorted(seen, key=lambda column: column[0]):
            name = readable(column[1])
            while name in taken:
                name = f"{'json' if column[0] else 'member'}.{name}"
            taken.add(name)
            self.names[column] = name
            self.types[name] = _type(seen[column])

    def row(self, sample: _Sample, *, config: Source) -> _Row:
        """Decode a sample; what is wrong with it becomes the reason it is set aside for."""
        values: dict[str, Any] = {}
        size = 200
        if not sample.members:
            sample.refuse(sample.key, "no member with an ending that is read")
        for ending, data in sample.members.items():
            if sample.fault is not None:
                break
            name = f"{sample.key}.{ending}"
            try:
                for column, value in _values(ending, data, config=config):
                    stored = self.names[column]
                    if stored in values:
                        raise _FaultError(f"a second member that gives {stored!r}")
                    values[stored] = _stored(value, self.types[stored])
                    size += getattr(value, "nbytes", 0) or len(str(values[stored]))
                if size > _MOST_DECODED:
                    raise _FaultError(f"its sample takes more than {_MOST_DECODED // 2**20} MiB")
            except (_FaultError, PictureError, RecursionError) as error:
                sample.refuse(name, error)
        if sample.fault is not None:
            return _Row(None, {}, sample.fault)
        return _Row(readable(sample.key), values, None, size)

    def frame(self, rows: list[_Row]) -> pl.DataFrame:
        """Return a block; a value a sample does not have is null."""
        columns = [pl.Series("id", [row.key for row in rows], dtype=pl.String)]
        for name, kind in self.types.items():
            values = [row.values.get(name) for row in rows]
            if isinstance(kind, pl.List):
                columns.append(pictures.lists(name, values, inner=kind.inner))
            else:
                columns.append(pl.Series(name, values, dtype=kind))
        faults = pl.Series(UNPARSED, [row.fault for row in rows], dtype=pl.String)
        return pl.DataFrame([*columns, faults])

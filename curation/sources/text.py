"""Text files as UTF-8 bytes, unpacked and decoded as they are read, and what may be wrong."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa

from curation.config import Source
from curation.sources.base import UNPARSED, UNPARSED_VALUE, VALUE_LENGTH, SourceError

MOST_BYTES = 256 * 2**20
"""The longest line or record that is read."""

MOST_COLUMNS = 20_000
"""The most columns a table may have."""

_BOM = "\ufeff".encode()
_CHUNK = 2**20

DAMAGED = (
    *(OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, OverflowError),
    *(pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException),
)
"""What reading a damaged or hostile file may raise."""


@contextmanager
def reading(path: Path, *, format: str, where: str) -> Iterator[None]:
    """Turn whatever goes wrong within into one `SourceError` that says where, why and what now."""
    try:
        yield
    except SourceError:
        raise
    except DAMAGED as error:
        reason = str(error).split("\n")[0].rstrip(". ") or type(error).__name__
        raise SourceError(
            f"{where}: cannot read {path} as {format}: {reason}. "
            "Repair or remove the file, or correct `format` and `encoding` of the source."
        ) from error


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Decode what cannot be decoded to something that, written as UTF-8, is never valid."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error("curation.mark", _mark)


class _Recoded(io.RawIOBase):
    """A stream in another encoding as UTF-8; bytes that are wrong in it become `mark`."""

    def __init__(self, raw: IO[bytes], encoding: str, mark: bytes) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder(encoding)("curation.mark")
        self._mark = mark
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            data = self._raw.read(_CHUNK)
            self._ended = not data
            text = self._decoder.decode(data, final=self._ended)
            self._ready = text.encode("utf-8", "surrogateescape")
            if "\udcff" in text:  # only then a byte 0xff is in there, which UTF-8 never has
                self._ready = self._ready.replace(b"\xff", self._mark)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


class Begun:
    """A stream of which the beginning has been looked at."""

    def __init__(self, raw: Any, start: bytes) -> None:
        self._raw, self._start = raw, start

    def read(self, size: int) -> bytes:
        """Return `size` bytes; fewer only at the end."""
        taken, self._start = self._start[:size], self._start[size:]
        while len(taken) < size:
            more: bytes = self._raw.read(size - len(taken))
            if not more:
                break
            taken = taken + more if taken else more
        return taken


def _unpacked(file: IO[bytes], name: str) -> Any:
    lower = name.lower()
    if lower.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if lower.endswith(".zst"):
        return pa.input_stream(file, compression="zstd")
    return file


@contextmanager
def open_utf8(path: Path, *, encoding: str = "utf-8", mark: bytes | None = None) -> Iterator[Begun]:
    """Open a text file, plain, gzipped or packed with zstd, as UTF-8 without a byte order mark.

    Bytes that are wrong in `encoding` come through as `mark`, or else as bytes that are wrong in
    UTF-8, so that only their lines are lost.

    Raises
    ------
    ValueError
        If the file begins like UTF-16 and should be UTF-8.
    LookupError
        If there is no such encoding.
    """
    "".encode(encoding)  # refuses codecs that are no text encodings, such as hex
    with path.open("rb") as file:
        raw = _unpacked(file, path.name)
        is_utf8 = codecs.lookup(encoding).name == "utf-8"
        if is_utf8:
            begin = raw.read(len(_BOM))
            if begin[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise ValueError("it is not utf-8: it begins with the byte order mark of UTF-16")
            raw = Begun(raw, begin)
        if mark is not None or not is_utf8:
            raw = io.BufferedReader(_Recoded(raw, encoding, mark or b"\xff"), _CHUNK)
        start = raw.read(len(_BOM))
        yield Begun(raw, start.removeprefix(_BOM))


def chunk_size(config: Source) -> int:
    """Return how many bytes of text are parsed at a time, for blocks of ``config.block_mib`` MiB.

    A quarter of that: while a text becomes a table, it is there several times.
    """
    return max(2**20, config.block_mib * 2**18)


def line_blocks(stream: Begun, *, size: int) -> Iterator[bytes]:
    """Return runs of whole lines, each of about `size` bytes; a longer line comes alone.

    Raises
    ------
    ValueError
        If a line is longer than `MOST_BYTES`.
    """
    held: list[bytes] = []
    length = 0
    while data := stream.read(size):
        # Fewer bytes than asked for are the last: no block of its own for a last line without end.
        cut = data.rfind(b"\n") + 1 if len(data) == size else len(data)
        if cut == 0:
            held.append(data)
            length += len(data)
            if length > MOST_BYTES:
                raise ValueError(f"it has a line longer than {MOST_BYTES // 2**20} MiB")
            continue
        yield b"".join([*held, data[:cut]])
        held, length = [data[cut:]], len(data) - cut
    if any(held):
        yield b"".join(held)


@dataclass(frozen=True)
class Fault:
    """A row that could not be parsed: its number in the block, why, and how it begins."""

    row: int
    reason: str
    value: str | None


def begins(raw: bytes) -> str:
    """Return the beginning of a line, as far as it is kept."""
    return raw[: 4 * VALUE_LENGTH].decode("utf-8", "backslashreplace")[:VALUE_LENGTH]


def fault_columns(height: int, faults: list[Fault]) -> list[pl.Series]:
    """Return the columns that tell which rows of a block could not be parsed."""
    reasons: list[str | None] = [None] * height
    values: list[str | None] = [None] * height
    for fault in faults:
        reasons[fault.row], values[fault.row] = fault.reason, fault.value
    return [
        pl.Series(UNPARSED, reasons, dtype=pl.String),
        pl.Series(UNPARSED_VALUE, values, dtype=pl.String),
    ]


def nothing_parsed(rows: int, first: str | None) -> ValueError:
    """Return the error for a file of which no row could be parsed."""
    return ValueError(f"none of its {rows} rows can be parsed; the first: {first}")


def check_names(names: list[str]) -> None:
    """Refuse tables of too many columns, or with one that has a name of ours.

    Raises
    ------
    ValueError
        With the reason.
    """
    if len(names) > MOST_COLUMNS:
        raise ValueError(f"it has more than {MOST_COLUMNS} columns")
    taken = {UNPARSED, UNPARSED_VALUE}.intersection(names)
    if taken:
        raise ValueError(f"it has a column {min(taken)!r}, a name that is used here; rename it")

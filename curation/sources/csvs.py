"""Comma-separated values, in blocks of records."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
from numpy.typing import NDArray

from curation.config import Source
from curation.sources.base import UNPARSED, UNPARSED_VALUE, VALUE_LENGTH
from curation.sources.text import (
    MOST_BYTES,
    Begun,
    Fault,
    check_names,
    chunk_size,
    fault_columns,
    nothing_parsed,
    open_utf8,
    reading,
)

_QUOTED = re.compile(rb'"((?:[^"]|"")*+)"([^,\r\n]*)(,|\r\n|\r|\n)')
# A quoted field in the midst of others, whether it ends or not.
_QUOTES = re.compile(rb'(?:\A|[,\r\n])"(?:[^"]++|"")*+("?)')
_PLAIN = re.compile(rb"([^,\r\n]*)()(,|\r\n|\r|\n)")
_MOST_HEADER = 64 * 2**20
# Numbers whose text says more than their value: a leading zero, or more digits than a float holds.
_CODE_LIKE = r"^[+-]?(0\d|\d{16,})"


def blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read the records of a file, about ``config.block_mib`` MiB at a time.

    A file of more than one block is read twice: first for the types, which hold for all of its
    records, then for the rows. Unlike polars' own inference, texts such as ``007`` and ``7`` stay
    apart: as numbers they would be the same id.

    Parameters
    ----------
    path : Path
        The file, plain or packed with gzip or zstd: a header, fields between commas, quoted with
        ``"`` where needed. Blank lines are no rows, except where there is one column only.
    config : Source
        `encoding` and `block_mib`.
    where : str
        Data set and shard, the beginning of an error's message.

    Yields
    ------
    pl.DataFrame
        The columns the header names. If a record has too many or too few fields, or bytes that are
        no text, the file has the columns `UNPARSED` and `UNPARSED_VALUE`.

    Raises
    ------
    SourceError
        If the file is damaged or empty, a quote is never closed, or no record can be parsed.
    """
    with reading(path, format="csv", where=where):
        types, only = _look(path, config)
        for block in [only] if only is not None else _texts(path, config):
            yield types.typed(block)


def _look(path: Path, config: Source) -> tuple[_Types, pl.DataFrame | None]:
    """Read the file once; return the types, and the texts if they are a single block."""
    types, only, count = _Types(), None, 0
    for count, block in enumerate(_texts(path, config), start=1):  # noqa: B007
        types.see(block)
        only = block
    if types.rows and types.faults == types.rows:
        raise nothing_parsed(types.rows, types.first)
    return types, only if count == 1 else None


class _Types:
    """Which types the texts of each column can have so far."""

    def __init__(self) -> None:
        self.rows = self.faults = 0
        self.first: str | None = None
        self._can: dict[str, list[str]] = {}

    def see(self, block: pl.DataFrame) -> None:
        reasons = block[UNPARSED].drop_nulls()
        self.rows += block.height
        self.faults += len(reasons)
        self.first = self.first or (reasons[0] if len(reasons) else None)
        texts = block.get_columns()[:-2]
        if block.height == 0:
            return
        filled = ~_by_column(texts, lambda text: text.is_null())
        some = [text for text, any_there in zip(texts, filled, strict=True) if any_there]
        for text in some:
            self._can.setdefault(text.name, list(_KINDS))
        for kind, fits in _KINDS.items():
            asked = [text for text in some if kind in self._can[text.name]]
            for text, right in zip(asked, _by_column(asked, fits), strict=True):
                if not right:
                    self._can[text.name].remove(kind)

    def typed(self, block: pl.DataFrame) -> pl.DataFrame:
        """Return the texts of a block as what all blocks can be."""
        columns = block.get_columns()
        made = []
        for text in columns[:-2]:
            kind = next(iter(self._can.get(text.name, [])), "text")
            if kind == "bool":
                text = text == "true"
            elif kind != "text":
                text = text.cast(pl.Int64 if kind == "whole" else pl.Float64)
            made.append(text)
        return pl.DataFrame(made + (columns[-2:] if self.faults else []))


def _by_column(texts: list[pl.Series], fits: Callable[[pl.Series], pl.Series]) -> NDArray[np.bool_]:
    """Return of which columns all values fit; they are joined, for there may be thousands."""
    if not texts:
        return np.empty(0, dtype=np.bool_)
    answers = fits(pl.concat(texts, rechunk=False)).to_numpy()
    fit: NDArray[np.bool_] = np.all(answers.reshape(len(texts), -1), axis=1)
    return fit


def _is_bool(text: pl.Series) -> pl.Series:
    return text.is_in(["true", "false"]).fill_null(True)


def _is_whole(text: pl.Series) -> pl.Series:
    again = text.cast(pl.Int64, strict=False).cast(pl.String)
    return (again == text).fill_null(False) | text.is_null()


def _is_real(text: pl.Series) -> pl.Series:
    is_number = text.cast(pl.Float64, strict=False).is_not_null()
    return (is_number & ~text.str.contains(_CODE_LIKE)).fill_null(False) | text.is_null()


# Whether a text, or null, can be read as what it is named; the first that all are is taken.
_KINDS = {"bool": _is_bool, "whole": _is_whole, "real": _is_real}


def _header(stream: Any) -> tuple[list[str], bytes]:
    """Return the names of the columns, and what of the stream was read beyond them."""
    data = b""
    while True:
        more = stream.read(2**16)
        data += more or b"\n"
        fields, at = [], len(data) - len(data.lstrip(b"\r\n"))
        while found := (_QUOTED if data[at : at + 1] == b'"' else _PLAIN).match(data, at):
            quoted = data[at : at + 1] == b'"'
            fields.append(found[1].replace(b'""', b'"') + found[2] if quoted else found[1])
            at = found.end()
            # A carriage return at the very end may yet be followed by its line feed.
            if found[3] != b"," and (found[3] != b"\r" or at < len(data) or not more):
                return _names(fields), data[at:]
        if not more:
            raise ValueError("the file is empty" if not data.strip() else "its header has no end")
        if len(data) > _MOST_HEADER:
            raise ValueError(f"its header is longer than {_MOST_HEADER // 2**20} MiB")


def _names(fields: list[bytes]) -> list[str]:
    if any(b"\0" in field for field in fields):
        raise ValueError("its header holds NUL bytes, which no text in this encoding does")
    check_names([""] * len(fields))  # how many there are, before anything is made of them
    names: list[str] = []
    taken: set[str] = set()
    again: dict[str, int] = {}
    for number, field in enumerate(fields, start=1):
        free = name = field.decode() or f"column_{number}"
        while free in taken:
            free = f"{name}_duplicated_{again.setdefault(name, 0)}"
            again[name] += 1
        taken.add(free)
        names.append(free)
    check_names(names)
    return names


def _records(stream: Begun, size: int) -> Iterator[bytes]:
    """Return runs of whole records, each of about `size` bytes; a longer record comes alone."""
    data, step = b"", size
    while True:
        more = stream.read(step)
        data += more
        cut, is_open = _last_end(data)
        if len(more) < step:  # the end of the file
            if is_open:
                raise ValueError("a quote is opened and never closed")
            if data:
                yield data
            return
        if cut:
            yield data[:cut]
            data, step = data[cut:], size
        elif len(data) > MOST_BYTES:
            quote = " (perhaps a quote is opened and never closed)" if is_open else ""
            raise ValueError(f"it has a record longer than {MOST_BYTES // 2**20} MiB{quote}")
        else:
            step = max(size, len(data))  # what has been read is looked at again each time


def _last_end(data: bytes) -> tuple[int, bool]:
    """Return where the last whole record ends, and whether the data ends within quotes."""
    # Files with no line feed at all have their lines end as on the first Macintosh.
    end = b"\n" if b"\n" in data else b"\r"
    cut = at = 0
    for field in _QUOTES.finditer(data):
        cut = data.rfind(end, at, field.start() + 1) + 1 or cut
        at = field.end()
        if not field[1]:
            return cut, True
    # A carriage return at the very end may yet be followed by its line feed.
    stop = len(data) if end == b"\n" else len(data) - 1
    return data.rfind(end, at, stop) + 1 or cut, False


def _texts(path: Path, config: Source) -> Iterator[pl.DataFrame]:
    """Return the fields as texts, then `UNPARSED` and `UNPARSED_VALUE`; at least one frame."""
    # Nobody can guess these: what stands for a byte that is no text, and a record at the end.
    odd, end = secrets.token_hex(16), secrets.token_hex(16)
    with open_utf8(path, encoding=config.encoding, mark=odd.encode()) as stream:
        names, rest = _header(stream)
        if any(odd in name for name in names):
            raise ValueError(f"its header holds bytes that are not {config.encoding}")
        count = 0
        for data in _records(Begun(stream, rest), chunk_size(config)):
            block = _parse(data, names, end)
            count += block.height
            if block.height:
                yield _without_odd(block, odd, config.encoding)
        if not count:
            yield _parse(b"", names, end)


def _parse(data: bytes, names: list[str], end: str) -> pl.DataFrame:
    """Parse whole records; those with the wrong number of fields are nulls with a reason."""
    wrong: list[Any] = []

    def set_aside(row: Any) -> str:
        wrong.append(row)
        return "skip"

    keys = [str(i) for i in range(len(names))]
    line = b"" if data.endswith((b"\n", b"\r")) or not data else b"\n"
    data = b"".join([data, line, end.encode(), b"," * (len(names) - 1), b"\n"])
    table = pc.read_csv(
        pa.BufferReader(data),
        read_options=pc.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=keys),
        parse_options=pc.ParseOptions(
            newlines_in_values=True,
            invalid_row_handler=set_aside,
            ignore_empty_lines=len(keys) > 1,
        ),
        convert_options=pc.ConvertOptions(
            column_types=dict.fromkeys(keys, pa.large_string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    columns = zip(names, table.columns, strict=True)
    frame = pl.DataFrame([pl.Series(name, held, dtype=pl.String) for name, held in columns])
    if not frame.height or frame.item(-1, 0) != end:
        raise ValueError("a quote is opened and never closed")
    return _with_wrong(frame.head(-1), wrong)


def _with_wrong(frame: pl.DataFrame, wrong: list[Any]) -> pl.DataFrame:
    """Put the records that have the wrong number of fields back where they were, as nulls."""
    height = frame.height + len(wrong)
    faults = []
    for row in wrong:
        what = "more" if row.actual_columns > row.expected_columns else "fewer"
        reason = (
            f"the row has {what} fields than the header: {row.actual_columns} instead of "
            f"{row.expected_columns}"
        )
        faults.append(Fault(row.number - 1, reason, row.text))
    if wrong:
        holes = np.array([fault.row for fault in faults], dtype=np.int64)
        order = np.full(height, -1, dtype=np.int64)
        order[holes] = frame.height + np.arange(len(wrong))
        order[order < 0] = np.arange(frame.height)
        frame = pl.concat([frame, frame.clear(len(wrong))])[order]
    return frame.hstack(fault_columns(height, faults))


def _without_odd(block: pl.DataFrame, odd: str, encoding: str) -> pl.DataFrame:
    """Set rows aside that hold bytes which are no text, and shorten what is told of the others."""
    value = pl.col(UNPARSED_VALUE)
    told = value.str.replace_all(odd, "\ufffd", literal=True).str.slice(0, VALUE_LENGTH)
    block = block.with_columns(told)
    texts = pl.concat(block.get_columns(), rechunk=False)
    if not texts.str.contains(odd, literal=True).any():
        return block
    has = [text.str.contains(odd, literal=True).fill_null(False) for text in block.iter_columns()]
    rows = np.flatnonzero(np.any([mask.to_numpy() for mask in has if mask.any()], axis=0))
    reasons, values = block[UNPARSED].to_list(), block[UNPARSED_VALUE].to_list()
    for row in rows.tolist():
        first = next(t for t, mask in zip(block.iter_columns(), has, strict=True) if mask[row])
        reasons[row] = f"the row holds bytes that are not {encoding}"
        values[row] = first[row].replace(odd, "\ufffd")[:VALUE_LENGTH]
    good = ~np.isin(np.arange(block.height), rows)
    return block.select(
        pl.when(pl.Series(good)).then(pl.exclude(UNPARSED, UNPARSED_VALUE)),
        pl.Series(UNPARSED, reasons, dtype=pl.String),
        pl.Series(UNPARSED_VALUE, values, dtype=pl.String),
    )

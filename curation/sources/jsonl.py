"""One JSON object per line, in blocks of lines."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from curation.config import Source
from curation.sources.kinds import Kinds, by_name, column
from curation.sources.text import (
    MOST_BYTES,
    Fault,
    begins,
    check_names,
    chunk_size,
    fault_columns,
    line_blocks,
    nothing_parsed,
    open_utf8,
    reading,
)

# A block of rows that have little in common is cut, or nulls would fill the memory.
_MOST_CELLS = 2**23
_JSON = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass
class _Block:
    """Rows of a run of lines; one that could not be parsed is an empty row with a fault."""

    rows: list[dict[str, Any]]
    faults: list[Fault]


@dataclass
class _Seen:
    """What the first reading has found."""

    kinds: dict[str, Kinds] = field(default_factory=dict)
    blocks: int = 0
    rows: int = 0
    faults: int = 0
    first: str | None = None

    def add(self, block: _Block) -> None:
        self.blocks += 1
        self.rows += len(block.rows)
        self.faults += len(block.faults)
        if block.faults:
            self.first = self.first or block.faults[0].reason
        for name, values in by_name(block.rows).items():
            self.kinds.setdefault(name, Kinds()).see(values)
        check_names(list(self.kinds))


def blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read the objects of a file, about ``config.block_mib`` MiB of lines at a time.

    A file of more than one block is read twice: first for the types, which hold for all of its
    lines, then for the rows. Lines that are blank are no rows.

    Parameters
    ----------
    path : Path
        The file, plain or packed with gzip or zstd; UTF-8.
    config : Source
        `block_mib`.
    where : str
        Data set and shard, the beginning of an error's message.

    Yields
    ------
    pl.DataFrame
        A column per field, in the order they are first met; numbers that are whole here and
        fractions there are Float64, also within lists, and anything else that is mixed is text.
        If a line is not an object, the file has the columns `UNPARSED` and `UNPARSED_VALUE`.

    Raises
    ------
    SourceError
        If the file is damaged or empty, or no line is an object.
    """
    with reading(path, format="jsonl", where=where):
        seen, only = _Seen(), None
        for block in _parsed(path, config):
            seen.add(block)
            only = block if seen.blocks == 1 else None
        if seen.rows == 0:
            raise ValueError("the file is empty")
        if seen.faults == seen.rows:
            raise nothing_parsed(seen.rows, seen.first)
        types = {name: kinds.dtype() for name, kinds in seen.kinds.items()}
        for block in [only] if only else _parsed(path, config):
            yield from _frames(block, types, faulty=seen.faults > 0)


def _parsed(path: Path, config: Source) -> Iterator[_Block]:
    number = 1
    with open_utf8(path) as stream:
        for lines in line_blocks(stream, size=chunk_size(config)):
            block = _parse(lines, number)
            number += lines.count(b"\n")
            if block.rows:
                yield block


def _parse(data: bytes, number: int) -> _Block:
    rows = None if _SURROGATE.search(data) else _all_at_once(data)
    if rows is not None:
        return _Block(rows, [])
    block = _Block([], [])
    for at, line in enumerate(data.split(b"\n"), start=number):
        if not line.strip():
            continue
        row, reason = _object(line)
        if reason is not None:
            fault = Fault(len(block.rows), f"line {at} {reason}", begins(line))
            block.faults.append(fault)
        block.rows.append(row)
    return block


def _all_at_once(data: bytes) -> list[dict[str, Any]] | None:
    """Parse all lines as one array, several times as fast; None if a line has something wrong.

    Between the lines stands a text nobody can guess: lines that are wrong alone, but would be right
    together, cannot be taken for rows.
    """
    lines = [line for line in data.split(b"\n") if line and not line.isspace()]
    if max(map(len, lines), default=0) > MOST_BYTES:
        raise ValueError(f"it has a line longer than {MOST_BYTES // 2**20} MiB")
    mark = secrets.token_hex(16)
    try:
        text = b"".join([b"[", f',"{mark}",'.encode().join(lines), b"]"]).decode()
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    rows: list[dict[str, Any]] = found[::2]
    between = found[1::2]
    if len(rows) != len(lines) or between.count(mark) != len(between):
        return None
    return rows if all(type(row) is dict for row in rows) else None


def _object(line: bytes) -> tuple[dict[str, Any], str | None]:
    """Return a line's object, or an empty one and what is wrong."""
    try:
        found = json.loads(line.decode())
        if _SURROGATE.search(line):
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        return {}, f"is not UTF-8 (byte {error.start + 1})"
    except UnicodeEncodeError:
        return {}, "holds half of a surrogate pair, which is no text"
    except RecursionError:
        return {}, "is nested too deeply"
    except ValueError as error:
        return {}, f"is not JSON: {error}"
    if not isinstance(found, dict):
        return {}, f"is not an object: expected an object, got {_JSON.get(type(found), 'a number')}"
    return found, None


def _frames(block: _Block, types: dict[str, Any], *, faulty: bool) -> Iterator[pl.DataFrame]:
    step = max(1, _MOST_CELLS // max(1, len(types)))
    for start in range(0, len(block.rows), step):
        rows = block.rows[start : start + step]
        columns = [
            column(name or "column_0", [row.get(name) for row in rows], kind)
            for name, kind in types.items()
        ]
        if faulty:
            here = [
                Fault(f.row - start, f.reason, f.value)
                for f in block.faults
                if start <= f.row < start + step
            ]
            columns += fault_columns(len(rows), here)
        yield pl.DataFrame(columns)

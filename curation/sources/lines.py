"""Lines of text, split by a regular expression into named columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from curation.config import Source
from curation.sources.text import (
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

NO_MATCH = "the line does not match line_pattern"


def blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read the lines of a file, about ``config.block_mib`` MiB at a time.

    Parameters
    ----------
    path : Path
        The file, plain or packed with gzip or zstd.
    config : Source
        `line_pattern`, whose named groups become columns and which must match the whole line;
        `encoding` and `block_mib`.
    where : str
        Data set and shard, the beginning of an error's message.

    Yields
    ------
    pl.DataFrame
        The named groups (String), `UNPARSED` and `UNPARSED_VALUE`.

    Raises
    ------
    SourceError
        If the file is damaged or empty, or, after the last block, if no line matches.
    """
    with reading(path, format="lines", where=where):
        expression = re.compile(config.line_pattern or "")
        check_names(list(expression.groupindex))
        rows, usable, first = 0, 0, None
        with open_utf8(path, encoding=config.encoding) as stream:
            for data in line_blocks(stream, size=chunk_size(config)):
                frame, faults = _frame(data, expression)
                first = first or (faults[0].reason if faults else None)
                rows += frame.height
                usable += frame.height - len(faults)
                yield frame
        if not rows:
            raise ValueError("the file is empty")
        if not usable:
            raise nothing_parsed(rows, first)


def _frame(data: bytes, expression: re.Pattern[str]) -> tuple[pl.DataFrame, list[Fault]]:
    # Not splitlines: it also splits at characters such as \x85, which are text in latin-1.
    lines = data.removesuffix(b"\n").split(b"\n")
    found: list[re.Match[str] | None] = []
    faults = []
    for row, line in enumerate(lines):
        match, reason = None, NO_MATCH
        try:
            match = expression.fullmatch(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            reason = f"the line holds bytes that are no text (byte {error.start + 1})"
        if match is None:
            faults.append(Fault(row, reason, begins(line.removesuffix(b"\r"))))
        found.append(match)
    columns = [
        pl.Series(name, [m and m.group(name) for m in found], dtype=pl.String)
        for name in expression.groupindex
    ]
    return pl.DataFrame([*columns, *fault_columns(len(lines), faults)]), faults

"""Read one file (Parquet, JSONL, CSV, lines; the text ones also gzipped) into a table."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from pathlib import Path
from typing import Any

import polars as pl

from curation.config import Source
from curation.sources.base import SourceError

UNPARSED = "_unparsed"
"""Column with the raw text of lines that do not match ``line_pattern``; null on the others."""

ENDINGS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
    ".csv": "csv",
    ".csv.gz": "csv",
}
LINES_ENDINGS = (".txt", ".txt.gz", ".log", ".log.gz")

_BOM = b"\xef\xbb\xbf"
# Numbers whose text says more than their value: a leading zero, or more digits than a float holds.
_CODE_LIKE = r"^[+-]?(0\d|\d{16,})"


def ending(name: str, *, format: str) -> str | None:
    """Return the ending by which `name` is read in `format`, or None if it is not such a file."""
    lower = name.lower()
    if format == "lines":
        known = [e for e in LINES_ENDINGS if lower.endswith(e)]
    else:
        known = [e for e, f in ENDINGS.items() if lower.endswith(e) and format in ("auto", f)]
    return max(known, key=len) if known else None


def read_table(path: Path, *, config: Source, where: str) -> pl.DataFrame:
    """Read a whole file.

    Parameters
    ----------
    path : Path
        The file.
    config : Source
        Gives `format` (``auto`` goes by the file's ending), `encoding` and `line_pattern`.
    where : str
        Data set and shard, the beginning of an error's message.

    Raises
    ------
    SourceError
        If the file is missing, damaged, or not what `format` says.
    """
    format: str = config.format
    if format == "auto":
        format = ENDINGS.get(ending(path.name, format="auto") or "", "auto")
    if format not in ("parquet", "jsonl", "csv", "lines"):
        raise SourceError(
            f"{where}: {path} cannot be read with format `{format}`. Known endings are "
            f"{', '.join(ENDINGS)}; text lines need format `lines` and a `line_pattern`."
        )
    try:
        if format == "parquet":
            # One file is meant: no glob signs in its name, no columns out of its folders' names.
            return pl.read_parquet(path, glob=False, hive_partitioning=False)
        data = _text(path, encoding=config.encoding if format != "jsonl" else "utf-8")
        if format == "csv":
            return _typed(pl.read_csv(data, infer_schema=False))
        if format == "jsonl":
            return _jsonl(data)
        return _lines(data.decode(), pattern=config.line_pattern or "")
    except (OSError, EOFError, zlib.error, ValueError, LookupError, pl.exceptions.PolarsError) as e:
        reason = str(e).split("\n")[0] or type(e).__name__
        raise SourceError(
            f"{where}: cannot read {path} as {format}: {reason}. "
            "Repair or remove the file, or correct `format` and `encoding` of the source."
        ) from e


def _text(path: Path, *, encoding: str) -> bytes:
    """Return the file's text as UTF-8 bytes without a byte order mark."""
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        data = gzip.decompress(data)
    return data.decode(encoding).encode().removeprefix(_BOM)


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Give the text columns of a CSV a type that all their rows have.

    Every row is looked at, so nothing deep in the file can contradict the type. Unlike polars' own
    inference, texts such as ``007`` and ``7`` stay apart: as numbers they would be the same id.
    """
    return frame.with_columns(_typed_column(column) for column in frame)


def _typed_column(text: pl.Series) -> pl.Series:
    filled = text.drop_nulls()
    if filled.is_empty():
        return text
    if filled.is_in(["true", "false"]).all():
        return text == "true"
    whole = text.cast(pl.Int64, strict=False)
    if whole.null_count() == text.null_count() and (whole.cast(pl.String) == text).all():
        return whole
    real = text.cast(pl.Float64, strict=False)
    if real.null_count() == text.null_count() and not filled.str.contains(_CODE_LIKE).any():
        return real
    return text


def _jsonl(data: bytes) -> pl.DataFrame:
    try:
        return pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        # Slower, but it says which line is wrong, and it reads columns of mixed types.
        return _jsonl_by_line(data)


def _jsonl_by_line(data: bytes) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: expected an object, got {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise ValueError("the file is empty")
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame([_json_column(name, [row.get(name) for row in rows]) for name in names])


def _json_column(name: str, values: list[Any]) -> pl.Series:
    """Return values of one type as that type, numbers as numbers, anything mixed as its text."""
    kinds = {type(v) for v in values if v is not None}
    inner = {type(x) for v in values if type(v) is list for x in v if x is not None}
    try:
        if kinds == {int, float}:
            return pl.Series(name, values, dtype=pl.Float64, strict=False)
        if kinds == {list} and inner == {int, float}:
            return pl.Series(name, values, dtype=pl.List(pl.Float64), strict=False)
        if len(kinds) <= 1 and len(inner) <= 1:
            return pl.Series(name, values, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        pass  # e.g. objects whose own fields are mixed
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pl.Series(name, texts, dtype=pl.String)


def _lines(text: str, *, pattern: str) -> pl.DataFrame:
    """Split lines into the pattern's named groups; the pattern must match the whole line."""
    expression = re.compile(pattern)
    # Not splitlines: it also splits at characters such as \x85, which are text in latin-1.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    found = [expression.fullmatch(line) for line in lines]
    columns = {
        name: pl.Series(name, [m and m.group(name) for m in found], dtype=pl.String)
        for name in expression.groupindex
    }
    raw = [None if m else line for m, line in zip(found, lines, strict=True)]
    return pl.DataFrame([*columns.values(), pl.Series(UNPARSED, raw, dtype=pl.String)])

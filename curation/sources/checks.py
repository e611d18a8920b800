"""What may be wrong with the values of a row, column by column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.sources.base import VALUE_LENGTH, SourceError

Mask = NDArray[np.bool_]
QUARANTINE = {"row": pl.UInt32, "field": pl.String, "reason": pl.String, "value": pl.String}

MOST = 1e18
"""The largest number in a list: of larger ones, squares and their sums are beyond float32."""

MOST_NAME = 1000
"""The most characters of an id, a label or a group."""


@dataclass
class Faults:
    """Collects the first fault of each row of a block.

    Attributes
    ----------
    bad : Mask
        Rows of the block that have one.
    start : int
        Number of the block's first row in the shard.
    usual : int or None
        How many values a list of the shard has, once that is known.
    found : list
        Number of the row in the shard, field, reason and value.
    """

    bad: Mask
    start: int = 0
    usual: int | None = None
    found: list[tuple[int, str, str, str | None]] = field(default_factory=list)

    def add(
        self, mask: Mask, name: str, values: pl.Series, reason: str | Callable[[int], str]
    ) -> None:
        """Note what is wrong with the rows of `mask`; `reason` may depend on the row's number."""
        for row in np.flatnonzero(mask & ~self.bad).tolist():
            why = reason if isinstance(reason, str) else reason(row)
            self.found.append((self.start + row, name, why, _short(values[row])))
        self.bad |= mask

    def frame(self) -> pl.DataFrame:
        """Return what was found, sorted by row."""
        return pl.DataFrame(self.found, schema=QUARANTINE, orient="row").sort("row")


def mask_of(series: pl.Series) -> Mask:
    """Return where a Boolean column is true."""
    return series.fill_null(False).to_numpy()


def _short(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, pl.Series):
        dots = ", ..." if len(value) > 20 else ""
        value = f"[{', '.join(map(str, value.head(20)))}{dots}] ({len(value)} values)"
    return str(value)[:VALUE_LENGTH]


def as_text(series: pl.Series, role: str, where: str) -> pl.Series:
    """Return a column of texts or numbers as texts.

    Raises
    ------
    SourceError
        If it is of another type, or holds bytes that are no text.
    """
    try:
        if not series.dtype.is_nested():
            return series.cast(pl.String)
    except pl.exceptions.PolarsError:
        pass  # e.g. bytes that are no text
    raise SourceError(
        f"{where}: {role} {series.name!r} is {series.dtype}. Choose a column of texts or numbers."
    )


def _empty(text: pl.Series) -> Mask:
    return mask_of(text.str.strip_chars() == "")


def check_input(series: pl.Series, faults: Faults, where: str) -> pl.Series:
    """Return the input as it is kept: texts as String, lists as they are."""
    kind = series.dtype
    if isinstance(kind, (pl.List, pl.Array)):
        inner = pl.Series([], dtype=kind).dtype.inner  # type: ignore[attr-defined]
        if inner.is_numeric() or inner == pl.Null:
            _check_lists(series, faults)
            return series
    if isinstance(kind, (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        text = series.cast(pl.String)
        faults.add(mask_of(text.is_null()), series.name, text, "the input is null")
        faults.add(_empty(text), series.name, text, "the input is empty")
        return text
    raise SourceError(
        f"{where}: columns.input {series.name!r} is {kind}. "
        "Choose a column of texts, or of flat lists of numbers (pixels, a vector)."
    )


def _check_lists(series: pl.Series, faults: Faults) -> None:
    lists = series.arr.to_list() if isinstance(series.dtype, pl.Array) else series
    lengths = lists.list.len()
    faults.add(mask_of(series.is_null()), series.name, series, "the input is null")
    faults.add(mask_of(lengths == 0), series.name, series, "the input is empty")
    if faults.usual is None:
        counts = lengths.filter(~pl.Series(faults.bad)).alias("length").value_counts()
        if counts.is_empty():
            return
        faults.usual = int(counts.sort("count", "length", descending=[True, False])["length"][0])
    usual = faults.usual
    faults.add(
        mask_of(lengths != usual),
        series.name,
        series,
        lambda row: f"the input has {lengths[row]} values, most of this shard's have {usual}",
    )
    number = pl.element().cast(pl.Float64)
    bad = number.is_null() | ~number.is_finite()
    wrong = mask_of(lists.list.eval(bad | (number.abs() > MOST)).list.any())
    if wrong.any():
        reason = "the input holds a value that is null or not finite"
        faults.add(mask_of(lists.list.eval(bad).list.any()), series.name, series, reason)
        faults.add(wrong, series.name, series, f"the input holds a number beyond {MOST:g}")


def _long(text: pl.Series, faults: Faults, what: str) -> None:
    """Set names aside that are no names: all of them are held side by side, as wide as one."""
    lengths = text.str.len_chars()
    faults.add(
        mask_of(lengths > MOST_NAME),
        text.name,
        text,
        lambda row: f"the {what} is longer than {MOST_NAME} characters: {lengths[row]}",
    )


def check_label(series: pl.Series, faults: Faults, where: str) -> pl.Series:
    """Return the label as text; it must not be null."""
    text = as_text(series, "columns.label", where)
    faults.add(mask_of(text.is_null()), series.name, text, "the label is null")
    _long(text, faults, "label")
    return text


def check_group(series: pl.Series, faults: Faults, where: str) -> None:
    """Refuse what cannot be a group's name; null can, and the column is kept as it is."""
    _long(as_text(series, "columns.group", where), faults, "group")


def check_target(series: pl.Series, faults: Faults, where: str) -> pl.Series:
    """Return the target as Float64; it must be a finite number, or the text of one."""
    is_text = isinstance(series.dtype, (pl.String, pl.Categorical, pl.Enum))
    source = series.cast(pl.String).str.strip_chars() if is_text else series
    try:
        number = source.cast(pl.Float64, strict=False)
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"{where}: columns.target {series.name!r} is {series.dtype}. "
            "Choose a column of numbers."
        ) from error
    faults.add(mask_of(series.is_null()), series.name, series, "the target is null")
    faults.add(mask_of(number.is_null()), series.name, series, "the target is not a number")
    faults.add(mask_of(~number.is_finite()), series.name, series, "the target is not finite")
    return number


def check_ids(series: pl.Series, faults: Faults, where: str) -> pl.Series:
    """Return the ids as texts; they must be neither null nor empty."""
    text = as_text(series, "columns.id", where)
    faults.add(mask_of(text.is_null()), series.name, text, "the id is null")
    faults.add(_empty(text), series.name, text, "the id is empty")
    _long(text, faults, "id")
    return text

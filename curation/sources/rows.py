"""Raw columns of a shard become validated rows; what is wrong is set aside with its reason."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.config import Columns, Holdout, matches
from curation.sources.base import SourceError, some
from curation.sources.tables import UNPARSED

RESERVED = frozenset(
    [
        *("row", "split", "shard", "weight", "training_weight", "inclusion_probability"),
        *("calibrated_weight", "cluster", "score", "distance", "proxy", "reason", "round"),
    ]
)
"""Names the pipeline gives to columns of its own."""

_VALUE_LENGTH = 200
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """A shard's rows, parted.

    Attributes
    ----------
    accepted : pl.DataFrame
        `id` (String), `row` (UInt32, number in the shard), `split` (String, ``train`` or
        ``holdout``), then the user's columns (see `stored_name`); the label is String, the target
        Float64.
    quarantined : pl.DataFrame
        `row` (UInt32), `field`, `reason`, `value` (String, at most 200 characters): one line per
        row that was set aside, with the first thing wrong with it.
    """

    accepted: pl.DataFrame
    quarantined: pl.DataFrame


def stored_name(name: str, *, columns: Columns) -> str:
    """Return the name a user's column has in `Rows.accepted`.

    A name the pipeline uses itself gets the suffix ``_source``; so does ``id``, unless it is the
    configured id.
    """
    taken = name in RESERVED or (name == "id" and columns.id != "id")
    return f"{name}_source" if taken else name


@dataclass
class _Faults:
    """Collects the first fault of each row."""

    bad: Mask
    found: list[tuple[int, str, str, str | None]] = field(default_factory=list)

    def add(
        self, mask: Mask, name: str, values: pl.Series, reason: str | Callable[[int], str]
    ) -> None:
        for row in np.flatnonzero(mask & ~self.bad).tolist():
            why = reason if isinstance(reason, str) else reason(row)
            self.found.append((row, name, why, _short(values[row])))
        self.bad |= mask

    def frame(self) -> pl.DataFrame:
        schema = {"row": pl.UInt32, "field": pl.String, "reason": pl.String, "value": pl.String}
        return pl.DataFrame(self.found, schema=schema, orient="row").sort("row")


def to_rows(
    frame: pl.DataFrame, *, columns: Columns, holdout: Holdout, dataset: str, shard: str
) -> Rows:
    """Validate a shard's rows, give each an id and a split.

    Parameters
    ----------
    frame : pl.DataFrame
        The raw columns, as `ShardSource.read` returns them.
    columns : Columns
        Which column is what. Without an `id` column, the id is the first 16 bytes (hex) of the
        SHA-256 of the row's input, label and target.
    holdout : Holdout
        Which rows are never selected. By `fraction`, a row is held out if the SHA-256 of its id
        and the seed, as a number in [0, 1), is below it: that depends on no other row.
    dataset, shard : str
        For error messages; `shard` also for ``holdout.shards``.

    Raises
    ------
    SourceError
        If a configured column is missing, or has a type that no row could be right in.
    """
    where = f"{dataset}: shard {shard}"
    _require_columns(frame, columns, holdout, where)
    faults = _Faults(np.zeros(frame.height, dtype=np.bool_))
    if UNPARSED in frame.columns:
        raw = frame[UNPARSED]
        faults.add(_mask(raw.is_not_null()), UNPARSED, raw, "the line does not match line_pattern")

    typed = {columns.input: _input(frame[columns.input], faults, where)}
    if columns.label:
        typed[columns.label] = _label(frame[columns.label], faults, where)
    if columns.target:
        typed[columns.target] = _target(frame[columns.target], faults, where)
    if columns.id:
        ids = _given_ids(frame[columns.id], faults, where)
    else:
        label = typed.get(columns.label or "")
        target = typed.get(columns.target or "")
        ids = _content_ids(typed[columns.input], label, target, good=~faults.bad)
    _repeated(ids, columns.id or "id", faults)

    rows = np.flatnonzero(~faults.bad)
    split = _split(frame, ids, rows, holdout=holdout, shard=shard, where=where)
    own = [
        typed.get(name, frame[name])[rows].alias(stored_name(name, columns=columns))
        for name in frame.columns
        if name != UNPARSED and not (name == "id" and columns.id == "id")
    ]
    head = [ids[rows].alias("id"), pl.Series("row", rows, dtype=pl.UInt32), split]
    return Rows(accepted=pl.DataFrame([*head, *own]), quarantined=faults.frame())


def _require_columns(frame: pl.DataFrame, columns: Columns, holdout: Holdout, where: str) -> None:
    wanted = {f"columns.{role}": name for role, name in columns if name}
    if holdout.column:
        wanted["holdout.column"] = holdout.column
    missing = [f"{role} {name!r}" for role, name in wanted.items() if name not in frame.columns]
    if missing:
        raise SourceError(
            f"{where}: missing {', '.join(missing)}. The shard has the columns "
            f"{some(frame.columns)}. Correct the names under `columns` and `holdout`, or the data."
        )
    for name in frame.columns:
        stored = stored_name(name, columns=columns)
        if stored != name and stored in frame.columns:
            raise SourceError(
                f"{where}: column {name!r} would be kept as {stored!r}, which exists too. "
                "Rename one of the two in the data."
            )


def _mask(series: pl.Series) -> Mask:
    return series.fill_null(False).to_numpy()


def _short(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, pl.Series):
        dots = ", ..." if len(value) > 20 else ""
        value = f"[{', '.join(map(str, value.head(20)))}{dots}] ({len(value)} values)"
    return str(value)[:_VALUE_LENGTH]


def _as_text(series: pl.Series, role: str, where: str) -> pl.Series:
    try:
        if not series.dtype.is_nested():
            return series.cast(pl.String)
    except pl.exceptions.PolarsError:
        pass  # e.g. bytes that are no text
    raise SourceError(
        f"{where}: {role} {series.name!r} is {series.dtype}. Choose a column of texts or numbers."
    )


def _empty(text: pl.Series) -> Mask:
    return _mask(text.str.strip_chars() == "")


def _input(series: pl.Series, faults: _Faults, where: str) -> pl.Series:
    """Return the input as it is kept: texts as String, lists as they are."""
    kind = series.dtype
    if isinstance(kind, (pl.List, pl.Array)):
        inner = pl.Series([], dtype=kind).dtype.inner  # type: ignore[attr-defined]
        if inner.is_numeric() or inner == pl.Null:
            _check_lists(series, faults)
            return series
    if isinstance(kind, (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        text = series.cast(pl.String)
        faults.add(_mask(text.is_null()), series.name, text, "the input is null")
        faults.add(_empty(text), series.name, text, "the input is empty")
        return text
    raise SourceError(
        f"{where}: columns.input {series.name!r} is {kind}. "
        "It must hold texts, or flat lists of numbers (pixels, a vector)."
    )


def _check_lists(series: pl.Series, faults: _Faults) -> None:
    lists = series.arr.to_list() if isinstance(series.dtype, pl.Array) else series
    lengths = lists.list.len()
    faults.add(_mask(series.is_null()), series.name, series, "the input is null")
    faults.add(_mask(lengths == 0), series.name, series, "the input is empty")
    counts = lengths.filter(~pl.Series(faults.bad)).alias("length").value_counts()
    if counts.is_empty():
        return
    usual = counts.sort("count", "length", descending=[True, False])["length"][0]
    faults.add(
        _mask(lengths != usual),
        series.name,
        series,
        lambda row: f"the input has {lengths[row]} values, most of this shard's have {usual}",
    )
    element = pl.element().cast(pl.Float64)
    wrong = lists.list.eval(element.is_null() | ~element.is_finite()).list.any()
    reason = "the input holds a value that is null or not finite"
    faults.add(_mask(wrong), series.name, series, reason)


def _label(series: pl.Series, faults: _Faults, where: str) -> pl.Series:
    text = _as_text(series, "columns.label", where)
    faults.add(_mask(text.is_null()), series.name, text, "the label is null")
    return text


def _target(series: pl.Series, faults: _Faults, where: str) -> pl.Series:
    is_text = isinstance(series.dtype, (pl.String, pl.Categorical, pl.Enum))
    source = series.cast(pl.String).str.strip_chars() if is_text else series
    try:
        number = source.cast(pl.Float64, strict=False)
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"{where}: columns.target {series.name!r} is {series.dtype}. "
            "Choose a column of numbers."
        ) from error
    faults.add(_mask(series.is_null()), series.name, series, "the target is null")
    faults.add(_mask(number.is_null()), series.name, series, "the target is not a number")
    faults.add(_mask(~number.is_finite()), series.name, series, "the target is not finite")
    return number


def _given_ids(series: pl.Series, faults: _Faults, where: str) -> pl.Series:
    text = _as_text(series, "columns.id", where)
    faults.add(_mask(text.is_null()), series.name, text, "the id is null")
    faults.add(_empty(text), series.name, text, "the id is empty")
    return text


def _content_ids(
    content: pl.Series, label: pl.Series | None, target: pl.Series | None, *, good: Mask
) -> pl.Series:
    """Return the ids of the good rows, null elsewhere.

    Each part is preceded by its length, or by -1 if it is not configured, so that no two contents
    are written alike. Lists are written as float64: a shard that happens to hold whole numbers only
    gives the same ids as one with fractions. Adding 0.0 makes -0.0 the same as 0.0.
    """
    rows = np.flatnonzero(good)
    ids: list[str | None] = [None] * len(good)
    if rows.size == 0:
        return pl.Series("id", ids, dtype=pl.String)
    if content.dtype == pl.String:
        inputs = [text.encode() for text in content[rows]]
    else:
        flat = content[rows].explode().cast(pl.Float64).to_numpy()
        matrix = (flat + 0.0).astype("<f8", copy=False).reshape(rows.size, -1)
        inputs = [vector.tobytes() for vector in matrix]
    absent: list[bytes | None] = [None] * rows.size
    labels = absent if label is None else [text.encode() for text in label[rows]]
    targets = absent if target is None else [struct.pack("<d", x + 0.0) for x in target[rows]]
    for row, parts in zip(rows.tolist(), zip(inputs, labels, targets, strict=True), strict=True):
        hashed = hashlib.sha256()
        for part in parts:
            hashed.update(struct.pack("<q", -1 if part is None else len(part)))
            hashed.update(part or b"")
        ids[row] = hashed.hexdigest()[:32]
    return pl.Series("id", ids, dtype=pl.String)


def _repeated(ids: pl.Series, name: str, faults: _Faults) -> None:
    """Set aside every row whose id a good row above it has."""
    first: dict[str, int] = {}
    same: dict[int, int] = {}
    values = ids.to_list()
    for row in np.flatnonzero(~faults.bad).tolist():
        earlier = first.setdefault(values[row], row)
        if earlier != row:
            same[row] = earlier
    mask = np.zeros(len(ids), dtype=np.bool_)
    mask[list(same)] = True
    faults.add(mask, name, ids, lambda row: f"same id as row {same[row]}")


def _split(
    frame: pl.DataFrame,
    ids: pl.Series,
    rows: NDArray[np.intp],
    *,
    holdout: Holdout,
    shard: str,
    where: str,
) -> pl.Series:
    if holdout.fraction is not None:
        held = [_number(f"{holdout.seed}:{i}") < holdout.fraction for i in ids[rows]]
    elif holdout.shards is not None:
        held = [matches(shard, holdout.shards)] * rows.size
    else:
        values = _as_text(frame[holdout.column or ""], "holdout.column", where)
        held = [value in holdout.values for value in values[rows]]
    return pl.Series("split", ["holdout" if h else "train" for h in held], dtype=pl.String)


def _number(text: str) -> float:
    """Return a number in [0, 1) that is a hash of `text`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2.0**64

"""Raw columns of a shard become validated rows; what is wrong is set aside with its reason."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.config import Columns, Holdout, matches
from curation.sources.base import UNPARSED, UNPARSED_VALUE, SourceError, some
from curation.sources.checks import (
    Faults,
    as_text,
    check_group,
    check_ids,
    check_input,
    check_label,
    check_target,
    mask_of,
)
from curation.sources.ids import Seen, content_ids, hashes

RESERVED = frozenset(
    [
        *("row", "split", "shard", "weight", "training_weight", "inclusion_probability"),
        *("calibrated_weight", "cluster", "score", "distance", "proxy", "reason", "round"),
    ]
)
"""Names the pipeline gives to columns of its own."""

_MOST_ROWS = 2**32 - 1


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


def stored_columns(columns: Columns) -> Columns:
    """Return the configured columns by the names they have in the store."""
    stored = {
        field: stored_name(value, columns=columns)
        for field, value in columns.model_dump().items()
        if value
    }
    return columns.model_copy(update=stored)


class RowReader:
    """Validates the rows of one shard, a block at a time, and gives each an id and a split.

    Parameters
    ----------
    columns : Columns
        Which column is what. Without an `id` column, the id is the first 16 bytes (hex) of the
        SHA-256 of the row's input, label and target.
    holdout : Holdout
        Which rows are never selected. By `fraction`, a row is held out if the SHA-256 of its id
        and the seed, as a number in [0, 1), is below it: that depends on no other row.
    dataset, shard : str
        For error messages; `shard` also for ``holdout.shards``.

    Attributes
    ----------
    rows_in, accepted, quarantined : int
        How many rows there were so far, and what became of them.
    """

    def __init__(self, *, columns: Columns, holdout: Holdout, dataset: str, shard: str) -> None:
        self.rows_in = self.accepted = self.quarantined = 0
        self._columns, self._holdout, self._shard = columns, holdout, shard
        self._where = f"{dataset}: shard {shard}"
        self._seen = Seen()
        self._usual: int | None = None

    def take(self, frame: pl.DataFrame) -> Rows:
        """Validate the next block.

        The numbers of rows go on from the block before, and an id that a row of an earlier block
        has is repeated. What lists are too short or too long is told by the first block of which
        any list could be right.

        Parameters
        ----------
        frame : pl.DataFrame
            The raw columns, as `ShardSource.blocks` gives them.

        Raises
        ------
        SourceError
            If a configured column is missing, or has a type that no row could be right in.
        """
        columns, where = self._columns, self._where
        if self.rows_in + frame.height > _MOST_ROWS:
            raise SourceError(f"{where}: more than {_MOST_ROWS} rows. Cut it into several shards.")
        _require_columns(frame, columns, self._holdout, where)
        faults = Faults(np.zeros(frame.height, dtype=np.bool_), self.rows_in, self._usual)
        _unparsed(frame, faults)
        typed = self._typed(frame, faults)
        ids = self._ids(frame, typed, faults)
        self._usual = faults.usual

        rows = np.flatnonzero(~faults.bad)
        split = _split(frame, ids, rows, holdout=self._holdout, shard=self._shard, where=where)
        own = [
            typed.get(name, frame[name])[rows].alias(stored_name(name, columns=columns))
            for name in frame.columns
            if name not in (UNPARSED, UNPARSED_VALUE) and not (name == "id" == columns.id)
        ]
        numbers = pl.Series("row", rows + self.rows_in, dtype=pl.UInt32)
        accepted = pl.DataFrame([ids[rows].alias("id"), numbers, split, *own])
        self.rows_in += frame.height
        self.accepted += accepted.height
        self.quarantined += len(faults.found)
        return Rows(accepted=accepted, quarantined=faults.frame())

    def _typed(self, frame: pl.DataFrame, faults: Faults) -> dict[str, pl.Series]:
        columns, where = self._columns, self._where
        typed = {columns.input: check_input(frame[columns.input], faults, where)}
        if columns.label:
            typed[columns.label] = check_label(frame[columns.label], faults, where)
        if columns.target:
            typed[columns.target] = check_target(frame[columns.target], faults, where)
        if columns.group:
            check_group(frame[columns.group], faults, where)
        return typed

    def _ids(self, frame: pl.DataFrame, typed: dict[str, pl.Series], faults: Faults) -> pl.Series:
        """Return the ids of rows, and set aside those whose id an earlier good row has."""
        columns = self._columns
        if columns.id:
            ids = check_ids(frame[columns.id], faults, self._where)
        else:
            label = typed.get(columns.label or "")
            target = typed.get(columns.target or "")
            ids = content_ids(typed[columns.input], label, target, good=~faults.bad)
        good = np.flatnonzero(~faults.bad)
        hashed = hashes(ids[good].to_list(), are_hex=columns.id is None)
        earlier = np.full(frame.height, -1, dtype=np.int64)
        earlier[good] = self._seen.add(hashed, good + self.rows_in)
        faults.add(
            earlier >= 0, columns.id or "id", ids, lambda row: f"same id as row {earlier[row]}"
        )
        return ids


def to_rows(
    frame: pl.DataFrame, *, columns: Columns, holdout: Holdout, dataset: str, shard: str
) -> Rows:
    """Validate a shard that is in memory at once; see `RowReader`, which this calls.

    Raises
    ------
    SourceError
        If a configured column is missing, or has a type that no row could be right in.
    """
    reader = RowReader(columns=columns, holdout=holdout, dataset=dataset, shard=shard)
    return reader.take(frame)


def _unparsed(frame: pl.DataFrame, faults: Faults) -> None:
    """Set aside the rows that could not be parsed, for the reason they come with."""
    if UNPARSED not in frame.columns:
        return
    reasons = frame[UNPARSED]
    has_values = UNPARSED_VALUE in frame.columns
    values = frame[UNPARSED_VALUE] if has_values else pl.repeat(None, frame.height, eager=True)
    faults.add(mask_of(reasons.is_not_null()), UNPARSED, values, lambda row: str(reasons[row]))


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
        values = as_text(frame[holdout.column or ""], "holdout.column", where)
        held = [value in holdout.values for value in values[rows]]
    return pl.Series("split", ["holdout" if h else "train" for h in held], dtype=pl.String)


def _number(text: str) -> float:
    """Return a number in [0, 1) that is a hash of `text`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2.0**64

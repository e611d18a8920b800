"""What was published of a data set one after the other, and what two subsets differ in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from curation.store import Address, Artifact, Published, Store, StoreError
from curation.subset import SUBSET_FILE

SELECTED_SUBSET = "selected_subset"
SHORTEST_PREFIX = 4
DELETED = "deleted by retention"


@dataclass(frozen=True)
class Entry:
    """One publication of a subset, and how it differs from the one before.

    Attributes
    ----------
    sequence, version, published, rows
        Number of the publication, what was published, when (for display), and its rows.
    kept, added, removed
        Rows it has in common with the one before, has more, and has no more; None if one of the
        two is not there any more and nothing was noted.
    reasons
        What was noted of the changes when it was drawn; None if nothing, or it was held against
        another version than the one before.
    note
        Empty, or why the version can't be read: retention deleted it, or it is damaged.
    """

    sequence: int
    version: str
    published: str
    rows: int
    kept: int | None
    added: int | None
    removed: int | None
    reasons: Mapping[str, Any] | None
    note: str = ""


@dataclass(frozen=True)
class Side:
    """One of two subsets that are compared; `sequence` is None if it was never published."""

    version: str
    sequence: int | None
    published: str
    rows: int


@dataclass(frozen=True)
class Diff:
    """How two subsets differ.

    Attributes
    ----------
    a, b
        The subsets.
    gone
        Versions of the two that retention deleted: then all frames are empty.
    kept
        Rows in both: ``id, shard`` (in b), ``class`` if a label was named, ``weight_a``,
        ``weight_b`` and ``change``, their difference, the largest first.
    added, removed
        Rows in b only, and in a only: ``id, shard``, the class, ``weight``; the heaviest first.
    by_shard
        ``shard, kept, added, removed, weight_a, weight_b``; the weights are totals.
    by_label
        The same by ``class``; None if no label was named, or the subsets don't have it.
    """

    a: Side
    b: Side
    gone: tuple[str, ...]
    kept: pl.DataFrame
    added: pl.DataFrame
    removed: pl.DataFrame
    by_shard: pl.DataFrame
    by_label: pl.DataFrame | None


def history(dataset: str, store: Store) -> list[Entry]:
    """Return all publications of a data set's subset, oldest first by sequence.

    Parameters
    ----------
    dataset
        Name of the data set.
    store
        Where its artifacts are.
    """
    at = Address(dataset, SELECTED_SUBSET)
    entries: list[Entry] = []
    before: Published | None = None
    ids_before: pl.DataFrame | None = None
    for publication in store.published(at):
        artifact, note = _open(store, at, publication.version)
        ids = None if artifact is None else _read(artifact).select("id")
        changes = _changes(artifact, before)
        counts: tuple[int | None, int | None, int | None] = (None, None, None)
        if ids is not None and (before is None or ids_before is not None):
            counts = _counts(ids_before, ids)
        elif changes is not None:
            counts = (changes.get("kept"), changes.get("added"), changes.get("removed"))
        entries.append(
            Entry(
                publication.sequence,
                publication.version,
                publication.published,
                publication.row_count,
                *counts,
                changes,
                note,
            )
        )
        before, ids_before = publication, ids
    return entries


def diff(dataset: str, a: str, b: str, store: Store, *, label: str | None = None) -> Diff:
    """Compare two subsets of a data set row by row.

    Parameters
    ----------
    dataset
        Name of the data set.
    a, b
        A version, a prefix of one (four characters or more), the number of a publication,
        ``current`` or ``previous``.
    store
        Where the artifacts are.
    label
        The column of the subsets that holds the class.

    Raises
    ------
    curation.store.StoreError
        If there is no such subset, or it is damaged. One that retention deleted is named in
        `Diff.gone`.
    """
    at = Address(dataset, SELECTED_SUBSET)
    sides = [_side(store, at, name) for name in (a, b)]
    gone = tuple(s.version for s in sides if not (store.folder(at) / s.version).is_dir())
    empty = pl.DataFrame({"id": [], "shard": [], "weight": []}).cast(
        {"id": pl.String, "shard": pl.String, "weight": pl.Float64}
    )
    frames = [empty if gone else _read(store.open(at, s.version)) for s in sides]
    old, new = (_columns(frame, label, frames) for frame in frames)
    more = ["class"] if "class" in old.columns else []
    kept = (
        new.rename({"weight": "weight_b"})
        .join(old.select("id", pl.col("weight").alias("weight_a")), on="id")
        .with_columns((pl.col("weight_b") - pl.col("weight_a")).alias("change"))
        .select("id", "shard", *more, "weight_a", "weight_b", "change")
        .sort(pl.col("change").abs(), "id", descending=[True, False])
    )
    return Diff(
        a=sides[0],
        b=sides[1],
        gone=gone,
        kept=kept,
        added=_heaviest(new.join(old, on="id", how="anti")),
        removed=_heaviest(old.join(new, on="id", how="anti")),
        by_shard=_by("shard", old, new),
        by_label=_by("class", old, new) if more else None,
    )


def _columns(frame: pl.DataFrame, label: str | None, frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Return what is compared; the class only where both subsets have it."""
    more = []
    if label is not None and all(label in f.columns for f in frames):
        more = [pl.col(label).cast(pl.String).alias("class")]
    return frame.select("id", "shard", *more, "weight")


def _heaviest(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort("weight", "id", descending=[True, False])


def _open(store: Store, at: Address, version: str) -> tuple[Artifact | None, str]:
    if not (store.folder(at) / version).is_dir():
        return None, DELETED
    try:
        return store.open(at, version), ""
    except StoreError as error:
        return None, f"damaged: {error}"


def _read(artifact: Artifact) -> pl.DataFrame:
    return pl.read_parquet(artifact.path(SUBSET_FILE))


def _changes(artifact: Artifact | None, before: Published | None) -> Mapping[str, Any] | None:
    """Return what was noted against the publication before; a version may come back later."""
    noted = None if artifact is None else artifact.figures.get("changes")
    if not isinstance(noted, Mapping):
        return None
    return noted if noted.get("against") == (before and before.version) else None


def _counts(before: pl.DataFrame | None, now: pl.DataFrame) -> tuple[int, int, int]:
    if before is None:
        return 0, len(now), 0
    kept = len(now.join(before, on="id", how="semi"))
    return kept, len(now) - kept, len(before.join(now, on="id", how="anti"))


def _side(store: Store, at: Address, name: str) -> Side:
    log = store.published(at)
    if not log:
        raise StoreError(f"data set {at.dataset}: no subset was published yet")
    kept = {m.version: m for m in store.versions(at)}
    version, entry = _resolve(at, name, log, set(kept))
    if entry is None:  # a subset that did not pass its checks, or the last of its publications
        entry = next((p for p in reversed(log) if p.version == version), None)
    if entry is None:
        return Side(version, None, kept[version].created, kept[version].row_count)
    return Side(version, entry.sequence, entry.published, entry.row_count)


def _resolve(
    at: Address, name: str, log: list[Published], kept: set[str]
) -> tuple[str, Published | None]:
    if name in ("current", "previous"):
        place = 1 if name == "current" else 2
        if len(log) < place:
            raise StoreError(
                f"data set {at.dataset}: only one subset was published, there is no previous one"
            )
        return log[-place].version, log[-place]
    known = sorted(kept | {p.version for p in log})
    if name in known:
        return name, None
    for publication in log:
        if name.isdecimal() and int(name) == publication.sequence:
            return publication.version, publication
    found = [v for v in known if v.startswith(name)] if len(name) >= SHORTEST_PREFIX else []
    if len(found) == 1:
        return found[0], None
    if found:
        raise StoreError(
            f"data set {at.dataset}: {name!r} is the beginning of {len(found)} versions "
            f"({', '.join(found)}); give more of it"
        )
    numbers = f"{log[0].sequence} to {log[-1].sequence}"
    raise StoreError(
        f"data set {at.dataset}: no subset {name!r}; give `current`, `previous`, a number "
        f"({numbers}), or a version or at least {SHORTEST_PREFIX} characters of it "
        f"(curation history {at.dataset} lists them)"
    )


def _by(column: str, old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Count rows and add up weights by a column's value."""
    before = old.select(column, "weight", in_b=pl.col("id").is_in(new["id"].implode()))
    after = new.select(column, "weight", in_a=pl.col("id").is_in(old["id"].implode()))
    left = before.group_by(column).agg(
        (~pl.col("in_b")).sum().alias("removed"), pl.col("weight").sum().alias("weight_a")
    )
    came = after.group_by(column).agg(
        pl.col("in_a").sum().alias("kept"),
        (~pl.col("in_a")).sum().alias("added"),
        pl.col("weight").sum().alias("weight_b"),
    )
    joined = came.join(left, on=column, how="full", coalesce=True, nulls_equal=True)
    figures = ("kept", "added", "removed", "weight_a", "weight_b")
    return joined.select(column, *(pl.col(f).fill_null(0) for f in figures)).sort(
        column, nulls_last=True
    )

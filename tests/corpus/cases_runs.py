"""Cases of whole data sets: nothing wrong with a file, and yet there is hardly anything to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from cases_vectors import clouds, write
from corpus_case import Expected, kept


@dataclass(frozen=True)
class Whole:
    """A data set of which the shards, taken together, are odd.

    `error` is a pattern of what the run says where it cannot succeed.
    """

    name: str
    told: str
    make: Callable[[Path], dict[str, Expected]]
    settings: dict[str, Any] = field(default_factory=dict)
    error: str = ""


WHOLES: list[Whole] = []


def whole(told: str, *, error: str = "", **settings: Any) -> Callable[[Any], Any]:
    """Enter a data set into the corpus."""

    def enter(make: Callable[[Path], dict[str, Expected]]) -> Any:
        WHOLES.append(Whole(make.__name__, told, make, settings, error))
        return make

    return enter


def _shards(folder: Path, change: Callable[[int, dict[str, Any]], Any], rows: int = 30) -> Any:
    """Write two shards of rows that were changed."""
    expected = {}
    for seed, shard in enumerate(("day-1", "day-2")):
        changed = [
            {**row, **change(rows * seed + i, row)}
            for i, row in enumerate(clouds(shard, rows, seed=seed))
        ]
        write(folder, shard, changed)
        expected[shard] = Expected("accepted", kept(changed))
    return expected


SPLIT = {"holdout": {"column": "part"}}


@whole("the same vector in every row")
def constant(folder):
    return _shards(folder, lambda i, row: {"vector": [0.5] * 6})


@whole("zeros in every row")
def all_zeros(folder):
    return _shards(folder, lambda i, row: {"vector": [0.0] * 6})


@whole("labels that the holdout never has", **SPLIT)
def unseen_labels(folder):
    return _shards(
        folder,
        lambda i, row: (
            {"part": "test", "label": "a"}
            if i % 4 == 0
            else {"part": "train", "label": f"class {i % 3}"}
        ),
    )


@whole("a class that only the holdout has", **SPLIT)
def only_held_out(folder):
    return _shards(
        folder,
        lambda i, row: (
            {"part": "test", "label": "new"}
            if i % 4 == 0
            else {"part": "train", "label": f"class {i % 3}"}
        ),
    )


@whole("one class in all")
def one_class(folder):
    return _shards(folder, lambda i, row: {"label": "all"})


@whole("a class per row")
def class_per_row(folder):
    return _shards(folder, lambda i, row: {"label": f"class {i}"})


@whole("all rows are held out", error="no train rows", holdout={"shards": ["*"]})
def all_held_out(folder):
    return _shards(folder, lambda i, row: {})


@whole("no row is held out", holdout={"shards": ["none-*"]})
def none_held_out(folder):
    return _shards(folder, lambda i, row: {})


@whole("one row in all", error="a budget of", holdout={"shards": ["none-*"]})
def one_row_in_all(folder):
    rows = clouds("day-1", 1)
    write(folder, "day-1", rows)
    return {"day-1": Expected("accepted", kept(rows))}


@whole(
    "a budget above the number of rows",
    error="a budget of 10,000 rows does not fit",
    selection={"budget": 10_000},
)
def large_budget(folder):
    return _shards(folder, lambda i, row: {})


@whole("a budget of all rows but one", holdout={"shards": ["none-*"]}, selection={"budget": 59})
def nearly_all(folder):
    return _shards(folder, lambda i, row: {})


@whole("more clusters than rows", error=r"k must be .*got 500; set it lower", clusters={"k": 500})
def many_clusters(folder):
    return _shards(folder, lambda i, row: {})


TARGET = {"columns": {"id": "key", "input": "vector", "target": "target"}}


@whole("targets that are NaN, infinite, null or words, among numbers as texts", **TARGET)
def odd_targets(folder):
    expected = _shards(folder, lambda i, row: {})
    rows = clouds("odd", 12)
    odd = {1: "NaN", 3: "inf", 5: "many", 7: None, 8: "-1e999"}
    for i, row in enumerate(rows):
        row["target"] = odd.get(i, str(row["target"])) if i in odd else f" {row['target']} "
    write(folder, "odd", rows)
    wrong = {1: "finite", 3: "finite", 5: "not a number", 7: "null", 8: "finite"}
    good = {i: (r["key"], str(float(r["target"]))) for i, r in enumerate(rows) if i not in odd}
    aside = {i: ("target", reason) for i, reason in wrong.items()}
    for shard in ("day-1", "day-2"):
        told = pl.read_parquet(folder / f"{shard}.parquet").select("key", "target").rows()
        expected[shard] = Expected("accepted", {i: (k, str(t)) for i, (k, t) in enumerate(told)})
    return {**expected, "odd": Expected("quarantine", good, aside)}


@whole("the same target in every row", **TARGET)
def one_target(folder):
    expected = _shards(folder, lambda i, row: {"target": 3.0})
    for found in expected.values():
        for i, (key, _) in dict(found.accepted).items():
            found.accepted[i] = (key, "3.0")
    return expected


@whole("two files whose names become one key", error="two files have this key.*Rename")
def one_key(folder):
    write(folder, "a b", clouds("x"))
    write(folder, "a+b", clouds("y"))
    return {}


@whole("a shard that is a link outside of the folder", error="outside the folder.*Copy")
def link_outside(folder):
    write(folder.parent, "outside", clouds("x"))
    (folder / "link.parquet").symlink_to(folder.parent / "outside.parquet")
    return {}


@whole("no file at all", error="has no shard")
def nothing(folder):
    return {}


@whole("damaged files only", error="raw of 2 of 2 shards failed")
def all_damaged(folder):
    (folder / "a.parquet").write_bytes(b"PAR1")
    (folder / "b.parquet").write_bytes(b"")
    return {}


@whole("more rows in quarantine than validation.quarantined_share", error="quarantine_within_limit")
def too_many_wrong(folder):
    expected = _shards(folder, lambda i, row: {})
    rows = clouds("wrong", 40)
    for row in rows[10:]:
        row["vector"] = None
    write(folder, "wrong", rows)
    wrong = dict.fromkeys(range(10, 40), ("vector", "null"))
    return {**expected, "wrong": Expected("quarantine", kept(rows[:10]), wrong)}

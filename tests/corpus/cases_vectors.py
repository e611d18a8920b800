"""Cases of vectors: numbers that are none or too large, lengths that differ, pickles."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from corpus_case import Expected, accepted, aside, case, failed, kept

WORLD = "vectors"
WIDTH = 6


def clouds(shard: str, rows: int = 8, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return sound rows of vectors."""
    rng = np.random.default_rng([seed, len(shard)])
    code = rng.integers(3, size=rows)
    points = code[:, None] + rng.normal(size=(rows, WIDTH))
    return [
        {"key": f"{shard}-{i}", "vector": p.tolist(), "label": f"class {c}", "target": float(c)}
        for i, (p, c) in enumerate(zip(points, code, strict=True))
    ]


def write(folder: Path, shard: str, rows: list[dict[str, Any]], *, inner: Any = pl.Float32) -> None:
    """Write rows as Parquet."""
    frame = pl.DataFrame(rows, schema_overrides={"vector": pl.List(inner)}, strict=False)
    frame.write_parquet(folder / f"{shard}.parquet")


def good_clouds(folder: Path) -> dict[str, Expected]:
    """Write the sound shards."""
    expected = {}
    for seed, shard in enumerate(("good-a", "good-b", "good-c")):
        rows = clouds(shard, 60, seed=seed)
        write(folder, shard, rows)
        expected[shard] = Expected("accepted", kept(rows))
    return expected


def _wrong(name: str, told: str, value: Any, reason: str, inner: Any = pl.Float32) -> None:
    @case(WORLD, told, name)
    def make(folder: Path) -> Expected:
        rows = clouds(name)
        rows[2]["vector"] = value
        write(folder, name, rows, inner=inner)
        return aside(rows, {2: ("vector", reason)})


_wrong("nan", "a vector with NaN", [1.0, float("nan")] + [0.0] * 4, "not finite")
_wrong("infinity", "a vector with an infinity", [float("-inf")] + [0.0] * 5, "not finite")
_wrong("null-inside", "a vector with a null", [None] + [0.0] * 5, "null")
_wrong("null-vector", "a vector that is null", None, "null")
_wrong("empty-vector", "a vector of no numbers", [], "empty")
_wrong("overflow", "a number beyond float32", [1e300] + [0.0] * 5, "beyond", pl.Float64)
_wrong("square", "a number whose square is beyond float32", [1e30] + [0.0] * 5, "beyond")
_wrong("one-shorter", "one vector of another length", [1.0, 2.0], "2 values, most of .* have 6")


@case(WORLD, "vectors of another length than in all other shards (its name comes first)")
def a_other_length(folder: Path) -> Expected:
    rows = [{**row, "vector": row["vector"][:4]} for row in clouds("a-other-length")]
    write(folder, "a-other-length", rows)
    return failed("4 numbers, those of most rows have 6")


@case(WORLD, "float64 where other shards have float32")
def float64(folder: Path) -> Expected:
    rows = clouds("float64")
    write(folder, "float64", rows, inner=pl.Float64)
    return accepted(rows)


@case(WORLD, "vectors of whole numbers")
def whole(folder: Path) -> Expected:
    rows = [{**row, "vector": [1, 2, 3, 4, 5, 6]} for row in clouds("whole")]
    write(folder, "whole", rows, inner=pl.Int64)
    return failed("List or Array of floats")


@case(WORLD, "vectors of zeros only")
def zeros(folder: Path) -> Expected:
    rows = [{**row, "vector": [0.0] * WIDTH} for row in clouds("zeros")]
    write(folder, "zeros", rows)
    return accepted(rows)


@case(WORLD, "a column of nulls instead of vectors")
def all_null(folder: Path) -> Expected:
    rows = clouds("all-null")
    frame = pl.DataFrame(rows).with_columns(pl.lit(None).alias("vector"))
    frame.write_parquet(folder / "all-null.parquet")
    return aside(rows, dict.fromkeys(range(len(rows)), ("vector", "null")))


@case(WORLD, "texts where other shards have vectors")
def text_vectors(folder: Path) -> Expected:
    rows = clouds("text-vectors")
    frame = pl.DataFrame(rows).with_columns(pl.lit("[1, 2]").alias("vector"))
    frame.write_parquet(folder / "text-vectors.parquet")
    return failed("expected one List or Array a row, found String")


@case(WORLD, "lists of lists")
def nested(folder: Path) -> Expected:
    rows = [{**row, "vector": [row["vector"]]} for row in clouds("nested")]
    pl.DataFrame(rows).write_parquet(folder / "nested.parquet")
    return failed("columns.input 'vector' is List")


@case(WORLD, "a class that occurs in one shard only, once")
def rare_class(folder: Path) -> Expected:
    rows = clouds("rare-class")
    rows[5]["label"] = "the only one"
    write(folder, "rare-class", rows)
    return accepted(rows)


@case(WORLD, "a shard of one row")
def one_row(folder: Path) -> Expected:
    rows = clouds("one-row", 1)
    write(folder, "one-row", rows)
    return accepted(rows)


NPY = "arrays"


def array(rows: int = 6, seed: int = 0) -> np.ndarray:
    """Return a sound array."""
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def good_arrays(folder: Path) -> dict[str, Expected]:
    """Write two sound arrays with their labels beside them."""
    expected = {}
    for seed, shard in enumerate(("good-a", "good-b")):
        np.save(folder / f"{shard}.npy", array(seed=seed))
        pl.DataFrame({"label": ["a", "b"] * 3}).write_csv(folder / f"{shard}.csv")
        expected[shard] = Expected("accepted", {i: (None, "ab"[i % 2]) for i in range(6)})
    return expected


def _beside(folder: Path, shard: str, rows: int = 6) -> None:
    pl.DataFrame({"label": ["a"] * rows}).write_csv(folder / f"{shard}.csv")


@case(NPY, "an array of Python objects")
def objects(folder: Path) -> Expected:
    np.save(folder / "objects.npy", np.array([[{}, []]] * 6, dtype=object), allow_pickle=True)
    _beside(folder, "objects")
    return failed("Python objects.*never loaded")


@case(NPY, "a pickle under the name of an array")
def pickled(folder: Path) -> Expected:
    (folder / "pickled.npy").write_bytes(pickle.dumps(print))
    return failed("is a pickle.*never loaded")


@case(NPY, "an array, cut off")
def cut(folder: Path) -> Expected:
    np.save(folder / "cut.npy", array())
    path = folder / "cut.npy"
    path.write_bytes(path.read_bytes()[:-9])
    return failed("save it again")


@case(NPY, "an array whose header promises more than there is memory")
def promise(folder: Path) -> Expected:
    np.save(folder / "promise.npy", array())
    path = folder / "promise.npy"
    path.write_bytes(path.read_bytes().replace(b"(6, 4)", b"(6000000000, 4)"))
    return failed("save it again|shape")


@case(NPY, "an array with NaN, infinities and numbers beyond float32")
def not_finite(folder: Path) -> Expected:
    values = array().astype(np.float64)
    values[1, 1], values[2, 0], values[4, 3] = np.nan, np.inf, 1e300
    np.save(folder / "not-finite.npy", values)
    _beside(folder, "not-finite")
    good = dict.fromkeys((0, 3, 5), (None, "a"))
    wrong = dict.fromkeys((1, 2, 4), ("embedding", "not finite"))
    return Expected("quarantine", good, wrong)


@case(NPY, "an array with a table of fewer rows beside it")
def fewer(folder: Path) -> Expected:
    np.save(folder / "fewer.npy", array())
    _beside(folder, "fewer", 5)
    return failed("6 rows, but fewer.csv beside it has 5")


@case(NPY, "an array of texts")
def texts(folder: Path) -> Expected:
    np.save(folder / "texts.npy", np.array([["a", "b"]] * 6))
    return failed("no numbers")

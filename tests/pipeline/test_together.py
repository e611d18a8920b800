"""Shards that differ in their further columns, one below the other."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from curation.pipeline.tables import read_vectors, together
from curation.pipeline.vectors import VectorWriter


def _column(*values):
    frames = [pl.DataFrame({"id": [str(i)], "more": [v]}) for i, v in enumerate(values)]
    return together(frames)["more"]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (([1, 2], "text"), ["[1, 2]", "text"]),
        ((["a", None], 3), ['["a", null]', "3"]),
        (({"a": [1.5]}, "x", [1]), ['{"a": [1.5]}', "x", "[1]"]),
        ((b"\xffa", "x"), ["\\xffa", "x"]),
        (([b"\xff"], 1), ['["\\\\xff"]', "1"]),
        (([dt.date(2024, 1, 2)], True), ['["2024-01-02"]', "true"]),
        (("x", [None], None), ["x", "[null]", None]),
    ],
)
def test_what_has_no_common_type_is_text(values, found):
    assert _column(*values).to_list() == found


@pytest.mark.parametrize(
    ("values", "dtype", "found"),
    [
        ((1, 2.5), pl.Float64, [1.0, 2.5]),
        ((1, "x"), pl.String, ["1", "x"]),
        (([1], [2.5]), pl.List(pl.Float64), [[1.0], [2.5]]),
        (([1], ["x"]), pl.List(pl.String), [["1"], ["x"]]),
        ((None, [1]), pl.List(pl.Int64), [None, [1]]),
    ],
)
def test_a_type_that_holds_all_is_kept(values, dtype, found):
    column = _column(*values)
    assert column.dtype == dtype
    assert column.to_list() == found


def test_a_column_a_shard_lacks_is_null_there():
    table = together([pl.DataFrame({"a": [1]}), pl.DataFrame({"b": [2]})])
    assert table.rows() == [(1, None), (None, 2)]


def test_vectors_of_a_shard_without_rows(tmp_path):
    with VectorWriter(tmp_path / "v.arrow", "embedding"):
        pass
    assert len(read_vectors(tmp_path / "v.arrow", "embedding")) == 0

"""Values that are sound by themselves and yet too large to be computed with."""

from __future__ import annotations

import polars as pl
import pytest

from curation.config import Columns, Holdout
from curation.sources import SourceError, to_rows
from curation.sources.checks import MOST_NAME


def _rows(columns, **roles):
    return to_rows(
        pl.DataFrame(columns),
        columns=Columns(**{"input": "text", **roles}),
        holdout=Holdout(fraction=0.5),
        dataset="d",
        shard="s",
    )


@pytest.mark.parametrize("role", ["id", "label", "group"])
def test_names_that_are_too_long(role):
    """All of them are held in an array that is as wide as the longest."""
    found = _rows({"text": ["a", "b"], "name": ["n" * MOST_NAME, "n" * 5000]}, **{role: "name"})
    assert found.accepted["row"].to_list() == [0]
    reason = f"the {role} is longer than {MOST_NAME} characters: 5000"
    assert found.quarantined.select("row", "field", "reason").rows() == [(1, "name", reason)]


def test_a_group_is_kept_as_it_is_also_null_but_never_a_list():
    found = _rows({"text": ["a", "b"], "team": [7, None]}, group="team")
    assert found.accepted["team"].to_list() == [7, None]
    with pytest.raises(SourceError, match=r"columns\.group 'team' is List"):
        _rows({"text": ["a"], "team": [["x"]]}, group="team")


@pytest.mark.parametrize("kind", [pl.Float32, pl.Float64])
def test_numbers_whose_squares_float32_does_not_hold(kind):
    vectors = pl.Series([[1.0], [9e17], [-2e18], [1e30]], dtype=pl.List(kind))
    found = _rows({"text": vectors})
    assert found.accepted["row"].to_list() == [0, 1]
    reason = "the input holds a number beyond 1e+18"
    assert found.quarantined.select("row", "reason").rows() == [(2, reason), (3, reason)]


def test_a_message_does_not_control_a_terminal():
    error = SourceError("d: shard s: \x1b[31m red \x07 \u202e turned \x9b é\nnext \udc80")
    assert str(error) == "d: shard s: \\x1b[31m red \\x07 \\u202e turned \\x9b é\nnext \\udc80"

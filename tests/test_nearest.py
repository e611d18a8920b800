"""Nearest neighbours against brute force in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.nearest import nearest


def brute(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    apart = points[:, None].astype(np.float64) - others[None]
    return np.argsort((apart**2).sum(axis=2), axis=1, kind="stable")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**32 - 1), st.data()
)
def test_sets_are_exact(m, r, d, seed, data):
    """Also on a grid, where most distances are tied and the first of equals are taken."""
    rng = np.random.default_rng(seed)
    points, others = rng.normal(size=(m, d)), rng.normal(size=(r, d))
    if data.draw(st.booleans()):
        points, others = points.round(), others.round()
    points, others = points.astype(np.float32), others.astype(np.float32)
    last = data.draw(st.integers(1, r))
    first = data.draw(st.integers(1, last))
    found, expected = nearest(points, others, first, last), brute(points, others)
    assert np.array_equal(found[:, :first], np.sort(expected[:, :first], axis=1))
    assert np.array_equal(found[:, first:], np.sort(expected[:, first:last], axis=1))


def test_calls_too_close_for_float32():
    """Far from the origin float32 products can't tell neighbours apart; the answer is exact."""
    rng = np.random.default_rng(0)
    others = (1000.0 + rng.normal(size=(300, 20)) * 0.01).astype(np.float32)
    points = (1000.0 + rng.normal(size=(50, 20)) * 0.01).astype(np.float32)
    assert np.array_equal(nearest(points, others, 5), np.sort(brute(points, others)[:, :5], axis=1))


@pytest.mark.parametrize("step", [1, 7, 50])
def test_blocks_do_not_matter(step):
    rng = np.random.default_rng(1)
    others = (100.0 + rng.normal(size=(200, 30))).astype(np.float32)
    points = (100.0 + rng.normal(size=(100, 30))).astype(np.float32)
    whole = nearest(points, others, 4, 10)
    parts = [nearest(points[i : i + step], others, 4, 10) for i in range(0, 100, step)]
    assert np.array_equal(np.concatenate(parts), whole)

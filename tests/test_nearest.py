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


def far(rows: int, *, seed: int) -> np.ndarray:
    """Points far from the origin: there float32 products can't tell any neighbours apart."""
    rng = np.random.default_rng(seed)
    return (1000.0 + rng.normal(size=(rows, 128)) * 0.01).astype(np.float32)


def test_calls_too_close_for_float32():
    """1,000 points, so that faiss multiplies matrices: it has none of their sets right."""
    points, others = far(1000, seed=0), far(60, seed=1)
    found = nearest(points, others, 5)
    for start in range(0, 1000, 100):
        part = slice(start, start + 100)
        expected = np.sort(brute(points[part], others)[:, :5], axis=1)
        assert np.array_equal(found[part], expected)


@pytest.mark.parametrize("step", [10, 700])
def test_blocks_do_not_matter(step):
    points, others = far(1000, seed=2), far(60, seed=3)
    parts = [nearest(points[i : i + step], others, 4, 10) for i in range(0, 1000, step)]
    assert np.array_equal(np.concatenate(parts), nearest(points, others, 4, 10))

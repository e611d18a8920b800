"""Permanent random numbers: fixed by id, seed and purpose, and nothing else.

The statistical tests have fixed seeds; each says how often it would fail by chance for another one.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from curation.sampling import permanent_random_numbers

N = 100_000
SEQUENTIAL = {
    "integers": np.arange(N),
    "negative": np.arange(-N, 0),
    "strides": np.arange(N) * 2**32,
    "strings": np.array([f"record-{i:08d}" for i in range(N)]),
    "first": np.array([f"{i}/train/part-of-a-longer-name" for i in range(N)]),
}
PINNED_STRINGS = [0.9753874529843697, 0.4657248335624037, 0.8763017826616349]
PINNED_INTEGERS = [0.20472283760215404, 0.490712809824858, 0.23893567669528692]
TEXT = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=12)


def test_numbers_are_the_same_everywhere():
    """Pinned: another version that gives other numbers would choose other rows."""
    told = permanent_random_numbers(["a", "record-17", "é漢🙂"], seed=3)
    assert told.tolist() == PINNED_STRINGS
    assert permanent_random_numbers([0, 17, -1], seed=3).tolist() == PINNED_INTEGERS


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=20), st.integers(0, 20), st.integers(-(2**70), 2**70))
def test_a_number_depends_on_its_id_alone(ids, wider, seed):
    """Not on the array's width, the other rows, their order, the layout or the byte order."""
    array = np.array(ids)
    told = permanent_random_numbers(array, seed=seed)
    assert np.all((told > 0.0) & (told < 1.0))
    width = max(array.dtype.itemsize // 4, 1) + wider
    for other in (
        array.astype(f"<U{width}"),
        array.astype(f">U{width}"),
        np.repeat(array, 2)[::2],
        ids,
    ):
        assert np.array_equal(permanent_random_numbers(other, seed=seed), told)
    assert np.array_equal(permanent_random_numbers(array[::-1], seed=seed), told[::-1])
    alone = [permanent_random_numbers([i], seed=seed)[0] for i in ids]
    assert alone == told.tolist()


def test_blocks_do_not_show():
    """More rows than are hashed at a time, cut elsewhere: the same numbers."""
    ids = SEQUENTIAL["strings"]
    whole = permanent_random_numbers(ids, seed=1)
    parts = [permanent_random_numbers(p, seed=1) for p in np.array_split(ids, 7)]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("kind", sorted(SEQUENTIAL))
def test_numbers_are_uniform_and_distinct(kind):
    """Kolmogorov-Smirnov and 1,000 cells, each at an error probability of 1e-4 per kind of id."""
    told = permanent_random_numbers(SEQUENTIAL[kind], seed=5)
    assert len(np.unique(told)) == N
    assert stats.kstest(told, "uniform").pvalue > 1e-4
    cells = np.bincount((told * 1000).astype(int), minlength=1000)
    assert stats.chisquare(cells).pvalue > 1e-4


def assert_independent(a, b):
    """400 joint cells: chi-squared against independence, error probability 1e-5."""
    joint = np.histogram2d(a, b, bins=20, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(joint.ravel()).pvalue > 1e-5


@pytest.mark.parametrize("kind", sorted(SEQUENTIAL))
def test_seeds_purposes_and_neighbours_are_independent(kind):
    """Pairs of the same id under two seeds or purposes, and of neighbours: 6 tests at 1e-5 each."""
    ids = SEQUENTIAL[kind]
    base = permanent_random_numbers(ids, seed=1)
    assert_independent(base, permanent_random_numbers(ids, seed=2))
    assert_independent(base, permanent_random_numbers(ids, seed=-1))
    assert_independent(base, permanent_random_numbers(ids, seed=1, purpose="folds"))
    for lag in (1, 2, 64):
        assert_independent(base[lag:], base[:-lag])


def test_seed_and_purpose_do_not_run_together():
    told = {
        float(permanent_random_numbers(ids, seed=seed, purpose=purpose)[0])
        for ids in (["1"], [1])
        for seed, purpose in ((1, "2"), (12, ""), (1, ""), (2, "1"), (-1, "2"))
    }
    assert len(told) == 10


def test_nul_is_padding_at_the_end_only():
    """numpy can't tell "a" from "a" and a NUL; inside a string a NUL counts as a place."""
    told = permanent_random_numbers(np.array(["a", "a\0", "ab", "a\0b", "\0ab", ""]), seed=0)
    assert told[0] == told[1]
    assert len(set(told.tolist())) == 5
    empty = permanent_random_numbers(np.zeros(2, dtype="U0"), seed=0)
    assert empty.tolist() == [told[5]] * 2


def test_integers_of_any_width():
    for dtype in (np.int8, np.int16, np.int32, np.int64):
        told = permanent_random_numbers(np.array([-3, 0, 7], dtype=dtype), seed=4)
        assert np.array_equal(told, permanent_random_numbers([-3, 0, 7], seed=4))
    assert len(permanent_random_numbers([], seed=4)) == 0
    assert len(permanent_random_numbers(np.array([2**64 - 1], dtype=np.uint64), seed=4)) == 1


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0.5], "expected integers or strings .* got float64"),
        (np.array(["a", 1], dtype=object), "got object"),
        ([[1, 2]], r"expected shape \(n,\), got \(1, 2\)"),
        ([True], "got bool"),
    ],
)
def test_other_ids_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        permanent_random_numbers(ids, seed=0)

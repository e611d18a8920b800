"""Squared distances between points, in float32 and in whole steps."""

import numpy as np
import pytest

from curation.clustering.apart import MOST_WIDE, PART, Float, Standard, Whole

SHAPES = [(1, 5), (700, 3), (3000, 1), (PART, 64), (2 * PART + 17, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_points_around_their_mean(shape, some, offset):
    """Parts make no difference: the mean is a long sum of float64, rounded once."""
    rng = np.random.default_rng(shape[0])
    points = (rng.normal(size=shape) * 7.0 + offset).astype(np.float32)
    rows = np.sort(rng.permutation(len(points))[: len(points) // 2 + 1]) if some else None
    chosen = points if rows is None else points[rows]
    expected = chosen - chosen.mean(axis=0, dtype=np.float64).astype(np.float32)
    if np.abs(expected).max() > 0.0:
        expected = expected / np.abs(expected).max()

    standard = Standard.of(points, rows)
    found = [(place, part.copy()) for place, part in standard.parts()]

    assert standard.shape == chosen.shape
    assert max(len(part) for _, part in found) <= PART
    assert [place.start for place, _ in found] == list(range(0, len(chosen), PART))
    assert np.array_equal(np.concatenate([part for _, part in found]), expected)


def test_points_that_are_all_equal():
    standard = Standard.of(np.full((9, 4), 2.5, dtype=np.float32))
    assert standard.size == 0.0
    assert not Float(standard).distances(np.arange(9)).any()


@pytest.mark.parametrize("use_bytes", [False, True])
@pytest.mark.parametrize("d", [64, 1500])
def test_whole_steps_are_those_of_rounded_points(use_bytes, d):
    """Corners of 1,500 coordinates: squares are beyond the integers that float32 holds."""
    rng = np.random.default_rng(0)
    corners = np.sign(rng.normal(size=(3 * PART + 5, d))) * rng.uniform(0.9, 1.0, (1, d))
    standard = Standard.of(corners.astype(np.float32))
    rounded = np.concatenate([np.rint(part * np.float32(127.0)) for _, part in standard.parts()])
    rows = np.array([0, 77, 3 * PART + 4])
    expected = [np.square(rounded[row] - rounded).sum(axis=1, dtype=np.float64) for row in rows]
    whole = Whole(standard, use_bytes=use_bytes, few=3, many=5)
    assert np.array_equal(whole.distances(rows), expected)
    whole.keep(np.array([9, 0, 8, 77, 3 * PART + 4]))
    assert np.array_equal(whole.kept(np.array([1, 3, 4])), expected)


@pytest.mark.parametrize("d", [64, 1100, MOST_WIDE])
@pytest.mark.parametrize("m", [1, 63, 4000])
def test_sums_of_the_largest_distances_do_not_overflow(d, m):
    """Of points in opposite corners: squared distances are as large as they get."""
    standard = Standard.of(np.array([[-1.0], [1.0]], dtype=np.float32) * np.ones(d, np.float32))
    whole = Whole(standard, use_bytes=False, few=2, many=2)
    largest = int(whole.distances(np.arange(2)).max())
    assert largest == d * 254**2
    squared = np.full((3, m), largest, dtype=np.int32)
    squared[1, -1] = 7
    assert whole.sums(squared).tolist() == [m * largest, (m - 1) * largest + 7, m * largest]

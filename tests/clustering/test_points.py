"""Blocks of rows from arrays, memory maps and readers."""

from __future__ import annotations

import numpy as np
import pytest

from curation.clustering import BlockReader, Points
from curation.clustering import points as module


class Reader:
    """As h5py reads: slices of step 1, and strictly increasing indices; no array otherwise."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape = array.shape
        self.asked: list[int] = []

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            assert rows.step in (None, 1)
        else:
            rows = np.asarray(rows)
            assert rows.ndim == 1
            assert np.all(np.diff(rows) > 0), "indices must increase"
        found = self._array[rows].copy()
        self.asked.append(len(found))
        return found


def points_of(source, monkeypatch, step: int) -> Points:
    """Points that are read `step` rows at a time."""
    monkeypatch.setattr(module, "MIB", 4 * source.shape[1] * step)
    return Points(source, block_mib=1)


@pytest.mark.parametrize("step", [1, 2, 7, 22, 23, 24, 1000])
def test_blocks_are_all_rows_once_in_order(rng, monkeypatch, step):
    array = rng.normal(size=(23, 3))
    points = points_of(Reader(array), monkeypatch, step)
    seen, parts = [], []
    for rows, block in points.blocks():
        assert block.dtype == np.float32
        assert block.flags.c_contiguous
        assert 1 <= len(block) <= step
        seen.extend(range(rows.start, rows.stop))
        parts.append(block)
    assert seen == list(range(23)) == list(range(len(points)))
    assert np.array_equal(np.concatenate(parts), array.astype(np.float32))


def test_blocks_are_as_large_as_was_said():
    """1 MiB of float32 rows of 2^15 coordinates: 8 rows; and never less than one."""
    points = Points(np.zeros((17, 1 << 15), dtype=np.float32), block_mib=1)
    assert [len(block) for _, block in points.blocks()] == [8, 8, 1]
    wide = Points(np.zeros((2, 1 << 19), dtype=np.float32), block_mib=1)
    assert [len(block) for _, block in wide.blocks()] == [1, 1]


@pytest.mark.parametrize("kind", ["array", "reader", "memmap", "fortran", "int", "float16"])
def test_rows_are_taken_in_any_order(rng, tmp_path, kind):
    array = rng.integers(-9, 9, size=(40, 4)).astype(np.float32)
    if kind == "memmap":
        np.save(tmp_path / "points.npy", array)
    source = {
        "array": lambda: array,
        "reader": lambda: Reader(array),
        "memmap": lambda: np.load(tmp_path / "points.npy", mmap_mode="r"),
        "fortran": lambda: np.asfortranarray(array),
        "int": lambda: array.astype(np.int64),
        "float16": lambda: array.astype(np.float16),
    }[kind]()
    points = Points(source)
    rows = np.array([39, 0, 7, 7, 7, 38, 0])
    taken = points.take(rows)
    assert np.array_equal(taken, array[rows])
    assert taken.dtype == np.float32
    assert np.array_equal(points.take(np.arange(40)[::-1]), array[::-1])
    assert np.array_equal(np.concatenate([b for _, b in points.blocks()]), array)


def test_a_reader_is_read_no_more_than_asked_for(rng, monkeypatch):
    """Blocks of the given size, and of a row that is taken three times one copy."""
    reader = Reader(rng.normal(size=(50, 2)))
    assert isinstance(reader, BlockReader)
    points = points_of(reader, monkeypatch, 20)
    assert reader.asked == []
    list(points.blocks())
    assert reader.asked == [20, 20, 10]
    points.take(np.array([3, 3, 1, 3]))
    assert reader.asked[3:] == [2]


@pytest.mark.parametrize(
    "shape", [(), (3,), (0, 3), (3, 0), (2, 2, 2)], ids=["none", "one", "rows", "columns", "three"]
)
def test_shapes_that_are_not_rows(shape):
    with pytest.raises(ValueError, match=r"shape \(n, d\) with n, d >= 1, got"):
        Points(np.zeros(shape))


def test_something_without_a_shape():
    with pytest.raises(ValueError, match=r"shape \(n, d\)"):
        Points(object())


class Liar(Reader):
    """Says one shape and gives another."""

    def __init__(self, array: np.ndarray, shape: tuple[int, int]) -> None:
        super().__init__(array)
        self.shape = shape


@pytest.mark.parametrize("shape", [(12, 3), (10, 4), (10, 2)])
def test_readers_that_give_another_shape(shape):
    points = Points(Liar(np.zeros((10, 3)), shape))
    with pytest.raises(ValueError, match=r"reader returned shape \(10, 3\) for"):
        list(points.blocks())


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 13, 29])
def test_the_row_that_is_not_finite_is_named(rng, monkeypatch, wrong, row):
    array = rng.normal(size=(30, 4))
    array[row, 2] = wrong
    points = points_of(array, monkeypatch, 7)
    with pytest.raises(ValueError, match=f"embedding of row {row} has a NaN or infinite"):
        list(points.blocks())
    with pytest.raises(ValueError, match=f"embedding of row {row} has a NaN or infinite"):
        points.take(np.array([row, (row + 1) % 30]))


def test_infinities_that_cancel_and_numbers_too_large_for_float32():
    array = np.ones((5, 2))
    array[3] = np.inf, -np.inf
    with pytest.raises(ValueError, match="row 3 has a NaN or infinite"):
        list(Points(array).blocks())
    array[3] = 1e300, 0.0
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="row 3 has a NaN or inf"):
        list(Points(array).blocks())
    array[3] = 3e38, 3e38  # their sum is too large, they are not
    assert len(list(Points(array).blocks())) == 1

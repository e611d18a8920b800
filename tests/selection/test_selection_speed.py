"""A selection does not become slow unnoticed: bounded by what anybody can write in ten lines."""

from __future__ import annotations

import time

import numpy as np

import curation

ROWS, DIMENSIONS, BUDGET = 5000, 384, 300
MOST = 30.0  # ten were measured: so few rows fit the cache, where k-center is cheapest


def k_center(rows: np.ndarray, budget: int) -> np.ndarray:
    """Return the rows that are farthest from all before them, one by one."""
    squared = np.einsum("ij,ij->i", rows, rows)
    nearest, chosen = np.full(len(rows), np.inf, dtype=np.float32), [0]
    for _ in range(budget - 1):
        last = chosen[-1]
        np.minimum(nearest, squared - 2.0 * (rows @ rows[last]) + squared[last], out=nearest)
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def test_select_takes_a_bounded_multiple_of_k_center():
    """Best of three in turn; `make bench-select` measures it at the size that is promised."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(ROWS, DIMENSIONS)).astype(np.float32)
    score = rng.gamma(2.0, size=ROWS)
    theirs, ours = [], []
    for turn in range(4):
        began = time.process_time()
        k_center(rows, BUDGET)
        between = time.process_time()
        curation.select(rows, score, budget=BUDGET, seed=turn)
        ended = time.process_time()
        if turn:  # the first is a warm-up
            theirs.append(between - began)
            ours.append(ended - between)
    assert min(ours) <= MOST * min(theirs), (ours, theirs)

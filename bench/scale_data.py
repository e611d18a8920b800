"""The rows that `bench.scale` chooses from: a mixture on disk, made once, block by block."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.harness import RESULTS
from curation.sampling import permanent_random_numbers

FOLDER = RESULTS / "scale"
PARTS = 3000
NOISE = 0.9  # length of a row's noise, where its direction has length 1
BLOCK = 20_000

Rows = NDArray[np.int64]


def sizes() -> NDArray[np.float64]:
    """Return (PARTS,) the share of each direction: a tail, as topics have."""
    share = 1.0 / (10.0 + np.arange(PARTS))
    return share / share.sum()


def part_of(rows: Rows) -> Rows:
    """Return the direction that each row lies around: a function of its number."""
    numbers = permanent_random_numbers(rows, seed=1, purpose="part")
    return np.minimum(np.searchsorted(np.cumsum(sizes()), numbers), PARTS - 1)


def score_of(rows: Rows) -> NDArray[np.float64]:
    """Return a row's score: how hard its direction is, times a number of its own."""
    hard = np.random.default_rng(2).lognormal(0.0, 1.0, PARTS)
    luck = permanent_random_numbers(rows, seed=2, purpose="score")
    return hard[part_of(rows)] * (0.5 + luck)


def path_of(rows: int, width: int, folder: Path = FOLDER) -> Path:
    """Return where so many rows are kept."""
    return folder / f"mixture-{rows}x{width}.npy"


def make(rows: int, width: int, folder: Path = FOLDER) -> Path:
    """Write (rows, width) float32 to a file, unless it is there; return its path."""
    path = path_of(rows, width, folder)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    directions = np.random.default_rng(0).standard_normal((PARTS, width), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    scale = np.float32(NOISE / np.sqrt(width))
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, BLOCK):
            these = np.arange(start, min(start + BLOCK, rows))
            noise = np.random.default_rng([3, start]).standard_normal(
                (len(these), width), dtype=np.float32
            )
            noise *= scale
            noise += directions[part_of(these)]
            file.write(noise.data)
            if start % (50 * BLOCK) == 0:
                print(f"  {path.name}: {start:,} of {rows:,} rows", file=sys.stderr, flush=True)
    unfinished.rename(path)
    return path

"""What ours is compared with: strategies that choose rows, behind one interface.

Each gets a :class:`Pool` (rows, a pilot that is chosen already, a model trained on it) and a number
of rows, and returns a :class:`Choice`: rows, weights where the strategy has any, and its cost.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from curation.baselines import geometry, sampled, uncertainty
from curation.baselines.pool import Choice, Model, Pool

__all__ = ["STRATEGIES", "Choice", "Model", "Pool", "Strategy", "apply", "choose"]

Strategy = Callable[[Pool, int, np.random.Generator], Choice]

STRATEGIES: dict[str, Strategy] = {
    "uniform": sampled.uniform,
    "class-stratified": sampled.class_stratified,
    "class-balanced": sampled.class_balanced,
    "cluster-stratified": sampled.cluster_stratified,
    "k-center": geometry.k_center,
    "medoids": geometry.medoids,
    "herding": geometry.herding,
    "facility-location": geometry.facility_location,
    "margin": uncertainty.margin,
    "entropy": uncertainty.entropy,
    "badge": uncertainty.badge,
    "el2n": uncertainty.el2n,
    "gradient-norm": uncertainty.gradient_norm,
    "gradient-norm-sampled": sampled.full_gradient_norm,
    "leverage": sampled.leverage,
    "low-rank": sampled.low_rank,
    "published": sampled.published,
    "ours": sampled.ours,
    "ours-by-label": sampled.ours_by_label,
}


def choose(name: str, pool: Pool, size: int, *, seed: int = 0) -> Choice:
    """Choose rows by a strategy, and say what it cost.

    Parameters
    ----------
    name
        One of ``STRATEGIES``.
    pool
        The rows.
    size
        Rows to choose beyond the pilot. Strategies that draw with replacement choose fewer
        distinct ones.
    seed
        Of everything that is random.

    Raises
    ------
    ValueError
        If there is no such strategy, or fewer rows than `size`.
    """
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; known: {', '.join(STRATEGIES)}")
    return apply(STRATEGIES[name], pool, size, seed=seed)


def apply(strategy: Strategy, pool: Pool, size: int, *, seed: int = 0) -> Choice:
    """Choose rows by a strategy of one's own; see :func:`choose`."""
    if not 1 <= size <= len(pool.rest):
        raise ValueError(f"{size} rows of {len(pool.rest)} that are not in the pilot")
    before, began = pool.evaluations, time.process_time()
    with _traced() as peak:
        found = strategy(pool, size, np.random.default_rng([seed, 0x62617365]))
        mib = peak()
    return replace(
        found,
        evaluations=pool.evaluations - before,
        seconds=time.process_time() - began,
        mib=mib,
    )


@contextmanager
def _traced() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the most MiB that Python and numpy held so far, beyond before.

    What libraries allocate by themselves is not seen.
    """
    others = tracemalloc.is_tracing()
    if not others:
        tracemalloc.start(1)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: (tracemalloc.get_traced_memory()[1] - before) / 2**20
    finally:
        if not others:
            tracemalloc.stop()

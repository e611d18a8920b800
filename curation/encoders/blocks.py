"""Batches of a block of texts, computed side by side, and how large they are."""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from curation.encoders.batches import Tokens, fill, length_batches
from curation.encoders.forward import Forward

log = logging.getLogger(__name__)

BUDGETS = (1024, 2048, 4096)
"""Tokens of a batch that are tried."""

DEFAULT = 2048
ROUNDS = 3
"""Batches that are timed of every size."""

CLOCKS = {True: time.thread_time, False: time.perf_counter}
"""By whether a batch is computed by the thread that asks: its own time hides what else runs."""

Batch = tuple[NDArray[np.int64], NDArray[np.float32], float]
Blocks = Iterator[tuple[int, Tokens]]


class Pool:
    """Computes batches on several threads, each of which is one thread to torch as well.

    Two threads that work on a batch each wait for each other once a block; inside a batch they
    would have to after every operation. It also makes a vector independent of how many there are.

    Parameters
    ----------
    forward : Forward
        What is computed.
    budget : int, optional
        Tokens of a batch; left out, sizes are compared on the first block that is large enough.
    """

    def __init__(self, forward: Forward, budget: int | None = None) -> None:
        self.budget = budget
        self.cost: dict[int, float] = {}
        """Microseconds per token that were measured, by tokens of a batch."""
        self._forward = forward
        self._clock = CLOCKS[forward.workers == 0]

    def run(self, blocks: Blocks, out: NDArray[np.float32], advance: Callable[[int], None]) -> None:
        """Fill (n, dim) `out` with the vectors of the texts in `blocks`.

        Batches of the next block are waiting before those of this one are done.
        """
        with _workers(self._forward.workers) as (pool, count):
            waiting: deque[tuple[int, list[Future[Batch]]]] = deque()
            for begin, tokens in blocks:
                waiting.append((begin, self._submit(pool, tokens, count)))
                if len(waiting) > 1:
                    _collect(*waiting.popleft(), out, advance)
            while waiting:
                _collect(*waiting.popleft(), out, advance)

    def _submit(self, pool: ThreadPoolExecutor, tokens: Tokens, count: int) -> list[Future[Batch]]:
        lengths = tokens.lengths
        rows = np.argsort(lengths, kind="stable")
        timed: list[Future[Batch]] = []
        if self.budget is None and len(tokens.ids) >= 2 * ROUNDS * sum(BUDGETS):
            rows, timed = self._measure(pool, tokens, rows)
        # A share for every worker, also where there is little to do.
        budget = min(self.budget or DEFAULT, max(64, -(-len(tokens.ids) // count)))
        parts = [rows[one] for one in length_batches(lengths[rows], budget=budget)]
        # The long texts first: what is left at the end is short work.
        return timed + [pool.submit(self._compute, tokens, part) for part in parts[::-1]]

    def _measure(
        self, pool: ThreadPoolExecutor, tokens: Tokens, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[Future[Batch]]]:
        """Settle the budget on rows of middling length, whose vectors are kept.

        Returns the rows that are left, and the batches that are done.
        """
        ascending = tokens.lengths[rows]
        middle = int(np.searchsorted(np.cumsum(ascending), len(tokens.ids) // 4))
        begin, done = middle, []
        costs: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
        for budget in BUDGETS * ROUNDS:
            end = fill(ascending, begin, budget=budget)
            part, begin = rows[begin:end], end
            future = pool.submit(self._compute, tokens, part)
            costs[budget].append(future.result()[2] / int(tokens.lengths[part].sum()))
            done.append(future)
        self.cost = {budget: 1e6 * statistics.median(each) for budget, each in costs.items()}
        self.budget = min(self.cost, key=self.cost.__getitem__)
        log.info(
            "encoder: %s of %d tokens (%s)",
            self._forward.name,
            self.budget,
            ", ".join(f"{budget}: {cost:.0f} us a token" for budget, cost in self.cost.items()),
        )
        return np.concatenate((rows[:middle], rows[begin:])), done

    def _compute(self, tokens: Tokens, rows: NDArray[np.int64]) -> Batch:
        began = self._clock()
        vectors = self._forward(tokens.take(rows))
        return rows, vectors, self._clock() - began


def _collect(
    begin: int,
    futures: list[Future[Batch]],
    out: NDArray[np.float32],
    advance: Callable[[int], None],
) -> None:
    for future in futures:
        rows, vectors, _ = future.result()
        out[begin + rows] = vectors
        advance(len(rows))


@contextmanager
def _workers(asked: int) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Yield a pool and its size; its threads are one thread to torch each, if there are several."""
    import torch

    threads = torch.get_num_threads()
    count = asked or threads
    each = threads if asked else 1
    pool = ThreadPoolExecutor(
        count,
        thread_name_prefix="encode",
        initializer=torch.set_num_threads,
        initargs=(each,),
    )
    try:
        yield pool, count
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # The count is each thread's own, but threads that start later take the last one set.
        torch.set_num_threads(threads)

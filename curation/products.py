"""Matrix products in pieces on all cores, of float32 or of one-byte integers.

The integers' are several times faster where the processor has instructions for them, and their sums
are exact, so that what they yield depends neither on threads nor on the size of a block.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock, local
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from curation.threads import count

Piece = TypeVar("Piece")
Found = TypeVar("Found")

LEVELS = 127  # integers from -127 to 127 are one byte each
IMPORT_PAYS = 1.5e11  # multiply-adds in float32 that take about as long as importing torch
_TRIED = (256, 256, 512)  # rows, width and columns of the products that are timed


class _Work:
    """Multiply-adds done so far in this process."""

    def __init__(self) -> None:
        self.done = 0.0
        self.lock = Lock()

    def add(self, amount: float) -> float:
        """Add to it and return the sum."""
        with self.lock:
            self.done += amount
            return self.done


_WORK = _Work()


def bytes_pay(multiply_adds: float) -> bool:
    """Whether products of bytes are the faster way to so much work.

    They come with torch. Where nobody has imported it, float32 is used until as much time has gone
    into it as the import would take.

    Parameters
    ----------
    multiply_adds
        Of the work at hand.
    """
    if _WORK.add(multiply_adds) < IMPORT_PAYS and "torch" not in sys.modules:
        return False
    return _bytes_are_faster()


@lru_cache(maxsize=1)
def _bytes_are_faster() -> bool:
    """Time both kinds of product once on one thread, each at its best of a few."""
    try:
        import torch
    except ImportError:
        return False
    rows, width, columns = _TRIED
    left = np.ones((rows, width), dtype=np.float32)
    right = np.ones((width, columns), dtype=np.float32)
    few, many = left.astype(np.int8), Right(right.T.astype(np.int8), use_bytes=True)
    out = np.empty((rows, columns), dtype=np.int32)
    wide = np.empty((rows, columns), dtype=np.float32)
    try:
        many.product(few, out=out)
    except (AttributeError, RuntimeError):  # a build of torch without them
        return False
    del torch

    def best(run: Any) -> float:
        seconds = []
        for _ in range(7):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    with one_thread():
        return best(lambda: many.product(few, out=out)) < 0.7 * best(
            lambda: np.matmul(left, right, out=wide)
        )


class Right:
    """One-byte integers as the right side of products, exact by either kind of arithmetic.

    Parameters
    ----------
    rows
        (k, d) int8, of which products take the transpose.
    use_bytes
        Whether they are multiplied as bytes, or as floats that hold the sums exactly.
    """

    def __init__(self, rows: NDArray[np.int8], *, use_bytes: bool) -> None:
        self.rows = np.ascontiguousarray(rows)
        self._right: Any
        if use_bytes:
            import torch

            self._right = torch.from_numpy(self.rows).t()
        else:
            exact = rows.shape[1] * LEVELS**2 < 2**24
            self._right = self.rows.T.astype(np.float32 if exact else np.float64)

    def product(self, left: NDArray[np.int8], *, out: NDArray[np.int32]) -> None:
        """Write the product of (m, d) C-contiguous integers and these to (m, k) `out`."""
        if isinstance(self._right, np.ndarray):
            out[:] = left.astype(self._right.dtype) @ self._right
            return
        import torch

        torch._int_mm(torch.from_numpy(left), self._right, out=torch.from_numpy(out))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS and, in the calling thread, OpenMP use one thread each.

    For threads that share work out by themselves: pools inside of pools fight for the same cores.
    """
    if "torch" in sys.modules:
        import torch

        torch.get_num_threads()  # else it sets the calling thread's pool anew on first use
    with _controller("torch" in sys.modules).limit(limits=1):
        yield


@lru_cache(maxsize=2)
def _controller(torch_is_loaded: bool) -> Any:
    """Return the pools of the libraries loaded so far; to look for them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def in_order(
    function: Callable[[Piece], Found], pieces: Iterable[Piece], *, threads: int | None = None
) -> Iterator[Found]:
    """Yield what a function returns of each piece, in their order, computed by several threads.

    Inside, BLAS and OpenMP use one thread. No more than :func:`ahead` pieces are under way or wait
    to be taken.

    Parameters
    ----------
    function
        What is done with a piece; it must not depend on which thread does it.
    pieces
        What there is to do.
    threads
        How many; by default those of :func:`curation.threads.count`.
    """
    workers = threads or count()
    waiting: deque[Future[Found]] = deque()
    with one_thread(), ThreadPoolExecutor(workers, "products", _alone) as pool:
        for piece in pieces:
            if len(waiting) >= ahead(workers):
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, piece))
        while waiting:
            yield waiting.popleft().result()


def ahead(threads: int | None = None) -> int:
    """Return how many pieces :func:`in_order` has under way at most."""
    return 2 * (threads or count())


def _alone() -> None:
    """Let OpenMP use one thread in this new thread, for as long as it lives."""
    if "torch" in sys.modules:
        import torch

        torch.get_num_threads()
    _controller("torch" in sys.modules).limit(limits=1, user_api="openmp")


class Scratch(local):
    """Arrays that a thread uses again and again: fresh memory costs more than the work in it."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], kind: type) -> NDArray[Any]:
        """Return an array of this thread by that name; what was in it before may be in it still."""
        size = int(np.prod(shape))
        kept = self._kept.get(name)
        if kept is None or kept.size < size or kept.dtype != kind:
            kept = self._kept[name] = np.empty(size, dtype=kind)
        return kept[:size].reshape(shape)

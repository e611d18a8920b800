"""Matrix products in pieces on all cores, of float32, bfloat16 or one-byte integers.

The last two are several times faster where the processor has instructions for them. Sums of the
integers are exact, so that what they yield depends neither on threads nor on the size of a block.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock, local
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from curation.threads import count

Piece = TypeVar("Piece")
Found = TypeVar("Found")
Kind = Literal["float32", "bfloat16", "bytes"]
Vectors = NDArray[np.float32]

LEVELS = 127  # integers from -127 to 127 are one byte each
MUCH = 0.5
PAYS = 0.7  # share of the time of simpler numbers below which others are worth their preparation
IMPORT_PAYS = 1.5e11  # multiply-adds in float32 that take about as long as importing torch
_TRIED = (1024, 384, 512)  # rows, width and columns of the products that are timed


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
    """Whether products of bytes are the faster way to so much work than float32.

    They come with torch. Where nobody has imported it, float32 is used until as much time has gone
    into it as the import would take.

    Parameters
    ----------
    multiply_adds
        Of the work at hand.
    """
    return _torch_pays(multiply_adds) and _seconds()["bytes"] < PAYS * _seconds()["float32"]


def fastest(multiply_adds: float) -> Kind:
    """Return the kind of product that is the fastest way to so much work; see :func:`bytes_pay`.

    Bytes are taken if they are twice as fast as bfloat16, which rounds less, at less expense.
    """
    if not _torch_pays(multiply_adds):
        return "float32"
    seconds = _seconds()
    narrow: Kind = "bytes" if seconds["bytes"] < MUCH * seconds["bfloat16"] else "bfloat16"
    return narrow if seconds[narrow] < PAYS * seconds["float32"] else "float32"


def _torch_pays(multiply_adds: float) -> bool:
    return _WORK.add(multiply_adds) >= IMPORT_PAYS or "torch" in sys.modules


@lru_cache(maxsize=1)
def _seconds() -> dict[Kind, float]:
    """Time all kinds of product once on one thread, each at its best of a few."""
    rows, width, columns = _TRIED
    left = np.ones((rows, width), dtype=np.float32)
    right = np.ones((width, columns), dtype=np.float32)
    wide = np.empty((rows, columns), dtype=np.float32)

    def in_bytes() -> Callable[[], None]:
        few, many = left.astype(np.int8), Right(right.T.astype(np.int8), use_bytes=True)
        out = np.empty((rows, columns), dtype=np.int32)
        return lambda: many.product(few, out=out)

    sides: dict[Kind, Callable[[], Callable[[], Any]]] = {
        "float32": lambda: lambda: np.matmul(left, right, out=wide),
        "bfloat16": lambda: lambda: halves(left, right, out=wide),
        "bytes": in_bytes,
    }
    found: dict[Kind, float] = {}
    for kind, make in sides.items():
        try:
            run = make()
            run()
        except (ImportError, AttributeError, RuntimeError):  # this build of torch has none
            found[kind] = float("inf")
            continue
        with one_thread():
            found[kind] = min(_timed(run) for _ in range(7))
    return found


def _timed(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


class _Bfloat16:
    """Lets torch round what float32 products are made of to bfloat16, as long as anybody asks.

    The switch is the whole process's, so that it is thrown for single products, and back.
    """

    def __init__(self) -> None:
        self._asked, self._before = 0, "none"
        self._lock = Lock()

    def __enter__(self) -> None:
        switch = self._switch()
        with self._lock:
            if not self._asked:
                self._before = switch.fp32_precision
                switch.fp32_precision = "bf16"
            self._asked += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._asked -= 1
            if not self._asked:
                self._switch().fp32_precision = self._before

    @staticmethod
    def _switch() -> Any:
        from torch.backends import mkldnn

        return mkldnn.matmul  # type: ignore[attr-defined]  # there since torch 2.9


_BFLOAT16 = _Bfloat16()


def halves(left: Vectors, right: Vectors, *, out: Vectors) -> None:
    """Write the product of (m, d) and (d, k) to (m, k) `out`, summed in float32.

    Factors may be rounded to bfloat16, where the processor is made for that: pass numbers that
    :func:`to_bfloat16` returned, and products of two coordinates are exact.
    """
    import torch

    with _BFLOAT16:
        torch.mm(torch.from_numpy(left), torch.from_numpy(right), out=torch.from_numpy(out))


def to_bfloat16(values: Vectors, *, out: Vectors | None = None) -> Vectors:
    """Return the nearest numbers of bfloat16 (eight bits, not 24), as float32.

    Parameters
    ----------
    values
        Of any shape.
    out
        Where they are written; left out, a new array.
    """
    import torch

    found = np.empty(values.shape, dtype=np.float32) if out is None else out
    torch.from_numpy(found).copy_(torch.from_numpy(values).bfloat16())
    return found


def differences(points: Vectors, other: Vectors, *, out: Vectors) -> Vectors:
    """Write how (m, d) points differ from a (d,) other one to `out`, and return (m,) distances.

    torch's loops, as those of :func:`round_off`, where they can be had: they give way to other
    threads less often than numpy's, and giving way costs more than the work on a few rows. Points
    may be read-only, as those of a memory map are, which torch does not take.
    """
    import torch

    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(points, other, out=out)
    norms: Vectors = torch.linalg.vector_norm(torch.from_numpy(out), dim=1).numpy()
    return norms


def round_off(values: Vectors, *, out: Vectors) -> Vectors:
    """Write (m, d) values rounded to bfloat16 to `out`, and return (m,) norms of what that took.

    `values` are changed: they hold what was taken off.
    """
    import torch

    left, inner = torch.from_numpy(values), torch.from_numpy(out)
    inner.copy_(left.bfloat16())
    norms: Vectors = torch.linalg.vector_norm(left.sub_(inner), dim=1).numpy()
    return norms


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
    to be taken. A single piece, and all of them where there is one thread, is computed by the
    caller's: to start another takes longer than many a piece.

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
    if workers == 1 or (isinstance(pieces, Sized) and len(pieces) <= 1):
        with one_thread():
            yield from map(function, pieces)
        return
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

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

ONE = np.int16(0x3F80)  # the bits of 1 in bfloat16
LEVELS = 127  # integers from -127 to 127 are one byte each
MUCH = 0.5
SLOWER = 5.0  # times float32 from which a kind is not tried any further
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
    found: dict[Kind, float] = {}  # of float32 first

    def in_bytes() -> Callable[[], None]:
        few, many = left.astype(np.int8), Right(right.T.astype(np.int8), use_bytes=True)
        out = np.empty((rows, columns), dtype=np.int32)
        return lambda: many.product(few, out=out)

    def in_halves() -> Callable[[], None]:
        few, many = (np.full(one.shape, ONE) for one in (left, right))
        out = np.empty((rows, columns), dtype=np.int16)
        share = rows // 16  # where it is emulated, all of it would take a second

        def a_part() -> None:
            halves(few[:share], many, out=out[:share])

        a_part()
        if not np.array_equal(from_bfloat16(out[:share]), np.full((share, columns), float(width))):
            raise RuntimeError("sums are not of float32")
        with one_thread():
            slow = _best(a_part) > SLOWER * found["float32"] * share / rows
        if slow:
            raise RuntimeError("emulated")
        return lambda: halves(few, many, out=out)

    sides: dict[Kind, Callable[[], Callable[[], Any]]] = {
        "float32": lambda: lambda: np.matmul(left, right, out=wide),
        "bfloat16": in_halves,
        "bytes": in_bytes,
    }
    for kind, make in sides.items():
        try:
            run = make()
            run()
        except (ImportError, AttributeError, RuntimeError):  # this build of torch has none
            found[kind] = float("inf")
            continue
        with one_thread():
            found[kind] = _best(run)
    return found


def _best(run: Callable[[], Any]) -> float:
    """Return the least seconds of seven tries, or of as many as a tenth of a second holds."""
    tried: list[float] = []
    while len(tried) < 7 and sum(tried) < 0.1:
        tried.append(_timed(run))
    return min(tried)


def _timed(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def to_bfloat16(values: Vectors, *, out: NDArray[np.int16]) -> Vectors:
    """Write bits of the nearest numbers of bfloat16 (eight bits, not 24); return the numbers.

    Parameters
    ----------
    values
        Of any shape.
    out
        Where the bits are written: the upper half of those of float32.
    """
    round_to_bfloat16(values, out=out)
    return from_bfloat16(out)


def round_to_bfloat16(values: Vectors, *, out: NDArray[np.int16]) -> None:
    """Write bits of the nearest numbers of bfloat16. Values may be a read-only memory map's."""
    import torch

    try:
        wide = torch.from_dlpack(values)  # torch.from_numpy warns of arrays that are read-only
    except BufferError:  # as older versions say of these
        wide = torch.from_numpy(values.copy())
    torch.from_numpy(out).view(torch.bfloat16).copy_(wide)


def from_bfloat16(bits: NDArray[np.int16]) -> Vectors:
    """Return the numbers that bits of bfloat16 stand for."""
    found: Vectors = (bits.astype(np.int32) << 16).view(np.float32)
    return found


def towards_zero(values: NDArray[np.float64]) -> NDArray[np.int16]:
    """Return bits of bfloat16 of numbers that are not farther from zero than the values."""
    bits = np.nextafter(values.astype(np.float32), np.float32(0.0)).view(np.int32)
    return (bits >> 16).astype(np.int16)


def halves(left: NDArray[np.int16], right: NDArray[np.int16], *, out: NDArray[np.int16]) -> None:
    """Write the product of (m, d) and (d, k) to (m, k) `out`, all of them bits of bfloat16.

    Products of two coordinates are exact, sums are of float32, and rounded at the end.
    """
    import torch

    kind = torch.bfloat16
    torch.mm(
        torch.from_numpy(left).view(kind),
        torch.from_numpy(right).view(kind),
        out=torch.from_numpy(out).view(kind),
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

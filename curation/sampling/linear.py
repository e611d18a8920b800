"""Small linear algebra on tall matrices, block by block, and checks of what comes in.

Nothing is squared: everything goes through the triangle of a QR decomposition, and columns are
brought to one length first, so that units do not decide the rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
Numbers = NDArray[Any]
Ids = NDArray[np.int64]

BLOCK_MIB = 16  # of float64 copies made at a time, whatever n is


def blocks_of(a: Numbers) -> Iterator[tuple[slice, Floats]]:
    """Yield the rows as float64, a few MiB at a time, to be read: they may be the given ones."""
    step = max(a.shape[1], BLOCK_MIB * 2**17 // a.shape[1])
    for start in range(0, len(a), step):
        where = slice(start, start + step)
        yield where, a[where].astype(np.float64, copy=False)


def triangle_of(a: Numbers, b: Floats | None = None, weights: Numbers | None = None) -> Floats:
    """Return R with ``R'R = M'WM`` for ``M = [a b]``, by QR of one block below the other."""
    triangle: Floats = np.empty((0, a.shape[1] + (b is not None)))
    for where, rows in blocks_of(a):
        block = rows if b is None else np.column_stack([rows, b[where]])
        if weights is not None:
            block = block * np.sqrt(weights[where, None])
        triangle = np.asarray(np.linalg.qr(np.vstack([triangle, block]), mode="r"))
    return triangle


def whiten(triangle: Floats, ridge: float, rounding: float) -> tuple[Floats, Floats]:
    """Return U, orthonormal, and W (d, rank) with ``[triangle; sqrt(ridge) I] W = U``."""
    d = triangle.shape[1]
    system = np.vstack([triangle, np.sqrt(ridge) * np.eye(d if ridge > 0.0 else 0, d)])
    peak = np.abs(system).max(axis=0)
    peak[peak == 0.0] = 1.0  # squares of very large or small columns must not over- or underflow
    length = peak * np.maximum(np.linalg.norm(system / peak, axis=0), 1.0)
    left, size, right = np.linalg.svd(system / length, full_matrices=False)
    kept = size > rounding
    return left[:, kept], right[kept].T / size[kept] / length[:, None]


def solve(triangle: Floats, ridge: float, rounding: float) -> Floats:
    """Solve least squares from the triangle of [a b]."""
    orthonormal, whitener = whiten(triangle[:, :-1], ridge, rounding)
    return np.asarray(whitener @ (orthonormal[: len(triangle)].T @ triangle[:, -1]))


def squared_lengths(a: Numbers, through: Floats | None = None) -> Floats:
    """Return the (n,) squared length of each row, or of what a (d, p) matrix makes of it."""
    lengths = np.empty(len(a))
    for where, rows in blocks_of(a):
        image = rows if through is None else rows @ through
        lengths[where] = np.einsum("ij,ij->i", image, image)
    return lengths


def rounding_of(a: Numbers) -> float:
    """Return the largest singular value that rounding may cause in d columns of length 1."""
    single, double = float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps)
    coarse = a.dtype.kind == "f" and a.dtype.itemsize <= 4
    return float(np.sqrt(a.shape[1])) * (2.0 * single if coarse else 64.0 * double)


def as_matrix(features: Numbers, name: str = "features") -> Numbers:
    """Check features. All inputs are checked by this function and those below it."""
    a = np.asarray(features)
    if a.ndim != 2 or 0 in a.shape or a.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected (n, d) numbers, got {a.dtype} of shape {a.shape}")
    for where, rows in blocks_of(a):
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(rows.sum()):  # the sum of what is not finite is not; faster than each
                continue
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            row = where.start + int(np.argmin(finite))
            raise ValueError(f"{name}: row {row} has a NaN or infinite value")
    return a


def as_vector(values: Numbers, length: int, name: str, *, least: float = -np.inf) -> Floats:
    """Check one number for each row; `name` is said before the row's number."""
    v = np.asarray(values)
    if v.shape != (length,) or v.dtype.kind not in "fiub":
        raise ValueError(f"expected {length} numbers ({name} 0, ...), got {v.dtype} {v.shape}")
    v = v.astype(np.float64)
    rule = "finite" if least < 0.0 else f"finite and >= {least:g}"
    refuse(~(np.isfinite(v) & (v >= least)), name + " {0} is {1}: it must be " + rule, v)
    return v


def as_scalar(value: float, name: str) -> float:
    """Check a number that is finite and not negative."""
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"{name} must be finite and >= 0, got {value}")
    return float(value)


def as_integers(values: Integers, length: int, name: str) -> Ids:
    """Check whole numbers."""
    ids = np.asarray(values)
    if ids.shape != (length,) or ids.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected {length} integers, got {ids.dtype}, shape {ids.shape}")
    return ids.astype(np.int64)


def refuse(wrong: NDArray[np.bool_], message: str, values: Numbers) -> None:
    """Raise ValueError at the first that is wrong, telling its place and value."""
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(message.format(place, values[place]))

"""Raking: weights moved as little as needed to reproduce known totals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = NDArray[np.int64]

DEPENDENT = 1e-9  # of a column of length 1, what is left of it without the others
CONTRADICTION = 1e-7  # of the totals that are combined
LARGEST_LEVERAGE = 0.9  # a row that a column stands for alone: its residual is 0, not 0 / 0
LARGEST_EXPONENT = 600.0  # exp of more overflows float64


class CalibrationError(ValueError):
    """No positive weights reach the totals, or none were found; the message says which and why."""


def rake(
    weights: Floats,
    columns: Floats,
    totals: Floats,
    *,
    names: Sequence[str] | None = None,
    max_iter: int = 50,
    tolerance: float = 1e-9,
) -> Floats:
    """Return the positive weights nearest to the given ones that reproduce known totals.

    Nearest in ``sum w log(w / d) - w + d``: each weight is multiplied by ``exp`` of a combination
    of its row's columns, found by Newton's method on the dual with step halving.

    Parameters
    ----------
    weights
        (m,) weights d > 0 to start from, ``1 / pi``.
    columns
        (m, p) variables at the drawn rows. Columns that are combinations of others (dummies of two
        groupings, say) are fine as long as their totals agree.
    totals
        (p,) totals over all rows.
    names
        What the columns are called in errors; left out, ``column 0`` and so on.
    max_iter
        Newton steps at most.
    tolerance
        Largest error of a reproduced total, as a share of ``sum d |x|`` or the total, whichever is
        larger.

    Returns
    -------
    ndarray
        (m,) float64, positive.

    Raises
    ------
    CalibrationError
        If no positive weights reach the totals, with the column and the reason; or no convergence.
    ValueError
        If a shape is wrong or a number is not finite.
    """
    d, x, t = _checked(weights, columns, totals)
    called = _names(names, x.shape[1])
    _refuse_impossible_signs(x, t, called)
    basis = _basis(x, d)
    _refuse_contradictions(basis, t, called)
    unit = np.maximum(d @ np.abs(x), np.abs(t))
    unit = np.where(unit > 0.0, unit, 1.0)

    def done(raked: Floats) -> bool:
        return bool((np.abs(x.T @ raked - t) <= tolerance * unit).all())

    # Newton meets the totals of an orthonormal basis, whatever the columns' units and likeness
    raked = _newton(d, basis.vectors, basis.totals(t), done, max_iter)
    if not done(raked):
        error = np.abs(x.T @ raked - t) / unit
        raise CalibrationError(_why_not(d, x / unit, t / unit, called, error))
    return raked


def regression_residuals(values: Floats, columns: Floats, weights: Floats) -> tuple[Floats, int]:
    """Return what a weighted regression of the values on the columns leaves, and its rank.

    Residuals as if each row had been left out of the fit: its own pull hides part of its error,
    most of it where a row weighs much.
    """
    z = _basis(np.asarray(columns, dtype=np.float64), weights).vectors
    leverage = np.minimum(weights * (z**2).sum(axis=1), LARGEST_LEVERAGE)
    return (values - z @ (z.T @ (weights * values))) / (1.0 - leverage), z.shape[1]


def _checked(weights: Floats, columns: Floats, totals: Floats) -> tuple[Floats, Floats, Floats]:
    d = np.asarray(weights, dtype=np.float64)
    x = np.asarray(columns, dtype=np.float64)
    t = np.asarray(totals, dtype=np.float64)
    if d.ndim != 1 or len(d) == 0 or x.ndim != 2 or x.shape[0] != len(d) or t.shape != x.shape[1:]:
        raise ValueError(
            "expected weights (m,), columns (m, p) and totals (p,) with m >= 1, got shapes "
            f"{d.shape}, {x.shape} and {t.shape}"
        )
    if not (np.isfinite(d).all() and np.isfinite(x).all() and np.isfinite(t).all()):
        raise ValueError("a weight, column or total is NaN or infinite")
    if d.min() <= 0.0:
        raise ValueError(f"weight of row {int(np.argmin(d))} is {d.min()}: it must be above 0")
    return d, x, t


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    called = [f"column {j}" for j in range(count)] if names is None else list(names)
    if len(called) != count:
        raise ValueError(f"expected {count} names, got {len(called)}")
    return called


def _refuse_impossible_signs(x: Floats, t: Floats, called: list[str]) -> None:
    """Refuse totals that a single column's signs rule out."""
    low, high = x.min(axis=0), x.max(axis=0)
    for j, name in enumerate(called):
        if low[j] == high[j] == 0.0:
            if t[j] != 0.0:
                raise CalibrationError(
                    f"{name}: 0 on every drawn row, so no weights reach its total of {t[j]:g}; "
                    "draw more rows, or give it more of them (tilt, shares, minimum)"
                )
        elif (low[j] >= 0.0 and t[j] <= 0.0) or (high[j] <= 0.0 and t[j] >= 0.0):
            no, but = ("below", "above") if low[j] >= 0.0 else ("above", "below")
            raise CalibrationError(
                f"{name}: no drawn row is {no} 0 and some are {but}, so no positive weights reach "
                f"its total of {t[j]:g}"
            )


@dataclass(frozen=True)
class _Basis:
    """What columns span, in vectors z with ``sum d z_i z_j = 1`` for i = j, else 0.

    Attributes
    ----------
    vectors
        (m, r) float64.
    kept, rest
        Columns that span the same, and those that are combinations of them.
    length
        (p,) ``sqrt(sum d x^2)``, 1 for columns of zeros.
    triangle, combination
        (r, r) and (r, p - r): kept columns, scaled by their length, are ``vectors @ triangle``, and
        the rest ``vectors @ combination``.
    """

    vectors: Floats
    kept: Columns
    rest: Columns
    length: Floats
    triangle: Floats
    combination: Floats

    def totals(self, t: Floats) -> Floats:
        """Return the totals of the vectors that those of the kept columns imply."""
        from scipy.linalg import solve_triangular

        scaled = (t / self.length)[self.kept]
        return np.asarray(solve_triangular(self.triangle, scaled, trans="T"))


def _basis(x: Floats, d: Floats) -> _Basis:
    from scipy.linalg import qr, solve_triangular

    weighted = x * np.sqrt(d)[:, None]
    length = np.sqrt((weighted**2).sum(axis=0))
    length = np.where(length > 0.0, length, 1.0)
    # the plain decomposition first: it is fast, and leaves a small one to pivot in
    r, pivot = qr(np.linalg.qr(weighted / length, mode="r"), mode="r", pivoting=True)
    rank = int((np.abs(np.diag(r)) > DEPENDENT).sum())
    kept, rest = pivot[:rank], pivot[rank:]
    triangle = r[:rank, :rank]
    vectors = solve_triangular(triangle, (x[:, kept] / length[kept]).T, trans="T").T
    return _Basis(vectors, kept, rest, length, triangle, r[:rank, rank:])


def _refuse_contradictions(basis: _Basis, t: Floats, called: list[str]) -> None:
    """Refuse totals that are not the combination that their columns are."""
    from scipy.linalg import solve_triangular

    scaled = t / basis.length
    share = solve_triangular(basis.triangle, basis.combination)
    told, implied = scaled[basis.rest], scaled[basis.kept] @ share
    size = np.abs(scaled[basis.kept]) @ np.abs(share) + np.abs(told)
    wrong = np.flatnonzero(np.abs(implied - told) > CONTRADICTION * size)
    if len(wrong):
        j = basis.rest[wrong[0]]
        raise CalibrationError(
            f"{called[j]}: on the drawn rows it is a combination of other columns, whose totals "
            f"make its own {implied[wrong[0]] * basis.length[j]:.10g}, not {t[j]:.10g}"
        )


def _newton(
    d: Floats, z: Floats, t: Floats, done: Callable[[Floats], bool], max_iter: int
) -> Floats:
    """Minimise the dual ``sum d exp(z a) - t a``, convex in a; return ``d exp(z a)``."""
    a = np.zeros(z.shape[1])
    raked = d.copy()
    for _ in range(max_iter):
        if done(raked):
            break
        gradient = z.T @ raked - t
        curvature = (z * raked[:, None]).T @ z
        try:
            step: NDArray[Any] = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:  # the weights of some columns' rows are nearly 0
            step = np.linalg.lstsq(curvature, gradient, rcond=1e-14)[0]
        size = _step_size(d, z, t, a, step, float(raked.sum() - t @ a), float(gradient @ step))
        if not size:
            break
        a = a - size * step
        raked = d * np.exp(z @ a)
    return raked


def _step_size(
    d: Floats, z: Floats, t: Floats, a: Floats, step: Floats, value: float, slope: float
) -> float:
    """Return the first of 1, 1/2, 1/4, ... of a step that lowers the dual as it should, or 0."""
    size = 1.0
    while size > 1e-10:
        exponent = z @ (a - size * step)
        if np.abs(exponent).max() < LARGEST_EXPONENT:
            trial = float((d * np.exp(exponent)).sum() - t @ (a - size * step))
            # near the minimum rounding hides the descent: a full step is right there
            if trial <= value - 1e-4 * size * slope + 1e-12 * abs(value):
                return size
        size /= 2.0
    return 0.0


def _why_not(d: Floats, x: Floats, t: Floats, called: list[str], error: Floats) -> str:
    """Say which column can't be reached: by a linear program over all positive weights."""
    from scipy.optimize import linprog

    m, p = x.shape
    # w >= 0 with x'w + up - down = t, and as little up + down as can be
    found = linprog(
        np.concatenate([np.zeros(m), np.ones(2 * p)]),
        A_eq=np.hstack([(x * d[:, None]).T, np.eye(p), -np.eye(p)]),
        b_eq=t,
        method="highs",
    )
    if found.status == 0 and found.fun > 1e-9:
        missing = found.x[m : m + p] - found.x[m + p :]
        j = int(np.argmax(np.abs(missing)))
        return (
            f"{called[j]}: together with the other totals, its total is out of reach of positive "
            f"weights on the drawn rows, by {abs(missing[j] / t[j] if t[j] else missing[j]):.3g} "
            "of it at least; draw more rows, or leave it out"
        )
    j = int(np.argmax(error))
    return (
        f"{called[j]}: no convergence, its total is still off by {error[j]:.3g} of its size; the "
        "totals are at the edge of what positive weights reach. Draw more rows, or leave it out"
    )

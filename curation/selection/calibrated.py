"""Weights that reproduce what is known of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation import sampling
from curation.selection.fit import Fitted, PerRow

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

DRAWS_PER_CELL = 20  # expected draws in a group of clusters whose size calibrated weights reproduce


@dataclass(frozen=True)
class Kind:
    """Classes or groups whose counts are known.

    Attributes
    ----------
    name
        What they are called in messages.
    codes
        (n,) class or group of each row.
    number
        How many there are.
    """

    name: str
    codes: Rows
    number: int


@dataclass(frozen=True)
class Calibrated:
    """Variables with known totals, and the weights that reproduce them.

    Attributes
    ----------
    columns, totals
        (m, p) variables at the drawn rows, and (p,) their totals over all rows.
    names
        What each variable is.
    weights
        (m,) positive weights, in the order of the draw.
    """

    columns: Floats
    totals: Floats
    names: list[str]
    weights: Floats


def calibrate(
    drawn: sampling.Draw, fitted: Fitted, rows: PerRow, kinds: Sequence[Kind]
) -> Calibrated:
    """Rake a draw's weights to the sizes of groups of clusters, the proxy's total, and counts.

    Where the drawn rows can't reproduce the sizes of so many groups of clusters, these are joined.

    Parameters
    ----------
    drawn
        The draw.
    fitted, rows
        What was learned, and what it says of the (n,) rows that were up for drawing.
    kinds
        Classes, groups.

    Raises
    ------
    CalibrationError
        If no positive weights reach the totals, with the one that is out of reach.
    """
    cells = max(1, len(drawn.indices) // DRAWS_PER_CELL)
    while True:
        columns, totals, names = _known(drawn.indices, fitted, rows, kinds, cells)
        try:
            found = sampling.rake(drawn.weights, columns, totals, names=names)
        except sampling.CalibrationError:
            if cells == 1:
                raise
            cells //= 2
            continue
        return Calibrated(columns, totals, names, found)


def _known(
    drawn: Rows, fitted: Fitted, rows: PerRow, kinds: Sequence[Kind], cells: int
) -> tuple[Floats, Floats, list[str]]:
    """Columns of the drawn rows, their totals over all rows, and their names."""
    k = fitted.clusters.k
    place = fitted.clusters.rank.astype(np.int64) * min(cells, k) // k
    columns, totals, names = [], [], []
    clusters = Kind("clusters", place[np.asarray(rows.cluster)], min(cells, k))
    for kind in (clusters, *kinds):
        counts = np.bincount(kind.codes, minlength=kind.number)
        for one in np.flatnonzero(counts):
            columns.append((kind.codes[drawn] == one).astype(np.float64))
            totals.append(float(counts[one]))
            names.append(f"{kind.name} {one}")
    columns.append(rows.proxy[drawn])
    totals.append(rows.proxy_total())
    return np.stack(columns, axis=1), np.array(totals), [*names, "proxy total"]

"""How many clusters, how many rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation import clustering, sampling

AUTO_K_MOST = 400
AUTO_K_SHARE = 0.5


def resolve_k(k: int | str, *, budget: int, rows: int) -> int:
    """Return the number of clusters: `k`, or for ``auto`` half of the budget, at most 400.

    More clusters make the proxy sharper and cost one query each; docs/estimation.md shows the error
    against k.

    Raises
    ------
    ValueError
        If k is not between 1 and the number of rows.
    """
    if k == "auto":
        return max(1, min(round(AUTO_K_SHARE * budget), AUTO_K_MOST, rows))
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= rows:
        raise ValueError(
            f"k must be `auto` or between 1 and {rows} (the rows), got {k!r}; set it lower"
        )
    return int(k)


def resolve_budget(
    n: int,
    *,
    budget: int | None = None,
    fraction: float | None = None,
    epsilon: float | None = None,
    delta: float = 0.05,
) -> int:
    """Return the number of rows that a budget, a fraction or an epsilon asks of n rows.

    Raises
    ------
    ValueError
        If not exactly one is given, or the answer is not between 1 and n.
    """
    if sum(x is not None for x in (budget, fraction, epsilon)) != 1:
        raise ValueError("give exactly one of budget, fraction, epsilon")
    if epsilon is None and not 0.0 < delta < 1.0:
        raise ValueError(f"delta must lie in (0, 1), got {delta}")
    if epsilon is not None:
        s = sampling.sample_size(epsilon, delta)
        if s > n:
            raise ValueError(
                f"epsilon = {epsilon} at delta = {delta} needs {s:,} draws, more than the {n:,} "
                f"rows there are; a larger epsilon, or all rows"
            )
        return s
    if fraction is not None and not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction}")
    s = budget if budget is not None else max(1, round((fraction or 0.0) * n))
    number = isinstance(s, int | float | np.integer | np.floating) and not isinstance(s, bool)
    if not number or not np.isfinite(s) or s != int(s):
        raise ValueError(f"budget must be a whole number of rows, got {s}")
    if not 1 <= s <= n:
        raise ValueError(
            f"a budget of {s:,} rows does not fit a data set of {n:,} rows; set it lower"
        )
    return int(s)


def label_scale(
    embeddings: NDArray[np.float32], labels: NDArray[np.generic], classes: tuple[str, ...]
) -> clustering.LabelScale:
    """Return how labels are appended to these embeddings (see ``embedding+label``)."""
    norm = float(np.linalg.norm(embeddings, axis=1).mean(dtype=np.float64))
    if classes:
        return clustering.LabelScale(classes, norm)
    numbers = labels.astype(np.float64)
    return clustering.LabelScale((), norm, float(numbers.mean()), float(numbers.std()) or 1.0)

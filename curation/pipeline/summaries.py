"""Figures of an evaluation: means with intervals, and tables of classes and groups.

Intervals are over seeds: they hold what is random in drawing and training. The rows they are
measured on are the same for all seeds, so that of a class with few rows the interval can be narrow
while other rows would give another figure; the number of rows stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.pipeline.measured import Measurements, Ruler
from curation.reporting.text import plain, t_interval

KEPT = 50  # lines of a table
LEAST_ROWS = 10  # of a part that may be called the worst
LONGEST_NAME = 120

Results = dict[str, dict[str, list[float]]]
"""By strategy and metric, one value for each seed."""


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return mean and 95% t-interval over seeds (of a single value: the value alone)."""
    mean, low, high = t_interval(values) if len(values) > 1 else (values[0],) * 3
    return {"mean": float(mean), "low": float(low), "high": float(high), "n": len(values)}


def values_of(measured: Measurements) -> Results:
    """Return the metrics of all seeds: what can be shown, which is of the open half."""
    return {
        strategy: {
            metric: [one.metrics[metric] for one in seeds]
            for metric in (seeds[0].metrics if seeds else ())
        }
        for strategy, seeds in measured.items()
    }


def summaries(results: dict[str, Results]) -> dict[str, Any]:
    """Return means with intervals, and the gain of the subset over uniform, paired by seed."""
    figures: dict[str, Any] = {
        kind: {
            name: {metric: interval(values) for metric, values in metrics.items()}
            for name, metrics in table.items()
        }
        for kind, table in results.items()
    }
    figures["gain"] = {
        metric: interval(_differences(values, results["probe"]["uniform"][metric]))
        for metric, values in results["probe"]["subset"].items()
    }
    return figures


def part_tables(measured: dict[str, Measurements], ruler: Ruler) -> dict[str, Any]:
    """Return ``per_class`` and ``per_group``: by kind of model, a table (:func:`part_table`)."""
    found: dict[str, Any] = {"per_class": {}, "per_group": {}}
    opened = ruler.halves.opened
    for kind, table in measured.items():
        if not table:
            continue
        ours, theirs = table["subset"], table["uniform"]
        if len(ruler.names):
            rows = np.bincount(ruler.truth[opened], minlength=len(ruler.names))
            pairs = [
                (a.by_class, b.by_class)
                for a, b in zip(ours, theirs, strict=True)
                if a.by_class is not None and b.by_class is not None
            ]
            found["per_class"][kind] = part_table(ruler.names, rows, pairs, metric="accuracy")
        if ruler.groups is not None:
            count = len(ruler.groups.names)
            rows = np.bincount(ruler.groups.codes[opened], minlength=count)
            pairs = [
                (a.by_group, b.by_group)
                for a, b in zip(ours, theirs, strict=True)
                if a.by_group is not None and b.by_group is not None
            ]
            metric = "accuracy" if len(ruler.names) else "rmse"
            found["per_group"][kind] = part_table(ruler.groups.names, rows, pairs, metric=metric)
    return found


def part_table(
    names: NDArray[np.str_],
    rows: NDArray[np.int64],
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    metric: str,
) -> dict[str, Any]:
    """Return how subset and uniform rows do in each of P parts of the open half.

    Parameters
    ----------
    names, rows
        (P,) the parts, and how many rows each has; those without a row are left out.
    pairs
        For each seed (P,) values of the subset and of uniform rows.
    metric
        ``accuracy`` (of a class: its recall), where lower is worse, or ``rmse``, where higher is.

    Returns
    -------
    dict
        ``metric``; ``lines``, the 50 worst for the subset, the worst first, each with ``name``,
        ``rows``, and intervals over seeds for ``subset``, ``uniform`` and ``difference``, which is
        paired by seed; ``others``, the ``count`` of parts and ``rows`` without a line; ``worst``.

        ``worst`` is of parts with at least ``least_rows`` rows (10, or 1 if no part has as many);
        there are ``parts`` of them. For ``subset`` and ``uniform``: the interval over seeds of each
        seed's worst value, and the ``name`` of the part that is worst on average; ``difference`` is
        that of each seed's worst values.
    """
    there = np.flatnonzero(rows > 0)
    sign = -1.0 if metric == "rmse" else 1.0  # of what is better
    ours, theirs = (np.array([pair[side][there] for pair in pairs]) for side in (0, 1))
    names, rows = names[there], rows[there]
    # ties: the part of more rows first, then by name, as parts are sorted
    order = np.lexsort((-rows, sign * ours.mean(axis=0)))
    lines = [
        {
            "name": plain(names[part], limit=LONGEST_NAME),
            "rows": int(rows[part]),
            "subset": interval(ours[:, part].tolist()),
            "uniform": interval(theirs[:, part].tolist()),
            "difference": interval((ours - theirs)[:, part].tolist()),
        }
        for part in order[:KEPT]
    ]
    left = order[KEPT:]
    return {
        "metric": metric,
        "lines": lines,
        "others": {"count": len(left), "rows": int(rows[left].sum())},
        "worst": _worst(names, rows, ours, theirs, sign),
    }


def _worst(
    names: NDArray[np.str_],
    rows: NDArray[np.int64],
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    sign: float,
) -> dict[str, Any]:
    """Return the worst part of each strategy; of a part with few rows a single one decides."""
    least = LEAST_ROWS if (rows >= LEAST_ROWS).any() else 1
    large = np.flatnonzero(rows >= least)
    found: dict[str, Any] = {"parts": len(large), "least_rows": least}
    of_seeds = []
    for name, values in (("subset", ours), ("uniform", theirs)):
        own = sign * values[:, large]
        of_seeds.append(sign * own.min(axis=1))
        part = large[own.mean(axis=0).argmin()]
        found[name] = {
            "name": plain(names[part], limit=LONGEST_NAME),
            **interval(of_seeds[-1].tolist()),
        }
    found["difference"] = interval((of_seeds[0] - of_seeds[1]).tolist())
    return found


def _differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(ours, theirs, strict=True)]

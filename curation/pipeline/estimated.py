"""What a subset says the total score is, and how far off that is where the truth is cheap."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import sampling
from curation.pipeline.by_cluster import Tally
from curation.pipeline.chosen import Chosen
from curation.pipeline.dataset import PILOT_MODEL
from curation.pipeline.people import Population
from curation.pipeline.pilot import load_score_model, query_scores
from curation.selection import Fitted, Foresight, PerRow, find_tags

CHEAP = ("probe", "mlp")  # models that can be asked for every row in a moment
CURVE_ROWS = 1 << 18  # rows that the curve is foreseen from; of more, an even share
CURVE_POINTS = 11
CURVE_FACTOR = 8  # how far the curve goes to both sides of the budget
FEWEST_DRAWS = 20
FARTHEST = 0.8  # of the rows: where nearly all are drawn, there is no error left to foresee


def estimate_total(
    people: Population, chosen: Chosen, fitted: Fitted, scored: PerRow
) -> tuple[dict[str, Any], Tally]:
    """Estimate the total score from the subset, and measure the error where that is cheap.

    The score of the pilot's own rows is known from training it; the drawn rows are evaluated once.
    A probe or a small network can be asked for every row in a moment, which gives the true total,
    and what uniform rows of the same number would have said; a transformer or a score column
    can't, and the interval stands alone.

    Returns
    -------
    tuple
        The figures, and what the evaluated rows say of each cluster: all rows where that is cheap,
        else the subset's by their weights.
    """
    dataset = people.dataset
    model = load_score_model(dataset.store.need(dataset.at(PILOT_MODEL)))
    first, pilot = chosen.parts[0], chosen.pilot
    of_pilot = query_scores(people, model, pilot) if len(pilot) else np.empty(0)
    known = float(of_pilot.sum())
    rows = np.setdiff1d(chosen.rows, pilot)
    values = query_scores(people, model, rows)

    def values_of(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        return values[np.searchsorted(rows, drawn)]

    above = values_of(chosen.rest[first.drawn.indices]) > first.scores[first.drawn.indices] + 1e-12
    result: dict[str, Any] = {
        **_known_interval(chosen.estimate(values_of, known=known)),
        "evaluations": len(pilot) + len(rows),
        "violated_share": float(np.mean(above)),
        "pilot_total": known,
        "truth": None,
    }
    tally = Tally(fitted)
    if dataset.config.score.model in CHEAP:
        result["truth"] = _true_total(people, model, scored, tally)
        rng = np.random.default_rng([dataset.config.selection.seed, 4])
        n = len(chosen.rest)
        other = sampling.draw("uniform", np.full(n, 1.0 / n), len(rows), rng=rng)
        values = query_scores(people, model, chosen.rest[other.indices])
        result["uniform"] = _known_interval(sampling.estimate_total(values, other, known=known))
    else:
        tally.add(scored[pilot], of_pilot)
        tally.add(scored[rows], values, chosen.weight[chosen.reason != "pilot"])
    return result, tally


def _known_interval(estimate: sampling.Estimate) -> dict[str, float | None]:
    """Return an estimate's fields, None for those that fewer than two random draws leave open."""
    return {k: v if np.isfinite(v) else None for k, v in asdict(estimate).items()}


def _true_total(people: Population, model: Any, scored: PerRow, tally: Tally) -> float:
    """Return the total score over all rows, asked for block by block and tallied."""
    assert people.labels is not None  # noqa: S101  a pilot model has labels
    value, total = people.dataset.config.score.value, 0.0
    for rows, block in people.blocks(people.dataset.config.clusters.block_mib):
        score = np.asarray(model.score(block, people.labels[rows], value=value), dtype=np.float64)
        tally.add(scored[rows], score)
        total += float(score.sum())
    return total


def error_curve(
    people: Population, chosen: Chosen, fitted: Fitted, scored: PerRow, estimate: dict[str, Any]
) -> dict[str, Any]:
    """Return the error that is to be expected of the estimated total at other budgets.

    By the law that rows were drawn by, with the same pilot, as the pilot's held-out rows foresee
    it. Errors are shares of the estimated total of all rows, of which the pilot's are known.

    Returns
    -------
    dict
        ``budget``, ``relative_error`` and ``uniform_error``, as lists; or ``skipped``, the reason.
    """
    part = chosen.parts[0]
    if len(chosen.parts) > 1:
        return {"skipped": "the law changes from round to round"}
    foresight = _foresight(people, chosen, fitted, scored)
    if foresight is None:
        return {"skipped": "too few rows were asked for beside the medoids to foresee an error"}
    known, value = estimate["pilot_total"], estimate["value"]
    share = 1.0 - known / value if value > known else 1.0
    most = max(int(FARTHEST * len(chosen.rest)), part.draws)
    least = min(max(FEWEST_DRAWS, part.draws // CURVE_FACTOR), part.draws)
    ends = np.geomspace(least, min(most, CURVE_FACTOR * part.draws), CURVE_POINTS)
    draws = np.unique(np.append(ends.round().astype(int), part.draws)).tolist()
    try:
        errors = [share * foresight.error(m) for m in draws]
    except ValueError as error:  # a law that gives some rows nothing at a larger budget
        return {"skipped": str(error)}
    return {
        "budget": [m + len(chosen.pilot) for m in draws],
        "relative_error": errors,
        "uniform_error": [share * foresight.uniform(m) for m in draws],
    }


def _foresight(
    people: Population, chosen: Chosen, fitted: Fitted, scored: PerRow
) -> Foresight | None:
    """Return what errors are foreseen from; None where no two pilot rows are up for drawing."""
    part, tags = chosen.parts[0], people.tags[chosen.rest]
    if fitted.pilot is None or not np.isfinite(fitted.smoothness.uniform_error):
        return None
    found = find_tags(tags, fitted.pilot_tags)
    there = found >= 0
    if there.sum() < 2:
        return None
    every = -(-len(chosen.rest) // CURVE_ROWS)
    taken = slice(None, None, every)
    rows = scored[chosen.rest[taken]]
    return Foresight(
        pilot=fitted.pilot[there],
        pilot_law=part.law[found[there]],
        proxy=rows.proxy,
        law=part.law[taken],
        order=fitted.order(rows, tags[taken]),
        rows=len(chosen.rest),
        design=part.drawn.design,
        uniform_error=fitted.smoothness.uniform_error,
        every=every,
    )

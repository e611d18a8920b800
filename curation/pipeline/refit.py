"""Whether pilot model and centroids still fit the rows, or are fitted anew.

Any law that is settled before the draw gives unbiased weights, so a fit that has aged costs
precision and never correctness. It is kept while it serves: then a new shard costs its own
embedding and scores, and the rows that were drawn stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import clustering
from curation.pipeline.dataset import CENTROIDS, PILOT_MODEL, Dataset
from curation.pipeline.people import Population
from curation.pipeline.pilot import budget_of, load_score_model, pilot_in, pilot_size, query_scores
from curation.pipeline.recipes import centroids_recipe, pilot_recipe
from curation.pipeline.rows import PeopleTable
from curation.pipeline.score import Centroids, needs_medoids
from curation.selection import above, assign, measure
from curation.store import Artifact, StoreError

JUDGED = 4000  # rows that came since the fit whose distance is looked at
FEWEST = 50  # fewer rows say little of a cost or a share
# Standard errors by which new rows must differ: of rows like those before one look in 1,000 does
LUCK = 3.0


@dataclass(frozen=True)
class Decision:
    """Whether to fit anew, why, and by which figures."""

    refit: bool
    why: str
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> dict[str, Any]:
        """What the metadata says of it."""
        return {
            "fit": ("fitted anew: " if self.refit else "kept: ") + self.why,
            **{f"fit_{name}": value for name, value in self.figures.items()},
        }


def decide_pilot(dataset: Dataset, people: Population) -> Decision:
    """Decide whether the pilot model is trained anew."""
    pilot = dataset.kept(PILOT_MODEL, **pilot_recipe(people))
    if pilot is None:
        return Decision(True, "there is none by these settings yet")
    centroids = _kept_centroids(dataset, people, pilot)
    if centroids is not None:
        return _decide(people, pilot)
    if pilot.manifest.recipe["upstream"].get("population") == people.content_hash:
        return Decision(False, "it was trained on these rows")
    return Decision(True, "the centroids are fitted anew, by other settings or another pilot")


def decide_centroids(dataset: Dataset, people: Population, pilot: Artifact) -> Decision:
    """Decide whether the centroids are fitted anew, with a pilot that is settled."""
    if _kept_centroids(dataset, people, pilot) is not None:
        return _decide(people, pilot)
    figures = {
        name.removeprefix("fit_"): value
        for name, value in pilot.figures.items()
        if name.startswith("fit_")
    }
    why = str(pilot.figures.get("fit", "")).removeprefix("fitted anew: ")
    try:
        before = dataset.store.current(dataset.at(CENTROIDS))
    except StoreError:
        before = None  # damaged: fitted again, and written in its place
    had = before.manifest.recipe["upstream"].get(PILOT_MODEL) if before is not None else None
    if figures and had not in (None, pilot.content_hash):
        return Decision(True, why, figures)  # the pilot was trained anew, for this
    return Decision(True, "there are none by these settings and this pilot yet")


def _kept_centroids(dataset: Dataset, people: Population, pilot: Artifact) -> Artifact | None:
    return dataset.kept(CENTROIDS, **centroids_recipe(people, pilot))


def _decide(people: Population, pilot: Artifact) -> Decision:
    """Decide by the rows, where the settings are those of the fit."""
    dataset = people.dataset
    wanted = dataset.config.refit
    centroids = Centroids.load(dataset)
    about = centroids.fitted_on
    new = sorted(set(people.classes) - set(about.classes))
    if new:
        return Decision(True, f"class {new[0]!r} was not there", {"new_classes": len(new)})
    growth = len(people) / about.rows
    figures: dict[str, Any] = {"rows_then": about.rows, "growth": round(growth, 4)}
    if not 1.0 / wanted.growth <= growth <= wanted.growth:
        return Decision(True, f"{growth:.2f} times as many rows (refit.growth)", figures)
    shrunk = _pilot_too_large_or_small(people, pilot)
    if shrunk:
        return Decision(True, shrunk, figures)
    if needs_medoids(dataset) and (centroids.medoids_in(people) < 0).any():
        return Decision(True, "a medoid whose score is asked for is gone", figures)
    came = [i for i, shard in enumerate(people.shards) if about.lacks(people, shard)]
    since = np.concatenate([np.empty(0, np.int64), *(np.arange(*people.span(i)) for i in came)])
    if not len(since):
        return Decision(False, "no row came since the fit", figures)
    return _decide_by_new_rows(people, centroids, pilot, since, figures)


def _decide_by_new_rows(
    people: Population,
    centroids: Centroids,
    pilot: Artifact,
    since: NDArray[np.int64],
    figures: dict[str, Any],
) -> Decision:
    """Decide by the cost of the rows that came since the fit, and by their scores."""
    wanted = people.dataset.config.refit
    line = since[
        np.argsort(people.numbers(people.dataset.config.selection.seed).of("refit")[since])
    ]
    rows = np.sort(line[:JUDGED])
    cost = _costs(people, centroids, rows) / max(centroids.fitted_on.cost_per_row, 1e-300)
    ratio, luck = float(cost.mean()), LUCK * float(cost.std()) / len(rows) ** 0.5
    figures |= {"rows_since": len(since), "cost_ratio": round(ratio, 4)}
    if len(since) >= FEWEST and ratio > max(wanted.cost_ratio, 1.0 + luck):
        return Decision(
            True, f"new rows cost {ratio:.2f} times as much (refit.cost_ratio)", figures
        )
    before = centroids.fitted.violated_share
    asked = np.sort(line[: wanted.sample])
    if before is None or not len(asked):
        return Decision(False, "new rows cost no more than refit.cost_ratio allows", figures)
    table = PeopleTable(people, centroids.mapping, asked, like=centroids.fitted_on.labels)
    q = centroids.fitted.scores(measure(centroids.fitted, table, assign(centroids.fitted, table)))
    score = query_scores(people, load_score_model(pilot), asked)
    now = float(np.mean(above(score, q) > 0.0))
    figures |= {
        "asked": len(asked),
        "violated_share_then": round(before, 4),
        "violated_share_now": round(now, 4),
    }
    assert centroids.fitted.pilot is not None  # noqa: S101  `before` is of its rows
    luck = _luck(before, centroids.fitted.pilot.weight, len(asked))
    if len(asked) >= FEWEST and now > before + max(wanted.violated_share, luck):
        return Decision(True, "too many new rows are above their sensitivity", figures)
    return Decision(False, "cost and scores of new rows are like those of the fit", figures)


def _costs(people: Population, centroids: Centroids, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return the squared distances of rows to their centroids."""
    table = PeopleTable(people, centroids.mapping, rows, like=centroids.fitted_on.labels)
    found = [
        clustering.assign(view.points, centroids.fitted.clusters.centroids)[1].astype(np.float64)
        for _, view in table.blocks()
    ]
    return np.concatenate(found)


def _luck(before: float, weight: NDArray[np.float64], asked: int) -> float:
    """Return how far a share of violated rows may be above that of the pilot's by luck alone."""
    pilot = float(weight.sum() ** 2 / np.square(weight).sum())  # of unequal weights: fewer rows
    share = min(max(before, 1.0 / pilot), 0.5)
    return LUCK * float(np.sqrt(share * (1.0 - share) * (1.0 / asked + 1.0 / pilot)))


def _pilot_too_large_or_small(people: Population, pilot: Artifact) -> str:
    """Return why the pilot's rows no longer go with the budget; empty where they do."""
    if pilot.figures["model"] == "column":
        return ""
    wanted = pilot_size(people.dataset, len(people))
    left, budget = len(pilot_in(people)), budget_of(people.dataset, len(people))
    if left < 0.5 * pilot.figures["rows"]:
        return f"{left:,} of {pilot.figures['rows']:,} pilot rows are left"
    if budget - left < 0.5 * (budget - wanted):
        return f"the pilot's {left:,} rows are too many for a budget of {budget:,}"
    return ""

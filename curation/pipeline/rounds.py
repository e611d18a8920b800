"""A subset drawn in rounds, each by the scores of a model trained on those before."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import sampling
from curation.pipeline.chosen import Chosen, Part, others, put_together
from curation.pipeline.numbers import of_rows
from curation.pipeline.people import Population
from curation.pipeline.pilot import budget_of, fit_score_model, query_scores
from curation.progress import track
from curation.selection import AdaptiveRounds, Fitted, PerRow

Rows = NDArray[np.int64]


def choose_in_rounds(
    people: Population,
    fitted: Fitted,
    scored: PerRow,
    pilot: Rows,
    model: Any,
    *,
    seed: int,
) -> Chosen:
    """Draw a subset in ``score.rounds`` rounds (docs/methods.md, adaptive rounds).

    Parameters
    ----------
    people, fitted, scored, pilot, seed
        As in :func:`curation.pipeline.chosen.choose`; clusters and distances are kept over the
        rounds, the medoids' scores are asked for again.
    model
        The pilot model, which the first round goes by.
    """
    config = people.dataset.config
    rest = others(len(people), pilot)
    there = scored[rest]
    draws = budget_of(people.dataset, len(people)) - len(pilot)
    rounds = AdaptiveRounds.of_clusters(
        there.cluster,
        there.distance,
        fitted.clusters.medoid_rows,
        numbers=of_rows(people.numbers(seed), rest),
        budget=draws,
        rounds=min(config.score.rounds, draws),
        design=config.selection.design,
        mix=fitted.smoothness.mix,
        seed=seed,
    )
    parts: list[Part] = []
    first = np.zeros(len(rest), dtype=np.int32)
    missed = np.ones(len(rest))
    queries = 0
    with track("draw in rounds", rounds.rounds) as advance:
        for number in range(1, rounds.rounds + 1):
            if number > 1:
                model = _model_so_far(people, rounds, pilot, rest, seed=seed)
            found = rounds.draw(partial(query_scores, people, model))
            rounds.observe(query_scores(people, model, rest[found.indices]))
            queries += found.queries + len(found.indices)
            parts.append(Part(found.drawn, rounds.sizes[number - 1], rounds.law, rounds.scores))
            first[found.indices[first[found.indices] == 0]] = number
            if found.drawn.probabilities is not None:
                missed *= 1.0 - found.drawn.probabilities
            advance(1)
    chosen = rounds.indices
    return put_together(
        people,
        pilot,
        rest,
        tuple(parts),
        drawn=rest[chosen],
        weight=rounds.weights,
        probability=1.0 - missed[chosen],
        take_all=np.zeros(len(chosen), dtype=bool),
        additive=fitted.constants.additive(there.distance, there.cluster),
        rounds=first[chosen],
        queries=queries,
    )


def _model_so_far(
    people: Population, rounds: AdaptiveRounds, pilot: Rows, rest: Rows, *, seed: int
) -> Any:
    """Train the score model on the pilot and all rounds so far, by their weights."""
    rows = np.concatenate([pilot, rest[rounds.indices]])
    is_pilot = np.arange(len(rows)) < len(pilot)
    weights = np.concatenate([np.ones(len(pilot)), rounds.weights])
    training = sampling.training_weights(weights, is_pilot, rows=len(people))
    return fit_score_model(people, rows, weights=training, seed=seed)

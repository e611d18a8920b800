"""The stage that draws: law, design, weights, certificate, and the checks before publication."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation import sampling
from curation.pipeline.by_cluster import Tally, by_cluster, write_by_cluster
from curation.pipeline.changes import SHARDS, what_changed
from curation.pipeline.chosen import Chosen, Part, choose
from curation.pipeline.dataset import (
    PILOT_MODEL,
    SELECTED_SUBSET,
    SENSITIVITY_SCORES,
    Dataset,
    Outcome,
)
from curation.pipeline.estimated import error_curve, estimate_total
from curation.pipeline.findings import Finding, subset_findings
from curation.pipeline.needs import watched
from curation.pipeline.people import Population
from curation.pipeline.pilot import budget_of, load_score_model, pilot_in
from curation.pipeline.population import population
from curation.pipeline.rounds import choose_in_rounds
from curation.pipeline.score import Centroids
from curation.pipeline.strata import STRATA, kept_strata
from curation.pipeline.tables import LEFT_OUT, SCORES, SUBSET, write_json, write_parquet
from curation.pipeline.views import subset_view
from curation.selection import Borders, Fitted, PerRow, law_of
from curation.store import Draft, digest

OWN_COLUMNS = (
    "id",
    "shard",
    "row",
    "weight",
    "training_weight",
    "inclusion_probability",
    "cluster",
    "score",
    "reason",
)


def draw_subset(
    people: Population,
    fitted: Fitted,
    scored: PerRow,
    pilot: NDArray[np.int64],
    model: Any,
    *,
    seed: int,
    borders: Borders | None = None,
) -> Chosen:
    """Draw a subset in one go or in rounds, as the data set's settings say.

    Parameters are those of :func:`curation.pipeline.rounds.choose_in_rounds`, and the borders of
    strata that are kept.
    """
    if people.dataset.config.score.rounds > 1:
        return choose_in_rounds(people, fitted, scored, pilot, model, seed=seed)
    return choose(people, fitted, scored, pilot, seed=seed, borders=borders)


def load_scored(people: Population, centroids: Centroids) -> tuple[PerRow, str]:
    """Read all shards' scores; return them and a hash of what was read."""
    dataset = people.dataset
    hashes = []
    cluster = np.empty(len(people), dtype=np.int32)
    distance, proxy = np.empty(len(people)), np.empty(len(people))
    for index, shard in enumerate(people.shards):
        artifact = dataset.store.need(dataset.at(SENSITIVITY_SCORES, shard))
        artifact.require(
            upstream={
                "centroids": centroids.artifact.content_hash,
                "shard": people.hashes[shard],
            },
            remedy=f"materialize sensitivity_scores of shard {shard} again",
        )
        hashes.append(artifact.content_hash)
        table = pl.read_parquet(
            artifact.path(SCORES), columns=["position", "cluster", "distance", "proxy"]
        )
        start, stop = people.span(index)
        # both are sorted; rows that another shard repeats have scores and are left out
        at = np.searchsorted(table["position"].to_numpy(), people.position[start:stop])
        cluster[start:stop] = table["cluster"].to_numpy()[at]
        distance[start:stop] = table["distance"].to_numpy()[at]
        proxy[start:stop] = table["proxy"].to_numpy()[at]
    return PerRow(cluster, distance, proxy), digest(hashes)


def make_selected_subset(dataset: Dataset) -> tuple[Outcome, list[Finding]]:
    """Draw the subset (see :func:`draw_and_check`), with an eye on memory."""
    with watched(dataset, SELECTED_SUBSET) as watch:
        outcome, findings = draw_and_check(dataset)
    return replace(outcome, told={**outcome.told, **watch.told}), findings


def draw_and_check(dataset: Dataset) -> tuple[Outcome, list[Finding]]:
    """Draw the subset, check it, and publish it if the checks pass.

    Returns
    -------
    tuple
        The outcome and what the checks found. An unpublished subset (a check failed) stays on disk
        under its version; readers keep getting the one before.
    """
    people = population(dataset)
    centroids = Centroids.load(dataset)
    pilot_model = dataset.store.need(dataset.at(PILOT_MODEL))
    centroids.artifact.require(
        upstream={PILOT_MODEL: pilot_model.content_hash},
        remedy="materialize centroids and sensitivity_scores again",
    )
    scored, scores_hash = load_scored(people, centroids)
    seed = dataset.config.selection.seed
    fitted, pilot = centroids.fitted_for(people), pilot_in(people)

    def draw(borders: Borders | None = None) -> Chosen:
        model = load_score_model(pilot_model)
        return draw_subset(people, fitted, scored, pilot, model, seed=seed, borders=borders)

    draws = budget_of(dataset, len(people)) - len(pilot)
    borders, strata_hash = kept_strata(dataset, centroids.artifact, draws, draw)

    config_hash = _settings_hash(dataset)

    def fill(draft: Draft) -> None:
        chosen = draw(borders)
        frame = _frame(people, chosen, fitted, scored)
        write_parquet(draft, SUBSET, frame)
        people.left_out.write(draft.folder / LEFT_OUT)
        write_json(draft.folder / SHARDS, dict(people.hashes))
        draft.row_count = len(frame)
        told, tally = _figures(people, chosen, centroids, fitted, scored)
        draft.figures.update(told)
        write_by_cluster(draft, by_cluster(tally, chosen, scored, fitted))
        draft.figures["changes"] = what_changed(people, frame, chosen, config_hash)
        subset_view(draft, frame, people)

    outcome = dataset.produce(
        SELECTED_SUBSET,
        None,
        config_hash=config_hash,
        upstream={
            "population": people.content_hash,
            PILOT_MODEL: pilot_model.content_hash,
            "centroids": centroids.artifact.content_hash,
            "sensitivity_scores": scores_hash,
            STRATA: strata_hash,
        },
        fill=fill,
        seed=seed,
        publish=False,
        told={"missing_shards": dict(people.missing), "stale_shards": dict(people.stale)},
    )
    findings = subset_findings(pl.read_parquet(outcome.artifact.path(SUBSET)), outcome, people)
    if not outcome.unchanged and not any(f.blocks for f in findings):
        dataset.store.publish(dataset.at(SELECTED_SUBSET), outcome.artifact.manifest.version)
    return outcome, findings


def _settings_hash(dataset: Dataset) -> str:
    config = dataset.config
    return digest([one.model_dump() for one in (config.selection, config.score, config.columns)])


def _frame(people: Population, chosen: Chosen, fitted: Fitted, scored: PerRow) -> pl.DataFrame:
    own = people.rows(chosen.rows)
    more = []
    if chosen.calibrated is not None:
        more.append(pl.Series("calibrated_weight", chosen.calibrated))
    if chosen.round is not None:
        more.append(pl.Series("round", chosen.round))
    frame = own.with_columns(
        pl.Series("weight", chosen.weight),
        pl.Series("training_weight", chosen.training_weight),
        pl.Series("inclusion_probability", chosen.probability),
        pl.Series("cluster", scored.cluster[chosen.rows]),
        pl.Series("score", fitted.scores(scored[chosen.rows])),
        pl.Series("reason", chosen.reason),
        *more,
    )
    ours = [*OWN_COLUMNS, *(column.name for column in more)]
    return frame.select(*ours, *(c for c in frame.columns if c not in (*ours, "split")))


def _figures(
    people: Population, chosen: Chosen, centroids: Centroids, fitted: Fitted, scored: PerRow
) -> tuple[dict[str, Any], Tally]:
    """Return what is noted of a subset, and what the rows that were evaluated say of clusters."""
    estimate, tally = estimate_total(people, chosen, fitted, scored)
    wanted = people.dataset.config.selection
    laws = [law_of(part.drawn, part.law, part.draws) for part in chosen.parts]
    tags = people.tags[chosen.rest]
    once = len(chosen.parts) == 1
    certificate = sampling.certify_rounds(
        [(part.scores, law, part.draws) for part, law in zip(chosen.parts, laws, strict=True)],
        additive=chosen.additive,
        delta=wanted.delta,
        # of the pilot model's law; later rounds go by others
        violated_share=fitted.violated_share if once else None,
        excess_variance=fitted.excess_variance(laws[0], tags) if once else None,
    )
    spread = np.sqrt(
        sum((part.draws / chosen.draws * _spread_of_weights(part)) ** 2 for part in chosen.parts)
    )
    smooth = fitted.smoothness
    figures = {
        "rows": len(people),
        "budget": budget_of(people.dataset, len(people)),
        "distinct_rows": len(chosen.rows),
        "pilot_rows": int((chosen.reason == "pilot").sum()),
        "take_all_rows": int((chosen.reason == "take-all").sum()),
        "queries": centroids.artifact.figures["queries"] + chosen.queries,
        "rounds": len(chosen.parts),
        "law": wanted.law,
        "design": wanted.design,
        "weight_total": float(chosen.weight.sum()),
        "weight_standard_error": float(spread),
        "largest_weight": float(chosen.weight.max()),
        "effective_sample_size": sampling.effective_sample_size(chosen.weight),
        "training_effective_sample_size": sampling.effective_sample_size(chosen.training_weight),
        "proxy": fitted.proxy.name,
        "mix": smooth.mix,
        "reach": smooth.reach,
        "power": smooth.power,
        "verdict": smooth.verdict,
        "certificate": asdict(certificate),
        "missing_shards": dict(people.missing),
        "stale_shards": dict(people.stale),
        "repeats": people.repeats,
        "estimate": estimate,
        "error_curve": error_curve(people, chosen, fitted, scored, estimate),
    }
    return figures, tally


def _spread_of_weights(part: Part) -> float:
    """Return the a-priori standard error of the weights' total, for independent draws."""
    if part.drawn.design == "poisson" and part.drawn.probabilities is not None:
        pi = part.drawn.probabilities  # the number of rows is random as well
        return float(np.sqrt(np.sum((1.0 - pi) / pi)))
    inverse = float(np.sum(1.0 / part.law))
    return float(np.sqrt(max(inverse - float(len(part.law)) ** 2, 0.0) / part.draws))

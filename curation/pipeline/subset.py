"""The stage that draws: law, design, weights, certificate, and the checks before publication."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation import sampling
from curation.clustering.spaces import class_codes
from curation.pipeline.dataset import (
    PILOT_MODEL,
    SELECTED_SUBSET,
    SENSITIVITY_SCORES,
    Dataset,
    Outcome,
)
from curation.pipeline.findings import Finding, subset_findings
from curation.pipeline.pilot import PILOT_ROWS, budget_of, load_score_model, query_scores
from curation.pipeline.population import Population, population
from curation.pipeline.score import Centroids
from curation.pipeline.tables import SCORES, SUBSET, write_parquet
from curation.pipeline.views import subset_view
from curation.selection import Law, draw_order, make_law
from curation.store import Draft, StoreError, digest

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


@dataclass(frozen=True)
class Chosen:
    """The rows of a subset, as indices into the population.

    Attributes
    ----------
    rows
        (b,) indices into the population, sorted.
    weight
        (b,) Horvitz-Thompson weights; pilot rows have 1, they stand for themselves.
    training_weight
        (b,) mean 1.
    probability
        (b,) inclusion probabilities given the pilot.
    reason
        (b,) ``pilot``, ``take-all`` or ``drawn``.
    drawn
        The draw, over the rows that are not in the pilot.
    rest
        Indices into the population of the rows that were up for drawing.
    law
        Their law.
    """

    rows: NDArray[np.int64]
    weight: NDArray[np.float64]
    training_weight: NDArray[np.float64]
    probability: NDArray[np.float64]
    reason: NDArray[np.str_]
    drawn: sampling.Draw
    rest: NDArray[np.int64]
    law: Law


@dataclass(frozen=True)
class Scored:
    """What the draw needs of every row of the population, in its order."""

    cluster: NDArray[np.int32]
    distance: NDArray[np.float64]
    rank: NDArray[np.int32]
    classes: NDArray[np.int64] | None


def choose(
    dataset: Dataset,
    scored: Scored,
    proxy: NDArray[np.float64],
    pilot: NDArray[np.int64],
    *,
    seed: int,
) -> Chosen:
    """Draw a subset: the pilot as it is, the rest of the budget by the law.

    Given the pilot, the law over the other rows is fixed before anything is drawn, so the weighted
    total is unbiased whatever the pilot model is.

    Parameters
    ----------
    dataset
        Its ``selection`` settings are read.
    scored
        Clusters and distances of all n rows.
    proxy
        (n,) score of each row's medoid.
    pilot
        Rows that are in the subset already.
    seed
        Seed of the draw.
    """
    wanted = dataset.config.selection
    n = len(proxy)
    budget = budget_of(dataset, n)
    rest = np.setdiff1d(np.arange(n), pilot)
    tilted = wanted.tilt == "classes" and scored.classes is not None
    law = make_law(
        proxy[rest],
        scored.distance[rest],
        mix=1.0 if wanted.design == "uniform" else wanted.mix,  # the law that rows are drawn by
        classes=scored.classes[rest] if tilted and scored.classes is not None else None,
    )
    order = draw_order(scored.cluster[rest], scored.rank, scored.distance[rest])
    rng = np.random.default_rng([seed, 1])
    drawn = sampling.draw(wanted.design, law.probability, budget - len(pilot), order=order, rng=rng)
    rows = np.concatenate([pilot, rest[drawn.indices]])
    weight = np.concatenate([np.ones(len(pilot)), drawn.weights])
    is_pilot = np.arange(len(rows)) < len(pilot)
    reason = np.where(is_pilot, "pilot", "drawn")
    reason[len(pilot) :][drawn.take_all] = "take-all"
    training = sampling.training_weights(
        weight,
        is_pilot,
        rows=n,
        draws=int(drawn.multiplicity.sum()),
        exponent=wanted.weight_exponent,
    )
    probability = np.concatenate([np.ones(len(pilot)), drawn.inclusion_probability])
    by_row = np.argsort(rows, kind="stable")
    return Chosen(
        rows=rows[by_row],
        weight=weight[by_row],
        training_weight=training[by_row],
        probability=probability[by_row],
        reason=reason[by_row],
        drawn=drawn,
        rest=rest,
        law=law,
    )


def load_scored(
    people: Population, centroids: Centroids
) -> tuple[Scored, NDArray[np.float64], str]:
    """Read all shards' scores; return them, the proxies, and a hash of what was read."""
    dataset = people.dataset
    frames, hashes = [], []
    for shard in people.shards:
        artifact = dataset.store.need(dataset.at(SENSITIVITY_SCORES, shard))
        artifact.require(
            upstream={
                "centroids": centroids.artifact.content_hash,
                "population": people.content_hash,
            },
            remedy=f"materialize sensitivity_scores of shard {shard} again",
        )
        hashes.append(artifact.content_hash)
        frames.append(
            pl.read_parquet(artifact.path(SCORES), columns=["cluster", "distance", "proxy"])
        )
    table = pl.concat(frames)
    if len(table) != len(people):
        raise StoreError(
            f"data set {dataset.name}: {len(table):,} rows have scores, {len(people):,} are up for "
            "selection; materialize sensitivity_scores of all shards again"
        )
    classes = None
    if people.classes and people.labels is not None:
        classes = class_codes(people.labels, people.classes)
    scored = Scored(
        cluster=table["cluster"].to_numpy(),
        distance=table["distance"].to_numpy(),
        rank=centroids.table["rank"].to_numpy(),
        classes=classes,
    )
    return scored, table["proxy"].to_numpy(), digest(hashes)


def pilot_in(people: Population) -> NDArray[np.int64]:
    """Return the pilot's rows as indices into the population."""
    dataset = people.dataset
    artifact = dataset.store.need(dataset.at(PILOT_MODEL))
    if artifact.figures["model"] == "column":
        return np.empty(0, dtype=np.int64)
    wanted = set(pl.read_parquet(artifact.path(PILOT_ROWS))["id"].to_list())
    return np.flatnonzero(people.ids.is_in(list(wanted)).to_numpy()).astype(np.int64)


def make_selected_subset(dataset: Dataset) -> tuple[Outcome, list[Finding]]:
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
    scored, proxy, scores_hash = load_scored(people, centroids)
    seed = dataset.config.selection.seed

    def fill(draft: Draft) -> None:
        pilot = pilot_in(people)
        chosen = choose(dataset, scored, proxy, pilot, seed=seed)
        frame = _frame(people, chosen, scored, proxy)
        write_parquet(draft, SUBSET, frame)
        draft.row_count = len(frame)
        draft.figures.update(_figures(people, chosen, centroids))
        subset_view(draft, frame, people)

    outcome = dataset.produce(
        SELECTED_SUBSET,
        None,
        config_hash=digest(
            [
                dataset.config.selection.model_dump(),
                dataset.config.score.model_dump(),
            ]
        ),
        upstream={
            "population": people.content_hash,
            PILOT_MODEL: pilot_model.content_hash,
            "centroids": centroids.artifact.content_hash,
            "sensitivity_scores": scores_hash,
        },
        fill=fill,
        seed=seed,
        publish=False,
    )
    findings = subset_findings(pl.read_parquet(outcome.artifact.path(SUBSET)), outcome, people)
    if not outcome.unchanged and all(f.passed for f in findings):
        dataset.store.publish(dataset.at(SELECTED_SUBSET), outcome.artifact.manifest.version)
    return outcome, findings


def _frame(
    people: Population, chosen: Chosen, scored: Scored, proxy: NDArray[np.float64]
) -> pl.DataFrame:
    own = people.rows(chosen.rows)
    score = sampling.sensitivity(
        proxy[chosen.rows], scored.distance[chosen.rows], chosen.law.constant
    )
    frame = own.with_columns(
        pl.Series("weight", chosen.weight),
        pl.Series("training_weight", chosen.training_weight),
        pl.Series("inclusion_probability", chosen.probability),
        pl.Series("cluster", scored.cluster[chosen.rows]),
        pl.Series("score", score),
        pl.Series("reason", chosen.reason),
    )
    others = [c for c in frame.columns if c not in (*OWN_COLUMNS, "split")]
    return frame.select(*OWN_COLUMNS, *others)


def _figures(people: Population, chosen: Chosen, centroids: Centroids) -> dict[str, object]:
    dataset = people.dataset
    wanted = dataset.config.selection
    s = int(chosen.drawn.multiplicity.sum())
    certificate = sampling.certify(
        chosen.law.scores,
        chosen.law.probability,
        s,
        additive=chosen.law.additive,
        delta=wanted.delta,
    )
    # a-priori standard error of the weights' total, for independent draws by the same law
    inverse = float(np.sum(1.0 / chosen.law.probability))
    spread = np.sqrt(max(inverse - float(len(chosen.rest)) ** 2, 0.0) / s)
    figures: dict[str, object] = {
        "rows": len(people),
        "budget": budget_of(dataset, len(people)),
        "distinct_rows": len(chosen.rows),
        "pilot_rows": int((chosen.reason == "pilot").sum()),
        "take_all_rows": int((chosen.reason == "take-all").sum()),
        "queries": centroids.artifact.figures["queries"],
        "design": wanted.design,
        "weight_total": float(chosen.weight.sum()),
        "weight_standard_error": float(spread),
        "largest_weight": float(chosen.weight.max()),
        "effective_sample_size": sampling.effective_sample_size(chosen.weight),
        "training_effective_sample_size": sampling.effective_sample_size(chosen.training_weight),
        "constant": chosen.law.constant,
        "certificate": asdict(certificate),
        "missing_shards": list(people.missing),
        "repeats": people.repeats,
    }
    figures["estimate"] = _estimate(people, chosen)
    return figures


def _estimate(people: Population, chosen: Chosen) -> dict[str, Any]:
    """Estimate the total score from the subset, and measure the error where that is cheap.

    The score of the pilot's own rows is known from training it; the drawn rows are evaluated once.
    A probe or a small network can be asked for every row in a moment, which gives the true total,
    and what uniform rows of the same number would have said; a transformer or a score column
    can't, and the interval stands alone.
    """
    dataset = people.dataset
    model = load_score_model(dataset.store.need(dataset.at(PILOT_MODEL)))
    pilot = chosen.rows[chosen.reason == "pilot"]
    drawn = chosen.rest[chosen.drawn.indices]
    known = float(query_scores(people, model, pilot).sum()) if len(pilot) else 0.0
    values = query_scores(people, model, drawn)
    result: dict[str, Any] = {
        **_known_interval(sampling.estimate_total(values, chosen.drawn, known=known)),
        "evaluations": len(pilot) + len(drawn),
        "violated_share": float(np.mean(values > chosen.law.scores[chosen.drawn.indices] + 1e-12)),
        "truth": None,
    }
    if dataset.config.score.model in ("probe", "mlp"):
        result["truth"] = _true_total(people, model)
        rng = np.random.default_rng([dataset.config.selection.seed, 4])
        n = len(chosen.rest)
        other = sampling.draw("uniform", np.full(n, 1.0 / n), len(drawn), rng=rng)
        values = query_scores(people, model, chosen.rest[other.indices])
        result["uniform"] = _known_interval(sampling.estimate_total(values, other, known=known))
    return result


def _known_interval(estimate: sampling.Estimate) -> dict[str, float | None]:
    """Return an estimate's fields, None for those that fewer than two random draws leave open."""
    return {k: v if np.isfinite(v) else None for k, v in asdict(estimate).items()}


def _true_total(people: Population, model: Any) -> float:
    """Return the total score over all rows, asked for block by block."""
    assert people.labels is not None  # noqa: S101  a pilot model has labels
    value = people.dataset.config.score.value
    return sum(
        float(np.sum(model.score(block, people.labels[rows], value=value)))
        for rows, block in people.blocks(people.dataset.config.clusters.block_mib)
    )

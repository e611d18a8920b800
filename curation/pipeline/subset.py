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
from curation.sampling.shares import allocate, draw_by_group
from curation.selection import FLAT, Fitted, PerRow, law_of
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
        (r,) their law.
    scores
        (r,) their sensitivity scores.
    additive
        ``sum L v`` over them, in units of the score.
    """

    rows: NDArray[np.int64]
    weight: NDArray[np.float64]
    training_weight: NDArray[np.float64]
    probability: NDArray[np.float64]
    reason: NDArray[np.str_]
    drawn: sampling.Draw
    rest: NDArray[np.int64]
    law: NDArray[np.float64]
    scores: NDArray[np.float64]
    additive: float


def choose(
    people: Population,
    fitted: Fitted,
    scored: PerRow,
    pilot: NDArray[np.int64],
    *,
    seed: int,
) -> Chosen:
    """Draw a subset: the pilot as it is, the rest of the budget by the law.

    Given the pilot, the law over the other rows is fixed before anything is drawn, so the weighted
    total is unbiased whatever the pilot model is.

    Parameters
    ----------
    people
        The n rows; the ``selection`` settings of their data set are read.
    fitted
        What was learned: the law's parts.
    scored
        Clusters, distances and proxies of all n rows.
    pilot
        Rows that are in the subset already.
    seed
        Seed of the draw.
    """
    wanted = people.dataset.config.selection
    n = len(people)
    draws = budget_of(people.dataset, n) - len(pilot)
    rest = np.setdiff1d(np.arange(n), pilot)
    there = scored[rest]
    codes, names = _groups(people, rest)
    law = fitted.law(
        there,
        flat=wanted.design in FLAT,  # the certificate is of the law that rows are drawn by
        tilt=_tilt(people, rest),
    )
    if wanted.shared and codes is not None:
        law = allocate(
            law,
            codes,
            names,
            draws,
            shares=None if wanted.shares == "none" else wanted.shares,
            minimum=wanted.minimum or None,
        )
    numbers = people.numbers(seed)
    how: dict[str, Any] = {
        "order": fitted.order(there, numbers.tags()[rest]),
        "rng": np.random.default_rng([seed, 1]),
        "numbers": numbers.of("draw")[rest],
    }
    if wanted.shared and codes is not None:
        drawn = draw_by_group(wanted.design, law, codes, draws, **how)
    else:
        drawn = sampling.draw(wanted.design, law, draws, **how)
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
        scores=fitted.scores(there),
        additive=fitted.constants.additive(there.distance, there.cluster),
    )


def _tilt(people: Population, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the classes or groups that rare rows are favoured by."""
    tilt = people.dataset.config.selection.tilt
    if tilt == "classes" and people.labels is not None:
        return class_codes(people.labels, people.classes)[rows]
    return _groups(people, rows)[0] if tilt == "groups" else None


def _groups(
    people: Population, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Return the group of each row and the groups' names."""
    if people.groups is None:
        return None, ()
    names = tuple(np.unique(people.groups).tolist())
    return class_codes(people.groups, names)[rows], names


def load_scored(people: Population, centroids: Centroids) -> tuple[PerRow, str]:
    """Read all shards' scores; return them and a hash of what was read."""
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
    scored = PerRow(
        table["cluster"].to_numpy(), table["distance"].to_numpy(), table["proxy"].to_numpy()
    )
    return scored, digest(hashes)


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
    scored, scores_hash = load_scored(people, centroids)
    seed = dataset.config.selection.seed

    def fill(draft: Draft) -> None:
        pilot = pilot_in(people)
        chosen = choose(people, centroids.fitted, scored, pilot, seed=seed)
        frame = _frame(people, chosen, centroids.fitted, scored)
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


def _frame(people: Population, chosen: Chosen, fitted: Fitted, scored: PerRow) -> pl.DataFrame:
    own = people.rows(chosen.rows)
    frame = own.with_columns(
        pl.Series("weight", chosen.weight),
        pl.Series("training_weight", chosen.training_weight),
        pl.Series("inclusion_probability", chosen.probability),
        pl.Series("cluster", scored.cluster[chosen.rows]),
        pl.Series("score", fitted.scores(scored[chosen.rows])),
        pl.Series("reason", chosen.reason),
    )
    others = [c for c in frame.columns if c not in (*OWN_COLUMNS, "split")]
    return frame.select(*OWN_COLUMNS, *others)


def _figures(people: Population, chosen: Chosen, centroids: Centroids) -> dict[str, object]:
    dataset = people.dataset
    wanted = dataset.config.selection
    s = budget_of(dataset, len(people)) - int((chosen.reason == "pilot").sum())
    certificate = sampling.certify(
        chosen.scores,
        law_of(chosen.drawn, chosen.law, s),
        s,
        additive=chosen.additive,
        delta=wanted.delta,
        violated_share=centroids.fitted.violated_share,
        excess_variance=centroids.fitted.excess_variance(
            total=float(chosen.scores.sum()), rows=len(chosen.scores)
        ),
    )
    # a-priori standard error of the weights' total, for independent draws by the same law
    inverse = float(np.sum(1.0 / chosen.law))
    spread = np.sqrt(max(inverse - float(len(chosen.rest)) ** 2, 0.0) / s)
    if wanted.design == "poisson" and chosen.drawn.probabilities is not None:
        pi = chosen.drawn.probabilities  # the number of rows is random as well
        spread = np.sqrt(float(np.sum((1.0 - pi) / pi)))
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
        "proxy": centroids.fitted.proxy.name,
        "mix": centroids.fitted.smoothness.mix,
        "verdict": centroids.fitted.smoothness.verdict,
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
        "violated_share": float(np.mean(values > chosen.scores[chosen.drawn.indices] + 1e-12)),
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

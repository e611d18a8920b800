"""Calibrated weights, adaptive rounds and laws for regression, as YAML asks for them."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from helpers import curate, vector_config

from curation import sampling
from curation.pipeline.dataset import Dataset
from curation.pipeline.local import run
from curation.pipeline.pilot import fit_score_model, load_score_model, pilot_rows, query_scores
from curation.pipeline.population import population
from curation.pipeline.score import Centroids
from curation.pipeline.subset import draw_subset, load_scored, pilot_in
from curation.sampling.constants import Pilot, estimate_constants
from curation.store import Store


def curated(folder, tmp_path, **changes) -> Dataset:
    """A data set with its subset; what comes after it is not looked at here."""
    dataset = Dataset(vector_config(folder, **changes), Store(tmp_path / "store"), tmp_path)
    curate(dataset, until="selected_subset")
    return dataset


def subset_of(dataset: Dataset) -> pl.DataFrame:
    return pl.read_parquet(dataset.store.need(dataset.at("selected_subset")).path("subset.parquet"))


def figures_of(dataset: Dataset) -> dict:
    return dataset.store.need(dataset.at("selected_subset")).figures


def with_targets(folder) -> dict[str, str]:
    """Give every file a number to predict; return the columns."""
    for place, path in enumerate(sorted(folder.glob("*.parquet"))):
        frame = pl.read_parquet(path)
        noise = np.random.default_rng(place).normal(size=len(frame))
        target = 2 * frame["vector"].list.get(0) - frame["vector"].list.get(1) + 1
        frame.with_columns((target + pl.Series(noise)).alias("y")).write_parquet(path)
    return {"id": "key", "input": "vector", "target": "y"}


def test_calibrated_weights_count_classes_and_train(folder, tmp_path):
    """Over the rows that were up for drawing, and so with the pilot over all of them."""
    dataset = curated(
        folder, tmp_path,
        selection={"budget": 100, "calibrate": True, "weight_exponent": 1.0},
    )  # fmt: skip
    people, subset = population(dataset), subset_of(dataset)
    weight = subset["calibrated_weight"].to_numpy()
    assert np.all(weight > 0.0)
    assert np.all(weight[(subset["reason"] == "pilot").to_numpy()] == 1.0)
    for name in people.classes:
        own = (subset["label"] == name).to_numpy()
        assert weight[own].sum() == pytest.approx((people.labels[:] == name).sum(), rel=1e-6)
    assert weight.sum() == pytest.approx(len(people), rel=1e-6)
    # Horvitz-Thompson weights stay beside them, and do not count the classes
    plain = subset["weight"].to_numpy()
    drawn = (subset["reason"] == "drawn").to_numpy()
    pi = subset["inclusion_probability"].to_numpy()
    assert plain[drawn] == pytest.approx(1 / pi[drawn])
    assert np.abs(weight - plain).max() > 0.1
    # what is trained with follows the calibrated ones: 20 pilot rows, 80 drawn
    n, pilot = len(people), (subset["reason"] == "pilot").to_numpy()
    raw = np.where(pilot, n / 100, weight * n / (n - 20) * 80 / 100)
    assert subset["training_weight"].to_numpy() == pytest.approx(raw / raw.mean())


def test_totals_that_cannot_be_reached_are_named(folder, tmp_path, instance):
    """Six rows can't stand for four classes and their clusters: the error says what to do."""
    config = vector_config(
        folder, clusters={"k": 3}, selection={"budget": 6, "calibrate": True, "tilt": "none"}
    )
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    result = run(dataset, instance)
    assert not result.success
    failed = next(a for a in result.assets if a.asset == "selected_subset")
    assert "data set clouds" in failed.error
    assert "selection.calibrate" in failed.error


def test_rounds_are_drawn_by_the_models_of_their_time(folder, tmp_path):
    """Round 1 by the pilot model, round 2 by one trained on pilot and round 1 with their weights.

    Every number is computed again: law, inclusion probability, combined weight.
    """
    dataset = curated(
        folder, tmp_path,
        clusters={"k": 20, "space": "embedding"}, score={"rounds": 2},
        selection={"budget": 100, "design": "poisson", "mix": 0.2},
    )  # fmt: skip
    people, subset, figures = population(dataset), subset_of(dataset), figures_of(dataset)
    centroids = Centroids.load(dataset)
    scored, _ = load_scored(people, centroids)
    pilot = pilot_in(people)
    rest = np.setdiff1d(np.arange(len(people)), pilot)
    where = {i: n for n, i in enumerate(people.ids.to_list())}
    rows = np.array([where[i] for i in subset["id"]])
    number = subset["round"].to_numpy()
    assert set(number.tolist()) == {0, 1, 2}
    assert np.array_equal(rows[number == 0], pilot)
    model = load_score_model(dataset.store.need(dataset.at("pilot_model")))
    medoids = centroids.fitted.clusters.medoid_rows
    cluster, distance = scored.cluster[rest], scored.distance[rest]
    proxy = query_scores(people, model, medoids)[cluster]
    q = proxy + proxy.mean() / distance.mean() * distance
    law = 0.8 * q / q.sum() + 0.2 / len(rest)
    first = sampling.inclusion_probabilities(law, 40)
    place = {int(r): i for i, r in enumerate(rest)}
    own = np.array([place[int(r)] for r in rows[number > 0]])
    told = subset["inclusion_probability"].to_numpy()[number > 0]
    weight = subset["weight"].to_numpy()[number > 0]
    # a row of round 1 alone weighs half of 1 / pi; one that came again more
    early = number[number > 0] == 1
    half = 0.5 / first[own]
    assert np.all(weight[early] >= half[early] * (1 - 1e-9))
    assert np.isclose(weight[early], half[early]).mean() > 0.5
    assert np.all(told >= first[own] * (1 - 1e-9))
    # the second round's model: weights n / 60 for the pilot's 20 rows, as training_weights has them
    drawn = early.nonzero()[0]
    so_far = np.concatenate([pilot, rest[np.sort(own[drawn])]])
    order = np.argsort(own[drawn])
    ones = np.ones(len(pilot))
    training = sampling.training_weights(
        np.concatenate([ones, 1.0 / first[own[drawn]][order]]),
        np.arange(len(so_far)) < len(pilot),
        rows=len(people),
    )
    second = fit_score_model(people, so_far, weights=training, seed=0)
    later = query_scores(people, second, medoids)[cluster]
    assert not np.allclose(later, proxy)
    seen = own[drawn]
    constants = estimate_constants(
        "conformal", mean_proxy=later.mean(), mean_distance=distance.mean(),
        k=centroids.fitted.clusters.k, rows=len(rest),
        pilot=Pilot(
            cluster[seen], distance[seen], query_scores(people, model, rest[seen]), later[seen],
            1.0 / first[seen],
        ),
    )  # fmt: skip
    q = later + constants.values[0] * distance
    law = 0.8 * q / q.sum() + 0.2 / len(rest)
    again = sampling.inclusion_probabilities(law, 40)
    assert told == pytest.approx(1.0 - (1.0 - first[own]) * (1.0 - again[own]), rel=1e-6)
    later_half = 0.5 / again[own]
    assert weight[~early] == pytest.approx(later_half[~early], rel=1e-6)
    twice = early & ~np.isclose(weight, half)
    assert weight[twice] == pytest.approx((half + later_half)[twice], rel=1e-6)
    assert figures["rounds"] == 2
    assert (
        figures["queries"] > centroids.artifact.figures["queries"] + 2 * centroids.fitted.clusters.k
    )
    assert figures["certificate"]["violated_share"] is None
    assert figures["certificate"]["epsilon"] == pytest.approx(math.sqrt(math.log(40) / 160))


def test_totals_over_rounds_are_unbiased(folder, tmp_path):
    """The true total of the pilot's loss and the number of rows, over 50 draws of the rounds.

    The pilot and its model are kept. Two comparisons at 4 standard errors: by chance one fails in
    1e-4 of cases. Intervals of a nominal 95% cover in 84% and more (binomial error 3 points).
    """
    dataset = curated(
        folder, tmp_path,
        clusters={"k": 20}, score={"rounds": 3}, selection={"budget": 60, "mix": 0.2},
        evaluation={"probe_seeds": 2, "all_rows": False},
    )  # fmt: skip
    people = population(dataset)
    centroids = Centroids.load(dataset)
    scored, _ = load_scored(people, centroids)
    pilot = pilot_in(people)
    model = load_score_model(dataset.store.need(dataset.at("pilot_model")))
    every = query_scores(people, model, np.arange(len(people)))
    totals, counts, covered = [], [], []
    for seed in range(50):
        chosen = draw_subset(people, centroids.fitted, scored, pilot, model, seed=seed)
        assert chosen.draws == 48
        told = chosen.estimate(lambda rows: every[rows], known=float(every[pilot].sum()))
        assert told.value == pytest.approx(float(chosen.weight @ every[chosen.rows]))
        totals.append(told.value)
        counts.append(chosen.weight.sum())
        covered.append(told.low <= every.sum() <= told.high)
    for values, truth in ((np.array(totals), every.sum()), (np.array(counts), len(people))):
        error = values.std(ddof=1) / math.sqrt(50)
        assert abs(values.mean() - truth) <= 4 * error
        assert error < 0.06 * truth  # so that a round weighted twice would be found
    assert np.mean(covered) >= 0.84


def test_evaluation_replays_the_rounds(folder, tmp_path):
    from curation.pipeline.evaluate import Setting, choose_again

    dataset = curated(folder, tmp_path, score={"rounds": 2})
    people = population(dataset)
    centroids = Centroids.load(dataset)
    scored, _ = load_scored(people, centroids)
    setting = Setting(people, population(dataset, split="holdout"), centroids.fitted, scored)
    again = choose_again(setting, seed=0)
    subset = subset_of(dataset)
    assert people.ids[again.rows].to_list() == subset["id"].to_list()
    assert again.weight == pytest.approx(subset["weight"].to_numpy(), rel=1e-9)
    assert np.array_equal(again.pilot, pilot_rows(people, seed=0))


LAWS = ("regression", "leverage", "ridge_leverage", "row_norm")


@pytest.mark.parametrize("law", LAWS)
def test_rows_for_a_fit_are_drawn_by_the_law_asked_for(folder, tmp_path, law):
    """Inclusion probabilities by the definitions, from all embeddings at once."""
    columns = with_targets(folder)
    dataset = curated(
        folder, tmp_path, columns=columns,
        clusters={"k": 30}, selection={"budget": 100, "law": law},
        evaluation={"probe_seeds": 2},
    )  # fmt: skip
    people, subset = population(dataset), subset_of(dataset)
    pilot = pilot_in(people)
    rest = np.setdiff1d(np.arange(len(people)), pilot)
    centroids = Centroids.load(dataset)
    scored, _ = load_scored(people, centroids)
    x = people.embeddings(np.arange(len(people))).astype(np.float64)
    x = np.column_stack([x, np.ones(len(x))])
    if law == "regression":
        clusters = centroids.fitted.clusters
        a, b, size = x[clusters.medoid_rows], people.labels[clusters.medoid_rows], clusters.sizes
        root = np.sqrt(size)
        fit, *_ = np.linalg.lstsq(root[:, None] * a, root * b, rcond=None)
        cluster, distance = scored.cluster[rest], scored.distance[rest]
        proxy = ((a @ fit - b) ** 2)[cluster]
        q = proxy + proxy.mean() / distance.mean() * distance
        hat = root[:, None] * a
        lever = (np.einsum("ij,jk,ik->i", hat, np.linalg.pinv(hat.T @ hat), hat) / size)[cluster]
        p = 0.4 * q / q.sum() + 0.4 * lever / lever.sum() + 0.2 / len(rest)
    else:
        own = x[rest]
        if law == "row_norm":
            score = (own**2).sum(axis=1)
        else:
            ridge = 0.0 if law == "leverage" else (own**2).sum() / own.shape[1]
            inverse = np.linalg.inv(own.T @ own + ridge * np.eye(own.shape[1]))
            score = np.einsum("ij,jk,ik->i", own, inverse, own)
        p = 0.9 * score / score.sum() + 0.1 / len(rest)
    pi = sampling.inclusion_probabilities(p, 80)
    where = {people.ids[int(r)]: chance for r, chance in zip(rest, pi, strict=True)}
    drawn = subset.filter(pl.col("reason") != "pilot")
    expected = np.array([where[i] for i in drawn["id"]])
    assert drawn["inclusion_probability"].to_numpy() == pytest.approx(expected, rel=1e-4)
    assert figures_of(dataset)["law"] == law


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"selection": {"budget": 9, "law": "leverage"}}, "needs `columns.target`"),
        ({"score": {"rounds": 2, "model": "column", "column": "x"}}, "score.rounds"),
        ({"score": {"rounds": 2, "proxy": "low_rank"}}, "proxy `cluster`"),
        ({"score": {"rounds": 2}, "selection": {"budget": 9, "tilt": "classes"}}, "score.rounds"),
        ({"score": {"rounds": 2}, "selection": {"budget": 9, "calibrate": True}}, "score.rounds"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, changes, told):
    with pytest.raises(ValueError, match=told):
        vector_config(folder, **changes)

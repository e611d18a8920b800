"""The stages hand on what they should: every number of a run is computed again from its inputs."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from helpers import curate, four_shards, vector_config, vectors

from curation.models import load_pilot
from curation.pipeline import evaluate
from curation.pipeline.chosen import choose
from curation.pipeline.dataset import Dataset
from curation.pipeline.laws import law_of_rows
from curation.pipeline.pilot import make_pilot_model, pilot_rows
from curation.pipeline.population import population
from curation.pipeline.score import Centroids
from curation.pipeline.subset import load_scored, make_selected_subset, pilot_in
from curation.pipeline.tables import read_columns, read_vectors
from curation.store import Store, StoreError

PUBLISHED = {
    "clusters": {"k": 20, "space": "embedding"},
    "score": {"proxy": "cluster", "constants": "balanced"},
}
SETTINGS = {
    "plain": {**PUBLISHED, "selection": {"budget": 100, "mix": 0.1}},
    "tilted": {
        **PUBLISHED,
        "selection": {"budget": 100, "mix": 0.3, "tilt": "classes", "weight_exponent": 0.5},
    },
    "iid": {**PUBLISHED, "selection": {"budget": 100, "design": "iid", "mix": 0.1}},
}


@pytest.fixture(scope="module", params=sorted(SETTINGS))
def made(request, tmp_path_factory) -> Dataset:
    """A data set by each of the settings, for tests that only look at it."""
    root = tmp_path_factory.mktemp("made")
    config = vector_config(four_shards(root), **SETTINGS[request.param])
    dataset = Dataset(config, Store(root / "store"), root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CURATION_PICTURES", "0")
        curate(dataset, until="selected_subset")
    return dataset


def subset_of(dataset: Dataset) -> pl.DataFrame:
    return pl.read_parquet(dataset.store.need(dataset.at("selected_subset")).path("subset.parquet"))


def pilot_of(dataset: Dataset):
    return load_pilot(dataset.store.need(dataset.at("pilot_model")).folder / "pilot")


def test_scores_are_those_of_the_nearest_centroids_medoid(made):
    """Cluster, squared distance, proxy, constant and score of every row, by brute force."""
    artifact = made.store.need(made.at("centroids"))
    path = artifact.path("centroids.arrow")
    centroids, medoids = read_vectors(path, "centroid"), read_vectors(path, "medoid")
    table = read_columns(path, ["medoid_id", "medoid_score", "constant", "size"])
    people = population(made)
    x = people.embeddings(np.arange(len(people))).astype(np.float64)
    nearest = ((x[:, None] - centroids[None]) ** 2).sum(axis=2).argmin(axis=1)
    distance = ((x - medoids[nearest]) ** 2).sum(axis=1)
    # the proxy is the pilot's score of the medoid itself
    where = {i: n for n, i in enumerate(people.ids.to_list())}
    rows = np.array([where[i] for i in table["medoid_id"]])
    assert medoids == pytest.approx(x[rows])
    own = pilot_of(made).score(x[rows].astype(np.float32), people.labels[rows], value="loss")
    assert table["medoid_score"].to_numpy() == pytest.approx(own)
    proxy = own[nearest]
    constant = proxy.mean() / distance.mean()
    assert table["constant"].to_numpy() == pytest.approx(np.full(len(table), constant), rel=1e-5)
    stored = pl.concat(
        [
            pl.read_parquet(
                made.store.need(made.at("sensitivity_scores", s)).path("scores.parquet")
            )
            for s in people.shards
        ]
    )
    assert stored["id"].to_list() == people.ids.to_list()
    assert np.array_equal(stored["cluster"].to_numpy(), nearest)
    assert stored["distance"].to_numpy() == pytest.approx(distance, rel=1e-4, abs=1e-5)
    assert stored["proxy"].to_numpy() == pytest.approx(proxy)
    score = proxy + constant * distance
    assert stored["score"].to_numpy() == pytest.approx(score, rel=1e-4, abs=1e-5)


def test_probabilities_follow_the_configured_law(made):
    """Inclusion probabilities, weights and training weights from the definitions."""
    people, wanted = population(made), made.config.selection
    scored, _ = load_scored(people, Centroids.load(made))
    subset = subset_of(made)
    where = {i: n for n, i in enumerate(people.ids.to_list())}
    rows = np.array([where[i] for i in subset["id"]])
    is_pilot = (subset["reason"] == "pilot").to_numpy()
    rest = np.setdiff1d(np.arange(len(people)), rows[is_pilot])
    constant = scored.proxy.mean() / scored.distance.mean()
    q = scored.proxy[rest] + constant * scored.distance[rest]
    base = q / q.sum()
    if wanted.tilt == "classes":
        _, code, count = np.unique(people.labels[rest], return_inverse=True, return_counts=True)
        base = np.sqrt(base / count[code])
        base /= base.sum()
    p = (1 - wanted.mix) * base + wanted.mix / len(rest)
    law = dict(zip(rest.tolist(), p, strict=True))
    pi = 80 * p
    while (pi > 1).any():  # rows that would exceed 1 are certain, the others share what is left
        sure = pi >= 1
        pi = np.where(sure, 1.0, (80 - sure.sum()) * p / p[~sure].sum())
    chance = dict(zip(rest.tolist(), pi, strict=True))
    mine = np.array([law[r] for r in rows[~is_pilot]])
    weight = subset["weight"].to_numpy()
    told = subset["inclusion_probability"].to_numpy()[~is_pilot]
    assert np.all(weight[is_pilot] == 1.0)
    if wanted.design == "iid":
        assert told == pytest.approx(1 - (1 - mine) ** 80)
        times = weight[~is_pilot] * 80 * mine
        assert times == pytest.approx(np.round(times))
        assert np.round(times).sum() == 80
    else:
        assert told == pytest.approx(np.array([chance[r] for r in rows[~is_pilot]]), rel=1e-6)
        assert weight[~is_pilot] == pytest.approx(1 / told)
    n = len(people)
    raw = np.where(is_pilot, n / 100, weight * n / (n - 20) * 80 / 100) ** wanted.weight_exponent
    assert subset["training_weight"].to_numpy() == pytest.approx(raw / raw.mean())


def test_estimate_and_certificate_are_those_of_the_subset(made):
    """The figures belong to the rows: weighted scores, true total, epsilon of the draws."""
    subset, people, model = subset_of(made), population(made), pilot_of(made)
    figures = made.store.need(made.at("selected_subset")).figures
    where = {i: n for n, i in enumerate(people.ids.to_list())}
    rows = np.array([where[i] for i in subset["id"]])
    every = model.score(people.embeddings(np.arange(len(people))), people.labels[:], value="loss")
    assert figures["estimate"]["truth"] == pytest.approx(every.sum())
    weighted = float(subset["weight"].to_numpy() @ every[rows])
    assert figures["estimate"]["value"] == pytest.approx(weighted)
    centroids = Centroids.load(made)
    rest = np.setdiff1d(np.arange(len(people)), pilot_in(people))
    there = load_scored(people, centroids)[0][rest]
    fitted = centroids.fitted_for(people)
    q, p = fitted.scores(there), law_of_rows(people, fitted, there, rest)
    spread = math.sqrt(float(np.sum(q * q / p))) / float(np.max(q / p))
    hoeffding, bernstein = math.sqrt(math.log(40) / 160), math.sqrt(math.log(40) / 40) * spread
    epsilon = min(hoeffding, bernstein + math.log(40) / 240)
    assert figures["certificate"]["epsilon"] == pytest.approx(epsilon)
    assert figures["estimate"]["low"] < weighted < figures["estimate"]["high"]


def test_the_draw_depends_on_its_seed_and_the_pilot_is_uniform(first_run):
    clouds = first_run[0]
    people = population(clouds)
    centroids = Centroids.load(clouds)
    scored, _ = load_scored(people, centroids)
    pilot = pilot_in(people)
    one, two = (choose(people, centroids.fitted, scored, pilot, seed=s).rows for s in (1, 2))
    assert not np.array_equal(one, two)
    hits = np.zeros(len(people))
    for seed in range(600):
        hits[pilot_rows(people, seed=seed)] += 1
    # 20 of about 600 rows: each is hit with probability 20 / n; 5 standard errors, 600 comparisons
    n = len(people)
    share = 20 / n
    assert np.all(np.abs(hits / 600 - share) <= 5 * math.sqrt(share / 600))
    assert hits.min() > 0  # by chance in 600 e^-20 of all cases
    chi = ((hits - 600 * share) ** 2).sum() / (600 * share * (1 - share))
    assert abs(chi - n) <= 5 * math.sqrt(2 * n)  # by chance in less than 1e-5


def test_what_the_probe_is_trained_on(clouds, monkeypatch):
    """Equal numbers of rows, weights for the subset alone, and the gain is subset minus uniform."""
    seen: list[tuple[int, np.ndarray | None]] = []
    original = evaluate._probe

    def spy(setting, x, rows, weights, *rest):
        seen.append((len(rows), weights))
        assert len(np.unique(rows)) == len(rows)
        return original(setting, x, rows, weights, *rest)

    monkeypatch.setattr(evaluate, "_probe", spy)
    curate(clouds, until="evaluation_model")
    pairs = list(zip(seen[0:4:2], seen[1:4:2], strict=True))
    for (m, weights), (other, none) in pairs:
        assert m == other == 100
        assert none is None
        assert weights is not None
        assert weights.mean() == pytest.approx(1.0)
        assert weights.std() > 0
    figures = clouds.store.need(clouds.at("evaluation_model")).figures
    for metric in ("accuracy", "macro_f1"):
        means = [figures["probe"][name][metric]["mean"] for name in ("subset", "uniform")]
        assert figures["gain"][metric]["mean"] == pytest.approx(means[0] - means[1])


def test_rows_of_the_holdout_shard_are_not_trained_on_elsewhere(folder, tmp_path):
    """Fifty rows of the holdout shard stand in another shard too: they leave the population."""
    held = pl.read_parquet(folder / "day-1.parquet")
    pl.concat([vectors(100, seed=8), held[:50]]).write_parquet(folder / "day-5.parquet")
    config = vector_config(folder, holdout={"shards": ["day-1"]})
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    curate(dataset, until="embeddings")
    people = population(dataset)
    assert not set(people.ids) & set(held["key"])
    assert people.repeats == 50


def test_another_pilot_than_the_centroids_had_is_refused(curated):
    changed = vector_config(curated.root / "source", score={"pilot_share": 0.4})
    other = Dataset(changed, curated.store, curated.root)
    make_pilot_model(other)
    with pytest.raises(StoreError, match=r"'pilot_model' is .*materialize centroids"):
        make_selected_subset(other)


def test_epsilon_is_reached_by_the_rows_that_are_drawn(folder, tmp_path):
    config = vector_config(folder, selection={"epsilon": 0.12, "delta": 0.1})
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    curate(dataset, until="selected_subset")
    figures = dataset.store.need(dataset.at("selected_subset")).figures
    assert figures["certificate"]["epsilon"] <= 0.12
    # Hoeffding: ln(2 / 0.1) / (2 * 0.12^2) = 104.01 draws, four fifths of the budget
    assert figures["budget"] == math.ceil(105 / 0.8)
    assert figures["pilot_rows"] == round(0.2 * figures["budget"])

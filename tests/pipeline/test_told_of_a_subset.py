"""What a subset's figures say of errors, clusters and cost, held against the rows themselves."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from helpers import curate, vector_config

from curation.pipeline.by_cluster import BY_CLUSTER
from curation.pipeline.dataset import ASSETS, PER_SHARD, Dataset
from curation.pipeline.pilot import load_score_model, query_scores
from curation.pipeline.population import population
from curation.pipeline.score import Centroids
from curation.pipeline.subset import load_scored
from curation.pipeline.views import views_of
from curation.store import digest


@pytest.fixture
def subset(first_run):
    clouds = first_run[0]
    return clouds.store.need(clouds.at("selected_subset"))


def test_clusters_add_up_to_the_rows(first_run, subset):
    clouds = first_run[0]
    frame = pl.read_parquet(subset.path(BY_CLUSTER))
    figures, people = subset.figures, population(clouds)
    assert frame["rows"].sum() == frame["evaluated"].sum() == len(people)
    assert frame["chosen"].sum() == figures["distinct_rows"]
    assert frame["weight"].sum() == pytest.approx(figures["weight_total"])
    assert frame["score"].sum() == pytest.approx(figures["estimate"]["truth"], rel=1e-9)
    model = load_score_model(clouds.store.need(clouds.at("pilot_model")))
    scores = query_scores(people, model, np.arange(len(people)))
    assert 0 < frame["violated"].sum() < len(people)
    centroids = Centroids.load(clouds)
    scored, _ = load_scored(people, centroids)
    above = scores > centroids.fitted_for(people).scores(scored) * (1.0 + 1e-9)
    expected = {
        "rows": np.ones(len(people)),
        "score": scores,
        "square": scores**2,
        "error": (scores - scored.proxy) ** 2,
        "violated": above.astype(np.float64),
    }
    for name, values in expected.items():
        by_cluster = np.bincount(scored.cluster[:], values, len(frame))
        assert frame[name].to_numpy() == pytest.approx(by_cluster), name
    told = pl.read_parquet(subset.path("subset.parquet"))
    by_cluster = np.bincount(told["cluster"], told["weight"], len(frame))
    assert frame["weight"].to_numpy() == pytest.approx(by_cluster)
    assert BY_CLUSTER not in views_of(subset), "numbers, and no picture"


def test_numbers_by_cluster_are_no_part_of_the_data_version(subset):
    assert BY_CLUSTER in subset.manifest.files
    kept = {n: f for n, f in subset.manifest.files.items() if not n.startswith("view-")}
    assert subset.content_hash == digest({name: entry["sha256"] for name, entry in kept.items()})


def test_the_curve_passes_through_what_was_seen(subset):
    """At the budget itself the foreseen error is the estimate's own, within a factor of 2."""
    figures = subset.figures
    curve = figures["error_curve"]
    assert curve["budget"] == sorted(set(curve["budget"]))
    assert curve["budget"][0] > figures["pilot_rows"]
    assert curve["budget"][-1] <= figures["rows"]
    errors = np.array(curve["relative_error"])
    assert (np.diff(errors) < 0).all()
    assert (errors[:-1] < np.array(curve["uniform_error"])[:-1]).all()
    here = curve["relative_error"][curve["budget"].index(figures["distinct_rows"])]
    estimate = figures["estimate"]
    seen = estimate["standard_error"] / estimate["value"]
    assert here / 2 < seen < here * 2
    uniform = curve["uniform_error"][curve["budget"].index(figures["distinct_rows"])]
    seen = estimate["uniform"]["standard_error"] / estimate["uniform"]["value"]
    assert uniform / 2 < seen < uniform * 2


def test_no_curve_says_why(folder, tmp_path, clouds):
    config = vector_config(folder, score={"rounds": 2})
    rounds = Dataset(config, clouds.store, tmp_path)
    curate(rounds, until="selected_subset")
    figures = rounds.store.need(rounds.at("selected_subset")).figures
    assert figures["error_curve"] == {"skipped": "the law changes from round to round"}


def test_every_stage_notes_its_time_and_memory(first_run):
    clouds = first_run[0]
    for asset in ASSETS:
        manifest = clouds.store.need(
            clouds.at(asset, "day-1" if asset in PER_SHARD else None)
        ).manifest
        assert 0.0 < manifest.seconds < 600.0
        assert 20 < manifest.peak_mib < 20_000, "what a process that has loaded numpy holds"

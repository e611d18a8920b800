"""The graph in real Dagster runs: results, data versions, checks, unchanged re-runs, failures."""

from __future__ import annotations

import dagster as dg
import numpy as np
import polars as pl
import pytest
from helpers import curate, events_of, materialize_range, vector_config, vectors

from curation.pipeline.automation import register
from curation.pipeline.component import dataset_definitions
from curation.pipeline.dataset import ASSETS, CODE_VERSIONS, PER_SHARD, Dataset
from curation.pipeline.local import run
from curation.pipeline.population import population
from curation.store import Store, StoreError


def test_everything_is_made_and_adds_up(first_run):
    clouds, _, result = first_run
    assert result.success, [a.error for a in result.assets if a.error]
    assert result.new_shards == ("day-0", "day-1", "day-2", "day-3")
    for asset in result.assets:
        assert asset.computed == (4 if asset.asset in PER_SHARD else 1)
    people = population(clouds)
    subset = pl.read_parquet(clouds.store.need(clouds.at("selected_subset")).path("subset.parquet"))
    assert subset.columns[:9] == [
        "id", "shard", "row", "weight", "training_weight", "inclusion_probability",
        "cluster", "score", "reason",
    ]  # fmt: skip
    assert {"vector", "label"} <= set(subset.columns)
    assert len(subset) == 100
    assert {"pilot", "drawn"} <= set(subset["reason"]) <= {"pilot", "drawn", "take-all"}
    assert (subset["reason"] == "pilot").sum() == 20
    assert subset["training_weight"].mean() == pytest.approx(1.0)
    drawn = subset.filter(pl.col("reason") == "drawn")
    assert (drawn["weight"] * drawn["inclusion_probability"]).to_numpy() == pytest.approx(1.0)
    figures = clouds.store.need(clouds.at("selected_subset")).figures
    off = abs(subset["weight"].sum() - len(people))
    assert off <= 5 * figures["weight_standard_error"] + 1e-6
    # the row a subset names is the row of the source
    one = subset.row(50, named=True)
    source = pl.read_parquet(clouds.root / "source" / f"{one['shard']}.parquet")
    assert source["key"][one["row"]] == one["id"]


@pytest.mark.pictures
def test_pictures_are_kept_and_shown(clouds, instance):
    """Each asset with something to see has its plots inline, also when nothing changed."""
    run(clouds, instance)
    run(clouds, instance)
    for asset, shard, names in (
        ("raw", "day-0", ["Rows"]),
        ("embeddings", "day-3", ["Map of the embeddings"]),
        ("centroids", None, ["Clusters"]),
        ("sensitivity_scores", "day-1", ["Sensitivity scores"]),
        ("selected_subset", None, ["Weights", "Class shares", "Estimated total score"]),
        ("evaluation_model", None, ["Against uniform sampling"]),
    ):
        metadata = events_of(instance, clouds, asset, shard)[0].metadata
        for name in names:
            assert metadata[name].value.startswith("![")
            assert "data:image/png;base64," in metadata[name].value


def test_data_versions_are_content_hashes_of_each_shard(first_run):
    clouds, instance, _ = first_run
    for asset in ASSETS:
        shards = [f"day-{i}" for i in range(4)] if asset in PER_SHARD else [None]
        for shard in shards:
            event = events_of(instance, clouds, asset, shard)[0]
            artifact = clouds.store.need(clouds.at(asset, shard))
            assert event.tags["dagster/data_version"] == artifact.content_hash
            assert event.tags["dagster/code_version"] == CODE_VERSIONS[asset]
    versions = {
        events_of(instance, clouds, "raw", f"day-{i}")[0].tags["dagster/data_version"]
        for i in range(4)
    }
    assert len(versions) == 4


def test_unchanged_inputs_write_nothing_and_say_so(curated, instance):
    run(curated, instance)  # which notes when the copied files were last seen
    before = _times(curated)
    result = run(curated, instance)
    assert result.success
    assert all(a.computed == 0 and a.unchanged > 0 for a in result.assets)
    assert _times(curated) == before
    event = events_of(instance, curated, "embeddings", "day-2")[0]
    assert event.metadata["status"].value == "unchanged: nothing was written"


def _subset(dataset: Dataset) -> pl.DataFrame:
    return pl.read_parquet(dataset.store.need(dataset.at("selected_subset")).path("subset.parquet"))


def _times(dataset):
    """When each file was written; the lock names its holder and changes with every run."""
    found = {p: p.stat().st_mtime_ns for p in dataset.store.root.rglob("*")}
    return {p: t for p, t in found.items() if p.name != ".lock"}


def test_checks_are_recorded_for_each_shard(first_run):
    instance = first_run[1]
    for asset, check, shards in (
        ("raw", "unique_ids", 4),
        ("embeddings", "finite_embeddings", 4),
        ("sensitivity_scores", "valid_scores", 4),
        ("selected_subset", "weights_add_up", 1),
        ("selected_subset", "holdout_disjoint", 1),
        ("selected_subset", "probabilities", 1),
        ("evaluation_model", "evaluation_present", 1),
        ("evaluation_model", "holdout_disjoint", 1),
    ):
        key = dg.AssetCheckKey(dg.AssetKey(["clouds", asset]), check)
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=20)
        passed = [r for r in records if r.event.dagster_event.asset_check_evaluation_data.passed]
        partitions = {r.event.dagster_event.asset_check_evaluation_data.partition for r in passed}
        assert len(partitions) == shards, (asset, check)


def test_one_shard_alone_runs_through(curated, instance):
    """What the UI does for one partition: three assets in one run, nothing skipped."""
    assets = dataset_definitions(curated)
    job = assets.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        partition_key="day-1",
        asset_selection=[dg.AssetKey(["clouds", a]) for a in PER_SHARD],
    )
    assert result.success
    assert len(result.get_asset_materialization_events()) == 3


@pytest.mark.parametrize("selection", [["raw"], ["raw", "embeddings"]])
def test_range_of_shards_in_one_run(clouds, instance, selection):
    """A single-run backfill: every shard with its own hash, and what reads it is not skipped."""
    register(instance, clouds)
    result = materialize_range(clouds, instance, selection, "day-1", "day-2")
    assert result.success
    for asset in selection:
        assert clouds.store.shards("clouds", asset) == ["day-1", "day-2"]
        for shard in ("day-1", "day-2"):
            tags = events_of(instance, clouds, asset, shard)[0].tags
            content = clouds.store.need(clouds.at(asset, shard)).content_hash
            assert tags["dagster/data_version"] == content
        got = instance.get_materialized_partitions(dg.AssetKey(["clouds", asset]))
        assert got == {"day-1", "day-2"}


def test_a_broken_shard_is_named_and_all_else_goes_on(clouds, instance):
    (clouds.root / "source" / "day-1.parquet").write_bytes(b"PAR1 not parquet")
    result = run(clouds, instance)
    assert result.success
    assert list(result.failed_shards) == ["day-1"]
    assert "day-1.parquet" in result.failed_shards["day-1"]
    assert clouds.store.shards("clouds", "raw") == ["day-0", "day-2", "day-3"]
    for asset in PER_SHARD:  # nothing says that it was made: its dot is not green
        made = instance.get_materialized_partitions(dg.AssetKey(["clouds", asset]))
        assert made == {"day-0", "day-2", "day-3"}
    check = dg.AssetCheckKey(dg.AssetKey(["clouds", "raw"]), "readable")
    records = instance.event_log_storage.get_asset_check_execution_history(check, limit=20)
    seen = [r.event.dagster_event.asset_check_evaluation_data for r in records]
    assert {e.partition for e in seen if not e.passed} == {"day-1"}
    assert {e.partition for e in seen if e.passed} == {"day-0", "day-2", "day-3"}
    subset = clouds.store.need(clouds.at("selected_subset"))
    assert "day-1.parquet" in subset.figures["missing_shards"]["day-1"]
    page = clouds.store.need(clouds.at("report")).path("report.html").read_text()
    assert "day-1" in page
    vectors(200, seed=1).write_parquet(clouds.root / "source" / "day-1.parquet")
    result = run(clouds, instance)
    assert result.success
    assert not result.failed_shards
    assert result.assets[0].computed == 1
    assert result.assets[0].unchanged == 3
    assert not clouds.store.need(clouds.at("selected_subset")).figures["missing_shards"]


def test_a_shard_that_broke_keeps_its_rows_and_is_named(curated, instance):
    """What was good yesterday is not dropped because today's file cannot be read."""
    before = population(curated).content_hash
    subset = curated.store.need(curated.at("selected_subset")).content_hash
    (curated.root / "source" / "day-1.parquet").write_bytes(b"PAR1 not parquet")
    result = run(curated, instance)
    assert result.success
    people = population(curated)
    assert people.content_hash == before
    assert list(people.stale) == ["day-1"]
    assert curated.store.need(curated.at("selected_subset")).content_hash == subset


def test_no_shard_that_can_be_read_is_a_failure(clouds, instance):
    for path in (clouds.root / "source").glob("*.parquet"):
        path.write_bytes(b"PAR1 not parquet")
    result = run(clouds, instance)
    assert not result.success
    assert "raw of 4 of 4 shards failed" in result.assets[0].error


def test_a_new_shard_costs_its_own_reading_and_embedding(curated, instance):
    vectors(100, seed=7).write_parquet(curated.root / "source" / "day-4.parquet")
    result = run(curated, instance)
    made = {a.asset: (a.computed, a.unchanged) for a in result.assets}
    assert made["raw"] == made["embeddings"] == (1, 4)
    assert made["selected_subset"] == (1, 0)
    subset = _subset(curated)
    assert "day-4" in set(subset["shard"])


def test_a_removed_shard_leaves_the_subset(curated, instance):
    (curated.root / "source" / "day-3.parquet").unlink()
    result = run(curated, instance)
    assert result.success
    assert result.gone_shards == ("day-3",)
    subset = _subset(curated)
    assert set(subset["shard"]) == {"day-0", "day-1", "day-2"}


def test_repeated_ids_are_counted_once(clouds):
    """The same rows in a further shard change nothing but the count of repeats."""
    again = pl.read_parquet(clouds.root / "source" / "day-0.parquet")
    again.write_parquet(clouds.root / "source" / "day-9.parquet")
    curate(clouds, until="embeddings")
    people = population(clouds)
    assert people.repeats == (
        people.dataset.store.need(clouds.at("raw", "day-0")).figures["rows"]
        - _holdout_of(clouds, "day-0")
    )
    assert people.ids.n_unique() == len(people)


def _holdout_of(dataset: Dataset, shard: str) -> int:
    return dataset.store.need(dataset.at("raw", shard)).figures["holdout_rows"]


def test_holdout_never_changes_sides_and_is_never_selected(curated):
    held = set(population(curated, split="holdout").ids.to_list())
    train = set(population(curated).ids.to_list())
    assert len(held) + len(train) == 800
    assert not held & train
    assert 0.15 < len(held) / 800 < 0.35
    vectors(100, seed=7).write_parquet(curated.root / "source" / "a-first.parquet")
    curate(curated, until="embeddings")
    assert held <= set(population(curated, split="holdout").ids.to_list())


def test_same_settings_same_subset_in_another_store(first_run, clouds, folder, tmp_path, instance):
    assert run(clouds, instance).success
    again = clouds.store.need(clouds.at("selected_subset"))
    there = first_run[0].store.need(first_run[0].at("selected_subset"))
    assert again.folder != there.folder
    assert again.content_hash == there.content_hash
    other = Dataset(
        vector_config(folder, selection={"budget": 100, "seed": 1}),
        Store(tmp_path / "other"),
        tmp_path,
    )
    curate(other, until="selected_subset")
    assert other.store.need(other.at("selected_subset")).content_hash != there.content_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"clusters": {"k": 20, "space": "embedding"}},
        {"clusters": {"k": 20, "space": "gradient"}},
        {
            "clusters": {"k": 20, "space": "gradient"},
            "score": {"model": "mlp", "value": "gradient_norm"},
        },
        {"selection": {"fraction": 0.2, "design": "iid"}},
        {"selection": {"budget": 50, "design": "uniform"}},
        {
            "score": {"proxy": "low_rank", "constants": "quantile"},
            "selection": {"budget": 80, "design": "stratified"},
        },
        {
            "score": {"proxy": "regression", "constants": "conformal"},
            "selection": {"budget": 80, "design": "poisson", "mix": 0.2},
        },
        {"selection": {"epsilon": 0.15, "delta": 0.1}},
        {"selection": {"budget": 80, "tilt": "classes", "weight_exponent": 0.5}},
        {"holdout": {"shards": ["day-3"]}},
        {"evaluation": {"probe": "mlp", "probe_seeds": 2, "all_rows": False}},
        {"selection": {"budget": 80, "calibrate": True, "weight_exponent": 0.5}},
        {"score": {"rounds": 3}, "selection": {"budget": 80, "design": "systematic"}},
    ],
    ids=lambda c: "-".join(f"{v}" for d in c.values() for v in d.values()),
)
def test_every_choice_runs(folder, tmp_path, changes):
    """On two of the four shards."""
    for name in ("day-1", "day-2"):
        (folder / f"{name}.parquet").unlink()
    settings = {"evaluation": {"probe_seeds": 2}, **changes}
    made = curate(Dataset(vector_config(folder, **settings), Store(tmp_path / "store"), tmp_path))
    assert made["report"].artifact.path("report.html").stat().st_size > 0


def test_groups_have_their_shares_of_the_drawn_rows(folder, tmp_path):
    """80 rows are drawn beside the pilot's 20: half for the rarest class, ten at least of each."""
    columns = {"id": "key", "input": "vector", "label": "label", "group": "label"}
    selection = {"budget": 100, "shares": {"class 3": 0.25}, "minimum": 10}
    config = vector_config(folder, columns=columns, selection=selection)
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    curate(dataset)
    subset = pl.read_parquet(
        dataset.store.need(dataset.at("selected_subset")).path("subset.parquet")
    )
    drawn = subset.filter(pl.col("reason") != "pilot")["label"].value_counts()
    counts = dict(zip(drawn["label"], drawn["count"], strict=True))
    assert counts["class 3"] == 20
    assert min(counts.values()) >= 10
    assert sum(counts.values()) == 80


def test_a_score_column_needs_no_pilot(folder, tmp_path):
    for path in folder.glob("*.parquet"):
        frame = pl.read_parquet(path)
        rng = np.random.default_rng(0)
        frame.with_columns(pl.Series("loss", rng.gamma(1, size=len(frame)))).write_parquet(path)
    config = vector_config(folder, score={"model": "column", "column": "loss"})
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    curate(dataset)
    subset = pl.read_parquet(
        dataset.store.need(dataset.at("selected_subset")).path("subset.parquet")
    )
    assert "pilot" not in set(subset["reason"])


def test_regression_on_a_target(folder, tmp_path):
    for path in folder.glob("*.parquet"):
        frame = pl.read_parquet(path)
        first = frame["vector"].list.get(0)
        frame.with_columns((2 * first + 1).alias("y")).write_parquet(path)
    config = vector_config(folder, columns={"id": "key", "input": "vector", "target": "y"})
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    curate(dataset)
    figures = dataset.store.need(dataset.at("evaluation_model")).figures
    assert figures["probe"]["all rows"]["r2"]["mean"] > 0.99


def test_scores_of_other_centroids_are_refused(curated):
    """The reader says which field differs and what to do."""
    from curation.pipeline.subset import make_selected_subset

    other = Dataset(
        vector_config(curated.root / "source", clusters={"k": 5}), curated.store, curated.root
    )
    from curation.pipeline.score import make_centroids

    make_centroids(other)
    with pytest.raises(
        StoreError, match=r"'centroids' is .*materialize sensitivity_scores of shard"
    ):
        make_selected_subset(other)


def test_a_subset_that_fails_its_checks_is_not_published(curated, instance, monkeypatch):
    """A broken weight is caught, the run fails, and the subset before stays current."""
    good = curated.store.need(curated.at("selected_subset")).content_hash
    from curation.pipeline import subset

    original = subset.choose

    def broken(*args, **kwargs):
        chosen = original(*args, **kwargs)
        chosen.weight[:] *= 3
        return chosen

    monkeypatch.setattr(subset, "choose", broken)
    config = vector_config(curated.root / "source", selection={"budget": 90})
    other = Dataset(config, curated.store, curated.root)
    result = run(other, instance)
    assert not result.success
    failed = next(a for a in result.assets if a.asset == "selected_subset")
    assert "weights_add_up" in failed.error
    assert "not published" in failed.error
    assert curated.store.need(curated.at("selected_subset")).content_hash == good


def test_first_seed_of_the_evaluation_is_the_published_subset(first_run):
    """What is evaluated is what the pipeline does: same rows, same weights."""
    clouds = first_run[0]
    from curation.pipeline.evaluate import Setting, choose_again
    from curation.pipeline.score import Centroids
    from curation.pipeline.subset import load_scored

    people = population(clouds)
    centroids = Centroids.load(clouds)
    scored, _ = load_scored(people, centroids)
    setting = Setting(people, population(clouds, split="holdout"), centroids.fitted, scored)
    again = choose_again(setting, seed=0)
    subset = pl.read_parquet(clouds.store.need(clouds.at("selected_subset")).path("subset.parquet"))
    assert people.ids[again.rows].to_list() == subset["id"].to_list()
    assert again.weight == pytest.approx(subset["weight"].to_numpy(), rel=1e-9)
    assert again.training_weight == pytest.approx(subset["training_weight"].to_numpy(), rel=1e-9)

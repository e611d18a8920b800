"""Shards come, change and go: what is computed again, what is kept, and why."""

from __future__ import annotations

import dagster as dg
import numpy as np
import polars as pl
import pytest
from helpers import copied, events_of, vector_config, vectors

from curation.pipeline.dataset import Dataset
from curation.pipeline.local import run
from curation.store import Store

ROWS = [300, 300, 300, 100, 300, 100, 300, 300]  # of each shard: day-03 is a twentieth
SHARDS = len(ROWS)


@pytest.fixture
def fresh(tmp_path) -> Dataset:
    """Eight shards, 2,000 vectors; a twelfth of the rows is selected."""
    return _written(tmp_path)


def _written(root) -> Dataset:
    folder = root / "many"
    folder.mkdir()
    for i, rows in enumerate(ROWS):
        vectors(rows, seed=i).write_parquet(folder / f"day-{i:02d}.parquet")
    config = vector_config(
        folder,
        clusters={"k": 30},
        selection={"fraction": 0.12},
        evaluation={"probe_seeds": 2, "all_rows": False},
    )
    return Dataset(config, Store(root / "store"), root)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> tuple[Dataset, dict]:
    """The same, curated, and what was told of the fit."""
    dataset = _written(tmp_path_factory.mktemp("made-once"))
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("CURATION_PICTURES", "0")
        assert run(dataset, instance).success
        return dataset, _fit(dataset, instance)


@pytest.fixture
def many(made_once, tmp_path) -> Dataset:
    """A copy of what was curated, for a test of its own; its instance has seen no run of it."""
    return copied(made_once[0], tmp_path)


def _made(result) -> dict[str, tuple[int, int]]:
    assert result.success, [a.error for a in result.assets if a.error]
    return {a.asset: (a.computed, a.unchanged) for a in result.assets}


def _subset(dataset: Dataset) -> pl.DataFrame:
    return pl.read_parquet(dataset.store.need(dataset.at("selected_subset")).path("subset.parquet"))


def _fit(dataset: Dataset, instance) -> dict:
    metadata = events_of(instance, dataset, "centroids")[0].metadata
    return {k: v.value for k, v in metadata.items() if k.startswith("fit")}


def _folder(dataset: Dataset):
    return dataset.root / "many"


def test_a_new_shard_costs_its_own_rows_and_the_draw(many, instance):
    before = _subset(many)
    vectors(100, seed=SHARDS).write_parquet(_folder(many) / "day-08.parquet")
    made = _made(run(many, instance))
    for asset in ("raw", "embeddings", "sensitivity_scores"):
        assert made[asset] == (1, SHARDS), asset
    assert made["pilot_model"] == made["centroids"] == (0, 1)
    assert made["selected_subset"] == (1, 0)
    told = _fit(many, instance)
    assert told["fit"].startswith("kept: ")
    assert told["fit_rows_since"] > 50
    assert 0.8 < told["fit_cost_ratio"] < 1.25
    after = _subset(many)
    kept = len(set(before["id"]) & set(after["id"]))
    assert kept / len(before) >= 0.9
    changes = many.store.need(many.at("selected_subset")).figures["changes"]
    assert changes["kept"] == kept
    assert changes["added"] == len(after) - kept
    assert changes["removed"] == len(before) - kept
    assert changes["shards_new"] == ["day-08"]
    assert changes["added_because"]["its shard is new"] == (after["shard"] == "day-08").sum()
    assert sum(changes["removed_because"].values()) == changes["removed"]
    page = many.store.need(many.at("report")).path("report.html").read_text()
    assert "its shard is new" in page


def test_the_first_fit_says_that_it_is_one(made_once):
    assert made_once[1]["fit"].startswith("fitted anew: there are none")


def test_a_drift_is_fitted_anew_and_says_by_which_figure(many, instance):
    drifted = vectors(200, seed=50)
    moved = [(np.array(v) + 6.0).tolist() for v in drifted["vector"]]
    drifted.with_columns(pl.Series("vector", moved, dtype=pl.List(pl.Float32))).write_parquet(
        _folder(many) / "day-08.parquet"
    )
    made = _made(run(many, instance))
    assert made["pilot_model"] == made["centroids"] == (1, 0)
    assert made["sensitivity_scores"] == (SHARDS + 1, 0)
    assert made["embeddings"] == (1, SHARDS)
    told = _fit(many, instance)
    assert "refit.cost_ratio" in told["fit"]
    assert told["fit_cost_ratio"] > 1.25
    changes = many.store.need(many.at("selected_subset")).figures["changes"]
    assert changes["refit"]
    assert "the clusters were fitted anew" in changes["removed_because"]


def test_scores_that_are_too_high_are_fitted_anew(many, instance):
    """Labels that are wrong: the rows lie where they always did, their loss does not."""
    config = many.config.model_copy(
        update={"clusters": many.config.clusters.model_copy(update={"space": "embedding"})}
    )
    plain = Dataset(config, many.store, many.root)
    run(plain, instance)
    wrong = vectors(400, seed=50)
    shuffled = wrong["label"].shuffle(seed=1)
    wrong.with_columns(shuffled).write_parquet(_folder(many) / "day-08.parquet")
    assert _made(run(plain, instance))["centroids"] == (1, 0)
    told = _fit(plain, instance)
    assert "above their sensitivity" in told["fit"]
    assert told["fit_violated_share_now"] > told["fit_violated_share_then"] + 0.15


def test_a_new_class_is_fitted_anew(many, instance):
    vectors(60, seed=50).with_columns(pl.lit("class new").alias("label")).write_parquet(
        _folder(many) / "day-08.parquet"
    )
    assert _made(run(many, instance))["pilot_model"] == (1, 0)
    assert "'class new' was not there" in _fit(many, instance)["fit"]
    assert "class new" in set(_subset(many)["label"])


def test_growth_is_fitted_anew_and_settings_too(many, instance):
    for i in range(30, 34):
        vectors(550, seed=i).write_parquet(_folder(many) / f"day-{i}.parquet")
    assert _made(run(many, instance))["centroids"] == (1, 0)
    assert "refit.growth" in _fit(many, instance)["fit"]
    config = many.config.model_copy(
        update={"clusters": many.config.clusters.model_copy(update={"k": 25})}
    )
    other = Dataset(config, many.store, many.root)
    assert _made(run(other, instance))["centroids"] == (1, 0)
    assert many.store.need(many.at("centroids")).figures["k"] == 25


def test_a_deleted_shard_leaves_and_nothing_else_is_computed(many, instance):
    before = _subset(many)
    gone = _folder(many) / "day-03.parquet"
    content = gone.read_bytes()
    first = many.store.need(many.at("selected_subset")).content_hash
    gone.unlink()
    made = _made(run(many, instance))
    assert made["sensitivity_scores"] == (0, SHARDS - 1)
    assert made["centroids"] == (0, 1)
    after = _subset(many)
    assert "day-03" not in set(after["shard"])
    stay = before.filter(pl.col("shard") != "day-03")
    assert len(set(stay["id"]) & set(after["id"])) / len(stay) >= 0.9
    changes = many.store.need(many.at("selected_subset")).figures["changes"]
    was_there = (before["shard"] == "day-03").sum()
    assert changes["removed_because"]["its shard is gone"] == was_there
    # it comes back: the subset is what it was, byte for byte
    gone.write_bytes(content)
    run(many, instance)
    assert many.store.need(many.at("selected_subset")).content_hash == first


def test_a_renamed_shard_is_not_embedded_or_scored_again(many, instance, monkeypatch):
    before = _subset(many)
    source = _folder(many) / "day-03.parquet"
    source.rename(source.with_name("z-renamed.parquet"))
    from curation.encoders.arrays import PrecomputedEncoder

    def no(*args, **kwargs):
        raise AssertionError("embedded again")

    monkeypatch.setattr(PrecomputedEncoder, "encode", no)
    made = _made(run(many, instance))
    assert made["embeddings"] == made["sensitivity_scores"] == (0, SHARDS)
    after = _subset(many)
    assert set(before["id"]) == set(after["id"])
    assert "z-renamed" in set(after["shard"])


def test_a_changed_shard_is_embedded_again(many, instance):
    before = _subset(many)
    vectors(100, seed=90).write_parquet(_folder(many) / "day-03.parquet")
    made = _made(run(many, instance))
    assert made["raw"] == made["embeddings"] == (1, SHARDS - 1)
    changes = many.store.need(many.at("selected_subset")).figures["changes"]
    assert changes["shards_changed"] == ["day-03"]
    left = before.filter(pl.col("shard") == "day-03")
    assert changes["removed_because"]["it left its shard"] == len(left) > 0
    assert sum(changes["removed_because"].values()) == changes["removed"]
    assert set(changes["removed_because"]) <= {
        "it left its shard", "its probability fell", "others of its stratum came",
    }  # fmt: skip


def test_too_much_in_quarantine_holds_the_subset_back(many, instance):
    """A few bad rows are a warning; above the limit the subset of before stays."""
    good = many.store.need(many.at("selected_subset")).content_hash
    bad = vectors(300, seed=60).with_columns(pl.lit(None, dtype=pl.String).alias("label"))
    some = pl.concat([vectors(100, seed=61), bad.head(20)])
    some.write_parquet(_folder(many) / "day-08.parquet")
    assert run(many, instance).success
    few = many.store.need(many.at("selected_subset")).content_hash
    assert few != good
    pl.concat([vectors(100, seed=61), bad]).write_parquet(_folder(many) / "day-08.parquet")
    result = run(many, instance)
    assert not result.success
    (failed,) = [a.error for a in result.assets if a.error]
    assert "quarantine_within_limit" in failed
    assert "300 of 2,400 rows are in quarantine (12.5%, limit 10.0%)" in failed
    assert many.store.need(many.at("selected_subset")).content_hash == few
    # what a shard that is gone had in quarantine is no longer told
    (_folder(many) / "day-08.parquet").unlink()
    assert run(many, instance).success
    page = many.store.need(many.at("report")).path("report.html").read_text()
    assert "rows were set aside" not in page


def test_evaluation_is_of_the_published_subset_also_when_the_fit_is_old(many, instance):
    vectors(100, seed=SHARDS).write_parquet(_folder(many) / "day-08.parquet")
    run(many, instance)
    from curation.pipeline.evaluate import Setting, choose_again
    from curation.pipeline.population import population
    from curation.pipeline.score import Centroids
    from curation.pipeline.subset import load_scored

    people = population(many)
    centroids = Centroids.load(many)
    scored, _ = load_scored(people, centroids)
    held = population(many, split="holdout")
    setting = Setting(people, held, centroids.fitted_for(people), scored)
    again = choose_again(setting, seed=0)
    assert people.ids[again.rows].to_list() == _subset(many)["id"].to_list()
    assert again.weight == pytest.approx(_subset(many)["weight"].to_numpy(), rel=1e-12)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"score": {"rounds": 3}},
        {"columns": {"id": "key", "input": "vector", "label": "label", "group": "label"},
         "selection": {"fraction": 0.12, "shares": "proportional"}},
        {"selection": {"fraction": 0.12, "design": "systematic"}},
        {"selection": {"budget": 150, "tilt": "classes", "calibrate": True}},
        {"clusters": {"k": 30, "space": "gradient"}},
        {"score": {"proxy": "regression"}},
    ],
    ids=str,
)  # fmt: skip
def test_every_choice_goes_on_with_an_old_fit(fresh, instance, changes):
    merged = {**fresh.config.model_dump(exclude_defaults=True), **changes}
    dataset = Dataset(type(fresh.config).model_validate(merged), fresh.store, fresh.root)
    run(dataset, instance)
    (_folder(fresh) / "day-05.parquet").unlink()
    vectors(100, seed=SHARDS).write_parquet(_folder(fresh) / "day-08.parquet")
    made = _made(run(dataset, instance))
    if "rounds" not in changes.get("score", {}):
        assert made["centroids"] == (0, 1), _fit(dataset, instance)
    frame = _subset(dataset)
    assert np.isfinite(frame["weight"].to_numpy()).all()
    assert "day-08" in set(frame["shard"])

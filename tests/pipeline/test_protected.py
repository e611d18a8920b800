"""The holdout's protected half, as runs use it: what is shown, asked, kept, and never shown."""

from __future__ import annotations

import datetime as dt
import json
import math

import dagster as dg
import numpy as np
import polars as pl
import pytest
from helpers import copied, curate, events_of, four_shards, vector_config, vectors

from curation import retention
from curation.pipeline import evaluate, protected
from curation.pipeline.dataset import EVALUATION_MODEL, SELECTED_SUBSET, Dataset, Outcome
from curation.pipeline.halves import halve, own_half
from curation.pipeline.local import run
from curation.pipeline.measured import Ruler
from curation.pipeline.population import population
from curation.store import Store, StoreError

SPLIT = {"probe_seeds": 2, "all_rows": False, "protected": {"least_rows": 50}}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory) -> Dataset:
    """800 rows, 200 of them held out, about half of those protected; a subset, not evaluated."""
    root = tmp_path_factory.mktemp("chosen")
    made = with_settings(four_shards(root), root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CURATION_PICTURES", "0")
        curate(made, until=SELECTED_SUBSET)
    return made


@pytest.fixture
def dataset(chosen, tmp_path) -> Dataset:
    """A copy of it for a test of its own."""
    return copied(chosen, tmp_path)


def evaluated(dataset: Dataset) -> Outcome:
    """Bring everything up to the evaluation up to date."""
    return curate(dataset, until=EVALUATION_MODEL)[EVALUATION_MODEL]


def with_settings(folder, tmp_path, **changes) -> Dataset:
    settings = {"evaluation": SPLIT, **changes}
    return Dataset(vector_config(folder, **settings), Store(tmp_path / "store"), tmp_path)


def held_of(dataset: Dataset):
    return population(dataset, split="holdout")


def figures_of(dataset: Dataset) -> dict:
    return dataset.store.need(dataset.at(EVALUATION_MODEL)).figures


def record_of(dataset: Dataset) -> protected.Record:
    return protected.Record.read(dataset, rows=figures_of(dataset)["holdout"]["protected_rows"])


class Refuted:
    """Makes an evaluation claim more than holds: all open rows right, no protected one."""

    def __init__(self, monkeypatch) -> None:
        original = Ruler._compare

        def wrong(ruler, guess):
            truth, opened = ruler.truth, ruler.halves.opened
            return original(ruler, np.where(opened, truth, (truth + 1) % len(ruler.names)))

        monkeypatch.setattr(Ruler, "_compare", wrong)


def test_a_row_keeps_its_half_as_shards_come_and_go(dataset):
    """Also under other settings; about half of the rows are open (5 standard errors)."""
    folder, held = dataset.root / "source", held_of(dataset)
    before = dict(zip(held.ids.to_list(), own_half(held).tolist(), strict=True))
    assert abs(np.mean(list(before.values())) - 0.5) < 5 * 0.5 / math.sqrt(len(before))
    vectors(400, seed=11).write_parquet(folder / "a-first.parquet")
    (folder / "day-2.parquet").unlink()
    (folder / "day-1.parquet").rename(folder / "z-last.parquet")
    other = with_settings(
        folder, dataset.root, selection={"budget": 60, "seed": 5}, evaluation={"probe_seeds": 2}
    )
    curate(other, until="embeddings")
    held = held_of(other)
    after = dict(zip(held.ids.to_list(), own_half(held).tolist(), strict=True))
    both = set(before) & set(after)
    assert len(both) > 100
    assert set(after) - both
    assert all(before[i] == after[i] for i in both)


def test_free_figures_are_of_the_open_half_and_the_rest_is_one_question_each(dataset, instance):
    """The labels of protected rows are turned around: but for the answers, nothing changes."""
    evaluated(dataset)
    figures, held = figures_of(dataset), held_of(dataset)
    answers = figures["holdout"]["answers"]
    opened = own_half(held)
    assert figures["holdout"]["open_rows"] == opened.sum()
    assert figures["holdout"]["protected_rows"] == (~opened).sum()
    assert figures["holdout_rows"] == len(held)
    assert [a["strategy"] for a in answers] == ["subset", "uniform", "gain over uniform"]
    assert figures["holdout"]["questions"] == 3
    for answer in answers[:2]:
        mean = figures["probe"][answer["strategy"]]["accuracy"]["mean"]
        assert answer["open"] == pytest.approx(mean)
        assert answer["value"] == answer["open"]  # the halves agree
    assert answers[2]["value"] == pytest.approx(figures["gain"]["accuracy"]["mean"])
    assert answers[2]["tolerance"] == pytest.approx(2 * answers[0]["tolerance"])
    assert set(figures["holdout"]["open_only"]) == {"macro_f1", "worst_class"}
    # by the definitions, from the probe's predictions
    ruler = Ruler.of(held, population(dataset).classes)
    guess = np.where(np.arange(len(held)) % 3 > 0, ruler.truth, 0)
    one = ruler.measure_predictions(ruler.names[guess])
    right = guess == ruler.truth
    assert one.metrics["accuracy"] == right[opened].mean()
    assert one.protected == right[~opened].mean()
    for code, accuracy in enumerate(one.by_class):
        assert accuracy == right[opened & (ruler.truth == code)].mean()
    guess = np.where(opened, guess, (ruler.truth + 1) % len(ruler.names))
    other = ruler.measure_predictions(ruler.names[guess])
    assert other.metrics == one.metrics
    assert np.array_equal(other.by_class, one.by_class)
    assert other.protected == 0.0


def test_what_the_open_half_claims_wrongly_is_refuted_and_costs_an_event(
    dataset, instance, monkeypatch
):
    """Three figures: subset and uniform are 1 on open rows and 0 on protected ones, the gain 0."""
    Refuted(monkeypatch)
    assert run(dataset, instance).success
    figures = figures_of(dataset)
    assert figures["probe"]["subset"]["accuracy"]["mean"] == 1.0
    told = figures["holdout"]
    assert [a["overfitted"] for a in told["answers"]] == [True, True, False]
    # 0 and noise of scale 0.25 / sqrt(n): 12 scales are exceeded once in 80,000 (half of that by
    # what is cut off at 0)
    for answer in told["answers"][:2]:
        assert 0.0 <= answer["value"] < 12 * told["noise"]
    assert (told["events_spent"], told["events_left"]) == (2, 18)
    assert "does not hold on the protected half" in told["notes"][0]
    results = json.loads(
        dataset.store.need(dataset.at(EVALUATION_MODEL)).path("results.json").read_text()
    )
    assert results["holdout"]["answers"] == told["answers"]
    key = dg.AssetCheckKey(dg.AssetKey(["clouds", EVALUATION_MODEL]), "holdout_agrees")
    check = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)[0]
    found = check.event.dagster_event.asset_check_evaluation_data
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert "subset: accuracy 1.000" in found.description
    metadata = events_of(instance, dataset, EVALUATION_MODEL)[0].metadata
    assert metadata["holdout_questions"].value == 3
    assert metadata["holdout_events_left"].value == 18
    assert metadata["holdout_tolerance"].value == pytest.approx(told["tolerance"])


def test_the_same_evaluation_asks_the_same_questions(dataset, instance, monkeypatch):
    """Unchanged, made again because it was damaged, or under another number of events."""
    Refuted(monkeypatch)
    evaluated(dataset)
    before, first = record_of(dataset), figures_of(dataset)["holdout"]
    evaluated(dataset)
    assert record_of(dataset) == before
    artifact = dataset.store.need(dataset.at(EVALUATION_MODEL))
    artifact.path("results.json").write_text("{}")
    evaluated(dataset)
    assert record_of(dataset) == before
    assert figures_of(dataset)["holdout"] == first
    more = {**SPLIT, "protected": {"least_rows": 50, "overfitting_events": 30}}
    other = with_settings(dataset.root / "source", dataset.root, evaluation=more)
    assert evaluated(other).unchanged
    told, _ = protected.told_now(other, figures_of(other)["holdout"])
    assert told["holdout_events_left"] == 28
    # another subset is another question
    evaluated(with_settings(dataset.root / "source", dataset.root, selection={"budget": 90}))
    assert record_of(dataset).holdout.questions == 6
    assert record_of(dataset).holdout.spent == 4


def test_killed_between_an_answer_and_its_publication(dataset, instance, monkeypatch):
    """The record is on the disk before anything else is; the second run pays nothing again."""
    Refuted(monkeypatch)
    seen = []

    def killed(*_):
        seen.append(protected.Record.read(dataset, rows=100).holdout)
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "write_json", killed)
        with pytest.raises(SystemExit, match="killed"):
            evaluated(dataset)
    assert (seen[0].questions, seen[0].spent) == (3, 2)
    with pytest.raises(StoreError):
        figures_of(dataset)
    evaluated(dataset)
    assert record_of(dataset).holdout.answers == seen[0].answers
    assert record_of(dataset).holdout.spent == 2
    # and it is written before an answer is used: a full disk publishes none
    other = with_settings(dataset.root / "source", dataset.root, selection={"budget": 90})
    version = dataset.store.need(dataset.at(EVALUATION_MODEL)).manifest.version

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(protected, "write_atomically", full)
    with pytest.raises((OSError, StoreError), match="No space left"):
        evaluated(other)
    assert dataset.store.need(dataset.at(EVALUATION_MODEL)).manifest.version == version


def test_events_outlive_retention_and_rows_that_arrive_and_end_with_the_holdout(
    dataset, monkeypatch
):
    Refuted(monkeypatch)
    folder = dataset.root / "source"
    evaluated(dataset)
    first = figures_of(dataset)["holdout"]
    vectors(400, seed=11).write_parquet(folder / "day-9.parquet")
    evaluated(dataset)
    now = dt.datetime.now(dt.UTC)
    gone = retention.plan(dataset, versions=1, days=None, present={"day-9"}, now=now)
    assert any("evaluation_model" in str(r.path) for r in gone)
    retention.apply(gone)
    second = figures_of(dataset)["holdout"]
    assert second["protected_rows"] > first["protected_rows"]
    assert second["threshold"] == pytest.approx(4 / math.sqrt(second["protected_rows"]))
    assert record_of(dataset).holdout.spent == second["events_spent"] == 4
    other = with_settings(folder, dataset.root, holdout={"fraction": 0.3, "seed": 1})
    evaluated(other)
    assert figures_of(other)["holdout"]["events_spent"] == 2  # a holdout of its own
    assert record_of(dataset).holdout.spent == 4


def test_when_no_event_is_left_it_says_what_to_do(dataset, instance, monkeypatch):
    Refuted(monkeypatch)
    settings = {**SPLIT, "protected": {"least_rows": 50, "overfitting_events": 1}}
    dataset = with_settings(dataset.root / "source", dataset.root, evaluation=settings)
    assert run(dataset, instance).success
    told = figures_of(dataset)["holdout"]
    assert told["answers"][0]["value"] is not None
    assert told["answers"][1]["value"] is None  # overfitted, and nothing is told
    assert told["answers"][1]["overfitted"]
    assert told["events_left"] == 0
    assert "Take a fresh holdout" in told["notes"][-1]
    assert any("uniform unknown" in line for line in protected.sentences(told))
    key = dg.AssetCheckKey(dg.AssetKey(["clouds", EVALUATION_MODEL]), "holdout_budget")
    check = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)[0]
    found = check.event.dagster_event.asset_check_evaluation_data
    assert not found.passed
    assert "Take a fresh holdout" in found.description


def test_a_record_that_cannot_be_read_gives_no_event_back(dataset, monkeypatch):
    Refuted(monkeypatch)
    evaluated(dataset)
    path = record_of(dataset).path
    for text in ("", "[]", '{"whole": 0}', '{"whole": 0, "state": {"rows": 0}}'):
        path.write_text(text)
        settings = {**SPLIT, "probe_epochs": 20 + len(text)}
        other = with_settings(dataset.root / "source", dataset.root, evaluation=settings)
        evaluated(other)
        told = figures_of(other)["holdout"]
        assert told["events_left"] == 0
        assert [a["value"] for a in told["answers"]] == [None, None, 0.0]
        assert f"{path} can't be read" in told["notes"][-1]
        assert path.read_text() == text  # whoever restores it finds it as it was


def test_holdouts_that_are_not_split_say_why(dataset):
    """Few rows, switched off, errors without a bound; later runs know what was shown before."""
    folder = dataset.root / "source"
    few = with_settings(folder, dataset.root, evaluation={"probe_seeds": 2})
    evaluated(few)
    told = figures_of(few)["holdout"]
    assert not told["protected"]
    assert (told["open_rows"], told["protected_rows"]) == (len(held_of(few)), 0)
    assert "least_rows is 400" in told["why"]
    assert "not protected" in protected.sentences(told)[0]
    off = {**SPLIT, "protected": {"least_rows": 50, "protect": False}}
    assert (
        "protect is false"
        in halve(held_of(with_settings(folder, dataset.root, evaluation=off))).why
    )
    split = with_settings(folder, dataset.root)
    evaluated(split)
    told = figures_of(split)["holdout"]
    assert told["protected"]
    assert told["notes"] == [
        f"figures of {len(held_of(few))} holdout rows were shown before the holdout was split: to "
        "those the protected half is no stranger"
    ]


def test_regression_is_not_protected(folder, tmp_path, instance):
    for place, path in enumerate(sorted(folder.glob("*.parquet"))):
        frame = pl.read_parquet(path)
        target = frame["vector"].list.get(0) + place / 10
        frame.with_columns(target.alias("y")).write_parquet(path)
    columns = {"id": "key", "input": "vector", "target": "y", "group": "label"}
    dataset = with_settings(folder, tmp_path, columns=columns)
    evaluated(dataset)
    figures = figures_of(dataset)
    assert "no bound" in figures["holdout"]["why"]
    assert figures["holdout"]["open_rows"] == figures["holdout_rows"]
    assert figures["per_class"] == {}
    table = figures["per_group"]["probe"]
    assert table["metric"] == "rmse"
    means = [line["subset"]["mean"] for line in table["lines"]]
    assert means == sorted(means, reverse=True)  # the worst first
    rows = np.array([line["rows"] for line in table["lines"]])
    uniform = np.array([line["uniform"]["mean"] for line in table["lines"]])
    whole = figures["probe"]["uniform"]["rmse"]["mean"]
    assert math.sqrt(rows @ uniform**2 / rows.sum()) == pytest.approx(whole, rel=0.02)


class Guesser:
    """Tosses a coin for each row, by its embedding: always the same for the same row."""

    def __init__(self, seed: int) -> None:
        self.slope = np.random.default_rng(seed).normal(size=6) * 1e4

    def toss(self, x):
        return np.where(np.sin(x.astype(np.float64) @ self.slope) > 0, 1.0, -1.0)

    def predict(self, x):
        return np.where(self.toss(x) > 0, "yes", "no")


class Vote:
    """The weighted vote of several guessers."""

    def __init__(self, guessers, weights) -> None:
        self.guessers, self.weights = guessers, weights

    def predict(self, x):
        votes = sum(w * g.toss(x) for g, w in zip(self.guessers, self.weights, strict=True))
        return np.where(votes > 0, "yes", "no")


def test_a_figure_that_was_tuned_on_the_open_half_is_not_published(tmp_path, instance):
    """Labels are coin tosses. 200 rounds of five models each, weighted by the open half's figures:
    their vote is far above chance there, and the published answer stays near 1/2.

    The tolerance holds for 95%; here are two figures of which the truth is 1/2 within 2 standard
    errors of the protected half.
    """
    folder = tmp_path / "source"
    folder.mkdir()
    for i in range(2):
        toss = np.random.default_rng([i, 5]).integers(2, size=1000)
        frame = vectors(1000, seed=i).with_columns(pl.Series("label", np.where(toss, "yes", "no")))
        frame.write_parquet(folder / f"day-{i}.parquet")
    dataset = with_settings(folder, tmp_path, holdout={"fraction": 0.6})
    evaluated(dataset)
    people, held = population(dataset), held_of(dataset)
    ruler = Ruler.of(held, people.classes)
    guessers = [Guesser(seed) for seed in range(1000)]
    weights = [ruler.measure(g, block_mib=64).metrics["accuracy"] - 0.5 for g in guessers]
    tuned = ruler.measure(Vote(guessers, weights), block_mib=64)
    plain = ruler.measure(guessers[0], block_mib=64)
    spent = record_of(dataset).holdout.spent
    told = protected.consult(
        dataset, ruler.halves, {"probe": {"subset": [tuned], "uniform": [plain]}}, recipe="tuned"
    )
    subset, _, gain = told["answers"]
    assert subset["open"] > 0.5 + subset["tolerance"]  # what a run without protection would say
    assert subset["overfitted"]
    off = 2 * 0.5 / math.sqrt(ruler.halves.protected_rows)
    assert abs(subset["value"] - 0.5) < 0.05 + off
    assert told["events_spent"] > spent
    assert abs(gain["value"]) <= gain["tolerance"] + 2 * off

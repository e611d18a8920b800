"""What the training benchmark does with rows and figures; pages say what their figures say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import experiment, images, noise, pages, recipes, show, texts
from bench.experiment import Task
from curation.baselines import Choice, Pool, apply
from curation.models import fit_pilot

DOCS = Path(__file__).parents[1] / "docs" / "results"
N = 600
SIZES = (400, 150, 40, 10)


@pytest.fixture(scope="module")
def task():
    """Four clouds of 400 to 10 rows; the holdout are the same rows."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.array(list("abcd")), SIZES)
    x = rng.normal(size=(N, 8)).astype(np.float32)
    x += 2.0 * rng.normal(size=(4, 8)).astype(np.float32)[np.repeat(np.arange(4), SIZES)]
    return Task("toy", x, y, x, y, kind="probe", value="loss")


@pytest.fixture(scope="module")
def pool(task):
    pilot = np.arange(0, N, 20)
    model = fit_pilot(
        "probe", task.x[pilot], task.y[pilot], task="classification", classes=list("abcd")
    )
    return Pool(task.x, task.y, pilot, model, value="loss")


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_shares_lie_between_proportional_and_balanced(task, balance):
    shares = recipes.class_shares(task.y, 100, balance)
    assert sum(shares.values()) == pytest.approx(1.0)
    expected = {
        0.0: [400 / 6, 25.0, 40 / 6, 10 / 6],
        # of the rarest class all ten are taken, what it lacks goes to the others in proportion
        0.5: [None, None, None, 10.0],
        1.0: [30.0, 30.0, 30.0, 10.0],
    }[balance]
    for found, wanted in zip(shares.values(), expected, strict=True):
        assert wanted is None or 100 * found == pytest.approx(wanted)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_a_recipe_s_shares_are_what_is_drawn(pool):
    recipe = recipes.Recipe(tilt=1.0, k=10, exponent=1.0)
    found = apply(lambda *a: recipes.follow(*a, recipe=recipe), pool, 80)
    counts = {c: int((pool.labels[found.rows] == c).sum()) for c in pool.classes}
    there = {c: int((pool.labels[pool.rest] == c).sum()) for c in pool.classes}
    assert counts["d"] == there["d"]
    assert max(counts[c] for c in "abc") - min(counts[c] for c in "abc") <= 1
    for name in pool.classes:  # Horvitz-Thompson: systematic in each class by itself
        own = pool.labels[found.rows] == name
        assert found.weights[own].sum() == pytest.approx(there[name], rel=0.35)
    assert 0 < found.evaluations < len(pool.rest)


@pytest.mark.parametrize("space", texts.SPACES)
@pytest.mark.parametrize("tilt", [None, "classes", 0.7])
def test_every_recipe_chooses_as_many_rows_as_asked(pool, space, tilt):
    recipe = recipes.Recipe(space=space, tilt=tilt, k=8)
    found = apply(lambda *a: recipes.follow(*a, recipe=recipe), pool, 50)
    assert len(np.unique(found.rows)) == 50
    assert not np.isin(found.rows, pool.pilot).any()
    if space == "gradient":
        assert found.evaluations >= len(pool.rest)  # the pilot sees every row


def test_tempered_weights_leave_the_pilot_s_worth_alone(pool):
    weights = np.array([1.0, 4.0, 16.0, 3.0])
    chosen = Choice(pool.rest[:4], weights)
    assert recipes.temper(chosen, 1.0) is chosen
    even = recipes.temper(chosen, 0.0)
    assert even.weights == pytest.approx(np.full(4, weights.mean()))
    half = recipes.temper(chosen, 0.5).weights
    assert half[2] / half[0] == pytest.approx(4.0)
    # weights of mean (n - m) / (b - m): a row counts on average as much as a row of the pilot
    flat = Choice(pool.rest[:4], np.full(4, len(pool.rest) / 4))
    assert experiment.all_weights(pool, recipes.temper(flat, 0.3)) == pytest.approx(1.0)


def test_validation_rows_are_training_rows_that_are_left_out(task):
    found = texts.split(task, 3)
    assert len(found.x) == 480
    assert len(found.held_x) == 120
    together = np.concatenate([found.x, found.held_x])
    assert np.array_equal(np.unique(together, axis=0), np.unique(task.x, axis=0))
    assert not np.array_equal(texts.split(task, 4).held_x, found.held_x)


def test_a_tenth_of_the_labels_is_flipped(task):
    found, wrong = noise.flip(task, np.random.default_rng(1))
    assert wrong.sum() == 60
    assert np.array_equal(found.y != task.y, wrong)
    assert np.array_equal(found.held_y, task.held_y)


def test_a_class_is_thinned(task):
    two = Task("two", task.x, np.repeat(np.array(["x", "y"]), 300), task.x, task.y, kind="probe")
    found, marked = noise.thin(two, np.random.default_rng(1))
    assert (found.y == "x").sum() == 300
    assert marked.sum() == 6
    assert np.array_equal(found.y == "y", marked)


def cells(seeds, names=("uniform", "recipe", "class-balanced")):
    rng = np.random.default_rng(5)
    keys = ("accuracy", "macro_f1", "worst_class", "rows", "evaluations", "choose_seconds")
    one = dict.fromkeys(keys, 0.5) | {"choose_mib": 1.0}
    return {
        str(seed): {
            name: one | {"accuracy": 0.5 + 0.1 * at + 0.01 * rng.random()}
            for at, name in enumerate(names)
        }
        for seed in range(seeds)
    }


def test_seeds_that_lack_a_strategy_are_left_out():
    given = cells(4)
    del given["2"]["recipe"]
    found = pages.pack(given)
    assert {len(one["accuracy"]) for one in found.values()} == {3}
    assert found["recipe"]["accuracy"][2] == round(given["3"]["recipe"]["accuracy"], 4)


def test_a_strategy_of_a_run_that_was_stopped_is_left_out():
    """One stray cell costs the strategy, and no seed of the others."""
    given = cells(5)
    given["1"]["margin"] = given["1"]["uniform"]
    found = pages.pack(given)
    assert set(found) == {"uniform", "recipe", "class-balanced"}
    assert {len(one["accuracy"]) for one in found.values()} == {5}


def test_a_table_says_what_is_better_and_what_is_not():
    grid = pages.compared(pages.pack(cells(5, ("middle", "uniform", "better"))), "t")
    told = {row[0]: row[1] for row in grid.rows}
    assert told["better"].startswith("**0.7")
    assert "+10.0 ±" in told["better"] or "+9." in told["better"] or "+10." in told["better"]
    assert told["middle"].startswith("*0.5")
    assert not told["uniform"].startswith("*")


def test_finalists_are_those_that_were_best_at_first():
    grid = texts.grid("r8")
    names = [str(replace(one, exponent=e)) for one in grid for e in texts.EXPONENTS]
    assert len(set(names)) == len(names)
    same = {"accuracy": 0.1, "macro_f1": 0.1}
    seeds = {str(s): {name: dict(same) for name in names} for s in range(texts.FIRST)}
    for seed in seeds.values():
        seed[str(replace(grid[7], exponent=0.25))]["macro_f1"] = 0.9
    assert texts.best("r8", seeds, 2)[0] == grid[7]


TABLES = {**{name: page.tables for name, page in pages.PAGES.items()}, "images": images.tables}


@pytest.mark.parametrize("name", TABLES)
def test_a_page_says_what_was_measured(name):
    """Tables of docs/results are those of the figures beside them."""
    results = json.loads((DOCS / f"{name}.json").read_text())
    text = (DOCS / f"{name}.md").read_text()
    assert show.fill(text, TABLES[name](results)) == text
    assert (DOCS / f"{name}.json").stat().st_size < 500_000


@pytest.mark.parametrize("name", ["images", "r8"])
def test_a_page_can_be_extended_elsewhere(tmp_path, monkeypatch, name):
    """What a page holds is taken as measured, to the digit; what was measured here stays."""
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    before = json.loads((DOCS / f"{name}.json").read_text())["budgets"]
    first, *others = before
    own = tmp_path / "training" / name / f"{first}.json"
    if others:
        experiment.keep(own, {"0": {"mine": {}}})
    pages.restore(name)
    again = {b: pages.pack(c) for b, c in experiment.kept(tmp_path / "training" / name).items()}
    if others:
        assert again.pop(first) == {"mine": {}}
    assert again == {b: before[b] for b in again}
    assert set(again) == set(others or before)


def test_gathering_keeps_what_was_not_measured_here(tmp_path, monkeypatch):
    """Fine-tuned tasks of another machine stay on the page; one measured anew is replaced."""
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    before = json.loads((DOCS / "fine-tuning.json").read_text())
    cell = dict.fromkeys(experiment.METRICS, 0.5)
    experiment.keep(tmp_path / "finetuning" / "r8" / "137.json", {"0": {"uniform": cell}})
    found = pages.gather_finetuning()
    assert found["tasks"]["r8"]["137"]["uniform"]["accuracy"] == [0.5]
    assert "274" not in found["tasks"]["r8"]
    assert found["tasks"]["questions"] == before["tasks"]["questions"]
    assert found["reloaded"] == before["reloaded"]

"""The regression benchmark: risks by their definition, ratios, resuming, and a page that agrees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import regression, regression_page
from bench.regression import Cell, Fits, Laws, gram_leverage, measure, ratio_of_medians
from bench.regression_data import Rows, with_intercept
from bench.show import fill
from curation.sampling.regression import excess_risk, leverage_scores, weighted_least_squares

PAGE = Path(__file__).parents[1] / "docs" / "results" / "regression.md"


@pytest.fixture
def rows() -> Rows:
    rng = np.random.default_rng(0)
    features = with_intercept(rng.standard_t(3, size=(800, 3)))
    targets = features @ np.array([1.0, -2.0, 0.5, 3.0]) + rng.normal(size=800)
    return Rows(features, targets, "made up")


def test_risk_is_the_excess_risk_over_all_rows(rows):
    fits = Fits(rows)
    chosen, weights = np.arange(0, 800, 7), np.linspace(1.0, 3.0, 115)
    x = weighted_least_squares(rows.features[chosen], rows.targets[chosen], weights)
    expected = excess_risk(rows.features, rows.targets, x)
    assert expected > 1e-4
    assert fits.risk(chosen, weights) == pytest.approx(expected, rel=1e-8)
    assert fits.risk(np.arange(800), np.ones(800)) == pytest.approx(0.0, abs=1e-20)


def test_the_fast_baseline_is_exact_too(rows):
    assert gram_leverage(rows.features) == pytest.approx(leverage_scores(rows.features), abs=1e-10)


@pytest.mark.parametrize("name", [*regression.LAWS, "sketched leverage"])
def test_every_law_is_one(rows, name):
    law, order = Laws(rows, k=20)(name, 1)
    assert law.sum() == pytest.approx(1.0)
    assert sorted(order) == list(range(800))


def test_ratio_of_medians_and_its_interval():
    rng = np.random.default_rng(1)
    below = rng.gamma(2.0, size=400)
    found = ratio_of_medians(0.5 * below, below)
    assert found == {"value": 0.5, "low": pytest.approx(0.5), "high": pytest.approx(0.5)}
    found = ratio_of_medians(0.5 * rng.gamma(2.0, size=400), below)
    assert 0.35 < found["low"] < found["value"] < found["high"] < 0.7


def test_a_cell_compares_all_laws_with_leverage(rows):
    cell = Cell("made-up", "systematic", 60, ("uniform", "leverage", "mix"), draws=20)
    found = measure(cell, Fits(rows), Laws(rows, k=20))
    assert found["draws"] == 20 * regression.CLUSTERINGS
    assert found["laws"]["leverage"]["to_leverage"]["value"] == 1.0
    assert found["laws"]["uniform"]["to_uniform"]["value"] == 1.0
    for one in found["laws"].values():
        assert 0.0 < one["low"] <= one["median"] <= one["high"]
        assert len(one["medians_by_seed"]) == regression.CLUSTERINGS


@pytest.fixture
def small(rows, tmp_path, monkeypatch):
    """A benchmark of one small problem in the place of all."""
    monkeypatch.setattr(regression, "PROBLEMS", {"casp": lambda: rows})
    monkeypatch.setattr(regression, "CLUSTERS", 20)
    monkeypatch.setattr(regression, "CLUSTERINGS", 2)
    monkeypatch.setattr(regression, "DRAWS", 6)
    monkeypatch.setattr(regression, "ROUNDS", 2)
    monkeypatch.setattr(regression, "NUMBERS_OF_CLUSTERS", (5, 20))
    monkeypatch.setattr(regression, "BUDGETS_BY_CLUSTERS", (60,))
    wanted = [Cell("casp", d, b, regression.LAWS, 6) for d in ("iid", "systematic") for b in (100,)]
    monkeypatch.setattr(regression, "cells", lambda: wanted)
    return tmp_path / "kept" / "results.json"


def test_what_is_there_is_not_measured_again(small, monkeypatch):
    first = regression.Bench(small).run()
    monkeypatch.setattr(regression, "measure", None)
    monkeypatch.setattr(regression, "timed", None)
    again = regression.Bench(small).run()
    assert again["cells"] == json.loads(json.dumps(first["cells"]))


def test_the_page_is_filled_from_the_figures(small, tmp_path):
    kept = regression.Bench(small).run()
    kept["cells"]["casp iid 100"]["laws"]["mix"]["to_leverage"]["value"] = 7.0
    tables = regression_page.grids(kept)
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    marks = "".join(f"<!-- table: {name} -->\nstale\n<!-- end -->\n" for name in tables)
    (folder / "regression.md").write_text(marks)
    regression_page.write(kept, folder)
    text = (folder / "regression.md").read_text()
    assert "stale" not in text
    assert text.count("**missed**") >= 1
    for grid in tables.values():
        for line in grid.markdown().splitlines():
            assert line.count("|") == len(grid.head) + 1
    drawn = sorted(one.name for one in (tmp_path / "docs" / "images").iterdir())
    assert drawn == ["regression-risk.png", "regression-time.png"]
    assert (
        json.loads((folder / "regression.json").read_text())["cells"].keys() == kept["cells"].keys()
    )


def test_the_page_says_what_was_kept():
    kept = json.loads(PAGE.with_suffix(".json").read_text())
    text = PAGE.read_text()
    assert fill(text, regression_page.grids(kept)) == text

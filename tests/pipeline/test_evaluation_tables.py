"""What an evaluation says of classes, groups and seeds, computed again by hand."""

from __future__ import annotations

import json
import math

import dagster as dg
import numpy as np
import polars as pl
import pytest
import torch
from helpers import questions, vector_config

from curation.config import CuratedDatasetConfig
from curation.models import evaluate as metrics_of
from curation.models import pilot_fit
from curation.pipeline import evaluate
from curation.pipeline.dataset import EVALUATION_MODEL, Dataset
from curation.pipeline.local import run
from curation.pipeline.measured import Ruler
from curation.pipeline.population import population
from curation.pipeline.summaries import KEPT, LEAST_ROWS, interval, part_table
from curation.store import Store


def figures_of(dataset: Dataset) -> dict:
    return dataset.store.need(dataset.at(EVALUATION_MODEL)).figures


def with_groups(folder) -> None:
    """Half of the rows of each file come from the web, some from nowhere, one from a far place."""
    for path in sorted(folder.glob("*.parquet")):
        frame = pl.read_parquet(path)
        origin = ["web" if i % 2 else "mail" for i in range(len(frame))]
        origin[:30] = [None] * 30
        frame.with_columns(pl.Series("origin", origin)).write_parquet(path)


def test_tables_of_classes_and_groups(folder, tmp_path, instance, monkeypatch):
    """Every line from the predictions: rows of the open half, means, paired differences, worst."""
    with_groups(folder)
    config = vector_config(
        folder,
        columns={"id": "key", "input": "vector", "label": "label", "group": "origin"},
        evaluation={"probe_seeds": 3, "all_rows": False, "protected": {"least_rows": 50}},
    )
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    seen = []
    original = Ruler._compare

    def spy(ruler, guess):
        seen.append(guess.copy())
        return original(ruler, guess)

    monkeypatch.setattr(Ruler, "_compare", spy)
    assert run(dataset, instance).success
    figures, held = figures_of(dataset), population(dataset, split="holdout")
    ruler = Ruler.of(held, population(dataset).classes)
    opened = ruler.halves.opened
    assert 0 < opened.sum() < len(held)
    origin = held.rows(np.arange(len(held)), ["origin"])["origin"].fill_null("(none)").to_numpy()
    label = held.labels[:]
    for what, parts in (("per_class", label), ("per_group", origin)):
        table = figures[what]["probe"]
        assert {line["name"] for line in table["lines"]} == set(parts[opened].tolist())
        means = [line["subset"]["mean"] for line in table["lines"]]
        assert means == sorted(means)
        assert table["others"] == {"count": 0, "rows": 0}
        of_part = {}
        for line in table["lines"]:
            own = opened & (parts == line["name"])
            assert line["rows"] == own.sum()
            right = [(ruler.names[guess] == label)[own].mean() for guess in seen]
            of_part[line["name"]] = right
            assert line["subset"] == pytest.approx(interval(right[0::2]))
            assert line["uniform"] == pytest.approx(interval(right[1::2]))
            pairs = [a - b for a, b in zip(right[0::2], right[1::2], strict=True)]
            assert line["difference"] == pytest.approx(interval(pairs))
        worst, least = table["worst"], table["worst"]["least_rows"]
        large = [line["name"] for line in table["lines"] if line["rows"] >= least]
        assert worst["parts"] == len(large)
        lowest = [min(of_part[name][run] for name in large) for run in range(6)]
        assert worst["subset"]["mean"] == pytest.approx(np.mean(lowest[0::2]))
        assert worst["uniform"]["mean"] == pytest.approx(np.mean(lowest[1::2]))
        assert worst["subset"]["name"] == min(large, key=lambda name: np.mean(of_part[name][0::2]))
        pairs = [a - b for a, b in zip(lowest[0::2], lowest[1::2], strict=True)]
        assert worst["difference"] == pytest.approx(interval(pairs))
    assert {"(none)", "web", "mail"} == {
        line["name"] for line in figures["per_group"]["probe"]["lines"]
    }
    for guess, metrics in zip(seen[0::2], range(3), strict=True):
        expected = metrics_of(label[opened], ruler.names[guess][opened], task="classification")
        results = json.loads(
            dataset.store.need(dataset.at(EVALUATION_MODEL)).path("results.json").read_text()
        )
        for name, value in expected.items():
            assert results["probe"]["subset"][name][metrics] == pytest.approx(value)
        assert results["per_group"] == figures["per_group"]


def test_long_tables_keep_the_worst_and_count_the_others():
    """70 parts of 1 to 70 rows and one without any; the best come last."""
    rng = np.random.default_rng(0)
    names = np.array([f"part {i:02d}" for i in range(71)])
    rows = np.arange(71)
    base = rng.permutation(71) / 100
    pairs = [(base + 0.01 * s, np.full(71, 0.5 - 0.02 * s)) for s in range(3)]
    for metric, sign in (("accuracy", 1), ("rmse", -1)):
        table = part_table(names, rows, pairs, metric=metric)
        order = [i for i in np.argsort(sign * base, kind="stable") if i]  # part 0 has no row
        assert [line["name"] for line in table["lines"]] == [names[i] for i in order[:KEPT]]
        assert table["others"] == {"count": 20, "rows": int(rows[order[KEPT:]].sum())}
        large = [i for i in order if rows[i] >= LEAST_ROWS]
        assert table["worst"]["parts"] == len(large)
        assert table["worst"]["subset"]["name"] == names[large[0]]
        assert table["worst"]["subset"]["mean"] == pytest.approx(base[large[0]] + 0.01)
        first = table["lines"][0]
        # differences by seed: base - 0.5 + 0.03 s, whose deviation is 0.03
        half = 4.302653 * 0.03 / math.sqrt(3)
        assert first["difference"]["high"] - first["difference"]["mean"] == pytest.approx(half)
    few = part_table(names[:5], rows[:5], [(base[:5], base[:5])], metric="accuracy")
    assert few["worst"]["least_rows"] == 1
    assert few["worst"]["parts"] == 4
    odd = np.array(["a\x1b[31m" + "x" * 500])
    line = part_table(odd, np.array([3]), [(base[:1], base[:1])], metric="accuracy")["lines"][0]
    assert len(line["name"]) == 120
    assert "\x1b" not in line["name"]


def test_seeds_vary_draw_first_weights_and_order_and_pairs_share_them(
    folder, tmp_path, instance, monkeypatch
):
    """The network's first weights are those it has after training at rate 0."""
    original, permute = pilot_fit.train_network, torch.randperm
    seen: list[dict] = []

    def record(*args, **kwargs):
        order = permute(*args, **kwargs)
        seen[-1]["orders"].append(order.tolist())
        return order

    def spy(x, targets, **how):
        (first, _), _ = original(x, targets, **{**how, "learning_rate": 0.0})
        seen.append({"rows": x.copy(), "first": first, "orders": []})
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randperm", record)
            return original(x, targets, **how)

    monkeypatch.setattr(pilot_fit, "train_network", spy)
    config = vector_config(
        folder, evaluation={"probe": "mlp", "probe_seeds": 3, "probe_epochs": 2, "all_rows": False}
    )
    assert run(Dataset(config, Store(tmp_path / "store"), tmp_path), instance).success
    pairs = list(zip(seen[0:6:2], seen[1:6:2], strict=True))
    for ours, theirs in pairs:  # paired: only the rows differ
        assert np.array_equal(ours["first"], theirs["first"])
        assert ours["orders"] == theirs["orders"]
        assert not np.array_equal(ours["rows"], theirs["rows"])
        assert ours["orders"][0] != ours["orders"][1]  # of two epochs
    for side in (0, 1):  # varied: everything differs
        for a, b in ((0, 1), (0, 2), (1, 2)):
            one, other = pairs[a][side], pairs[b][side]
            assert not np.allclose(one["first"], other["first"])
            assert one["orders"][0] != other["orders"][0]
            assert not np.array_equal(one["rows"], other["rows"])


class Constant:
    """A classifier that says the same of every text."""

    def __init__(self, said: str) -> None:
        self.said = said

    def predict(self, texts):
        return np.array([self.said] * len(texts))

    def save(self, folder) -> None:
        (folder / "said").write_text(self.said)


def test_fine_tuning_varies_draw_and_seed_and_pairs_share_the_seed(tmp_path, monkeypatch):
    """What the trainer does with its seed is held by tests/models."""
    folder = tmp_path / "source"
    folder.mkdir()
    questions(300).write_parquet(folder / "day-0.parquet")
    config = CuratedDatasetConfig.model_validate(
        {
            "name": "asked",
            "source": {"folder": str(folder), "pattern": "*.parquet"},
            "columns": {"id": "number", "input": "text", "label": "label"},
            "selection": {"budget": 60, "seed": 4},
            "evaluation": {
                "probe_seeds": 2,
                "all_rows": False,
                "fine_tune": {"seeds": 3},
                "protected": {"least_rows": 20},
            },
        }
    )
    seen: list[tuple[int, list[str], bool]] = []

    def fit(texts, labels, *, weights, seed, **_):
        seen.append((seed, list(texts), weights is not None))
        return Constant(labels[0])

    monkeypatch.setattr(evaluate, "fit_text_classifier", fit)
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(dataset, instance).success
    assert [seed for seed, _, _ in seen] == [4, 4, 5, 5, 6, 6]
    assert [weighted for _, _, weighted in seen] == [True, False] * 3
    draws = [texts for _, texts, _ in seen]
    assert len({tuple(texts) for texts in draws}) == 6
    assert len({len(texts) for texts in draws}) == 1
    subset = pl.read_parquet(
        dataset.store.need(dataset.at("selected_subset")).path("subset.parquet")
    )
    assert draws[0] == subset["text"].to_list()
    figures = figures_of(dataset)
    assert figures["fine_tune"]["subset"]["accuracy"]["n"] == 3
    assert figures["per_class"]["fine_tune"]["lines"][0]["subset"]["n"] == 3
    kinds = [(a["kind"], a["strategy"]) for a in figures["holdout"]["answers"]]
    assert kinds[3:] == [
        ("fine_tune", "subset"), ("fine_tune", "uniform"), ("fine_tune", "gain over uniform"),
    ]  # fmt: skip

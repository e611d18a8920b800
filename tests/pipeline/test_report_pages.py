"""What the report says: of fabricated figures, and of real runs."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from helpers import vector_config, vectors
from PIL import Image

from curation.pipeline.by_cluster import BY_CLUSTER
from curation.pipeline.dataset import Dataset
from curation.pipeline.local import run
from curation.pipeline.pages.gain import gain, parts, protected_half
from curation.pipeline.pages.made import Made
from curation.pipeline.pages.rows import examples, picture
from curation.pipeline.pages.top import tiles, verdict
from curation.pipeline.pages.trust import smoothness, trust
from curation.pipeline.pilot import load_score_model, query_scores
from curation.pipeline.population import population
from curation.pipeline.report import report_data


def over_seeds(mean: float, half: float = 0.0, n: int = 10) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def figures(gains: dict[str, dict], *, fine: tuple[float, float] | None = None) -> dict:
    """An evaluation in which uniform rows have 0.6 of everything."""
    n = next(iter(gains.values()))["n"]
    probe = {
        "subset": {m: over_seeds(0.6 + g["mean"], n=n) for m, g in gains.items()},
        "uniform": {m: over_seeds(0.6, n=n) for m in gains},
    }
    told = {"gain": gains, "probe": probe, "fine_tune": {}, "holdout_rows": 1000}
    if fine is not None:
        told["fine_tune"] = {
            name: {"accuracy": over_seeds(value, n=1)}
            for name, value in zip(("subset", "uniform"), fine, strict=True)
        }
    return told


def told(evaluation: dict) -> SimpleNamespace:
    return SimpleNamespace(
        chosen={"distinct_rows": 645, "rows": 4299}, evaluation=SimpleNamespace(figures=evaluation)
    )


@pytest.mark.parametrize(
    ("metric", "mean", "half", "n", "tone", "words"),
    [
        ("accuracy", 0.03, 0.01, 10, "good", "train a better model than as many uniform rows: "
         "accuracy 0.630 against 0.600, +0.030 [+0.020, +0.040] over 10 seeds"),
        ("accuracy", -0.03, 0.01, 10, "bad", "Uniform rows win"),
        ("accuracy", -0.03, 0.04, 10, "", "as far as can be told"),
        ("accuracy", 0.03, 0.04, 10, "", "as far as can be told"),
        ("accuracy", 0.03, 0.0, 1, "", "A single seed tells no difference"),
        ("rmse", -0.03, 0.01, 10, "good", "train a better model"),
        ("rmse", 0.03, 0.01, 10, "bad", "Uniform rows win"),
    ],
)  # fmt: skip
def test_the_first_sentence_says_who_wins(metric, mean, half, n, tone, words):
    text, found = verdict(told(figures({metric: over_seeds(mean, half, n)})))
    assert words in text
    assert "645 of 4,299 rows" in text
    assert found == tone


def test_the_first_sentence_does_not_hide_what_disagrees():
    gains = {"accuracy": over_seeds(0.03, 0.01), "macro_f1": over_seeds(-0.05, 0.01)}
    text, tone = verdict(told(figures(gains, fine=(0.83, 0.84))))
    assert tone == "good"
    assert "Macro F1 is worse (−0.050)" in text
    assert "fine-tuned encoder (one run each) does better on uniform rows" in text
    assert "0.840 against 0.830 on the subset" in text
    text, _ = verdict(told(figures({"accuracy": over_seeds(0.03, 0.01)}, fine=(0.85, 0.84))))
    assert "fine-tuned" not in text, "it agrees"


def test_what_the_protected_half_refutes_is_no_success():
    evaluation = figures({"accuracy": over_seeds(0.03, 0.01)})
    answer = {"kind": "probe", "strategy": "gain over uniform", "metric": "accuracy"}
    for overfitted, tone in ((False, "good"), (True, "")):
        evaluation["holdout"] = {"answers": [{**answer, "overfitted": overfitted}]}
        text, found = verdict(told(evaluation))
        assert found == tone
        assert ("does not confirm this difference" in text) == overfitted


def test_without_an_evaluation_the_first_sentence_says_why():
    text, tone = verdict(told({"skipped": "the holdout has no rows"}))
    assert tone == ""
    assert text.endswith("not held against uniform rows: the holdout has no rows")


def clusters(n: int = 600, k: int = 12) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
    """Scores, proxies and bounds of rows, and the table that is made of them."""
    rng = np.random.default_rng(5)
    rows = {"cluster": rng.integers(0, k, n), "proxy": rng.gamma(2.0, size=n)}
    rows["score"] = rows["proxy"] + rng.normal(
        scale=np.where(rows["cluster"] < 2, 3.0, 0.3), size=n
    )
    rows["above"] = (rows["score"] > 1.2 * rows["proxy"]).astype(float)
    total = lambda value: np.bincount(rows["cluster"], value, k)  # noqa: E731
    table = {
        "cluster": np.arange(k),
        "rank": np.arange(k)[::-1],
        "rows": np.bincount(rows["cluster"], minlength=k),
        "evaluated": np.bincount(rows["cluster"], minlength=k),
        "weight_evaluated": total(np.ones(n)),
        "violated": total(rows["above"]),
        "score": total(rows["score"]),
        "square": total(rows["score"] ** 2),
        "error": total((rows["score"] - rows["proxy"]) ** 2),
    }
    return pl.DataFrame(table), rows


def test_smoothness_is_that_of_the_rows():
    table, rows = clusters()
    found = smoothness(table, pooled=False)
    expected = 1.0 - np.mean((rows["score"] - rows["proxy"]) ** 2) / rows["score"].var()
    assert found.overall == pytest.approx(expected)
    assert len(found.rows) == 12
    assert np.average(found.explained, weights=found.rows) == pytest.approx(found.overall)
    assert np.average(found.violated, weights=found.rows) == pytest.approx(rows["above"].mean())
    # ranks run backwards: the two rough clusters come last
    assert found.explained[:-2].min() > found.explained[-2:].max()


def test_neighbouring_clusters_are_pooled_where_few_rows_were_evaluated():
    table, _ = clusters(n=60)
    found = smoothness(table, pooled=True)
    assert 2 <= len(found.rows) <= 4
    assert found.rows.sum() == 60
    assert np.average(found.explained, weights=found.rows) == pytest.approx(found.overall, abs=0.05)


def test_equal_scores_have_no_smoothness():
    table, _ = clusters()
    flat = table.with_columns(score=pl.col("rows") * 2.0, square=pl.col("rows") * 4.0)
    assert smoothness(flat, pooled=False) is None
    nothing = table.with_columns(weight_evaluated=pl.lit(0.0))
    assert smoothness(nothing, pooled=False) is None


def made_of(dataset: Dataset) -> Made:
    need = lambda asset: dataset.store.need(dataset.at(asset))  # noqa: E731
    return Made(
        population(dataset), need("centroids"), need("selected_subset"), need("evaluation_model")
    )


def page_of(dataset: Dataset) -> str:
    return dataset.store.need(dataset.at("report")).path("report.html").read_text()


def test_the_first_report_has_every_section(clouds, instance):
    assert run(clouds, instance).success
    data = report_data(made_of(clouds))
    assert [s.title for s in data.sections if s] == [
        "Does it train a better model?", "What was chosen?", "Can the estimate be trusted?",
        "What changed", "Time and cost", "Class by class",
    ]  # fmt: skip
    drawn = {figure.title for section in data.sections for figure in section.figures}
    assert drawn >= {
        "Probe on embeddings", "Map of the embeddings", "Cluster coverage", "Weights",
        "Class shares", "Certificate and measured error", "Error against budget",
        "Is the score smooth? R² by cluster", "Rows above the bound, by cluster", "Time by stage",
    }  # fmt: skip
    labels = [tile.label for tile in data.headline]
    assert len(labels) == 8
    assert {"Rows chosen", "Accuracy against uniform", "Certified error, at most", "Time"} <= set(
        labels
    )
    shown = {tile.label: tile for tile in data.headline}
    assert shown["Since the last subset"].value == "first"
    assert shown["Rows chosen"].value == "100"
    page = page_of(clouds)
    assert "first subset that was published" in page
    assert page.count("<svg") == len(drawn) == sum(len(s.figures) for s in data.sections)


def test_the_smoothness_shown_is_that_of_the_model_asked(clouds, instance):
    assert run(clouds, instance).success
    made = made_of(clouds)
    found = smoothness(pl.read_parquet(made.subset.path(BY_CLUSTER)), pooled=False)
    people = made.people
    model = load_score_model(clouds.store.need(clouds.at("pilot_model")))
    score = query_scores(people, model, np.arange(len(people)))
    frames = [
        pl.read_parquet(
            clouds.store.need(clouds.at("sensitivity_scores", s)).path("scores.parquet")
        )
        for s in people.shards
    ]
    table = pl.concat(frames)
    table = people.ids.alias("id").to_frame().join(table, on="id", maintain_order="left")
    expected = 1.0 - np.mean((score - table["proxy"].to_numpy()) ** 2) / score.var()
    assert found.overall == pytest.approx(expected)
    assert found.overall_violated == pytest.approx(np.mean(score > table["score"].to_numpy()))
    assert f"explains {found.overall:.0%} of the" in trust(made).figures[2].caption


def test_the_second_report_says_what_changed(clouds, instance):
    assert run(clouds, instance).success
    before = clouds.store.need(clouds.at("selected_subset")).figures
    vectors(200, seed=4).write_parquet(clouds.root / "source" / "day-4.parquet")
    assert run(clouds, instance).success
    data = report_data(made_of(clouds))
    (section,) = [s for s in data.sections if s.title == "What changed"]
    reasons, then = section.tables
    assert "its shard is new" in {row[2] for row in reasons.rows}
    told = {row[0]: row[1:] for row in then.rows}
    assert told["rows up for selection"][0] == f"{before['rows']:,}"
    then_rows, now_rows = (int(told["rows up for selection"][i].replace(",", "")) for i in (0, 1))
    assert now_rows > then_rows
    assert "accuracy against uniform" in told, "the evaluation before is found as well"
    tile = {t.label: t for t in tiles(made_of(clouds))}["Since the last subset"]
    assert tile.value.endswith(" out")


def test_costs_are_those_of_the_manifests(clouds, instance):
    assert run(clouds, instance).success
    made = made_of(clouds)
    (section,) = [s for s in report_data(made).sections if s.title == "Time and cost"]
    rows = {row[0]: row for row in section.tables[0].rows}
    assert rows["raw"][1] == "4"
    assert rows["raw"][4] == ""
    assert rows["centroids"][4] == f"{made.centroids.figures['queries']:,}"
    every = made.chosen["estimate"]["evaluations"] + made.chosen["rows"]
    assert rows["selected_subset"][4] == f"{every:,}"
    assert all(row[3].endswith(" MiB") for row in rows.values())


def test_examples_say_why(clouds, instance):
    assert run(clouds, instance).success
    made = made_of(clouds)
    found = examples(made)
    assert 8 <= len(found) <= 12
    assert len({one["id"] for one in found}) == len(found)
    frame = made.frame
    for one in found:
        row = frame.row(by_predicate=pl.col("id") == one["id"], named=True)
        if row["reason"] == "drawn":
            assert f"probability of {row['inclusion_probability']:.1%}" in one["reason"]
        assert f"Cluster {row['cluster']}: " in one["reason"]
    heaviest = frame.filter(pl.col("reason") == "drawn")["weight"].max()
    assert found[0]["weight"] == f"{heaviest:.2f}"
    assert any("pilot" in one["reason"] for one in found)


@pytest.fixture
def dear(folder, tmp_path, clouds) -> Dataset:
    """A score column, which has a cost that nobody wants to pay for every row."""
    for path in folder.glob("*.parquet"):
        frame = pl.read_parquet(path)
        cost = frame["vector"].list.first().abs() + 0.1
        frame.with_columns(cost.alias("cost")).write_parquet(path)
    config = vector_config(folder, score={"model": "column", "column": "cost"})
    return Dataset(config, clouds.store, tmp_path)


def test_without_the_truth_clusters_are_judged_by_the_rows_that_were_asked(dear, instance):
    assert run(dear, instance).success
    made = made_of(dear)
    assert not made.all_evaluated
    section = trust(made)
    assert "was not measured" in section.lead
    captions = {figure.title: figure.caption for figure in section.figures}
    assert "by the rows that were evaluated" in captions["Is the score smooth? R² by cluster"]
    assert "groups of neighbouring clusters" in captions["Rows above the bound, by cluster"]
    tile = {t.label: t for t in tiles(made)}["Estimated total cost"]
    assert tile.note.startswith("95% interval; the truth was not measured")
    table = made.clusters
    assert table["evaluated"].sum() == made.chosen["distinct_rows"]
    assert table["weight_evaluated"].sum() == pytest.approx(made.chosen["weight_total"])


def test_without_an_evaluation_the_section_says_why():
    skipped = told({"skipped": "there is neither `columns.label` nor `columns.target`"})
    assert gain(skipped).lead.startswith("This was not measured: there is neither")
    assert not gain(skipped).figures


def test_classes_groups_and_the_protected_half_are_tables():
    """Of figures as the evaluation writes them."""
    line = {
        "name": "<b>rare</b>", "rows": 12, "subset": over_seeds(0.2, 0.1),
        "uniform": over_seeds(0.1, 0.1), "difference": over_seeds(0.1, 0.02),
    }  # fmt: skip
    worst = {
        "parts": 3, "least_rows": 10, "difference": over_seeds(0.1, 0.02),
        "subset": {"name": "rare", **over_seeds(0.2, 0.1)},
        "uniform": {"name": "odd", **over_seeds(0.1, 0.1)},
    }  # fmt: skip
    part = {"metric": "accuracy", "lines": [line], "others": {"count": 4, "rows": 9},
            "worst": worst}  # fmt: skip
    evaluation = figures({"accuracy": over_seeds(0.03, 0.01)})
    evaluation |= {
        "per_class": {"probe": part},
        "per_group": {"probe": {**part, "lines": []}},
        "holdout": {
            "protected": True, "protected_rows": 500, "open_rows": 500, "questions": 7,
            "events_left": 3, "overfitting_events": 4, "notes": ["something is odd"],
            "answers": [
                {"kind": "probe", "strategy": "subset", "metric": "accuracy", "open": 0.63,
                 "value": 0.6, "tolerance": 0.04, "overfitted": True},
                {"kind": "probe", "strategy": "uniform", "metric": "accuracy", "open": 0.6,
                 "value": None, "tolerance": 0.04, "overfitted": False},
            ],
        },
    }  # fmt: skip
    tables = [
        *parts(evaluation, "per_class", "class"),
        *parts(evaluation, "per_group", "group"),
        *protected_half(evaluation["holdout"]),
    ]
    by_class, protected = tables
    assert by_class.rows == [
        ["<b>rare</b>", "12", "0.200 [0.100, 0.300]", "0.100 [0.000, 0.200]",
         "+0.100 [+0.080, +0.120]"]
    ]  # fmt: skip
    assert "4 more with 9 rows" in by_class.caption
    assert "worst class reaches 0.200 [0.100, 0.300] with the subset (rare)" in by_class.caption
    assert protected.rows[0][-2:] == ["0.600 ± 0.04", "does not hold"]
    assert protected.rows[1][-2:] == ["silent", "holds"]
    assert "3 of 4 disagreements" in protected.caption
    assert "Something is odd." in protected.caption
    (open_only,) = protected_half({"protected": False, "why": "too few rows"})
    assert open_only.rows == [["not protected", "too few rows"]]


def test_only_the_worst_parts_are_listed_and_the_others_counted():
    same = dict.fromkeys(("subset", "uniform", "difference"), over_seeds(0.5))
    lines = [{"name": str(i), "rows": 2, **same} for i in range(30)]
    part = {"metric": "accuracy", "lines": lines, "others": {"count": 4, "rows": 9}}
    (table,) = parts({"per_class": {"probe": part}}, "per_class", "class")
    assert [row[0] for row in table.rows] == [str(i) for i in range(20)]
    assert "14 more with 29 rows are not shown" in table.caption


def test_rows_that_are_pictures_are_shown_as_pictures():
    config = SimpleNamespace(encoder=SimpleNamespace(type="pixels"))
    made = SimpleNamespace(dataset=SimpleNamespace(config=config))
    png = picture(made, list(range(16)))
    with Image.open(io.BytesIO(png)) as shown:
        assert shown.size == (4, 4)
        assert np.array_equal(np.asarray(shown).ravel(), np.arange(16))
    assert picture(made, list(range(15))) is None, "no square"
    assert picture(made, "text") is None
    config.encoder.type = "precomputed"
    assert picture(made, list(range(16))) is None, "numbers that are no picture"

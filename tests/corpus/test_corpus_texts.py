"""Files of texts that are damaged, odd or hostile, among sound ones, through the whole pipeline."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import cases_tables  # noqa: F401  enters its cases
import cases_text  # noqa: F401
import polars as pl
import pytest
from corpus_case import of_world
from hostile import CORPUS
from judge import check_events, check_shard, check_subset, seen
from worlds import TEXTS, World, build, curate, good_texts

from curation.reporting.page import ReportData, render

GOOD = ("good-a", "good-b", "good-c", "held-out")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """All cases of texts in one data set, curated once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CURATION_PICTURES", "0")
        return curate(build(tmp_path_factory.mktemp("texts"), "texts", TEXTS, good_texts))


def test_the_run_succeeds(world):
    assert world.result.success, world.assets()


@pytest.mark.parametrize("shard", GOOD)
def test_sound_shards_are_not_affected(world, shard):
    check_shard(world, shard, world.expected[shard])


@pytest.mark.parametrize("case", of_world("texts"), ids=lambda case: case.name)
def test_case(world, case, record_property):
    shard = next(s for s in world.expected if s == case.name)
    expected = world.expected[shard]
    record_property("hostile", ["texts", case.told, str(expected), seen(world, shard)])
    check_shard(world, shard, expected)


def test_the_subset_holds_rows_of_the_source(world):
    check_subset(world)
    left = world.subset()
    # rows of ids that another shard has are drawn once, from the first of them; none is trained on
    assert not set(left["id"]) & {f"held-out-{i}" for i in range(40)}
    assert "ids-all-elsewhere" not in set(left["shard"])


def test_further_columns_of_several_types_are_text(world):
    more = world.subset().filter(pl.col("shard").str.starts_with("more-"))["more"]
    assert more.dtype == pl.String
    found = set(more.drop_nulls())
    assert found >= {"x", "3", "[1, 2]", '["a", "é"]', '{"a": [1], "b": null}', "\\xff\x00", "true"}


class _Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [v or "" for name, v in attrs if name in ("href", "src")]


def test_the_report_shows_markup_as_text(world):
    """A page that is made of hostile rows, failed shards and their messages holds no active tag."""
    dataset = world.dataset
    text = dataset.store.need(dataset.at("report")).path("report.html").read_text()
    page = _Page(text)
    _check(page)
    assert len(re.findall("<script", text)) == len(re.findall("<script", render(_data([]))))
    assert "Shards that need attention" in text
    assert re.search("&lt;(svg|script|img|iframe|b|a) ", text), "no hostile text is on the page"


def test_examples_of_hostile_rows_are_escaped():
    """The report's own examples and notes, were they the hostile rows."""
    text = render(_data(CORPUS))
    _check(_Page(text))
    assert len(re.findall("<script", text)) == len(re.findall("<script", render(_data([]))))


def _check(page: _Page) -> None:
    assert not page.tags & {"iframe", "object", "embed", "form", "base"}
    assert not any(name.startswith("on") for name in page.attributes)
    assert all(address.startswith(("#", "data:image/png")) for address in page.addresses)


def _data(texts: list[str]) -> ReportData:
    names = ("id", "text", "label", "cluster", "weight", "reason")
    return ReportData(
        dataset="d",
        headline=[("a", "b", "c")],
        examples=[dict.fromkeys(names, text) for text in texts],
        notes=texts,
    )


def test_dagster_is_told_no_markdown_made_of_data(world):
    check_events(world)

from __future__ import annotations

import base64
import hashlib
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser

import pytest
from hostile import CORPUS

from curation.reporting.charts import Bar, bars
from curation.reporting.page import Figure, ReportData, Section, Table, Tile, render
from curation.reporting.plots import category_counts
from curation.reporting.text import plain

PNG = category_counts(["a", "b"], [2, 1], title="a leads")


class Reader(HTMLParser):
    """Collects elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.other: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    def unknown_decl(self, data: str) -> None:
        self.other.append(data)

    def handle_pi(self, data: str) -> None:
        self.other.append(data)


def report(text: str) -> ReportData:
    return ReportData(
        dataset=text,
        summary=text,
        headline=[(text, text, text)],
        sections=[
            Section(
                text,
                text,
                [Figure(text, text, PNG), Figure(text, text, bars([Bar(text, 1.0, text)], text))],
                [
                    Table(text, text, [text, "rows"], [[text, 3], [text, 0.25]]),
                    Table(text, text, ["", ""], [[text, text]]),
                ],
            )
        ],
        examples=[
            {"id": text, "text": text, "label": text, "reason": text, text + "k": text},
            {"text": text, "picture": PNG},
        ],
        notes=[text],
        method=[text],
        generated=text,
    )


PLAIN = Reader(render(report("word")))


@pytest.mark.parametrize("text", [t for t in CORPUS if t.strip()])
def test_data_never_becomes_an_element(text: str) -> None:
    page = render(report(text))
    page.encode("utf-8")
    found = Reader(page)
    assert found.elements == PLAIN.elements
    assert found.other == []
    names = [(tag, name) for tag, name, _ in found.attributes]
    assert names == [(tag, name) for tag, name, _ in PLAIN.attributes]
    # The page shows the text itself: once as the heading, in full.
    assert plain(text) in [t.strip() for t in found.texts]


@pytest.mark.parametrize("text", [t for t in CORPUS if t.strip()])
def test_nothing_is_loaded_from_elsewhere(text: str) -> None:
    page = render(report(text))
    found = Reader(page)
    for tag, name, value in found.attributes:
        if name in ("src", "href", "srcset", "action", "data", "poster", "style", "background"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value)
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(found.elements)
    assert "<script" not in page.lower()
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_policy_allows_its_own_style_and_nothing_else() -> None:
    page = render(report("word"))
    style = page[page.index("<style>") + len("<style>") : page.index("</style>")]
    own = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"img-src data:; style-src 'sha256-{own}'; base-uri 'none'; form-action 'none'\">"
    )
    assert policy in page
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<img")
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert 'name="viewport"' in page


def test_everything_given_is_on_the_page_in_order() -> None:
    page = render(
        ReportData(
            dataset="trec",
            headline=[("Rows", "807", "15% of 5,382"), ("Accuracy", "0.618", "")],
            sections=[
                Section("Left out: it is empty"),
                Section(
                    "What was found",
                    "It was found.",
                    [Figure("Counts", "Rows per class.", PNG)],
                    [Table("Checks", "All pass.", ["check", "value"], [["calibration", 0.00214]])],
                ),
            ],
            examples=[{"text": "Who is it?", "reason": "take-all", "weight": "1.00"}],
            notes=["Random is strong."],
            method=["Weights are not rescaled."],
            generated="2031-05-04",
        )
    )
    texts = [t.strip() for t in Reader(page).texts if t.strip()]
    wanted = [
        "trec", "Rows: 807, Accuracy: 0.618", "807", "Random is strong.", "It was found.", "Counts",
        "Rows per class.", "Checks", "0.00214", "Who is it?", "take-all", "weight", "1.00",
        "Weights are not rescaled.", "Generated 2031-05-04",
    ]  # fmt: skip
    places = [texts.index(w, 1) for w in wanted]
    assert places == sorted(places)
    assert ("img", "width", "640") in Reader(page).attributes
    assert ("td", "class", "right") in Reader(page).attributes


def test_nothing_but_a_name_is_enough() -> None:
    page = render(ReportData(dataset="empty", headline=[]))
    assert not {"img", "table", "section", "li"} & set(Reader(page).elements)
    assert render(ReportData(dataset="empty", headline=[])) == page


def test_long_examples_are_cut() -> None:
    page = render(ReportData("x", [], examples=[{"text": "word " * 1000, "reason": "drawn"}]))
    (text,) = [t for t in Reader(page).texts if t.startswith("word")]
    assert len(text) <= 400
    assert text.endswith("…")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        render(
            ReportData("x", [], [Section("s", "", [Figure("t", "c", b"<svg onload=alert(1)>")])])
        )
    with pytest.raises(ValueError, match="1 cells, but there are 2"):
        render(ReportData("x", [], [Section("s", "", (), [Table("t", "c", ["a", "b"], [[1]])])]))
    with pytest.raises(ValueError, match="no such tone: splendid"):
        render(ReportData("x", [Tile("a", "b", tone="splendid")]))
    with pytest.raises(FrozenInstanceError):
        report("x").dataset = "y"  # type: ignore[misc]

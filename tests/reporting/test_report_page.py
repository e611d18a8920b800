from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hostile import CORPUS

from curation.reporting.page import Figure, ReportData, Table, render
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
        figures=[Figure(text, text, PNG)],
        tables=[Table(text, text, [text, "rows"], [[text, 3], [text, 0.25]])],
        examples=[{"id": text, "text": text, "label": text, "reason": text, text + "k": text}],
        notes=[text],
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
    addresses = {
        (tag, name): value
        for tag, name, value in found.attributes
        if name in ("src", "href", "srcset", "action", "data", "poster", "style", "background")
    }
    for (tag, name), value in addresses.items():
        assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value)
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(found.elements)
    assert "<script" not in page.lower()
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_policy_forbids_everything_but_inline() -> None:
    page = render(report("word"))
    policy = (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
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
            figures=[Figure("Counts", "Rows per class.", PNG)],
            tables=[Table("Checks", "All pass.", ["check", "value"], [["calibration", 0.00214]])],
            examples=[{"text": "Who is it?", "reason": "take-all", "weight": "1.00"}],
            notes=["Random is strong."],
            generated="2031-05-04",
        )
    )
    texts = [t.strip() for t in Reader(page).texts if t.strip()]
    wanted = [
        "trec", "Rows: 807, Accuracy: 0.618", "807", "Random is strong.", "Counts",
        "Rows per class.", "Checks", "0.00214", "Who is it?", "take-all", "weight", "1.00",
        "Generated 2031-05-04",
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
        render(ReportData("x", [], figures=[Figure("t", "c", b"<svg onload=alert(1)>")]))
    with pytest.raises(ValueError, match="1 cells, but there are 2"):
        render(ReportData("x", [], tables=[Table("t", "c", ["a", "b"], [[1]])]))
    with pytest.raises(FrozenInstanceError):
        report("x").dataset = "y"  # type: ignore[misc]


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1200])
def test_no_sideways_scroll(width: int, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    data = report("unbreakable" * 40)
    data.tables.append(Table("wide", "", [f"column {i}" for i in range(30)], [list(range(30))]))
    page = render(data)
    # The report allows no script, so it is measured from outside, in a frame of the given width.
    inner = page.replace("&", "&amp;").replace('"', "&quot;")
    measure = tmp_path / "measure.html"
    measure.write_text(
        f'<iframe id="f" style="width:{width}px;height:900px;border:0" srcdoc="{inner}"></iframe>'
        "<script>f.onload = () => { const d = f.contentDocument.documentElement;"
        "document.title = d.scrollWidth + '/' + d.clientWidth }</script>",
        encoding="utf-8",
    )
    dom = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu",
            "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=3000", "--dump-dom", measure.as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    found = re.search(r"<title>(\d+)/(\d+)</title>", dom)
    assert found, dom[-500:]
    assert int(found[1]) <= int(found[2]) <= width

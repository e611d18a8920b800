"""The report in a real browser: phone and desk, light and dark, on paper, and with hostile text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hostile import CORPUS
from sample import TILES, pdf_texts, sample

from curation.reporting.charts import Bar, bars
from curation.reporting.page import Figure, Section, Table, render
from curation.reporting.text import plain

pytestmark = pytest.mark.browser

PAPER = 696  # pixels between the margins of A4
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip

# Elements that stick out of the page, but for what scrolls inside a box of its own.
STICKING_OUT = """() => [...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width > 0 && !e.closest('.scroll') &&
    (box.right > document.documentElement.clientWidth + 1 || box.left < -1);
}).map(e => e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + e.textContent.slice(0, 40))"""

# Contrast (WCAG 2.2) of every piece of text against the nearest background behind it.
FAINT = """() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const found = parts(getComputedStyle(e).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const seen = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim()) continue;
    const look = getComputedStyle(e), svg = e.namespaceURI.endsWith('svg');
    const [a, b] = [light(parts(svg ? look.fill : look.color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen.push([ratio, e.tagName + '.' + (e.getAttribute('class') || '')]);
  }
  return seen;
}"""


@pytest.fixture(scope="module")
def browser(chromium) -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def show(browser, tmp_path):
    """Open a report; what it asks for and says is kept as ``requests`` and ``said``."""
    pages = []

    def opened(html: str, *, width: int = 1280, scheme: str = "light"):
        path: Path = tmp_path / f"report-{len(pages)}.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        pages.append(page)
        page.requests, page.said = [], []
        page.on("request", lambda r: page.requests.append(r.url))
        page.on("console", lambda m: page.said.append(m.text))
        page.on("pageerror", lambda e: page.said.append(str(e)))
        page.on("dialog", lambda d: (page.said.append(d.message), d.dismiss()))
        page.goto(path.as_uri())
        page.requests = [
            url for url in page.requests if url != path.as_uri() and not url.startswith("data:")
        ]
        return page

    yield opened
    for page in pages:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_is_asked_for_said_or_sticks_out(show, width, scheme):
    page = show(render(sample(text="unbreakable" * 40)), width=width, scheme=scheme)
    page.wait_for_timeout(100)
    assert page.requests == []
    assert page.said == []
    size = page.evaluate(
        "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert size[0] <= size[1] == width
    assert page.evaluate(STICKING_OUT) == []


def test_wide_tables_scroll_in_their_own_box(show):
    page = show(render(sample()), width=390)
    boxes = page.evaluate(
        "() => [...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert boxes[0][0] > boxes[0][1] <= 390
    assert boxes[1][0] == boxes[1][1], "pairs are wrapped"


@pytest.mark.parametrize("tone", ["good", "bad", ""])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_legible(show, scheme, tone):
    page = show(render(sample(tone=tone)), scheme=scheme)
    seen = page.evaluate(FAINT)
    assert len(seen) > 200
    assert any(look.startswith("text") for _, look in seen), "drawings are looked at as well"
    faint = sorted({(round(ratio, 2), look) for ratio, look in seen if ratio < 4.5})
    assert faint == []


def test_faint_text_would_be_noticed(show):
    page = show(render(sample()))
    page.evaluate("() => { document.querySelector('h1').style.color = '#999' }")
    assert min(page.evaluate(FAINT))[0] < 4.5


def test_the_style_is_applied_and_a_script_is_not(show):
    html = render(sample())
    page = show(html)
    look = "() => getComputedStyle(document.querySelector('.tile')).borderTopWidth"
    assert page.evaluate(look) == "4px"
    planted = html.replace("<main>", "<main><script>document.title = 'ran'</script>"
                           "<style>.tile { display: none }</style>"
                           "<img src='https://example.org/x.png'>")  # fmt: skip
    page = show(planted)
    assert page.title() != "ran"
    assert page.locator(".tile").first.is_visible()
    assert len(page.said) == 3, "the browser refused three things"


def test_drawings_take_the_colours_of_the_page(show):
    fill = "() => getComputedStyle(document.querySelector('svg rect.blue')).fill"
    dots = "() => getComputedStyle(document.querySelector('svg .spots.blue')).stroke"
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light, dark = (show(render(sample()), scheme=s) for s in ("light", "dark"))
    for what in (fill, dots, ground):
        assert light.evaluate(what) != dark.evaluate(what)
    assert light.evaluate(fill) == light.evaluate(dots)


@pytest.mark.parametrize("width", [390, 1280])
def test_drawings_have_text_of_a_legible_size(show, width):
    page = show(render(sample()), width=width)
    heights = "() => [...document.querySelectorAll('svg text')]"
    heights = page.evaluate(heights + ".map(e => e.getBoundingClientRect().height)")
    assert min(heights) >= 11.5, "pixels of a line: the letters are of 10 and more"


def test_paper_is_white_whatever_the_screen(show):
    page = show(render(sample()), width=PAPER, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    faint = [look for ratio, look in page.evaluate(FAINT) if ratio < 4.5]
    assert faint == []
    assert page.locator("nav").is_hidden()
    tops = page.evaluate("() => [...document.querySelectorAll('.tile')].map(e => "
                         "e.getBoundingClientRect().bottom)")  # fmt: skip
    assert max(tops) < 900, "the tiles are on the first page"
    uncut = "() => [...document.querySelectorAll('figure, .tile, .example')].every(e => " \
        "getComputedStyle(e).breakInside === 'avoid')"  # fmt: skip
    assert page.evaluate(uncut)


def test_the_printed_page_has_the_tiles(show):
    page = show(render(sample()), scheme="dark")
    pdf = page.pdf(format="A4", print_background=False)
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3
    found = pdf_texts(pdf)
    for tile in TILES:
        wanted = re.sub(r"\s", "", tile.value)
        assert any(wanted in re.sub(r"\s", "", text) for text in found), tile.value
    assert not any("nowhere on the page" in text for text in found)


def test_hostile_text_stays_text(show):
    """All of it on one page, wherever data text goes; as many elements as of harmless words."""
    texts = [text for text in CORPUS if text.strip()]

    def page_of(words: list[str]):
        rows = [{"id": w, "text": w, "label": w, "reason": w, "k" + w: w} for w in words]
        figures = [Figure(w, w, bars([Bar(w, 1.0, w)], w)) for w in words]
        tables = [Table(w, w, [w, "n"], [[w, 1]]) for w in words]
        sections = [Section(w, w, [f], [t]) for w, f, t in zip(words, figures, tables, strict=True)]
        data = replace(sample(text=words[0]), sections=sections, examples=rows, notes=words)
        return show(render(data), width=390)

    counts = "() => document.querySelectorAll('*').length"
    page = page_of(texts)
    assert page.evaluate(counts) == page_of(["word"] * len(texts)).evaluate(counts)
    lines = "() => [...document.querySelectorAll('.notes li')].map(e => e.textContent)"
    shown = page.evaluate(lines)
    assert shown == [plain(text) for text in texts]
    assert page.evaluate("() => document.scripts.length") == 0
    assert page.requests == []
    assert page.said == []
    assert page.evaluate(STICKING_OUT) == []

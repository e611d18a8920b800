from __future__ import annotations

import math
import re
import unicodedata

import numpy as np
import pytest
from hostile import CORPUS
from markdown_it import MarkdownIt
from scipy import stats

from curation.reporting.plots import length_histogram, markdown_image
from curation.reporting.text import (
    escape_markdown,
    is_number,
    markdown_table,
    plain,
    t_interval,
)

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
# How remark (micromark's mdast-util-gfm-autolink-literal) finds bare links once escapes are undone.
BARE_LINK = re.compile(r"(https?://|www(?=\.))[-.\w]+", re.IGNORECASE)
BARE_MAIL = re.compile(r"[-.\w+]+@[-\w]+(?:\.[-\w]+)+")


def flat(markdown: str) -> list:
    return [t for token in MARKDOWN.parse(markdown) for t in (token, *(token.children or []))]


def shown(markdown: str) -> str:
    return "".join(t.content for t in flat(markdown) if t.type in ("text", "text_special"))


@pytest.mark.parametrize("text", CORPUS)
def test_escaped_text_is_only_text(text: str) -> None:
    escaped = escape_markdown(text, limit=10_000)
    assert {t.type for t in flat(escaped)} <= {
        "paragraph_open", "inline", "text", "text_special", "paragraph_close",
    }  # fmt: skip
    assert "\n" not in escaped
    visible = shown(escaped)
    assert not BARE_LINK.search(visible)
    assert not BARE_MAIL.search(visible)
    assert visible.replace("\u200b", "") == plain(text), "a reader sees what was in the data"


@pytest.mark.parametrize("text", CORPUS)
def test_table_keeps_its_shape(text: str) -> None:
    table = markdown_table(["id", text], [["1", text], [text, text], ["end", ""]])
    tokens = flat(table)
    kinds = [t.type for t in tokens]
    assert kinds.count("tr_open") == 4
    assert kinds.count("th_open") == 2
    assert kinds.count("td_open") == 6
    assert not {"html_inline", "html_block", "link_open", "image", "code_inline"} & set(kinds)
    assert kinds[-1] == "table_close", "nothing escapes from the table"


def test_the_probe_of_these_tests_can_fail() -> None:
    assert "html_block" in {t.type for t in flat(CORPUS[0])}
    assert "image" in {t.type for t in flat("![x](https://evil.example/pixel.png)")}
    assert BARE_LINK.search("see https://evil.example")


def test_invisible_and_control_characters_are_gone() -> None:
    for text in CORPUS:
        kinds = {unicodedata.category(ch) for ch in plain(text)}
        assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", plain(text))
        plain(text).encode("utf-8")
    assert plain("می\u200cخواهم") == "می\u200cخواهم", "joiners that spelling needs stay"


def test_truncation_counts_visible_characters() -> None:
    assert escape_markdown("<" * 50, limit=5) == "&lt;" * 4 + "…"
    assert escape_markdown("abcde", limit=5) == "abcde"
    assert plain("abc def", limit=5) == "abc…"
    with pytest.raises(ValueError, match="at least 1"):
        plain("x", limit=0)


@pytest.mark.parametrize("text", ["-0.3", "+0.3", "\u22120.333", "1,200", "4.5%", "12"])
def test_numbers_are_known_with_any_sign(text: str) -> None:
    assert is_number(text)
    assert not is_number(f"{text} [0.1, 0.2]")


def test_table_cells_and_alignment() -> None:
    table = markdown_table(
        ["class", "rows", "share", "note"],
        [["a|b", 1200, 0.123456, None], ["c", 3, "4.5%", "fine"]],
    )
    assert table.splitlines() == [
        "| class | rows | share | note |",
        "| --- | ---: | ---: | --- |",
        "| a&#124;b | 1200 | 0.1235 |  |",
        "| c | 3 | 4.5% | fine |",
    ]
    with pytest.raises(ValueError, match="row 1 has 1 cells, but there are 2"):
        markdown_table(["a", "b"], [[1, 2], [1]])
    with pytest.raises(ValueError, match="header"):
        markdown_table([], [])


@pytest.mark.parametrize("alt", CORPUS)
def test_markdown_image_is_one_image(alt: str) -> None:
    png = length_histogram([1, 2, 3], title="t", unit="tokens")
    tokens = flat(markdown_image(png, alt))
    # The parser refuses some data: addresses by itself; PNG is among those it lets through.
    assert [t.type for t in tokens if t.type != "text"] == [
        "paragraph_open", "inline", "image", "paragraph_close",
    ]  # fmt: skip
    (image,) = [t for t in tokens if t.type == "image"]
    assert str(image.attrs["src"]).startswith("data:image/png;base64,iVBOR")
    assert not BARE_LINK.search(image.content)


def test_markdown_image_refuses_what_is_no_png() -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        markdown_image(b"<svg/>", "x")


def test_t_interval_textbook_values() -> None:
    # n = 5, mean 3, s = sqrt(2.5); the table gives t(0.975, 4) = 2.776 and t(0.95, 4) = 2.132.
    mean, low, high = t_interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert high - mean == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)
    assert t_interval([1, 2, 3, 4, 5], 0.9)[2] - 3 == pytest.approx(2.131847 * math.sqrt(0.5))


def test_t_interval_against_scipy() -> None:
    x = np.random.default_rng(0).normal(5, 2, 17)
    mean, low, high = t_interval(x, 0.99)
    expected = stats.t.interval(0.99, 16, loc=x.mean(), scale=stats.sem(x))
    assert (low, high) == pytest.approx(expected)
    assert mean == pytest.approx(x.mean())


def test_t_interval_edges() -> None:
    mean, low, high = t_interval([7.0])
    assert mean == 7
    assert math.isnan(low)
    assert math.isnan(high)
    assert t_interval([2, 2, 2]) == (2, 2, 2)
    for values, level, why in (
        ([], 0.95, "at least one"),
        ([1, math.nan], 0.95, "finite"),
        ([1, 2], 1.0, "level"),
    ):
        with pytest.raises(ValueError, match=why):
            t_interval(values, level)

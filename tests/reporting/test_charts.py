"""The report's drawings: well-formed, inside their sheet, and of the numbers they are given."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from hostile import CORPUS

from curation.reporting import charts as c
from curation.reporting.svg import WIDTH, Drawing, Scale, Sheet, told

RNG = np.random.default_rng(3)
EXTREMES = [
    [], [0.0], [1.0], [1.0, 1.0], [1e-9, 1e9], [np.nan, 1.0], [-5.0, 0.0, 3.0], [1e-300, 1e300],
]  # fmt: skip


def parse(drawing: Drawing) -> ElementTree.Element:
    """Read a drawing as XML; every mark has to be a number inside of the sheet."""
    root = ElementTree.fromstring(str(drawing.markup))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert width == WIDTH
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    for element in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            if name in element.attrib:
                assert -1 <= float(element.attrib[name]) <= WIDTH + 1, element.attrib
        for name in ("y", "y1", "y2", "cy"):
            if name in element.attrib:
                assert -1 <= float(element.attrib[name]) <= height + 1, element.attrib
        path = element.attrib.get("d", "")
        assert re.fullmatch(r"[MLZHVCAhvlmz0-9,. -]*", path), path  # no nan, no inf
        if element.tag.endswith("rect"):
            x, y, wide, high = (float(element.attrib[n]) for n in ("x", "y", "width", "height"))
            assert wide >= 0.0
            assert high >= 0.0
            assert x + wide <= WIDTH + 1
            assert y + high <= height + 1
        for number in re.findall(r"-?\d+\.?\d*", path):
            assert -1 <= float(number) <= max(WIDTH, height) + 1
    return root


def found(root: ElementTree.Element, tag: str, look: str) -> list[ElementTree.Element]:
    return [e for e in root.iter(tag) if look in e.attrib.get("class", "").split()]


def texts(root: ElementTree.Element) -> list[str]:
    return [e.text or "" for e in root.iter("text")]


def test_bars_are_as_long_as_their_values() -> None:
    rows = [c.Bar("a", 10.0, "10"), c.Bar("b", 5.0, "5"), c.Bar("c", 0.0, "0")]
    root = parse(c.bars(rows, "bars"))
    assert [float(e.attrib["width"]) for e in found(root, "rect", "blue")] == [400.0, 200.0]
    assert texts(root) == ["10", "a", "5", "b", "0", "c"]


def test_means_stand_where_they_are_and_hold_their_interval() -> None:
    rows = [c.Mean("a", 0.6, 0.55, 0.65, "0.6", runs=[0.5, 0.7]),
            c.Mean("b", 0.5, 0.5, 0.5, "0.5", "orange")]  # fmt: skip
    root = parse(c.means({"accuracy": rows}, "m"))
    (a,) = found(root, "circle", "blue")
    (b,) = found(root, "circle", "orange")
    low, high = (float(e.attrib["cx"]) for e in found(root, "circle", "soft-blue"))
    assert low == float(b.attrib["cx"]) < float(a.attrib["cx"]) < high
    (bar,) = found(root, "line", "thick")
    assert float(bar.attrib["x1"]) < float(a.attrib["cx"]) < float(bar.attrib["x2"])
    assert float(bar.attrib["x2"]) - float(bar.attrib["x1"]) == pytest.approx(
        (high - low) / 2, abs=0.2
    )


def test_the_error_curve_falls_and_marks_the_budget() -> None:
    budgets, errors = [20, 100, 500], [0.2, 0.05, 0.01]
    root = parse(c.error_curve(budgets, errors, [0.4, 0.2, 0.1], here=100, label="curve"))
    ours, theirs = found(root, "circle", "blue")[1:], found(root, "circle", "orange")[1:]
    heights = [float(e.attrib["cy"]) for e in ours]
    assert heights == sorted(heights), "a smaller error is lower"
    above = zip(ours, theirs, strict=True)
    assert all(float(a.attrib["cy"]) > float(b.attrib["cy"]) for a, b in above)
    (mark,) = found(root, "line", "dash")
    assert mark.attrib["x1"] == ours[1].attrib["cx"]
    assert "this subset: 100" in texts(root)


def test_clusters_are_as_wide_as_their_rows_and_parted_at_zero() -> None:
    root = parse(
        c.over_clusters([-0.5, 0.5], [25, 75], low=-1.0, high=1.0, mean=0.25, title="t", label="l")
    )
    (good,), (bad,) = found(root, "path", "blue"), found(root, "path", "orange")
    at = lambda e: [float(x) for x in re.findall(r"[ML](\S+) ", e.attrib["d"])]  # noqa: E731
    whole = max(at(bad)) - min(at(good))
    assert (max(at(good)) - min(at(good))) / whole == pytest.approx(0.75, abs=0.01)
    assert min(at(bad)) == max(at(good))
    assert "dashed: all rows, 25%" in texts(root)


def test_a_histogram_counts_every_row() -> None:
    values = [1.0] * 30 + [2.0] * 15
    root = parse(c.histogram(values, title="weight", label="l"))
    heights = [float(e.attrib["height"]) for e in found(root, "rect", "blue")]
    assert heights[0] == pytest.approx(2 * heights[-1], abs=0.2)
    wide = parse(c.histogram([1.0, 1000.0], title="weight", label="l"))
    assert "weight, by factors" in texts(wide)


def test_a_map_shows_every_chosen_row_and_the_heaviest_largest() -> None:
    points = RNG.normal(size=(300, 2))
    chosen = np.arange(300) < 30
    root = parse(c.row_map(points, chosen, np.arange(300.0), label="map"))
    own = found(root, "path", "blue")
    assert sum(e.attrib["d"].count("h0") for e in own) == 30
    sizes = [float(e.attrib["stroke-width"]) for e in own]
    assert sizes == sorted(sizes, reverse=True), "small dots are drawn over large ones"
    (others,) = found(root, "path", "soft-grey")
    assert others.attrib["d"].count("h0") == 270


def test_many_rows_stay_a_small_drawing() -> None:
    points = RNG.normal(size=(80_000, 2))
    drawing = c.row_map(points, points[:, 0] > 0, np.ones(80_000), label="map")
    assert len(drawing.markup) < 200_000
    many = c.over_clusters(RNG.normal(size=9000), np.ones(9000), low=-1, high=1, mean=0.0,
                           title="t", label="l")  # fmt: skip
    assert len(many.markup) < 40_000


def test_rare_classes_are_added_up() -> None:
    names = [f"class {i}" for i in range(30)]
    root = parse(c.class_shares(names, np.arange(30, 0, -1), np.ones(30), label="l"))
    assert "14 rarer" in texts(root)
    assert len(found(root, "circle", "grey")) == 17 + 1  # and the legend's


ANY: dict[str, Callable[[list[float]], Drawing]] = {
    "bars": lambda v: c.bars([c.Bar("n", abs(x), "t") for x in v], "l"),
    "means": lambda v: c.means(
        {"m": [c.Mean("n", x, x, x, "t") for x in v if np.isfinite(x)]} if v else {}, "l"
    ),
    "over_clusters": lambda v: c.over_clusters(
        [x for x in v if np.isfinite(x)], [1 for x in v if np.isfinite(x)],
        low=-1.0, high=1.0, mean=0.0, title="t", label="l",
    ),
    "histogram": lambda v: c.histogram(v, title="t", label="l"),
    "row_map": lambda v: c.row_map(
        [(x, -x) for x in v] or np.zeros((0, 2)), [True] * len(v), v, label="l"
    ),
    "class_shares": lambda v: c.class_shares(
        ["n"] * len(v), np.nan_to_num(np.abs(v)), np.nan_to_num(np.abs(v)), label="l"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize("values", EXTREMES, ids=str)
def test_extremes_are_drawn(name: str, values: list[float]) -> None:
    parse(ANY[name](values))


@pytest.mark.parametrize("text", [t for t in CORPUS if t.strip()])
def test_names_stay_text(text: str) -> None:
    root = parse(c.bars([c.Bar(text, 1.0, "x")], text))
    assert {e.tag for e in root.iter()} == {"svg", "text", "rect"}
    parse(c.class_shares([text], [1], [1], label=text))
    parse(c.means({text: [c.Mean(text, 1.0, 1.0, 1.0, text)]}, text))


def test_looks_are_those_of_the_style_sheet() -> None:
    with pytest.raises(ValueError, match="no such look: pink"):
        Sheet(10, "l").rect(0, 0, 1, 1, "pink")


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0.0, 1.0, 0, 1), [0.0, 0.25, 0.5, 0.75, 1.0]),
        (Scale(-1.0, 1.0, 0, 1), [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (Scale(1.0, 1000.0, 0, 1, log=True), [1.0, 10.0, 100.0, 1000.0]),
        (Scale(3.0, 3.0, 0, 1), [3.0]),
    ],
)
def test_ticks_are_round(scale: Scale, ticks: list[float]) -> None:
    assert scale.ticks() == pytest.approx(ticks)
    assert "-0%" not in [told(value, True) for value in scale.ticks()]
    assert told(-0.0, True) == "0%"

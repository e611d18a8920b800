"""A report with one of everything, and a reader of the PDF a browser prints of it."""

from __future__ import annotations

import re
import zlib

import numpy as np

from curation.reporting import charts as c
from curation.reporting.page import Figure, ReportData, Section, Table, Tile
from curation.reporting.plots import category_counts

TILES = [
    Tile("Rows chosen", "645", "15.0% of 4,299"),
    Tile("Accuracy against uniform", "+0.032", "95% interval +0.023 to +0.040", "good"),
    Tile("Macro F1 against uniform", "−0.010", "uniform rows win", "bad"),
    Tile("Estimated total loss", "12,883 ± 321", "true total 12,801: 0.6% off"),
]


def drawings() -> list[Figure]:
    """One drawing of each kind, and a picture."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(900, 2))
    drawn = {
        "bars": c.bars([c.Bar("a name", 3.0, "3"), c.Bar("uniform", 5.0, "5", "orange")], "bars"),
        "means": c.means(
            {"accuracy": [c.Mean("subset", 0.6, 0.58, 0.62, "0.600", runs=[0.59, 0.61])]}, "means"
        ),
        "curve": c.error_curve([20, 100, 500], [0.1, 0.05, 0.01], [0.2, 0.1, 0.05], here=100,
                               label="curve"),
        "clusters": c.over_clusters(rng.normal(size=50), np.ones(50), low=-1, high=1, mean=0.1,
                                    title="R²", label="clusters"),
        "weights": c.histogram(rng.gamma(2.0, size=300), title="weight", label="weights"),
        "map": c.row_map(points, points[:, 0] > 1, np.ones(900), label="map"),
        "classes": c.class_shares(["one", "two"], [30, 10], [10, 10], label="classes"),
    }  # fmt: skip
    figures = [Figure(name, "How to read it.", drawing) for name, drawing in drawn.items()]
    return [*figures, Figure("png", "", category_counts(["a"], [1], title="a"))]


def sample(*, text: str = "word", tone: str = "good") -> ReportData:
    """Return a report with one of everything, `text` wherever data text goes."""
    wide = Table("wide", text, [f"column {i}" for i in range(30)], [list(range(30))])
    pairs = Table("The draw", "", ["", ""], [["a long name of a line", text], [text, "x " * 90]])
    return ReportData(
        dataset=text,
        headline=[*TILES, Tile(text, text, text)],
        summary=f"645 of 4,299 rows train a better model. {text}",
        tone=tone,
        notes=[text],
        sections=[
            Section("Does it train a better model?", text, drawings(), [wide, pairs]),
            Section("Rows", "", (), [Table(text, text, [text, "rows"], [[text, 3]] * 40)]),
        ],
        examples=[
            {"id": text, "text": text, "label": text, "reason": text, "weight": "3.1"}
            for _ in range(5)
        ],
        method=[text],
        generated="2031-05-04",
    )


def pdf_texts(pdf: bytes) -> list[str]:
    """Return the texts of a PDF as Chromium writes them, one for each of its fonts' tables.

    Text is given by the numbers of glyphs; each font has a table from these to letters, and which
    table belongs to which run is not looked up: all are tried.
    """
    streams = []
    for match in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            streams.append(zlib.decompress(match[1]).decode("latin-1"))
        except zlib.error:
            continue
    runs = [run for s in streams if " Tf" in s for run in re.findall(r"<([0-9A-Fa-f]+)>", s)]
    return ["".join(_decoded(run, t) for run in runs) for t in map(_letters, streams) if t]


def _letters(stream: str) -> dict[int, str]:
    """Return a font's table, from the stream that holds one; nothing of others."""
    table: dict[int, str] = {}
    if "begincmap" not in stream:
        return table
    for block in re.findall(r"beginbfchar(.*?)endbfchar", stream, re.DOTALL):
        for glyph, letter in re.findall(r"<(\w+)> *<(\w+)>", block):
            table[int(glyph, 16)] = bytes.fromhex(letter).decode("utf-16-be")
    for block in re.findall(r"beginbfrange(.*?)endbfrange", stream, re.DOTALL):
        for first, last, letter in re.findall(r"<(\w+)> *<(\w+)> *<(\w+)>", block):
            for step in range(int(last, 16) - int(first, 16) + 1):
                table[int(first, 16) + step] = chr(int(letter, 16) + step)
    return table


def _decoded(run: str, table: dict[int, str]) -> str:
    glyphs = (int(run[i : i + 4], 16) for i in range(0, len(run) - 3, 4))
    return "".join(table.get(glyph, "") for glyph in glyphs)

"""The report: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from curation.reporting.plots import base64_png
from curation.reporting.text import cell_text, check_table, numeric_columns, plain

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATES = Path(__file__).parent / "templates"
_EXAMPLE_LIMIT = 400


@dataclass(frozen=True)
class Figure:
    """A picture of the report.

    Attributes
    ----------
    title
        Short name of the figure, e.g. ``Class shares``; the picture itself carries the finding.
    caption
        How to read it, one or two sentences.
    png
        The picture.
    """

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Table:
    """A table of the report; columns that hold only numbers are aligned to the right."""

    title: str
    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows. All text is shown as it is, never as HTML.

    Attributes
    ----------
    dataset
        Name of the data set.
    headline
        Tiles of the first screen: label, value, note.
    figures, tables
        In the order shown.
    examples
        Selected rows. ``text``, ``reason``, ``label`` and ``weight`` have a place of their own;
        every other key is shown with its name.
    notes
        What a reader has to know, one sentence or two each.
    generated
        When and by what the report was made.
    summary
        One sentence for the first screen; made from the tiles when empty.
    """

    dataset: str
    headline: list[tuple[str, str, str]]
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    examples: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    generated: str = ""
    summary: str = ""


def render(data: ReportData) -> str:
    """Return the report as one self-contained HTML file.

    No script, no network, pictures inline; light and dark by the reader's setting; fit for a phone
    and for paper.

    Parameters
    ----------
    data
        What to show.

    Returns
    -------
    str
        HTML, to be written as UTF-8.

    Raises
    ------
    ValueError
        When a picture is not a PNG or a table's row does not fit its headers.
    """
    summary = data.summary or ", ".join(
        f"{label}: {value}" for label, value, _ in data.headline[:4]
    )
    return _template().render(
        data=data,
        summary=summary,
        figures=[(f.title, f.caption, base64_png(f.png), _size(f.png)) for f in data.figures],
        tables=[_table(t) for t in data.tables],
        examples=[_example(e) for e in data.examples],
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def printable(value: object) -> object:
        return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )
    return environment.get_template("report.html.j2")


def _size(png: bytes) -> tuple[int, int]:
    """Return width and height in pixels, which a PNG keeps at bytes 16 to 24."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _table(table: Table) -> dict[str, object]:
    rows = check_table(table.headers, table.rows)
    return {
        "title": table.title,
        "caption": table.caption,
        "headers": table.headers,
        "rows": [[cell_text(cell) for cell in row] for row in rows],
        "right": numeric_columns(rows, len(table.headers)),
    }


def _example(example: dict[str, str]) -> dict[str, object]:
    own = ("text", "reason", "label")
    return {
        **{key: plain(example.get(key, ""), limit=_EXAMPLE_LIMIT) for key in own},
        "facts": [
            (k.replace("_", " "), plain(v, limit=80)) for k, v in example.items() if k not in own
        ],
    }

"""The report: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curation.reporting.plots import base64_png
from curation.reporting.svg import Drawing
from curation.reporting.text import cell_text, check_table, numeric_columns, plain

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATES = Path(__file__).parent / "templates"
_EXAMPLE_LIMIT = 400
TONES = ("", "good", "bad")


class Tile(NamedTuple):
    """A number of the first screen; `tone` is ``good``, ``bad`` or empty, and not all it says."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture of the report.

    Attributes
    ----------
    title
        What it shows, as a finding where there is one.
    caption
        How to read it, one or two sentences.
    picture
        A drawing that takes the page's colours, or a PNG, which stays as it is.
    """

    title: str
    caption: str
    picture: Drawing | bytes


@dataclass(frozen=True)
class Table:
    """A table of the report; columns that hold only numbers are aligned to the right."""

    title: str
    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Section:
    """A question the report answers: in one sentence, then in figures, then in tables."""

    title: str
    lead: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.lead or self.figures or self.tables)


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows. All text is shown as it is, never as HTML.

    Attributes
    ----------
    dataset
        Name of the data set.
    headline
        Tiles of the first screen: label, value, note, tone.
    sections
        In the order shown; empty ones are left out.
    examples
        Selected rows. ``text``, ``reason``, ``label`` and ``picture`` (a PNG) have a place of their
        own; every other key is shown with its name.
    notes
        What a reader has to know before anything else, one sentence or two each.
    method
        How numbers are to be read, at the end.
    generated
        When and by what the report was made.
    summary
        One sentence for the first screen; made from the tiles when empty.
    tone
        Of that sentence, as a tile's.
    """

    dataset: str
    headline: Sequence[tuple[str, ...]]
    sections: Sequence[Section] = ()
    examples: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    method: Sequence[str] = ()
    generated: str = ""
    summary: str = ""
    tone: str = ""


def render(data: ReportData) -> str:
    """Return the report as one self-contained HTML file.

    No script, no network, pictures inline; light and dark by the reader's setting; fit for a phone
    and for paper. A policy allows its own style sheet, by its hash, and pictures that are part of
    the page, and nothing else.

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
        When a picture is neither a drawing nor a PNG, a table's row does not fit its headers, or a
        tone is unknown.
    """
    from markupsafe import Markup

    tiles = [Tile(*tile) for tile in data.headline]
    unknown = {data.tone, *(tile.tone for tile in tiles)} - set(TONES)
    if unknown:
        raise ValueError(f"no such tone: {', '.join(sorted(unknown))}")
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        data=data,
        style=Markup(style),  # noqa: S704  our own file
        style_hash=Markup("'sha256-{}'").format(digest),
        summary=data.summary or ", ".join(f"{one.label}: {one.value}" for one in tiles[:4]),
        tiles=tiles,
        sections=[_section(section) for section in data.sections if section],
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


def _section(section: Section) -> dict[str, object]:
    return {
        "title": section.title,
        "lead": section.lead,
        "figures": [_figure(figure) for figure in section.figures],
        "tables": [_table(table) for table in section.tables],
    }


def _figure(figure: Figure) -> dict[str, object]:
    found: dict[str, object] = {
        "title": figure.title,
        "caption": figure.caption,
        "drawing": None,
        "png": "",
    }
    if isinstance(figure.picture, Drawing):
        return {**found, "drawing": figure.picture.markup}
    return {**found, "png": base64_png(figure.picture), "size": _size(figure.picture)}


def _size(png: bytes) -> tuple[int, int]:
    """Return width and height in pixels, which a PNG keeps at bytes 16 to 24."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _table(table: Table) -> dict[str, object]:
    rows = check_table(table.headers, table.rows)
    return {
        "title": table.title,
        "caption": table.caption,
        "headers": table.headers,
        "headed": any(table.headers),
        "rows": [[cell_text(cell) for cell in row] for row in rows],
        "right": numeric_columns(rows, len(table.headers)),
    }


def _example(example: Mapping[str, Any]) -> dict[str, object]:
    own = ("text", "reason", "label")
    picture = example.get("picture")
    return {
        **{key: plain(example.get(key, ""), limit=_EXAMPLE_LIMIT) for key in own},
        "png": base64_png(picture) if isinstance(picture, bytes) else "",
        "facts": [
            (k.replace("_", " "), plain(v, limit=80))
            for k, v in example.items()
            if k not in (*own, "picture")
        ],
    }

"""The table of the hostile inputs: what each is, what is expected, what became of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "hostile-input.md"
PROPERTY = "hostile"

_INTRODUCTION = """# Hostile input

Files come from anywhere, and some of them are damaged, odd, or made to do harm. `tests/corpus`
writes each of the files below into a data set that is sound otherwise and curates it, with the
same code as `curation run` (arrays, archives and saved data sets are read and validated only: what
comes after knows nothing of formats). For every one of them the tests hold that

- a message names data set, shard and a remedy, and shows nothing of the insides of a library;
- every row is accounted for: accepted, or in quarantine with its field and the reason;
- the subset holds rows that are in the source, with their label and shard, and finite weights;
- the other shards are as they were;
- what a row, a name or a message says stays text in the report, and is no Markdown in the UI.

*accepted*: all rows are kept. *quarantine*: these rows are set aside, the others are kept. *failed
shard*: it is left out, with a message, and the others go on. *error*: nothing is published, and the
message says why. A seed of random bytes, `tests/fuzz`, looks for what nobody has thought of.

Written by `CURATION_WRITE_DOCS=1 pytest tests/corpus`.
"""


def _rows(reports: list[Any]) -> list[tuple[str, str, str, str, str]]:
    found = []
    for report in reports:
        for name, value in report.user_properties:
            if name == PROPERTY and report.when == "call":
                world, told, expected, seen = value
                mark = "" if report.passed else "FAILED"
                found.append((world, told, _short(expected), _short(seen), mark))
    return sorted(dict.fromkeys(found))


def _short(text: str) -> str:
    kind, _, rest = text.partition(" (")
    parts = rest.rstrip(")").split("; ")
    if kind == "quarantine" and len(parts) > 3:
        return f"{kind} ({len(parts)} rows)"
    return text


def summary(reporter: Any) -> None:
    """Print the table, and write the page where ``CURATION_WRITE_DOCS`` is 1."""
    rows = _rows([r for kind in ("passed", "failed") for r in reporter.stats.get(kind, [])])
    if not rows:
        return
    reporter.section(f"hostile input ({len(rows)} cases)")
    for world, told, expected, seen, mark in rows:
        reporter.write_line(f"{world:9.9} {told:60.60} {expected:30.30} {seen:30.30} {mark}")
    if os.environ.get("CURATION_WRITE_DOCS") == "1":
        lines = [_INTRODUCTION]
        for world in dict.fromkeys(row[0] for row in rows):
            own = [row for row in rows if row[0] == world]
            lines += [f"\n## {world[0].upper()}{world[1:]} ({len(own)})\n"]
            lines += ["| input | expected | seen |", "|---|---|---|"]
            lines += [f"| {_cell(r[1])} | {_cell(r[2])} | {_cell(r[3])} |" for r in own]
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("_", "\\_").replace("<", "&lt;").replace("\n", " ")

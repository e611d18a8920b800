"""Holds what became of a case against what is expected of it."""

from __future__ import annotations

import re

import dagster as dg
import numpy as np
from corpus_case import Expected
from worlds import World

# What tells a reader nothing, or only whoever wrote the code.
_INSIDES = re.compile(
    r"Traceback|NoneType|panicked|\b0x[0-9a-f]{9,}|object at |site-packages"
    r"|\b(?:ArrowInvalid|ArrowException|ComputeError|SchemaError|InvalidOperationError"
    r"|ShapeError|KeyError|ValueError|TypeError|IndexError|AttributeError|AssertionError"
    r"|OSError|RuntimeError|UnicodeDecodeError|JSONDecodeError|PanicException|SourceError"
    r"|EncoderError|StoreError)\b"
)
_REMEDY = re.compile(
    r"\b(?:repair|remove|rename|correct|choose|fetch|save|copy|write|cut|raise|set|look at|look for"
    r"|materialize|let|install|widen|make|drop|mend|cast|use|pack|keep|try|check|add|take|lower)\b",
    re.IGNORECASE,
)
_LONGEST = 1500


def check_message(text: str, *, dataset: str, shard: str = "") -> None:
    """Hold a message against what people need: where, why and what now."""
    assert not (found := _INSIDES.search(text)), (found, text)
    assert dataset in text, text
    assert shard in text, text
    # without the names, which hold words of remedies ("data set", "gzip-cut")
    bare = re.sub(r"\bdata sets?\b", "", text)
    for name in (dataset, shard):
        bare = bare.replace(name, "") if name else bare
    assert _REMEDY.search(bare), text
    assert len(text) < _LONGEST, text[:300]
    assert not re.search(r"[\u202e\x00-\x09\x0b-\x1f\x7f]", text), repr(text)


def seen(world: World, shard: str) -> str:
    """Return what became of a shard, in the words of the table."""
    if shard in world.failures:
        return "failed shard"
    figures = world.figures(shard)
    if figures["quarantined"]:
        told = "; ".join(f"row {r['row']}: {r['field']}" for r in world.aside(shard).to_dicts())
        return f"quarantine ({told})"
    return f"accepted ({figures['rows']} rows)"


def check_shard(world: World, shard: str, expected: Expected) -> None:
    """Hold a shard against what is expected of it, row by row."""
    if expected.kind == "failed shard":
        assert shard in world.failures, seen(world, shard)
        message = world.failures[shard]
        assert re.search(expected.message, message, re.DOTALL), message
        check_message(message, dataset=world.dataset.name, shard=shard)
        return
    assert shard not in world.failures, world.failures[shard]
    rows, figures = world.rows(shard), world.figures(shard)
    told = rows.select("row", "id", *_label(world)).rows()
    found = {row: (key, str(label)) for row, key, label in told}
    wanted = {
        row: (found.get(row, ("", ""))[0] if key is None else key, label)
        for row, (key, label) in expected.accepted.items()
    }
    assert found == wanted
    assert figures["rows_in"] == len(expected.accepted) + len(expected.aside)
    assert figures["rows"] == len(expected.accepted)
    assert figures["quarantined"] == len(expected.aside)
    aside = {r["row"]: r for r in world.aside(shard).to_dicts()}
    assert set(aside) == set(expected.aside)
    for row, (name, reason) in expected.aside.items():
        assert aside[row]["field"] == name, aside[row]
        assert re.search(reason, aside[row]["reason"]), aside[row]
        assert not _INSIDES.search(aside[row]["reason"]), aside[row]
        assert len(aside[row]["reason"]) < 400, aside[row]


def _label(world: World) -> list[str]:
    return [world.dataset.columns.label or world.dataset.columns.target or "id"]


def check_events(world: World) -> None:
    """No data may become Markdown in Dagster's UI; pictures, which are, were not drawn."""
    kinds = set()
    for record in world.events:
        event = record.dagster_event
        told = event and getattr(event.event_specific_data, "materialization", None)
        checked = event and event.event_type_value == "ASSET_CHECK_EVALUATION"
        shown = told.metadata if told else {}
        if checked:
            shown = event.event_specific_data.metadata
        kinds.update(type(value) for value in shown.values())
        assert not any(isinstance(v, dg.MarkdownMetadataValue) for v in shown.values()), shown
    assert dg.TextMetadataValue in kinds  # the loop did see some


def check_subset(world: World) -> None:
    """Hold the published subset against the rows that are really in the source."""
    subset = world.subset()
    assert len(subset)
    label = _label(world)[0]
    for row in subset.select("id", "shard", "row", label).iter_rows(named=True):
        key, known = world.expected[row["shard"]].accepted[row["row"]]
        assert key in (None, row["id"])
        assert str(row[label]) == known
    assert subset["id"].is_unique().all()
    weights = subset.select("weight", "training_weight", "inclusion_probability").to_numpy()
    assert np.isfinite(weights).all()
    assert (weights > 0).all()

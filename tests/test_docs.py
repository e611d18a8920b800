"""The examples in the documentation run, in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from curation.config import CuratedDatasetConfig

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_notebook_example_runs_and_is_true(capsys):
    """What the text says of the numbers holds for them."""
    text = (DOCS / "notebook.md").read_text()
    names: dict = {}
    for number, block in enumerate(BLOCK.findall(text)):
        exec(compile(block, f"notebook.md, block {number}", "exec"), names)
    chosen, truth = names["chosen"], names["truth"]
    assert len(chosen.indices) == 200
    assert abs(names["plain"].value - truth) < chosen.certificate.radius
    for told in (names["plain"], names["sharper"]):  # 4 standard errors: one draw
        assert abs(told.value - truth) < 4 * told.standard_error
    curve = names["curve"].filter(names["curve"]["budget"] == names["curve"]["budget"][3])
    assert curve["relative_error"][0] < curve["uniform_error"][0]
    assert np.isin(names["smaller"].indices, chosen.indices).mean() >= 0.6
    assert names["kept"] >= 0.8
    assert names["after"].queries == 0
    assert 0.4 < np.mean(names["group"][names["shared"].indices] == "rare") < 0.6
    assert names["better"].score(names["embeddings"], names["digit"]) > 0.85
    assert "accuracy on all rows" in capsys.readouterr().out


def fields(model: type[BaseModel], above: str = "") -> list[str]:
    """Return the dotted names of all that can be set."""
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += fields(field.annotation, f"{above}{name}.")
        else:
            found.append(above + name)
    return found


def explained() -> dict[str, str]:
    """Return what the table of fields says, by the dotted names in its first column."""
    found: dict[str, str] = {}
    section = ""
    for line in (DOCS / "your-data.md").read_text().splitlines():
        if line.startswith("| `"):
            for name in re.findall(r"`([^`]+)`", line.split("|")[1]):
                full = section + name if name.startswith(".") else name
                section = full.rpartition(".")[0]
                found[full] = line
    return found


def test_every_field_is_explained():
    """In the table, or in operations.md where the table says so; `columns` by example."""
    table, operations = explained(), (DOCS / "operations.md").read_text()
    missing = []
    for name in fields(CuratedDatasetConfig):
        section, _, leaf = name.rpartition(".")
        line = next((table[one] for one in (name, section) if one in table), None)
        if line is None:
            missing.append(name)
        elif name not in table:
            where = operations if "operations.md" in line else line
            marked = rf"`[^`\n]*\b{leaf}\b[^`\n]*`|^\s*{leaf}:"
            if not re.search(marked, where, re.MULTILINE):
                missing.append(name)
    assert not missing

"""What a case of the corpus is: files somebody might hand us, and what is to become of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Expected:
    """What is to become of a shard.

    Attributes
    ----------
    kind : str
        ``accepted``, ``quarantine``, ``failed shard`` or ``error`` (nothing runs at all).
    accepted : mapping
        Row number in the shard -> (id, label) of the rows that are kept; the id is None where it is
        a hash of the content.
    aside : mapping
        Row number -> (field, pattern of the reason) of the rows that are not.
    message : str
        Pattern of what is said of a shard that failed.
    shard : str
        Its key, where that is not the name of the case.
    """

    kind: str
    accepted: Mapping[int, tuple[str | None, str]] = field(default_factory=dict)
    aside: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    message: str = ""
    shard: str = ""

    def __str__(self) -> str:
        if self.kind == "accepted":
            return f"accepted ({len(self.accepted)} rows)"
        if self.kind == "quarantine":
            told = "; ".join(f"row {row}: {name}" for row, (name, _) in self.aside.items())
            return f"quarantine ({told})"
        return self.kind


@dataclass(frozen=True)
class Case:
    """Something hostile: `make` writes it into a folder and says what is expected of it."""

    world: str
    name: str
    told: str
    make: Callable[[Path], Expected]


CASES: list[Case] = []


def case(world: str, told: str, given: str = "") -> Callable[[Callable[[Path], Expected]], Any]:
    """Enter a generator into the corpus; the name of its shard is its own unless it says so."""

    def enter(make: Callable[[Path], Expected]) -> Callable[[Path], Expected]:
        name = given or make.__name__.replace("_", "-")
        assert name not in {c.name for c in CASES if c.world == world}, name
        CASES.append(Case(world, name, told, make))
        return make

    return enter


def of_world(world: str) -> list[Case]:
    """Return the cases of one world."""
    return [c for c in CASES if c.world == world]


def records(shard: str, rows: int = 4) -> list[Record]:
    """Return sound rows whose ids name their shard."""
    words = ("rain", "wind", "snow", "sun", "fog")
    return [
        {
            "key": f"{shard}-{i}",
            "text": f"{words[i % 5]} over {words[i % 3]} number {i}",
            "label": f"class {i % 3}",
            "team": f"team {i % 2}",
        }
        for i in range(rows)
    ]


def kept(rows: list[Record], *, aside: Mapping[int, Any] = {}) -> dict[int, tuple[str | None, str]]:
    """Return what of the rows is to be accepted."""
    return {i: (str(row["key"]), str(row["label"])) for i, row in enumerate(rows) if i not in aside}


def accepted(rows: list[Record], shard: str = "") -> Expected:
    """Expect every row to be kept."""
    return Expected("accepted", kept(rows), shard=shard)


def aside(rows: list[Record], wrong: Mapping[int, tuple[str, str]], shard: str = "") -> Expected:
    """Expect some rows in quarantine and the others to be kept."""
    return Expected("quarantine", kept(rows, aside=wrong), wrong, shard=shard)


def failed(message: str, shard: str = "") -> Expected:
    """Expect the shard to fail, and to say so."""
    return Expected("failed shard", message=message, shard=shard)


def lines(rows: list[Record]) -> list[str]:
    """Return rows as lines of JSON."""
    return [json.dumps(row, ensure_ascii=False) for row in rows]


def jsonl(rows: list[Record]) -> str:
    """Return rows as a JSON lines file."""
    return "".join(line + "\n" for line in lines(rows))


def comma(rows: list[Record], *, end: str = "\n") -> str:
    """Return rows as a CSV file, every field in quotes."""

    def field(value: Any) -> str:
        return '"' + str(value).replace('"', '""') + '"'

    header = ",".join(map(field, rows[0]))
    return end.join([header, *(",".join(map(field, row.values())) for row in rows)]) + end

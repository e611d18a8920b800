"""Fixtures of the cases, and the table of what was seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_ground import MORE, SHARDS, Ground, Row

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
INTRODUCTION = """# What happens when something goes wrong

Real runs over small shards, each disturbed on purpose and then run again. A line says what was
done, what has to hold, and what a run of the suite saw. Unless the line says otherwise, this holds
after each of them: the run that follows succeeds; the published subset has the same content hash
and the same bytes as that of a store that saw the same shards and no fault; there are no temporary
files; every version in the store opens and matches its manifest; each shard's rows are those of its
source.

`make test-faults` runs the suite; with `CURATION_WRITE_DOCS=1` it writes this page as well.

"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Callable[[str, str], Row]:
    """Give a line of the table; what was seen is taken from it when the case has ended."""

    def begin(case: str, expected: str) -> Row:
        line = Row(case, expected)
        # travels with the report, from a worker's process as well, as it is when the case has ended
        request.node.user_properties.append(("row", line.cells))
        return line

    return begin


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and write it where that is asked for."""
    found = []
    for kind in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(kind, []):
            if kind == "skipped" and "faults" in report.nodeid:
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
                found.append((report.nodeid, [report.nodeid.split("::")[1], "", reason]))
            lines = [v for n, v in getattr(report, "user_properties", ()) if n == "row"]
            if getattr(report, "when", "") != "call":
                continue
            found += [(report.nodeid, line) for line in lines]
    found = [line for _, line in sorted(found, key=lambda entry: entry[1][0])]
    if not found:
        return
    terminalreporter.section("faults")
    wide = [max(len(line[i]) for line in found) for i in (0, 1)]
    for case, expected, seen in [("case", "expected", "seen"), *found]:
        terminalreporter.write_line(f"{case:<{wide[0]}}  {expected:<{wide[1]}}  {seen}")
    if os.environ.get("CURATION_WRITE_DOCS"):
        lines = ["| case | expected | seen |", "|---|---|---|"]
        lines += ["| " + " | ".join(c.replace("|", "/") for c in line) + " |" for line in found]
        DOCS.write_text(INTRODUCTION + "\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A clean store that saw three shards."""
    ground = Ground(tmp_path_factory.mktemp("first")).fill_source()
    ended = ground.run()
    assert ended.success, ended.said + ended.log[-3000:]
    return ground


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory, first: Ground) -> Ground:
    """A clean store that saw three shards, then four."""
    ground = Ground(tmp_path_factory.mktemp("second")).copy_of(first).fill_source(MORE)
    ended = ground.run()
    assert ended.success, ended.said + ended.log[-3000:]
    assert ended.computed["centroids"] == 0, "the fit was not kept"
    return ground


@pytest.fixture(scope="session")
def without(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A clean store that saw two shards, then the third."""
    ground = Ground(tmp_path_factory.mktemp("without")).fill_source((SHARDS[0], SHARDS[2]))
    assert ground.run().success
    assert ground.fill_source().run().success
    return ground


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Three shards, and an empty store."""
    return Ground(tmp_path / "ground").fill_source()


@pytest.fixture
def grown(tmp_path: Path, first: Ground) -> Ground:
    """A store that saw three shards, and a source that has four."""
    return Ground(tmp_path / "grown").copy_of(first).fill_source(MORE)

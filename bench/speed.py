"""Every speed the project promises, measured in one run: ``python -m bench.speed``, `make bench`.

The parts run one after another, each in a process of its own, and each prints its ratios last. Then
all ratios are printed, kept in ``docs/performance.json``, and written with the plots into
``docs/performance.md``. ``BENCH_PARTS=select,cluster`` runs some of the parts and leaves the
figures of the others as they are; ``BENCH_QUICK=1`` takes minutes and writes no document.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import harness
from bench.performance import PARTS, grids, write

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "performance.json"
PAGE = ROOT / "docs" / "performance.md"

# What makes a part smaller that does not look at BENCH_QUICK itself.
SMALLER: dict[str, list[str]] = {"encode": ["--share=0.05", "--repeats=3"]}
ENVIRONMENT = {"BENCH_REPEATS": "1"}

Results = dict[str, dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, print all ratios; return 1 when a ratio falls short or a part fails."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=__doc__)
    parser.add_argument("--parts", default=os.environ.get("BENCH_PARTS", ""))
    parser.add_argument("--show", action="store_true", help="run nothing; write the page anew")
    parser.add_argument(
        "--collect", action="store_true", help="run nothing; take what the parts left in data/bench"
    )
    asked = parser.parse_args(arguments)
    names = chosen(asked.parts)
    failed = {} if asked.show or asked.collect else run(names)
    results = _read(KEPT) if asked.show or not harness.quick() else {}
    if not asked.show:
        results |= collect([name for name in names if failed.get(name, 0) in (0, 1)])
    if not harness.quick() and not asked.show:
        KEPT.write_text(json.dumps(results, indent=1, default=float) + "\n")
    if not harness.quick():
        write(results, PAGE)
    return report(results, names, failed)


def chosen(names: str) -> list[str]:
    """Return the parts that are asked for: all, or some by name.

    Raises
    ------
    SystemExit
        If there is no such part.
    """
    found = [name.strip() for name in names.split(",") if name.strip()] or list(PARTS)
    for name in found:
        if name not in PARTS:
            raise SystemExit(f"no part is called {name!r}; known: {', '.join(PARTS)}")
    return found


def run(names: Sequence[str]) -> dict[str, int]:
    """Run parts one after another; return their exit status, 127 where there is no such module."""
    status = {}
    for name in names:
        print(f"\n=== {name}: {PARTS[name]}", flush=True)
        if find_spec(f"bench.{name}") is None:
            print(f"bench/{name}.py is not there")
            status[name] = 127
            continue
        harness.results_of(name).unlink(missing_ok=True)  # an old figure is not this run's
        smaller = SMALLER.get(name, []) if harness.quick() else []
        environment = os.environ | (ENVIRONMENT if harness.quick() else {})
        command = [sys.executable, "-m", f"bench.{name}", *smaller]
        status[name] = subprocess.run(command, cwd=ROOT, env=environment).returncode
    return status


def collect(names: Sequence[str]) -> Results:
    """Return what parts have kept."""
    found = {}
    for name in names:
        path = harness.results_of(name)
        if path.is_file():
            found[name] = json.loads(path.read_text())
    return found


def report(results: Results, names: Sequence[str], failed: Mapping[str, int]) -> int:
    """Print the tables, what did not run, and every ratio last; return the exit status."""
    from rich.console import Console

    console = Console()
    tables = grids({name: results[name] for name in names if name in results})
    for grid in tables.values():
        console.print(grid.rich())
    broken = [name for name in names if name not in results or failed.get(name, 0) not in (0, 1)]
    for name in broken:
        console.print(f"{name}: no figures; the part ended with status {failed.get(name, 'none')}")
    missed = 0
    for name in names:
        for one in results.get(name, {}).get("ratios", []):
            how = "at least" if one["at_least"] else "at most"
            verdict = "met" if one["met"] else "MISSED"
            print(f"{name}: {one['name']}: {one['value']:.3f} ({how} {one['bound']:g}; {verdict})")
            missed += not one["met"]
    return int(missed > 0 or bool(broken))


def _read(path: Path) -> Results:
    found: Results = json.loads(path.read_text()) if path.is_file() else {}
    return found


if __name__ == "__main__":
    sys.exit(main())

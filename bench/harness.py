"""How speed is measured: all sides in turn, in one run, on one machine; what counts is the ratio.

A part of the benchmark (``bench.encode``, ``bench.cluster``, ...) measures with :func:`in_turn`,
compares with :class:`Ratio`, and ends with :func:`finish`, which keeps everything as JSON, prints a
table, the ratios last, and returns the exit status: 1 where a ratio falls short.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from curation.threads import count

RESULTS = Path(__file__).resolve().parents[1] / "data" / "bench"
REPEATS = 5
QUICK = "BENCH_QUICK"
PACKAGES = (
    "curation",
    "numpy",
    "faiss-cpu",
    "torch",
    "transformers",
    "tokenizers",
    "polars",
    "dagster",
    "scikit-learn",
    "onnxruntime",
    "sentence-transformers",
    "apricot-select",
    "submodlib-py",
    "scikit-activeml",
    "skmatter",
    "coreax",
    "coresets",
)


@dataclass(frozen=True)
class Ratio:
    """A ratio of two things measured in one run, and what it must reach.

    Attributes
    ----------
    name
        What is compared, in words.
    value
        The ratio of medians.
    bound
        What it must reach.
    at_least
        Whether `bound` is the least (a speed-up) or the most (a share of a peer's time).
    note
        Where it stands: the lowest and highest ratio of single rounds, or why it is missed.
    """

    name: str
    value: float
    bound: float
    at_least: bool
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def three_digits(value: float) -> str:
    """Return a ratio as text; what is just below 1 is not rounded to it."""
    text = f"{value:.3g}"
    return f"{value:.5f}" if text == "1" and value < 1.0 else text


@dataclass
class Timings:
    """Seconds of every side in every round, by name."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Return the median seconds of one side."""
        return statistics.median(self.seconds[name])

    def ratio(self, above: str, below: str) -> float:
        """Return the ratio of two medians."""
        return self.median(above) / self.median(below)

    def spread(self, above: str, below: str) -> str:
        """Return the lowest and the highest ratio of single rounds, as text."""
        pairs = zip(self.seconds[above], self.seconds[below], strict=True)
        each = [a / b for a, b in pairs]
        return f"single rounds {min(each):.3g} to {max(each):.3g}"


def in_turn(
    sides: Mapping[str, Callable[[], Any]], *, repeats: int = REPEATS, warm_up: bool = True
) -> Timings:
    """Time functions in turn, round after round, so that what else the machine does hits all.

    The order is turned round in every second round.
    """
    found = Timings({name: [] for name in sides})
    if warm_up:
        for run in sides.values():
            run()
    for turn in range(repeats):
        names = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in names:
            began = time.perf_counter()
            sides[name]()
            found.seconds[name].append(time.perf_counter() - began)
            print(f"  {name}: {found.seconds[name][-1]:.3f} s", file=sys.stderr, flush=True)
    return found


def product_rate(*, rows: int = 8192, width: int = 384, columns: int = 1024) -> float:
    """Return the float32 matrix product's rate on these cores, in multiply-adds a second.

    The reference operation: what every other figure can be normalised by.
    """
    rng = np.random.default_rng(0)
    left = rng.standard_normal((rows, width), dtype=np.float32)
    right = rng.standard_normal((width, columns), dtype=np.float32)
    out = np.empty((rows, columns), dtype=np.float32)
    timed = in_turn({"matrix product": lambda: np.matmul(left, right, out=out)}, repeats=15)
    return rows * width * columns / timed.median("matrix product")


def machine() -> dict[str, Any]:
    """Return what figures depend on besides the data."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "threads": count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2] for line in text.splitlines() if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def quick() -> bool:
    """Return whether ``BENCH_QUICK`` asks for smaller sizes: minutes, and figures for nobody."""
    return os.environ.get(QUICK, "") not in ("", "0")


def results_of(part: str) -> Path:
    """Return the file that a part's results are kept in; quick ones lie beside the others."""
    return (RESULTS / "quick" if quick() else RESULTS) / f"{part}.json"


def keep(
    part: str,
    ratios: list[Ratio],
    *,
    timings: Mapping[str, Timings] | None = None,
    figures: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
) -> Path:
    """Write the results so far, as :func:`finish` does, and return their file."""
    path = results_of(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "machine": dict(before or machine()),
        "figures": dict(figures or {}),
        "seconds": {name: timed.seconds for name, timed in (timings or {}).items()},
        "ratios": [{**asdict(one), "met": one.met} for one in ratios],
    }
    path.write_text(json.dumps(kept, indent=1, default=float))
    return path


def finish(
    part: str,
    ratios: list[Ratio],
    *,
    timings: Mapping[str, Timings] | None = None,
    figures: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    show_figures: bool = True,
) -> int:
    """Keep the results of a part, print them, the ratios last, and return the exit status.

    Parameters
    ----------
    part
        Its name: the file under ``data/bench``.
    ratios
        What was to be reached.
    timings, figures
        Seconds of all rounds, and whatever else was measured.
    before
        What :func:`machine` returned when the part began.
    show_figures
        Whether the figures are printed as they are, or the part has printed them itself.
    """
    path = keep(part, ratios, timings=timings, figures=figures, before=before)
    for name, timed in (timings or {}).items():
        print(f"\n{name}")
        for side, seconds in timed.seconds.items():
            low, high = min(seconds), max(seconds)
            print(f"  {side:<44} {timed.median(side):9.3f} s  ({low:.3f} to {high:.3f})")
    for name, value in (figures or {}).items() if show_figures else ():
        print(f"  {name}: {value}")
    print(f"\nkept in {path}")
    for one in ratios:
        how = "at least" if one.at_least else "at most"
        verdict = "met" if one.met else "MISSED"
        print(f"{one.name}: {one.value:.3f} ({how} {one.bound:g}; {verdict}) {one.note}".rstrip())
    return 0 if all(one.met for one in ratios) else 1

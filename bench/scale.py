"""Rows chosen from more data than fits into memory: time, peak memory, and what grows with n.

``python -m bench.scale`` makes 15 GB of rows under ``data/bench/scale``, once, and chooses a
hundredth of them in processes of their own. The limit that times are compared with is the file
read once, in blocks, plus ``n k d`` multiply-adds at the rate of a float32 matrix product, both
measured in the same run. It is also read past the system's cache, for a second limit. The system's
cache of a file is emptied before each part that is timed.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import scale_data
from bench.harness import (
    Ratio,
    Timings,
    finish,
    machine,
    product_rate,
    quick,
    results_of,
)
from curation.selection import AUTO_K_MOST

WIDTH = 384
FEW, MANY = (300_000, 3_000_000) if quick() else (1_000_000, 10_000_000)
PAST = ", past the cache"
SHARE = 100  # of so many rows one is chosen
BLOCK = 64 << 20
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "scale-memory.svg"

CHILD = """
import json, os, sys, time
from curation.threads import set_defaults
set_defaults()
import curation
from curation import memory, progress
from bench import scale_data

path, rows, width, options = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
curation.select
before = memory.resident()
plan = curation.memory_needed(rows, width, budget=rows // int(sys.argv[5]))


class Phases:
    def start(self, label, total):
        self.say(label)
        return 0
    def advance(self, task, amount):
        pass
    def finish(self, task):
        self.say("between")
    def say(self, label):
        print(json.dumps({"phase": label, "at": time.time()}), flush=True)


phases = Phases()
phases.say("fit")
began, cpu = time.perf_counter(), time.process_time()
with progress.listen(phases):
    chosen = curation.select(
        path, scale_data.score_of, budget=rows // int(sys.argv[5]), **json.loads(options)
    )
print(json.dumps({
    "seconds": time.perf_counter() - began,
    "processor_seconds": time.process_time() - cpu,
    "before": before,
    "peak": memory.peak(),
    "planned": plan.bytes,
    "plan": str(plan),
    "proxy": chosen.diagnostics["proxy"],
    "k": chosen.diagnostics["k"],
    "queries": chosen.queries,
    "total": float(chosen.weights.sum()),
    "checksum": float((chosen.indices * chosen.weights).sum()),
}), flush=True)
"""


@dataclass
class Run:
    """A selection in a process of its own.

    Attributes
    ----------
    told
        What it said of itself.
    phases
        Label and time of every phase.
    resident
        Time and resident bytes, sampled from outside.
    """

    told: dict[str, Any] = field(default_factory=dict)
    phases: list[tuple[str, float]] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)


def choose(path: Path, rows: int, *, cold: bool, **options: Any) -> Run:
    """Choose rows in a child process and watch its memory."""
    if cold:
        forget(path)
    found = Run()
    command = [sys.executable, "-c", CHILD, str(path), str(rows), str(WIDTH)]
    child = subprocess.Popen(
        [*command, json.dumps(options), str(SHARE)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    watcher = threading.Thread(target=watch, args=(child, found.resident))
    watcher.start()
    for line in child.stdout:
        told = json.loads(line)
        if "phase" in told:
            found.phases.append((told["phase"], told["at"]))
        else:
            found.told = told
    watcher.join()
    if child.wait():
        raise RuntimeError(f"the selection of {rows:,} rows ended with {child.returncode}")
    return found


def watch(child: subprocess.Popen[str], into: list[tuple[float, int]]) -> None:
    """Sample what a process holds until it ends."""
    page = os.sysconf("SC_PAGE_SIZE")
    while child.poll() is None:
        try:
            held = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * page
        except (OSError, IndexError):
            return
        into.append((time.time(), held))
        time.sleep(0.1)


def forget(path: Path) -> None:
    """Empty the system's cache of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path, *, past: bool = False) -> float:
    """Read a file once, in blocks, through the system's cache or past it; return the seconds.

    Raises
    ------
    OSError
        If the file system has no reading past the cache.
    """
    forget(path)
    flags = os.O_RDONLY | (os.O_DIRECT if past else 0)
    # a map begins with a page, as reading past the cache wants
    with mmap.mmap(-1, BLOCK) as room:
        began = time.perf_counter()
        with os.fdopen(os.open(path, flags), "rb", buffering=0) as file:
            while file.readinto(room):
                pass
        return time.perf_counter() - began


def measure(rows: int, repeats: int, options: dict[str, Any], timings: Timings) -> list[Run]:
    """Read and choose in turn; return the selections."""
    path = scale_data.make(rows, WIDTH)
    read_name, choose_name = f"read {rows:,} rows once", f"choose from {rows:,} rows"
    runs = []
    for _ in range(repeats):
        timings.seconds.setdefault(read_name, []).append(read(path))
        with suppress(OSError):
            timings.seconds.setdefault(f"{read_name}{PAST}", []).append(read(path, past=True))
        runs.append(choose(path, rows, cold=True, **options))
        timings.seconds.setdefault(choose_name, []).append(runs[-1].told["seconds"])
        print(f"  {rows:,}: {json.dumps(runs[-1].told)}", file=sys.stderr, flush=True)
    return runs


def draw(run: Run, rows: int, path: Path = PICTURE) -> None:
    """Draw the resident memory of a run over time, with its phases."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "scale"
    began = run.phases[0][1]
    at = np.array([moment - began for moment, _ in run.resident])
    held = np.array([number for _, number in run.resident]) / 2**20
    figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
    axes.plot(at, held, lw=1.2)
    axes.axhline((run.told["before"] + run.told["planned"]) / 2**20, ls="--", lw=1, color="0.4")
    axes.text(at[-1], (run.told["before"] + run.told["planned"]) / 2**20, "told before it began ",
              ha="right", va="bottom", fontsize=8, color="0.3")  # fmt: skip
    names = {"fit": "k-means", "assign rows": "assign", "estimate scores": "measure"}
    for label, moment in run.phases:
        if label in names:
            axes.axvline(moment - began, lw=0.8, color="0.8")
            axes.text(moment - began, 0, " " + names[label], fontsize=8, va="bottom", color="0.3")
    axes.set(
        xlabel="seconds", ylabel="resident memory (MiB)", ylim=(0, None), xlim=(at[0], at[-1]),
        title=f"{rows // SHARE:,} of {rows:,} rows of {WIDTH} coordinates"
        f" ({rows * WIDTH * 4 / 2**30:.1f} GiB on disk)",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def ratios(few: list[Run], many: list[Run], timings: Timings, rate: float) -> list[Ratio]:
    """Return what is to be reached."""
    peak = {n: max(run.told["peak"] for run in runs) for n, runs in ((FEW, few), (MANY, many))}
    held = statistics.median(
        run.told["planned"] / (run.told["peak"] - run.told["before"]) for run in many
    )
    found = [
        Ratio("peak resident memory, GB", peak[MANY] / 1e9, 2.0, at_least=False),
        Ratio(
            "memory told before / memory taken", held, 1.0, at_least=True, note="at most 2 wanted"
        ),
        Ratio("memory of 10 times the rows", peak[MANY] / peak[FEW], 1.2, at_least=False),
        Ratio(
            "time of 10 times the rows",
            timings.ratio(f"choose from {MANY:,} rows", f"choose from {FEW:,} rows"),
            10.5,
            at_least=False,
        ),
    ]
    once = f"read {MANY:,} rows once"
    product = MANY * AUTO_K_MOST * WIDTH / rate
    for name, side, bound in (
        ("time / (read once + assignment at the product's rate)", once, 1.4),
        ("the same, the file read once past the system's cache", once + PAST, np.inf),
    ):
        if side in timings.seconds:
            took = timings.median(f"choose from {MANY:,} rows")
            limit = timings.median(side) + product
            note = f"{took:.1f} s against {limit:.1f} s"
            found.append(Ratio(name, took / limit, bound, at_least=False, note=note))
    return found


def main() -> int:
    """Measure, keep, draw, and print the ratios last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--make", action="store_true", help="only make the rows")
    parser.add_argument("--repeats", type=int, default=1, help="rounds of 10 million rows")
    parser.add_argument("--proxy", default="auto")
    asked = parser.parse_args()
    for rows in (FEW, MANY):
        scale_data.make(rows, WIDTH)
    if asked.make:
        return 0
    before = machine()
    rate = product_rate()
    timings = Timings()
    options = {} if asked.proxy == "auto" else {"proxy": asked.proxy}
    few = measure(FEW, 3 * asked.repeats, options, timings)
    many = measure(MANY, asked.repeats, options, timings)
    if not quick():
        draw(many[-1], MANY)
    keep_memory(many[-1])
    figures = {
        "multiply-adds per second": rate,
        "assignment of all rows at that rate, seconds": MANY * AUTO_K_MOST * WIDTH / rate,
        **{f"{FEW:,} rows, run {i}": run.told for i, run in enumerate(few)},
        **{f"{MANY:,} rows, run {i}": run.told for i, run in enumerate(many)},
        "phases": [[label, moment - many[-1].phases[0][1]] for label, moment in many[-1].phases],
    }
    return finish(
        "scale",
        ratios(few, many, timings, rate),
        timings={"seconds": timings},
        figures=figures,
        before=before,
    )


def keep_memory(run: Run) -> None:
    """Keep the resident memory over time beside the results."""
    began = run.phases[0][1]
    told = [[round(moment - began, 2), held] for moment, held in run.resident]
    path = results_of("scale-memory")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seconds and bytes": told}))


if __name__ == "__main__":
    sys.exit(main())

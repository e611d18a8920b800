"""How far estimated totals are off, against uniform rows and against the published algorithm.

`python -m bench.estimation` measures everything, saves figures after every problem, prints tables
and targets, and writes docs/estimation.md and its plots. `--show` only shows saved figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

from bench.problems import CACHE, load, names
from bench.problems import spaces as recipe_spaces
from curation.threads import POOLS, set_defaults

RESULTS = CACHE / "results.json"
PARTS = ("problems", "stability", "clusters", "cost")
MINUTE = 60.0
QUICK = ("smooth", "noise")
CODE = Path(__file__).parents[1] / "curation"
# Problems on the same points share their k-means; the longest first, so that workers end together.
GROUPS = ("fashion-cnn-mlp", "fashion-1200", "fashion-400", "fashion-cnn-pixels", "reviews")

Results = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the document; return 1 if a part failed."""
    options = _options(arguments)
    from rich.console import Console

    from bench import show

    console = Console()
    results = _read(options.results)
    failed = 0
    if not options.show:
        failed = _measure(options, results, console)
    show.report(results, console)
    if options.document:
        show.write(results, Path(options.document))
    return int(failed > 0)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.estimation", description=__doc__)
    parser.add_argument("--draws", type=int, default=200, help="draws per fit (200)")
    parser.add_argument("--fits", type=int, default=5, help="fits, each with its own seed (5)")
    parser.add_argument("--only", default="", help="problems, separated by commas")
    parser.add_argument("--part", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="two fits of 50 draws, small problems")
    parser.add_argument("--show", action="store_true", help="measure nothing, show what was saved")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"default: {RESULTS}")
    parser.add_argument("--document", default="docs/estimation.md", help="'' writes none")
    options = parser.parse_args(arguments)
    if options.quick:
        options.draws, options.fits = 50, 2
        options.only = options.only or ",".join(QUICK)
        options.document = ""
        if options.results == RESULTS:
            options.results = RESULTS.with_name("results-quick.json")
    unknown = sorted({*options.only.split(",")} - {"", *names()})
    if unknown:
        parser.error(f"no problem is called {unknown[0]!r}; known: {', '.join(names())}")
    return options


def _measure(options: argparse.Namespace, results: Results, console: Any) -> int:
    """Run the parts asked for, saving after each."""
    from bench import parts

    wanted = [name for name in names() if not options.only or name in options.only.split(",")]
    results["machine"] = machine()
    failed = 0
    if "problems" in options.part:
        failed += _problems(wanted, options, results, console)
    for part in PARTS[1:]:
        if part not in options.part or (options.quick and part != "stability"):
            continue
        began = time.perf_counter()
        try:
            results[part] = getattr(parts, part)(wanted, options, lambda line: console.print(line))
        except Exception as error:  # one part must not cost the others
            failed += 1
            console.print(f"[red]{part}: {type(error).__name__}: {error}")
        save(options.results, results)
        console.print(f"{part}: {time.perf_counter() - began:.0f} s")
    return failed


def _problems(
    wanted: list[str], options: argparse.Namespace, results: Results, console: Any
) -> int:
    """Measure problems in worker processes of one thread each."""
    groups = grouped(wanted)
    begun, failed = time.perf_counter(), 0
    with _one_thread(), get_context("spawn").Manager() as manager:
        told = manager.Queue()
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            running = [
                pool.submit(measure_group, group, options.fits, options.draws, told)
                for group in groups
            ]
            with _bar(console, groups, options.fits) as advance:
                while True:
                    over = all(one.done() for one in running)
                    try:
                        name, result = told.get(timeout=0.5)
                    except Empty:
                        if over:
                            break
                        continue
                    if isinstance(result, str):
                        advance(result, 1)
                        continue
                    results.setdefault("problems", {})[name] = result
                    save(options.results, results)
                    minutes = (time.perf_counter() - begun) / 60
                    console.print(f"{minutes:5.1f} min  {name}: {summary(result)}", highlight=False)
            for group, one in zip(groups, running, strict=True):
                if one.exception() is not None:
                    failed += 1
                    console.print(f"[red]{', '.join(group)}: {one.exception()!r}")
    return failed


def grouped(wanted: list[str]) -> list[list[str]]:
    """Return problems with the same points together."""
    groups: dict[str, list[str]] = {head: [] for head in GROUPS}
    for name in wanted:
        plain = name.replace("-cnn10-", "-cnn-")
        head = next((head for head in GROUPS if plain.startswith(head)), name)
        groups.setdefault(head, []).append(name)
    return [group for group in groups.values() if group]


def steps_of(groups: list[list[str]], fits: int) -> int:
    """Return about how many fits there are to make, those of single proxies included."""
    spaces = [len(recipe_spaces(name)) for group in groups for name in group]
    return fits * sum(number + min(number, 2) for number in spaces)


def measure_group(group: list[str], fits: int, draws: int, told: Any) -> None:
    """Measure problems one after another and tell what was found."""
    set_defaults()
    from bench.measures import Effort, measure, remembered

    with remembered():
        for name in group:
            problem = load(name)

            def note(line: str, name: str = name) -> None:
                told.put((name, line))

            began = time.perf_counter()
            result = measure(problem, Effort(fits, draws), note)
            told.put((name, result | {"seconds": time.perf_counter() - began}))


def summary(result: Results) -> str:
    """Return the ratios to uniform at each budget in the best space."""
    best: dict[int, Any] = {}
    for cell in result["cells"]:
        ratio = cell["estimators"]["ht"]["ratio"]
        if cell["s"] not in best or ratio < best[cell["s"]]["estimators"]["ht"]["ratio"]:
            best[cell["s"]] = cell
    told = [
        f"s {s}: {cell['estimators']['ht']['ratio']:.3f} ({cell['space']}, iid "
        f"{cell['estimators']['iid']['ratio']:.3f}, cover "
        f"{cell['estimators']['ht']['coverage']:.3f})"
        for s, cell in best.items()
    ]
    return f"{'; '.join(told)}; {result['seconds']:.0f} s"


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the data."""
    files = sorted(CODE.joinpath(part) for part in ("clustering", "sampling", "selection"))
    digest = sha256(b"".join(f.read_bytes() for d in files for f in sorted(d.glob("*.py"))))
    packages = ("numpy", "scipy", "faiss-cpu", "torch", "curation")
    return {
        "python": platform.python_version(),
        "processors": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "code": digest.hexdigest()[:12],
        "date": time.strftime("%Y-%m-%d"),
        **{name: version(name) for name in packages},
    }


def save(path: Path, results: Results) -> None:
    """Write the figures; what is not a number becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(_plain(results), indent=1))
    unfinished.replace(path)


def _read(path: Path) -> Results:
    found: Results = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


@contextmanager
def _one_thread() -> Iterator[None]:
    """Give each worker one thread: they share the processors among themselves."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(("CURATION_THREADS", *POOLS), "1"))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _bar(console: Any, groups: list[list[str]], fits: int) -> Iterator[Callable[[str, int], None]]:
    """Show what is being measured: a bar on a terminal, else a line a minute."""
    if not console.is_terminal:
        shown = [time.monotonic()]

        def say(line: str, steps: int) -> None:
            if time.monotonic() - shown[0] >= MINUTE:
                shown[0] = time.monotonic()
                console.print(line, highlight=False)

        yield say
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        task = bars.add_task("measure", total=steps_of(groups, fits))

        def advance(line: str, steps: int) -> None:
            bars.update(task, description=line, advance=steps)

        yield advance


if __name__ == "__main__":
    sys.exit(main())

"""Tables of the benchmark, on a terminal and in docs/estimation.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.targets import (
    COVERED,
    against_best_baseline,
    best,
    cells_of,
    coverages,
    targets,
)

Results = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A table: `rows` of texts under `head`; the first `left` columns are words."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left: int = 1

    def markdown(self) -> str:
        """Return the table as markdown."""
        rule = ["---" if i < self.left else "---:" for i in range(len(self.head))]
        lines = [self.head, tuple(rule), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def rich(self) -> Any:
        """Return the table for a terminal."""
        from rich.table import Table

        table = Table(title=self.title, title_justify="left")
        for i, name in enumerate(self.head):
            table.add_column(name, justify="left" if i < self.left else "right")
        for row in self.rows:
            table.add_row(*(text.replace("**", "").replace("`", "") for text in row))
        return table


def grids(results: Results) -> dict[str, Grid]:
    """Return every table that there are figures for, by the name it has in the document."""
    made = {name: make(results) for name, make in GRIDS.items()}
    return {name: grid for name, grid in made.items() if grid.rows}


def report(results: Results, console: Any) -> None:
    """Print all tables, the targets last."""
    for grid in grids(results).values():
        console.print(grid.rich())
        console.print()


def write(results: Results, path: Path) -> None:
    """Fill the document's tables and draw its plots next to it, in ``images``."""
    from bench import plots

    text = fill(path.read_text(), grids(results))
    plots.draw_all(results, path.parent / "images")
    path.write_text(text)


def fill(text: str, tables: dict[str, Grid]) -> str:
    """Replace what stands between ``<!-- table: name -->`` and ``<!-- end -->``.

    Raises
    ------
    ValueError
        If the text has no place for a table.
    """
    for name, grid in tables.items():
        mark = f"<!-- table: {name} -->"
        if mark not in text:
            raise ValueError(f"the document has no place for table {name!r}: {mark}")
        between = re.compile(re.escape(mark) + r".*?<!-- end -->", flags=re.DOTALL)
        filled = f"{mark}\n\n{grid.markdown()}\n\n<!-- end -->"
        text = between.sub(filled.replace("\\", r"\\"), text, count=1)
    return text


def _targets(results: Results) -> Grid:
    rows = [
        (one.name, one.figure, one.verdict if one.met is not False else f"**{one.verdict}**")
        for one in targets(results)
    ]
    return Grid("Targets", ("target", "measured", ""), rows, left=3)


def _ratios(results: Results) -> Grid:
    """Error as a share of uniform rows': every problem, space and budget."""
    rows = []
    for name, cell in cells_of(results.get("problems", {})):
        found = cell["estimators"]
        rows.append(
            (
                f"`{name}`",
                cell["space"],
                f"{cell['s']:,}",
                f"{100 * cell['uniform']:.2f}%",
                f"**{found['ht']['ratio']:.3f}** ± {found['ht']['se']:.3f}",
                _number(found["difference"].get("ratio")),
                _calibrated(found["calibrated"]),
                _number(found["systematic"].get("ratio")),
                _number(found["iid"].get("ratio")),
                _number(found["iid_pure"].get("ratio")),
                _number(found["iid_equal"].get("ratio")),
                _number(found["stratified_uniform"].get("ratio")),
                f"{cell['equal_evaluations']['ours']:.3f}",
            )
        )
    head: tuple[str, ...] = (
        "problem",
        "space",
        "s",
        "uniform error",
        "ours",
        "difference",
        "calibrated",
    )
    head += ("systematic", "iid", "iid, no mix", "iid, equal eval.", "strat. uniform")
    return Grid("Error / uniform's", (*head, "ours, equal eval."), rows, left=2)


def _calibrated(found: Results) -> str:
    draws, failed = found["draws"], found["failed"]
    if not draws:
        return f"none of {failed}"
    return f"{found['ratio']:.3f}" + (f" ({failed} of {draws + failed} failed)" if failed else "")


def _fits(results: Results) -> Grid:
    """What the fits were like."""
    rows = []
    for name, cell in cells_of(results.get("problems", {})):
        taken = cell["proxies"]
        rows.append(
            (
                f"`{name}`",
                cell["space"],
                f"{cell['s']:,}",
                f"{cell['k']:.0f}",
                f"{cell['queries']:,}",
                ", ".join(f"{one} {taken.count(one)}" for one in dict.fromkeys(taken)),
                _number(cell["r2"], 2),
                _number(cell["mix"], 2),
                f"{cell['estimators']['ht']['bias']:+.1f}",
                f"{against_best_baseline(cell):.2f}",
            )
        )
    head = ("problem", "space", "s", "k", "queries", "proxies taken", "R²", "mix", "bias (SE)")
    return Grid("Fits", (*head, "against best baseline"), rows, left=2)


def _proxies(results: Results) -> Grid:
    rows = []
    for name, problem in results.get("problems", {}).items():
        for one in problem["proxies"]:
            taken = one["taken"]
            singles = [one[single]["ratio"] for single in ("cluster", "low_rank", "regression")]
            rows.append(
                (
                    f"`{name}`",
                    one["space"],
                    f"**{one['auto']['ratio']:.3f}** ± {one['auto']['se']:.3f}",
                    *(f"{value:.3f}" for value in singles),
                    f"{one['auto']['ratio'] / min(singles):.2f}",
                    ", ".join(f"{x} {taken.count(x)}" for x in dict.fromkeys(taken)),
                )
            )
    head = ("problem", "space", "auto", "cluster", "low_rank", "regression", "auto / best")
    return Grid("Single proxies", (*head, "auto took"), rows, left=2)


def _coverage(results: Results) -> Grid:
    """Coverage of nominal 95% intervals; cells far outside 93% to 98% in bold."""
    problems = results.get("problems", {})
    by_cell: dict[tuple[str, str, int], dict[str, str]] = {}
    for estimator in ("ht", "difference", "systematic", "iid", "uniform"):
        for name, space, s, share, error in coverages(problems, estimator):
            out = share < 0.93 - 2 * error or share > 0.98 + 2 * error
            told = f"{100 * share:.1f} ± {100 * error:.1f}"
            spaces = problems[name]["cells"] if estimator == "uniform" else [{"space": space}]
            for where in {cell["space"] for cell in spaces}:
                by_cell.setdefault((name, where, s), {})[estimator] = f"**{told}**" if out else told
    rows = []
    for name, cell in cells_of(problems):
        found = by_cell[name, cell["space"], cell["s"]]
        below = cell["estimators"]["ht"]["below"]
        rows.append(
            (
                f"`{name}`",
                cell["space"],
                f"{cell['s']:,}",
                *(found.get(estimator, "-") for estimator in ("ht", "difference")),
                *(found.get(estimator, "-") for estimator in COVERED[1:]),
                f"{100 * below:.1f}",
            )
        )
    head = ("problem", "space", "s", "ours", "difference", "systematic", "iid", "uniform")
    return Grid("Coverage, %", (*head, "ours too low"), rows, left=2)


def _certificates(results: Results) -> Grid:
    rows = [
        (
            f"`{name}`",
            cell["space"],
            f"{cell['s']:,}",
            f"{100 * cell['radius']:.1f}%",
            f"{100 * 1.96 * cell['estimators']['ht']['rmse']:.2f}%",
            f"{100 * cell['held']:.1f}%",
            f"{100 * (1 - cell['delta']):.0f}%",
            _number(cell["violated"], 3),
            _number(cell["truly_violated"], 3),
        )
        for name, cell in cells_of(results.get("problems", {}))
        if (whole := best(results["problems"][name], cell["s"])) is not None and whole is cell
    ]
    head = ("problem", "best space", "s", "radius", "1.96 RMSE", "held", "promised")
    return Grid("Certificates", (*head, "violated, estimated", "violated, true"), rows, left=2)


def _stability(results: Results) -> Grid:
    rows = [
        (
            f"`{row['problem']}`",
            row["space"],
            f"{row['s']:,}",
            f"{row['given']}, fit {row['fit']}",
            f"{row['stay']:.1%}",
            f"{row['possible']:.1%}",
            str(row["left"]),
            str(row["left_unfallen"]),
        )
        for row in results.get("stability", [])
        if "same" not in row
    ]
    head = ("problem", "space", "s", "how", "stay", "possible", "left", "left unfallen")
    return Grid("A twentieth shard arrives", head, rows, left=2)


def _clusters(results: Results) -> Grid:
    rows = []
    for row in results.get("clusters", []):
        totals = {int(total): one for total, one in row["equal_evaluations"].items()}
        rows.append(
            (
                f"`{row['problem']}`",
                row["space"],
                str(row["k"]),
                str(row["queries"]),
                f"{row['equal_rows']['ratio']:.3f} ± {row['equal_rows']['se']:.3f}",
                *(_number(totals.get(total, {}).get("ratio")) for total in (500, 1600, 5000)),
            )
        )
    head: tuple[str, ...] = ("problem", "space", "k", "queries", "1,000 rows")
    head += ("500 evaluations", "1,600 evaluations", "5,000 evaluations")
    return Grid("Number of clusters", head, rows, left=2)


def _cost(results: Results) -> Grid:
    rows = [
        (str(r["threads"]), f"{r['assign']:.1f} s", f"{r['draw']:.2f} s", f"{r['ratio']:.1%}")
        for r in results.get("cost", [])
    ]
    return Grid("Cost", ("threads", "assignment", "draw and the rest", "ratio"), rows, left=1)


def _machine(results: Results) -> Grid:
    rows = [(key, f"{value}") for key, value in results.get("machine", {}).items()]
    return Grid("Machine", ("", ""), rows, left=2)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


GRIDS: dict[str, Callable[[Results], Grid]] = {
    "machine": _machine,
    "ratios": _ratios,
    "fits": _fits,
    "proxies": _proxies,
    "coverage": _coverage,
    "certificates": _certificates,
    "stability": _stability,
    "clusters": _clusters,
    "cost": _cost,
    "targets": _targets,
}

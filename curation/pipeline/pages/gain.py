"""Whether the subset trains a better model than as many uniform rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from curation.pipeline.pages.made import Made, heading, interval, signed, spoken
from curation.pipeline.pages.top import judged
from curation.pipeline.protected import GAIN
from curation.pipeline.tables import read_json
from curation.reporting.charts import Mean, means
from curation.reporting.page import Figure, Section, Table

RESULTS = "results.json"
KINDS = {"probe": "Probe on embeddings", "fine_tune": "Fine-tuned encoder"}
LOOKS = {"subset": "blue", "uniform": "orange"}
WORST = 20  # classes or groups that are listed; results.json has more
DRAWN = 2  # metrics that are drawn; the others are in the tables
SEEDS = (
    "Mean over seeds and its 95% interval; a single run has no interval. A seed draws pilot, "
    "clustering and subset anew; with a transformer pilot or a score column only the draw."
)


def gain(made: Made) -> Section:
    """Return the comparison with uniform sampling."""
    figures = made.evaluation.figures
    title = "Does it train a better model?"
    if "skipped" in figures:
        return Section(title, f"This was not measured: {figures['skipped']}.")
    runs = read_json(made.evaluation.path(RESULTS))
    kinds = [kind for kind in KINDS if figures.get(kind)]
    return Section(
        title=title,
        lead=_lead(figures),
        figures=[_figure(kind, figures, runs.get(kind, {})) for kind in kinds],
        tables=[
            *(_result_table(kind, figures) for kind in kinds),
            *protected_half(figures.get("holdout")),
        ],
    )


def by_part(made: Made) -> Section:
    """Return how the models do in each class and group: long tables, for the end of the page."""
    figures = made.evaluation.figures
    tables = [*parts(figures, "per_class", "class"), *parts(figures, "per_group", "group")]
    return Section("Class by class", tables=tables)


def _lead(figures: dict[str, Any]) -> str:
    told = {"better": "the subset wins", "worse": "uniform rows win",
            "no difference": "no difference can be told",
            "one seed": "one seed, which tells nothing"}  # fmt: skip
    parts = [
        f"{spoken(metric)} {interval(gain, sign=True)}: {told[judged(metric, gain)]}"
        for metric, gain in figures["gain"].items()
    ]
    lead = f"Against as many uniform rows, the probe's {'; '.join(parts)}."
    table = figures.get("fine_tune") or {}
    if not table:
        return lead
    metric = next(iter(table["subset"]))
    ours, theirs = (table[name][metric] for name in ("subset", "uniform"))
    runs = "one run each, so no interval" if ours["n"] < 2 else f"{ours['n']} seeds"
    return (
        f"{lead} The fine-tuned encoder's {spoken(metric)}: {interval(ours)} on the subset, "
        f"{interval(theirs)} on uniform rows ({runs})."
    )


def _figure(kind: str, figures: dict[str, Any], runs: dict[str, Any]) -> Figure:
    table = figures[kind]
    metrics = list(next(iter(table.values())))[:DRAWN]
    panels = {
        spoken(metric): [
            Mean(
                name=name,
                mean=values[metric]["mean"],
                low=values[metric]["low"],
                high=values[metric]["high"],
                told=interval(values[metric]),
                look=LOOKS.get(name, "grey"),
                runs=runs.get(name, {}).get(metric, ()) if values[metric]["n"] > 1 else (),
            )
            for name, values in table.items()
        ]
        for metric in metrics
    }
    seeds = max(values[metrics[0]]["n"] for values in table.values())
    caption = (
        "A pale dot is a seed; the large one their mean, with its 95% interval."
        if seeds > 1
        else "One run each: a difference as small as that between two seeds means nothing."
    )
    return Figure(KINDS[kind], caption, means(panels, f"{KINDS[kind]}: {', '.join(panels)}"))


def _result_table(kind: str, figures: dict[str, Any]) -> Table:
    table: dict[str, Any] = figures[kind]
    metrics = list(next(iter(table.values())))
    rows = [[name, *(interval(values[m]) for m in metrics)] for name, values in table.items()]
    if kind == "probe":
        gains = figures["gain"]
        rows.append(["subset − uniform", *(interval(gains[m], sign=True) for m in metrics)])
    return Table(
        title=f"{KINDS[kind]}, {_measured_on(figures)}",
        caption=SEEDS,
        headers=["trained on", *(spoken(m) for m in metrics)],
        rows=rows,
    )


def _measured_on(figures: dict[str, Any]) -> str:
    """Say which rows figures are of: the holdout, or its open half."""
    halves = figures.get("holdout") or {}
    if not halves.get("protected"):
        return f"holdout of {figures['holdout_rows']:,} rows"
    return f"the open {halves['open_rows']:,} of {figures['holdout_rows']:,} holdout rows"


def parts(figures: dict[str, Any], key: str, noun: str) -> Iterator[Table]:
    """Yield a table for each kind of model: how it does in each class or group, worst first."""
    for kind, found in (figures.get(key) or {}).items():
        if not found.get("lines"):
            continue
        yield Table(
            title=f"{KINDS.get(kind, kind)}: {spoken(found['metric'])} by {noun}, the worst first",
            caption=_part_caption(found, noun),
            headers=[noun, "holdout rows", "subset", "uniform", "difference"],
            rows=[
                [
                    line["name"],
                    f"{line['rows']:,}",
                    interval(line["subset"]),
                    interval(line["uniform"]),
                    interval(line["difference"], sign=True),
                ]
                for line in found["lines"][:WORST]
            ],
        )


def _part_caption(found: dict[str, Any], noun: str) -> str:
    told = "Intervals are over seeds, on the same rows: of few rows another few would differ more."
    left = found.get("others") or {"count": 0, "rows": 0}
    rest = found["lines"][WORST:]
    count = left["count"] + len(rest)
    if count:
        rows = left["rows"] + sum(line["rows"] for line in rest)
        told += f" {count:,} more with {rows:,} rows are not shown."
    worst = found.get("worst")
    if worst:
        subset, uniform = worst["subset"], worst["uniform"]
        told += (
            f" Of the {worst['parts']:,} with at least {worst['least_rows']} rows the worst {noun} "
            f"reaches {interval(subset)} with the subset ({subset['name']}) and "
            f"{interval(uniform)} with uniform rows ({uniform['name']})."
        )
    return told


def protected_half(found: dict[str, Any] | None) -> list[Table]:
    """Return what the protected half of the holdout answered."""
    if not found:
        return []
    title = "What the protected half of the holdout says"
    if not found.get("protected"):
        rows = [["not protected", f"{found.get('why', '')}"]]
        return [Table(title, "", ["", ""], rows)]
    caption = (
        f"{found['protected_rows']:,} rows that answer only whether figures of the other "
        f"{found['open_rows']:,} hold. {found['questions']:,} questions were asked so far; "
        f"{found['events_left']} of {found['overfitting_events']} disagreements may still be told."
    )
    rows = [_answer(one) for one in found["answers"]]
    told = " ".join(f"{heading(note)}." for note in found.get("notes", ()))
    return [
        Table(
            title,
            f"{caption} {told}".strip(),
            ["model", "figure", "open half", "protected half", ""],
            rows,
        )
    ]


def _answer(one: dict[str, Any]) -> list[str]:
    """Return a line on one figure; of a gain with its sign."""
    show = signed if one["strategy"] == GAIN else lambda x: f"{x:.3f}"
    value = one["value"]
    return [
        f"{KINDS.get(one['kind'], one['kind'])}, {one['strategy']}",
        spoken(one["metric"]),
        show(one["open"]),
        "silent" if value is None else f"{show(value)} ± {one['tolerance']:.2f}",
        "does not hold" if one["overfitted"] else "holds",
    ]

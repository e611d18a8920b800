"""What changed since the subset before, and what each stage cost."""

from __future__ import annotations

from typing import Any

from curation.pipeline.dataset import EVALUATION_MODEL, SELECTED_SUBSET
from curation.pipeline.pages.made import Made, Stage, interval, spoken
from curation.reporting.charts import Bar, bars
from curation.reporting.page import Figure, Section, Table
from curation.reporting.text import duration
from curation.store import Manifest, StoreError

HEADERS = ("stage", "artifacts", "time", "peak memory", "score evaluations", "computed (UTC)")


def newest(spent: list[Stage]) -> str:
    """Return the day of the last of them."""
    return max(stage.computed for stage in spent)[:10]


def cost(made: Made) -> Section:
    """Return time, memory and score evaluations of each stage."""
    spent = made.stages
    total = sum(stage.seconds for stage in spent)
    rows = [
        [
            stage.asset,
            f"{stage.artifacts:,}",
            duration(stage.seconds),
            f"{stage.peak_mib:,.0f} MiB" if stage.peak_mib else "not measured",
            "" if stage.evaluations is None else f"{stage.evaluations:,}",
            stage.computed,
        ]
        for stage in spent
    ]
    truth = (
        " Those of selected_subset check the estimate and, where a model answers in a moment, ask "
        "every row for the truth: none of them is needed to choose."
    )
    chart = bars(
        [Bar(s.asset.replace("_", " "), s.seconds, duration(s.seconds)) for s in spent],
        "Seconds by stage",
    )
    return Section(
        title="Time and cost",
        lead=f"All stages took {duration(total)} when they were last computed. Where nothing "
        "changed nothing is computed again.",
        figures=[Figure("Time by stage", "Shards added up.", chart)],
        tables=[
            Table(
                title="What each stage took",
                caption="Memory is the most the process held, libraries included; of shards the "
                "largest." + truth,
                headers=HEADERS,
                rows=rows,
            )
        ],
    )


def changes(made: Made) -> Section:
    """Return what changed since the subset that was published before."""
    found = made.chosen["changes"]
    title = "What changed"
    if found["against"] is None:
        return Section(title, "This is the first subset that was published: there is none before.")
    shown = [
        Bar("stayed", found["kept"], f"{found['kept']:,}"),
        Bar("came", found["added"], f"{found['added']:,}", "orange"),
        Bar("left", found["removed"], f"{found['removed']:,}", "grey"),
    ]
    why = "the clusters were fitted anew" if found["refit"] else ""
    lead = (
        f"Held against version {found['against']}: {found['kept']:,} rows stayed, "
        f"{found['added']:,} came and {found['removed']:,} left" + (f"; {why}." if why else ".")
    )
    return Section(
        title=title,
        lead=lead,
        figures=[Figure("Rows of the subset", "", bars(shown, lead))],
        tables=[*_reasons(found), *_figures_before(made)],
    )


def _reasons(found: dict[str, Any]) -> list[Table]:
    rows = [["stayed", f"{found['kept']:,}", "drawn again"]]
    for what, name in (("added", "came"), ("removed", "left")):
        for why, count in sorted(found[f"{what}_because"].items(), key=lambda one: -one[1]):
            rows.append([name, f"{count:,}", why])
    for what in ("new", "changed", "gone"):
        if found[f"shards_{what}"]:
            rows.append([f"shards {what}", "", ", ".join(found[f"shards_{what}"])])
    if found["refit"]:
        rows.append(["clusters", "", "fitted anew"])
    return [
        Table(
            title="Since the subset published before",
            caption=f"Version {found['against']}; `curation history` has them all.",
            headers=["", "rows", "why"],
            rows=rows,
        )
    ]


def _figures_before(made: Made) -> list[Table]:
    """Return figures of the subset before beside those of this one, if it is still there."""
    dataset, version = made.dataset, made.chosen["changes"]["against"]
    try:
        before = dataset.store.open(dataset.at(SELECTED_SUBSET), version)
    except StoreError:
        return []  # retention removed it, or it is damaged
    rows = [
        [name, then, now]
        for (name, then), (_, now) in zip(
            _key_figures(before.figures), _key_figures(made.chosen), strict=True
        )
    ]
    had = _evaluation_of(made, before.content_hash)
    if had is not None and "gain" in had.figures and "gain" in made.evaluation.figures:
        for metric, gain in made.evaluation.figures["gain"].items():
            if metric in had.figures["gain"]:
                rows.append(
                    [
                        f"{spoken(metric)} against uniform",
                        interval(had.figures["gain"][metric], sign=True),
                        interval(gain, sign=True),
                    ]
                )
    return [
        Table(
            title="Figures before and now",
            caption="",
            headers=["", "before", "now"],
            rows=rows,
        )
    ]


def _key_figures(figures: dict[str, Any]) -> list[tuple[str, str]]:
    estimate, certificate = figures["estimate"], figures["certificate"]
    half = "" if estimate["low"] is None else f" ± {estimate['value'] - estimate['low']:,.0f}"
    return [
        ("rows up for selection", f"{figures['rows']:,}"),
        ("rows chosen", f"{figures['distinct_rows']:,}"),
        ("score evaluations", f"{figures['queries']:,}"),
        ("effective sample size", f"{figures['effective_sample_size']:,.0f}"),
        ("estimated total", f"{estimate['value']:,.0f}{half}"),
        ("certified error, at most", f"{certificate['radius']:,.0f}"),
        ("what the pilot says", str(figures["verdict"])),
    ]


def _evaluation_of(made: Made, subset: str) -> Manifest | None:
    """Return the last evaluation of a subset, given its content hash."""
    dataset = made.dataset
    for manifest in reversed(dataset.store.versions(dataset.at(EVALUATION_MODEL))):
        if manifest.recipe.get("upstream", {}).get(SELECTED_SUBSET) == subset:
            return manifest
    return None

"""The report: one page that says what was chosen, how, and whether it helped."""

from __future__ import annotations

from typing import Any

import polars as pl

from curation.pipeline.dataset import (
    ASSETS,
    CENTROIDS,
    EVALUATION_MODEL,
    PER_SHARD,
    REPORT,
    SELECTED_SUBSET,
    Dataset,
    Outcome,
)
from curation.pipeline.findings import set_aside
from curation.pipeline.people import Population
from curation.pipeline.population import population
from curation.pipeline.tables import SUBSET
from curation.pipeline.views import TITLES, views_of
from curation.reporting.page import Figure, ReportData, Table, render
from curation.store import Artifact, Draft, digest

PAGE = "report.html"
EXAMPLES = 12


def make_report(dataset: Dataset) -> Outcome:
    """Write the report from the published artifacts."""
    centroids = dataset.store.need(dataset.at(CENTROIDS))
    subset = dataset.store.need(dataset.at(SELECTED_SUBSET))
    evaluation = dataset.store.need(dataset.at(EVALUATION_MODEL))
    evaluation.require(
        upstream={SELECTED_SUBSET: subset.content_hash}, remedy="materialize evaluation_model again"
    )

    people = population(dataset)

    def fill(draft: Draft) -> None:
        page = render(_data(people, centroids, subset, evaluation))
        (draft.folder / PAGE).write_text(page, encoding="utf-8")
        draft.row_count = subset.manifest.row_count

    return dataset.produce(
        REPORT,
        None,
        config_hash="",
        upstream={
            CENTROIDS: centroids.content_hash,
            SELECTED_SUBSET: subset.content_hash,
            EVALUATION_MODEL: evaluation.content_hash,
            "shards": digest([dict(people.missing), dict(people.stale)]),
        },
        fill=fill,
    )


def headline(subset: Artifact, evaluation: Artifact) -> list[tuple[str, str, str]]:
    """Return the numbers a reader wants first: label, value, note."""
    chosen = subset.figures
    estimate = chosen["estimate"]
    tiles = [
        (
            "Rows chosen",
            f"{chosen['distinct_rows']:,}",
            f"of {chosen['rows']:,} ({chosen['distinct_rows'] / chosen['rows']:.1%})",
        ),
        (
            "Score evaluations",
            f"{chosen['queries']:,}",
            f"medoids and further rows asked; {chosen['pilot_rows']:,} rows trained the pilot",
        ),
        (
            "Estimated total score",
            f"{estimate['value']:,.0f}" + _half_width(estimate),
            "nominal 95% interval"
            if estimate["truth"] is None
            else f"nominal 95% interval; true total {estimate['truth']:,.0f}",
        ),
    ]
    figures = evaluation.figures
    if "skipped" in figures:
        return [*tiles, ("Evaluation", "skipped", figures["skipped"])]
    for metric, gain in list(figures["gain"].items())[:2]:  # the others are in the tables
        ours = figures["probe"]["subset"][metric]["mean"]
        theirs = figures["probe"]["uniform"][metric]["mean"]
        tiles.append(
            (
                metric.replace("_", " ").capitalize(),
                f"{ours:.3f}",
                f"uniform {theirs:.3f}; difference {gain['mean']:+.3f} "
                f"[{gain['low']:+.3f}, {gain['high']:+.3f}], {gain['n']} seeds",
            )
        )
    return tiles


def _half_width(estimate: dict[str, Any]) -> str:
    if estimate["low"] is None:
        return " (interval unknown: fewer than two random draws)"
    return f" ± {estimate['value'] - estimate['low']:,.0f}"


def _data(
    people: Population, centroids: Artifact, subset: Artifact, evaluation: Artifact
) -> ReportData:
    dataset, chosen = people.dataset, subset.figures
    figures = [
        Figure(title=TITLES.get(name, name), caption="", png=png)
        for artifact in (evaluation, subset, centroids)
        for name, png in views_of(artifact).items()
    ]
    return ReportData(
        dataset=dataset.name,
        headline=headline(subset, evaluation),
        figures=figures,
        tables=[
            *_shard_tables(people),
            *_change_tables(subset),
            *_result_tables(evaluation),
            _draw_table(subset),
            _stage_table(people),
        ],
        examples=_examples(dataset, subset),
        notes=_notes(people, subset),
        generated=evaluation.manifest.created,
        summary=f"{chosen['distinct_rows']:,} of {chosen['rows']:,} rows, chosen by asking the "
        f"pilot model for {chosen['queries']:,} scores, with weights that let them stand for all.",
    )


def _shard_tables(people: Population) -> list[Table]:
    """Return a table of the shards that are not as they should be, if there are any."""
    rows = [[shard, "not represented", why] for shard, why in people.missing.items()]
    rows += [[shard, "its last good rows are used", why] for shard, why in people.stale.items()]
    if not rows:
        return []
    return [
        Table(
            title="Shards that need attention",
            caption="All others were read and embedded.",
            headers=["shard", "what it means", "reason"],
            rows=rows,
        )
    ]


def _change_tables(subset: Artifact) -> list[Table]:
    """Return what changed since the subset that was published before."""
    changes = subset.figures["changes"]
    if changes["against"] is None:
        return []
    rows = [["kept", f"{changes['kept']:,}", "drawn again"]]
    for what in ("added", "removed"):
        for why, count in sorted(changes[f"{what}_because"].items(), key=lambda one: -one[1]):
            rows.append([what, f"{count:,}", why])
    for what in ("new", "changed", "gone"):
        if changes[f"shards_{what}"]:
            rows.append([f"shards {what}", "", ", ".join(changes[f"shards_{what}"])])
    if changes["refit"]:
        rows.append(["clusters", "", "fitted anew"])
    return [
        Table(
            title="Since the subset published before",
            caption=f"Compared with version {changes['against']}; `curation history` has them all.",
            headers=["", "rows", "why"],
            rows=rows,
        )
    ]


def _result_tables(evaluation: Artifact) -> list[Table]:
    figures = evaluation.figures
    tables = []
    for kind, title in (("probe", "Probe on embeddings"), ("fine_tune", "Fine-tuned encoder")):
        table: dict[str, Any] = figures.get(kind, {})
        if not table:
            continue
        metrics = list(next(iter(table.values())))
        rows = [[name, *(_cell(values[m]) for m in metrics)] for name, values in table.items()]
        tables.append(
            Table(
                title=f"{title}, holdout of {figures['holdout_rows']:,} rows",
                caption="Mean over seeds and its 95% interval; a single run has no interval. "
                "A seed draws pilot, clustering and subset anew; with a transformer pilot or a "
                "score column only the draw.",
                headers=["trained on", *(m.replace("_", " ") for m in metrics)],
                rows=rows,
            )
        )
    return tables


def _cell(value: dict[str, float]) -> str:
    if value["n"] < 2:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _draw_table(subset: Artifact) -> Table:
    chosen = subset.figures
    certificate = chosen["certificate"]
    rounds = f", in {chosen['rounds']} rounds" if chosen["rounds"] > 1 else ""
    rows = [
        ["Drawn by", f"{chosen['law'].replace('_', ' ')}, design {chosen['design']}{rounds}"],
        ["Proxy of the scores not asked for", chosen["proxy"].replace("_", " ")],
        ["What the pilot rows say of it", chosen["verdict"]],
        ["Pilot rows (uniform)", f"{chosen['pilot_rows']:,}"],
        ["Take-all rows", f"{chosen['take_all_rows']:,}"],
        ["Largest weight", f"{chosen['largest_weight']:,.2f}"],
        ["Effective sample size", f"{chosen['effective_sample_size']:,.0f} rows"],
        [
            "Certificate before evaluation",
            f"error at most {certificate['radius']:,.0f} with probability "
            f"{1 - certificate['delta']:.0%} (epsilon {certificate['epsilon']:.3f}), "
            f"of it {certificate['excess']:,.0f} for rows above their sensitivity q; distance adds "
            f"{certificate['additive']:,.0f} to the bound",
        ],
        ["Conditional on", certificate["conditional_on"]],
        ["Rows above q, before the draw", _share(certificate["violated_share"])],
        ["Drawn rows above q", f"{chosen['estimate']['violated_share']:.1%}"],
        ["Score evaluations to check it", f"{chosen['estimate']['evaluations']:,}"],
    ]
    return Table(
        title="The draw",
        caption="In units of the pilot model's score.",
        headers=["", ""],
        rows=rows,
    )


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"


def _stage_table(people: Population) -> Table:
    dataset = people.dataset
    rows: list[list[Any]] = []
    for asset in ASSETS[: ASSETS.index(REPORT)]:  # not itself: its last version may be damaged
        shards: tuple[str | None, ...] = people.shards if asset in PER_SHARD else (None,)
        found = [dataset.store.current(dataset.at(asset, shard)) for shard in shards]
        made = [a.manifest for a in found if a is not None]
        if made:
            seconds = sum(m.seconds for m in made)
            rows.append(
                [asset, f"{len(made):,}", f"{seconds:,.1f} s", max(m.created for m in made)]
            )
    return Table(
        title="Time each stage took when it was last computed",
        caption="",
        headers=["stage", "artifacts", "seconds", "computed"],
        rows=rows,
    )


def _examples(dataset: Dataset, subset: Artifact) -> list[dict[str, str]]:
    """Pick rows to read: the largest and the smallest weights of what was drawn."""
    columns = dataset.columns
    frame = pl.read_parquet(subset.path(SUBSET)).sort("weight", descending=True)
    half = EXAMPLES // 2
    shown = pl.concat([frame.head(half), frame.tail(min(half, max(len(frame) - half, 0)))])
    text = columns.input if frame[columns.input].dtype == pl.String else None
    return [
        {
            "id": row["id"],
            "text": row[text] if text else "",
            "label": str(row[columns.label]) if columns.label else "",
            "cluster": str(row["cluster"]),
            "weight": f"{row['weight']:.2f}",
            "reason": row["reason"],
        }
        for row in shown.iter_rows(named=True)
    ]


def _notes(people: Population, subset: Artifact) -> list[str]:
    notes = [
        "Weights are Horvitz-Thompson weights given the pilot: weighted totals over the subset are "
        "unbiased for totals over all training rows. Pilot rows stand for themselves.",
        "The certificate holds for independent draws; draws that stratify are usually more "
        "precise, and their intervals come from differences within strata or along the order.",
    ]
    if people.missing:
        names = ", ".join(people.missing)
        notes.append(f"Shards that are not there and so not represented: {names}.")
    if people.stale:
        names = ", ".join(people.stale)
        notes.append(f"Shards that changed and can't be read; their last good rows stay: {names}.")
    aside, _ = set_aside(people)
    if aside:
        notes.append(
            f"{aside:,} rows were set aside when the shards were read; `curation quarantine "
            f"{people.dataset.name}` lists them with row number, field and reason."
        )
    if subset.figures["repeats"]:
        notes.append(
            f"{subset.figures['repeats']:,} rows were left out because an earlier shard or the "
            "holdout holds the same id."
        )
    return notes

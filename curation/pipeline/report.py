"""The report: one page that says what was chosen, how, and whether it helped."""

from __future__ import annotations

from curation.pipeline.dataset import (
    CENTROIDS,
    EVALUATION_MODEL,
    REPORT,
    SELECTED_SUBSET,
    Dataset,
    Outcome,
)
from curation.pipeline.findings import set_aside
from curation.pipeline.pages.cost import changes, cost
from curation.pipeline.pages.cover import cover
from curation.pipeline.pages.gain import by_part, gain
from curation.pipeline.pages.made import Made, heading
from curation.pipeline.pages.rows import examples
from curation.pipeline.pages.top import tiles, verdict
from curation.pipeline.pages.trust import trust
from curation.pipeline.people import Population
from curation.pipeline.population import population
from curation.reporting.page import ReportData, Section, Table, render
from curation.store import Draft, digest

PAGE = "report.html"
METHOD = (
    "Weights are Horvitz-Thompson weights given the pilot: weighted totals over the subset are "
    "unbiased for totals over all training rows. Pilot rows stand for themselves.",
    "The certificate holds for independent draws; draws that stratify are usually more precise, "
    "and their intervals come from differences within strata or along the order.",
    "What the method promises is a smaller error of weighted totals. Whether a model trained on "
    "the rows is better depends on data and model, and uniform rows are a strong baseline: that is "
    "why both are measured.",
)


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
        page = render(report_data(Made(people, centroids, subset, evaluation)))
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


def report_data(made: Made) -> ReportData:
    """Return everything the page shows."""
    sentence, tone = verdict(made)
    return ReportData(
        dataset=made.dataset.name,
        headline=tiles(made),
        summary=sentence,
        tone=tone,
        notes=_notes(made),
        sections=[
            _attention(made.people),
            gain(made),
            cover(made),
            trust(made),
            changes(made),
            cost(made),
            by_part(made),
        ],
        examples=examples(made),
        method=METHOD,
        generated=f"{made.evaluation.manifest.created}, subset version "
        f"{made.subset.manifest.version}",
    )


def _attention(people: Population) -> Section:
    """Return the shards that are not as they should be, if there are any."""
    rows = [[shard, "not represented", why] for shard, why in people.missing.items()]
    rows += [[shard, "its last good rows are used", why] for shard, why in people.stale.items()]
    table = Table(
        title="Shards that need attention",
        caption="All others were read and embedded.",
        headers=["shard", "what it means", "reason"],
        rows=rows,
    )
    return Section("Shards", tables=[table] if rows else [])


def _notes(made: Made) -> list[str]:
    """Return what is wrong with the data, or with what was measured on it."""
    people, notes = made.people, []
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
    told = made.evaluation.figures.get("holdout") or {}
    notes += [f"{heading(note)}." for note in told.get("notes", ())]
    if made.chosen["repeats"]:
        notes.append(
            f"{made.chosen['repeats']:,} rows were left out because an earlier shard or the "
            "holdout holds the same id."
        )
    return notes

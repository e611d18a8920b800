"""Whether the subset trains a better model than uniform rows of the same number."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.encoders import locate_weights
from curation.models import fit_pilot, fit_text_classifier
from curation.pipeline.chosen import Chosen
from curation.pipeline.dataset import (
    CENTROIDS,
    CODE_VERSIONS,
    EVALUATION_MODEL,
    PILOT_MODEL,
    SELECTED_SUBSET,
    Dataset,
    Outcome,
)
from curation.pipeline.findings import Finding
from curation.pipeline.measured import Measured, Measurements, Ruler
from curation.pipeline.people import MIB, ROWS_AT_A_TIME, Population
from curation.pipeline.pilot import (
    fit_score_model,
    inputs_of,
    load_score_model,
    pilot_in,
    pilot_rows,
)
from curation.pipeline.population import population
from curation.pipeline.protected import consult, not_asked, told_now
from curation.pipeline.recipes import columns_and_holdout
from curation.pipeline.score import Centroids, cluster, rows_of
from curation.pipeline.strata import current_strata
from curation.pipeline.subset import draw_subset, load_scored
from curation.pipeline.summaries import part_tables, summaries, values_of
from curation.pipeline.tables import SUBSET, write_json
from curation.pipeline.views import evaluation_view
from curation.progress import say, track
from curation.selection import Fitted, PerRow
from curation.store import Artifact, Draft, Recipe, StoreError, digest

RESULTS = "results.json"
MODEL = "model"
ALL_ROWS_BLOCKS = 8


@dataclass(frozen=True)
class Setting:
    """What every strategy is evaluated with."""

    people: Population
    held: Population
    fitted: Fitted
    scored: PerRow

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.people.dataset

    @property
    def task(self) -> Any:
        """``classification`` or ``regression``."""
        return "classification" if self.dataset.columns.label else "regression"

    @cached_property
    def ruler(self) -> Ruler:
        """What models are measured with."""
        return Ruler.of(self.held, self.people.classes)


def make_evaluation_model(dataset: Dataset) -> tuple[Outcome, list[Finding]]:
    """Train on the subset and on uniform rows, and measure both on the holdout.

    Its figures, but for those in ``holdout``, are of the holdout's open half, or of all its rows
    where it is not split (:mod:`curation.pipeline.halves`): ``task``, ``seeds``, ``holdout_rows``
    (those of both halves); ``probe`` and ``fine_tune`` by strategy and metric, ``gain`` by metric
    (:func:`~curation.pipeline.summaries.summaries`); ``per_class`` and ``per_group``
    (:func:`~curation.pipeline.summaries.part_table`). ``holdout`` is what the protected half
    answers (:func:`~curation.pipeline.protected.consult`).
    """
    people = population(dataset)
    subset = dataset.store.need(dataset.at(SELECTED_SUBSET))
    centroids = dataset.store.need(dataset.at(CENTROIDS))
    subset.require(
        upstream={"population": people.content_hash, CENTROIDS: centroids.content_hash},
        remedy="materialize selected_subset again",
    )
    held = _holdout(dataset)
    recipe = _recipe(people, subset)

    def fill(draft: Draft) -> None:
        if held is None or people.labels is None:
            draft.figures["skipped"] = _why_skipped(dataset, held)
            write_json(draft.folder / RESULTS, {})
            return
        centroids = Centroids.load(dataset)
        scored, _ = load_scored(people, centroids)
        setting = Setting(people, held, centroids.fitted_for(people), scored)
        frame = pl.read_parquet(subset.path(SUBSET))
        chosen = people.find(frame["id"])
        _evaluate(draft, setting, chosen, frame["training_weight"].to_numpy(), recipe.fingerprint)

    outcome = dataset.produce(
        EVALUATION_MODEL,
        None,
        config_hash=recipe.config_hash,
        upstream=recipe.upstream,
        fill=fill,
        seed=recipe.seed,
    )
    findings = _findings(dataset, outcome, people, held)
    figures = outcome.artifact.figures
    if "skipped" in figures:
        return outcome, [*findings, *not_asked(f"not evaluated: {figures['skipped']}")]
    told, more = told_now(dataset, figures["holdout"])
    return replace(outcome, told=told), [*findings, *more]


def _recipe(people: Population, subset: Artifact) -> Recipe:
    """Return what an evaluation depends on. How many events there are changes no figure."""
    config = people.dataset.config
    settings = [
        config.evaluation.model_dump(exclude={"protected": {"overfitting_events"}}),
        config.selection.model_dump(),
        config.score.model_dump(),
        config.encoder.max_length,
        config.columns.group,
        columns_and_holdout(config),
    ]
    upstream = {SELECTED_SUBSET: subset.content_hash, "population": people.content_hash}
    return Recipe(
        CODE_VERSIONS[EVALUATION_MODEL], digest(settings), upstream, config.selection.seed
    )


def _evaluate(
    draft: Draft,
    setting: Setting,
    chosen: NDArray[np.int64],
    weights: NDArray[np.float64],
    fingerprint: str,
) -> None:
    """Fill a draft with the evaluation of the published subset, rows and training weights."""
    began = time.monotonic()
    measured = {"probe": probe_results(setting)}
    probe_seconds = time.monotonic() - began
    measured["fine_tune"] = fine_tune_results(draft, setting, chosen, weights)
    results = {kind: values_of(table) for kind, table in measured.items()}
    parts = part_tables(measured, setting.ruler)
    answers = consult(setting.dataset, setting.ruler.halves, measured, recipe=fingerprint)
    for note in answers["notes"]:
        say(note)
    kept = {
        name: answers[name]
        for name in ("open_rows", "protected_rows", "why", "answers")
        if name in answers
    }
    write_json(draft.folder / RESULTS, {**results, **parts, "holdout": kept})
    draft.row_count = len(setting.held)
    draft.figures.update(
        {
            "holdout_rows": len(setting.held),
            "task": setting.task,
            "seeds": setting.dataset.config.evaluation.probe_seeds,
            **summaries(results),
            **parts,
            "holdout": answers,
            "probe_seconds": round(probe_seconds, 1),
            "fine_tune_seconds": round(time.monotonic() - began - probe_seconds, 1),
        }
    )
    evaluation_view(draft, results, setting.task)


def in_both(people: Population, held: Population) -> int:
    """Return how many rows of one population have the id of a row of the other."""
    line, found = np.sort(held.tags), 0
    for start in range(0, len(people), ROWS_AT_A_TIME):
        block = people.tags[start : start + ROWS_AT_A_TIME]
        place = np.minimum(np.searchsorted(line, block), len(line) - 1)
        alike = start + np.flatnonzero(line[place] == block)
        found += int((held.find(people.ids_of(alike)) >= 0).sum())
    return found


def _holdout(dataset: Dataset) -> Population | None:
    try:
        return population(dataset, split="holdout")
    except StoreError:
        return None


def _why_skipped(dataset: Dataset, held: Population | None) -> str:
    if held is None:
        return "the holdout has no rows; look at `holdout` in defs.yaml"
    return "there is neither `columns.label` nor `columns.target` to predict"


def probe_results(setting: Setting) -> Measurements:
    """Compare strategies with the cheap probe, every seed from the start.

    A seed draws its own pilot, trains its own pilot model, clusters anew, queries the medoids and
    draws its own subset, so the spread over seeds holds everything that is random in the method.
    The first seed is that of the published subset. Of uniform sampling a seed draws as many rows.
    It also decides the first weights and the order of the rows of both strategies' models, which
    differ in their rows alone; neither matters to a linear probe, whose optimum is one point.
    """
    people, wanted = setting.people, setting.dataset.config.evaluation
    results: Measurements = {"subset": [], "uniform": []}
    first = setting.dataset.config.selection.seed
    with track("compare with uniform", wanted.probe_seeds) as advance:
        for seed in range(first, first + wanted.probe_seeds):
            chosen = choose_again(setting, seed=seed)
            rng = np.random.default_rng([seed, 2])
            uniform = np.sort(rng.choice(len(people), chosen.size, replace=False))
            for name, rows, weights in (
                ("subset", chosen.rows, chosen.training_weight),
                ("uniform", uniform, None),
            ):
                x = people.embeddings(rows)
                results[name].append(_probe(setting, x, rows, weights, seed))
            advance(1)
    if wanted.all_rows and _fits(setting):
        rows = np.arange(len(people))  # the one thing that takes all embeddings at once
        results["all rows"] = [_probe(setting, people.embeddings(rows), rows, None, first)]
    return results


def _fits(setting: Setting) -> bool:
    """Whether the embeddings of all rows are few enough to be held: eight blocks of them."""
    people = setting.people
    width = people.embeddings(np.arange(1)).shape[1]
    room = ALL_ROWS_BLOCKS * setting.dataset.config.clusters.block_mib
    fits = len(people) * width * 4 <= room * MIB
    if not fits:
        say(f"the probe is not trained on all rows: their embeddings take more than {room:,} MiB")
    return fits


def choose_again(setting: Setting, *, seed: int) -> Chosen:
    """Choose a subset as the pipeline would with another seed.

    The data set's own seed gives the published subset, whose pilot and clusters may be older. A
    pilot that is a transformer, or a score column, is too dear or has nothing to redraw: then
    pilot, clustering and proxies are those of the published subset, and only the draw is new.
    """
    people, config = setting.people, setting.dataset.config
    own = seed == config.selection.seed
    if own or config.score.model not in ("probe", "mlp"):
        model = load_score_model(people.dataset.store.need(people.dataset.at(PILOT_MODEL)))
        borders = current_strata(people.dataset) if own else None
        return draw_subset(
            people,
            setting.fitted,
            setting.scored,
            pilot_in(people),
            model,
            seed=seed,
            borders=borders,
        )
    pilot = pilot_rows(people, seed=seed)
    model = fit_score_model(people, pilot, seed=seed)
    found = cluster(people, model, seed=seed)
    return draw_subset(people, found.fitted, rows_of(found), pilot, model, seed=seed)


def _probe(
    setting: Setting,
    x: NDArray[np.float32],
    rows: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    seed: int,
) -> Measured:
    """Train the probe and measure it on the holdout, which is read block by block."""
    people, wanted = setting.people, setting.dataset.config.evaluation
    assert people.labels is not None  # noqa: S101
    model = fit_pilot(
        "mlp" if wanted.probe == "mlp" else "probe",
        x,
        people.labels[rows],
        task=setting.task,
        sample_weight=weights,
        classes=people.classes or None,
        epochs=wanted.probe_epochs,
        seed=seed,
    )
    return setting.ruler.measure(model, block_mib=setting.dataset.config.clusters.block_mib)


def fine_tune_results(
    draft: Draft,
    setting: Setting,
    chosen: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> Measurements:
    """Train the evaluation model on the published subset and keep it.

    Text: the real encoder with a classification head, on the subset and on uniform rows. Otherwise
    the small network (or ridge), on the subset alone: the probe comparison is the same model.
    A seed decides the draw, the head's first weights, dropout, and the order of the batches; both
    strategies share it.
    """
    config = setting.dataset.config
    wanted = config.evaluation.fine_tune
    text = config.encoder.type == "text" and setting.task == "classification"
    folder = draft.folder / MODEL
    folder.mkdir()
    people = setting.people
    assert people.labels is not None  # noqa: S101
    if not (text and wanted.enabled):
        model = fit_pilot(
            "mlp" if config.evaluation.probe == "mlp" else "probe",
            people.embeddings(chosen),
            people.labels[chosen],
            task=setting.task,
            sample_weight=weights,
            classes=people.classes or None,
            epochs=config.evaluation.probe_epochs,
            seed=config.selection.seed,
        )
        model.save(folder)
        return {}
    results: Measurements = {"subset": [], "uniform": []}
    held_text = inputs_of(setting.held, np.arange(len(setting.held)))
    for number in range(wanted.seeds):
        seed = config.selection.seed + number
        if number > 0:  # the first is the published subset; like uniform, others are drawn anew
            again = choose_again(setting, seed=seed)
            chosen, weights = again.rows, again.training_weight
        rng = np.random.default_rng([seed, 2])
        uniform = np.sort(rng.choice(len(people), len(chosen), replace=False))
        for name, rows, row_weights in (("subset", chosen, weights), ("uniform", uniform, None)):
            tuned = _fine_tune(setting, rows, row_weights, seed, name)
            if name == "subset" and number == 0:
                tuned.save(folder)
            results[name].append(setting.ruler.measure_predictions(tuned.predict(held_text)))
    return results


def _fine_tune(
    setting: Setting,
    rows: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    seed: int,
    name: str,
) -> Any:
    config = setting.dataset.config
    wanted = config.evaluation.fine_tune
    columns = setting.dataset.columns
    table = setting.people.rows(rows, [columns.input, str(columns.label)])
    return fit_text_classifier(
        table[columns.input].to_list(),
        table[str(columns.label)].to_list(),
        weights=weights,
        classes=setting.people.classes,
        weights_folder=locate_weights(config.encoder.model),
        max_length=config.encoder.max_length,
        epochs=wanted.epochs,
        learning_rate=wanted.learning_rate,
        batch_size=wanted.batch_size,
        seed=seed,
        label=f"fine-tune on {name}, seed {seed}",
    )


def _findings(
    dataset: Dataset, outcome: Outcome, people: Population, held: Population | None
) -> list[Finding]:
    figures = outcome.artifact.figures
    present = "skipped" not in figures
    shared = 0
    if held is not None:
        subset = dataset.store.need(dataset.at(SELECTED_SUBSET))
        trained_on = pl.read_parquet(subset.path(SUBSET), columns=["id"])["id"]
        shared = int((held.find(trained_on) >= 0).sum()) + in_both(people, held)
    return [
        Finding(
            "evaluation_present",
            present,
            f"{figures['seeds']} seeds on {figures['holdout']['open_rows']:,} of "
            f"{figures['holdout_rows']:,} holdout rows"
            if present
            else f"not evaluated: {figures['skipped']}",
        ),
        Finding(
            "holdout_disjoint", shared == 0, f"{shared} holdout rows are among the training rows"
        ),
    ]

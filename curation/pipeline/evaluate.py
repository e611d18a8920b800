"""Whether the subset trains a better model than uniform rows of the same number."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.encoders import locate_weights
from curation.models import evaluate, fit_pilot, fit_text_classifier
from curation.pipeline.chosen import Chosen
from curation.pipeline.codes import Codes
from curation.pipeline.dataset import (
    CENTROIDS,
    EVALUATION_MODEL,
    PILOT_MODEL,
    SELECTED_SUBSET,
    Dataset,
    Outcome,
)
from curation.pipeline.findings import Finding
from curation.pipeline.people import MIB, ROWS_AT_A_TIME, Population
from curation.pipeline.pilot import (
    fit_score_model,
    inputs_of,
    load_score_model,
    pilot_in,
    pilot_rows,
)
from curation.pipeline.population import population
from curation.pipeline.recipes import columns_and_holdout
from curation.pipeline.score import Centroids, cluster, rows_of
from curation.pipeline.strata import current_strata
from curation.pipeline.subset import draw_subset, load_scored
from curation.pipeline.tables import SUBSET, write_json
from curation.pipeline.views import evaluation_view
from curation.progress import say, track
from curation.reporting.text import t_interval
from curation.selection import Fitted, PerRow
from curation.store import Draft, StoreError, digest

RESULTS = "results.json"
MODEL = "model"
ALL_ROWS_BLOCKS = 8

Results = dict[str, dict[str, list[float]]]


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


def make_evaluation_model(dataset: Dataset) -> tuple[Outcome, list[Finding]]:
    """Train on the subset and on uniform rows, and measure both on the holdout."""
    config = dataset.config
    people = population(dataset)
    subset = dataset.store.need(dataset.at(SELECTED_SUBSET))
    centroids = dataset.store.need(dataset.at(CENTROIDS))
    subset.require(
        upstream={"population": people.content_hash, CENTROIDS: centroids.content_hash},
        remedy="materialize selected_subset again",
    )
    held = _holdout(dataset)

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
        weights = frame["training_weight"].to_numpy()
        began = time.monotonic()
        results = {"probe": probe_results(setting)}
        probe_seconds = time.monotonic() - began
        results["fine_tune"] = fine_tune_results(draft, setting, chosen, weights)
        write_json(draft.folder / RESULTS, results)
        draft.row_count = len(held)
        draft.figures.update(_summaries(results, setting))
        draft.figures["probe_seconds"] = round(probe_seconds, 1)
        draft.figures["fine_tune_seconds"] = round(time.monotonic() - began - probe_seconds, 1)
        evaluation_view(draft, results, setting.task)

    outcome = dataset.produce(
        EVALUATION_MODEL,
        None,
        config_hash=digest(
            [
                config.evaluation.model_dump(),
                config.selection.model_dump(),
                config.score.model_dump(),
                config.encoder.max_length,
                columns_and_holdout(config),
            ]
        ),
        upstream={
            SELECTED_SUBSET: subset.content_hash,
            "population": people.content_hash,
        },
        fill=fill,
        seed=config.selection.seed,
    )
    return outcome, _findings(dataset, outcome, people, held)


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


def probe_results(setting: Setting) -> Results:
    """Compare strategies with the cheap probe, every seed from the start.

    A seed draws its own pilot, trains its own pilot model, clusters anew, queries the medoids and
    draws its own subset, so the spread over seeds holds everything that is random in the method.
    The first seed is that of the published subset. Of uniform sampling a seed draws as many rows.
    """
    people, wanted = setting.people, setting.dataset.config.evaluation
    results: Results = {"subset": {}, "uniform": {}}
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
                metrics = _probe(setting, x, rows, weights, seed)
                _append(results[name], metrics)
            advance(1)
    if wanted.all_rows and _fits(setting):
        rows = np.arange(len(people))  # the one thing that takes all embeddings at once
        results["all rows"] = {}
        metrics = _probe(setting, people.embeddings(rows), rows, None, first)
        _append(results["all rows"], metrics)
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
) -> dict[str, float]:
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
    return _measured(setting, model)


def _measured(setting: Setting, model: Any) -> dict[str, float]:
    """Return how well a model predicts the holdout."""
    held, known = setting.held, setting.held.labels
    blocks = held.blocks(setting.dataset.config.clusters.block_mib)
    if not isinstance(known, Codes):
        guess = np.concatenate([model.predict(x) for _, x in blocks])
        return evaluate(np.asarray(known), guess, task=setting.task)
    # classes by their place among all: a text for each row would take many times as much
    every = np.union1d(known.names, np.array(setting.people.classes, dtype=np.str_))
    guessed = np.empty(len(held), dtype=np.int32)
    for rows, x in blocks:
        guessed[rows] = np.searchsorted(every, model.predict(x))
    truth = np.searchsorted(every, known.names).astype(np.int32)[known.codes]
    return evaluate(truth, guessed, task=setting.task)


def _append(into: dict[str, list[float]], metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        into.setdefault(name, []).append(float(value))


def fine_tune_results(
    draft: Draft,
    setting: Setting,
    chosen: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> Results:
    """Train the evaluation model on the published subset and keep it.

    Text: the real encoder with a classification head, on the subset and on uniform rows. Otherwise
    the small network (or ridge), on the subset alone: the probe comparison is the same model.
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
    results: Results = {"subset": {}, "uniform": {}}
    assert setting.held.labels is not None  # noqa: S101
    held_text = inputs_of(setting.held, np.arange(len(setting.held)))
    held_labels = setting.held.labels[np.arange(len(setting.held))]
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
            _append(
                results[name],
                evaluate(held_labels, tuned.predict(held_text), task=setting.task),
            )
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


def _summaries(results: dict[str, Results], setting: Setting) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "holdout_rows": len(setting.held),
        "task": setting.task,
        "seeds": setting.dataset.config.evaluation.probe_seeds,
    }
    for kind, table in results.items():
        figures[kind] = {
            name: {metric: _interval(values) for metric, values in metrics.items()}
            for name, metrics in table.items()
        }
    figures["gain"] = {
        metric: _interval(
            [a - b for a, b in zip(values, results["probe"]["uniform"][metric], strict=True)]
        )
        for metric, values in results["probe"]["subset"].items()
    }
    return figures


def _interval(values: list[float]) -> dict[str, float]:
    """Return mean and 95% t-interval over seeds (of a single value: the value alone)."""
    mean, low, high = t_interval(values) if len(values) > 1 else (values[0],) * 3
    return {"mean": float(mean), "low": float(low), "high": float(high), "n": len(values)}


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
            f"{figures['seeds']} seeds on {figures['holdout_rows']:,} holdout rows"
            if present
            else f"not evaluated: {figures['skipped']}",
        ),
        Finding(
            "holdout_disjoint", shared == 0, f"{shared} holdout rows are among the training rows"
        ),
    ]

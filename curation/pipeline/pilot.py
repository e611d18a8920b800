"""The pilot: a model trained on a uniform share of the budget, whose score is asked for."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.encoders import locate_weights
from curation.models import fit_pilot, fit_text_classifier, load_pilot, load_text_classifier
from curation.pipeline.dataset import PILOT_MODEL, Dataset, Outcome
from curation.pipeline.people import Population
from curation.pipeline.population import population
from curation.pipeline.recipes import pilot_recipe
from curation.pipeline.tables import write_parquet
from curation.sampling import sample_size
from curation.selection import resolve_budget
from curation.sources import stored_name
from curation.store import Artifact, Draft, StoreError

PILOT_ROWS = "pilot.parquet"
PILOT = "pilot"


def budget_of(dataset: Dataset, rows: int) -> int:
    """Return the number of rows to select of `rows`, the pilot's included."""
    wanted, score = dataset.config.selection, dataset.config.score
    if wanted.epsilon is not None and score.model != "column":
        # epsilon is promised for the rows that are drawn: the pilot's come on top
        drawn = sample_size(wanted.epsilon, wanted.delta)
        return resolve_budget(rows, budget=math.ceil(drawn / (1.0 - score.pilot_share)))
    return resolve_budget(
        rows,
        budget=wanted.budget,
        fraction=wanted.fraction,
        epsilon=wanted.epsilon,
        delta=wanted.delta,
    )


def pilot_size(dataset: Dataset, rows: int) -> int:
    """Return how many of the budget's rows are drawn uniformly to train the pilot."""
    if dataset.config.score.model == "column":
        return 0
    budget = budget_of(dataset, rows)
    if budget < 2:
        raise ValueError(
            f"data set {dataset.name}: a budget of one row leaves none to draw beside the pilot; "
            "raise selection.budget, or take the scores from a column (score.model: column)"
        )
    share = dataset.config.score.pilot_share
    return min(max(1, math.floor(share * budget + 0.5)), budget - 1)


def pilot_rows(people: Population, *, seed: int) -> NDArray[np.int64]:
    """Return the pilot: a uniform sample that barely changes when shards arrive."""
    m = pilot_size(people.dataset, len(people))
    numbers = people.numbers(seed).of("pilot model")
    return np.sort(np.argsort(numbers, kind="stable")[:m])


def make_pilot_model(dataset: Dataset) -> Outcome:
    """Train the model whose score is asked for, on a uniform share of the budget.

    One that was trained before is kept while the fit it belongs to serves (see
    :mod:`curation.pipeline.refit`).
    """
    from curation.pipeline.refit import decide_pilot

    began = time.monotonic()
    config = dataset.config
    people = population(dataset)
    decision = decide_pilot(dataset, people)
    if not decision.refit:
        kept = dataset.store.need(dataset.at(PILOT_MODEL))
        return Outcome(kept, True, time.monotonic() - began, decision.told)
    seed = config.selection.seed

    def fill(draft: Draft) -> None:
        chosen = pilot_rows(people, seed=seed)
        shards = np.asarray(people.shards)[people.shard_of(chosen)]
        frame = pl.DataFrame({"id": people.ids_of(chosen), "shard": shards})
        write_parquet(draft, PILOT_ROWS, frame)
        draft.row_count = len(chosen)
        draft.figures.update(model=config.score.model, rows=len(chosen), population=len(people))
        draft.figures.update(decision.told)
        if config.score.model != "column":
            folder = draft.folder / PILOT
            folder.mkdir()
            fit_score_model(people, chosen, seed=seed).save(folder)

    recipe = pilot_recipe(people)
    recipe["upstream"] |= {"population": people.content_hash}
    return dataset.produce(PILOT_MODEL, None, **recipe, fill=fill, told=decision.told)


def pilot_in(people: Population) -> NDArray[np.int64]:
    """Return the pilot's rows as indices into the population."""
    dataset = people.dataset
    artifact = dataset.store.need(dataset.at(PILOT_MODEL))
    if artifact.figures["model"] == "column":
        return np.empty(0, dtype=np.int64)
    rows = people.find(pl.read_parquet(artifact.path(PILOT_ROWS))["id"])
    return np.sort(rows[rows >= 0])


def fit_score_model(
    people: Population,
    chosen: NDArray[np.int64],
    *,
    seed: int,
    weights: NDArray[np.float64] | None = None,
) -> Any:
    """Fit the configured score model on chosen rows, weighted where weights are given."""
    config = people.dataset.config
    assert people.labels is not None  # noqa: S101  the configuration was checked
    labels = people.labels[chosen]
    if config.score.model == "transformer":
        return fit_text_classifier(
            inputs_of(people, chosen),
            labels.tolist(),
            weights=weights,
            classes=people.classes,
            weights_folder=locate_weights(config.encoder.model),
            max_length=config.encoder.max_length,
            epochs=config.score.epochs,
            seed=seed,
            label="fine-tune the pilot",
        )
    return fit_pilot(
        "mlp" if config.score.model == "mlp" else "probe",
        people.embeddings(chosen),
        labels,
        task="classification" if people.dataset.columns.label else "regression",
        sample_weight=weights,
        classes=people.classes or None,
        epochs=config.score.epochs,
        seed=seed,
    )


def inputs_of(people: Population, rows: NDArray[np.int64]) -> list[str]:
    """Return the texts of chosen rows, in their order."""
    column = people.dataset.columns.input
    return people.rows(rows, [column])[column].to_list()


def load_score_model(artifact: Artifact) -> Any:
    """Load the model of a pilot artifact (None where the score is a column)."""
    kind = artifact.figures["model"]
    if kind == "column":
        return None
    folder = artifact.folder / PILOT
    return load_text_classifier(folder) if kind == "transformer" else load_pilot(folder)


def query_scores(people: Population, model: Any, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ask for the expensive score of chosen rows: one evaluation each."""
    config = people.dataset.config
    if model is None:
        column = stored_name(str(config.score.column), columns=config.columns)
        found = people.rows(rows, [column])[column]
        values = found.cast(pl.Float64, strict=False).to_numpy()
        wrong = ~(np.isfinite(values) & (values >= 0))
        if wrong.any():
            at = rows[np.flatnonzero(wrong)[:1]]
            shard = people.shards[int(people.shard_of(at)[0])]
            raise StoreError(
                f"data set {people.dataset.name}, shard {shard}: the score column {column!r} of "
                f"id {people.ids_of(at)[0]!r} must be finite and >= 0"
            )
        return values
    assert people.labels is not None  # noqa: S101
    labels = people.labels[rows]
    if config.score.model == "transformer":
        texts = inputs_of(people, rows)
        return np.asarray(model.score(texts, labels, value=config.score.value), dtype=np.float64)
    return np.asarray(
        model.score(people.embeddings(rows), labels, value=config.score.value), dtype=np.float64
    )

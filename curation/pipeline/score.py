"""Centroids and sensitivity scores."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.pipeline.codes import Codes
from curation.pipeline.dataset import (
    CENTROIDS,
    PILOT_MODEL,
    SENSITIVITY_SCORES,
    Dataset,
    Outcome,
)
from curation.pipeline.fitted_on import FittedOn
from curation.pipeline.needs import watched
from curation.pipeline.people import Population
from curation.pipeline.pilot import budget_of, load_score_model, query_scores
from curation.pipeline.population import population, shard_hash, shard_population
from curation.pipeline.recipes import centroids_recipe
from curation.pipeline.rows import PeopleTable
from curation.pipeline.spaces import SpaceMap, space_map, space_settings
from curation.pipeline.tables import (
    SCORES,
    read_arrays,
    read_columns,
    read_json,
    read_vectors,
    write_arrays,
    write_json,
    write_parquet,
    write_vectors,
)
from curation.pipeline.views import centroids_view, scores_view
from curation.selection import (
    Fitted,
    PerRow,
    Settings,
    assign,
    fit,
    fit_sample,
    from_parts,
    measure,
    resolve_k,
    to_parts,
)
from curation.store import Artifact, Draft, StoreError

CENTROIDS_FILE = "centroids.arrow"
LEARNED = "learned.safetensors"
SPACE = "space.json"
FITTED_ON = "fitted_on.json"


@dataclass(frozen=True)
class Clustered:
    """A clustering of the population, and what was learned from the scores asked for.

    Attributes
    ----------
    table
        The population in the space that was clustered.
    fitted
        Clusters, proxy, constants, mixture.
    cluster
        (n,) the cluster of each row.
    """

    table: PeopleTable
    fitted: Fitted
    cluster: NDArray[np.int32]


def cluster(people: Population, model: Any, *, seed: int) -> Clustered:
    """Cluster the population, ask for the score of medoids and pilot rows, and learn from them."""
    config = people.dataset.config
    n = len(people)
    settings = Settings(
        k=resolve_k(config.clusters.k, budget=budget_of(people.dataset, n), rows=n),
        # rounds go by the medoids' scores, which are asked for again
        proxy="cluster" if config.score.rounds > 1 else config.score.proxy,
        constants=config.score.constants,
        mix=config.selection.mix,
        design=config.selection.design,
        draws=budget_of(people.dataset, n),
        seed=seed,
        sample_per_centroid=config.clusters.sample_per_centroid,
        iterations=config.clusters.iterations,
    )
    numbers = people.numbers(seed)
    sample = fit_sample(numbers, settings)
    mapping = space_map(space_settings(people, sample, model, seed=seed), model)
    table = PeopleTable(people, mapping)
    fitted, assigned = fit(table, numbers, lambda rows: query_scores(people, model, rows), settings)
    return Clustered(table, fitted, assigned)


def make_centroids(dataset: Dataset) -> Outcome:
    """Fit centroids (see :func:`fit_or_keep`), with an eye on memory."""
    with watched(dataset, CENTROIDS) as watch:
        outcome = fit_or_keep(dataset)
    return replace(outcome, told={**outcome.told, **watch.told})


def fit_or_keep(dataset: Dataset) -> Outcome:
    """Fit centroids on a sample, find the medoids in one pass, and learn from the scores there.

    Those of before are kept while they serve (see :mod:`curation.pipeline.refit`).
    """
    from curation.pipeline.refit import decide_centroids

    began = time.monotonic()
    people = population(dataset)
    pilot = dataset.store.need(dataset.at(PILOT_MODEL))
    decision = decide_centroids(dataset, people, pilot)
    if not decision.refit:
        kept = dataset.store.need(dataset.at(CENTROIDS))
        return Outcome(kept, True, time.monotonic() - began, decision.told)
    pilot.require(upstream={"encoder": people.encoder}, remedy="materialize pilot_model again")
    recipe = centroids_recipe(people, pilot)
    recipe["upstream"] |= {"population": people.content_hash}

    def fill(draft: Draft) -> None:
        found = cluster(people, load_score_model(pilot), seed=recipe["seed"])
        _write_centroids(draft, people, found)
        clusters = found.fitted.clusters
        centroids_view(draft, clusters.sizes, clusters.medoid_cost)

    return dataset.produce(CENTROIDS, None, **recipe, fill=fill, told=decision.told)


def _write_centroids(draft: Draft, people: Population, found: Clustered) -> None:
    fitted = found.fitted
    summary = fitted.clusters
    k = summary.k
    write_vectors(
        draft.folder / CENTROIDS_FILE,
        {
            "cluster": np.arange(k, dtype=np.int32),
            "medoid_id": people.ids_of(summary.medoid_rows).to_list(),
            "medoid_shard": [people.shards[i] for i in people.shard_of(summary.medoid_rows)],
            "size": summary.sizes,
            "cost": summary.centroid_cost,
            "medoid_cost": summary.medoid_cost,
            "rank": summary.rank,
            "constant": fitted.constants.values,
            "medoid_score": fitted.medoid_scores,
        },
        centroid=summary.centroids,
        medoid=summary.medoids,
    )
    arrays, values = to_parts(fitted)
    write_arrays(draft.folder / LEARNED, arrays)
    mapping = found.table.mapping
    write_json(draft.folder / SPACE, {"space": mapping.settings, "learned": values})
    write_json(draft.folder / FITTED_ON, FittedOn.of(people, found).to_json())
    smooth = fitted.smoothness
    draft.row_count = k
    draft.figures.update(
        k=k,
        rows=len(people),
        queries=fitted.queries,
        repeats=people.repeats,
        missing_shards=list(people.missing),
        stale_shards=list(people.stale),
        shards=len(people.shards),
        cost=float(summary.centroid_cost.sum()),
        medoid_cost=float(summary.medoid_cost.sum()),
        constant=float(np.mean(fitted.constants.values)),
        space=mapping.settings["space"],
        proxy=fitted.proxy.name,
        constants=fitted.constants.mode,
        candidates=values["candidates"],
        smoothness_r2=values["smoothness"]["r2"],
        mix=smooth.mix,
        verdict=smooth.verdict,
    )


def needs_medoids(dataset: Dataset) -> bool:
    """Whether the medoids' own rows are read again."""
    return dataset.config.score.rounds > 1 or dataset.config.selection.law == "regression"


@dataclass(frozen=True)
class Centroids:
    """The centroids as they were stored."""

    artifact: Artifact
    table: pl.DataFrame
    mapping: SpaceMap
    fitted: Fitted
    fitted_on: FittedOn

    @classmethod
    def load(cls, dataset: Dataset) -> Centroids:
        """Read the published centroids and what was learned with them."""
        artifact = dataset.store.need(dataset.at(CENTROIDS))
        stored = read_json(artifact.path(SPACE))
        model = None
        if stored["space"]["space"] == "gradient":
            pilot = dataset.store.need(dataset.at(PILOT_MODEL))
            artifact.require(
                upstream={PILOT_MODEL: pilot.content_hash}, remedy="materialize centroids again"
            )
            model = load_score_model(pilot)
        table = read_columns(
            artifact.path(CENTROIDS_FILE),
            ["cluster", "medoid_id", "medoid_shard", "size", "rank", "constant", "medoid_score"],
        )
        fitted = from_parts(read_arrays(artifact.path(LEARNED)), stored["learned"])
        about = FittedOn.from_json(read_json(artifact.path(FITTED_ON)))
        return cls(artifact, table, space_map(stored["space"], model), fitted, about)

    def medoids_in(self, people: Population) -> NDArray[np.int64]:
        """Return (k,) the medoids' rows as indices into a population; -1 where they are gone."""
        return people.find(self.table["medoid_id"])

    def fitted_for(self, people: Population) -> Fitted:
        """Return what was learned, its medoids as indices into a population.

        Raises
        ------
        StoreError
            If a medoid is gone whose row is read again.
        """
        rows = self.medoids_in(people)
        if (rows < 0).any() and needs_medoids(people.dataset):
            raise StoreError(
                f"data set {people.dataset.name}: {int((rows < 0).sum())} medoids are gone whose "
                "score is asked for; materialize pilot_model and centroids again"
            )
        clusters = replace(self.fitted.clusters, medoid_rows=rows)
        return replace(self.fitted, clusters=clusters)

    @property
    def centroids(self) -> NDArray[np.float32]:
        """(k, d) float32."""
        return read_vectors(self.artifact.path(CENTROIDS_FILE), "centroid")

    @property
    def medoids(self) -> NDArray[np.float32]:
        """(k, d) float32."""
        return read_vectors(self.artifact.path(CENTROIDS_FILE), "medoid")


def make_sensitivity_scores(
    dataset: Dataset, shard: str, centroids: Centroids | None = None
) -> Outcome:
    """Score the training rows of a shard: the proxy plus the constant times the distance.

    Rows that another shard or the holdout repeats are scored as well: whether a row is a repeat
    depends on the other shards, and scores are to stay when these change.
    """
    fit = centroids or Centroids.load(dataset)
    with watched(dataset, SENSITIVITY_SCORES, shard) as watch:
        outcome = _score_shard(dataset, shard, fit)
    return outcome if outcome.unchanged else replace(outcome, told=watch.told)


def _score_shard(dataset: Dataset, shard: str, centroids: Centroids) -> Outcome:
    def fill(draft: Draft) -> None:
        people = shard_population(dataset, shard)
        unknown = set(people.classes) - set(centroids.fitted_on.classes or people.classes)
        # of rows that are left out anyway no score is needed, and the fit never saw their class
        if unknown and unknown & set(population(dataset).classes):
            raise StoreError(
                f"data set {dataset.name}, shard {shard}: class {sorted(unknown)[0]!r} was not "
                "there when the centroids were fitted; materialize pilot_model and centroids again"
            )
        frame = score_rows(_without(people, unknown), centroids)
        write_parquet(draft, SCORES, frame)
        draft.row_count = len(frame)
        draft.figures.update(
            rows=len(frame),
            holdout_rows=raw_rows(dataset, shard) - len(people),
            total_score=float(frame["score"].sum()),
        )
        scores_view(draft, frame["score"].to_numpy(), shard)

    return dataset.produce(
        SENSITIVITY_SCORES,
        shard,
        config_hash="",
        upstream={
            "shard": shard_hash(dataset, shard),
            CENTROIDS: centroids.artifact.content_hash,
        },
        fill=fill,
    )


def _without(people: Population, classes: set[str]) -> Population:
    """Return the rows that are of none of some classes."""
    if not classes or not isinstance(people.labels, Codes):
        return people
    unknown = np.isin(people.labels.names, sorted(classes))
    return people.only(np.flatnonzero(~unknown[people.labels.codes]))


def raw_rows(dataset: Dataset, shard: str) -> int:
    """Return the number of accepted rows of a shard."""
    return dataset.store.need(dataset.at("raw", shard)).manifest.row_count


def rows_of(found: Clustered) -> PerRow:
    """Return distance and proxy of every row of a clustering."""
    return measure(found.fitted, found.table, found.cluster)


def score_rows(people: Population, centroids: Centroids) -> pl.DataFrame:
    """Assign and score rows, in blocks."""
    table = PeopleTable(people, centroids.mapping, like=centroids.fitted_on.labels)
    found = measure(centroids.fitted, table, assign(centroids.fitted, table))
    return pl.DataFrame(
        {
            "id": people.ids,
            "position": people.position,
            "cluster": found.cluster,
            "distance": found.distance,
            "proxy": found.proxy,
            "score": centroids.fitted.scores(found),
        }
    )

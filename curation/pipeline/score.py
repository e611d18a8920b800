"""Centroids and sensitivity scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.pipeline.dataset import (
    CENTROIDS,
    PILOT_MODEL,
    SENSITIVITY_SCORES,
    Dataset,
    Outcome,
)
from curation.pipeline.pilot import budget_of, load_score_model, query_scores
from curation.pipeline.population import Population, population
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
from curation.store import Artifact, Draft, StoreError, digest

CENTROIDS_FILE = "centroids.arrow"
LEARNED = "learned.safetensors"
SPACE = "space.json"


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
    """Fit centroids on a sample, find the medoids in one pass, and learn from the scores there."""
    config = dataset.config
    people = population(dataset)
    pilot = dataset.store.need(dataset.at(PILOT_MODEL))
    pilot.require(
        upstream={"population": people.content_hash}, remedy="materialize pilot_model again"
    )
    seed = config.selection.seed

    def fill(draft: Draft) -> None:
        found = cluster(people, load_score_model(pilot), seed=seed)
        _write_centroids(draft, people, found)
        clusters = found.fitted.clusters
        centroids_view(draft, clusters.sizes, clusters.medoid_cost)

    return dataset.produce(
        CENTROIDS,
        None,
        config_hash=digest(
            [
                config.clusters.model_dump(exclude={"block_mib"}),
                config.score.model_dump(),
                config.selection.model_dump(
                    include={"budget", "fraction", "epsilon", "delta", "design", "mix"}
                ),
            ]
        ),
        upstream={"population": people.content_hash, PILOT_MODEL: pilot.content_hash},
        fill=fill,
        seed=seed,
    )


def _write_centroids(draft: Draft, people: Population, found: Clustered) -> None:
    fitted = found.fitted
    summary = fitted.clusters
    k = summary.k
    write_vectors(
        draft.folder / CENTROIDS_FILE,
        {
            "cluster": np.arange(k, dtype=np.int32),
            "medoid_id": people.ids[summary.medoid_rows].to_list(),
            "medoid_shard": [people.shards[i] for i in people.shard[summary.medoid_rows]],
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
    smooth = fitted.smoothness
    draft.row_count = k
    draft.figures.update(
        k=k,
        rows=len(people),
        queries=fitted.queries,
        repeats=people.repeats,
        missing_shards=list(people.missing),
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


@dataclass(frozen=True)
class Centroids:
    """The centroids as they were stored."""

    artifact: Artifact
    table: pl.DataFrame
    mapping: SpaceMap
    fitted: Fitted

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
        return cls(artifact, table, space_map(stored["space"], model), fitted)

    @property
    def centroids(self) -> NDArray[np.float32]:
        """(k, d) float32."""
        return read_vectors(self.artifact.path(CENTROIDS_FILE), "centroid")

    @property
    def medoids(self) -> NDArray[np.float32]:
        """(k, d) float32."""
        return read_vectors(self.artifact.path(CENTROIDS_FILE), "medoid")


def make_sensitivity_scores(dataset: Dataset, shard: str) -> Outcome:
    """Score the training rows of a shard: the proxy plus the constant times the distance."""
    people = population(dataset)
    centroids = Centroids.load(dataset)
    if shard not in people.shards:
        raise StoreError(
            f"data set {dataset.name}: shard {shard} is not embedded; "
            f"materialize raw and embeddings of {shard} first"
        )

    def fill(draft: Draft) -> None:
        frame = score_rows(people, people.of_shard(shard), centroids)
        write_parquet(draft, SCORES, frame)
        draft.row_count = len(frame)
        draft.figures.update(
            rows=len(frame),
            holdout_or_repeated=raw_rows(dataset, shard) - len(frame),
            total_score=float(frame["score"].sum()),
        )
        scores_view(draft, frame["score"].to_numpy(), shard)

    shard_hash = digest(
        [
            dataset.store.need(dataset.at("raw", shard)).content_hash,
            dataset.store.need(dataset.at("embeddings", shard)).content_hash,
        ]
    )
    return dataset.produce(
        SENSITIVITY_SCORES,
        shard,
        config_hash="",
        # `population`: whether a row is a repeat depends on the shards before
        upstream={
            "shard": shard_hash,
            "population": people.content_hash,
            CENTROIDS: centroids.artifact.content_hash,
        },
        fill=fill,
    )


def raw_rows(dataset: Dataset, shard: str) -> int:
    """Return the number of accepted rows of a shard."""
    return dataset.store.need(dataset.at("raw", shard)).manifest.row_count


def rows_of(found: Clustered) -> PerRow:
    """Return distance and proxy of every row of a clustering."""
    return measure(found.fitted, found.table, found.cluster)


def score_rows(people: Population, rows: NDArray[np.int64], centroids: Centroids) -> pl.DataFrame:
    """Assign and score rows, in blocks."""
    table = PeopleTable(people, centroids.mapping, rows)
    found = measure(centroids.fitted, table, assign(centroids.fitted, table))
    return pl.DataFrame(
        {
            "id": people.ids[rows],
            "cluster": found.cluster,
            "distance": found.distance,
            "proxy": found.proxy,
            "score": centroids.fitted.scores(found),
        }
    )

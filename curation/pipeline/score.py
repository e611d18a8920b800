"""Centroids and sensitivity scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation import clustering, sampling
from curation.models import (
    PilotModel,
)
from curation.pipeline.dataset import (
    CENTROIDS,
    PILOT_MODEL,
    SENSITIVITY_SCORES,
    Dataset,
    Outcome,
)
from curation.pipeline.pilot import budget_of, load_score_model, query_scores
from curation.pipeline.population import (
    MIB,
    Population,
    permanent_random_numbers,
    population,
)
from curation.pipeline.tables import (
    SCORES,
    read_columns,
    read_json,
    read_vectors,
    write_json,
    write_parquet,
    write_vectors,
)
from curation.pipeline.views import centroids_view, scores_view
from curation.progress import track
from curation.selection import SKETCH_DIMENSION, label_scale, resolve_k
from curation.store import Artifact, Draft, StoreError, digest

CENTROIDS_FILE = "centroids.arrow"
SPACE = "space.json"


@dataclass(frozen=True)
class SpaceMap:
    """Maps embeddings (and labels) to the points that are clustered."""

    settings: dict[str, Any]
    apply: Callable[[NDArray[np.float32], NDArray[np.generic] | None], NDArray[np.float32]]


def space_map(settings: dict[str, Any], pilot: PilotModel | None) -> SpaceMap:
    """Return the map described by `settings`, as they are stored next to the centroids."""
    if settings["space"] == "embedding":
        return SpaceMap(settings, lambda x, y: x)
    if settings["space"] == "embedding+label":
        how = clustering.LabelScale(
            tuple(settings["classes"]), settings["scale"], settings["centre"], settings["spread"]
        )
        return SpaceMap(settings, lambda x, y: clustering.append_labels(x, _known(y), how))
    assert pilot is not None  # noqa: S101  the configuration was checked
    sketch = clustering.GradientSketch.create(
        settings["residuals"],
        settings["features"],
        dimension=settings["dimension"],
        seed=settings["seed"],
    )
    return SpaceMap(settings, lambda x, y: sketch(pilot.residuals(x, _known(y)), pilot.features(x)))


def _known(labels: NDArray[np.generic] | None) -> NDArray[np.generic]:
    assert labels is not None  # noqa: S101  the configuration was checked
    return labels


def _space_settings(
    people: Population, sample: NDArray[np.int64], pilot: PilotModel | None, *, seed: int
) -> dict[str, Any]:
    """Settle the map from a sample of the rows."""
    config = people.dataset.config
    space = config.space
    if space == "embedding+label":
        assert people.labels is not None  # noqa: S101
        how = label_scale(people.embeddings(sample), people.labels[sample], people.classes)
        return {
            "space": space,
            "classes": list(people.classes),
            "scale": how.scale,
            "centre": how.centre,
            "spread": how.spread,
        }
    if space == "gradient":
        assert pilot is not None  # noqa: S101
        assert people.labels is not None  # noqa: S101
        few = sample[:2]
        residuals = pilot.residuals(people.embeddings(few), people.labels[few])
        return {
            "space": space,
            "residuals": residuals.shape[1],
            "features": pilot.features(people.embeddings(few)).shape[1],
            "dimension": SKETCH_DIMENSION,
            "seed": seed,
        }
    return {"space": space}


@dataclass(frozen=True)
class Clustered:
    """A clustering of the population.

    Attributes
    ----------
    mapping
        From embeddings to the points that were clustered.
    summary
        Centroids, medoids, sizes and costs.
    proxy
        (k,) the score of each medoid: the only rows it was asked for.
    """

    mapping: SpaceMap
    summary: clustering.ClusterSummary
    proxy: NDArray[np.float64]


def cluster(people: Population, model: Any, *, seed: int) -> Clustered:
    """Fit centroids on a sample, find the medoids in one pass, and query the score there."""
    wanted = people.dataset.config.clusters
    n = len(people)
    k = resolve_k(wanted.k, budget=budget_of(people.dataset, n), rows=n)
    sample = _fit_sample(people, k, seed=seed)
    mapping = space_map(_space_settings(people, sample, model, seed=seed), model)
    labels = people.labels
    points = mapping.apply(people.embeddings(sample), None if labels is None else labels[sample])
    centroids = clustering.fit_centroids(points, k, iterations=wanted.iterations, seed=seed)
    with track("find medoids", n) as advance:
        summary = clustering.summarise(
            _points(people, mapping, wanted.block_mib, advance), centroids
        )
    return Clustered(mapping, summary, query_scores(people, model, summary.medoid_rows))


def make_centroids(dataset: Dataset) -> Outcome:
    """Fit centroids on a sample, find the medoids in one pass, and query the score there."""
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
        centroids_view(draft, found.summary.sizes, found.summary.medoid_cost)

    return dataset.produce(
        CENTROIDS,
        None,
        config_hash=digest(
            [
                config.clusters.model_dump(exclude={"block_mib"}),
                config.score.model_dump(),
                config.selection.model_dump(include={"budget", "fraction", "epsilon", "delta"}),
            ]
        ),
        upstream={"population": people.content_hash, PILOT_MODEL: pilot.content_hash},
        fill=fill,
        seed=seed,
    )


def _fit_sample(people: Population, k: int, *, seed: int) -> NDArray[np.int64]:
    size = min(len(people), k * people.dataset.config.clusters.sample_per_centroid)
    numbers = permanent_random_numbers(people.ids, seed=seed, purpose="k-means sample")
    return np.sort(np.argsort(numbers, kind="stable")[: max(size, k)])


def _points(people: Population, mapping: SpaceMap, mib: int, advance: Callable[[int], None]) -> Any:
    for rows, block in people.blocks(mib):
        labels = people.labels
        yield mapping.apply(block, None if labels is None else labels[rows])
        advance(len(block))


def _balanced(proxy: NDArray[np.float64], summary: clustering.ClusterSummary) -> float:
    """Balanced constant from the clusters' totals: the same as over all rows."""
    spread = float(summary.medoid_cost.sum())
    return float(proxy @ summary.sizes) / spread if spread > 0.0 else 0.0


def _write_centroids(draft: Draft, people: Population, found: Clustered) -> None:
    mapping, summary, proxy = found.mapping, found.summary, found.proxy
    constant = _balanced(proxy, summary)
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
            "constant": np.full(k, constant),
            "medoid_score": proxy,
        },
        centroid=summary.centroids,
        medoid=summary.medoids,
    )
    write_json(draft.folder / SPACE, mapping.settings)
    draft.row_count = k
    draft.figures.update(
        k=k,
        rows=len(people),
        queries=k,
        repeats=people.repeats,
        missing_shards=list(people.missing),
        shards=len(people.shards),
        cost=float(summary.centroid_cost.sum()),
        medoid_cost=float(summary.medoid_cost.sum()),
        constant=constant,
        mean_medoid_score=float(proxy @ summary.sizes / summary.sizes.sum()),
        space=mapping.settings["space"],
    )


@dataclass(frozen=True)
class Centroids:
    """The centroids as they were stored."""

    artifact: Artifact
    table: pl.DataFrame
    mapping: SpaceMap

    @classmethod
    def load(cls, dataset: Dataset) -> Centroids:
        """Read the published centroids."""
        artifact = dataset.store.need(dataset.at(CENTROIDS))
        settings = read_json(artifact.path(SPACE))
        model = None
        if settings["space"] == "gradient":
            pilot = dataset.store.need(dataset.at(PILOT_MODEL))
            artifact.require(
                upstream={PILOT_MODEL: pilot.content_hash}, remedy="materialize centroids again"
            )
            model = load_score_model(pilot)
        table = read_columns(
            artifact.path(CENTROIDS_FILE),
            ["cluster", "medoid_id", "medoid_shard", "size", "rank", "constant", "medoid_score"],
        )
        return cls(artifact, table, space_map(settings, model))

    @property
    def centroids(self) -> NDArray[np.float32]:
        """(k, d) float32."""
        return read_vectors(self.artifact.path(CENTROIDS_FILE), "centroid")

    @property
    def medoids(self) -> NDArray[np.float32]:
        """(k, d) float32."""
        return read_vectors(self.artifact.path(CENTROIDS_FILE), "medoid")


def make_sensitivity_scores(dataset: Dataset, shard: str) -> Outcome:
    """Score the training rows of a shard: proxy of its medoid plus constant times distance."""
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


def assign_rows(
    people: Population,
    rows: NDArray[np.int64],
    mapping: SpaceMap,
    centroids: NDArray[np.float32],
    medoids: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return each row's cluster and its squared distance to the medoid, computed in blocks."""
    step = max(1, people.dataset.config.clusters.block_mib * MIB // (centroids.shape[1] * 4))
    assigned = np.empty(len(rows), dtype=np.int32)
    distance = np.empty(len(rows), dtype=np.float64)
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        labels = None if people.labels is None else people.labels[part]
        points = mapping.apply(people.embeddings(part), labels)
        here, _ = clustering.assign(points, centroids)
        assigned[first : first + step] = here
        squares = ((points - medoids[here]) ** 2).sum(axis=1, dtype=np.float64)
        distance[first : first + step] = squares
    return assigned, distance


def score_rows(people: Population, rows: NDArray[np.int64], centroids: Centroids) -> pl.DataFrame:
    """Assign and score rows."""
    assigned, distance = assign_rows(
        people, rows, centroids.mapping, centroids.centroids, centroids.medoids
    )
    proxy = centroids.table["medoid_score"].to_numpy()[assigned]
    constant = centroids.table["constant"].to_numpy()[assigned]
    return pl.DataFrame(
        {
            "id": people.ids[rows],
            "cluster": assigned,
            "distance": distance,
            "proxy": proxy,
            "score": sampling.sensitivity(proxy, distance, constant),
        }
    )

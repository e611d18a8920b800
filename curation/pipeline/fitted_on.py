"""The rows a fit was made on: what it is judged by when further rows come."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curation import clustering
from curation.pipeline.people import Population
from curation.selection import Labels

if TYPE_CHECKING:
    from curation.pipeline.score import Clustered


@dataclass(frozen=True)
class FittedOn:
    """The rows a fit was made on.

    Attributes
    ----------
    rows
        How many.
    hashes
        Of the rows and embeddings of each of their shards.
    cost_per_row
        Mean squared distance to the centroid, as rows like these have that it was not fitted on.
    classes, centre, spread
        Classes, or what numbers were standardised by.
    """

    rows: int
    hashes: tuple[str, ...]
    cost_per_row: float
    classes: tuple[str, ...]
    centre: float
    spread: float

    @classmethod
    def of(cls, people: Population, found: Clustered) -> FittedOn:
        """Return what is kept of the rows a clustering was made of."""
        known = found.table.unit
        clusters = found.fitted.clusters
        return cls(
            rows=len(people),
            hashes=tuple(sorted(people.hashes.values())),
            cost_per_row=float(clusters.centroid_cost.sum() / clusters.sizes.sum())
            * _optimism(people, found),
            classes=() if known is None else known.classes,
            centre=0.0 if known is None else known.centre,
            spread=1.0 if known is None else known.spread,
        )

    @property
    def labels(self) -> Labels:
        """Classes and unit, as :func:`curation.selection.read_labels` takes them."""
        none = np.empty(0)
        return Labels(self.classes, none.astype(np.int64), none, self.centre, self.spread)

    def lacks(self, people: Population, shard: str) -> bool:
        """Whether a shard came, or changed, since."""
        return people.hashes[shard] not in self.hashes

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FittedOn:
        """Return what :meth:`to_json` wrote."""
        lists = {name: tuple(value[name]) for name in ("hashes", "classes")}
        return cls(**{**value, **lists})


def _optimism(people: Population, found: Clustered) -> float:
    """Return by how much rows k-means did not see cost more than all rows, those included.

    Measured on half of the sample with half of the centroids, as many rows to each: with 17 rows to
    a centroid 1.3, and a new shard like the others would seem to have drifted.
    """
    config, k = people.dataset.config, found.fitted.clusters.k
    numbers = people.numbers(config.selection.seed).of("k-means")
    line = np.argsort(numbers, kind="stable")[: k * config.clusters.sample_per_centroid]
    half = len(line) // 2
    if half < k:
        return 1.0  # hardly a row to a centroid: nothing can be told
    points = found.table.take(line).points
    own, other = points[:half], points[half : 2 * half]
    centroids = clustering.fit_centroids(
        own, max(k // 2, 1), iterations=config.clusters.iterations, numbers=numbers[line[:half]]
    )
    seen, unseen = (float(clustering.assign(x, centroids)[1].mean()) for x in (own, other))
    share = len(line) / len(people)  # the rows outside of the sample were not seen either
    return unseen / (share * seen + (1.0 - share) * unseen) if seen > 0.0 else 1.0

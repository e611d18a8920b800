"""Rows as they are clustered: embeddings, labels, and the space they are mapped to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from curation import clustering
from curation.selection.inputs import Labels, append_labels, mean_norm

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

SPACES = ("embedding", "embedding+label", "gradient")
SKETCH_DIMENSION = 256
HEAD_ROWS = 6000  # rows the model behind the gradients and the covariates is fitted on


@dataclass(frozen=True)
class View:
    """Some rows.

    Attributes
    ----------
    rows
        (m,) which rows they are.
    tags
        (m,) numbers that stand for their ids.
    embeddings
        (m, d) float32.
    targets
        (m, C) one-hot classes, (m, 1) numbers, or None.
    points
        (m, D) float32 in the space that is clustered.
    """

    rows: Rows
    tags: NDArray[np.float64]
    embeddings: Vectors
    targets: Vectors | None
    points: Vectors


class Table(Protocol):
    """All rows, a block at a time."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def blocks(self) -> Iterator[tuple[slice, View]]:
        """Yield all rows in order, with where they belong in arrays of all rows."""
        ...

    def take(self, rows: Rows) -> View:
        """Return rows in any order."""
        ...


@dataclass(frozen=True)
class Space:
    """Maps embeddings and labels to the points that are clustered."""

    name: str
    scale: float = 1.0
    head: clustering.RidgeHead | None = None
    sketch: clustering.GradientSketch | None = None

    @classmethod
    def fit(cls, name: str, embeddings: Vectors, targets: Vectors | None, *, seed: int) -> Space:
        """Settle the map from a sample of the rows."""
        if name == "embedding" or targets is None:
            return cls(name)
        if name == "embedding+label":
            return cls(name, scale=mean_norm(embeddings))
        head = clustering.RidgeHead.fit(embeddings[:HEAD_ROWS], targets[:HEAD_ROWS], seed=seed)
        sketch = clustering.GradientSketch.create(
            targets.shape[1], embeddings.shape[1], dimension=SKETCH_DIMENSION, seed=seed
        )
        return cls(name, head=head, sketch=sketch)

    def __call__(self, embeddings: Vectors, targets: Vectors | None) -> Vectors:
        """Return the points of (m, d) embeddings."""
        if self.name == "embedding" or targets is None:
            return embeddings
        if self.head is None or self.sketch is None:
            return append_labels(embeddings, targets, self.scale)
        return self.sketch(self.head.residuals(embeddings, targets), embeddings)


@dataclass(frozen=True)
class MemoryTable:
    """Rows given as points and labels.

    Attributes
    ----------
    source
        Embeddings behind a reader.
    labels
        Classes or numbers, or None.
    space
        What is clustered.
    tags
        (n,) numbers that stand for the rows' ids.
    """

    source: clustering.Points
    labels: Labels | None
    space: Space
    tags: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.source)

    def blocks(self) -> Iterator[tuple[slice, View]]:
        """Yield all rows in order."""
        for place, block in self.source.blocks():
            yield place, self._view(np.arange(place.start, place.stop), block)

    def blocks_backwards(self) -> Iterator[tuple[slice, View]]:
        """Yield the same blocks, the last one first where that saves reading."""
        for place, block in self.source.blocks(backwards=self.source.mapped is not None):
            yield place, self._view(np.arange(place.start, place.stop), block)

    def take(self, rows: Rows) -> View:
        """Return rows in any order."""
        return self._view(rows, self.source.take(rows))

    def _view(self, rows: Rows, embeddings: Vectors) -> View:
        targets = None if self.labels is None else self.labels.targets(rows)
        points = self.space(embeddings, targets)
        return View(rows, self.tags[rows], embeddings, targets, points)

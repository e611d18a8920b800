"""How hard labels say a row is, without asking the expensive model.

Labels are known when training data is selected. A row whose neighbours have another label, or that
a linear model on random features gets wrong, has a large loss under almost any model; both cost no
query, and they explain more of a loss than its medoid does (docs/estimation.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.nearest import nearest

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

NEIGHBOURS = 15
WIDTH = 512
RIDGE = 1e-2
CHUNK = 1024


@dataclass(frozen=True)
class RidgeHead:
    """Ridge regression from random ReLU features to the labels, solved in closed form.

    For C classes the targets are one-hot and the outputs estimate class probabilities; a number is
    its own target (C = 1).

    Attributes
    ----------
    centre, scale
        (d,) and scalar: how embeddings are standardised.
    mixing, offset
        (d, w) and (w,): the random features.
    weights, bias
        (w, C) and (C,).
    """

    centre: Vectors
    scale: float
    mixing: Vectors
    offset: Vectors
    weights: Vectors
    bias: Vectors

    @classmethod
    def fit(cls, embeddings: Vectors, targets: Vectors, *, seed: int) -> RidgeHead:
        """Fit on (m, d) embeddings and (m, C) targets."""
        rng = np.random.default_rng([seed, 0x68656164])
        d = embeddings.shape[1]
        mixing = (rng.normal(size=(d, WIDTH)) / np.sqrt(d)).astype(np.float32)
        offset = (rng.normal(size=WIDTH) / 2.0).astype(np.float32)
        centre = embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = float((embeddings - centre).std(dtype=np.float64)) or 1.0
        half = cls(centre, scale, mixing, offset, np.zeros((WIDTH, 1), np.float32), centre[:1])
        features = half.features(embeddings)
        middle, mean = features.mean(axis=0), targets.mean(axis=0, dtype=np.float64)
        features -= middle
        gram = features.T @ features
        gram[np.diag_indices(WIDTH)] += RIDGE * max(float(np.trace(gram)) / WIDTH, 1e-12)
        weights = np.linalg.solve(gram, features.T @ (targets - mean))
        bias = mean - middle @ weights
        return cls(
            centre, scale, mixing, offset, weights.astype(np.float32), bias.astype(np.float32)
        )

    def features(self, embeddings: Vectors) -> Floats:
        """Return (m, w) random features.

        In float64: float32 products are rounded differently in blocks of another size, and what
        follows from them would move with it.
        """
        standard = np.subtract(embeddings, self.centre, dtype=np.float64) / self.scale
        return np.maximum(standard @ self.mixing.astype(np.float64) + self.offset, 0.0)

    def outputs(self, embeddings: Vectors) -> Floats:
        """Return (m, C) estimates of the targets."""
        found = np.empty((len(embeddings), self.weights.shape[1]))
        weights = self.weights.astype(np.float64)
        for start in range(0, len(embeddings), CHUNK):  # features are wide
            part = slice(start, start + CHUNK)
            found[part] = self.features(embeddings[part]) @ weights + self.bias
        return found

    def residuals(self, embeddings: Vectors, targets: Vectors) -> Floats:
        """Return (m, C) probabilities minus one-hot, or the error of a number (m, 1)."""
        outputs = self.outputs(embeddings)
        if targets.shape[1] > 1:
            outputs = np.maximum(outputs, 0.0)
            outputs /= np.maximum(outputs.sum(axis=1, keepdims=True), 1e-6)
        return outputs - targets


@dataclass(frozen=True)
class Hardness:
    """Covariates that grow with a row's difficulty, from labels alone.

    Attributes
    ----------
    head
        A linear model on random features.
    tags, vectors, targets
        (r,), (r, d) and (r, C): rows whose labels neighbours are compared with; a tag is a number
        that stands for a row's id.
    """

    head: RidgeHead
    tags: NDArray[np.float64]
    vectors: Vectors
    targets: Vectors

    @classmethod
    def fit(
        cls,
        embeddings: Vectors,
        targets: Vectors,
        tags: NDArray[np.float64],
        *,
        references: int,
        seed: int,
    ) -> Hardness:
        """Fit on sampled rows.

        Parameters
        ----------
        embeddings, targets
            (m, d) and (m, C) of the sample.
        tags
            (m,) numbers that stand for the rows' ids: a row is not its own neighbour.
        references
            How many of them, from the front, neighbours are looked for among.
        """
        few = slice(0, references)
        return cls(
            RidgeHead.fit(embeddings, targets, seed=seed),
            tags[few],
            np.ascontiguousarray(embeddings[few]),
            targets[few],
        )

    def __call__(
        self, embeddings: Vectors, targets: Vectors, tags: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return (m, p) covariates, all >= 0, of rows given with their labels."""
        outputs = self.head.outputs(embeddings)
        near = self._neighbours(embeddings, targets, tags)
        if targets.shape[1] == 1:
            error = np.abs(outputs - targets)[:, 0]
            columns = [error, error**2, near, near**2]
        else:
            own = (outputs * targets).sum(axis=1)
            other = np.where(targets > 0.0, -np.inf, outputs).max(axis=1)
            hinge = np.maximum(0.0, 1.0 - (own - other))
            brier = np.square(outputs - targets).sum(axis=1)
            columns = [hinge, hinge**2, brier, np.maximum(0.0, other - own), near, near**2]
        return np.stack(columns, axis=1).astype(np.float64)

    def _neighbours(
        self, embeddings: Vectors, targets: Vectors, tags: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Share of the nearest references with another class, or distance to their mean."""
        found = nearest(embeddings, self.vectors, min(NEIGHBOURS + 1, len(self.tags)))
        others = self.tags[found] != tags[:, None]
        counted = np.maximum(others.sum(axis=1), 1)
        mean = (self.targets[found] * others[:, :, None]).sum(axis=1) / counted[:, None]
        if targets.shape[1] == 1:
            return np.where(others.any(axis=1), np.abs(mean - targets)[:, 0], 0.0)
        return (1.0 - (mean * targets).sum(axis=1)) * others.any(axis=1)

"""What is clustered: the embedding alone, with the label appended, or a sketch of the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelScale:
    """How labels are appended to embeddings.

    Attributes
    ----------
    classes
        All classes, sorted; empty for a numeric target.
    scale
        Length of the appended one-hot vector: the mean norm of the embeddings, so that two rows of
        different classes lie about as far apart as two unrelated embeddings.
    centre, spread
        Mean and standard deviation of the numeric target (unused for classes).
    """

    classes: tuple[str, ...]
    scale: float
    centre: float = 0.0
    spread: float = 1.0


def append_labels(
    embeddings: NDArray[np.float32], labels: NDArray[np.generic], how: LabelScale
) -> NDArray[np.float32]:
    """Append labels to embeddings: one-hot for classes, standardised for numbers.

    Parameters
    ----------
    embeddings
        (n, d) float32.
    labels
        (n,) strings, or numbers when ``how.classes`` is empty.

    Returns
    -------
    ndarray
        (n, d + classes) float32, or (n, d + 1).

    Raises
    ------
    ValueError
        If a label is not one of ``how.classes``.
    """
    if not how.classes:
        column = (labels.astype(np.float64) - how.centre) / how.spread * how.scale
        return np.hstack([embeddings, column[:, None].astype(np.float32)])
    codes = class_codes(labels, how.classes)
    points = np.zeros((len(embeddings), embeddings.shape[1] + len(how.classes)), dtype=np.float32)
    points[:, : embeddings.shape[1]] = embeddings
    points[np.arange(len(embeddings)), embeddings.shape[1] + codes] = how.scale
    return points


def class_codes(labels: NDArray[np.generic], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the position of each label in the sorted `classes`.

    Raises
    ------
    ValueError
        If a label is not among them; the message names it.
    """
    known = np.asarray(classes)
    codes = np.minimum(np.searchsorted(known, labels), len(known) - 1)
    wrong = known[codes] != labels
    if wrong.any():
        raise ValueError(
            f"label {str(labels[wrong][0])!r} is not one of the {len(known)} known classes"
        )
    return codes


@dataclass(frozen=True)
class GradientSketch:
    """Random projection of the last layer's gradient ``(p - onehot) (x) h``.

    The outer product of an (C,) residual and an (h,) feature vector is never formed: coordinate j
    of the sketch is ``(a_j . residual) (b_j . features) / sqrt(D)`` with independent random signs
    a_j and b_j, whose inner products are unbiased for those of the outer products (E[a a'] = I
    makes each factor unbiased, and independence their product).
    """

    left: NDArray[np.float32]
    right: NDArray[np.float32]

    @classmethod
    def create(cls, classes: int, features: int, *, dimension: int, seed: int) -> GradientSketch:
        """Draw the signs for C classes and h features into `dimension` coordinates."""
        rng = np.random.default_rng([seed, 0x67726164])
        signs = np.array([-1.0, 1.0], dtype=np.float32)
        return cls(
            left=rng.choice(signs, size=(classes, dimension)),
            right=rng.choice(signs, size=(features, dimension)),
        )

    def __call__(
        self, residuals: NDArray[np.floating], features: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """Sketch (n, C) residuals and (n, h) features into (n, D) float32 points."""
        # in float64, so that the points do not depend on the size of the block
        left, right = self.left.astype(np.float64), self.right.astype(np.float64)
        found = np.empty((len(features), self.left.shape[1]), dtype=np.float32)
        for start in range(0, len(features), 1024):
            part = slice(start, start + 1024)
            product = (residuals[part].astype(np.float64) @ left) * (
                features[part].astype(np.float64) @ right
            )
            found[part] = product / np.sqrt(self.left.shape[1])
        return found

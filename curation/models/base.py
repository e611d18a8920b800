"""What every model is, and the checks they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

Value = Literal["loss", "gradient_norm"]
Task = Literal["classification", "regression"]


class ModelError(Exception):
    """A model cannot be fitted, loaded or applied."""


class PilotModel(Protocol):
    """A model on embeddings that gives every row a score.

    Attributes
    ----------
    kind : str
        ``probe`` or ``mlp``.
    classes : tuple of str
        The classes, in the order of every array with a class axis; empty for regression.
    """

    kind: str
    classes: tuple[str, ...]

    def score(self, X: np.ndarray, y: np.ndarray, *, value: Value) -> np.ndarray:
        """Return (n,) float64 at least 0: the loss, or the norm of its last-layer gradient."""
        ...

    def residuals(self, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return (n, C) float32, probabilities minus one-hot; (n, 1) error for regression."""
        ...

    def features(self, X: np.ndarray) -> np.ndarray:
        """Return (n, h) float32, the input of the last layer."""
        ...

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return (n,) class labels (str), or float64 numbers for regression."""
        ...

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into `folder`."""
        ...


def class_numbers(y: Sequence[str] | np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return (n,) int64 positions of the labels `y` in `classes`.

    Raises
    ------
    ModelError
        If a label is not among the classes; the message names the first such row.
    """
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ModelError(f"labels: one per row expected, found an array of shape {labels.shape}")
    known = {name: at for at, name in enumerate(classes)}
    values, inverse = np.unique(labels.astype(str), return_inverse=True)
    numbers = np.array([known.get(str(value), -1) for value in values], dtype=np.int64)[inverse]
    if (numbers < 0).any():
        row = int((numbers < 0).argmax())
        raise ModelError(
            f"row {row}: label {str(labels[row])!r} is not one of the {len(classes)} known "
            "classes; give every class of the data set in `classes`"
        )
    return numbers


def class_names(classes: Sequence[str] | None, y: Sequence[str] | np.ndarray) -> tuple[str, ...]:
    """Return the classes as given, checked for repeats, or those of `y` in sorted order."""
    if classes is None:
        return tuple(str(name) for name in np.unique(np.asarray(y).astype(str)))
    names = tuple(str(name) for name in classes)
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"classes: {repeated!r} is listed more than once")
    return names


def unit_mean(weights: np.ndarray | None, n: int) -> np.ndarray:
    """Return (n,) float64 weights scaled to mean 1; ones if there are none.

    Raises
    ------
    ModelError
        If their number is not n, one is negative or not finite, or all are 0.
    """
    if weights is None:
        return np.ones(n)
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n,):
        raise ModelError(f"weights: {n} rows need {n} weights, found shape {values.shape}")
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        row = int(bad.argmax())
        raise ModelError(f"row {row}: weight {values[row]} is not a finite number of at least 0")
    if not values.any():
        raise ModelError("weights: all are 0; at least one row has to count")
    return values / values.mean()


def cross_entropy_scores(
    log_probabilities: np.ndarray, numbers: np.ndarray, *, value: Value, squared_norm: np.ndarray
) -> np.ndarray:
    """Return per-row loss, or the norm of the loss gradient with respect to the last layer.

    With logits ``W h + b`` and ``r = softmax(logits) - onehot(y)`` the gradient is the outer
    product ``r h'`` and ``r`` itself for the bias, whose joint norm is
    ``||r|| * sqrt(1 + ||h||^2)``.

    Parameters
    ----------
    log_probabilities : numpy.ndarray
        (n, C) float64.
    numbers : numpy.ndarray
        (n,) int64, the true classes.
    value : {"loss", "gradient_norm"}
        Which score.
    squared_norm : numpy.ndarray
        (n,) float64, ``||h||^2``.

    Returns
    -------
    numpy.ndarray
        (n,) float64, at least 0.
    """
    rows = np.arange(len(numbers))
    if value == "loss":
        return np.maximum(-log_probabilities[rows, numbers], 0.0)
    if value != "gradient_norm":
        raise ModelError(f"score value {value!r}: choose `loss` or `gradient_norm`")
    residual = np.exp(log_probabilities)
    residual[rows, numbers] -= 1.0
    return np.linalg.norm(residual, axis=1) * np.sqrt(1.0 + squared_norm)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return (n, C) float64 log-probabilities of (n, C) logits, without overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

"""Fitting pilot models: a linear probe (scikit-learn) or a small network (torch)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np

from curation.models.base import ModelError, Task, class_names, class_numbers, unit_mean
from curation.models.network import train_network
from curation.models.pilot import FittedPilot

HIDDEN = 128
LEARNING_RATE = 1e-3


def fit_pilot(
    kind: Literal["probe", "mlp"],
    X: np.ndarray,
    y: np.ndarray,
    *,
    task: Task,
    sample_weight: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    epochs: int = 20,
    seed: int = 0,
    regularization: float = 10.0,
) -> FittedPilot:
    """Fit a pilot model on embeddings.

    Parameters
    ----------
    kind : {"probe", "mlp"}
        ``probe``: logistic or ridge regression. ``mlp``: one hidden layer of 128 ReLU units.
    X : numpy.ndarray
        (n, d) embeddings, n at least 1.
    y : numpy.ndarray
        (n,) labels, or numbers for regression.
    task : {"classification", "regression"}
        What is predicted.
    sample_weight : numpy.ndarray, optional
        (n,) weights, at least 0; scaled to mean 1, so that only their ratios matter.
    classes : sequence of str, optional
        All classes known in the data set; left out, those of `y`. A class without a row in `y`
        gets the probability 1e-6 before all are scaled to sum to 1, so that its loss is finite.
    epochs : int
        For ``mlp``: passes over the rows.
    seed : int
        For ``mlp``: decides the first weights and the order of the batches.
    regularization : float
        For ``probe``: inverse strength, as C of scikit-learn's logistic regression; the ridge
        penalty is ``1 / regularization``.

    Returns
    -------
    FittedPilot

    Raises
    ------
    ModelError
        If the arrays do not fit together or hold numbers that are not finite.
    """
    X = _rows(X, y)
    weights = unit_mean(sample_weight, len(X))
    if kind not in ("probe", "mlp"):
        raise ModelError(f"pilot model {kind!r}: choose `probe` or `mlp`")
    if task == "regression":
        targets = np.asarray(y, dtype=np.float64)
        if not np.isfinite(targets).all():
            row = int((~np.isfinite(targets)).argmax())
            raise ModelError(f"row {row}: target {targets[row]} is not finite; drop the row")
        if kind == "probe":
            return _ridge(X, targets, weights, regularization)
        return _network_regression(X, targets, weights, epochs=epochs, seed=seed)
    names = class_names(classes, y)
    numbers = class_numbers(y, names)
    if kind == "probe":
        return _logistic(X, numbers, weights, names, regularization)
    return _network(X, numbers, weights, names, epochs=epochs, seed=seed)


def fit_image_classifier(
    X: np.ndarray,
    labels: Sequence[str] | np.ndarray,
    *,
    weights: np.ndarray | None,
    classes: Sequence[str],
    epochs: int = 20,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = 64,
    seed: int = 0,
    label: str = "train",
) -> FittedPilot:
    """Train a network with one hidden layer of 128 units on (n, d) arrays, e.g. flat pixels.

    Parameters
    ----------
    X : numpy.ndarray
        (n, d) floats of order 1; used as they are.
    labels : sequence of str
        (n,) classes.
    weights : numpy.ndarray, optional
        (n,) row weights, at least 0; only their ratios matter.
    classes : sequence of str
        All classes known in the data set.
    epochs, learning_rate, batch_size : int, float, int
        Settings of Adam.
    seed : int
        Decides the first weights and the order of the batches.
    label : str
        What progress is reported under, in rows.

    Returns
    -------
    FittedPilot
        Of kind ``mlp``; has `predict`, `predict_proba`, `score` and `save`.
    """
    X = _rows(X, labels)
    names = class_names(classes, labels)
    return _network(
        X,
        class_numbers(labels, names),
        unit_mean(weights, len(X)),
        names,
        epochs=epochs,
        seed=seed,
        learning_rate=learning_rate,
        batch_size=batch_size,
        label=label,
    )


def _rows(X: np.ndarray, y: Sequence[str] | np.ndarray) -> np.ndarray:
    X = np.asarray(X)
    if X.ndim != 2 or not len(X) or len(X) != len(y):
        raise ModelError(f"expected (n, d) rows and n labels, found {X.shape} and {len(y)}")
    if X.dtype != np.float64:
        X = X.astype(np.float32, copy=False)
    finite = np.isfinite(X).all(axis=1)
    if not finite.all():
        raise ModelError(
            f"row {int((~finite).argmax())}: the embedding is not finite; encode again"
        )
    return X


def _seen(numbers: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Return (count,) bool: the classes with a row that counts."""
    return np.bincount(numbers, weights=weights, minlength=count) > 0


def _logistic(
    X: np.ndarray,
    numbers: np.ndarray,
    weights: np.ndarray,
    classes: tuple[str, ...],
    regularization: float,
) -> FittedPilot:
    seen = _seen(numbers, weights, len(classes))
    weight = np.zeros((len(classes), X.shape[1]))
    bias = np.zeros(len(classes))
    if np.count_nonzero(seen) > 1:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        keep = weights > 0
        model = LogisticRegression(C=regularization, max_iter=300, tol=1e-3)
        with warnings.catch_warnings():
            # Stopping at max_iter is fine for a pilot: it only ranks rows.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X[keep], numbers[keep], sample_weight=weights[keep])
        # Two classes have one row of coefficients, for the second against the first.
        rows = model.classes_ if len(model.classes_) > 2 else model.classes_[1:]
        weight[rows], bias[rows] = model.coef_, model.intercept_
    return FittedPilot("probe", "classification", classes, weight, bias, seen=seen)


def _ridge(
    X: np.ndarray, targets: np.ndarray, weights: np.ndarray, regularization: float
) -> FittedPilot:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1.0 / regularization)
    model.fit(X.astype(np.float64), targets, sample_weight=weights)
    weight = np.asarray(model.coef_, dtype=np.float64).reshape(1, -1)
    bias = np.array([float(model.intercept_)])
    return FittedPilot("probe", "regression", (), weight, bias)


def _network(
    X: np.ndarray,
    numbers: np.ndarray,
    weights: np.ndarray,
    classes: tuple[str, ...],
    *,
    epochs: int,
    seed: int,
    learning_rate: float = LEARNING_RATE,
    batch_size: int | None = None,
    label: str = "fit pilot",
) -> FittedPilot:
    hidden, output = train_network(
        X,
        numbers,
        weights=weights,
        outputs=len(classes),
        hidden=HIDDEN,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size or _batch_size(len(X)),
        seed=seed,
        label=label,
    )
    seen = _seen(numbers, weights, len(classes))
    return FittedPilot("mlp", "classification", classes, *output, hidden=hidden, seen=seen)


def _network_regression(
    X: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, epochs: int, seed: int
) -> FittedPilot:
    # The network learns the standardised target; mean and scale are folded into its last layer.
    mean = float(np.average(targets, weights=weights))
    scale = float(np.sqrt(np.average((targets - mean) ** 2, weights=weights))) or 1.0
    hidden, (weight, bias) = train_network(
        X,
        (targets - mean) / scale,
        weights=weights,
        outputs=1,
        hidden=HIDDEN,
        epochs=epochs,
        learning_rate=LEARNING_RATE,
        batch_size=_batch_size(len(X)),
        seed=seed,
        label="fit pilot",
    )
    weight, bias = weight.astype(np.float64) * scale, bias.astype(np.float64) * scale + mean
    return FittedPilot("mlp", "regression", (), weight, bias, hidden=hidden)


def _batch_size(n: int) -> int:
    """Small pilots need small batches to make enough steps."""
    return 32 if n <= 1024 else 64

"""How good predictions are."""

from __future__ import annotations

import numpy as np

from curation.models.base import ModelError, Task


def evaluate(y_true: np.ndarray, y_pred: np.ndarray, *, task: Task) -> dict[str, float]:
    """Compare predictions with the truth.

    Parameters
    ----------
    y_true, y_pred : numpy.ndarray
        (n,) labels for ``classification``, numbers for ``regression``; n at least 1.
    task : {"classification", "regression"}
        Decides the metrics.

    Returns
    -------
    dict of str to float
        Classification: ``accuracy``; ``macro_f1``, the mean F1 over the classes that occur in
        `y_true`; ``worst_class``, the lowest recall of any of those classes. Regression: ``rmse``
        in the target's unit; ``r2``, ``1 - sum of squares of the errors / that around the mean``
        (0 if `y_true` is constant).

    Raises
    ------
    ModelError
        If there are no rows or the lengths differ.
    """
    truth, guess = np.asarray(y_true), np.asarray(y_pred)
    if truth.shape != guess.shape or truth.ndim != 1 or not len(truth):
        raise ModelError(
            f"evaluate: one prediction per row expected, found {guess.shape} for {truth.shape}"
        )
    if task == "regression":
        return _regression(truth.astype(np.float64), guess.astype(np.float64))
    truth, guess = truth.astype(str), guess.astype(str)
    classes, support = np.unique(truth, return_counts=True)
    hits = np.array([np.count_nonzero((truth == c) & (guess == c)) for c in classes])
    guessed = np.array([np.count_nonzero(guess == c) for c in classes])
    return {
        "accuracy": float(hits.sum() / len(truth)),
        "macro_f1": float(np.mean(2.0 * hits / (support + guessed))),
        "worst_class": float((hits / support).min()),
    }


def _regression(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    error = float(np.mean((truth - guess) ** 2))
    spread = float(np.var(truth))
    return {"rmse": error**0.5, "r2": 1.0 - error / spread if spread > 0 else 0.0}

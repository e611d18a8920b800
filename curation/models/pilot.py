"""Pilot models on embeddings; applying one takes numpy alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.models.base import (
    ModelError,
    Task,
    Value,
    class_numbers,
    cross_entropy_scores,
    log_softmax,
)

FLOOR = 1e-6
"""Probability of a class the pilot has no row of, before all are scaled to sum to 1."""
BLOCK = 16384
"""Rows handled at a time."""
FORMAT = 1


@dataclass(frozen=True, eq=False)
class FittedPilot:
    """A linear layer on the input (``probe``), or on a hidden ReLU layer (``mlp``).

    Implements :class:`curation.models.base.PilotModel`.

    Attributes
    ----------
    kind : str
        ``probe`` or ``mlp``.
    task : str
        ``classification`` or ``regression``.
    classes : tuple of str
        C classes; empty for regression.
    weight, bias : numpy.ndarray
        (C, h) and (C,), float32 or float64; C is 1 for regression.
    hidden : tuple of numpy.ndarray, optional
        (h, d) and (h,), the layer before; None for a probe, where h = d.
    seen : numpy.ndarray, optional
        (C,) bool, which classes had a pilot row. None is all. Rows of `weight` that belong to
        unseen classes are not used.
    """

    kind: str
    task: Task
    classes: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray
    hidden: tuple[np.ndarray, np.ndarray] | None = None
    seen: np.ndarray | None = None

    def score(self, X: np.ndarray, y: np.ndarray, *, value: Value) -> np.ndarray:
        """Return per-row scores.

        Parameters
        ----------
        X : numpy.ndarray
            (n, d) embeddings.
        y : numpy.ndarray
            (n,) labels, or numbers for regression.
        value : {"loss", "gradient_norm"}
            ``loss``: cross-entropy in nats, or the squared residual. ``gradient_norm``: the norm of
            the loss's gradient with respect to the last layer, bias included:
            ``||p - onehot|| * sqrt(1 + ||h||^2)``, or ``2 |residual| * sqrt(1 + ||h||^2)``.

        Returns
        -------
        numpy.ndarray
            (n,) float64, at least 0.

        Raises
        ------
        ModelError
            If a label is unknown, or X has another width than the pilot was fitted on.
        """
        truth = self._truth(X, y)
        out = np.empty(len(X))
        for rows, inner in self._blocks(X):
            squared = np.einsum("ij,ij->i", inner, inner, dtype=np.float64)
            if self.task == "classification":
                out[rows] = cross_entropy_scores(
                    self._log_probabilities(inner), truth[rows], value=value, squared_norm=squared
                )
                continue
            error = np.abs(self._output(inner)[:, 0] - truth[rows])
            if value == "loss":
                out[rows] = error**2
            elif value == "gradient_norm":
                out[rows] = 2.0 * error * np.sqrt(1.0 + squared)
            else:
                raise ModelError(f"score value {value!r}: choose `loss` or `gradient_norm`")
        return out

    def residuals(self, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return (n, C) float32, probabilities minus one-hot labels.

        A row of a class the pilot has not seen has about -1 there. For regression (n, 1), the
        prediction minus the target.
        """
        truth = self._truth(X, y)
        out = np.empty((len(X), len(self.bias)), dtype=np.float32)
        for rows, inner in self._blocks(X):
            if self.task == "classification":
                block = np.exp(self._log_probabilities(inner))
                block[np.arange(len(block)), truth[rows]] -= 1.0
            else:
                block = self._output(inner) - truth[rows, None]
            out[rows] = block
        return out

    def features(self, X: np.ndarray) -> np.ndarray:
        """Return (n, h) float32, the input of the last layer: X itself for a probe."""
        self._check(X)
        if self.hidden is None:
            return np.asarray(X, dtype=np.float32)
        out = np.empty((len(X), len(self.hidden[1])), dtype=np.float32)
        for rows, inner in self._blocks(X):
            out[rows] = inner
        return out

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return (n, C) float64 probabilities; classification only."""
        if self.task != "classification":
            raise ModelError("a regression model has no probabilities; use predict")
        out = np.empty((len(X), len(self.classes)))
        for rows, inner in self._blocks(X):
            out[rows] = np.exp(self._log_probabilities(inner))
        return out

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return (n,) most probable labels (str), or float64 numbers for regression."""
        if self.task == "classification":
            return np.asarray(self.classes)[self.predict_proba(X).argmax(axis=1)]
        out = np.empty(len(X))
        for rows, inner in self._blocks(X):
            out[rows] = self._output(inner)[:, 0]
        return out

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into `folder`, made if missing."""
        from safetensors.numpy import save_file

        tensors = {"output.weight": self.weight, "output.bias": self.bias}
        if self.hidden is not None:
            tensors["hidden.weight"], tensors["hidden.bias"] = self.hidden
        if self.seen is not None:
            tensors["seen"] = self.seen
        folder.mkdir(parents=True, exist_ok=True)
        # safetensors writes the memory as it lies: a transposed view would come back scrambled.
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
            folder / "model.safetensors",
        )
        about = {
            "format": FORMAT,
            "kind": self.kind,
            "task": self.task,
            "classes": list(self.classes),
        }
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        (folder / "model.json").write_text(text, encoding="utf-8")

    def _check(self, X: np.ndarray) -> None:
        width = (self.weight if self.hidden is None else self.hidden[0]).shape[1]
        if X.ndim != 2 or X.shape[1] != width:
            raise ModelError(f"the pilot takes (n, {width}) arrays, found {X.shape}; fit it again")

    def _truth(self, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        if len(X) != len(y):
            raise ModelError(f"{len(X)} rows but {len(y)} labels or targets")
        if self.task == "classification":
            return class_numbers(y, self.classes)
        return np.asarray(y, dtype=np.float64)

    def _blocks(self, X: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of rows with the input of the last layer."""
        self._check(X)
        for begin in range(0, len(X), BLOCK):
            rows = slice(begin, begin + BLOCK)
            inner = np.asarray(X[rows], dtype=self.weight.dtype)
            if self.hidden is not None:
                inner = np.maximum(inner @ self.hidden[0].T + self.hidden[1], 0.0)
            yield rows, inner

    def _output(self, inner: np.ndarray) -> np.ndarray:
        return (inner @ self.weight.T + self.bias).astype(np.float64)

    def _log_probabilities(self, inner: np.ndarray) -> np.ndarray:
        """Return (n, C) float64; unseen classes share FLOOR each, relative to all seen ones."""
        logits = self._output(inner)
        if self.seen is None or self.seen.all():
            return log_softmax(logits)
        out = np.full_like(logits, np.log(FLOOR))
        out[:, self.seen] = log_softmax(logits[:, self.seen])
        return out - np.log1p(FLOOR * np.count_nonzero(~self.seen))


def load_pilot(folder: Path) -> FittedPilot:
    """Load what :meth:`FittedPilot.save` wrote.

    Raises
    ------
    ModelError
        If `folder` does not hold a pilot model of this format.
    """
    from safetensors.numpy import load_file

    try:
        about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except OSError as error:
        raise ModelError(f"{folder}: no pilot model there ({error}); fit it again") from error
    if about.get("format") != FORMAT:
        raise ModelError(
            f"{folder}/model.json: format {about.get('format')!r}, expected {FORMAT}; fit it again"
        )
    hidden = None
    if "hidden.weight" in tensors:
        hidden = (tensors["hidden.weight"], tensors["hidden.bias"])
    return FittedPilot(
        kind=about["kind"],
        task=about["task"],
        classes=tuple(about["classes"]),
        weight=tensors["output.weight"],
        bias=tensors["output.bias"],
        hidden=hidden,
        seen=tensors.get("seen"),
    )

"""What a strategy may look at, what it returns, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


class Model(Protocol):
    """A pilot model, such as those of :func:`curation.models.fit_pilot`."""

    def predict_proba(self, X: Any) -> Any:
        """Return (m, C) probabilities."""
        ...

    def features(self, X: Any) -> Any:
        """Return (m, h) inputs of the last layer."""
        ...

    def residuals(self, X: Any, y: Any) -> Any:
        """Return (m, C) probabilities minus one-hot labels."""
        ...

    def score(self, X: Any, y: Any, *, value: Any) -> Any:
        """Return (m,) losses or gradient norms."""
        ...


@dataclass
class Pool:
    """Rows to choose from, and a pilot model whose answers are counted.

    Attributes
    ----------
    embeddings
        (n, d) float32: where strategies measure distances.
    labels
        (n,) classes as text.
    pilot
        Rows that are chosen already, and that `model` was trained on.
    model
        The pilot model.
    value
        The score: ``loss`` or ``gradient_norm``.
    inputs
        (n, D) float32 what the model takes; left out, the embeddings.
    evaluations
        Rows that the model was asked about so far.
    """

    embeddings: Vectors
    labels: NDArray[np.str_]
    pilot: Rows
    model: Model
    value: str = "gradient_norm"
    inputs: Vectors | None = None
    evaluations: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Return n."""
        return len(self.embeddings)

    @cached_property
    def rest(self) -> Rows:
        """Rows that are not in the pilot."""
        return np.setdiff1d(np.arange(len(self)), self.pilot)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """All classes, sorted."""
        return tuple(np.unique(self.labels).tolist())

    def given(self, rows: Rows) -> Vectors:
        """Return what the model takes of some rows."""
        return (self.embeddings if self.inputs is None else self.inputs)[rows]

    def ask(self, what: str, rows: Rows) -> Any:
        """Ask the model about rows.

        Parameters
        ----------
        what
            ``score`` (see `value`), ``gradient_norm`` whatever the score is, ``probabilities``,
            ``residuals`` or ``features``.
        rows
            Which.
        """
        self.evaluations += len(rows)
        x, y = self.given(rows), self.labels[rows]
        if what in ("score", "gradient_norm"):
            value = self.value if what == "score" else what
            return np.asarray(self.model.score(x, y, value=value), dtype=np.float64)
        if what == "residuals":
            return np.asarray(self.model.residuals(x, y), dtype=np.float32)
        if what == "probabilities":
            return np.asarray(self.model.predict_proba(x), dtype=np.float64)
        return np.asarray(self.model.features(x), dtype=np.float32)


@dataclass(frozen=True)
class Choice:
    """Rows that a strategy chose beyond the pilot.

    Attributes
    ----------
    rows
        (m,) rows, each once, none of the pilot's.
    weights
        (m,) how many of the rows that were up for choosing a row stands for, or None where the
        strategy does not say.
    evaluations, seconds, mib
        What it cost: rows the model was asked about, time of all processors, and the most memory
        that Python and numpy held for it.
    """

    rows: Rows
    weights: Floats | None = None
    evaluations: int = 0
    seconds: float = 0.0
    mib: float = 0.0

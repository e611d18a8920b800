"""What a model gets right on the holdout: of its open half everything, of the other one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.models import evaluate
from curation.pipeline.codes import Codes, CodesBuilder
from curation.pipeline.halves import Halves, halve
from curation.pipeline.people import Population
from curation.pipeline.stored import raw_rows_at

Floats = NDArray[np.float64]
NO_GROUP = "(none)"


@dataclass(frozen=True)
class Measured:
    """How good one model is.

    Attributes
    ----------
    metrics
        By name, of the open half.
    by_class, by_group
        Per class and group, of the open half: accuracy, or for regression the root mean squared
        error; NaN where there is no row. None without classes or groups.
    protected
        Accuracy on the protected half, where there is one. It is handed to
        :class:`curation.holdout.ReusableHoldout` and must be neither written nor shown.
    """

    metrics: dict[str, float]
    by_class: Floats | None = None
    by_group: Floats | None = None
    protected: float | None = None


Measurements = dict[str, list[Measured]]
"""By strategy, one for each seed."""


@dataclass(frozen=True)
class Ruler:
    """The holdout as models are held against it.

    Attributes
    ----------
    held, halves
        The rows, and which of them are open.
    names
        (C,) sorted classes, of the holdout and of the training rows; none for regression.
    truth
        (n,) places of the rows' classes in `names`, or targets.
    groups
        The rows' groups, where ``columns.group`` names them.
    """

    held: Population
    halves: Halves
    names: NDArray[np.str_]
    truth: NDArray[Any]
    groups: Codes | None

    @classmethod
    def of(cls, held: Population, known: tuple[str, ...]) -> Ruler:
        """Return the ruler of a holdout, for models that may predict the classes in `known`."""
        labels = held.labels
        halves, groups = halve(held), _groups(held)
        if not isinstance(labels, Codes):
            none = np.empty(0, dtype=np.str_)
            return cls(held, halves, none, np.asarray(labels, dtype=np.float64), groups)
        # classes by their place among all: a text for each row would take many times as much
        names = np.union1d(labels.names, np.array(known, dtype=np.str_))
        truth = np.searchsorted(names, labels.names).astype(np.int32)[labels.codes]
        return cls(held, halves, names, truth, groups)

    def measure(self, model: Any, *, block_mib: int) -> Measured:
        """Measure a model of embeddings, which are read block by block."""
        guess = np.empty_like(self.truth)
        for rows, x in self.held.blocks(block_mib):
            guess[rows] = self._places(model.predict(x))
        return self._compare(guess)

    def measure_predictions(self, predicted: Any) -> Measured:
        """Measure (n,) predictions: classes as text, or numbers."""
        return self._compare(self._places(np.asarray(predicted)))

    def _places(self, predicted: NDArray[Any]) -> NDArray[Any]:
        return np.searchsorted(self.names, predicted) if len(self.names) else predicted

    def _compare(self, guess: NDArray[Any]) -> Measured:
        opened, truth = self.halves.opened, self.truth
        own, said = truth[opened], guess[opened]
        groups = None if self.groups is None else self.groups.codes[opened]
        count = 0 if self.groups is None else len(self.groups.names)
        if not len(self.names):
            squares = (said - own) ** 2
            by_group = None if groups is None else np.sqrt(_means(squares, groups, count))
            return Measured(evaluate(own, said, task="regression"), by_group=by_group)
        right = (said == own).astype(np.float64)
        return Measured(
            evaluate(own, said, task="classification"),
            by_class=_means(right, own, len(self.names)),
            by_group=None if groups is None else _means(right, groups, count),
            protected=float(np.mean(guess[~opened] == truth[~opened]))
            if self.halves.split
            else None,
        )


def _means(values: Floats, parts: NDArray[Any], count: int) -> Floats:
    """Return the (count,) means of the rows of each part; NaN where there is none."""
    rows = np.bincount(parts, minlength=count)
    total = np.bincount(parts, weights=values, minlength=count)
    return np.divide(total, rows, out=np.full(count, np.nan), where=rows > 0)


def _groups(held: Population) -> Codes | None:
    """Return the groups of a holdout's rows; they are read shard by shard."""
    column = held.dataset.columns.group
    if column is None:
        return None
    builder = CodesBuilder()
    for shard, _, position in held.by_shard(np.arange(len(held))):
        part = raw_rows_at(held.dataset, shard, position, [column])[column]
        # its type may differ from shard to shard; null is a group of its own
        builder.add(part.cast(pl.String).fill_null(NO_GROUP))
    return builder.finish(np.ones(len(held), dtype=np.bool_))

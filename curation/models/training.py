"""Row weights in other people's training loops: a `Trainer` that honours them, and a sampler.

torch and transformers are imported with this module, which nothing else of the package imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer

from curation.models.base import ModelError, unit_mean

WEIGHT = "training_weight"
IGNORED = -100  # the label of tokens that no loss is computed for, as everywhere in transformers


def weighted_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, *, items: Tensor | float | None = None
) -> Tensor:
    """Return a batch's weighted cross-entropy, divided by the number of items.

    An item is a row, or for language models a token that has a label; each counts with the weight
    of its row. With weights of mean 1 over the training set the loss is on the scale of the
    unweighted one. It is not divided by the batch's sum of weights, which would undo them in part:
    see :func:`curation.models.weighted_cross_entropy`.

    Parameters
    ----------
    logits : torch.Tensor
        (B, C) for rows, or (B, T, V) for tokens.
    labels : torch.Tensor
        (B,) int64 classes, (B,) or (B, 1) floats where the model predicts a number, or (B, T) int64
        tokens, of which -100 count for nothing. Token t is predicted from those before it.
    weights : torch.Tensor
        (B,) row weights, at least 0.
    items : float, optional
        Items to divide by: those of all batches that make one step together. Left out, the batch's
        own.

    Returns
    -------
    torch.Tensor
        A scalar.
    """
    from torch.nn import functional

    if logits.dim() == 3:
        # the labels are moved, not the logits: those are large, and one row of them after another
        # is read several times faster than across
        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        losses = functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        counted = labels != IGNORED
        each = losses.view(labels.shape).sum(dim=1)
    elif labels.is_floating_point():
        counted = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        each = (logits.reshape(-1).float() - labels.reshape(-1).float()) ** 2
    else:
        counted = labels != IGNORED
        each = functional.cross_entropy(
            logits.float(), labels, ignore_index=IGNORED, reduction="none"
        )
    total = (weights.to(each) * each).sum()
    return total / (counted.sum().clamp(min=1) if items is None else items)


class WeightedLoss:
    """Adds row weights to a ``transformers.Trainer``, or to a class derived from it.

    Name it first: ``class MyTrainer(WeightedLoss, SFTTrainer)``. The training set has the weights
    in the column `training_weight`; a batch without the column (an evaluation set) is unweighted.
    The weights need not have mean 1: they are divided by the training set's own mean.

    Attributes
    ----------
    weight_column : str
        Name of the column.
    """

    weight_column = WEIGHT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.compute_loss_func = self._loss
        self._weights: Tensor | None = None
        self.data_collator = _KeepWeights(self.data_collator, self.weight_column)  # type: ignore[has-type]
        data: Any = self.train_dataset  # type: ignore[attr-defined]
        names = getattr(data, "column_names", None)
        if data is not None and names is not None:
            if self.weight_column not in names:
                raise ModelError(
                    f"the training set has no column {self.weight_column!r}; its columns: "
                    f"{', '.join(names)}"
                )
            given = np.asarray(data[self.weight_column][:], dtype=np.float64)
            unit_mean(given, len(data))  # refuses what can't be weights
            self._mean = float(given.mean())
        else:
            self._mean = 1.0

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        columns = self._signature_columns  # type: ignore[attr-defined]
        if columns is not None and self.weight_column not in columns:
            columns.append(self.weight_column)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the weighted loss of a batch (see ``transformers.Trainer.compute_loss``)."""
        inputs = dict(inputs)
        self._weights = inputs.pop(self.weight_column, None)
        try:
            return super().compute_loss(  # type: ignore[misc]
                model,
                inputs,
                return_outputs=return_outputs,
                num_items_in_batch=num_items_in_batch,
            )
        finally:
            self._weights = None

    def _loss(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        weights = self._weights
        if weights is None:
            weights = torch.ones(len(logits), device=logits.device)
        else:
            weights = weights / self._mean
        return weighted_loss(logits, labels, weights, items=num_items_in_batch)


class WeightedTrainer(WeightedLoss, Trainer):  # type: ignore[misc]
    """A ``transformers.Trainer`` whose loss honours the column `training_weight`.

    For classification, regression to one number and causal language models.
    """


class _KeepWeights:
    """A collator that hands on the weights, which others drop or can't pad."""

    def __init__(self, collator: Callable[[list[Any]], dict[str, Any]], column: str) -> None:
        self.collator, self.column = collator, column

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        """Collate a batch."""
        if not rows or self.column not in rows[0]:
            return self.collator(rows)
        weights = [float(row[self.column]) for row in rows]
        rest = [{k: v for k, v in row.items() if k != self.column} for row in rows]
        batch = dict(self.collator(rest))
        batch[self.column] = torch.tensor(weights, dtype=torch.float32)
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.collator, name)


class ResamplingSampler(Sampler[int]):
    """Rows in proportion to their weights, for loops whose loss can't be weighted.

    Each epoch holds `size` rows; row i comes ``floor(e_i)`` or ``ceil(e_i)`` times, with
    ``e_i = size * w_i / sum(w)``, and e_i times on average: systematic sampling (Madow, 1949),
    which varies less than drawing with replacement. The order is random.

    Parameters
    ----------
    weights : array_like
        (n,) row weights, at least 0.
    size : int, optional
        Rows of an epoch; left out, n.
    seed : int
        With the epoch's number, decides everything.

    Attributes
    ----------
    epoch : int
        Counts up with every pass; :meth:`set_epoch` sets it, as distributed samplers have it.
    """

    def __init__(self, weights: ArrayLike, *, size: int | None = None, seed: int = 0) -> None:
        given = np.asarray(weights, dtype=np.float64)
        share = unit_mean(given, len(given)) / max(len(given), 1)
        self.size = len(given) if size is None else size
        if self.size < 1:
            raise ModelError(f"size: at least 1 row an epoch, got {self.size}")
        self._expected = self.size * share
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        """Return the rows of an epoch."""
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the rows of the next epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        order = rng.permutation(len(self._expected))
        ends = np.cumsum(self._expected[order])
        ends *= self.size / ends[-1]  # rounding must not cost the last row
        at = np.searchsorted(ends, rng.random() + np.arange(self.size), side="right")
        yield from rng.permutation(order[np.minimum(at, len(order) - 1)]).tolist()

"""The weighted loss that models are trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def weighted_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, *, mean_weight: float | None = None
) -> Tensor:
    """Return the weighted mean cross-entropy of a batch, on the scale of the whole training set.

    Over the whole training set the loss is ``sum(w * ce) / sum(w)``: a row of weight 2 counts as
    two rows of weight 1. A batch of B rows is divided by ``B * mean_weight``, with the mean over
    *all* training rows. Dividing by the batch's own sum of weights would undo them in part: a
    batch of heavy rows would make no larger a step than one of light rows, and in batches of one
    row weights would do nothing at all. With the mean of all rows the batches' gradients are
    unbiased for the gradient of the weighted loss.

    Parameters
    ----------
    logits : torch.Tensor
        (B, C) floats.
    targets : torch.Tensor
        (B,) int64 class numbers.
    weights : torch.Tensor
        (B,) row weights, at least 0.
    mean_weight : float, optional
        Mean weight of all training rows. Left out, `weights` are taken to be all of them.

    Returns
    -------
    torch.Tensor
        A scalar.
    """
    from torch.nn import functional

    losses = functional.cross_entropy(logits, targets, reduction="none")
    mean = weights.mean() if mean_weight is None else mean_weight
    return (weights * losses).mean() / mean

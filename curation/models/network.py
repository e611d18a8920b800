"""Training of a network with one hidden layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curation.models.base import ModelError
from curation.models.loss import weighted_cross_entropy
from curation.progress import track

if TYPE_CHECKING:
    from torch import Tensor

Layer = tuple[np.ndarray, np.ndarray]


def train_network(
    X: np.ndarray,
    targets: np.ndarray,
    *,
    weights: np.ndarray,
    outputs: int,
    hidden: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    label: str,
) -> tuple[Layer, Layer]:
    """Train input -> `hidden` ReLU -> `outputs` with Adam.

    Parameters
    ----------
    X : numpy.ndarray
        (n, d) floats.
    targets : numpy.ndarray
        (n,) class numbers (integers: weighted cross-entropy) or numbers (floats: weighted squares).
    weights : numpy.ndarray
        (n,) row weights of mean 1.
    outputs, hidden : int
        Widths of the layers.
    epochs, learning_rate, batch_size : int, float, int
        Settings of Adam; the batches of an epoch differ in size by one row at most.
    seed : int
        Decides the first weights and the order of the rows; torch's global state is left alone.
    label : str
        What progress is reported under, in rows.

    Returns
    -------
    tuple
        Weight and bias, float32, of the hidden layer (hidden, d), (hidden,) and of the last one
        (outputs, hidden), (outputs,).

    Raises
    ------
    ModelError
        If the loss stops being finite.
    """
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(seed)

    def first(rows: int, columns: int, gain: float) -> Tensor:
        bound = (gain / columns) ** 0.5
        values = torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)
        return values.requires_grad_()

    w1, w2 = first(hidden, X.shape[1], 6.0), first(outputs, hidden, 1.0)
    b1, b2 = (torch.zeros(width, requires_grad=True) for width in (hidden, outputs))
    optimizer = torch.optim.Adam([w1, b1, w2, b2], lr=learning_rate)
    features = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))
    importance = torch.from_numpy(weights.astype(np.float32))
    classify = np.issubdtype(targets.dtype, np.integer)
    truth = torch.from_numpy(targets.astype(np.int64 if classify else np.float32))
    batches = -(-len(X) // batch_size)
    with torch.enable_grad(), track(label, len(X) * epochs) as advance:
        for _ in range(epochs):
            order = torch.randperm(len(X), generator=generator)
            for rows in torch.tensor_split(order, batches):
                inner = functional.relu(functional.linear(features[rows], w1, b1))
                output = functional.linear(inner, w2, b2)
                if classify:
                    loss = weighted_cross_entropy(
                        output, truth[rows], importance[rows], mean_weight=1.0
                    )
                else:
                    loss = (importance[rows] * (output[:, 0] - truth[rows]) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                advance(len(rows))
    layers = [tensor.detach().numpy() for tensor in (w1, b1, w2, b2)]
    if not all(np.isfinite(layer).all() for layer in layers):
        raise ModelError(f"{label}: the network diverged; lower the learning rate or the weights")
    return (layers[0], layers[1]), (layers[2], layers[3])

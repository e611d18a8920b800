"""A small network trained on the rows' own labels; its hidden layer is the embedding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from curation.config import Encoder
from curation.encoders.arrays import pixels
from curation.encoders.base import EncoderError, name_of
from curation.encoders.fingerprint import encoder_fingerprint
from curation.encoders.weights import WEIGHTS
from curation.progress import track

EPOCHS = 15
BATCH = 32
LEARNING_RATE = 1e-3
BLOCK = 8192
"""Rows encoded at a time."""


class MlpEncoder:
    """The hidden layer ``relu(pixels / 255 @ W.T + b)`` of a trained network."""

    def __init__(self, config: Encoder, *, folder: Path) -> None:
        from safetensors.numpy import load_file

        self.fingerprint = encoder_fingerprint(config, trained=folder)
        tensors = load_file(folder / WEIGHTS)
        self._weight = tensors["hidden.weight"]
        self._bias = tensors["hidden.bias"]
        self.dim = len(self._bias)

    def encode(self, inputs: pl.Series, *, label: str = "encode") -> np.ndarray:
        """Encode (n,) Array or List of uint8 to (n, hidden) float32."""
        out = np.empty((len(inputs), self.dim), dtype=np.float32)
        with track(label, len(inputs)) as advance:
            for begin in range(0, len(inputs), BLOCK):
                block = pixels(inputs.slice(begin, BLOCK))
                if block.shape[1] != self._weight.shape[1]:
                    raise EncoderError(
                        f"{name_of(inputs)}: rows of {block.shape[1]} pixels where the encoder "
                        f"was trained on {self._weight.shape[1]}; train it again"
                    )
                hidden = block @ self._weight.T + self._bias
                np.maximum(hidden, 0.0, out=out[begin : begin + len(block)])
                advance(len(block))
        return out


def train_mlp(
    config: Encoder, *, inputs: pl.Series, labels: Sequence[str], folder: Path, seed: int
) -> None:
    """Train the network with Adam and write it; see :func:`curation.encoders.train_encoder`."""
    if len(inputs) != len(labels):
        raise EncoderError(f"{len(inputs)} inputs but {len(labels)} labels")
    rng = np.random.default_rng(seed)
    rows = np.arange(len(inputs))
    if len(rows) > config.train_rows:
        rows = np.sort(rng.choice(len(rows), size=config.train_rows, replace=False))
        inputs = inputs.gather(rows)
    classes, targets = np.unique(np.asarray(labels, dtype=str)[rows], return_inverse=True)
    if len(classes) < 2:
        raise EncoderError(
            f"encoder type `mlp` learns to tell classes apart, and the {len(rows)} rows it is "
            "trained on have fewer than two; raise encoder.train_rows or use `pixels`"
        )
    tensors = _fit(pixels(inputs), targets, hidden=config.hidden, rng=rng)
    folder.mkdir(parents=True, exist_ok=True)
    from safetensors.numpy import save_file

    save_file(tensors, folder / WEIGHTS)
    settings = {
        "type": "mlp",
        "input": tensors["hidden.weight"].shape[1],
        "hidden": config.hidden,
        "classes": classes.tolist(),
        "rows": len(rows),
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "seed": seed,
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _fit(
    X: np.ndarray, targets: np.ndarray, *, hidden: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the weights of input -> hidden ReLU -> classes, trained by cross-entropy."""
    import torch
    from torch.nn import functional

    def first(outputs: int, width: int) -> torch.Tensor:
        bound = np.sqrt(6.0 / width)
        values = rng.uniform(-bound, bound, size=(outputs, width)).astype(np.float32)
        return torch.from_numpy(values).requires_grad_()

    n, classes = len(X), int(targets.max()) + 1
    w1, w2 = first(hidden, X.shape[1]), first(classes, hidden)
    b1, b2 = (torch.zeros(k, requires_grad=True) for k in (hidden, classes))
    optimizer = torch.optim.Adam([w1, b1, w2, b2], lr=LEARNING_RATE)
    features, truth = torch.from_numpy(X), torch.from_numpy(targets.astype(np.int64))
    with torch.enable_grad(), track("train encoder", n * EPOCHS) as advance:
        for _ in range(EPOCHS):
            order = torch.from_numpy(rng.permutation(n))
            for batch in torch.split(order, BATCH):
                inner = functional.relu(functional.linear(features[batch], w1, b1))
                loss = functional.cross_entropy(functional.linear(inner, w2, b2), truth[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                advance(len(batch))
    named = {"hidden.weight": w1, "hidden.bias": b1, "output.weight": w2, "output.bias": b2}
    return {name: tensor.detach().numpy() for name, tensor in named.items()}

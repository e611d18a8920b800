"""From token ids to sums of token vectors: packed where the architecture is known, else plain."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curation.encoders.batches import Tokens
from curation.encoders.loading import load_model
from curation.encoders.packed import PackedBert, knows

log = logging.getLogger(__name__)

AGREEMENT = {"float32": 0.99999, "bfloat16": 0.999}
"""Least cosine between packed and plain vectors (float32) of the texts tried when loading."""


class Forward(Protocol):
    """The part of an encoder between token ids and vectors that are scaled to length 1.

    Attributes
    ----------
    name : str
        How it is called in messages.
    dim : int
        Width of the vectors.
    positions : int
        Most tokens of a text; what is longer must be cut before.
    workers : int
        Batches that may be computed at the same time, one thread each; 0: as many as torch has
        threads.
    """

    name: str
    dim: int
    positions: int
    workers: int

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        """Return (n, dim) float32 vectors of n texts, sorted by length, up to their scale."""
        ...


class Plain:
    """The forward pass of transformers, padded where lengths differ."""

    name = "padded batches"

    def __init__(self, model: Any, number: str, device: str, pad: int) -> None:
        import torch

        self.dim = int(model.config.hidden_size)
        self.positions = _positions(model)
        self.workers = 1 if device == "cuda" else 0
        self._model = model.to(device=device, dtype=getattr(torch, number))
        self._device = device
        self._pad = pad

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        """Return (n, dim) float32 sums of the token vectors of n texts."""
        import torch

        ids, mask = tokens.padded(self._pad)
        with torch.inference_mode():
            attention = torch.from_numpy(mask).to(self._device)
            asked: dict[str, Any] = {"input_ids": torch.from_numpy(ids).to(self._device)}
            if not mask.all():  # without padding the faster kernels without a mask are free to run
                asked["attention_mask"] = attention
            hidden = self._model(**asked).last_hidden_state.float()
            return (hidden * attention[..., None]).sum(1).cpu().numpy()


class Packed:
    """:class:`~curation.encoders.packed.PackedBert`, without padding."""

    name = "packed batches"
    workers = 0

    def __init__(self, model: Any, number: str) -> None:
        import torch

        self.dim = int(model.config.hidden_size)
        self.positions = _positions(model)
        self._bert = PackedBert(model, getattr(torch, number))

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        """Return (n, dim) float32 sums of the token vectors of n texts."""
        return self._bert(tokens)


def open_forward(
    folder: Path, *, number: str, device: str, pad: int, tried: Tokens | None
) -> Forward:
    """Return the forward pass for the weights in `folder`.

    The packed one is taken on a CPU where the architecture is known, and only if it gives the
    vectors that transformers gives in float32. Which one it is follows from the weights alone and
    is never measured by the clock, since they differ by rounding.

    Parameters
    ----------
    folder : Path
        With weights as safetensors.
    number : {"float32", "bfloat16"}
        What is computed in.
    device : {"cpu", "cuda"}
        Where.
    pad : int
        The id that fills up.
    tried : Tokens, optional
        A few texts both ways are compared on, sorted by length; without them there is no
        comparison, and the plain way is taken.
    """
    model = load_model(folder)
    if device == "cpu" and tried is not None and knows(model.config):
        try:
            packed = Packed(model, number)
            plain = Plain(model, "float32", "cpu", pad)
            found = _least_cosine(packed(tried), plain(tried))
        except (AttributeError, RuntimeError, TypeError) as error:
            log.warning("encoder in %s: computed by transformers (packed: %s)", folder, error)
        else:
            if found >= AGREEMENT[number]:
                return packed
            log.warning(
                "encoder in %s: computed by transformers, since packed batches give other vectors "
                "(least cosine %.5f)",
                folder,
                found,
            )
    return Plain(model, number, device, pad)


def _positions(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", 0) or 2**31)


def _least_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a.astype(np.float64) * b).sum(axis=1) / np.maximum(norms, 1e-30)
    return float(np.nan_to_num(cosines, nan=-1.0).min())

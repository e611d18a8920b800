"""Text to vectors with a transformer encoder, or with its token table alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from curation.config import Encoder
from curation.encoders.base import EncoderError, name_of, refuse_nulls
from curation.encoders.batches import Tokens
from curation.encoders.blocks import Pool
from curation.encoders.fingerprint import encoder_fingerprint
from curation.encoders.forward import Forward, open_forward
from curation.encoders.loading import load_tokenizer, resolve_device
from curation.encoders.number_format import resolve_dtype
from curation.encoders.tokens import Tokenizer
from curation.encoders.weights import locate_weights
from curation.progress import track

TRIED = (
    "Which city hosted the games ?",
    "It is far from perfect, yet nobody left before the end.",
    "a",
    "Sums over 4,096 rows are 12.5% off; see section 3 (b).",
)
"""Texts that packed and plain batches are compared on when an encoder is opened."""


class TextEncoder:
    """Mean of the last layer's token vectors, scaled to length 1.

    Weights are read from a local folder in the safetensors format only; code that comes with a
    model is never run. With type ``static`` the mean is that of the rows of the token table, and a
    text without a single token has the vector 0.
    """

    def __init__(self, config: Encoder) -> None:
        folder = locate_weights(config.model)
        self.fingerprint = encoder_fingerprint(config)
        self._kind = config.type
        tokenizer = load_tokenizer(folder)
        self._forward = _open(config, tokenizer)
        self.dim = self._forward.dim
        most = min(config.max_length, int(tokenizer.model_max_length), int(self._forward.positions))
        self._tokenizer = Tokenizer(tokenizer, most, special=config.type == "text")
        self._pool = Pool(
            self._forward, None if config.batch_tokens == "auto" else config.batch_tokens
        )

    @property
    def about(self) -> str:
        """How batches are computed, in words."""
        size = self._pool.budget
        return self._forward.name + (f" of {size} tokens" if size else "")

    def encode(self, inputs: pl.Series, *, label: str = "encode") -> np.ndarray:
        """Encode (n,) strings to (n, dim) float32 of length 1, rows in the order of `inputs`.

        Rows are sorted by their number of tokens, so that a batch has hardly any padding, and a
        batch holds at most `batch_tokens` tokens, padding counted (or one row).
        """
        if inputs.dtype != pl.String and len(inputs):
            raise EncoderError(
                f"{name_of(inputs)}: encoder type `{self._kind}` takes strings, not "
                f"{inputs.dtype}; choose another column, or encoder.type `pixels` or `precomputed`"
            )
        refuse_nulls(inputs)
        out = np.empty((len(inputs), self.dim), dtype=np.float32)
        with track(label, len(inputs)) as advance:
            if len(inputs):
                self._pool.run(self._tokenizer.blocks(inputs), out, advance)
        bad = ~np.isfinite(out).all(axis=1)
        if bad.any():
            raise EncoderError(
                f"{name_of(inputs)}, row {int(bad.argmax())}: the encoder returned numbers that "
                "are not finite; try encoder.dtype `float32`, or check the weights"
            )
        # Scaling to length 1 makes the division of the mean drop out: sums suffice.
        norms = np.sqrt(np.einsum("ij,ij->i", out, out))
        out /= np.maximum(norms, 1e-12)[:, None]
        return out


def _open(config: Encoder, tokenizer: Any) -> Forward:
    """Return what turns token ids into vectors."""
    folder = locate_weights(config.model)
    if config.type == "static":
        from curation.encoders.static import TokenTable

        return TokenTable(folder)
    pad = int(tokenizer.pad_token_id or 0)
    if config.backend == "onnx-int8":
        from curation.encoders.onnx import OnnxInt8

        return OnnxInt8(folder, pad=pad)
    number, device = resolve_dtype(config.dtype), resolve_device(config.device)
    tried = sorted((list(tokenizer(one)["input_ids"]) for one in TRIED), key=len)
    return open_forward(folder, number=number, device=device, pad=pad, tried=Tokens.of(tried))

"""Text to vectors with a transformer encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl

from curation.config import Encoder
from curation.encoders.base import EncoderError, name_of, refuse_nulls
from curation.encoders.fingerprint import encoder_fingerprint, resolve_dtype
from curation.encoders.weights import locate_weights
from curation.progress import track

TOKENIZE_BLOCK = 8192
"""Texts tokenised at a time; token ids are kept as int32, an eighth of a list's size."""

CHARACTERS_PER_TOKEN = 200
"""How much of a long text is tokenised at first, per token kept: a text of 10 MB takes 25 s."""


class TextEncoder:
    """Mean of the last layer's token vectors, scaled to length 1.

    Weights are read from a local folder in the safetensors format only; code that comes with a
    model is never run.
    """

    def __init__(self, config: Encoder) -> None:
        folder = locate_weights(config.model)
        dtype = resolve_dtype(config.dtype)
        self.fingerprint = encoder_fingerprint(config)
        self._tokenizer, self._model = _load(str(folder), dtype)
        self.dim = int(self._model.config.hidden_size)
        self._batch_tokens = config.batch_tokens
        positions = getattr(self._model.config, "max_position_embeddings", config.max_length)
        self._max_length = min(
            config.max_length, int(self._tokenizer.model_max_length), int(positions)
        )

    def encode(self, inputs: pl.Series, *, label: str = "encode") -> np.ndarray:
        """Encode (n,) strings to (n, dim) float32 of length 1, rows in the order of `inputs`.

        Rows are sorted by their number of tokens, so that a batch has hardly any padding, and a
        batch holds at most `batch_tokens` tokens, padding counted (or one row).
        """
        if inputs.dtype != pl.String and len(inputs):
            raise EncoderError(
                f"{name_of(inputs)}: encoder type `text` takes strings, not {inputs.dtype}; "
                "choose another column, or encoder.type `pixels` or `precomputed`"
            )
        refuse_nulls(inputs)
        out = np.empty((len(inputs), self.dim), dtype=np.float32)
        with track(label, len(inputs)) as advance:
            tokens = self._tokenize(inputs)
            lengths = np.fromiter((len(row) for row in tokens), dtype=np.int64, count=len(tokens))
            for rows in length_batches(lengths, budget=self._batch_tokens):
                out[rows] = self._forward([tokens[row] for row in rows])
                advance(len(rows))
        bad = ~np.isfinite(out).all(axis=1)
        if bad.any():
            raise EncoderError(
                f"{name_of(inputs)}, row {int(bad.argmax())}: the encoder returned numbers that "
                "are not finite; try encoder.dtype `float32`, or check the weights"
            )
        return out

    def _tokenize(self, inputs: pl.Series) -> list[np.ndarray]:
        rows: list[np.ndarray] = []
        most = CHARACTERS_PER_TOKEN * self._max_length
        for begin in range(0, len(inputs), TOKENIZE_BLOCK):
            texts = inputs.slice(begin, TOKENIZE_BLOCK)
            found = self._ids(texts.str.slice(0, most).to_list())
            # Its beginning was not enough: words that are one token each however long, or blanks.
            longer = (texts.str.len_chars() > most).to_list()
            again = [
                row for row, ids in enumerate(found) if longer[row] and len(ids) < self._max_length
            ]
            for row, ids in zip(again, self._ids(texts[again].to_list()), strict=True):
                found[row] = ids
            rows.extend(found)
        return rows

    def _ids(self, texts: list[str]) -> list[np.ndarray]:
        if not texts:
            return []
        block = self._tokenizer(
            texts,
            truncation=True,
            max_length=self._max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [np.asarray(ids, dtype=np.int32) for ids in block["input_ids"]]

    def _forward(self, batch: list[np.ndarray]) -> np.ndarray:
        """Return (b, dim) float32 for the token ids of b rows."""
        import torch

        width = max(1, *(len(ids) for ids in batch))
        ids = np.full((len(batch), width), self._tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for at, row in enumerate(batch):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        attention = torch.from_numpy(mask)
        with torch.inference_mode():
            hidden = self._model(input_ids=torch.from_numpy(ids), attention_mask=attention)
            vectors = hidden.last_hidden_state.float() * attention[..., None]
            # Normalising makes the division of the mean drop out: sums suffice.
            return torch.nn.functional.normalize(vectors.sum(1), dim=1).numpy()


def length_batches(lengths: np.ndarray, *, budget: int) -> Iterator[np.ndarray]:
    """Yield row numbers in batches of similar length.

    Parameters
    ----------
    lengths : numpy.ndarray
        (n,) tokens of each row.
    budget : int
        Most tokens in a batch, counted as rows times its longest row; a single row may exceed it.

    Yields
    ------
    numpy.ndarray
        Row numbers; every row once, shortest first, equal lengths in their own order.
    """
    order = np.argsort(lengths, kind="stable")
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and (end - begin + 1) * int(lengths[order[end]]) <= budget:
            end += 1
        yield order[begin:end]
        begin = end


def _load(folder: str, dtype: str) -> tuple[Any, Any]:
    """Return tokenizer and model from `folder`, without a word on the terminal."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model = AutoModel.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True, **options
            )
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(
            f"encoder weights in {folder} cannot be loaded ({error}); the folder needs "
            "config.json, tokenizer files and model.safetensors of a transformers encoder"
        ) from error
    return tokenizer, model.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and reporting on loading, inside the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()

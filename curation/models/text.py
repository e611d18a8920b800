"""A fine-tuned transformer encoder with a linear head."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curation.models.base import (
    ModelError,
    Value,
    class_numbers,
    cross_entropy_scores,
    log_softmax,
)
from curation.progress import quiet, track

if TYPE_CHECKING:
    from torch import Tensor

BATCH_TOKENS = 4096
"""Tokens per forward pass when predicting, padding counted."""
FORMAT = 1
HEAD = "head.safetensors"
ABOUT = "classifier.json"


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """An encoder, the mean of its token vectors, and a linear layer.

    Attributes
    ----------
    classes : tuple of str
        C classes, in the order of every array with a class axis.
    encoder, tokenizer : object
        As transformers loads them, the encoder in float32.
    weight, bias : numpy.ndarray
        (C, h) and (C,) float32, the linear layer.
    max_length : int
        Tokens kept per text.
    """

    classes: tuple[str, ...]
    encoder: Any
    tokenizer: Any
    weight: np.ndarray
    bias: np.ndarray
    max_length: int

    def predict_proba(self, texts: Sequence[str], *, label: str = "predict") -> np.ndarray:
        """Return (n, C) float64 probabilities; progress is reported under `label`, in rows."""
        return np.exp(self._log_probabilities(self.features(texts, label=label)))

    def predict(self, texts: Sequence[str], *, label: str = "predict") -> np.ndarray:
        """Return (n,) most probable labels (str)."""
        return np.asarray(self.classes)[self.predict_proba(texts, label=label).argmax(axis=1)]

    def score(
        self,
        texts: Sequence[str],
        y: Sequence[str] | np.ndarray,
        *,
        value: Value,
        label: str = "score",
    ) -> np.ndarray:
        """Return per-row scores.

        Parameters
        ----------
        texts : sequence of str
            (n,) texts.
        y : sequence of str
            (n,) their classes.
        value : {"loss", "gradient_norm"}
            Cross-entropy in nats, or the norm of its gradient with respect to the linear layer,
            bias included: ``||p - onehot|| * sqrt(1 + ||h||^2)``.
        label : str
            What progress is reported under.

        Returns
        -------
        numpy.ndarray
            (n,) float64, at least 0.
        """
        if len(texts) != len(y):
            raise ModelError(f"{len(texts)} texts but {len(y)} labels")
        numbers = class_numbers(y, self.classes)
        hidden = self.features(texts, label=label)
        return cross_entropy_scores(
            self._log_probabilities(hidden),
            numbers,
            value=value,
            squared_norm=np.einsum("ij,ij->i", hidden, hidden, dtype=np.float64),
        )

    def features(self, texts: Sequence[str], *, label: str = "predict") -> np.ndarray:
        """Return (n, h) float32, the input of the linear layer."""
        import torch

        out = np.empty((len(texts), self.weight.shape[1]), dtype=np.float32)
        with track(label, len(texts)) as advance:
            tokens = tokenize(self.tokenizer, texts, max_length=self.max_length)
            lengths = np.array([len(row) for row in tokens], dtype=np.int64)
            order = np.argsort(lengths, kind="stable")
            for rows in _by_tokens(order, lengths):
                ids, mask = pad([tokens[row] for row in rows], self.tokenizer.pad_token_id or 0)
                with torch.inference_mode(), mixed_precision():
                    out[rows] = pooled(self.encoder, ids, mask).numpy()
                advance(len(rows))
        return out

    def save(self, folder: Path) -> None:
        """Write the model into `folder`, which is made if missing.

        ``model.safetensors``, ``config.json`` and the tokenizer's files are the fine-tuned encoder
        in transformers' own layout, so that `folder` also serves as `encoder.model`;
        ``head.safetensors`` is the linear layer and ``classifier.json`` holds the classes.
        """
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            self.encoder.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        save_file({"weight": self.weight, "bias": self.bias}, folder / HEAD)
        about = {"format": FORMAT, "classes": list(self.classes), "max_length": self.max_length}
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        (folder / ABOUT).write_text(text, encoding="utf-8")

    def _log_probabilities(self, hidden: np.ndarray) -> np.ndarray:
        return log_softmax((hidden @ self.weight.T + self.bias).astype(np.float64))


def load(folder: Path) -> TextClassifier:
    """Load what :meth:`TextClassifier.save` wrote; :func:`curation.models.load_text_classifier`."""
    from safetensors.numpy import load_file

    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        head = load_file(folder / HEAD)
    except OSError as error:
        raise ModelError(f"{folder}: no text classifier there ({error}); train it again") from error
    if about.get("format") != FORMAT:
        raise ModelError(
            f"{folder}/{ABOUT}: format {about.get('format')!r}, expected {FORMAT}; train it again"
        )
    encoder, tokenizer = load_encoder(folder)
    return TextClassifier(
        classes=tuple(about["classes"]),
        encoder=encoder,
        tokenizer=tokenizer,
        weight=head["weight"],
        bias=head["bias"],
        max_length=int(about["max_length"]),
    )


def load_encoder(folder: Path) -> tuple[Any, Any]:
    """Return encoder (float32, in evaluation mode) and tokenizer from a local folder.

    Only safetensors weights are read, and code that comes with a model is never run.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
            encoder = AutoModel.from_pretrained(
                str(folder), dtype=torch.float32, use_safetensors=True, **options
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"encoder weights in {folder} cannot be loaded ({error}); the folder needs "
            "config.json, tokenizer files and model.safetensors of a transformers encoder"
        ) from error
    return encoder.eval(), tokenizer


def tokenize(tokenizer: Any, texts: Sequence[str], *, max_length: int) -> list[np.ndarray]:
    """Return one int32 array of token ids per text, cut to `max_length`."""
    if not len(texts):
        return []
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ModelError(f"row {row}: expected a text, found {text!r}; drop or mend the row")
    block = tokenizer(
        list(texts),
        truncation=True,
        max_length=min(max_length, int(tokenizer.model_max_length)),
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return [np.asarray(ids, dtype=np.int32) for ids in block["input_ids"]]


def pad(rows: Sequence[np.ndarray], filler: int) -> tuple[Tensor, Tensor]:
    """Return (b, width) int64 token ids and attention mask, padded to the longest row."""
    import torch

    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), filler, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def pooled(encoder: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Return (b, h) float32, the mean of the last layer's token vectors, padding left out."""
    hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    total: Tensor = (hidden * mask[..., None]).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1)


def mixed_precision() -> AbstractContextManager[Any]:
    """Return a context in which matrix products run in bfloat16, where the processor does them.

    Weights, optimizer and everything outside matrix products stay in float32.
    """
    import torch

    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=_native_bfloat16())


@cache
def _native_bfloat16() -> bool:
    import torch

    # An older torch that cannot tell what the processor does stays with float32.
    abilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def _by_tokens(order: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield consecutive pieces of `order` (rows by length) of at most BATCH_TOKENS tokens."""
    begin = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end - begin + 1) * lengths[order[end]] > BATCH_TOKENS:
            yield order[begin:end]
            begin = end

"""Fine-tuning of a transformer encoder with row weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curation.models.base import ModelError, class_names, class_numbers, unit_mean
from curation.models.loss import weighted_cross_entropy
from curation.models.text import (
    TextClassifier,
    load_encoder,
    mixed_precision,
    pad,
    pooled,
    tokenize,
)
from curation.progress import track

if TYPE_CHECKING:
    from torch import Tensor

HEAD_RATE = 30.0
"""Learning rate of the fresh head, relative to the encoder's; at 10 rare classes stay unlearned."""
WARM_UP = 0.1
"""Share of the steps in which the rate rises."""
WEIGHT_DECAY = 0.01
DROPOUT = 0.1
BUCKET = 8
"""Batches whose rows are sorted by length together: little padding, and still random batches."""


def fit(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    weights: np.ndarray | None,
    classes: Sequence[str],
    weights_folder: Path,
    max_length: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    label: str,
) -> TextClassifier:
    """Fine-tune; see :func:`curation.models.fit_text_classifier`.

    The head sits on the mean of the token vectors, which sentence encoders are trained for, rather
    than on the first token. The table of word vectors, half of a small encoder's parameters, stays
    as it is: few rows touch few words, and leaving it out makes a step shorter.
    """
    import torch

    if not len(texts) or len(texts) != len(labels):
        raise ModelError(f"expected n texts and n labels, found {len(texts)} and {len(labels)}")
    names = class_names(classes, labels)
    targets = torch.from_numpy(class_numbers(labels, names))
    importance = torch.from_numpy(unit_mean(weights, len(texts)).astype(np.float32))
    # Dropout draws from torch's global generator; the caller's state of it is put back.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        encoder, tokenizer = load_encoder(weights_folder)
        encoder.get_input_embeddings().requires_grad_(False)
        head = torch.nn.Linear(int(encoder.config.hidden_size), len(names))
        torch.nn.init.normal_(head.weight, std=0.02)
        torch.nn.init.zeros_(head.bias)
        tokens = tokenize(tokenizer, texts, max_length=max_length)
        trainer = _Trainer(encoder, head, filler=tokenizer.pad_token_id or 0)
        batches = list(
            _epochs([len(row) for row in tokens], batch_size=batch_size, epochs=epochs, seed=seed)
        )
        trainer.prepare(steps=len(batches), learning_rate=learning_rate)
        with track(label, len(texts) * epochs) as advance:
            for rows in batches:
                trainer.step([tokens[row] for row in rows], targets[rows], importance[rows])
                advance(len(rows))
    return TextClassifier(
        classes=names,
        encoder=encoder.eval(),
        tokenizer=tokenizer,
        weight=head.weight.detach().numpy(),
        bias=head.bias.detach().numpy(),
        max_length=max_length,
    )


class _Trainer:
    """AdamW with a linear warm-up and a linear decay to 0."""

    def __init__(self, encoder: Any, head: Any, *, filler: int) -> None:
        self._encoder = encoder.train()
        self._head = head
        self._filler = filler

    def prepare(self, *, steps: int, learning_rate: float) -> None:
        """Make the optimizer for a number of steps."""
        import torch

        body = [p for p in self._encoder.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": body, "lr": learning_rate},
                {"params": list(self._head.parameters()), "lr": learning_rate * HEAD_RATE},
            ],
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )
        rise = max(1.0, WARM_UP * steps)

        def rate(step: int) -> float:
            return min((step + 1) / rise, (steps - step) / max(1.0, steps - rise))

        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, rate)

    def step(self, batch: list[np.ndarray], targets: Tensor, weights: Tensor) -> None:
        """Train on one batch; `weights` have mean 1 over all rows."""
        from torch.nn import functional

        ids, mask = pad(batch, self._filler)
        with mixed_precision():
            hidden = pooled(self._encoder, ids, mask)
        logits = self._head(functional.dropout(hidden, DROPOUT))
        loss = weighted_cross_entropy(logits, targets, weights, mean_weight=1.0)
        if not bool(loss.isfinite()):
            raise ModelError(
                f"fine-tuning diverged: the loss became {loss.item()}; lower the learning rate, or "
                "temper the weights (selection.weight_exponent)"
            )
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._schedule.step()


def _epochs(
    lengths: Sequence[int], *, batch_size: int, epochs: int, seed: int
) -> Iterator[np.ndarray]:
    """Yield the batches of all epochs: random rows, those of similar length together.

    Every row is in one batch per epoch. Batches are of nearly equal size, so that a row counts the
    same in each.
    """
    rng = np.random.default_rng(seed)
    length = np.asarray(lengths)
    n = len(length)
    for _ in range(epochs):
        order = rng.permutation(n)
        batches: list[np.ndarray] = []
        for bucket in np.array_split(order, max(1, round(n / (batch_size * BUCKET)))):
            ranked = bucket[np.argsort(length[bucket], kind="stable")]
            batches.extend(np.array_split(ranked, max(1, -(-len(ranked) // batch_size))))
        for at in rng.permutation(len(batches)):
            yield batches[at]

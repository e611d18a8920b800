"""Mean of a model's token table: no layers, for a first look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curation.encoders.base import EncoderError
from curation.encoders.batches import Tokens
from curation.encoders.weights import WEIGHTS

TABLES = ("word_embeddings.weight", "embed_tokens.weight", "wte.weight", "shared.weight")
"""How the token table's name ends, by family of models."""


class TokenTable:
    """Sums of rows of the token table."""

    name = "token table"
    positions = 2**31
    workers = 1

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        with safe_open(folder / WEIGHTS, framework="pt") as file:
            names = sorted(one for one in file.keys() if one.endswith(TABLES))  # noqa: SIM118
            if not names:
                raise EncoderError(
                    f"encoder type `static`: no token table in {folder / WEIGHTS} (a name that "
                    f"ends in {', '.join(TABLES)}); take type `text`"
                )
            self._table: NDArray[np.float32] = file.get_tensor(names[0]).float().numpy()
        self.dim = self._table.shape[1]

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        """Return (n, dim) float32 sums of the table's rows of n texts; 0 for a text without any."""
        out = np.zeros((len(tokens.lengths), self.dim), dtype=np.float32)
        there = np.flatnonzero(tokens.lengths)
        if len(there):
            rows = self._table[tokens.ids]
            out[there] = np.add.reduceat(rows, tokens.begins[there], axis=0)
        return out

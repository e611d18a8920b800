"""Embeddings of single sentences of film reviews: enough real points to cluster.

``python -m bench.sentences`` makes them; they are kept under ``data/bench``.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.harness import RESULTS
from bench.real import REVIEWS
from curation.config import Encoder
from curation.encoders import open_encoder
from curation.sources import open_source

ROWS = 50_000
SHORTEST = 30  # characters: what is shorter is no sentence


def sentence_texts(rows: int = ROWS) -> pl.Series:
    """Return random different sentences of the film reviews, the same in every run."""
    from pathlib import Path

    table = open_source(REVIEWS, dataset="bench", root=Path()).read("part-00")
    text = table["text"].str.replace_all(r"<br\s*/?>", " ")
    parts = text.str.split(". ").explode().str.strip_chars()
    parts = parts.filter(parts.str.len_chars() >= SHORTEST).unique(maintain_order=True)
    order = np.random.default_rng(0x73656E74).permutation(len(parts))[:rows]
    return parts.gather(order)


def sentence_embeddings(rows: int = ROWS) -> NDArray[np.float32]:
    """Return (rows, 384) embeddings of single sentences by MiniLM, kept from the first time on."""
    path = RESULTS / f"sentences-{rows}.npy"
    if not path.is_file():
        encoder = open_encoder(Encoder(type="text", max_length=64))
        found = encoder.encode(sentence_texts(rows))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, found)
        partial.replace(path)
    return np.asarray(np.load(path, allow_pickle=False))


if __name__ == "__main__":
    print(sentence_embeddings().shape)

"""The sentences that selection and clustering are timed on: real text, embedded once and kept.

Film reviews cut into sentences, short reviews, questions and news, each text once, in an order that
depends on nothing but the texts. They come with packages (``bench/real.py``).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench import real
from bench.harness import RESULTS
from curation.config import Encoder
from curation.encoders import open_encoder

ROWS = 50_000
MAX_LENGTH = 64
WORDS = (4, 60)
ENDS = r"([.!?]+[\"')]*)\s+"


def sentences(rows: int = ROWS) -> NDArray[np.float32]:
    """Return (rows, 384) float32 embeddings of length 1, read-only and mapped from :func:`path`.

    The first call encodes (minutes for 50,000 rows), every other one maps the file. The vectors are
    data here: they are made again when the texts change, not when the encoder does.
    """
    found: NDArray[np.float32] = np.load(path(rows), mmap_mode="r")
    return found


def path(rows: int = ROWS) -> Path:
    """Return the ``.npy`` file of :func:`sentences`, written first where it is missing."""
    size = f"{rows // 1000}k" if rows % 1000 == 0 else str(rows)
    file = RESULTS / f"sentences-{size}.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone(file.with_suffix(".lock")):
        chosen = texts(rows)
        wanted = {"texts": _digest(chosen), "max_length": MAX_LENGTH, "model": Encoder().model}
        note = file.with_suffix(".json")
        if file.is_file() and note.is_file() and json.loads(note.read_text()) == wanted:
            return file
        encoder = open_encoder(Encoder(type="text", max_length=MAX_LENGTH))
        vectors = encoder.encode(chosen, label=f"encode {rows:,} sentences")
        whole = file.with_suffix(".part.npy")
        np.save(whole, vectors)
        whole.replace(file)
        note.write_text(json.dumps(wanted, indent=1))
    return file


def texts(rows: int = ROWS) -> pl.Series:
    """Return (rows,) different texts in a fixed random order; fewer rows are the first of more.

    Raises
    ------
    ValueError
        If the packages hold fewer.
    """
    everything = _pool().unique(maintain_order=True)
    if rows > len(everything):
        raise ValueError(f"bench: {rows:,} sentences were asked for; there are {len(everything):,}")
    order = np.random.default_rng([0x656D62]).permutation(len(everything))
    return everything.gather(order[:rows]).alias("text")


def _pool() -> pl.Series:
    """Return all texts: questions, news, short reviews, and every eighth sentence of long ones."""
    reviews = real._table(real.REVIEWS)
    short = reviews.filter(pl.col("source") == "rotten_tomatoes")["text"]
    long = reviews.filter(pl.col("source") == "imdb")["text"].str.replace_all(r"<[^>]*>", " ")
    cut = long.str.replace_all(ENDS, "$1\n").str.split("\n").explode()
    cut = cut.str.strip_chars()
    words = cut.str.split(" ").list.len()
    cut = cut.filter((words >= WORDS[0]) & (words <= WORDS[1])).gather_every(8)
    news = real._table(real.R8)["text"].slice(4).str.strip_chars()
    return pl.concat([real._table(real.QUESTIONS)["text"], news, short.str.strip_chars(), cut])


def _digest(series: pl.Series) -> str:
    return hashlib.sha256("\n".join(series.to_list()).encode()).hexdigest()


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold a lock, so that two parts started together do not encode the same rows twice."""
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(path(), sentences().shape)

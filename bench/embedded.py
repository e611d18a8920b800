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
    """Return (rows,) different texts in a fixed random order; fewer rows are the first of more."""
    return table(rows)["text"]


def losses(rows: int = ROWS) -> NDArray[np.float64]:
    """Return (rows,) losses of a probe that learned where a text is from, of 400 of them.

    The score whose total is estimated: a real model's, cheap to have for all rows.
    """
    vectors, kinds = sentences(rows), table(rows)["kind"].to_numpy().astype(np.str_)
    learned = np.random.default_rng([1, 0x656D62]).permutation(rows)[: real.PROBE_ROWS]
    return real._probe(vectors, kinds, learned).score(vectors, kinds, value="loss")


def table(rows: int = ROWS) -> pl.DataFrame:
    """Return (rows,) `text` and `kind`, which says where the text is from and how it judges.

    Raises
    ------
    ValueError
        If the packages hold fewer.
    """
    everything = _pool().unique("text", keep="first", maintain_order=True)
    if rows > len(everything):
        raise ValueError(f"bench: {rows:,} sentences were asked for; there are {len(everything):,}")
    order = np.random.default_rng([0x656D62]).permutation(len(everything))
    return everything[order[:rows]]


def _pool() -> pl.DataFrame:
    """Return all texts: questions, news, short reviews, and every eighth sentence of long ones."""
    text, words = pl.col("text"), pl.col("text").str.split(" ").list.len()
    verdict = pl.col("source") + pl.lit(" ") + pl.col("label").cast(pl.String)
    reviews = real._table(real.REVIEWS).with_columns(kind=verdict)
    short = reviews.filter(pl.col("source") == "rotten_tomatoes")
    cut = text.str.replace_all(r"<[^>]*>", " ").str.replace_all(ENDS, "$1\n").str.split("\n")
    long = reviews.filter(pl.col("source") == "imdb").with_columns(cut).explode("text")
    long = long.with_columns(text.str.strip_chars()).filter(words.is_between(*WORDS))
    questions = real._table(real.QUESTIONS).with_columns(kind=pl.lit("question"))
    news = real._table(real.R8)[4:].with_columns(kind=pl.lit("news"))
    parts = [questions, news, short, long.gather_every(8)]
    return pl.concat([part.select("text", "kind") for part in parts]).with_columns(
        text.str.strip_chars()
    )


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

"""How fast text is encoded, against sentence-transformers with the same weights and threads.

``python -m bench.encode``: film reviews, 8,530 of a sentence or two, and 512 long ones cut at 256
tokens. Every row's cosine to sentence-transformers' float32 vector is bounded as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.harness import REPEATS, Ratio, Timings, finish, in_turn, machine, product_rate
from bench.real import REVIEWS
from curation.config import Encoder
from curation.encoders import EncoderError, RowEncoder, locate_weights, open_encoder
from curation.memory import MIB, peak
from curation.sources import open_source

MODEL = Encoder().model
SHORT, LONG = 8530, 512
KEPT = {"short": 128, "long": 256}
"""Tokens kept of a text."""
BOUNDS = {"short": 2.8, "long": 2.0}
COSINE = 0.999
ASIDE = 1000
"""Short texts that the other ways to encode are measured on."""

Vectors = NDArray[np.float32]


def reviews() -> dict[str, pl.Series]:
    """Return the short and the long texts, those of the data set ``reviews``."""
    source = _source(include=["rotten_tomatoes*", "imdb*"])
    keys = [shard.key for shard in source.shards()]
    found = {}
    for name, prefix, rows in (("short", "rotten", SHORT), ("long", "imdb", LONG)):
        frames = [source.read(key) for key in keys if key.startswith(prefix)][:9]
        found[name] = pl.concat(frames)["text"].head(rows)
    return found


def _source(include: list[str]) -> Any:
    config = REVIEWS.model_copy(
        update={"shard_by": "source", "rows_per_shard": 1067, "include": include}
    )
    return open_source(config, dataset="bench", root=Path())


class Peer:
    """``SentenceTransformer.encode`` as it comes: float32, batches of 32."""

    def __init__(self, max_length: int) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(locate_weights(MODEL)), device="cpu")
        self._model.max_seq_length = max_length

    def encode(self, texts: pl.Series) -> Vectors:
        return self._model.encode(texts.to_list(), show_progress_bar=False)


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Return (n,) cosines of two matrices' rows."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def compare(
    name: str, texts: pl.Series, repeats: int, figures: dict[str, Any]
) -> tuple[list[Ratio], Timings, Vectors]:
    """Return the ratios of one kind of text, the seconds, and the peer's vectors."""
    peer, ours = Peer(KEPT[name]), open_encoder(Encoder(max_length=KEPT[name]))
    found: dict[str, Vectors] = {}

    def keep(side: str, encode: Callable[[pl.Series], Vectors]) -> Callable[[], None]:
        def run() -> None:
            found[side] = encode(texts)

        return run

    sides = {"peer": keep("peer", peer.encode), "curation": keep("curation", ours.encode)}
    timed = in_turn(sides, repeats=repeats)
    least = float(cosines(found["peer"], found["curation"]).min())
    for side in sides:
        figures[f"{name}: rows a second, {side}"] = round(len(texts) / timed.median(side), 1)
    figures[f"{name}: tokens a text"] = round(_tokens(texts, KEPT[name]) / len(texts), 2)
    figures[f"{name}: batches"] = getattr(ours, "about", "")
    speed = Ratio(
        f"{name} texts: rows a second over sentence-transformers'",
        timed.ratio("peer", "curation"),
        BOUNDS[name],
        True,
        timed.spread("peer", "curation"),
    )
    same = Ratio(f"{name} texts: least cosine of a row to float32", least, COSINE, True)
    return [same, speed], timed, found["peer"]


def aside(texts: pl.Series, exact: Vectors, figures: dict[str, Any]) -> Timings:
    """Measure the other ways to encode short texts, on some of them."""
    opened: dict[str, RowEncoder] = {}
    for name, config in (
        ("bfloat16", Encoder(dtype="bfloat16")),
        ("float32", Encoder(dtype="float32")),
        ("onnx-int8", Encoder(backend="onnx-int8")),
        ("static", Encoder(type="static")),
    ):
        try:
            opened[name] = open_encoder(config)
        except EncoderError as error:
            figures[f"aside: {name}"] = str(error)
    sides = {name: (lambda e=encoder: e.encode(texts)) for name, encoder in opened.items()}
    timed = in_turn(sides, repeats=3)
    for name, encoder in opened.items():
        figures[f"aside: rows a second, {name}"] = round(len(texts) / timed.median(name), 1)
        if name != "static":
            found = cosines(encoder.encode(texts), exact)
            figures[f"aside: least and mean cosine to float32, {name}"] = [
                round(float(found.min()), 6),
                round(float(found.mean()), 6),
            ]
    return timed


def _tokens(texts: pl.Series, kept: int) -> int:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(locate_weights(MODEL)), local_files_only=True)
    found = tokenizer(texts.to_list(), truncation=True, max_length=kept)["input_ids"]
    return sum(map(len, found))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the ratios last, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="share of the texts, for a try")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args(arguments)
    before, figures = machine(), dict[str, Any]()
    texts = {
        name: one.head(max(8, round(len(one) * options.share))) for name, one in reviews().items()
    }
    ratios: list[Ratio] = []
    timings: dict[str, Timings] = {}
    exact: dict[str, Vectors] = {}
    for name, one in texts.items():
        print(f"{name}: {len(one):,} texts", file=sys.stderr)
        found, timings[name], exact[name] = compare(name, one, options.repeats, figures)
        ratios.extend(found)
    rows = min(ASIDE, len(texts["short"]))
    timings["aside"] = aside(texts["short"].head(rows), exact["short"][:rows], figures)
    figures["matrix product, multiply-adds a second"] = product_rate()
    figures["peak MiB"] = round(peak() / MIB)
    # The ratios that were promised come last.
    ratios.sort(key=lambda one: one.bound >= 1)
    return finish("encode", ratios, timings=timings, figures=figures, before=before)


if __name__ == "__main__":
    sys.exit(main())

"""What models are trained on: images, and texts as embeddings, each with a holdout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.experiment import Task
from bench.harness import RESULTS
from bench.real import FASHION, QUESTIONS, R8, REVIEWS
from curation.config import Encoder, Source
from curation.encoders import open_encoder
from curation.sources import SourceError, open_source

CACHE = RESULTS / "tasks"
HELD_SHARE = 0.2
MAX_LENGTH = {"questions": 64}  # tokens; of the others 128


def images() -> Task:
    """Fashion-MNIST: pixels, a network of 128 hidden units, 10 epochs."""
    if not (FASHION / "train-images-idx3-ubyte.gz").is_file():
        raise SourceError(
            f"bench: Fashion-MNIST is not in {FASHION}. Install Debian's package of it: "
            "apt-get install dataset-fashion-mnist"
        )
    parts = {}
    for part in ("train", "t10k"):
        config = Source(folder=str(FASHION), format="idx", include=[f"{part}-*"])
        frame = _read(config)
        pixels = open_encoder(Encoder(type="pixels")).encode(frame["image"], label="read pixels")
        parts[part] = (pixels, frame["label"].cast(pl.String).to_numpy().astype(np.str_))
    return Task("images", *parts["train"], *parts["t10k"], kind="mlp", by_features=True)


def texts(name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return training rows and holdout of texts, columns `text` and `label`.

    ``r8`` and ``r52`` are Reuters news of 8 classes (up to 69:1) and 52 (some with one document),
    with their own test documents; ``questions`` are TREC's, 50 fine classes of 2 to 784 rows, and
    ``reviews`` say in a sentence or two whether a film is good or bad: of both a fifth is held out.
    """
    if name in ("r8", "r52"):
        files = [f"datasets/reuters-{name}-{part}.tab" for part in ("train", "test")]
        train, held = (_reuters(R8.model_copy(update={"file": file})) for file in files)
        return train, held
    if name == "questions":
        return _split(_read(QUESTIONS))
    short = _read(REVIEWS).filter(pl.col("source") == "rotten_tomatoes")
    return _split(short.with_columns(pl.col("label").cast(pl.String)))


def embedded(name: str) -> Task:
    """Return a task on the embeddings of texts, which are kept for the next time."""
    path = CACHE / f"{name}.npz"
    if not path.is_file():
        encoder = open_encoder(Encoder(type="text", max_length=MAX_LENGTH.get(name, 128)))
        arrays = {}
        for part, frame in zip(("", "held_"), texts(name), strict=True):
            arrays[f"{part}x"] = encoder.encode(frame["text"], label=f"encode {name}")
            arrays[f"{part}y"] = _labels(frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp.npz")
        np.savez(unfinished, **arrays)
        unfinished.replace(path)
    with np.load(path, allow_pickle=False) as kept:
        x, y, held_x, held_y = (kept[key] for key in ("x", "y", "held_x", "held_y"))
    return Task(name, x, y, held_x, held_y, kind="probe", value="loss")


TEXTS = ("r8", "r52", "questions", "reviews")
TASKS: dict[str, Callable[[], Task]] = {
    "images": images,
    **{name: partial(embedded, name) for name in TEXTS},
}


def _read(config: Source) -> pl.DataFrame:
    source = open_source(config, dataset="bench", root=Path())
    return pl.concat(source.read(shard.key) for shard in source.shards())


def _reuters(config: Source) -> pl.DataFrame:
    # names, types and roles of the columns come first, then an empty line
    return _read(config)[4:].with_columns(pl.col("text").str.strip_chars())


def _split(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    order = np.random.default_rng(0x686F6C64).permutation(len(frame))
    held = round(HELD_SHARE * len(frame))
    return frame[np.sort(order[held:])], frame[np.sort(order[:held])]


def _labels(frame: pl.DataFrame) -> NDArray[np.str_]:
    return frame["label"].cast(pl.String).to_numpy().astype(np.str_)

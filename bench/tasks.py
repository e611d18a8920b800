"""What models are trained on: images, and texts as embeddings, each with a holdout."""

from __future__ import annotations

from collections.abc import Callable
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


def r8() -> Task:
    """Reuters R8: 8 classes, up to 69:1; its own test documents."""
    test = R8.model_copy(update={"file": "datasets/reuters-r8-test.tab"})
    return _texts("r8", _reuters(R8), _reuters(test))


def r52() -> Task:
    """Reuters R52: 52 classes, some with one document."""
    train = R8.model_copy(update={"file": "datasets/reuters-r52-train.tab"})
    test = R8.model_copy(update={"file": "datasets/reuters-r52-test.tab"})
    return _texts("r52", _reuters(train), _reuters(test))


def questions() -> Task:
    """TREC questions: 50 fine classes of 2 to 784 rows; a fifth is held out."""
    return _texts("questions", *_split(_read(QUESTIONS)), max_length=64)


def reviews() -> Task:
    """Film reviews of two sources, good or bad; a fifth is held out."""
    frame = _read(REVIEWS).with_columns(pl.col("label").cast(pl.String))
    return _texts("reviews", *_split(frame))


TASKS: dict[str, Callable[[], Task]] = {
    "images": images,
    "r8": r8,
    "r52": r52,
    "questions": questions,
    "reviews": reviews,
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


def _texts(name: str, train: pl.DataFrame, held: pl.DataFrame, *, max_length: int = 128) -> Task:
    """Return a task on the embeddings of texts, which are kept for the next time."""
    path = CACHE / f"{name}.npz"
    if not path.is_file():
        encoder = open_encoder(Encoder(type="text", max_length=max_length))
        arrays = {}
        for part, frame in (("", train), ("held_", held)):
            arrays[f"{part}x"] = encoder.encode(frame["text"], label=f"encode {name}")
            arrays[f"{part}y"] = _labels(frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp.npz")
        np.savez(unfinished, **arrays)
        unfinished.replace(path)
    with np.load(path, allow_pickle=False) as kept:
        x, y, held_x, held_y = (kept[key] for key in ("x", "y", "held_x", "held_y"))
    return Task(name, x, y, held_x, held_y, kind="probe", value="loss")


def _labels(frame: pl.DataFrame) -> NDArray[np.str_]:
    return frame["label"].cast(pl.String).to_numpy().astype(np.str_)

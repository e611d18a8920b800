"""What an encoder's output depends on, as one hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from curation.config import Encoder
from curation.encoders.base import EncoderError
from curation.encoders.weights import WEIGHTS, locate_weights, weights_identity

VERSION = 1
"""Raised when the same settings begin to give other numbers."""

CPUINFO = Path("/proc/cpuinfo")


def encoder_fingerprint(config: Encoder, *, trained: Path | None = None) -> str:
    """Return the fingerprint of the encoder `config` describes, without loading it.

    It holds the identity of the weights, the tokens kept per row and the number format, after
    ``auto`` has been decided for this processor. `batch_tokens` is left out: it changes speed and
    memory, and the numbers by rounding only.

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
    parts: dict[str, object] = {"version": VERSION, "type": config.type}
    if config.type == "text":
        parts["weights"] = weights_identity(locate_weights(config.model))
        parts["max_length"] = config.max_length
        parts["dtype"] = resolve_dtype(config.dtype)
    elif config.type == "mlp" and trained is None:
        parts.update(hidden=config.hidden, train_rows=config.train_rows)
    elif config.type == "mlp" and trained is not None:
        if not (trained / WEIGHTS).is_file():
            raise EncoderError(f"encoder type `mlp`: no {WEIGHTS} in {trained}; train it first")
        parts["weights"] = weights_identity(trained)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def resolve_dtype(dtype: str) -> str:
    """Return ``float32`` or ``bfloat16``; ``auto`` is decided by the processor.

    bfloat16 is about twice as fast where the processor multiplies it natively (``avx512_bf16`` or
    ``amx_bf16`` in ``/proc/cpuinfo``) and far slower where it does not.
    """
    if dtype != "auto":
        return dtype
    try:
        text = CPUINFO.read_text(errors="replace")
    except OSError:
        return "float32"
    for line in text.splitlines():
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            return "bfloat16" if flags & {"avx512_bf16", "amx_bf16"} else "float32"
    return "float32"

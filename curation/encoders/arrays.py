"""Encoders of rows that are arrays already: pixels and precomputed vectors."""

from __future__ import annotations

import numpy as np
import polars as pl

from curation.config import Encoder
from curation.encoders.base import EncoderError, name_of, refuse_nulls
from curation.encoders.fingerprint import encoder_fingerprint
from curation.progress import track


class PixelEncoder:
    """Pixels as they are: uint8 to [0, 1], flattened."""

    def __init__(self, config: Encoder) -> None:
        self.dim = 0
        self.fingerprint = encoder_fingerprint(config)

    def encode(self, inputs: pl.Series, *, label: str = "encode") -> np.ndarray:
        """Encode (n,) Array or List of uint8, nested as deep as you like, to (n, dim) float32."""
        with track(label, len(inputs)) as advance:
            matrix = pixels(inputs)
            self.dim = _same_width(self.dim, matrix, inputs)
            advance(len(inputs))
        return matrix


class PrecomputedEncoder:
    """Vectors that were computed elsewhere."""

    def __init__(self, config: Encoder) -> None:
        self.dim = 0
        self.fingerprint = encoder_fingerprint(config)

    def encode(self, inputs: pl.Series, *, label: str = "encode") -> np.ndarray:
        """Encode (n,) List or Array of floats to (n, dim) float32; every number must be finite."""
        with track(label, len(inputs)) as advance:
            flat = _flatten(inputs)
            if flat.size and not np.issubdtype(flat.dtype, np.floating):
                raise EncoderError(
                    f"{name_of(inputs)}: precomputed vectors are List or Array of floats, "
                    f"not {inputs.dtype}; cast them, e.g. to List(Float32)"
                )
            # A float64 beyond float32's range becomes infinite, and is refused as such.
            with np.errstate(over="ignore"):
                matrix = np.ascontiguousarray(flat, dtype=np.float32)
            bad = ~np.isfinite(matrix).all(axis=1)
            if bad.any():
                raise EncoderError(
                    f"{name_of(inputs)}, row {int(bad.argmax())}: the vector holds NaN, an "
                    "infinity or a number beyond float32; drop the row or mend its vector"
                )
            self.dim = _same_width(self.dim, matrix, inputs)
            advance(len(inputs))
        return matrix


def pixels(inputs: pl.Series) -> np.ndarray:
    """Return (n, dim) float32 in [0, 1] from (n,) arrays of uint8.

    Raises
    ------
    EncoderError
        If the values are not uint8, a value is missing, or rows differ in size.
    """
    flat = _flatten(inputs)
    if flat.size and flat.dtype != np.uint8:
        raise EncoderError(
            f"{name_of(inputs)}: pixels are List or Array of UInt8, not {inputs.dtype}; cast them"
        )
    matrix = flat.astype(np.float32)
    matrix /= np.float32(255.0)
    return matrix


def _flatten(inputs: pl.Series) -> np.ndarray:
    """Return (n, width) of the innermost type, from lists or arrays nested to any depth."""
    refuse_nulls(inputs)
    if not isinstance(inputs.dtype, pl.List | pl.Array):
        raise EncoderError(
            f"{name_of(inputs)}: expected one List or Array a row, found {inputs.dtype}; "
            "choose the column of vectors as columns.input, or an encoder of type text"
        )
    width, values = 1, inputs
    if not len(inputs):
        return np.zeros((0, 0), dtype=np.float32)
    while isinstance(values.dtype, pl.List | pl.Array):
        if isinstance(values.dtype, pl.Array):
            length = values.dtype.size
        else:
            lengths = values.list.len()
            length = int(lengths[0])
            if not (lengths == length).all():
                at = int((lengths != length).arg_max() or 0)
                raise EncoderError(
                    f"{name_of(inputs)}, row {at // width}: {lengths[at]} values where row 0 has "
                    f"{length}; all rows need the same size"
                )
        if length == 0:
            raise EncoderError(f"{name_of(inputs)}, row 0: an empty list; drop the empty rows")
        width *= length
        values = values.explode()
        if values.null_count():
            at = int(values.is_null().arg_max() or 0)
            raise EncoderError(
                f"{name_of(inputs)}, row {at // width}: a value is missing (null) inside the row"
            )
    return values.to_numpy().reshape(len(inputs), width)


def _same_width(known: int, matrix: np.ndarray, inputs: pl.Series) -> int:
    if not len(matrix):
        return known
    if known and matrix.shape[1] != known:
        raise EncoderError(
            f"{name_of(inputs)}: rows of {matrix.shape[1]} values where earlier ones had {known}; "
            "all shards of a data set need the same size"
        )
    return matrix.shape[1]

"""What every encoder is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import polars as pl


class EncoderError(Exception):
    """An encoder cannot be opened, or cannot encode a row."""


class RowEncoder(Protocol):
    """Turns rows into vectors.

    Attributes
    ----------
    dim : int
        Width of the embedding. Encoders that take their width from the data (``pixels``,
        ``precomputed``) say 0 until they have encoded a row.
    fingerprint : str
        Hash of the weights and of every setting that changes the output.
    """

    dim: int
    fingerprint: str

    def encode(self, inputs: pl.Series, *, label: str = "encode") -> np.ndarray:
        """Encode rows.

        Parameters
        ----------
        inputs : polars.Series
            (n,) inputs of the kind the encoder takes.
        label : str
            What progress is reported under.

        Returns
        -------
        numpy.ndarray
            (n, dim) float32, rows in the order of `inputs`.

        Raises
        ------
        EncoderError
            If a row cannot be encoded; the message names the column, the row and the remedy.
        """
        ...


def name_of(inputs: pl.Series) -> str:
    """Return how error messages call the column of `inputs`."""
    return f"column {inputs.name!r}" if inputs.name else "inputs"


def refuse_nulls(inputs: pl.Series) -> None:
    """Raise :class:`EncoderError` naming the first row without a value, if there is one."""
    if inputs.null_count():
        row = inputs.is_null().arg_max()
        raise EncoderError(
            f"{name_of(inputs)}, row {row}: no value (null); drop the row or fill it in"
        )

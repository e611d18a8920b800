"""Texts of which only the beginning is tokenised."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest

from curation.config import Encoder
from curation.encoders import open_encoder, tokens


@pytest.fixture(scope="module")
def encoder():
    return open_encoder(Encoder(type="text", max_length=16))


def test_the_beginning_is_enough_where_it_is_and_only_there(encoder, monkeypatch):
    """Blanks are no tokens, and a word is one however long it is."""
    texts = ["word " * 2000, " " * 9000 + "hello", "x" * 9000 + " and more", "short", "é " * 9000]
    cut = encoder.encode(pl.Series(texts))
    monkeypatch.setattr(tokens, "CHARACTERS_PER_TOKEN", 10**6)
    assert np.array_equal(cut, encoder.encode(pl.Series(texts)))


def test_ten_megabytes_are_a_moment(encoder):
    began = time.monotonic()
    encoder.encode(pl.Series(["word " * 2_000_000]))
    assert time.monotonic() - began < 5.0

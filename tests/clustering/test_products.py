"""Products of rounded numbers."""

from __future__ import annotations

import time

import numpy as np
import pytest

from curation import products


def bits_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits of bfloat16, and the numbers they are."""
    out = np.empty(values.shape, dtype=np.int16)
    return out, products.to_bfloat16(values.astype(np.float32, copy=False), out=out)


def test_bfloat16_is_rounded_to_the_nearest_even(rng):
    values = np.concatenate([rng.normal(size=1000), [1 + 2**-8, 1 + 3 * 2**-8, 0.0, 1e-30]])
    values = values.astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)
    assert np.array_equal(bits_of(values)[1], expected.view(np.float32))


def test_arrays_that_are_read_only_are_rounded_where_they_cannot_be_shared(rng, monkeypatch):
    """As NumPy 2.0 and older versions of torch have it."""
    torch = pytest.importorskip("torch")
    values = rng.normal(size=(20, 30)).astype(np.float32)
    values.flags.writeable = False
    expected = bits_of(values)[0]

    def refuse(_: object) -> None:
        raise BufferError("read-only")

    monkeypatch.setattr(torch, "from_dlpack", refuse)
    assert np.array_equal(bits_of(values)[0], expected)


def test_bits_towards_zero_are_the_next_below(rng):
    """Never above, and not farther below than neighbours are apart."""
    values = np.append(np.exp(rng.normal(scale=20, size=2000)), [1.0, 0.0, 2.0**-130])
    found = products.from_bfloat16(products.towards_zero(values)).astype(np.float64)
    assert (found <= values).all()
    above = values[:2001] * (1 - 2.0**-7) - 1e-40
    assert (found[:2001] >= above).all()


def test_bits_that_are_not_negative_are_in_order(rng):
    bits, numbers = bits_of(rng.exponential(size=3000))
    order = np.argsort(bits, kind="stable")
    assert (np.diff(numbers[order]) >= 0).all()
    assert products.from_bfloat16(np.array([products.ONE]))[0] == 1.0


def test_products_of_bfloat16_are_summed_in_float32(rng):
    """Their error is that of 400 sums in float32, and that of rounding the result."""
    (left, few), (right, many) = (
        bits_of(rng.normal(size=size)) for size in ((300, 400), (400, 500))
    )
    out = np.empty((300, 500), dtype=np.int16)
    products.halves(left, right, out=out)
    exact = few.astype(np.float64) @ many
    most = 400 * 2.0**-24 * np.abs(few).astype(np.float64) @ np.abs(many)
    assert (np.abs(products.from_bfloat16(out) - exact) <= most + 2.0**-8 * np.abs(exact)).all()


def test_a_slow_kind_is_not_tried_often(monkeypatch):
    """An emulated product may take a second."""
    calls = []
    monkeypatch.setattr(products, "_timed", lambda run: (run(), 0.06)[1])
    products._best(lambda: calls.append(1))
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("float32", "bfloat16", "in_bytes", "expected"),
    [
        (1.0, 0.9, 0.8, "float32"),
        (1.0, 0.5, 0.3, "bfloat16"),
        (1.0, 0.5, 0.2, "bytes"),
        (1.0, float("inf"), 0.5, "bytes"),
        (1.0, float("inf"), float("inf"), "float32"),
    ],
)
def test_the_fastest_kind_is_taken(monkeypatch, float32, bfloat16, in_bytes, expected):
    seconds = {"float32": float32, "bfloat16": bfloat16, "bytes": in_bytes}
    monkeypatch.setattr(products, "_seconds", lambda: seconds)
    assert products.fastest(1e13) == expected


def test_an_emulated_kind_is_not_taken(monkeypatch):
    """Nor tried for long: an eighth of a second a product would be a second for seven."""
    pytest.importorskip("torch")
    real = products.halves

    def slow(left: np.ndarray, right: np.ndarray, *, out: np.ndarray) -> None:
        time.sleep(len(left) / 512)
        real(left, right, out=out)

    monkeypatch.setattr(products, "halves", slow)
    products._seconds.cache_clear()
    try:
        assert products._seconds()["bfloat16"] == float("inf")
        assert np.isfinite(products._seconds()["float32"])
    finally:
        products._seconds.cache_clear()

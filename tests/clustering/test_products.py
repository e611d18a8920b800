"""Products of rounded numbers, and the switch that torch has for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from curation import products


def test_bfloat16_is_rounded_to_the_nearest_even(rng):
    values = np.concatenate([rng.normal(size=1000), [1 + 2**-8, 1 + 3 * 2**-8, 0.0, 1e-30]])
    values = values.astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)
    assert np.array_equal(products.to_bfloat16(values), expected.view(np.float32))


def test_products_of_bfloat16_are_summed_in_float32(rng):
    """Their error is that of 400 sums in float32, not that of bfloat16, 65,536 times as much."""
    left, right = (
        products.to_bfloat16(rng.normal(size=shape).astype(np.float32))
        for shape in ((300, 400), (400, 500))
    )
    out = np.empty((300, 500), dtype=np.float32)
    products.halves(left, right, out=out)
    exact = left.astype(np.float64) @ right
    most = 400 * 2.0**-24 * np.abs(left).astype(np.float64) @ np.abs(right)
    assert (np.abs(out - exact) <= most).all()


def test_the_switch_is_thrown_back(rng):
    """Also where threads ask at the same time, and where a product fails."""
    torch = pytest.importorskip("torch")
    before = torch.backends.mkldnn.matmul.fp32_precision
    one = rng.normal(size=(200, 300)).astype(np.float32)

    def often(_: int) -> None:
        out = np.empty((200, 200), dtype=np.float32)
        for _ in range(200):
            products.halves(one, one.T.copy(), out=out)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(often, range(4)))
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    with pytest.raises(RuntimeError):
        products.halves(one, one, out=one)
    assert torch.backends.mkldnn.matmul.fp32_precision == before


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

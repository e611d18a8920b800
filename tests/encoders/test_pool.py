"""Batches side by side: order, errors, and the size that is measured."""

from __future__ import annotations

import threading
import time

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from curation.config import Encoder
from curation.encoders import blocks, tokens
from curation.encoders.batches import Tokens
from curation.encoders.blocks import Pool
from curation.encoders.loading import load_tokenizer
from curation.encoders.tokens import Tokenizer
from curation.encoders.weights import locate_weights


class Fake:
    """Vectors that tell which tokens they are of."""

    name = "fake"
    dim = 2
    positions = 512

    def __init__(self, workers: int = 0, seconds: float = 0.0) -> None:
        self.workers = workers
        self.seconds = seconds
        self.sizes: list[int] = []

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        assert (np.diff(tokens.lengths) >= 0).all()
        self.sizes.append(len(tokens.ids))
        time.sleep(self.seconds)
        parts = np.split(tokens.ids, tokens.begins[1:-1])
        return np.array([(part.sum(), len(part)) for part in parts], dtype=np.float32)


def some_blocks(*, rows: int, count: int) -> tuple[list[tuple[int, Tokens]], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 50, size=size).tolist() for size in rng.integers(1, 40, rows * count)]
    parts = [(at, Tokens.of(texts[at : at + rows])) for at in range(0, len(texts), rows)]
    return parts, np.array([(sum(one), len(one)) for one in texts], dtype=np.float32)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("budget", [None, 64, 5000])
def test_rows_come_back_in_their_order(workers: int, budget: int | None) -> None:
    parts, expected = some_blocks(rows=3000, count=3)
    out, done = np.full_like(expected, np.nan), []
    Pool(Fake(workers), budget).run(iter(parts), out, done.append)
    np.testing.assert_array_equal(out, expected)
    assert sum(done) == len(expected)


def test_the_size_of_batches_is_measured_once(caplog: pytest.LogCaptureFixture) -> None:
    """What costs the same however large it is is cheapest in large batches."""
    parts, expected = some_blocks(rows=4000, count=2)
    pool = Pool(Fake(workers=1, seconds=0.005))
    with caplog.at_level("INFO", logger="curation.encoders"):
        pool.run(iter(parts), np.empty_like(expected), lambda rows: None)
    assert pool.budget == max(blocks.BUDGETS)
    assert set(pool.cost) == set(blocks.BUDGETS)
    assert caplog.text.count("us a token") == len(blocks.BUDGETS)
    small = Pool(Fake())
    small.run(iter([(0, Tokens.of([[1]] * 50))]), np.empty((50, 2), np.float32), lambda rows: None)
    assert small.budget is None  # too little to tell


def test_little_work_is_shared() -> None:
    fake = Fake(workers=2)
    Pool(fake).run(
        iter([(0, Tokens.of([[1, 2, 3, 4]] * 64))]),
        np.empty((64, 2), np.float32),
        lambda rows: None,
    )
    assert fake.sizes == [128, 128]


def test_batches_are_computed_side_by_side() -> None:
    """Each of two batches waits for the other, which one after the other would be for ever."""
    meeting = threading.Barrier(2)

    class Meeting(Fake):
        def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
            meeting.wait(timeout=20)
            return super().__call__(tokens)

    out = np.empty((64, 2), np.float32)
    Pool(Meeting(workers=2)).run(iter([(0, Tokens.of([[1, 2, 3, 4]] * 64))]), out, [].append)


def test_an_error_ends_the_work() -> None:
    class Broken(Fake):
        def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
            super().__call__(tokens)
            raise RuntimeError("no memory")

    parts, expected = some_blocks(rows=3000, count=3)
    fake = Broken(workers=1, seconds=0.001)
    with pytest.raises(RuntimeError, match="no memory"):
        Pool(fake, 64).run(iter(parts), np.empty_like(expected), lambda rows: None)
    assert len(fake.sizes) < 500  # of thousands


def test_blocks_are_tokenised_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "BLOCK", 4)
    tokenizer = load_tokenizer(locate_weights(Encoder().model))
    texts = pl.Series([f"number {i} " * (i + 1) for i in range(10)])
    found = list(Tokenizer(tokenizer, 8).blocks(texts))
    assert [begin for begin, _ in found] == [0, 4, 8]
    lengths = np.concatenate([block.lengths for _, block in found])
    assert lengths.tolist() == [4, 6, *[8] * 8]
    expected = tokenizer(texts.to_list(), truncation=True, max_length=8)["input_ids"]
    assert np.concatenate([b.ids for _, b in found]).tolist() == [
        one for ids in expected for one in ids
    ]
    monkeypatch.setattr(Tokenizer, "tokens", lambda self, texts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(Tokenizer(tokenizer, 8).blocks(texts))


def test_tokenizers_without_a_backend_are_called_as_they_are() -> None:
    fast = load_tokenizer(locate_weights(Encoder().model))

    class Slow:
        pad_token_id = 0

        def __call__(self, texts: list[str], **options: object) -> dict[str, list[list[int]]]:
            return {"input_ids": fast(texts, **options)["input_ids"]}

    texts = pl.Series(["a few words", "x " * 5000, " " * 5000 + "y"])
    slow = Tokenizer(Slow(), 16).tokens(texts)
    quick = Tokenizer(load_tokenizer(locate_weights(Encoder().model)), 16).tokens(texts)
    assert slow.ids.tolist() == quick.ids.tolist()
    assert slow.begins.tolist() == quick.begins.tolist()

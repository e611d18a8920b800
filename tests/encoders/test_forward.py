"""Packed batches against transformers, and what happens where they differ."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curation.config import Encoder
from curation.encoders import (
    EncoderError,
    encoder_fingerprint,
    forward,
    locate_weights,
    open_encoder,
)
from curation.encoders.batches import Tokens, length_batches
from curation.encoders.loading import resolve_device

TEXTS = pl.Series(
    "text",
    ["one", "", "two words", "a b", *(f"row {i} " * (i % 7 + 1) for i in range(60)), "long " * 300],
)


def save_small(folder: Path, kind: str = "bert", **changes: object) -> Path:
    """Write a model of two layers with random weights, and its tokenizer, into `folder`."""
    import torch
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    sizes = {"vocab_size": 30522}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "bert":
            sizes |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
            config = BertConfig(**sizes, num_attention_heads=4, initializer_range=0.3, **changes)
            model = BertModel(config)
        else:
            config = DistilBertConfig(**sizes, dim=32, hidden_dim=64, n_layers=2, n_heads=4)
            model = DistilBertModel(config)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(locate_weights(Encoder().model) / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("bert"))


def plain_vectors(folder: Path, texts: pl.Series, *, max_length: int) -> np.ndarray:
    """Mean token vectors, one text at a time, by transformers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model = AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
    rows = []
    for text in texts:
        block = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            asked = {name: block[name] for name in ("input_ids", "attention_mask")}
            mean = model(**asked).last_hidden_state[0].mean(0).numpy()
        rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows)


@pytest.mark.parametrize("budget", [64, 500, 100_000])
def test_packed_batches_are_what_transformers_gives(small_bert: Path, budget: int) -> None:
    config = Encoder(model=str(small_bert), dtype="float32", batch_tokens=budget, max_length=40)
    encoder = open_encoder(config)
    assert encoder.about.startswith("packed batches")
    expected = plain_vectors(small_bert, TEXTS, max_length=40)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-6)


@pytest.mark.parametrize("number", ["float32", "bfloat16"])
def test_a_vector_does_not_depend_on_its_company(small_bert: Path, number: str) -> None:
    encoder = open_encoder(Encoder(model=str(small_bert), dtype=number))
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode(TEXTS[row : row + 1]) for row in range(len(TEXTS))])
    rounding = {"float32": 2e-6, "bfloat16": 2e-2}[number]
    np.testing.assert_allclose(together, alone, atol=rounding)
    np.testing.assert_array_equal(together, encoder.encode(TEXTS))


def test_threads_do_not_change_vectors(small_bert: Path) -> None:
    import torch

    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            encoder = open_encoder(Encoder(model=str(small_bert), batch_tokens=128))
            found.append(encoder.encode(TEXTS))
            assert torch.get_num_threads() == threads  # the workers' setting is theirs alone
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("change", ["distilbert", "relu"])
def test_other_architectures_are_computed_by_transformers(change: str, tmp_path: Path) -> None:
    relu = {"hidden_act": "relu"} if change == "relu" else {}
    save_small(tmp_path, "bert" if relu else "distilbert", **relu)
    encoder = open_encoder(Encoder(model=str(tmp_path), dtype="float32"))
    assert encoder.about.startswith("padded batches")
    expected = plain_vectors(tmp_path, TEXTS, max_length=128)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-6)


def test_packed_batches_that_differ_are_not_taken(
    small_bert: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = forward.PackedBert.__call__
    monkeypatch.setattr(
        forward.PackedBert, "__call__", lambda self, tokens: right(self, tokens)[::-1]
    )
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(Encoder(model=str(small_bert), dtype="float32"))
    assert "packed batches give other vectors" in caplog.text
    expected = plain_vectors(small_bert, TEXTS, max_length=128)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-6)


def test_packed_batches_that_fail_are_not_taken(
    small_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, model: object, number: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(forward.PackedBert, "__init__", fail)
    encoder = open_encoder(Encoder(model=str(small_bert), dtype="float32"))
    assert encoder.about.startswith("padded batches")


def test_products_without_onednn_are_the_same(
    small_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curation.encoders import packed

    monkeypatch.setattr(packed, "_onednn", lambda number: False)
    encoder = open_encoder(Encoder(model=str(small_bert), dtype="float32"))
    assert encoder.about.startswith("packed batches")
    expected = plain_vectors(small_bert, TEXTS, max_length=128)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-6)


def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [resolve_device(one) for one in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(EncoderError, match=r"encoder\.device `cuda`: torch finds no GPU"):
        resolve_device("cuda")


def test_tokens_are_taken_and_padded() -> None:
    rows = [[5, 6, 7], [], [8], [9, 10]]
    tokens = Tokens.of(rows)
    taken = tokens.take(np.array([3, 1, 0]))
    assert [one.tolist() for one in np.split(taken.ids, taken.begins[1:-1])] == [
        [9, 10],
        [],
        [5, 6, 7],
    ]
    ids, mask = tokens.padded(99)
    assert ids.tolist() == [[5, 6, 7], [99, 99, 99], [8, 99, 99], [9, 10, 99]]
    assert (ids != 99).astype(int).tolist() == mask.tolist()


@pytest.mark.parametrize("budget", [1, 7, 64, 10_000])
def test_length_batches_hold_every_row_once(budget: int) -> None:
    lengths = np.random.default_rng(0).integers(0, 30, size=200)
    batches = list(length_batches(lengths, budget=budget))
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(200))
    np.testing.assert_array_equal(order, np.argsort(lengths, kind="stable"))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * max(lengths[rows].max(), 1) <= budget


# ---- the token table


def test_static_vectors_are_means_of_the_token_table(small_bert: Path) -> None:
    from safetensors.numpy import load_file
    from transformers import AutoTokenizer

    config = Encoder(type="static", model=str(small_bert), max_length=64)
    encoder = open_encoder(config)
    found = encoder.encode(TEXTS)
    table = load_file(small_bert / "model.safetensors")["embeddings.word_embeddings.weight"]
    tokenizer = AutoTokenizer.from_pretrained(str(small_bert), local_files_only=True)
    for row, text in enumerate(TEXTS):
        ids = tokenizer(text, add_special_tokens=False, truncation=True, max_length=64)["input_ids"]
        mean = table[ids].mean(0) if ids else np.zeros(32)
        norm = np.linalg.norm(mean)
        np.testing.assert_allclose(found[row], mean / max(norm, 1e-12), atol=1e-6)
    assert encoder.fingerprint == encoder_fingerprint(config)
    assert encoder.fingerprint != encoder_fingerprint(Encoder(model=str(small_bert), max_length=64))
    with pytest.raises(EncoderError, match="encoder type `static` takes strings"):
        encoder.encode(pl.Series([1]))


def test_weights_without_a_token_table_are_refused(small_bert: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    for path in small_bert.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_file({"x": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match="no token table"):
        open_encoder(Encoder(type="static", model=str(tmp_path)))


# ---- eight bits


def test_int8_is_near_and_kept(
    small_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = Encoder(model=str(small_bert), backend="onnx-int8")
    encoder = open_encoder(config)
    (graph,) = (tmp_path / "curation").glob("int8-*.onnx")
    made = graph.stat().st_mtime_ns
    found = encoder.encode(TEXTS)
    expected = plain_vectors(small_bert, TEXTS, max_length=128)
    assert (found * expected).sum(1).min() > 0.97
    alone = open_encoder(config).encode(TEXTS[5:6])
    assert graph.stat().st_mtime_ns == made
    np.testing.assert_allclose(alone[0], found[5], atol=1e-6)
    others = {
        encoder_fingerprint(Encoder(model=str(small_bert), dtype=d))
        for d in ("float32", "bfloat16")
    }
    assert encoder.fingerprint not in others


def test_a_missing_package_is_named(small_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EncoderError, match=r"pip install 'curation\[onnx\]'"):
        open_encoder(Encoder(model=str(small_bert), backend="onnx-int8"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "static", "backend": "onnx-int8"},
        {"backend": "onnx-int8", "device": "cuda"},
        {"backend": "onnx-int8", "dtype": "bfloat16"},
        {"batch_tokens": 63},
        {"batch_tokens": "many"},
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"onnx-int8|batch_tokens"):
        Encoder(**wrong)

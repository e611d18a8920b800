"""Pilot models against values worked out by hand and by finite differences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curation.models import (
    FittedPilot,
    ModelError,
    evaluate,
    fit_image_classifier,
    fit_pilot,
    load_pilot,
    weighted_cross_entropy,
)


def blobs(
    n: int = 240, *, classes: int = 3, spread: float = 0.6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    numbers = np.arange(n) % classes
    centres = np.eye(classes, 5)[numbers] * 2
    X = (centres + spread * rng.normal(size=(n, 5))).astype(np.float32)
    return X, np.array(["red", "green", "blue", "grey"])[numbers]


def tiny(*, seen: np.ndarray | None = None) -> FittedPilot:
    return FittedPilot(
        "probe",
        "classification",
        ("a", "b"),
        np.array([[1.0, 0.0], [0.0, 1.0]]),
        np.array([0.0, 0.5]),
        seen=seen,
    )


def test_importing_is_cheap() -> None:
    code = (
        "import sys, curation.models; "
        "assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- scores


def test_scores_by_hand() -> None:
    X = np.array([[1.0, 2.0]], dtype=np.float32)
    p_a = 1.0 / (1.0 + np.exp(1.5))  # logits 1.0 and 2.5
    loss = tiny().score(X, np.array(["a"]), value="loss")
    assert loss == pytest.approx([-np.log(p_a)])
    norm = tiny().score(X, np.array(["a"]), value="gradient_norm")
    assert norm == pytest.approx([np.sqrt(2) * (1 - p_a) * np.sqrt(6)])
    np.testing.assert_allclose(tiny().residuals(X, np.array(["a"])), [[p_a - 1, 1 - p_a]])


@pytest.mark.parametrize("kind", ["probe", "mlp"])
def test_gradient_norm_is_that_of_the_loss(kind: str) -> None:
    """Central differences over every entry of the last layer."""
    X, y = blobs()
    model = fit_pilot(kind, X, y, task="classification", epochs=3)  # type: ignore[arg-type]
    hidden = model.features(X[:3]).astype(np.float64)
    for row in range(3):
        total = 0.0
        stacked = np.column_stack([model.weight, model.bias]).astype(np.float64)
        extended = np.append(hidden[row], 1.0)
        at = model.classes.index(str(y[row]))

        def loss(matrix: np.ndarray, extended: np.ndarray = extended, at: int = at) -> float:
            z = matrix @ extended
            return float(np.log(np.exp(z - z.max()).sum()) + z.max() - z[at])

        for entry in np.ndindex(*stacked.shape):
            step = np.zeros_like(stacked)
            step[entry] = 1e-5
            total += ((loss(stacked + step) - loss(stacked - step)) / 2e-5) ** 2
        score = model.score(X[row : row + 1], y[row : row + 1], value="gradient_norm")
        assert score[0] == pytest.approx(np.sqrt(total), rel=1e-4)


def test_residuals_and_features_make_the_gradient_norm() -> None:
    X, y = blobs()
    model = fit_pilot("mlp", X, y, task="classification", epochs=2)
    r, h = model.residuals(X, y), model.features(X)
    assert r.dtype == h.dtype == np.float32
    assert r.shape == (240, 3)
    assert h.shape == (240, 128)
    np.testing.assert_allclose(r.sum(axis=1), 0.0, atol=1e-6)
    product = np.linalg.norm(r, axis=1) * np.sqrt(1 + (h**2).sum(axis=1))
    np.testing.assert_allclose(model.score(X, y, value="gradient_norm"), product, rtol=1e-4)


def test_regression_scores() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)).astype(np.float32)
    y = X @ np.array([1.0, -2.0, 0.0, 3.0]) + 7.0 + 0.1 * rng.normal(size=300)
    model = fit_pilot("probe", X, y, task="regression")
    assert model.classes == ()
    np.testing.assert_allclose(model.weight[0], [1, -2, 0, 3], atol=0.03)
    error = model.predict(X) - y
    np.testing.assert_allclose(model.score(X, y, value="loss"), error**2)
    np.testing.assert_allclose(model.residuals(X, y)[:, 0], error, rtol=1e-4, atol=1e-6)
    norm = 2 * np.abs(error) * np.sqrt(1 + (X.astype(float) ** 2).sum(axis=1))
    np.testing.assert_allclose(model.score(X, y, value="gradient_norm"), norm)


def test_blocks_do_not_change_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs()
    model = fit_pilot("mlp", X, y, task="classification", epochs=1)
    whole = model.score(X, y, value="loss")
    monkeypatch.setattr("curation.models.pilot.BLOCK", 7)
    np.testing.assert_allclose(model.score(X, y, value="loss"), whole, rtol=1e-4)


# ---- classes


@pytest.mark.parametrize("kind", ["probe", "mlp"])
def test_unseen_classes_have_a_floor(kind: str) -> None:
    X, y = blobs()
    known = ("blue", "grey", "green", "red", "violet")
    model = fit_pilot(kind, X, y, task="classification", classes=known, epochs=5)  # type: ignore[arg-type]
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    np.testing.assert_allclose(p[:, [1, 4]], 1e-6 / (1 + 2e-6), rtol=1e-9)
    unseen = np.array(["violet"] * len(X))
    loss = model.score(X, unseen, value="loss")
    assert np.isfinite(loss).all()
    np.testing.assert_allclose(loss, -np.log(1e-6), rtol=1e-5)
    np.testing.assert_allclose(model.residuals(X, unseen)[:, 4], -1.0, atol=1e-5)
    assert (model.predict(X) == y).mean() > 0.9


def test_two_classes_match_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    X, y = blobs(classes=2, spread=1.0)
    weights = np.random.default_rng(0).uniform(0.1, 4, size=len(X))
    model = fit_pilot("probe", X, y, task="classification", sample_weight=weights * 50)
    peer = LogisticRegression(C=10.0, max_iter=300, tol=1e-3)
    peer.fit(X, y, sample_weight=weights / weights.mean())
    assert model.classes == tuple(peer.classes_)
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), atol=1e-3)


def test_three_classes_match_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    X, y = blobs()
    peer = LogisticRegression(C=2.0, max_iter=300, tol=1e-3).fit(X, y)
    model = fit_pilot("probe", X, y, task="classification", regularization=2.0)
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), atol=1e-3)


def test_a_pilot_of_one_class_predicts_it() -> None:
    X, _ = blobs(12)
    y = np.array(["red"] * 12)
    model = fit_pilot("probe", X, y, task="classification", classes=["blue", "red"])
    assert set(model.predict(X)) == {"red"}
    np.testing.assert_allclose(model.score(X, y, value="loss"), 0.0, atol=2e-6)


def test_a_class_of_weight_zero_is_unseen() -> None:
    X, y = blobs()
    model = fit_pilot("probe", X, y, task="classification", sample_weight=(y != "red") * 1.0)
    assert model.predict_proba(X)[:, model.classes.index("red")].max() < 2e-6


# ---- weights


def test_weights_are_repetitions() -> None:
    X, y = blobs(60, spread=1.5)
    times = np.random.default_rng(1).integers(1, 4, size=60)
    a = fit_pilot("probe", X, y, task="classification", sample_weight=times.astype(float))
    # The penalty is relative to the number of rows, which the copies raise.
    b = fit_pilot(
        "probe",
        np.repeat(X, times, axis=0),
        np.repeat(y, times),
        task="classification",
        regularization=10.0 * 60 / times.sum(),
    )
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), atol=5e-3)


def test_weighted_loss_is_that_of_repeated_rows() -> None:
    """Values and gradients, in float64."""
    import torch

    g = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=g, dtype=torch.float64)
    targets = torch.tensor([0, 2, 1, 1, 0])
    times = torch.tensor([1, 3, 2, 1, 5])
    weighted = logits.clone().requires_grad_()
    loss = weighted_cross_entropy(weighted, targets, times.double())
    loss.backward()
    plain = logits.clone().requires_grad_()
    repeated = torch.nn.functional.cross_entropy(
        plain.repeat_interleave(times, 0), targets.repeat_interleave(times)
    )
    repeated.backward()
    assert loss.item() == pytest.approx(repeated.item(), rel=1e-12)
    assert weighted.grad is not None
    assert plain.grad is not None
    np.testing.assert_allclose(weighted.grad, plain.grad, rtol=1e-12)
    # In equal batches, the mean of the batches' losses is the loss of the whole.
    mean = float(times.double()[:4].mean())
    whole = weighted_cross_entropy(logits[:4], targets[:4], times[:4].double())
    parts = [
        weighted_cross_entropy(logits[s], targets[s], times[s].double(), mean_weight=mean)
        for s in (slice(0, 2), slice(2, 4))
    ]
    assert float(sum(parts) / 2) == pytest.approx(whole.item(), rel=1e-12)


def test_mlp_follows_the_weights() -> None:
    """Two labels for the same points: the heavier one wins."""
    X, _ = blobs(100)
    both, y = np.concatenate([X, X]), np.repeat(["light", "heavy"], 100)
    weights = np.repeat([1.0, 9.0], 100)
    model = fit_pilot("mlp", both, y, task="classification", sample_weight=weights)
    p = model.predict_proba(X)[:, model.classes.index("heavy")]
    assert p.mean() == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.array([1.0, -1.0, 1.0]), "row 1: weight -1.0"),
        (np.array([1.0, 1.0, np.nan]), "row 2: weight nan"),
        (np.ones(2), "3 rows need 3 weights"),
        (np.zeros(3), "all are 0"),
    ],
)
def test_bad_weights_are_refused(weights: np.ndarray, message: str) -> None:
    X, y = blobs(3)
    with pytest.raises(ModelError, match=message):
        fit_pilot("probe", X, y, task="classification", sample_weight=weights)


# ---- fitting, saving, refusing


def test_mlp_is_deterministic_and_leaves_torch_alone() -> None:
    import torch

    X, y = blobs()
    state = torch.get_rng_state()
    a, b, c = (fit_pilot("mlp", X, y, task="classification", seed=s, epochs=2) for s in (0, 0, 1))
    assert a.weight.tobytes() == b.weight.tobytes()
    assert a.weight.tobytes() != c.weight.tobytes()
    assert torch.equal(state, torch.get_rng_state())


def test_mlp_regression_learns_a_curve_of_any_scale() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(800, 2)).astype(np.float32)
    y = 5000.0 + 1000.0 * np.abs(X[:, 0])
    model = fit_pilot("mlp", X, y, task="regression", epochs=30)
    assert evaluate(y, model.predict(X), task="regression")["r2"] > 0.97


@pytest.mark.parametrize("kind", ["probe", "mlp"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_saved_pilots_are_the_same(kind: str, task: str, tmp_path: Path) -> None:
    X, y = blobs()
    if task == "regression":
        y = X[:, 0] * 2.0
    known = None if task == "regression" else ["red", "green", "blue", "größer"]
    model = fit_pilot(kind, X, y, task=task, classes=known, epochs=2)  # type: ignore[arg-type]
    model.save(tmp_path / "deep" / "pilot")
    names = sorted(p.name for p in (tmp_path / "deep" / "pilot").iterdir())
    assert names == ["model.json", "model.safetensors"]
    again = load_pilot(tmp_path / "deep" / "pilot")
    assert (again.kind, again.task, again.classes) == (kind, task, model.classes)
    for value in ("loss", "gradient_norm"):
        np.testing.assert_array_equal(
            again.score(X, y, value=value),  # type: ignore[arg-type]
            model.score(X, y, value=value),  # type: ignore[arg-type]
        )
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_image_classifier(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    data = load_digits()
    X, y = (data.data / 16).astype(np.float32), data.target.astype(str)
    model = fit_image_classifier(
        X[:1000],
        y[:1000],
        weights=None,
        classes=[str(c) for c in range(10)],
        epochs=12,
        learning_rate=1e-3,
        batch_size=32,
        seed=0,
        label="train",
    )
    scores = evaluate(y[1000:], model.predict(X[1000:]), task="classification")
    assert scores["accuracy"] > 0.88
    assert scores["worst_class"] <= scores["macro_f1"]


def test_refusals(tmp_path: Path) -> None:
    X, y = blobs()
    model = fit_pilot("probe", X, y, task="classification")
    with pytest.raises(ModelError, match="row 1: label 'pink' is not one of the 3"):
        model.score(X[:2], np.array(["red", "pink"]), value="loss")
    with pytest.raises(ModelError, match=r"takes \(n, 5\) arrays"):
        model.predict(X[:, :4])
    with pytest.raises(ModelError, match="choose `loss` or `gradient_norm`"):
        model.score(X, y, value="margin")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="choose `probe` or `mlp`"):
        fit_pilot("tree", X, y, task="classification")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="'a' is listed more than once"):
        fit_pilot("probe", X, y, task="classification", classes=["a", "b", "a"])
    broken = X.copy()
    broken[17, 2] = np.nan
    with pytest.raises(ModelError, match="row 17"):
        fit_pilot("probe", broken, y, task="classification")
    with pytest.raises(ModelError, match="fit it again"):
        load_pilot(tmp_path)
    model.save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(ModelError, match="format 99"):
        load_pilot(tmp_path)


# ---- metrics


def test_metrics_by_hand() -> None:
    truth = np.array(["a", "a", "a", "b", "b", "c"])
    guess = np.array(["a", "a", "b", "b", "d", "c"])
    got = evaluate(truth, guess, task="classification")
    assert got["accuracy"] == pytest.approx(4 / 6)
    # F1 of a: 2*2/(3+2), b: 2*1/(2+2), c: 1; d is not in the truth and does not count.
    assert got["macro_f1"] == pytest.approx((0.8 + 0.5 + 1.0) / 3)
    assert got["worst_class"] == pytest.approx(0.5)
    got = evaluate(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0]), task="regression")
    assert got["rmse"] == pytest.approx(np.sqrt(4 / 3))
    assert got["r2"] == pytest.approx(1 - 4 / 2)
    with pytest.raises(ModelError):
        evaluate(np.array(["a"]), np.array(["a", "b"]), task="classification")

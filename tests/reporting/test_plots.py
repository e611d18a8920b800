from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hostile import CORPUS
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from curation.reporting import canvas
from curation.reporting import plots as p


def check(png: bytes, *, tall: int = 700) -> Image.Image:
    assert png.startswith(p.SIGNATURE)
    assert len(png) <= 60_000
    picture = Image.open(io.BytesIO(png))
    picture.load()
    assert picture.width == 640
    assert 100 <= picture.height <= tall
    assert set(picture.info) <= {"dpi", "gamma", "srgb"}, "no dates, no program names"
    return picture.convert("RGB")


RNG = np.random.default_rng(0)
DIGITS = load_digits()
POINTS = RNG.normal(size=(500, 2))
SCORES = RNG.gamma(1.0, 1.0, 1000)
RESULTS = {
    "subset": {"accuracy": [0.61, 0.62, 0.6], "macro_f1": [0.5, 0.56, 0.57]},
    "uniform": {"accuracy": [0.58, 0.6, 0.59], "macro_f1": [0.3, 0.34, 0.35]},
    "all rows": {"accuracy": [0.7]},
}
TYPICAL: dict[str, Callable[[], bytes]] = {
    "category_counts": lambda: p.category_counts(list("abc"), [5, 9, 1], title="b leads"),
    "length_histogram": lambda: p.length_histogram(
        RNG_FIXED.integers(5, 90, 400), title="Short", unit="tokens"
    ),
    "embedding_map": lambda: p.embedding_map(
        POINTS, colors=["a", "b"] * 250, selected=POINTS[:, 0] > 1, title="Covered"
    ),
    "image_grid": lambda: p.image_grid(
        (DIGITS.images[:12] * 15).astype(np.uint8), titles=DIGITS.target[:12], title="Digits"
    ),
    "cluster_overview": lambda: p.cluster_overview([9, 30, 2], [1.0, 2.0, 0.5], title="Even"),
    "score_distribution": lambda: p.score_distribution(SCORES, title="Skewed"),
    "weight_histogram": lambda: p.weight_histogram(1 + SCORES, title="Moderate"),
    "class_shares": lambda: p.class_shares(
        list("abc"), [800, 190, 10], [50, 30, 20], [80, 20, 0], title="Rare classes gain"
    ),
    "comparison": lambda: p.comparison(RESULTS, metrics=["accuracy", "macro_f1"], title="Better"),
    "estimate_errors": lambda: p.estimate_errors(
        ["ht", "difference"], [10, 11], [8, 10], [12, 12], truth=10.5, unit="nats", title="Near"
    ),
}
RNG_FIXED = np.random.default_rng(1)


@pytest.mark.parametrize("name", TYPICAL)
def test_typical_plot_is_a_small_png_with_ink(name: str) -> None:
    pixels = np.asarray(check(TYPICAL[name]()))
    assert (pixels[0, 0] == 255).all(), "white ground"
    body = pixels[60:-30, 80:]
    if name == "image_grid":  # in grey, like what stands around
        other = (225 - DIGITS.images[:12] * 15).astype(np.uint8)
        assert TYPICAL[name]() != p.image_grid(other, titles=DIGITS.target[:12], title="Digits")
    else:  # in colour: text, axes and rules are grey
        coloured = np.ptp(body.astype(int), axis=2) > 60
        assert coloured.sum() > 100, "data are drawn below the title"


@pytest.mark.parametrize("name", [n for n in TYPICAL if n != "length_histogram"])
def test_same_data_same_bytes(name: str) -> None:
    assert TYPICAL[name]() == TYPICAL[name]()


def test_bytes_do_not_depend_on_the_thread_or_process() -> None:
    names = ["comparison", "class_shares", "estimate_errors"] * 2
    with ThreadPoolExecutor(3) as pool:
        drawn = list(pool.map(lambda n: TYPICAL[n](), names))
    assert drawn[:3] == drawn[3:]
    code = (
        "import sys, hashlib; from curation.reporting import plots as p;"
        "assert 'matplotlib' not in sys.modules, 'importing is cheap';"
        "b = p.category_counts(list('abc'), [5, 9, 1], title='b leads');"
        "assert 'matplotlib.pyplot' not in sys.modules;"
        "print(hashlib.sha256(b).hexdigest())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert told == hashlib.sha256(TYPICAL["category_counts"]()).hexdigest()


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0],
        [0.0, 0.0],
        [3.0, 3.0, 3.0],
        [1e-300, 1e300],
        [0.0, 1e308],
        [-1e308, 1e308],
        [-5.0, -1.0],
        [5e-324],
        [1e-12, 1.0, 1e12],
        [1, 2, 3, 10**9],
        [np.nan, 1.0, np.inf],
        [np.nan],
        [],
    ],
    ids=str,
)
def test_histograms_survive_extremes(values: list[float]) -> None:
    check(p.length_histogram(values, title="t", unit="tokens"))
    check(p.score_distribution(values, title="t"))
    check(p.weight_histogram(values, title="t"))
    costs = [abs(v) for v in values if np.isfinite(v)]
    check(p.cluster_overview(np.arange(len(costs)), costs, title="t"))


@pytest.mark.parametrize("n", [0, 1, 2, 25, 1000])
def test_any_number_of_classes(n: int) -> None:
    names = [f"class {i}" for i in range(n)]
    counts = [1 + (i * 37) % 500 for i in range(n)]
    check(p.category_counts(names, counts, title="t"))
    check(p.class_shares(names, counts, counts[::-1], counts, title="t"))
    check(p.class_shares(names, counts, [0] * n, None, title="t"))
    check(p.cluster_overview(counts, counts, title="t"))
    points = np.c_[np.arange(n), np.arange(n) % 7].astype(float)
    check(p.embedding_map(points, colors=names, selected=np.arange(n) % 2 == 0, title="t"))
    check(p.embedding_map(points, title="t"))
    check(p.embedding_map(points, colors=np.array(names), title="t"))


def test_zero_counts() -> None:
    check(p.category_counts(["a"], [0], title="t"))
    check(p.class_shares(["a", "b"], [0, 0], [0, 0], [0, 0], title="t"))


def test_every_point_in_one_place() -> None:
    check(p.embedding_map(np.zeros((50, 2)), selected=np.ones(50, bool), title="t"))
    check(p.embedding_map(np.full((3, 2), np.nan), title="t"))


def test_many_points_stay_small() -> None:
    points = RNG.normal(size=(60_000, 2))
    labels = RNG.integers(0, 40, 60_000).tolist()
    check(p.embedding_map(points, colors=labels, selected=points[:, 0] > 0, title="t"))


@pytest.mark.parametrize("shape", [(1, 8, 8), (40, 28, 28), (200, 64, 64), (3, 300, 20), (1, 1, 1)])
def test_noise_pictures_fit(shape: tuple[int, int, int]) -> None:
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    png = p.image_grid(images, titles=["a longer text"] * shape[0], title="t")
    assert len(png) <= 60_000
    assert Image.open(io.BytesIO(png)).width <= 640


def test_colour_pictures_and_none() -> None:
    check(p.image_grid(RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), title="t"))
    check(p.image_grid(np.zeros((0, 8, 8), np.uint8), title="t"))
    with pytest.raises(ValueError, match=r"\(m, h, w\)"):
        p.image_grid(np.zeros((8, 8), np.uint8), title="t")


def test_comparison_extremes() -> None:
    check(p.comparison({}, metrics=["accuracy"], title="t"))
    check(p.comparison({"subset": {}}, metrics=["accuracy"], title="t"))
    check(p.comparison({"subset": {"mse": [12345.0] * 3}}, metrics=["mse"], title="t"))
    five = [f"metric_{i}" for i in range(5)]
    many = {f"m{i}": {f: [i + 0.1, i + 0.2] for f in five} for i in range(6)}
    check(p.comparison(many, metrics=five, title="t"), tall=900)


@pytest.mark.parametrize("truth", [None, 5.0, np.float64(5.0), [5.0, None], [None, None]])
def test_estimates_with_and_without_truth(truth: object) -> None:
    draw = lambda second: p.estimate_errors(  # noqa: E731
        "ab", [5, second], [4, second * 0.9], [6, second * 1.1],
        truth=truth, unit="rows", title="t",
    )  # fmt: skip
    check(draw(6.0))
    check(draw(6000.0))
    check(draw(0.0))
    check(draw(-6000.0))
    check(p.estimate_errors(["a"], 5.0, 4.0, 6.0, truth=5.5, unit="rows", title="t"))
    check(p.estimate_errors(["a"], [0.0], [0.0], [0.0], truth=0.0, unit="rows", title="t"))
    check(p.estimate_errors([], [], [], [], unit="rows", title="t"))


def test_wrong_lengths_are_named() -> None:
    with pytest.raises(ValueError, match="names has 2, counts has 1"):
        p.category_counts(["a", "b"], [1], title="t")
    with pytest.raises(ValueError, match="subset has 1"):
        p.class_shares(["a", "b"], [1, 2], [1], [1, 2], title="t")
    with pytest.raises(ValueError, match="selected has 2"):
        p.embedding_map(np.zeros((3, 2)), selected=[True, False], title="t")
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        p.embedding_map(np.zeros((3, 3)), title="t")


def test_data_text_is_never_a_formula() -> None:
    for text in (r"$\frac{$", "$x$ and $$", "\\$5", "a_b^c $", *CORPUS):
        check(p.category_counts([text, "other"], [2, 1], title=text))
    check(p.embedding_map(POINTS[:4], colors=CORPUS[:4], title="t"))
    check(p.comparison({CORPUS[0]: {"$a$": [1.0]}}, metrics=["$a$"], title="$"))


def test_effective_sample_size_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    captions: list[str] = []
    draw = canvas.sheet

    def spy(title: str, caption: str = "", **options: int):
        captions.append(caption)
        return draw(title, caption, **options)

    monkeypatch.setattr(canvas, "sheet", spy)
    p.weight_histogram([1.0, 1.0, 1.0, 5.0], title="t")  # (1+1+1+5)^2 / (3 + 25) = 2.29
    assert "Effective sample size 2 of 4 rows (57%)" in captions[-1]
    assert "largest weight, 5, holds 62.5%" in captions[-1]
    p.length_histogram([10] * 999 + [5000], title="t", unit="tokens")
    assert "1 longer row (0.1%) beyond the right edge" in captions[-1]
    p.score_distribution([1.0] * 99 + [99.0], title="t")
    assert "highest 1% of rows hold 50% of the total" in captions[-1]
    p.category_counts(list("abc"), [6, 3, 1], top=1, title="t")
    assert "2 further classes with 4 rows (40.0%) not shown" in captions[-1]


def test_projection_is_pca() -> None:
    X = DIGITS.data.astype(np.float32)
    points = p.project_2d(X, seed=0)
    assert points.shape == (len(X), 2)
    assert points.dtype == np.float32
    expected = PCA(2, svd_solver="full").fit_transform(X)
    for i in range(2):
        assert abs(np.corrcoef(points[:, i], expected[:, i])[0, 1]) > 0.99999
    assert np.array_equal(points, p.project_2d(X, seed=1)), "the seed only chooses a sample"


def test_projection_of_a_sample_and_of_little() -> None:
    rng = np.random.default_rng(2)
    X = (rng.normal(size=(12_000, 3)) * [5, 2, 0.1]).astype(np.float32)
    points = p.project_2d(X, seed=0)
    assert np.array_equal(points, p.project_2d(X, seed=0))
    assert abs(np.corrcoef(points[:, 0], X[:, 0])[0, 1]) > 0.999
    for shape in ((0, 4), (1, 4), (2, 4), (5, 1), (5, 0)):
        assert p.project_2d(np.ones(shape, np.float32), seed=0).shape == (shape[0], 2)
    X[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"row 7 .* not finite"):
        p.project_2d(X, seed=0)
    with pytest.raises(ValueError, match="matrix"):
        p.project_2d(X[0], seed=0)

"""What `select` refuses, naming the cause, and what it has to get along with."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curation
from curation.sampling import DESIGNS
from curation.sampling.constants import CONSTANTS
from curation.sampling.proxies import PROXIES

FIXED_SIZE = ("coordinated", "stratified", "stratified_uniform", "systematic", "uniform")


def never_asked(rows):
    raise AssertionError(f"the score was asked for {len(rows)} rows")


def make_rows(n: int = 40, d: int = 3, *, seed: int = 0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, d))
    return points, np.exp(points[:, 0])


def with_wrong(row: int, value: float, n: int = 40) -> np.ndarray:
    points, _ = make_rows(n)
    points[row, 1] = value
    return points


GROUPS = np.repeat(["a", "b", "c"], [20, 15, 5])
NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        # embeddings
        ({"embeddings": np.ones(40)}, r"embeddings of shape \(n, d\).*got \(40,\)"),
        ({"embeddings": np.ones((2, 3, 4))}, r"shape \(n, d\)"),
        ({"embeddings": np.ones((0, 3))}, r"shape \(n, d\) with n, d >= 1"),
        ({"embeddings": np.ones((40, 0))}, r"shape \(n, d\) with n, d >= 1"),
        ({"embeddings": None}, r"shape \(n, d\)"),
        ({"embeddings": [["x"] * 3] * 40}, "embeddings must be numbers"),
        ({"embeddings": with_wrong(17, np.nan)}, "embedding of row 17 has a NaN or infinite"),
        ({"embeddings": with_wrong(0, np.inf)}, "embedding of row 0 has a NaN or infinite"),
        ({"embeddings": with_wrong(39, -np.inf)}, "embedding of row 39 has a NaN or infinite"),
        # sizes
        ({"budget": 0}, "a budget of 0 rows does not fit a data set of 40 rows"),
        ({"budget": -3}, "does not fit"),
        ({"budget": 41}, "a budget of 41 rows does not fit a data set of 40 rows"),
        ({"budget": 2.5}, "whole number of rows, got 2.5"),
        ({"budget": NAN}, "budget"),
        ({"budget": math.inf}, "budget"),
        ({"budget": "10"}, "budget must be a whole number"),
        ({"budget": 5, "fraction": 0.1}, "exactly one of budget, fraction, epsilon"),
        ({"budget": None}, "exactly one of budget, fraction, epsilon"),
        ({"budget": None, "fraction": 0.0}, r"fraction must lie in \(0, 1\], got 0.0"),
        ({"budget": None, "fraction": 1.1}, r"fraction must lie in \(0, 1\]"),
        ({"budget": None, "fraction": NAN}, r"fraction must lie in \(0, 1\]"),
        ({"budget": None, "epsilon": 0.05}, "needs 738 draws, more than the 40 rows"),
        ({"budget": None, "epsilon": 1.5}, "epsilon and delta must lie in"),
        ({"budget": None, "epsilon": 0.5, "delta": 0.0}, "epsilon and delta must lie in"),
        ({"k": 0}, "k must be `auto` or between 1 and 40"),
        ({"k": 41}, "k must be `auto` or between 1 and 40"),
        ({"k": True}, "k must be `auto` or between 1 and 40.*got True"),
        ({"k": 3.0}, "k must be `auto` or between 1 and 40"),
        ({"k": "many"}, "k must be `auto`"),
        # options
        ({"space": "nope"}, "unknown space 'nope'; known: embedding, embedding.label, gradient"),
        ({"proxy": "nope"}, "unknown proxy 'nope'; known: cluster, low_rank, regression, auto"),
        ({"constants": "nope"}, "unknown constants 'nope'; known: balanced, max, quantile"),
        ({"design": "nope"}, "unknown design 'nope'; known: coordinated, iid, poisson"),
        ({"tilt": "nope"}, "unknown tilt 'nope'; known: None, classes, groups"),
        ({"z": 3}, "unknown z 3; known: 1, 2"),
        ({"mix": "nope"}, r"mix must be 'auto' or a number in \[0, 1\], got 'nope'"),
        ({"mix": -0.1}, r"mix must be 'auto' or a number in \[0, 1\]"),
        ({"mix": 1.5}, r"mix must be 'auto' or a number in \[0, 1\]"),
        ({"mix": NAN}, r"mix must be 'auto' or a number in \[0, 1\]"),
        ({"weight_exponent": -0.1}, r"weight_exponent must be in \[0, 1\], got -0.1"),
        ({"weight_exponent": 2}, r"weight_exponent must be in \[0, 1\]"),
        ({"weight_exponent": NAN}, r"weight_exponent must be in \[0, 1\]"),
        ({"delta": 0.0}, "delta must lie in"),
        ({"delta": 1.0}, "delta must lie in"),
        ({"delta": NAN}, "delta must lie in"),
        # what belongs to rows
        ({"labels": np.zeros((40, 1))}, r"expected 40 labels, got shape \(40, 1\)"),
        ({"labels": ["a"] * 39}, r"expected 40 labels, got shape \(39,\)"),
        ({"labels": np.where(np.arange(40) == 7, NAN, 1.0)}, "label of row 7 is not a finite"),
        ({"groups": ["a"] * 41}, r"expected 40 groups, got shape \(41,\)"),
        ({"ids": np.arange(39)}, r"expected 40 ids, got shape \(39,\)"),
        ({"ids": np.arange(40.0)}, "ids must be whole numbers or text, got an array of float64"),
        ({"ids": np.arange(40) % 39}, "rows 0 and 39 have the same id 0; ids must be unique"),
        (
            {"ids": [f"r{i % 33}" for i in range(40)]},
            "rows 0 and 33 have the same id 'r0'; ids must be unique",
        ),
        # what an option needs
        ({"space": "embedding+label"}, "space 'embedding.label' needs `labels`"),
        ({"space": "gradient"}, "space 'gradient' needs `labels`"),
        ({"tilt": "classes"}, "tilt 'classes' needs `labels` that are classes"),
        ({"tilt": "classes", "labels": np.ones(40)}, "needs `labels` that are classes"),
        ({"tilt": "groups"}, "need `groups`"),
        ({"shares": "proportional"}, "need `groups`"),
        ({"minimum": 2}, "need `groups`"),
        # groups
        ({"groups": GROUPS, "shares": "nope"}, "'proportional' or a mapping, got 'nope'"),
        ({"groups": GROUPS, "shares": {"z": 0.1}}, "'z' is not a group; there are a, b, c"),
        ({"groups": GROUPS, "shares": {"a": 0.7, "b": 0.7}}, "add up to at most 1"),
        ({"groups": GROUPS, "shares": {"a": 0.1, "b": 0.1, "c": 0.1}}, "add up to 0.3, not 1"),
        ({"groups": GROUPS, "shares": {"c": 0.9}}, "group 'c' has 5 rows, fewer than the 9.0"),
        ({"groups": GROUPS, "minimum": {"z": 1}}, "'z' is not a group"),
        ({"groups": GROUPS, "minimum": {"c": 6}}, "group 'c' has 5 rows, fewer than its minimum"),
        ({"groups": GROUPS, "minimum": 4}, "add up to 12, more than the budget of 10"),
    ],
)
def test_refused_before_a_score_is_paid_for(changes, told):
    """Scores are the expensive part: what can be told without them is."""
    points, _ = make_rows()
    arguments = {"embeddings": points, "budget": 10, "k": 4, **changes}
    with pytest.raises(ValueError, match=told), np.errstate(all="ignore"):
        curation.select(arguments.pop("embeddings"), never_asked, **arguments)


def scores_with(value: float) -> np.ndarray:
    scores = np.ones(40)
    scores[:] = value
    return scores


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (np.ones(39), r"expected 40 scores, got shape \(39,\)"),
        (np.ones((40, 1)), r"expected 40 scores, got shape \(40, 1\)"),
        (np.float64(1.0), r"expected 40 scores, got shape \(\)"),
        (lambda rows: np.ones(len(rows) + 1), r"score returned shape \(5,\) for 4 rows"),
        (lambda rows: np.ones((len(rows), 1)), r"score returned shape \(4, 1\) for 4 rows"),
        (lambda rows: 1.0, r"score returned shape \(\) for 4 rows"),
        (lambda rows: None, r"score returned shape \(\) for 4 rows"),
        (scores_with(-1.0), r"the score of row \d+ is -1.0; scores must be finite and >= 0"),
        (scores_with(np.nan), r"the score of row \d+ is nan; scores must be finite"),
        (scores_with(np.inf), r"the score of row \d+ is inf; scores must be finite"),
    ],
)
def test_scores_that_cannot_be_meant(score, told):
    points, _ = make_rows()
    with pytest.raises(ValueError, match=told):
        curation.select(points, score, budget=10, k=4)


def test_the_row_with_the_wrong_score_is_named():
    points, losses = make_rows()
    asked = []

    def score(rows):
        asked.append(rows)
        return np.where(np.arange(len(rows)) == 2, -5.0, losses[rows])

    with pytest.raises(ValueError) as told:
        curation.select(points, score, budget=10, k=4)
    assert f"the score of row {asked[0][2]} is -5.0" in str(told.value)


def test_a_wrong_score_that_nobody_asked_for_does_not_matter():
    """Of an array only the entries of medoids and pilot rows are read."""
    points, losses = make_rows(400)
    kept = curation.select(points, losses, budget=20, k=4)
    asked = []
    curation.select(points, lambda r: asked.append(r) or losses[r], budget=20, k=4)
    broken = np.full(400, np.nan)
    broken[np.concatenate(asked)] = losses[np.concatenate(asked)]
    again = curation.select(points, broken, budget=20, k=4)
    assert np.array_equal(again.indices, kept.indices)


def test_what_a_score_does_to_its_argument_does_not_matter():
    """It may be sorted in place, say to read rows from a file: the scores are still aligned."""
    points, losses = make_rows()

    def score(rows):
        found = losses[rows].copy()
        rows.sort()
        return found

    chosen = curation.select(points, score, budget=10, k=4, proxy="cluster")
    plain = curation.select(points, losses, budget=10, k=4, proxy="cluster")
    assert [chosen.explain(row) for row in range(40)] == [plain.explain(row) for row in range(40)]


@pytest.mark.parametrize("level", [0.0, 1.0, NAN])
def test_estimates_of_what_is_not_there(level):
    points, losses = make_rows()
    chosen = curation.select(points, losses, budget=10)
    with pytest.raises(ValueError, match=r"values of the 10 chosen rows \(values\[indices\]\)"):
        chosen.estimate(losses)
    with pytest.raises(ValueError, match="method must be ht, difference or calibrated"):
        chosen.estimate(losses[chosen.indices], method="nope")
    with pytest.raises(ValueError, match="level must lie in"):
        chosen.estimate(losses[chosen.indices], level=level)
    values = losses[chosen.indices]
    values[3] = np.nan
    with pytest.raises(ValueError, match=f"value of row {chosen.indices[3]} is not finite"):
        chosen.estimate(values)
    for row in (-1, 40):
        with pytest.raises(ValueError, match=f"row {row} is not one of the 40 rows"):
            chosen.explain(row)
    with pytest.raises(ValueError, match="a budget of 41 rows does not fit"):
        chosen.at_budget(41)


@pytest.mark.parametrize("design", sorted(DESIGNS))
@pytest.mark.parametrize("proxy", ["auto", "cluster"])
class TestEdges:
    """Small and flat data work by every design."""

    def test_one_row(self, design, proxy):
        chosen = curation.select(np.ones((1, 3)), np.ones(1), budget=1, design=design, proxy=proxy)
        assert chosen.indices.tolist() == [0]
        assert chosen.weights == pytest.approx([1.0])
        assert chosen.inclusion_probability == pytest.approx([1.0])
        assert chosen.estimate([3.0]).value == pytest.approx(3.0)
        assert chosen.queries == 1

    def test_one_cluster(self, design, proxy):
        points, losses = make_rows()
        chosen = curation.select(points, losses, budget=10, k=1, design=design, proxy=proxy)
        assert set(chosen.cluster.tolist()) <= {0}

    def test_all_rows(self, design, proxy):
        points, losses = make_rows()
        chosen = curation.select(points, losses, budget=40, k=5, design=design, proxy=proxy)
        if design == "iid":  # with replacement: some rows come twice, some never
            assert len(chosen) <= 40
            return
        assert chosen.indices.tolist() == list(range(40))
        assert chosen.weights == pytest.approx(np.ones(40))
        assert chosen.training_weights == pytest.approx(np.ones(40))
        assert set(chosen.reason.tolist()) == {"take-all"}
        told = chosen.estimate(losses)
        assert told.value == pytest.approx(losses.sum())
        if design != "poisson":  # whose rows that were not drawn it knows nothing of
            assert told.standard_error == 0.0

    @pytest.mark.parametrize("k", [1, 3, 20])
    def test_more_clusters_than_distinct_rows(self, design, proxy, k):
        points = np.repeat(np.eye(2), 10, axis=0)
        chosen = curation.select(points, np.arange(20.0), budget=5, k=k, design=design, proxy=proxy)
        assert 1 <= chosen.diagnostics["k"] <= min(k, 2)
        assert np.isfinite(chosen.weights).all()

    def test_all_rows_the_same_and_all_scores_zero(self, design, proxy):
        same = curation.select(
            np.full((20, 3), 7.0), np.ones(20), budget=5, k=3, design=design, proxy=proxy
        )
        zero = curation.select(
            make_rows(20)[0], np.zeros(20), budget=5, k=3, design=design, proxy=proxy
        )
        for chosen in (same, zero):
            expected = 4.0 if design != "iid" else chosen.weights
            assert chosen.weights == pytest.approx(expected)
            assert np.isfinite(chosen.certificate.radius)


def test_rows_that_would_never_be_drawn():
    """A score of zero, no distance and no uniform part: such a row would not be stood for."""
    points = np.repeat(np.eye(2), 10, axis=0)
    with pytest.raises(ValueError, match=r"10 rows would never be drawn.*raise mix"):
        curation.select(points, np.repeat([0.0, 1.0], 10), budget=5, k=2, mix=0.0, proxy="cluster")


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, np.int64(3)])
def test_seeds(seed):
    points, losses = make_rows()
    one = curation.select(points, losses, budget=10, k=3, seed=seed)
    two = curation.select(points, losses, budget=10, k=3, seed=int(seed))
    assert np.array_equal(one.indices, two.indices)


@pytest.mark.parametrize("seed", [-1, 2**31, 2**40, 1.5, True])
def test_seeds_that_are_none_are_refused(seed):
    """Before a score is paid for."""
    points, _ = make_rows()
    with pytest.raises(ValueError, match=r"seed must be a whole number between 0 and 2\^31 - 1"):
        curation.select(points, never_asked, budget=10, seed=seed)


LABELS = {
    "int": np.arange(40) % 3,
    "str": ["x", "y"] * 20,
    "bool": np.array([True, False] * 20),
    "one class": ["only"] * 40,
    "float": np.linspace(0, 1, 40),
    "constant": np.ones(40),
    "float32": np.arange(40).astype(np.float32),
    "object": np.array([1, "a"] * 20, dtype=object),
}


@pytest.mark.parametrize(
    ("kind", "space", "proxy"),
    [
        *[(kind, "embedding+label", "cluster") for kind in LABELS],
        *[(kind, "gradient", "cluster") for kind in ("str", "one class", "float")],
        *[(kind, "embedding", "regression") for kind in ("int", "one class", "constant")],
        ("int", "gradient", "auto"),
    ],
)
def test_kinds_of_labels(kind, space, proxy):
    points, losses = make_rows()
    chosen = curation.select(
        points, losses, budget=10, k=4, labels=LABELS[kind], space=space, proxy=proxy
    )
    assert len(chosen) == 10
    assert np.isfinite(chosen.score).all()


@pytest.mark.parametrize("space", ["embedding", "gradient"])
def test_memory_follows_the_blocks_not_the_rows(space):
    """20,000 narrow rows in blocks of 1 MiB, with labels: below 100 MiB.

    What is made of a row, such as 512 random features, is far wider than the row.
    """
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20_000, 2)).astype(np.float32)
    labels = (points[:, 1] > 0).astype(int)
    proxy = "regression" if space == "embedding" else "cluster"
    tracemalloc.start()
    try:
        curation.select(
            points, np.exp(points[:, 0]), budget=20, k=5, labels=labels, space=space, proxy=proxy,
            block_mib=1,
        )  # fmt: skip
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / 2**20 < 128


def test_fraction_and_epsilon():
    points, losses = make_rows(200)
    assert len(curation.select(points, losses, fraction=0.1)) == 20
    assert len(curation.select(points, losses, fraction=1.0)) == 200
    assert len(curation.select(points[:3], losses[:3], fraction=0.01)) == 1
    chosen = curation.select(points, losses, epsilon=0.1, delta=0.1)
    assert len(chosen) == 150  # ln(20) / (2 * 0.01) = 149.8
    assert chosen.certificate.epsilon <= 0.1
    assert chosen.certificate.delta == 0.1


grid = st.integers(-2, 2).map(float)
wide = st.floats(-1e6, 1e6, width=32)


@st.composite
def arguments(draw):
    n, d = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "grid", "same", "wide"]))
    points = {
        "normal": lambda: rng.normal(size=(n, d)),
        "grid": lambda: rng.integers(-2, 3, size=(n, d)).astype(float),
        "same": lambda: np.full((n, d), draw(wide)),
        "wide": lambda: rng.normal(size=(n, d)) * 10.0 ** rng.integers(-6, 7, size=(n, 1)),
    }[kind]()
    scores = draw(st.sampled_from(["gamma", "zeros", "sparse", "wide"]))
    losses = {
        "gamma": lambda: rng.gamma(0.5, size=n),
        "zeros": lambda: np.zeros(n),
        "sparse": lambda: rng.gamma(1.0, size=n) * (rng.random(n) < 0.2),
        "wide": lambda: rng.lognormal(0.0, 6.0, n),
    }[scores]()
    options = {
        "budget": draw(st.integers(1, n)),
        "k": draw(st.just("auto") | st.integers(1, n)),
        "design": draw(st.sampled_from(sorted(DESIGNS))),
        "proxy": draw(st.sampled_from([*sorted(PROXIES), "auto"])),
        "constants": draw(st.sampled_from(CONSTANTS)),
        "mix": draw(st.just("auto") | st.sampled_from([0.0, 0.1, 1.0])),
        "z": draw(st.sampled_from([1, 2])),
        "weight_exponent": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "seed": draw(st.integers(0, 1000)),
    }
    if draw(st.integers(0, 5)) == 0:
        options["labels"] = draw(st.sampled_from(["int", "float"]))
        numbers = rng.integers(0, 3, n)
        options["labels"] = numbers if options["labels"] == "int" else numbers / 3.0
        options["space"] = draw(st.sampled_from(["embedding", "embedding+label"]))
    if draw(st.integers(0, 2)) == 0:
        options["groups"] = rng.integers(0, 3, n).astype(str)
        options["tilt"] = draw(st.sampled_from([None, "groups"]))
        options["minimum"] = draw(st.none() | st.integers(0, 3))
        options["shares"] = draw(st.sampled_from([None, "proportional"]))
    return points, losses, options


@settings(max_examples=120, deadline=None)
@given(arguments())
def test_invariants(case):
    """Any small data by any options: these hold, or a ValueError says why it cannot be."""
    points, losses, options = case
    n, s, design = len(points), options["budget"], options["design"]
    refused = ""
    try:
        chosen = curation.select(points, losses, **options)
    except ValueError as error:
        refused = str(error)
    if refused:
        if design in refused:  # some designs can't give shares or be tilted, and say so
            assert options["shares"] or options["tilt"] or options["minimum"] is not None
        elif "more than the budget" in refused:
            assert options["minimum"]
        elif "do not reach for one row of each" in refused:
            assert options["shares"] is not None or options["minimum"] is not None
        else:
            assert "would never be drawn" in refused or "have a positive score" in refused
            assert options["mix"] == 0.0
        return
    rows, weights, pi = chosen.indices, chosen.weights, chosen.inclusion_probability
    for array in (weights, pi, chosen.reason, chosen.cluster, chosen.score):
        assert array.shape == rows.shape
    assert np.all(np.diff(rows) > 0)
    assert np.all((rows >= 0) & (rows < n))
    assert np.all((pi > 0) & (pi <= 1))
    assert np.isfinite(weights).all()
    if design == "iid":
        assert len(rows) <= s
    else:
        assert weights * pi == pytest.approx(np.ones(len(rows)))
        assert np.all(weights >= 1 - 1e-12)
        assert np.all((chosen.reason == "take-all") == (pi == 1.0))
    if design in FIXED_SIZE:
        assert len(rows) == s
    if len(rows):
        assert chosen.training_weights.mean() == pytest.approx(1.0)
        tempered = weights ** options["weight_exponent"]
        assert chosen.training_weights == pytest.approx(tempered / tempered.mean())
        told = chosen.estimate(losses[rows])
        assert told.value == pytest.approx(weights @ losses[rows])
        assert told.low <= told.value <= told.high
    assert 1 <= chosen.queries <= n
    assert 0 <= chosen.certificate.radius < np.inf
    assert chosen.diagnostics["coverage"].sum() == len(rows)
    assert len(chosen.diagnostics["coverage"]) == chosen.diagnostics["k"]
    assert chosen.to_frame().height == len(rows)
    assert str(len(rows) or "no rows") in repr(chosen)


def test_a_previous_selection_must_be_one_and_know_the_rows():
    rng = np.random.default_rng(0)
    points, score = rng.normal(size=(80, 3)), rng.gamma(1.0, size=80)
    names = np.array([f"row {i}" for i in range(80)])
    first = curation.select(points, score, ids=names, budget=20)
    with pytest.raises(TypeError, match="previous must be a Selection, not ndarray"):
        curation.select(points, score, ids=names, budget=20, previous=first.indices)
    with pytest.raises(ValueError, match="none of the previous selection's rows is among these"):
        curation.select(points, score, budget=20, previous=first)
    again = curation.select(points, score, ids=names, budget=20, previous=first)
    assert np.array_equal(again.indices, first.indices)


def test_explain_takes_the_number_of_a_row():
    rng = np.random.default_rng(0)
    chosen = curation.select(rng.normal(size=(50, 2)), rng.gamma(1.0, size=50), budget=10)
    assert chosen.explain(np.int64(3)) == chosen.explain(3)
    for wrong in ("r3", 3.0, True):
        with pytest.raises(TypeError, match="row must be the number of a row"):
            chosen.explain(wrong)


def test_an_id_that_is_missing_is_named():
    rng = np.random.default_rng(0)
    names = np.array([f"row {i}" for i in range(50)], dtype=object)
    names[7] = None
    with pytest.raises(ValueError, match="id of row 7 is missing"):
        curation.select(rng.normal(size=(50, 2)), rng.gamma(1.0, size=50), budget=10, ids=names)

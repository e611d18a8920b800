"""Same ids and seed: same rows, wherever they stand, however they are read, on any machine.

Nothing here is a matter of chance but the shares of rows that stay; they say so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import curation
from curation.clustering import points as points_module
from curation.sampling import DESIGNS
from curation.sampling.constants import CONSTANTS

N = 500
SOURCE = Path(curation.__file__).parents[1]


def make_data(n: int = N, *, seed: int = 0, ties: bool = False) -> dict[str, np.ndarray]:
    """Clouds with classes, some labels wrong and their scores larger; a number; groups; ids."""
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 4, n)
    points = (rng.normal(size=(4, 5)) * 3)[code] + rng.normal(size=(n, 5))
    labels = np.where(rng.random(n) < 0.15, rng.integers(0, 4, n), code)
    losses = 0.3 + code + rng.gamma(0.5, size=n) + 3.0 * (labels != code)
    return {
        "embeddings": (points.round(0) if ties else points).astype(np.float32),
        "score": losses.round(0) if ties else losses,
        "labels": labels.astype(str),
        "number": losses + rng.normal(size=n),
        "groups": rng.choice(["x", "y", "z"], n, p=[0.7, 0.25, 0.05]),
        "ids": rng.permutation(10 * n)[:n],
    }


def choose(data: dict[str, np.ndarray], rows=None, *, uses: tuple[str, ...] = (), **options):
    """Select among some of the rows; return the selection and the set of chosen ids."""
    own = {name: values if rows is None else values[rows] for name, values in data.items()}
    given = {name: own[name] for name in uses if name != "number"}
    if "number" in uses:
        given["labels"] = own["number"]
    score = options.pop("score", own["score"])
    embeddings = options.pop("embeddings", own["embeddings"])
    found = curation.select(embeddings, score, ids=own["ids"], **{"budget": 60, **given, **options})
    return found, set(own["ids"][found.indices].tolist())


def never_asked(rows):
    raise AssertionError(f"the score was asked for {len(rows)} rows")


CASES = {
    **{design: {"design": design} for design in DESIGNS},
    **{constants: {"constants": constants, "proxy": "cluster"} for constants in CONSTANTS},
    "cluster": {"proxy": "cluster"},
    "low_rank": {"proxy": "low_rank"},
    "regression": {"proxy": "regression"},
    "z1": {"z": 1},
    "labels": {"uses": ("labels",), "proxy": "regression"},
    "labels auto": {"uses": ("labels",)},
    "label space": {"uses": ("labels",), "space": "embedding+label", "proxy": "cluster"},
    "gradient": {"uses": ("labels",), "space": "gradient", "proxy": "cluster"},
    "number": {"uses": ("number",), "proxy": "regression"},
    "number space": {"uses": ("number",), "space": "embedding+label", "proxy": "cluster"},
    "tilt": {"uses": ("labels",), "tilt": "classes", "proxy": "cluster"},
    "shares": {"uses": ("groups",), "shares": "proportional"},
}


SLOW = ("labels", "labels auto", "number", "gradient")  # they fit a model of the labels
ORDERS = [(case, ties) for case in CASES for ties in (False, True) if not ties or case not in SLOW]


@pytest.mark.parametrize(("case", "ties"), ORDERS)
def test_order_of_the_rows_does_not_matter(case, ties):
    """Embeddings, labels, groups, scores and ids permuted together; on a grid all is tied."""
    data = make_data(ties=ties)
    first, ids = choose(data, **CASES[case])
    for seed in (1,) if case in SLOW else (1, 2):
        order = np.random.default_rng(seed).permutation(N)
        again, same = choose(data, order, **CASES[case])
        assert same == ids
        assert again.queries == first.queries
        weights = dict(zip(data["ids"][order][again.indices], again.weights, strict=True))
        for row, weight in zip(first.indices, first.weights, strict=True):
            assert weights[data["ids"][row]] == pytest.approx(weight, rel=1e-6)


def test_ids_may_be_texts_or_numbers():
    """What they are decides on the rows; without ids, the rows' numbers do."""
    data = make_data()
    order = np.random.default_rng(1).permutation(N)
    for ids in (np.array([f"row {i}" for i in data["ids"]]), data["ids"].astype(np.int32)):
        one = curation.select(data["embeddings"], data["score"], ids=ids, budget=60)
        two = curation.select(
            data["embeddings"][order], data["score"][order], ids=ids[order].tolist(), budget=60
        )
        assert set(ids[one.indices]) == set(ids[order][two.indices])
    plain = curation.select(data["embeddings"], data["score"], budget=60)
    numbered = curation.select(data["embeddings"], data["score"], ids=list(range(N)), budget=60)
    named, _ = choose(data)
    assert np.array_equal(plain.indices, numbered.indices)
    assert not np.array_equal(plain.indices, named.indices)


def test_other_seeds_choose_other_rows():
    data = make_data()
    chosen = [choose(data, seed=seed)[1] for seed in range(4)]
    for i in range(4):
        for j in range(i):
            assert len(chosen[i] & chosen[j]) < 50


class Reader:
    """As h5py and zarr read: slices, and strictly increasing arrays of indices."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.shape = array, array.shape
        self.largest = 0

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            assert rows.step in (None, 1)
            self.largest = max(self.largest, rows.stop - rows.start)
        else:
            assert isinstance(rows, np.ndarray)
            assert np.all(np.diff(rows) > 0)
        return self._array[rows].copy()


BLOCKS = [
    *[(case, ties) for case in ("coordinated", "cluster", "low_rank", "regression", "max",
                                "label space", "number space") for ties in (False, True)],
    ("labels", False), ("gradient", False), ("number", False),
]  # fmt: skip


@pytest.mark.parametrize(("case", "ties"), BLOCKS)
def test_size_of_the_blocks_does_not_matter(case, ties, monkeypatch):
    """Rows read all at once, one or a few at a time, and in between."""
    data = make_data(seed=2 if case == "low_rank" else 1, ties=ties)
    _, ids = choose(data, **CASES[case])
    for step in (3, 50) if case in SLOW else (1, 3, 50, 499):
        monkeypatch.setattr(points_module, "MIB", 4 * 5 * step)
        reader = Reader(data["embeddings"])
        _, same = choose(data, embeddings=reader, block_mib=1, **CASES[case])
        assert reader.largest == step
        assert same == ids


def test_copies_do_not_depend_on_the_blocks(monkeypatch):
    """Every row is one of a dozen points: all distances are zero but for rounding."""
    rng = np.random.default_rng(3)
    base = (rng.normal(size=(12, 5)) * 100 + 1000).astype(np.float32)
    which = rng.integers(0, 12, 600)
    scores = rng.gamma(1.0, size=600) + which
    first = curation.select(base[which], scores, budget=60, k=20)
    for step in (1, 7, 100):
        monkeypatch.setattr(points_module, "MIB", 4 * 5 * step)
        again = curation.select(base[which], scores, budget=60, k=20, block_mib=1)
        assert np.array_equal(again.indices, first.indices)


@pytest.mark.parametrize("kind", ["list", "tuples", "float64", "fortran", "memmap", "reader"])
def test_kind_of_the_embeddings_does_not_matter(kind, tmp_path):
    data = make_data()
    array = data["embeddings"]
    np.save(tmp_path / "points.npy", array)
    given = {
        "list": lambda: array.tolist(),
        "tuples": lambda: tuple(map(tuple, array.tolist())),
        "float64": lambda: array.astype(np.float64),
        "fortran": lambda: np.asfortranarray(array),
        "memmap": lambda: np.load(tmp_path / "points.npy", mmap_mode="r"),
        "reader": lambda: Reader(array),
    }[kind]()
    first, _ = choose(data)
    again, _ = choose(data, embeddings=given)
    assert np.array_equal(first.indices, again.indices)
    assert np.array_equal(first.weights, again.weights)


THREADS = """
import sys
import numpy as np
from curation.threads import set_defaults
set_defaults()
import curation
rng = np.random.default_rng(0)
n = 2000
code = rng.integers(0, 4, n)
points = ((rng.normal(size=(4, 24)) * 2)[code] + rng.normal(size=(n, 24))).astype(np.float32)
labels = np.where(rng.random(n) < 0.15, rng.integers(0, 4, n), code)
losses = code + rng.gamma(0.5, size=n) + 3.0 * (labels != code)
for options in (
    {}, {"proxy": "low_rank"}, {"labels": labels, "proxy": "regression"},
    {"labels": labels, "space": "gradient", "proxy": "cluster"},
):
    chosen = curation.select(points, losses, budget=200, **options)
    print(chosen.indices.tolist())
"""


def test_number_of_threads_does_not_matter():
    """One and two threads, for BLAS and faiss alike."""
    told = []
    for threads in ("1", "2"):
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        found = subprocess.run(
            [sys.executable, "-c", THREADS],
            env={**environment, "CURATION_THREADS": threads, "PYTHONPATH": str(SOURCE)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        told.append(found.stdout.splitlines())
    assert len(told[0]) == 4
    assert told[0] == told[1]


def test_previous_asks_for_no_score_and_keeps_what_was_learned():
    data = make_data()
    first, ids = choose(data)
    again, same = choose(data, score=never_asked, previous=first)
    assert same == ids
    assert again.queries == 0
    assert np.array_equal(again.weights, first.weights)
    for name in ("proxy", "mix", "k", "verdict"):
        assert again.diagnostics[name] == first.diagnostics[name]
    # what it was told before holds for another budget and design, too
    other, _ = choose(data, score=never_asked, previous=first, budget=30, design="systematic")
    assert len(other) == 30


@pytest.mark.parametrize("case", ["coordinated", "cluster", "low_rank", "labels", "number"])
def test_rows_that_come_leave_most_others_in_place(case):
    """5% new rows: of 60 chosen rows at least 90% stay, on average over eight seeds.

    About 5% of the draws go to the new rows, so that about 5% of the others have to leave.
    """
    kept, asked = [], 0
    for seed in range(8):
        data = make_data(N + N // 20, seed=seed)
        old = np.arange(N)
        first, before = choose(data, old, seed=seed, **CASES[case])
        found, after = choose(data, score=never_asked, previous=first, seed=seed, **CASES[case])
        assert len(found) == 60
        kept.append(len(before & after) / 60)
        asked += found.queries
    assert np.mean(kept) >= 0.9
    assert min(kept) >= 0.75
    assert asked == 0


@pytest.mark.parametrize(("design", "allowed"), [("poisson", 0.0), ("coordinated", 0.05)])
def test_rows_that_go_leave_the_others_in_place(design, allowed):
    """5% of the rows go: no other row's probability falls, and hardly another row leaves.

    None at all with independent decisions. With strata of a fixed size rows compete with their
    neighbours: at most 5% of the chosen rows leave, over ten seeds.
    """
    left = stayed = 0
    for seed in range(10):
        data = make_data(seed=seed)
        first, before = choose(data, seed=seed, design=design)
        rest = np.sort(np.random.default_rng(seed).permutation(N)[: N - N // 20])
        found, after = choose(
            data, rest, score=never_asked, previous=first, seed=seed, design=design
        )
        probability = {int(data["ids"][i]): first.explain(i) for i in first.indices}
        for place, row in enumerate(rest):
            known = int(data["ids"][row])
            if known not in before:
                continue
            now = found.explain(place)
            assert now["inclusion_probability"] >= (
                probability[known]["inclusion_probability"] * (1 - 1e-9)
            )
            left += known not in after
            stayed += known in after
    assert left <= allowed * (left + stayed)


@pytest.mark.parametrize("case", ["labels", "number", "label space", "number space", "gradient"])
def test_previous_knows_rows_by_their_ids(case):
    """The same rows in another order are the same rows: equal proxies, equal choice."""
    data = make_data()
    first, ids = choose(data, **CASES[case])
    order = np.random.default_rng(5).permutation(N)
    found, same = choose(data, order, score=never_asked, previous=first, **CASES[case])
    for place in range(0, N, 10):
        then, now = first.explain(int(order[place])), found.explain(place)
        assert now["cluster"] == then["cluster"]
        assert now["proxy"] == pytest.approx(then["proxy"], rel=1e-3, abs=1e-3)
    assert same == ids


def test_new_rows_do_not_move_the_old_ones():
    """A number to predict keeps its unit when rows with far larger numbers come."""
    data = make_data(N + 50)
    data["number"][N:] += 20.0
    for case in ("number", "number space"):
        first, _ = choose(data, np.arange(N), **CASES[case])
        found, _ = choose(data, score=never_asked, previous=first, **CASES[case])
        for row in range(0, N, 10):
            then, now = first.explain(row), found.explain(row)
            assert now["cluster"] == then["cluster"]
            assert now["proxy"] == pytest.approx(then["proxy"], rel=1e-6)


def test_a_class_may_go_but_not_come():
    """A new class has no place in what was learned; one that is gone has no rows."""
    data = make_data()
    options = CASES["label space"]
    first, _ = choose(data, **options)
    rest = np.flatnonzero(data["labels"] != "2")
    found, _ = choose(data, rest, score=never_asked, previous=first, **options)
    assert len(found) == 60
    data["labels"] = np.where(data["labels"] == "2", "new", data["labels"])
    with pytest.raises(ValueError, match="select anew"):
        choose(data, score=never_asked, previous=first, **options)


@pytest.mark.parametrize("change", ["dimension", "labels", "kind"])
def test_previous_of_another_kind_is_refused(change):
    data = make_data()
    first, _ = choose(data, uses=("labels",))
    options = {"uses": ("labels",), "previous": first}
    if change == "dimension":
        options["embeddings"] = data["embeddings"][:, :4]
    options["uses"] = {"labels": (), "kind": ("number",)}.get(change, ("labels",))
    with pytest.raises(ValueError, match="previous"):
        choose(data, score=never_asked, **options)


@pytest.mark.parametrize("case", ["coordinated", "poisson", "systematic", "labels", "shares"])
def test_another_budget_is_what_select_would_have_chosen(case):
    """At any budget, without a new score: `at_budget` and `previous` say the same."""
    data = make_data()
    first, _ = choose(data, **CASES[case])
    # every group with a share has at least one row
    for budget in (3 if case == "shares" else 1, 20, 60, 200, N):
        at = first.at_budget(budget)
        anew, _ = choose(
            data, score=never_asked, previous=first, **{**CASES[case], "budget": budget}
        )
        assert np.array_equal(at.indices, anew.indices)
        assert np.array_equal(at.weights, anew.weights)
        assert at.queries == first.queries
        assert at.certificate.epsilon == anew.certificate.epsilon
        if case != "poisson":
            assert len(at) == budget
    assert np.array_equal(first.at_budget(60).indices, first.indices)


def test_smaller_budgets_lie_in_larger_ones():
    """Coordinated: at least 85% of the smaller budget's rows, on average over ten seeds."""
    shares = []
    for seed in range(10):
        data = make_data(seed=seed)
        first, _ = choose(data, seed=seed)
        for small, large in ((15, 30), (30, 60), (60, 120), (120, 240)):
            inside = np.isin(first.at_budget(small).indices, first.at_budget(large).indices)
            shares.append(inside.mean())
    assert np.mean(shares) >= 0.85
    assert min(shares) >= 0.6


def test_strata_that_are_kept_keep_more_rows():
    """5% new rows at 600 of 6,000: with the strata of before 93% stay and more, as good as all can.

    One seed has a standard error of about one point. Strata cut anew, by the same law, keep fewer.
    """
    rng = np.random.default_rng(0)
    n = 6300
    points = rng.normal(size=(n, 3)).astype(np.float32)
    score = np.exp(points[:, 0]) * rng.gamma(4.0, 0.25, size=n)
    ids = np.arange(n)
    kept, anew = [], []
    for seed in range(3):
        old = np.sort(rng.permutation(n)[:6000])
        first = curation.select(points[old], score[old], ids=ids[old], budget=600, seed=seed)
        before = set(old[first.indices].tolist())
        after = curation.select(points, never_asked, ids=ids, budget=600, seed=seed, previous=first)
        state = replace(after._state, borders=None)
        moved = state.redraw(state, 600)
        kept.append(len(before & set(after.indices.tolist())) / 600)
        anew.append(len(before & set(moved.indices.tolist())) / 600)
    assert np.mean(kept) >= 0.92
    assert np.mean(kept) > np.mean(anew)


@pytest.mark.parametrize("ties", [False, True])
def test_borders_lie_where_their_rows_stood(ties):
    """Found again among other rows by what rows are ordered by, however many are equal."""
    data = make_data(ties=ties)
    chosen, _ = choose(data, budget=100)
    state = chosen._state
    starts = np.arange(7, N, 31)
    borders = state.fitted.borders(state.rows, state.tags, state.order[starts], budget=100)
    again = state.fitted.cuts(borders, state.rows, state.tags, state.order)
    assert again.tolist() == starts.tolist()
    rest = np.sort(np.random.default_rng(3).permutation(N)[:300])
    order = state.fitted.order(state.rows[rest], state.tags[rest])
    fewer = state.fitted.cuts(borders, state.rows[rest], state.tags[rest], order)
    place = np.empty(N, dtype=int)
    place[state.order] = np.arange(N)
    assert fewer.tolist() == [int((place[rest] < start).sum()) for start in starts]


def test_strata_are_cut_anew_for_another_size_of_budget():
    """Between half and twice the budget they were made for, they are kept, however large it is."""
    data = make_data()
    first, _ = choose(data, budget=80)
    for budget, kept in ((80, True), (50, True), (150, True), (20, False), (300, False)):
        again, _ = choose(data, score=never_asked, previous=first, budget=budget)
        assert (again._state.cuts() is not None) == kept
        assert len(again) == budget
    most, _ = choose(data, budget=420)  # nearly all rows: strata are joined, many rows certain
    again, _ = choose(data, score=never_asked, previous=most, budget=430)
    assert again._state.cuts() is not None

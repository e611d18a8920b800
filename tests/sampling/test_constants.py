"""The constants L against their definitions.

One test is a statistic: it says how often it would fail by chance, and its seed is fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sampling.constants import (
    CONSTANTS,
    PER_CLUSTER,
    PRIOR_ROWS,
    Constants,
    Pilot,
    estimate_constants,
    pilot_rows_per_cluster,
)

K, N = 6, 500


def make_pilot(m: int = 40, *, seed: int = 1, k: int = K - 1) -> Pilot:
    """Pilot rows in all clusters but the last; some lie on their medoid."""
    rng = np.random.default_rng(seed)
    distance = rng.gamma(2.0, size=m)
    distance[:3] = 0.0
    score = rng.gamma(1.0, size=m)
    return Pilot(
        cluster=np.concatenate([np.arange(k), rng.integers(0, k, m - k)]).astype(np.int32),
        distance=distance,
        score=score,
        proxy=score + rng.normal(0, 0.3, m),
        weight=rng.uniform(1.0, 20.0, m),
    )


def estimate(mode: str, pilot: Pilot | None, *, mean_proxy: float = 1.5) -> Constants:
    return estimate_constants(
        mode, mean_proxy=mean_proxy, mean_distance=2.0, k=K, rows=N, pilot=pilot
    )


def ratios(pilot: Pilot) -> dict[int, list[float]]:
    """|l - l-hat| / v by cluster, of the rows that do not lie on their medoid."""
    found: dict[int, list[float]] = {}
    for c, v, score, proxy in zip(
        pilot.cluster, pilot.distance, pilot.score, pilot.proxy, strict=True
    ):
        if v > 0:
            found.setdefault(int(c), []).append(abs(score - proxy) / v)
    return found


@pytest.mark.parametrize("k", [1, 2, 9, 10, 11, 99, 100, 101, 4000])
def test_pilot_rows_per_cluster(k):
    """The smallest m with k 0.1^m <= 1%, which is ceil(ln(100 k) / ln 10)."""
    m = pilot_rows_per_cluster(k)
    assert k * 0.1**m <= 0.01 * (1 + 1e-9)
    assert k * 0.1 ** (m - 1) > 0.01 * (1 + 1e-9)


def test_balanced_needs_no_pilot():
    assert estimate("balanced", None).values == pytest.approx(np.full(K, 1.5 / 2.0))
    flat = estimate_constants(
        "balanced", mean_proxy=1.0, mean_distance=0.0, k=2, rows=9, pilot=None
    )
    assert flat.values.tolist() == [0.0, 0.0]


def test_max_is_the_largest_ratio_times_the_logarithm_of_n():
    pilot = make_pilot()
    largest = {c: max(found) * math.log(N) for c, found in ratios(pilot).items()}
    values = estimate("max", pilot).values
    for c, expected in largest.items():
        assert values[c] == pytest.approx(expected)
    # a cluster without a pilot row gets the median of the others
    assert values[K - 1] == pytest.approx(np.median(list(largest.values())))


def test_quantile_is_shrunk_towards_that_of_all_clusters():
    pilot = make_pilot(60)
    apart = pilot.distance > 0
    ratio = np.abs(pilot.score - pilot.proxy)[apart] / pilot.distance[apart]
    line = np.argsort(ratio)
    mass, reached = 0.0, 0
    for reached in line:
        mass += pilot.weight[apart][reached]
        if mass >= 0.9 * pilot.weight[apart].sum():
            break
    everywhere = ratio[reached]
    values = estimate("quantile", pilot).values
    for c, found in ratios(pilot).items():
        own = sorted(found)[min(int(0.9 * len(found)), len(found) - 1)]
        expected = (len(found) * own + PRIOR_ROWS * everywhere) / (len(found) + PRIOR_ROWS)
        assert values[c] == pytest.approx(expected)
        assert min(own, everywhere) - 1e-12 <= values[c] <= max(own, everywhere) + 1e-12
    assert values[K - 1] == pytest.approx(everywhere)


def test_conformal_is_the_smallest_factor_that_covers():
    """With it, ceil(0.9 (m + 1)) pilot rows are covered; with a little less, fewer."""
    pilot = make_pilot(50)
    values = estimate("conformal", pilot).values
    assert np.all(values == values[0])
    wanted = math.ceil(0.9 * 51)
    for factor, enough in ((1.0 + 1e-9, True), (1.0 - 1e-6, False)):
        q = pilot.proxy + factor * values[pilot.cluster] * pilot.distance
        assert ((pilot.score <= q + 1e-12).sum() >= wanted) == enough


def test_conformal_covers_nine_in_ten_of_rows_like_the_pilots():
    """400 pilots of 49 rows and 50 new rows each: coverage 0.9 = 45/50 within 4 standard errors.

    The pilots are independent, so the standard error is that of their means; by chance this fails
    with probability 6e-5.
    """
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(400):
        distance = rng.gamma(2.0, size=99)
        score = 1.0 + rng.exponential(size=99) * distance
        pilot = Pilot(
            cluster=np.zeros(49, dtype=np.int32),
            distance=distance[:49],
            score=score[:49],
            proxy=np.ones(49),
            weight=np.ones(49),
        )
        constants = estimate("conformal", pilot)
        q = constants.scores(np.ones(50), distance[49:], np.zeros(50, dtype=np.int32))
        covered.append(np.mean(score[49:] <= q))
    error = np.std(covered, ddof=1) / 20
    assert abs(np.mean(covered) - 0.9) <= 4 * error
    assert error < 0.005  # so that a factor for 88% would be found


def test_conformal_without_reach():
    """A proxy of zero has a balanced constant of zero, which no factor makes cover anything."""
    values = estimate("conformal", make_pilot(), mean_proxy=0.0).values
    assert np.isfinite(values).all()
    assert np.all(values == 0.0)


def test_variance_is_the_squared_error_per_squared_distance():
    pilot = make_pilot()
    squares = pilot.weight @ (pilot.score - pilot.proxy) ** 2
    constants = estimate("variance", pilot)
    assert constants.values == pytest.approx(np.full(K, squares / (pilot.weight @ pilot.distance)))
    proxy, distance = np.array([3.0, 0.0, 2.0]), np.array([0.0, 4.0, 1.0])
    cluster = np.array([0, 1, 2], dtype=np.int32)
    s2 = constants.values[0]
    expected = [3.0, math.sqrt(4 * s2), math.sqrt(4 + s2)]
    assert constants.scores(proxy, distance, cluster) == pytest.approx(expected)
    additive = math.sqrt(4 * s2) + math.sqrt(s2)
    assert constants.additive(distance, cluster) == pytest.approx(additive)


def test_scores_and_additive_term_use_each_rows_own_constant():
    constants = Constants("max", np.array([1.0, 10.0]))
    proxy, distance = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.5, 0.0])
    cluster = np.array([0, 1, 1], dtype=np.int32)
    assert constants.scores(proxy, distance, cluster).tolist() == [1.5, 7.0, 3.0]
    assert constants.additive(distance, cluster) == pytest.approx(5.5)


@pytest.mark.parametrize("mode", CONSTANTS)
def test_units(mode):
    """Scores in other units give q in those units; distances in other units change nothing."""
    pilot = make_pilot()
    proxy, distance = pilot.proxy.clip(0), pilot.distance
    plain = estimate_constants(
        mode, mean_proxy=1.5, mean_distance=2.0, k=K, rows=N, pilot=pilot
    ).scores(proxy, distance, pilot.cluster)
    for a, b in ((7.0, 1.0), (1.0, 0.01), (1e-6, 1e3)):
        other = Pilot(
            pilot.cluster, b * pilot.distance, a * pilot.score, a * pilot.proxy, pilot.weight
        )
        found = estimate_constants(
            mode, mean_proxy=1.5 * a, mean_distance=2.0 * b, k=K, rows=N, pilot=other
        )
        assert found.scores(a * proxy, b * distance, pilot.cluster) == pytest.approx(a * plain)


@pytest.mark.parametrize("mode", [mode for mode in CONSTANTS if mode != "balanced"])
def test_what_a_mode_needs(mode):
    with pytest.raises(ValueError, match=f"constants '{mode}' need pilot rows"):
        estimate(mode, None)
    pilot = make_pilot()
    on_medoids = Pilot(pilot.cluster, np.zeros(40), pilot.score, pilot.proxy, pilot.weight)
    assert estimate(mode, on_medoids).values.tolist() == [0.0] * K


def test_unknown_mode():
    with pytest.raises(ValueError, match="unknown constants 'nope'; known: balanced, max"):
        estimate("nope", make_pilot())
    assert set(PER_CLUSTER) <= set(CONSTANTS)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CONSTANTS), st.integers(5, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_scores_are_finite_and_not_below_the_proxy(mode, m, seed, exact):
    """Whatever the pilot, also one the proxy predicts exactly."""
    pilot = make_pilot(m, seed=seed)
    if exact:
        pilot = Pilot(pilot.cluster, pilot.distance, pilot.score, pilot.score, pilot.weight)
    constants = estimate(mode, pilot)
    assert constants.values.shape == (K,)
    q = constants.scores(pilot.score, pilot.distance, pilot.cluster)
    assert np.isfinite(q).all()
    assert np.all(q >= pilot.score * (1 - 1e-12))
    assert constants.additive(pilot.distance, pilot.cluster) >= 0.0

"""Estimates over repetitions of the whole procedure: own clusters, pilot, proxy and draw each time.

Each test says how often it would fail by chance; the seeds are fixed. Four standard errors are
exceeded with probability 6e-5 under the normal approximation.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

import curation
from curation.sampling import CalibrationError
from curation.selection import Selection

N, BUDGET, K, SEEDS = 220, 40, 8, 160

# every design, proxy and mode of the constants, each of them at least once
COMBINATIONS = [
    ("coordinated", "auto", "balanced"),
    ("coordinated", "low_rank", "variance"),
    ("coordinated", "regression", "conformal"),
    ("systematic", "cluster", "quantile"),
    ("iid", "regression", "variance"),
    ("poisson", "low_rank", "max"),
    ("stratified", "cluster", "conformal"),
    ("uniform", "low_rank", "balanced"),
    ("stratified_uniform", "auto", "variance"),
]
# more of their pairs, for `make test-long`
FURTHER = [
    ("coordinated", "cluster", "max"),
    ("systematic", "regression", "balanced"),
    ("iid", "cluster", "balanced"),
    ("poisson", "auto", "conformal"),
    ("stratified", "regression", "quantile"),
]
EACH = pytest.mark.parametrize(
    "combination",
    [*COMBINATIONS, *(pytest.param(one, marks=pytest.mark.long) for one in FURTHER)],
    ids="-".join,
)


@cache
def problem() -> tuple[np.ndarray, np.ndarray]:
    """Six clouds; the score depends on the cloud, on the place in it, and on luck."""
    rng = np.random.default_rng(11)
    code = rng.integers(0, 6, N)
    points = (rng.normal(size=(6, 3)) * 4)[code] + rng.normal(size=(N, 3))
    losses = 0.2 + code**2 / 4 + np.abs(rng.normal(size=N)) * 0.3 + np.exp(0.2 * points[:, 0])
    return points.astype(np.float32), losses


@cache
def noise() -> tuple[np.ndarray, np.ndarray]:
    """Scores that have nothing to do with the points."""
    rng = np.random.default_rng(12)
    return rng.normal(size=(N, 3)).astype(np.float32), rng.gamma(0.7, size=N)


def choose(data, seed: int, **options) -> Selection:
    points, losses = data()
    return curation.select(points, losses, seed=seed, **{"budget": BUDGET, "k": K, **options})


@cache
def repeated(design: str, proxy: str, constants: str) -> dict[str, np.ndarray]:
    """Estimates and intervals over all seeds."""
    _, losses = problem()
    found: dict[str, list] = {name: [] for name in ("other", "ht", "difference", "calibrated")}
    for seed in range(SEEDS):
        chosen = choose(problem, seed, design=design, proxy=proxy, constants=constants)
        own = losses[chosen.indices]
        found["other"].append([chosen.weights.sum(), chosen.weights @ chosen.indices])
        for method in ("ht", "difference", "calibrated"):
            try:
                told = chosen.estimate(own, method=method)
            except CalibrationError:
                found[method].append([np.nan] * 3)
                continue
            found[method].append([told.value, told.low, told.high])
    return {name: np.array(values) for name, values in found.items()}


@EACH
def test_unbiased(combination):
    """The total of the score by both methods, the number of rows, and the sum of their numbers.

    Four comparisons for each of 9 combinations, of 14 with those of `make test-long`: by chance one
    of them fails in 0.2% of cases, or 0.4%.
    """
    _, losses = problem()
    found = repeated(*combination)
    for values, truth in (
        (found["ht"][:, 0], losses.sum()),
        (found["difference"][:, 0], losses.sum()),
        (found["other"][:, 0], N),
        (found["other"][:, 1], N * (N - 1) / 2),
    ):
        error = values.std(ddof=1) / math.sqrt(SEEDS)
        assert abs(values.mean() - truth) <= 4 * error + 1e-9 * truth
        assert error < 0.03 * truth  # so that a bias of an eighth would be found


@EACH
def test_calibrated_is_nearly_unbiased(combination):
    """Within 4 standard errors and 1.5% of the total, which its bias may be at 40 rows.

    In fewer than one in twenty draws there are no weights that meet all totals.
    """
    _, losses = problem()
    values = repeated(*combination)["calibrated"][:, 0]
    met = np.isfinite(values)
    assert met.mean() >= 0.95
    error = values[met].std(ddof=1) / math.sqrt(met.sum())
    assert abs(values[met].mean() - losses.sum()) <= 4 * error + 0.015 * losses.sum()


@pytest.mark.parametrize("method", ["ht", "difference", "calibrated"])
def test_intervals_cover(method):
    """Nominal 95%: all combinations together 92% or more, each by itself 83% or more.

    The binomial standard error is 1.7 points for one combination and 0.5 for all, were they
    independent. Of 40 rows, some combinations cover 86 to 90%, not 95: fewer draws than skewed
    values need.
    """
    _, losses = problem()
    hits = []
    for combination in COMBINATIONS:
        found = repeated(*combination)[method]
        found = found[np.isfinite(found[:, 0])]
        hits.append(np.mean((found[:, 1] <= losses.sum()) & (losses.sum() <= found[:, 2])))
    assert min(hits) >= 0.83
    assert 0.92 <= np.mean(hits) <= 0.995


PRECISE = COMBINATIONS[:4]


@pytest.mark.parametrize("combination", PRECISE, ids="-".join)
def test_more_precise_than_uniform_on_clusters(combination):
    """Variance over 160 selections below half of uniform's.

    The ratio has a relative standard error of 16%: a method as precise as uniform would pass with
    probability 1e-5.
    """
    ours = repeated(*combination)["ht"][:, 0]
    uniform = repeated("uniform", "low_rank", "balanced")["ht"][:, 0]
    assert ours.var() < 0.5 * uniform.var()


@cache
def errors_on_noise(**options) -> np.ndarray:
    _, losses = noise()
    chosen = (choose(noise, seed, **options) for seed in range(300))
    return np.array([one.weights @ losses[one.indices] / losses.sum() - 1.0 for one in chosen])


@pytest.mark.parametrize("proxy", ["auto", "cluster"])
def test_hardly_less_precise_than_uniform_on_noise(proxy):
    """Variance over 300 selections at most 1.15 times uniform's, give or take chance.

    The ratio of two variances has a relative standard error of sqrt(4 / 300) = 11.5%. It was 0.96
    in 400 selections by either proxy; without the guard, by the medoids' scores, it is about 2.
    """
    ours = errors_on_noise(proxy=proxy)
    uniform = errors_on_noise(design="uniform", proxy="cluster", mix=0.1)
    assert ours.var() / uniform.var() <= 1.15 * (1 + 3 * 0.115)


def test_certificate_is_kept():
    """Scores of 0 or 1, half of each, bounded by q = 1: as wide as draws in [0, q] can vary.

    400 samples at delta = 0.2, so that the promise has a standard error of 2 points. The radius is
    kept in 97%; one half as long would be in 72%.
    """
    rng = np.random.default_rng(0)
    values = (rng.permutation(100) < 50).astype(float)
    kept = 0
    for seed in range(400):
        chosen = curation.select(
            np.ones((100, 1)), lambda rows: np.ones(len(rows)), budget=50, k=1, delta=0.2,
            proxy="cluster", mix=0.1, design="iid", seed=seed,
        )  # fmt: skip
        error = abs(chosen.weights @ values[chosen.indices] - values.sum())
        kept += error <= chosen.certificate.radius
    assert kept / 400 >= 0.8


@pytest.mark.parametrize("design", ["iid", "coordinated", "systematic", "poisson", "stratified"])
def test_certificate_of_a_smooth_score(design):
    """Where no score exceeds q, the error is within the radius in 1 - delta of 60 selections.

    At delta = 0.3 chance alone would have it fewer than 42 - 4 * 3.5 = 28 times with probability
    1e-4; Hoeffding's bound is wide, and it is kept nearly always.
    """
    _, losses = problem()
    kept = violated = 0
    for seed in range(60):
        chosen = choose(
            problem, seed, design=design, proxy="cluster", constants="max", delta=0.3, budget=60
        )
        error = abs(chosen.weights @ losses[chosen.indices] - losses.sum())
        kept += error <= chosen.certificate.radius
        violated += np.mean(losses[chosen.indices] > chosen.score * (1 + 1e-9) + 1e-12)
    assert violated / 60 < 0.02
    assert kept >= 0.7 * 60


def test_certificate_by_its_formulas():
    for mix, delta, budget in ((0.1, 0.05, 40), (0.5, 0.2, 90)):
        chosen = choose(problem, 1, proxy="cluster", mix=mix, delta=delta, budget=budget)
        told = [chosen.explain(row) for row in range(N)]
        q = np.array([one["score"] for one in told])
        law = np.array([one["law"] for one in told])
        assert law == pytest.approx((1 - mix) * q / q.sum() + mix / N)
        certificate = chosen.certificate
        assert certificate.delta == delta
        assert certificate.epsilon == pytest.approx(math.sqrt(math.log(2 / delta) / (2 * budget)))
        assert certificate.bound == pytest.approx((q / law).max())
        assert certificate.radius == pytest.approx(certificate.epsilon * certificate.bound)
        proxy = np.array([one["proxy"] for one in told])
        assert certificate.additive == pytest.approx((q - proxy).sum())
        # balanced: both parts of q have the same total
        assert certificate.additive == pytest.approx(proxy.sum(), rel=1e-6)
        assert certificate.violated_share is None  # no pilot row was asked for


@pytest.mark.parametrize("design", ["coordinated", "stratified", "systematic", "uniform"])
def test_no_term_exceeds_the_certificates_bound(design):
    """What a row can contribute is q / pi, of which there are s: none above the bound."""
    for seed in range(5):
        chosen = choose(problem, seed, design=design, proxy="cluster")
        drawn = chosen.reason == "drawn"
        terms = BUDGET * chosen.score[drawn] / chosen.inclusion_probability[drawn]
        assert terms.max() <= chosen.certificate.bound * (1 + 1e-9)


@pytest.mark.parametrize("constants", ["balanced", "quantile", "conformal"])
def test_violated_share(constants):
    """Estimated from the pilot: its mean over 40 selections is the true share, 4 standard errors.

    The proxy is the medoid's score, so that q is known of every row.
    """
    _, losses = problem()
    told, true = [], []
    for seed in range(40):
        chosen = choose(problem, seed, proxy="cluster", constants=constants)
        q = np.array([chosen.explain(row)["score"] for row in range(N)])
        told.append(chosen.certificate.violated_share)
        true.append(np.mean(losses > q * (1 + 1e-9) + 1e-12))
    difference = np.array(told) - np.array(true)
    error = difference.std(ddof=1) / math.sqrt(40)
    # the pilot is not chosen among the medoids, none of which is violated: 8 of 220 rows
    assert abs(difference.mean()) <= 4 * error + K / N * np.mean(true)
    assert np.mean(true) > 0.002


def test_violated_share_is_one_of_rows_not_of_pilot_rows():
    """Half of the pilot is a tenth of the rows, as these have large scores; none violates q there.

    All rows lie on their medoid, so that q is the medoid's score, which half of the others exceed
    where scores vary. Over 60 selections, within 4 standard errors.
    """
    far = np.arange(400) < 40
    points = np.where(far, 9.0, 0.0)[:, None]
    told, true = [], []
    for seed in range(60):
        losses = np.where(far, 50.0, np.random.default_rng(seed).uniform(1.0, 2.0, 400))
        chosen = curation.select(
            points, losses, budget=40, k=2, proxy="cluster", constants="conformal", seed=seed
        )
        bound = losses[chosen.explain(399)["medoid"]]
        told.append(chosen.certificate.violated_share)
        true.append(np.mean(~far & (losses > bound)))
    difference = np.array(told) - np.array(true)
    assert abs(difference.mean()) <= 4 * difference.std(ddof=1) / math.sqrt(60) + 2 / 400
    assert difference.std(ddof=1) < 0.2


SMOOTH_DESIGNS = ["coordinated", "systematic", "stratified", "poisson", "iid", "uniform"]


@cache
def smooth() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(13)
    points = rng.normal(size=(500, 2)).astype(np.float32)
    return points, np.exp(0.7 * points[:, 0])


@pytest.mark.parametrize("design", SMOOTH_DESIGNS)
def test_error_curve_predicts_the_error(design):
    """Root mean square over 60 selections, within a factor of 1.5 of the predicted one.

    The standard error of the former is 9%. A systematic draw may be better by more: its strata are
    as fine as its draws, and the prediction reckons with eight to a stratum.
    """
    _, losses = smooth()
    errors, predicted = [], []
    for seed in range(60):
        chosen = choose(smooth, seed, design=design, budget=60, k=15)
        errors.append(chosen.weights @ losses[chosen.indices] / losses.sum() - 1.0)
        predicted.append(chosen.error_curve([60])["relative_error"][0])
    realised = math.sqrt(np.mean(np.square(errors)))
    expected = math.sqrt(np.mean(np.square(predicted)))
    assert realised / 1.5 <= expected <= realised * (2.5 if design == "systematic" else 1.5)


def test_error_curve_is_that_of_the_design_asked_for():
    """Also where what was learned comes from a selection by another design."""
    options = {"proxy": "cluster", "mix": 0.1, "constants": "conformal", "budget": 60, "k": 15}
    for one, two in (("iid", "coordinated"), ("coordinated", "poisson")):
        first = choose(smooth, 0, design=one, **options)
        kept = choose(smooth, 0, design=two, previous=first, **options)
        anew = choose(smooth, 0, design=two, **options)
        expected = anew.error_curve([30, 60])["relative_error"].to_list()
        assert kept.error_curve([30, 60])["relative_error"].to_list() == pytest.approx(expected)


def test_error_curve():
    """Falls, is zero at n, and its uniform rows are those of simple random sampling."""
    _, losses = smooth()
    chosen = choose(smooth, 0, budget=60, k=15)
    curve = chosen.error_curve()
    assert curve.columns == ["budget", "relative_error", "uniform_error", "uniform_budget"]
    assert curve["budget"].to_list()[0] == 20
    assert curve["budget"].to_list()[-1] == 500
    for name in ("relative_error", "uniform_error"):
        assert np.all(np.diff(curve[name].to_numpy()) < 0)
        assert curve[name][-1] == pytest.approx(0.0, abs=1e-12)
    assert np.all(curve["relative_error"].to_numpy()[:-1] < curve["uniform_error"].to_numpy()[:-1])
    assert np.all(curve["uniform_budget"].to_numpy()[:-1] > curve["budget"].to_numpy()[:-1])
    assert curve["uniform_budget"][-1] == 500
    few = chosen.error_curve([10, 100])
    assert few["budget"].to_list() == [10, 100]
    # of the pilot's own account of the scores' spread; the truth within a factor of 1.5
    true = losses.std() / losses.mean() * math.sqrt((1 / 100) * (1 - 100 / 500))
    assert true / 1.5 < few["uniform_error"][1] < true * 1.5
    bare = choose(smooth, 0, budget=60, k=15, proxy="cluster", mix=0.1)
    with pytest.raises(ValueError, match="none were asked for"):
        bare.error_curve()


def test_pilot_and_draw_are_independent():
    """A row of the pilot is drawn as often as any other: 100 uniform draws of 40 of 220 rows.

    Within 4 standard errors of the expected share; were both made by the same numbers, nearly all
    of the pilot would be drawn.
    """
    points, losses = problem()
    shares = []
    for seed in range(100):
        asked = []
        chosen = curation.select(
            points, lambda rows, asked=asked: asked.append(rows) or losses[rows], budget=BUDGET,
            k=K, design="uniform", seed=seed, proxy="cluster",
        )  # fmt: skip
        assert len(asked) == 2
        shares.append(np.isin(asked[1], chosen.indices).mean())
    error = np.std(shares, ddof=1) / 10
    assert abs(np.mean(shares) - BUDGET / N) <= 4 * error


def test_rows_are_drawn_as_often_as_explained():
    """Frequencies over 60 selections in 5 bands of probability, within 4 standard errors.

    Each selection has probabilities of its own, which `explain` tells of unchosen rows too.
    """
    hits, told = [], []
    for seed in range(60):
        chosen = choose(problem, seed, proxy="cluster", budget=30)
        told.append([chosen.explain(row)["inclusion_probability"] for row in range(N)])
        hits.append(np.isin(np.arange(N), chosen.indices))
    pi, hit = np.array(told), np.array(hits, dtype=float)
    assert pi.sum(axis=1) == pytest.approx(np.full(60, 30.0))
    edges = np.quantile(pi, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    for low, high in pairwise(edges):
        band = (pi >= low) & (pi < high)
        expected, error = pi[band].sum(), math.sqrt((pi[band] * (1 - pi[band])).sum())
        assert abs(hit[band].sum() - expected) <= 4 * error


def test_certificate_of_a_heavy_tail_is_kept_by_its_excess():
    """Scores far above q on a few rows: without the excess the radius is missed too often.

    200 selections at delta = 0.05 from scores that no embedding explains, the heaviest of which is
    a tenth of the total. The excess takes its part of the error for a normal one, which a tail like
    this is not: over eight such data sets the error was within the radius in 90%, without it in
    46%; on this one in 93% and 27%. With 93%, fewer than 174 are kept with probability 0.002.
    """
    rng = np.random.default_rng(5)
    points = rng.normal(size=(600, 2)).astype(np.float32)
    losses = rng.lognormal(0.0, 2.2, size=600)
    kept = bare = 0
    for seed in range(200):
        chosen = curation.select(points, losses, budget=60, seed=seed, mix=0.3)
        error = abs(chosen.weights @ losses[chosen.indices] - losses.sum())
        kept += error <= chosen.certificate.radius
        bare += error <= chosen.certificate.radius - chosen.certificate.excess
        assert chosen.certificate.violated_share > 0.0
    assert kept >= 174
    assert bare <= 100


def test_excess_by_its_formula():
    chosen = choose(problem, 3, proxy="cluster", delta=0.1)
    state = chosen._state
    fitted, pilot = state.fitted, state.fitted.pilot
    q = pilot.proxy + fitted.constants.values[pilot.cluster] * pilot.distance
    mix = chosen.diagnostics["mix"]
    power = chosen.diagnostics["power"]
    p = (1 - mix) * q**power / (state.scores**power).sum() + mix / N
    rows = [int(np.flatnonzero(state.tags == tag)[0]) for tag in fitted.pilot_tags]
    assert p == pytest.approx(state.law[rows])
    assert pilot.score == pytest.approx(problem()[1][rows])
    above = np.maximum(pilot.score - q, 0.0)
    terms = pilot.weight * N / pilot.weight.sum() * above**2 / p
    variance = terms.sum() + math.sqrt(len(terms)) * terms.std(ddof=1)
    expected = math.sqrt(2 * math.log(2 / 0.1) * variance / BUDGET)
    assert expected > 0.0
    assert chosen.certificate.excess == pytest.approx(expected, rel=1e-6)
    assert chosen.certificate.radius == pytest.approx(
        chosen.certificate.epsilon * chosen.certificate.bound + expected
    )


@pytest.mark.parametrize(
    "options",
    [{"design": "uniform"}, {"design": "stratified_uniform"}, {"tilt": "classes"},
     {"shares": {"a": 0.1}}, {"design": "stratified"}],
    ids=str,
)  # fmt: skip
def test_excess_is_by_the_law_that_draws(options):
    """Not by the sensitivity's: the pilot's rows are looked up in the law the rows are drawn by."""
    _, losses = problem()
    which = np.where(losses > np.median(losses), "a", "b")
    chosen = choose(problem, 1, labels=which, groups=which, proxy="cluster", **options)
    state = chosen._state
    fitted, pilot = state.fitted, state.fitted.pilot
    rows = [int(np.flatnonzero(state.tags == tag)[0]) for tag in fitted.pilot_tags]
    p = chosen._draw.probabilities[rows] / BUDGET
    q = pilot.proxy + fitted.constants.values[pilot.cluster] * pilot.distance
    terms = pilot.weight * N / pilot.weight.sum() * np.maximum(pilot.score - q, 0.0) ** 2 / p
    variance = terms.sum() + math.sqrt(len(terms)) * terms.std(ddof=1)
    expected = math.sqrt(2 * math.log(2 / 0.05) * variance / BUDGET)
    assert chosen.certificate.excess == pytest.approx(expected, rel=0.02)

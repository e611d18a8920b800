"""The coordinated draw in blocks is the coordinated draw; so are inclusion probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import sampling


def in_blocks(law, order, step):
    def walk():
        for start in range(0, len(law), step):
            rows = order[start : start + step]
            yield rows, law[rows]

    return walk


@st.composite
def draws(draw):
    n = draw(st.integers(1, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    q = {
        "even": lambda: np.ones(n),
        "gamma": lambda: rng.gamma(0.5, size=n),
        "wide": lambda: rng.lognormal(0.0, 3.0, n),
        "some never": lambda: rng.gamma(1.0, size=n) * (rng.random(n) < 0.8),
    }[draw(st.sampled_from(["even", "gamma", "wide", "some never"]))]()
    if q.sum() == 0.0:
        q[0] = 1.0
    s = draw(st.integers(1, n))
    cuts = None
    if draw(st.booleans()):
        cuts = np.sort(rng.permutation(n)[: draw(st.integers(0, 12))])
    return q / q.sum(), rng.permutation(n), s, draw(st.integers(1, n)), rng.random(n), cuts


@settings(max_examples=120, deadline=None)
@given(draws())
def test_blocks_draw_the_same_rows(case):
    law, order, s, step, numbers, cuts = case
    walk, refused = in_blocks(law, order, step), ""
    try:
        expected = sampling.draw(
            "coordinated",
            law,
            s,
            order=order,
            rng=np.random.default_rng(7),
            numbers=numbers,
            cuts=cuts,
        )
    except ValueError as error:
        refused = str(error)
    if refused:
        with pytest.raises(ValueError) as told:
            sampling.find_inclusion(lambda: (part for _, part in walk()), s)
        assert str(told.value) == refused
        return
    inclusion = sampling.find_inclusion(lambda: (part for _, part in walk()), s)
    found = sampling.coordinated_along(
        walk, s, inclusion, np.random.default_rng(7), lambda rows: numbers[rows], cuts
    )
    assert inclusion(law) == pytest.approx(expected.probabilities, rel=1e-9)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.weights == pytest.approx(expected.weights, rel=1e-9)
    assert found.take_all.tolist() == expected.take_all.tolist()
    assert found.stratum.tolist() == expected.stratum.tolist()
    # a whole number of draws, rounded below or above: its fraction is 0 or nearly 1
    apart = np.abs(found.rounding - expected.rounding)
    assert np.all(np.minimum(apart, 1.0 - apart) < 1e-6)
    assert found.cuts.tolist() == expected.cuts.tolist()


def test_a_stratum_with_hardly_a_small_ranking_is_looked_at_again():
    """All numbers of a stratum are large: none is among those kept at first."""
    law, order, numbers = np.full(400, 1 / 400), np.arange(400), np.full(400, 0.5)
    numbers[:80] = 1.0 - np.linspace(1e-6, 1e-5, 80)
    how = {"rng": np.random.default_rng(0), "numbers": numbers, "order": order}
    expected = sampling.draw("coordinated", law, 40, **how)
    walk = in_blocks(law, order, 50)
    inclusion = sampling.find_inclusion(lambda: (part for _, part in walk()), 40)
    found = sampling.coordinated_along(
        walk, 40, inclusion, np.random.default_rng(0), lambda rows: numbers[rows]
    )
    assert sorted(found.indices.tolist()) == sorted(expected.indices.tolist())


@pytest.mark.parametrize("s", [0, 6])
def test_numbers_of_draws_that_rows_cannot_give(s):
    with pytest.raises(ValueError, match="between 1 and 5"):
        sampling.find_inclusion(lambda: [np.full(3, 0.2), np.full(2, 0.2)], s)

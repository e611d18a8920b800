"""What error is foreseen at a number of draws, also from an even share of the rows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from curation.sampling.constants import Pilot
from curation.selection import Foresight

ROWS = 40_000


def foresight(design: str, *, every: int = 1, noise: float = 0.6) -> Foresight:
    """Scores that a proxy explains in part; the pilot is a uniform sample of 400 rows."""
    rng = np.random.default_rng(0)
    proxy = rng.gamma(2.0, 1.0, ROWS)
    score = np.abs(proxy + rng.normal(scale=noise, size=ROWS))
    law = 0.9 * proxy / proxy.sum() + 0.1 / ROWS
    asked = rng.choice(ROWS, 400, replace=False)
    nothing = np.zeros(len(asked))
    pilot = Pilot(
        cluster=nothing.astype(np.int32),
        distance=nothing,
        score=score[asked],
        proxy=proxy[asked],
        weight=np.full(len(asked), ROWS / len(asked)),
    )
    taken = slice(None, None, every)
    return Foresight(
        pilot=pilot,
        pilot_law=law[asked],
        proxy=proxy[taken],
        law=law[taken],
        order=np.argsort(proxy[taken], kind="stable"),
        rows=ROWS,
        design=design,
        uniform_error=float(score.std() / score.mean()),
        every=every,
    )


@pytest.mark.parametrize("design", ["systematic", "coordinated", "poisson", "iid", "uniform"])
def test_an_even_share_of_the_rows_foresees_the_same(design):
    """Every 20th row: the pilot's part is the same, that of the strata within a few per cent."""
    whole, part = foresight(design), foresight(design, every=20)
    for draws in (200, 1000, 4000):
        assert part.error(draws) == pytest.approx(whole.error(draws), rel=0.08)
        assert part.uniform(draws) == whole.uniform(draws)


def test_of_a_perfect_proxy_what_is_left_is_its_spread_within_strata():
    """Nothing comes from the pilot's rows then, and a share of the rows has to count as all."""
    whole, part = (foresight("systematic", every=e, noise=0.0) for e in (1, 20))
    assert 0.0 < whole.error(400) < 0.2 * foresight("systematic").error(400)
    assert part.error(400) == pytest.approx(whole.error(400), rel=0.1)


def test_more_draws_are_better_and_the_law_is_better_than_uniform():
    seen = foresight("systematic")
    errors = [seen.error(draws) for draws in (50, 200, 1000, 4000)]
    assert all(a > b for a, b in pairwise(errors))
    assert all(e < seen.uniform(d) for e, d in zip(errors, (50, 200, 1000, 4000), strict=True))
    assert seen.error(4000) == pytest.approx(errors[0] * np.sqrt(50 / 4000), rel=0.2)


def test_uniform_is_that_of_simple_random_sampling():
    seen = replace(foresight("uniform"), uniform_error=0.5)
    assert seen.error(100) == seen.uniform(100) == pytest.approx(0.5 * np.sqrt(0.9975 / 100))

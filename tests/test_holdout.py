"""The reusable holdout, where adaptive use of a plain one reports gains that are not there."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from curation.holdout import ReusableHoldout

N = 1000
ROUNDS, TRIES = 200, 5


def null_run(seed: int, *, events: int) -> tuple[float, float, ReusableHoldout]:
    """Tune for 200 rounds on labels that are coin tosses; what naive and protected holdout report.

    Each round tries five random classifiers, keeps each as far as the holdout says that it is
    better than chance, and in the end the weighted vote of all is reported. The truth is 1/2.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=(2, N)) * 2.0 - 1.0  # open, protected
    holdout = ReusableHoldout(rows=N, events=events, seed=seed)
    naive, careful = np.zeros((2, N)), np.zeros((2, N))
    for step in range(ROUNDS * TRIES):
        says = rng.integers(2, size=(2, N)) * 2.0 - 1.0
        opened, protected = (says == truth).mean(axis=1)
        naive += (protected - 0.5) * says
        told = holdout.ask(f"{step}", opened, protected).value
        careful += (told - 0.5 if math.isfinite(told) else 0.0) * says
    naive_report = float((np.sign(naive) == truth).mean(axis=1)[1])
    opened, protected = (np.sign(careful) == truth).mean(axis=1)
    return naive_report, holdout.ask("final", opened, protected).value, holdout


def test_null_labels_report_no_gain_after_200_adaptive_rounds():
    """Of 12 runs, at most 3 may leave the tolerance of 95% (probability of more: 0.3%)."""
    runs = [null_run(seed, events=200) for seed in range(12)]
    tolerance = runs[0][2].tolerance(0.05)
    assert min(naive for naive, _, _ in runs) - 0.5 > tolerance  # the naive one reports a gain
    outside = sum(abs(told - 0.5) > tolerance + 2.0 / math.sqrt(N) for _, told, _ in runs)
    assert outside <= 3
    assert abs(np.mean([told for _, told, _ in runs]) - 0.5) < 0.05


def test_the_tolerance_is_what_it_says():
    """An overfitted figure is told as it is with probability delta/2 where it is off by that much.

    4,000 questions: the share is within 4.5 standard errors (probability of more: 1e-5).
    """
    for delta in (0.05, 0.2):
        wrong = 0
        for seed in range(4000):
            holdout = ReusableHoldout(rows=N, events=1, seed=seed)
            answer = holdout.ask("x", 0.5 + holdout.tolerance(delta), 0.5)
            wrong += not answer.overfitted
        p = delta / 2.0
        assert abs(wrong / 4000 - p) < 4.5 * math.sqrt(p * (1 - p) / 4000)


def test_where_halves_agree_the_open_one_is_told():
    """Noise takes 1.3% of such questions for overfitting: of 500 at most 19 (more: 1e-4)."""
    holdout = ReusableHoldout(rows=10_000, events=100)
    answers = [holdout.ask(f"{step}", 0.81, 0.811) for step in range(500)]
    assert {answer.value for answer in answers if not answer.overfitted} == {0.81}
    assert holdout.spent == sum(answer.overfitted for answer in answers) <= 19
    assert holdout.questions == 500


def test_events_run_out_and_the_protected_half_is_silent():
    holdout = ReusableHoldout(rows=10_000, events=2)
    first, second, third = (holdout.ask(f"{i}", 0.95, 0.6) for i in range(3))
    assert (first.left, second.left, third.left) == (1, 0, 0)
    assert all(answer.overfitted for answer in (first, second, third))
    assert abs(first.value - 0.6) < 0.05
    assert first.value != 0.6  # never without noise
    assert math.isnan(third.value)
    assert holdout.ask("agrees", 0.6, 0.601).value == 0.6  # this much it still says


def test_the_same_question_is_asked_once():
    holdout = ReusableHoldout(rows=10_000, events=5)
    one = holdout.ask("model 1", 0.95, 0.6)
    assert holdout.ask("model 1", 0.95, 0.6) == one
    assert (holdout.spent, holdout.questions) == (1, 1)


def test_its_state_is_kept():
    holdout = ReusableHoldout(rows=10_000, events=5, seed=7)
    one = holdout.ask("model 1", 0.95, 0.6)
    again = ReusableHoldout.from_json(holdout.to_json())
    assert again == holdout
    assert again.ask("model 1", 0.0, 0.0).value == one.value
    other = ReusableHoldout(rows=10_000, events=5, seed=7)
    other.ask("model 0", 0.5, 0.5)
    assert other.ask("model 1", 0.95, 0.6).value == one.value  # whatever was asked before
    for text in ("", "[]", '{"rows": 3}', '{"rows": 0, "events": 1}', '{"rows": 1, "evts": 1}'):
        with pytest.raises(ValueError, match=r"not the state|at least"):
            ReusableHoldout.from_json(text)


def test_figures_with_wider_bounds_are_asked_on_their_own_scale():
    """A difference g of accuracies is asked as (g + 1) / 2 would be, and answered as that is."""
    refuted = 0
    for step in range(60):
        one, other = (ReusableHoldout(rows=2_000, events=5) for _ in range(2))
        opened, protected = 0.01 * step, -0.005 * step
        wide = one.ask(f"{step}", opened, protected, low=-1.0, high=1.0)
        unit = other.ask(f"{step}", (opened + 1) / 2, (protected + 1) / 2)
        assert wide.overfitted == unit.overfitted
        assert wide.value == pytest.approx(2 * unit.value - 1)
        assert wide.tolerance == pytest.approx(2 * unit.tolerance)
        refuted += wide.overfitted
    assert 20 < refuted < 58


def test_fewer_events_than_were_spent_are_none():
    holdout = ReusableHoldout(rows=10_000, events=3)
    for step in range(3):
        holdout.ask(f"{step}", 0.9, 0.1)
    fewer = replace(holdout, events=1)
    assert fewer.left == 0
    assert math.isnan(fewer.ask("next", 0.9, 0.1).value)


def test_what_is_no_figure_is_refused():
    with pytest.raises(ValueError, match="x: expected two numbers"):
        ReusableHoldout(rows=5, events=1).ask("x", float("nan"), 0.5)
    with pytest.raises(ValueError, match=r"x: expected numbers between 0.0 and 1.0, got -0.1"):
        ReusableHoldout(rows=5, events=1).ask("x", -0.1, 0.5)
    with pytest.raises(ValueError, match=r"between -1.0 and 1.0"):
        ReusableHoldout(rows=5, events=1).ask("x", 0.1, 1.5, low=-1.0, high=1.0)

"""A holdout that can be asked again and again: Thresholdout (Dwork et al., Science, 2015).

Whoever tunes by a holdout's answers fits the holdout in the end, and recurring runs ask every day.
Here the holdout is in two halves. The open half may be looked at freely. The protected half answers
only whether it agrees: as long as the two figures differ by less than a threshold the open one is
told, and of the protected half nothing is learned. Where they differ by more, the open half has
been overfitted; then the protected figure is told, with noise, and that costs one of a number of
events. When none is left, the protected half is silent. The noise takes about one question in 75
for overfitting where there is none, which costs an event, too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

THRESHOLD = 4.0  # both in units of 1 / sqrt(n)
NOISE = 0.25


@dataclass(frozen=True)
class Answer:
    """What a holdout says of one figure.

    Attributes
    ----------
    value
        The figure. NaN where the open and the protected half differ and no event is left.
    overfitted
        Whether the open half's figure is off by more than the threshold; then `value` is the
        protected one's, with noise.
    tolerance
        How far `value` may be from the protected figure, exceeded with probability `delta`.
    delta
        That probability.
    left
        Events that are left.
    """

    value: float
    overfitted: bool
    tolerance: float
    delta: float
    left: int


@dataclass
class ReusableHoldout:
    """Answers about figures that are means over rows, of numbers between two bounds.

    Accuracies lie between 0 and 1. For figures with other bounds, such as differences of two
    accuracies, threshold and noise are stretched with the distance of the bounds: one row moves
    such a figure by as much more, and what is promised of answers is promised of these as well.

    Noise depends on the seed and the question alone: the same question gets the same answer, and
    costs an event once.

    Attributes
    ----------
    rows
        n, rows of the protected half.
    events
        How many times overfitting may be told, all in all.
    seed
        Of the noise.
    spent
        Events that were spent.
    questions
        Questions that were asked, the same one counted once.
    answers
        What was answered, by the question's hash.
    """

    rows: int
    events: int
    seed: int = 0
    spent: int = 0
    questions: int = 0
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a protected holdout needs at least one row, got {self.rows}")
        if self.events < 1:
            raise ValueError(f"events: at least 1, got {self.events}")

    @property
    def threshold(self) -> float:
        """By how much open and protected figures may differ: ``4 / sqrt(n)``."""
        return THRESHOLD / math.sqrt(self.rows)

    @property
    def noise(self) -> float:
        """Scale of the noise: ``0.25 / sqrt(n)``."""
        return NOISE / math.sqrt(self.rows)

    @property
    def left(self) -> int:
        """Events that are left; none, also where `events` was lowered below what is spent."""
        return max(self.events - self.spent, 0)

    def tolerance(self, delta: float = 0.05) -> float:
        """Return what an answer is off from the protected figure by, at most, but for `delta`.

        The threshold and the noise on both sides of the comparison: ``gamma + eta`` with scales
        2 and 4 times `noise`, whose upper tail at t is
        ``(b^2 exp(-t / b) - a^2 exp(-t / a)) / (2 (b^2 - a^2))`` for scales a < b.
        """
        a, b = 2.0 * self.noise, 4.0 * self.noise
        low, high = 0.0, 50.0 * b
        for _ in range(100):
            t = (low + high) / 2.0
            tail = (b**2 * math.exp(-t / b) - a**2 * math.exp(-t / a)) / (2.0 * (b**2 - a**2))
            low, high = (t, high) if tail > delta / 2.0 else (low, t)
        return self.threshold + high

    def ask(
        self,
        question: str,
        opened: float,
        protected: float,
        *,
        low: float = 0.0,
        high: float = 1.0,
        delta: float = 0.05,
    ) -> Answer:
        """Ask about one figure.

        Parameters
        ----------
        question
            What identifies it, such as the hash of a model and the name of a metric. The same
            question gets the answer it got before.
        opened, protected
            The figure on each half.
        low, high
            What the numbers that the figure is a mean of lie between.
        delta
            For the tolerance that is told.

        Raises
        ------
        ValueError
            If a figure is not a number, or not between the bounds.
        """
        if not (math.isfinite(opened) and math.isfinite(protected)):
            raise ValueError(f"{question}: expected two numbers, got {opened} and {protected}")
        if not (low <= opened <= high and low <= protected <= high and low < high):
            raise ValueError(
                f"{question}: expected numbers between {low} and {high}, got {opened} and "
                f"{protected}"
            )
        key = hashlib.sha256(question.encode()).hexdigest()[:32]
        if key not in self.answers:
            self.answers[key] = self._decide(key, opened, protected, high - low)
            self.questions += 1
        known = self.answers[key]
        value = float("nan") if known["value"] is None else float(known["value"])
        tolerance = (high - low) * self.tolerance(delta)
        return Answer(value, known["overfitted"], tolerance, delta, self.left)

    def _decide(self, key: str, opened: float, protected: float, span: float) -> dict[str, Any]:
        own = _laplace(self.seed, key)
        # this one stays until it has been exceeded
        common = _laplace(self.seed, f"threshold {self.spent}")
        limit = self.threshold + 2.0 * self.noise * common[0] + 4.0 * self.noise * own[0]
        if abs(protected - opened) <= span * limit:
            return {"value": opened, "overfitted": False}
        if self.left < 1:
            return {"value": None, "overfitted": True}
        self.spent += 1
        return {"value": protected + span * self.noise * own[1], "overfitted": True}

    def to_json(self) -> str:
        """Return its state, to be kept: without it every run would have all events again."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ReusableHoldout:
        """Return a holdout in a state that was kept.

        Raises
        ------
        ValueError
            If the text is not such a state.
        """
        try:
            found = json.loads(text)
            if not isinstance(found, Mapping):
                raise TypeError("not an object")
            return cls(**found)
        except (TypeError, ValueError) as error:
            raise ValueError(f"not the state of a holdout ({error})") from None


def _laplace(seed: int, name: str) -> np.ndarray:
    """Return two standard Laplace numbers that depend on seed and name alone."""
    word = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return np.random.default_rng(list(word)).laplace(size=2)

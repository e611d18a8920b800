"""Inclusion probabilities of more rows than are held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Blocks = Callable[[], Iterable[Floats]]  # the law of all rows, from the beginning at every call

NEARLY = 1.0 - 1e-12  # rounding must not leave a certain row to chance


@dataclass(frozen=True)
class Inclusion:
    """What turns a row's probability per draw into its inclusion probability.

    Attributes
    ----------
    left
        Draws that are left to the rows that are not certain.
    rest
        Sum of the law over those.
    cut
        Rows with at least this probability per draw are certain.
    certain
        How many those are.
    """

    left: int
    rest: float
    cut: float
    certain: int

    def __call__(self, law: Floats) -> Floats:
        """Return (m,) inclusion probabilities of rows with this law."""
        chance = self.left * law / self.rest if self.rest > 0.0 else np.zeros(len(law))
        return np.where(law >= self.cut, 1.0, chance)


def find_inclusion(blocks: Blocks, s: int) -> Inclusion:
    """Return inclusion probabilities proportional to a law that comes in blocks.

    The same as :func:`curation.sampling.inclusion_probabilities`, up to the rounding of the law's
    sum. The law is gone through once, and twice more for each time that rows become certain.

    Parameters
    ----------
    blocks
        Gives the law from its beginning, (m,) float64 at a time.
    s
        Number of draws.

    Raises
    ------
    ValueError
        If s is not in 1..n, or rows with a positive probability would never be drawn.
    """
    cut = np.inf
    while True:
        rows = positive = certain = 0
        rest, most, least = 0.0, 0.0, np.inf
        for law in blocks():
            sure = law >= cut
            free = law[~sure]
            rows, positive = rows + len(law), positive + int((law > 0.0).sum())
            certain += int(sure.sum())
            rest += float(free.sum())
            most = max(most, float(free.max(initial=0.0)))
            least = min(least, float(free[free > 0.0].min(initial=np.inf)))
        if not 1 <= s <= rows:
            raise ValueError(
                f"the number of draws must be between 1 and {rows} (the rows), got {s}"
            )
        if positive < s:
            raise ValueError(f"{s} rows are to be drawn, but only {positive} have a positive score")
        found = Inclusion(s - certain, rest, cut, certain)
        if rest <= 0.0 or found.left * most / rest < NEARLY:
            if np.isfinite(least) and found.left * least / rest <= 0.0:
                raise ValueError(
                    f"{positive - certain} rows would never be drawn and so not be stood for: all "
                    f"{s} draws go to rows with a far larger score; raise mix"
                )
            return found
        cut = min(
            float(sure.min())
            for sure in (law[(found(law) >= NEARLY) | (law >= cut)] for law in blocks())
            if len(sure)
        )

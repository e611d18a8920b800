"""What error a total is expected to have at a number of draws, before any of them is made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation import sampling
from curation.sampling import guard
from curation.sampling.constants import Pilot
from curation.sampling.stratified import DRAWS_PER_STRATUM

FEWEST_ROWS = 8  # to a stratum, where rows stand for others

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Foresight:
    """What the expected error of a Horvitz-Thompson total is made of.

    Attributes
    ----------
    pilot, pilot_law
        The pilot's rows, held out, and their (m,) probability per draw.
    proxy, law, order
        (r,) of the rows up for drawing: proxy, probability per draw, and the order of the draw.
        They may be every `every`-th row along that order.
    rows
        Number of rows up for drawing.
    design
        The design's name.
    uniform_error
        Relative error of a total from one uniform row.
    every
        How many rows each of `proxy` and `law` stands for.
    """

    pilot: Pilot
    pilot_law: Floats
    proxy: Floats
    law: Floats
    order: Rows
    rows: int
    design: str
    uniform_error: float
    every: int = 1

    def uniform(self, draws: int) -> float:
        """Return the expected relative error of a total from as many uniform rows."""
        return self.uniform_error * float(np.sqrt((1.0 - draws / self.rows) / draws))

    def error(self, draws: int) -> float:
        """Return the expected relative error of a total from that many draws."""
        if self.design == "uniform":
            return self.uniform(draws)
        grown = self.rows / float(self.pilot.weight.sum())  # since the pilot's rows were asked for
        scale = max(grown * float(self.pilot.weight @ self.pilot.score), 1e-300)
        parts = grown * guard.contributions(self.pilot, self.pilot_law, self.design)
        if self.design == "iid":
            return float(np.sqrt(parts.sum() / draws)) / scale
        own = max(round(draws / self.every), 1)
        chance = sampling.inclusion_probabilities(self.law, own)
        free = chance < 1.0
        rest = float(self.law[free].sum())
        pace = (own - int((~free).sum())) / rest if rest > 0.0 else np.inf
        pi = np.minimum(pace * self.pilot_law, 1.0)
        variance = float((parts * self.pilot_law * (1.0 - pi) / pi).sum())
        if self.design not in guard.UNSTRATIFIED and rest > 0.0:
            variance += self._spread(chance)
        return float(np.sqrt(variance)) / scale

    def _spread(self, chance: Floats) -> float:
        """Return what the proxy itself adds to the variance, within strata."""
        walk = self.order[chance[self.order] < 1.0]
        strata = max(1, round(float(chance[walk].sum()) * self.every / DRAWS_PER_STRATUM))
        if self.every > 1:  # wider strata than those of all rows: the error is rather too large
            strata = max(1, min(strata, len(walk) // FEWEST_ROWS))
        left = 1.0 - chance[walk]
        found = guard.proxy_spread(self.proxy[walk] * left, chance[walk] * left, strata=strata)
        return self.every * float(found)

"""All rows, the law, and the draw: what a selection is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import sampling
from curation.memory import Plan
from curation.sampling.shares import draw_by_group
from curation.selection.fit import Borders, Fitted, PerRow
from curation.selection.inputs import Labels
from curation.selection.layout import Layout
from curation.selection.table import Space

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Drawing:
    """All rows, the law, and how they are drawn.

    Attributes
    ----------
    fitted, rows
        What was learned, and what it says of each row.
    space, dimension
        What was clustered, and the length of an embedding.
    scores, law
        (n,) sensitivity scores q and probabilities per draw.
    numbers, tags
        (n,) permanent random numbers, and numbers that stand for the ids.
    order
        (n,) order of the ordered designs.
    additive
        ``sum L v``.
    budget, design, delta, exponent, seed
        As asked for.
    labels, groups
        Of the rows, where given.
    borders
        Of an earlier selection's strata, which are kept; None: they are cut anew.
    layout
        Order and law on disk, where there are too many rows to hold them: the arrays of length n
        then are not arrays, but give numbers when indexed, and are one for ``np.asarray``.
    needs
        What was thought to be needed of memory.
    """

    fitted: Fitted
    rows: PerRow
    space: Space
    scores: Floats
    law: Floats
    numbers: Floats
    tags: Floats
    order: Rows
    additive: float
    budget: int
    design: str
    delta: float
    exponent: float
    seed: int
    dimension: int
    labels: Labels | None
    groups: Labels | None
    redraw: Any = field(repr=False)
    borders: Borders | None = None
    layout: Layout | None = None
    needs: Plan | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.law)

    def cuts(self) -> Rows | None:
        """Return where kept strata begin in the order; None where none fit this budget."""
        if self.borders is None:
            return None
        if not 0.5 <= self.budget / self.borders.budget <= 2.0:
            return None  # strata of a draw or two, or of more than the order is worth
        return self.fitted.cuts(self.borders, self.rows, self.tags, self.order)


def draw_from(state: Drawing, *, by_group: bool) -> sampling.Draw:
    """Draw by a state, each group by itself if wanted."""
    rng = np.random.default_rng([state.seed, 1])
    how: dict[str, Any] = {"order": state.order, "rng": rng, "numbers": state.numbers}
    if by_group and state.groups is not None:
        codes = state.groups.codes
        return draw_by_group(state.design, state.law, codes, state.budget, **how)
    if state.layout is not None:
        return state.layout.draw(state.budget, rng, state.numbers, state.cuts())
    return sampling.draw(state.design, state.law, state.budget, cuts=state.cuts(), **how)


def law_of(drawn: sampling.Draw, law: Floats, draws: int) -> Floats:
    """Return the law rows are really drawn by: ``stratified`` levels it inside its strata."""
    if drawn.design != "stratified" or drawn.probabilities is None:
        return law
    return drawn.probabilities / draws

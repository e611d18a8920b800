"""Which rows of the holdout may be looked at, and which only say whether figures agree with them.

A row's half follows from its id alone: it keeps it whatever arrives, leaves or is renamed, and
whatever the settings are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.holdout import THRESHOLD
from curation.pipeline.numbers import number_ids
from curation.pipeline.people import Population

PURPOSE = "half of the holdout"  # other numbers than those rows are held out or drawn by


@dataclass(frozen=True)
class Halves:
    """The two parts of a holdout.

    Attributes
    ----------
    opened
        (n,) bool: the rows that figures, tables and plots are of.
    why
        Why all rows are open; empty where half of them are protected.
    """

    opened: NDArray[np.bool_]
    why: str = ""

    @property
    def split(self) -> bool:
        """Whether there is a protected half."""
        return not self.why

    @property
    def rows(self) -> int:
        """Rows of the open half."""
        return int(np.count_nonzero(self.opened))

    @property
    def protected_rows(self) -> int:
        """Rows of the protected half."""
        return len(self.opened) - self.rows


def halve(held: Population) -> Halves:
    """Split a holdout, or say why it is not split."""
    wanted = held.dataset.config.evaluation.protected
    whole = np.ones(len(held), dtype=np.bool_)
    if not wanted.protect:
        return Halves(whole, "evaluation.protected.protect is false")
    if held.dataset.columns.label is None:
        return Halves(whole, "the errors of a regression have no bound, which the protection needs")
    opened = own_half(held)
    protected = len(held) - int(np.count_nonzero(opened))
    if protected < wanted.least_rows:
        coarse = f", where it would notice differences above {THRESHOLD / protected**0.5:.2f} only"
        return Halves(
            whole,
            f"its protected half would have {protected:,} rows{coarse if protected else ''}; "
            f"evaluation.protected.least_rows is {wanted.least_rows:,}",
        )
    return Halves(opened)


def own_half(held: Population) -> NDArray[np.bool_]:
    """Return (n,) bool: whether a row's id puts it in the open half."""
    opened = np.empty(len(held), dtype=np.bool_)
    for place, ids in held.id_blocks():
        opened[place] = number_ids(ids, purpose=PURPOSE) < 0.5
    return opened

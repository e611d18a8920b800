"""The order and the law of more rows than are held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import sampling
from curation.selection import columns
from curation.selection.columns import Column, pieces
from curation.selection.fit import Fitted
from curation.selection.per_row import PerRow, sorted_by

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

SEEN = 512  # of so many sorted keys one is looked at to divide all into parts of about equal size


@dataclass(frozen=True)
class ByRow:
    """Numbers of all rows that are worked out when they are asked for, not kept.

    Attributes
    ----------
    rows
        n.
    give
        Returns the numbers of a slice, of an array of rows, or of one row.
    """

    rows: int
    give: Callable[[Any], Any]

    def __len__(self) -> int:
        """Return n."""
        return self.rows

    def __getitem__(self, rows: Any) -> Any:
        """Return the numbers of some rows."""
        return self.give(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        """Return all numbers, in memory."""
        found = np.empty(self.rows)
        for place in pieces(self.rows):
            found[place] = self.give(place)
        return found


@dataclass(frozen=True)
class Layout:
    """All rows in the order that ordered designs walk along, in temporary files.

    Attributes
    ----------
    order
        (n,) int64 rows.
    raised
        (n,) float64, in this order: what the law is proportional to before mixtures.
    total
        Sum of `raised`.
    additive
        ``sum L v``.
    mix
        Share of the uniform law.
    """

    order: Column
    raised: Column
    total: float
    additive: float
    mix: float

    def law(self, raised: Floats) -> Floats:
        """Return (m,) probabilities per draw of rows with these numbers."""
        rows = len(self.order)
        base = raised / self.total if self.total > 0.0 else raised + 1.0 / rows
        return (1.0 - self.mix) * base + self.mix / rows

    def walk(self) -> Iterator[tuple[Rows, Floats]]:
        """Yield rows and their law, in the order."""
        for place in pieces(len(self.order)):
            yield self.order[place], self.law(self.raised[place])

    def draw(
        self,
        s: int,
        rng: np.random.Generator,
        numbers: Floats,
        cuts: Rows | None,
    ) -> sampling.Draw:
        """Draw s rows by the coordinated design."""
        inclusion = sampling.find_inclusion(lambda: (law for _, law in self.walk()), s)
        return sampling.coordinated_along(
            self.walk, s, inclusion, rng, numbers=lambda rows: numbers[rows], cuts=cuts
        )


def lay_out(fitted: Fitted, rows: PerRow, tags: Floats) -> Layout:
    """Order all rows and sum up what their law is proportional to.

    Runs of rows are sorted one by one; then parts of about the size of a run, each between two keys
    that divide all rows, are put together from what every run has between them.

    Parameters
    ----------
    fitted
        What was learned.
    rows
        What it says of each row.
    tags
        (n,) numbers that stand for the ids.

    Raises
    ------
    ValueError
        If a row could never be drawn.
    """
    n = len(rows)
    keys, line, raised = Column(n, np.uint64), Column(n, np.int64), Column(n, np.float64)
    total = additive = 0.0
    never = 0
    for place in pieces(n):
        part = rows[place]
        own = fitted.drawn_by(part)
        if not np.isfinite(own).all():
            row = place.start + int(np.flatnonzero(~np.isfinite(own))[0])
            raise ValueError(f"score of row {row} is not finite")
        total += float(own.sum())
        never += int((own == 0.0).sum())
        additive += fitted.constants.additive(part.distance, part.cluster)
        these = fitted.keys(part)
        by_key = np.argsort(these)
        keys[place], line[place], raised[place] = these[by_key], by_key + place.start, own[by_key]
    mix = fitted.smoothness.mix
    if never and mix == 0.0 and total > 0.0:
        raise ValueError(
            f"{never} rows would never be drawn and so not be stood for: "
            "their score is 0 and mix is 0; raise mix"
        )
    found = Layout(Column(n, np.int64), Column(n, np.float64), total, additive, mix)
    at = 0
    for parts in _between(keys):
        own_keys, own_rows, own = (
            np.concatenate([one[part] for part in parts]) for one in (keys, line, raised)
        )
        by_key = sorted_by(own_keys, own_rows, tags)
        place = slice(at, at + len(by_key))
        found.order[place], found.raised[place] = own_rows[by_key], own[by_key]
        at = place.stop
    return found


def _between(keys: Column) -> Iterator[list[slice]]:
    """Yield where the keys of each part are: in every run those between two keys."""
    runs = list(pieces(len(keys)))
    seen = np.sort(np.concatenate([keys[run][::SEEN] for run in runs]))
    parts = -(-len(keys) // columns.AT_A_TIME)
    borders = np.unique(seen[np.arange(1, parts) * len(seen) // parts])
    ends = np.stack(
        [
            np.concatenate([[0], np.searchsorted(keys[run], borders), [run.stop - run.start]])
            for run in runs
        ]
    )
    for low, high in zip(ends.T[:-1], ends.T[1:], strict=True):
        part = [
            slice(run.start + int(a), run.start + int(b))
            for run, a, b in zip(runs, low, high, strict=True)
            if b > a
        ]
        if part:  # none lies below the first border where that is the least key
            yield part

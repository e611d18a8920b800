"""The population as the selection core reads it: blocks from the store, mapped to a space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from curation.pipeline.population import MIB, Population
from curation.pipeline.spaces import SpaceMap
from curation.selection import Labels, View, read_labels

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PeopleTable:
    """Rows of a population, a block at a time.

    Attributes
    ----------
    people
        The population.
    mapping
        What is clustered.
    only
        Indices into the population, sorted; None for all rows.
    like
        Labels of the rows of an earlier fit, whose classes and unit are kept.
    """

    people: Population
    mapping: SpaceMap
    only: Rows | None = None
    like: Labels | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.people) if self.only is None else len(self.only)

    @cached_property
    def tags(self) -> NDArray[np.float64]:
        """(n,) numbers that stand for the ids of the whole population."""
        return self.people.numbers(0).tags()

    @cached_property
    def labels(self) -> Labels | None:
        """Classes or standardised numbers of the whole population."""
        known = self.people.labels
        return None if known is None else read_labels(known, len(self.people), like=self.like)

    def blocks(self) -> Iterator[tuple[slice, View]]:
        """Yield the rows in order, as many at a time as `clusters.block_mib` allows."""
        mib = self.people.dataset.config.clusters.block_mib
        if self.only is None:
            for place, block in self.people.blocks(mib):
                yield place, self._view(np.arange(place.start, place.stop), block)
            return
        if not len(self.only):
            return
        width = self.people.embeddings(self.only[:1]).shape[1]
        step = max(1, mib * MIB // (4 * width))
        for start in range(0, len(self.only), step):
            rows = self.only[start : start + step]
            yield slice(start, start + len(rows)), self._view(rows, self.people.embeddings(rows))

    def take(self, rows: Rows) -> View:
        """Return rows, given by their place in this table, in any order."""
        chosen = rows if self.only is None else self.only[rows]
        return self._view(chosen, self.people.embeddings(chosen))

    def _view(self, rows: Rows, embeddings: NDArray[np.float32]) -> View:
        known = self.people.labels
        targets = None if self.labels is None else self.labels.targets(rows)
        points = self.mapping.apply(embeddings, None if known is None else known[rows])
        return View(rows, self.tags[rows], embeddings, targets, points)

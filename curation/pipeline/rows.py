"""The population as the selection core reads it: blocks from the store, mapped to a space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from curation.pipeline.codes import Codes
from curation.pipeline.people import MIB, Population
from curation.pipeline.spaces import SpaceMap
from curation.selection import Labels, View
from curation.store import StoreError

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
    def unit(self) -> Labels | None:
        """Classes, or what numbers are standardised by; of no row."""
        known, like, none = self.people.labels, self.like, np.empty(0)
        if known is None:
            return None
        if isinstance(known, Codes):
            classes = known.classes if like is None else like.classes
            return Labels(classes, none.astype(np.int64), none)
        centre, spread = float(known.mean()), float(known.std()) or 1.0
        if like is not None:
            centre, spread = like.centre, like.spread
        return Labels((), none.astype(np.int64), none, centre, spread)

    @cached_property
    def _class_of_code(self) -> Rows:
        """Return the place among the classes of each of the population's own.

        Raises
        ------
        StoreError
            If there is one that the earlier fit does not know.
        """
        assert self.unit is not None  # noqa: S101
        assert isinstance(self.people.labels, Codes)  # noqa: S101
        place = {name: i for i, name in enumerate(self.unit.classes)}
        new = [name for name in self.people.labels.classes if name not in place]
        if new:
            raise StoreError(
                f"data set {self.people.dataset.name}: class {new[0]!r} was not there when the "
                "centroids were fitted; materialize pilot_model and centroids again"
            )
        return np.array([place[name] for name in self.people.labels.classes], dtype=np.int64)

    def _targets(self, rows: Rows) -> NDArray[np.float32] | None:
        """Return (m, C) one-hot classes, or (m, 1) standardised numbers."""
        known, unit = self.people.labels, self.unit
        if known is None or unit is None:
            return None
        if isinstance(known, Codes):
            codes = self._class_of_code[known.codes[rows]]
            return replace(unit, codes=codes).targets(slice(None))
        numbers = (known[rows] - unit.centre) / unit.spread
        return replace(unit, numbers=numbers).targets(slice(None))

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
        points = self.mapping.apply(embeddings, None if known is None else known[rows])
        return View(rows, self.people.tags[rows], embeddings, self._targets(rows), points)

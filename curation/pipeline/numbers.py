"""Permanent random numbers of rows whose ids are in the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curation.pipeline.vectors import id_texts, longest
from curation.sampling import permanent_random_numbers
from curation.selection import Numbers

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

WIDEST = 1 << 23  # characters of ids that are hashed at a time


class HasIds(Protocol):
    """Rows whose ids are read some at a time."""

    @property
    def tags(self) -> Floats:
        """(n,) numbers that stand for the ids."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def id_blocks(self) -> Iterator[tuple[slice, Any]]:
        """Yield the ids in order, with where they belong."""
        ...


@dataclass(frozen=True)
class StoredNumbers(Numbers):
    """Permanent random numbers; the ids are read again for each set of them.

    Attributes
    ----------
    people
        Whose ids they are.
    rows
        Those of these rows alone; None for all.
    """

    people: HasIds | None = field(default=None, repr=False)
    rows: Rows | None = field(default=None, repr=False)

    @classmethod
    def over(cls, people: HasIds, seed: int) -> StoredNumbers:
        """Return the numbers of all rows."""
        return cls(np.empty(0, dtype=np.str_), seed, people)

    def tags(self) -> Floats:
        """Return (n,) numbers that stand for the ids: equal for equal ids, whatever the seed."""
        assert self.people is not None  # noqa: S101
        tags = self.people.tags
        return tags if self.rows is None else tags[self.rows]

    def of(self, purpose: str) -> Floats:
        """Return (n,) numbers in (0, 1)."""
        assert self.people is not None  # noqa: S101
        found = np.empty(len(self.people))
        for place, ids in self.people.id_blocks():
            found[place] = number_ids(ids, seed=self.seed, purpose=purpose)
        return found if self.rows is None else found[self.rows]


def of_rows(numbers: Numbers, rows: Rows) -> Numbers:
    """Return the numbers of some rows alone."""
    if isinstance(numbers, StoredNumbers):
        return replace(numbers, rows=rows)
    return replace(numbers, ids=numbers.ids[rows])


def number_ids(ids: Any, *, seed: int = 0, purpose: str = "identity") -> Floats:
    """Return the permanent random numbers of a pyarrow array of ids.

    Left out, seed and purpose are those of the numbers that stand for the ids.
    """
    if len(ids) > 1 and len(ids) * longest(ids) > WIDEST:  # one long id makes all of a block wide
        half = len(ids) // 2
        parts = [number_ids(part, seed=seed, purpose=purpose) for part in (ids[:half], ids[half:])]
        return np.concatenate(parts)
    return permanent_random_numbers(id_texts(ids), seed=seed, purpose=purpose)

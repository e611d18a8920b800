"""What is known of every row, and what is looked for among all rows, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import clustering
from curation.selection.columns import pieces
from curation.threads import count

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

CHUNK = 512  # rows whose distances are measured at a time, and stay in the cache
MARKS = 1 << 16


@dataclass(frozen=True)
class PerRow:
    """What is known of every row: arrays, or columns in temporary files that are read in pieces.

    Attributes
    ----------
    cluster
        (n,) int32.
    distance
        (n,) float64 v: distance to the medoid to the power z.
    proxy
        (n,) float64 l-hat.
    """

    cluster: NDArray[np.int32]
    distance: Floats
    proxy: Floats

    def __getitem__(self, rows: Any) -> PerRow:
        """Return some of the rows."""
        return PerRow(self.cluster[rows], self.distance[rows], self.proxy[rows])

    def __len__(self) -> int:
        """Return n."""
        return len(self.proxy)

    def proxy_total(self) -> float:
        """Return the sum of the proxy over all rows."""
        return sum(float(self.proxy[place].sum()) for place in pieces(len(self)))


def smallest(blocks: Iterable[tuple[Rows, Floats]], wanted: int) -> Rows:
    """Return the rows of the smallest values, ascending; of equal ones the first row first.

    Parameters
    ----------
    blocks
        Rows, ascending, and their values, some at a time.
    wanted
        How many; all rows where there are fewer.
    """
    rows, values = np.empty(0, dtype=np.int64), np.empty(0)
    limit = np.inf
    for these, own in blocks:
        low = np.flatnonzero(own < limit)
        rows = np.concatenate([rows, these[low]])
        values = np.concatenate([values, own[low]])
        if len(rows) > 2 * wanted > 0:
            first = np.sort(np.argsort(values, kind="stable")[:wanted])
            rows, values = rows[first], values[first]
            limit = float(values.max())
    return rows[np.argsort(values, kind="stable")[:wanted]]


def sorted_by(keys: NDArray[np.uint64], rows: Rows, tags: Floats) -> Rows:
    """Return the positions of rows sorted by their keys, then their tags, then themselves.

    Parameters
    ----------
    keys, rows
        (m,) rows and their keys.
    tags
        (n,) numbers that stand for the ids of all rows.
    """
    line = np.argsort(keys)
    found = keys[line]
    same = found[1:] == found[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if len(tied):
        at = line[tied]
        those = rows[at]
        line[tied] = at[np.lexsort((those, tags[those], found[tied]))]
    return line


def find_tags(tags: Floats, wanted: Floats) -> Rows:
    """Return (w,) the row that each of some tags belongs to; -1 where it is none's."""
    order = np.argsort(wanted, kind="stable")
    line = wanted[order]
    found = np.full(len(wanted), -1, dtype=np.int64)
    marked = np.zeros(
        MARKS, dtype=bool
    )  # few tags are near a wanted one: the others need no search
    marked[(line * MARKS).astype(np.int64)] = True
    for place in pieces(len(tags) if len(wanted) else 0):
        own = np.asarray(tags[place])
        near = np.flatnonzero(marked[(own * MARKS).astype(np.int64) % MARKS])
        at = np.minimum(np.searchsorted(line, own[near]), len(line) - 1)
        hits = np.flatnonzero(line[at] == own[near])
        found[order[at[hits]]] = place.start + near[hits]
    return found


def to_medoids(points: Vectors, medoids: Vectors, cluster: NDArray[np.int32], z: int) -> Floats:
    """Return (m,) float64 distances to the power z, of points to the medoids of their clusters.

    In chunks that stay in the cache, a few at a time; the result does not depend on either.

    Parameters
    ----------
    points
        (m, d) float32.
    medoids
        (k, d) float32.
    cluster
        (m,) int32.
    z
        1 or 2.
    """
    found = np.empty(len(points))

    def measure_chunks(start: int, stop: int) -> None:
        room = np.empty((min(CHUNK, stop - start), points.shape[1]))
        for begin in range(start, stop, CHUNK):
            part = slice(begin, min(begin + CHUNK, stop))
            difference = room[: part.stop - begin]
            np.copyto(difference, points[part])  # float64 from here on
            difference -= medoids[cluster[part]]
            found[part] = np.einsum("ij,ij->i", difference, difference)

    threads = min(count(), -(-len(points) // (4 * CHUNK)))
    if threads <= 1:
        measure_chunks(0, len(points))
    else:
        ends = np.linspace(0, len(points), threads + 1).astype(int).tolist()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(measure_chunks, ends[:-1], ends[1:]))
    return found if z == 2 else np.sqrt(found)


def to_medoid(points: Vectors, medoids: Vectors, z: int) -> Floats:
    """Return (m,) distances to the power z, of points to one medoid each."""
    squares = clustering.squared_distance(points, medoids)
    return squares if z == 2 else np.sqrt(squares)

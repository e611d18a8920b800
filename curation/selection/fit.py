"""Everything that is learned before a row is drawn: clusters, proxy, constants, mixture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation import clustering, sampling
from curation.progress import track
from curation.sampling import constants as spread
from curation.sampling import guard, proxies
from curation.selection.columns import Column, column, pieces
from curation.selection.inputs import Numbers, Score
from curation.selection.per_row import (
    PerRow,
    find_tags,
    smallest,
    sorted_by,
    to_medoids,
)
from curation.selection.table import MemoryTable, Table, View

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

JUDGED = 4000  # rows over which candidates for the proxy are compared


@dataclass(frozen=True)
class Settings:
    """What the fit depends on; see :func:`curation.select`."""

    k: int
    proxy: str
    constants: str
    mix: float | str
    design: str
    draws: int
    seed: int
    z: int = 2
    sample_per_centroid: int = 64
    iterations: int = 20


@dataclass(frozen=True)
class Borders:
    """Where strata begin, by what rows are ordered by, so that rows may come and go between them.

    Attributes
    ----------
    budget
        Number of draws the strata were made for.
    band, rank, distance, tag
        (H-1,) band of proxy, rank of the cluster, distance, and the number that stands for the id,
        of the first row of each stratum but the first, in the order of the draw.
    """

    budget: int
    band: Rows
    rank: NDArray[np.int32]
    distance: NDArray[np.float32]
    tag: Floats

    def __len__(self) -> int:
        """Return the number of borders."""
        return len(self.band)


@dataclass(frozen=True)
class Fitted:
    """What was learned; it can be applied to other rows without asking for another score.

    Attributes
    ----------
    z
        Power of the distance.
    clusters
        Centroids, medoids, sizes.
    medoid_scores, medoid_tags
        (k,) the score of each medoid, and the number that stands for its id.
    hardness
        Covariates from labels, where there are labels and the proxy uses them.
    proxy, constants
        The parts of ``q = l-hat + L v``.
    smoothness
        What the pilot rows say of the law.
    pilot, pilot_tags
        The pilot's rows, held out, and the numbers that stand for their ids; None where none were
        asked for.
    design
        The design that `smoothness` is about.
    candidates
        Expected error of each proxy that was tried, as a share of uniform sampling's.
    edges
        (b,) proxy values that part the bands rows are ordered by.
    queries
        Scores asked for.
    """

    z: int
    clusters: clustering.ClusterSummary
    medoid_scores: Floats
    medoid_tags: Floats
    hardness: clustering.Hardness | None
    proxy: proxies.Proxy
    constants: spread.Constants
    smoothness: guard.Smoothness
    pilot: spread.Pilot | None
    pilot_tags: Floats
    design: str
    candidates: dict[str, float]
    edges: Floats
    queries: int

    @property
    def violated_share(self) -> float | None:
        """Share of the rows on which the score exceeds q, from the pilot rows held out."""
        pilot = self.pilot
        if pilot is None:
            return None
        q = self.constants.scores(pilot.proxy, pilot.distance, pilot.cluster)
        over = above(pilot.score, q) > 0.0
        return float(pilot.weight @ over / pilot.weight.sum())

    def excess_variance(self, law: Floats, tags: Floats) -> float | None:
        """Return ``sum max(l - q, 0)^2 / p`` over all rows, estimated from the pilot's.

        One standard error is added: few rows of a heavy tail are seldom its worst. None where fewer
        than two of the pilot's rows are up for drawing.

        Parameters
        ----------
        law, tags
            (n,) the law that the rows are drawn by, and the numbers that stand for their ids.
        """
        if self.pilot is None:
            return None
        rows = find_tags(tags, self.pilot_tags)
        there = rows >= 0
        if there.sum() < 2:
            return None
        pilot, p = self.pilot[there], law[rows[there]]
        q = self.constants.scores(pilot.proxy, pilot.distance, pilot.cluster)
        excess = above(pilot.score, q)
        weight = pilot.weight * (len(law) / pilot.weight.sum())
        found = np.where(excess > 0.0, weight * excess**2 / np.maximum(p, 1e-300), 0.0)
        return float(found.sum() + np.sqrt(len(found) * found.var(ddof=1)))

    def scores(self, rows: PerRow) -> Floats:
        """Return (m,) sensitivity scores q."""
        return self.constants.scores(rows.proxy, rows.distance, rows.cluster)

    def drawn_by(self, rows: PerRow) -> Floats:
        """Return (m,) what the law is proportional to before mixtures: q to the guard's power."""
        return self.scores(rows) ** self.smoothness.power

    def law_of_pilot(self, *, total: float, rows: int) -> Floats:
        """Return (m,) the law of the pilot's rows, before tilt and shares.

        Parameters
        ----------
        total, rows
            Sum of :meth:`drawn_by` over the rows that are up for drawing, and their number.
        """
        pilot = self.pilot
        if pilot is None:
            return np.empty(0)
        q = self.constants.scores(pilot.proxy, pilot.distance, pilot.cluster)
        mix = np.array([self.smoothness.mix if total > 0.0 else 1.0])
        raised = q**self.smoothness.power
        return guard.mixed(raised, mix, total=max(total, 1e-300), rows=rows)[0]

    def order(self, rows: PerRow, tags: Floats) -> Rows:
        """Return the order in which ordered designs walk along the rows.

        Bands of similar proxy, then neighbouring clusters, then distance: rows that stand next to
        each other have similar scores and similar embeddings. Ties are broken by the numbers
        that stand for the rows' ids, never by where the rows happen to stand, nor by the luck of
        the draw.

        Parameters
        ----------
        rows
            The rows.
        tags
            (m,) numbers that stand for their ids.
        """
        return sorted_by(self.keys(rows), np.arange(len(tags)), tags)

    def keys(self, rows: PerRow) -> NDArray[np.uint64]:
        """Return (m,) whole numbers that rows are ordered by before ties are broken.

        Band, rank and distance in one: the bits of floats >= 0 are in the order of the floats.
        """
        band, rank, near = self._keys(rows)
        first = band.astype(np.uint64) * np.uint64(self.clusters.k) + rank.astype(np.uint64)
        return (first << np.uint64(32)) | (near + np.float32(0.0)).view(np.uint32)

    def borders(self, rows: PerRow, tags: Floats, starts: Rows, *, budget: int) -> Borders:
        """Return the borders of strata, made for a budget, that begin with the rows `starts`."""
        return Borders(budget, *self._keys(rows[starts]), tags[starts])

    def cuts(self, borders: Borders, rows: PerRow, tags: Floats, order: Rows) -> Rows:
        """Return how many rows of an order lie before each border: a binary search in all."""
        low, high = np.zeros(len(borders), np.int64), np.full(len(borders), len(order), np.int64)
        while np.any(low < high):
            middle = (low + high) // 2
            at = order[np.minimum(middle, len(order) - 1)]
            band, rank, near = self._keys(rows[at])
            before = tags[at] < borders.tag
            for own, limit in (
                (near, borders.distance),
                (rank, borders.rank),
                (band, borders.band),
            ):
                before = (own < limit) | ((own == limit) & before)
            open_ = low < high
            low = np.where(open_ & before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        return low

    def _keys(self, rows: PerRow) -> tuple[Rows, NDArray[np.int32], NDArray[np.float32]]:
        band = np.searchsorted(self.edges, rows.proxy, side="right").astype(np.int64)
        return band, self.clusters.rank[rows.cluster], rows.distance.astype(np.float32)

    def law(self, rows: PerRow, *, flat: bool = False, tilt: Rows | None = None) -> Floats:
        """Return (m,) the probability of each row per draw.

        Parameters
        ----------
        rows
            The rows that are up for drawing.
        flat
            Whether the design draws uniformly, whatever the scores.
        tilt
            (m,) class or group of each row, to give rare ones more.

        Raises
        ------
        ValueError
            If a row could never be drawn.
        """
        if flat:
            return np.full(len(rows.proxy), 1.0 / len(rows.proxy))
        scores, mix = self.drawn_by(rows), self.smoothness.mix
        total = scores.sum()
        if tilt is not None and self.smoothness.raised and total > 0.0:
            # uniform where the score says nothing, but still tilted: mixed in before the tilt
            scores = (1.0 - mix) * scores / total + mix / len(scores)
            mix = guard.LEAST_MIX
        law = sampling.law(scores, mix=mix, classes=tilt)
        never = int((law == 0.0).sum())
        if never:
            raise ValueError(
                f"{never} rows would never be drawn and so not be stood for: "
                "their score is 0 and mix is 0; raise mix"
            )
        return law


def above(score: Floats, q: Floats) -> Floats:
    """Return (m,) by how much scores exceed their sensitivity q; rounding is no excess."""
    return np.maximum(score - q * (1.0 + 1e-9) - 1e-12, 0.0)


def fit_sample(numbers: Numbers, settings: Settings) -> Rows:
    """Return the rows that everything but the scores is fitted on, those k-means takes first."""
    wanted = max(settings.k * settings.sample_per_centroid, JUDGED)
    luck = numbers.asked("k-means")
    places = pieces(len(luck))
    blocks = ((np.arange(p.start, p.stop), np.asarray(luck[p])) for p in places)
    return smallest(blocks, wanted)


def fit(
    table: Table,
    numbers: Numbers,
    score: Score | ArrayLike,
    settings: Settings,
    *,
    on_disk: bool = False,
) -> tuple[Fitted, NDArray[np.int32]]:
    """Cluster the rows, ask for the scores of medoids and pilot rows, and learn the law's parts.

    Parameters
    ----------
    table
        The rows. They are read once.
    numbers
        Their permanent random numbers.
    score
        Asked for the medoids, then for the pilot's rows.
    settings
        See :func:`curation.select`.
    on_disk
        Whether numbers of all rows are kept in temporary files.

    Returns
    -------
    fitted
        What was learned.
    cluster
        (n,) int32 cluster of each row, an array or a :class:`curation.selection.columns.Column`.
    """
    from curation.selection.learn import Learner

    rows = fit_sample(numbers, settings)
    sample = table.take(rows)
    for_centroids = sample.points[: settings.k * settings.sample_per_centroid]
    centroids = clustering.fit_centroids(
        for_centroids,
        min(settings.k, len(for_centroids)),
        iterations=settings.iterations,
        seed=settings.seed,
        numbers=numbers.asked("k-means")[rows[: len(for_centroids)]],
    )
    ties = numbers.asked("medoid")
    found = clustering.Summariser(centroids)
    cluster = column(len(table), np.int32, on_disk=on_disk)
    with track("assign rows", len(table)) as advance:
        for place, view in table.blocks():
            cluster[place] = found.add(view.points, ties[place])
            advance(len(view.rows))
    clusters = found.finish()
    new = np.zeros(len(centroids), dtype=np.int32)
    new[clusters.kept] = np.arange(clusters.k, dtype=np.int32)
    for place in pieces(len(cluster)):
        cluster[place] = new[cluster[place]]
    learner = Learner(table, numbers, settings, clusters, cluster)
    return learner.learn(score, sample), cluster


def assign(fitted: Fitted, table: Table, *, on_disk: bool = False) -> NDArray[np.int32]:
    """Return (n,) the cluster of each row of a table, by the centroids that were fitted."""
    cluster: NDArray[np.int32] = column(len(table), np.int32, on_disk=on_disk)
    with track("assign rows", len(table)) as advance:
        for place, view in table.blocks():
            cluster[place], _ = clustering.assign(view.points, fitted.clusters.centroids)
            advance(len(view.rows))
    return cluster


def measure(fitted: Fitted, table: Table, cluster: NDArray[np.int32]) -> PerRow:
    """Return each row's distance to its medoid and its proxy; no score is asked for."""
    on_disk = isinstance(cluster, Column)
    distance = column(len(table), np.float64, on_disk=on_disk)
    proxy = column(len(table), np.float64, on_disk=on_disk)
    # the other way round than when they were assigned: what was read last is still in the cache
    blocks = table.blocks_backwards() if isinstance(table, MemoryTable) else table.blocks()
    with track("estimate scores", len(table)) as advance:
        for place, view in blocks:
            own = cluster[place]
            distance[place] = to_medoids(view.points, fitted.clusters.medoids, own, fitted.z)
            block = proxies.Block(view.points, own, covariates(fitted.hardness, view))
            proxy[place] = fitted.proxy.predict(block)
            advance(len(view.rows))
    return PerRow(cluster, distance, proxy)


def covariates(hardness: clustering.Hardness | None, view: View) -> Floats:
    """Return (m, p) what labels say of each row; p is 0 where they are not used."""
    if hardness is None or view.targets is None:
        return np.empty((len(view.rows), 0))
    return hardness(view.embeddings, view.targets, view.tags)

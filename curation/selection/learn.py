"""Proxy, constants and mixture, learned from the rows whose score was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation import clustering, sampling
from curation.sampling import constants as spread
from curation.sampling import guard, proxies
from curation.selection.columns import pieces
from curation.selection.fit import JUDGED, Fitted, Settings, covariates
from curation.selection.inputs import Numbers, Score, ask
from curation.selection.per_row import smallest, to_medoid
from curation.selection.table import HEAD_ROWS, Table, View

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

REFERENCES = 4000  # rows whose labels are compared with a row's own
BINS = 12  # bands of equal proxy mass that rows are ordered by before their clusters
LEAST_PILOT = 60
# Powers of q and shares of the balanced constant, in order of preference.
FORMS = tuple((power, reach) for power in (1.0, 0.8, 0.6, 0.5) for reach in (0.5, 1.0, 0.25))
AS_GIVEN = ((1.0, 1.0),)


@dataclass(frozen=True)
class _Asked:
    """The rows whose score was asked for: medoids, and the pilot's with weights and tags."""

    known: proxies.Queried
    weight: Floats
    cluster: NDArray[np.int32]
    tags: Floats


@dataclass(frozen=True)
class _Candidate:
    """A proxy with what follows from it."""

    proxy: proxies.Proxy
    constants: spread.Constants
    smoothness: guard.Smoothness
    pilot: spread.Pilot | None
    values: Floats  # (j,) proxies of the judged rows

    @property
    def cost(self) -> float:
        """Expected error as a share of uniform sampling's; infinite where it is not known."""
        ratio = self.smoothness.relative_error / max(self.smoothness.uniform_error, 1e-300)
        return float(ratio) if np.isfinite(ratio) else float("inf")


@dataclass
class Learner:
    """Asks for scores and learns from them.

    Attributes
    ----------
    table, numbers, settings
        As given to :func:`curation.selection.fit.fit`.
    clusters, cluster
        The clusters, and (n,) the one of each row.
    """

    table: Table
    numbers: Numbers
    settings: Settings
    clusters: clustering.ClusterSummary
    cluster: NDArray[np.int32]

    def learn(self, score: Score | ArrayLike, sample: View) -> Fitted:
        """Ask for scores, try the proxies, and keep the one whose law has the smallest error."""
        hardness = self._fit_hardness(sample)
        asked = self._query(score, hardness)
        judged = View(
            sample.rows[:JUDGED],
            sample.tags[:JUDGED],
            sample.embeddings[:JUDGED],
            None if sample.targets is None else sample.targets[:JUDGED],
            sample.points[:JUDGED],
        )
        block = proxies.Block(
            judged.points, self.cluster[judged.rows], covariates(hardness, judged)
        )
        wanted = self.settings.proxy
        names = list(proxies.PROXIES) if wanted == "auto" else [wanted]
        tried = {n: self._try(proxies.PROXIES[n].fit(asked.known), asked, block) for n in names}
        best = min(names, key=lambda name: tried[name].cost)
        chosen = tried[best]
        return Fitted(
            z=self.settings.z,
            clusters=self.clusters,
            medoid_scores=proxies.medoid_scores(asked.known),
            medoid_tags=self.table.take(self.clusters.medoid_rows).tags,
            hardness=hardness if best == "regression" else None,
            proxy=chosen.proxy,
            constants=chosen.constants,
            smoothness=chosen.smoothness,
            pilot=chosen.pilot,
            pilot_tags=asked.tags,
            design=self.settings.design,
            candidates={name: one.cost for name, one in tried.items()},
            edges=_edges(chosen.values),
            queries=len(asked.weight),
        )

    def _fit_hardness(self, sample: View) -> clustering.Hardness | None:
        """Fit the covariates that labels give, if the proxy may use them."""
        if sample.targets is None or self.settings.proxy not in ("regression", "auto"):
            return None
        few = slice(0, HEAD_ROWS)
        return clustering.Hardness.fit(
            sample.embeddings[few],
            sample.targets[few],
            sample.tags[few],
            references=REFERENCES,
            seed=self.settings.seed,
        )

    def _query(self, score: Score | ArrayLike, hardness: clustering.Hardness | None) -> _Asked:
        """Ask for the scores of the medoids, then of pilot rows, in an order of the rows' own."""
        numbers = self.numbers.asked("pilot")
        medoids, n = self.clusters.medoid_rows, len(self.table)
        own = ask(score, medoids, n)
        pilot, weight = self._pilot_rows(numbers, own)
        theirs = ask(score, pilot, n) if len(pilot) else np.empty(0)
        rows = np.concatenate([medoids, pilot])
        order = np.argsort(numbers[rows], kind="stable")
        medoid = (np.arange(len(rows)) < len(medoids))[order]
        weight = np.concatenate([np.zeros(len(medoids)), weight])[order]
        view = self.table.take(rows[order])
        cluster = self.cluster[view.rows]
        block = proxies.Block(view.points, cluster, covariates(hardness, view))
        scores = np.concatenate([own, theirs])[order]
        return _Asked(proxies.Queried(block, scores, medoid), weight, cluster, view.tags[~medoid])

    def _pilot_rows(self, numbers: Floats, medoid_scores: Floats) -> tuple[Rows, Floats]:
        """Choose pilot rows by their permanent random numbers; return them and their weights.

        Half of the chance is uniform and half follows the clusters' sensitivity: what the law
        costs is decided where the scores are large, and a uniform pilot might not see a rare, hard
        cluster at all. Constants per cluster need so many in every cluster instead.
        """
        settings = self.settings
        if settings.constants in spread.PER_CLUSTER:
            line = np.concatenate([rows for rows, _ in self._free()])
            return self._pilot_per_cluster(line[np.argsort(numbers[line], kind="stable")])
        needed = (
            settings.proxy in ("auto", "regression")
            or settings.mix == "auto"
            or settings.constants != "balanced"
        )
        free = len(self.table) - self.clusters.k
        wanted = min(max(LEAST_PILOT, self.clusters.k // 2), free)
        if not needed or wanted == 0:
            return np.empty(0, dtype=np.int64), np.empty(0)
        sizes = self.clusters.sizes
        balanced = sampling.balanced_constant(
            np.array([medoid_scores @ sizes]), np.array([self.clusters.medoid_cost.sum()])
        )
        per_row = medoid_scores + balanced * self.clusters.medoid_cost / sizes
        total = sum(float(per_row[cluster].sum()) for _, cluster in self._free())
        even = np.full(len(per_row), 1.0 / free)
        law = 0.5 * (per_row / total if total > 0.0 else even) + 0.5 / free
        chance = sampling.find_inclusion(lambda: (law[own] for _, own in self._free()), wanted)
        pi = chance(law)

        def ranks() -> Iterator[tuple[Rows, Floats]]:
            # Pareto sampling: the smallest ranks, certain rows first
            for rows, own in self._free():
                luck = numbers[rows]
                odds = luck / (1.0 - luck)
                yield rows, np.where(pi[own] >= 1.0, 0.0, odds * (1.0 - pi[own]) / pi[own])

        chosen = smallest(ranks(), wanted)
        return chosen, 1.0 / pi[self.cluster[chosen]]

    def _free(self) -> Iterator[tuple[Rows, NDArray[np.int32]]]:
        """Yield the rows that are no medoids, and their clusters, some at a time."""
        medoids = np.sort(self.clusters.medoid_rows)
        for place in pieces(len(self.table)):
            free = np.ones(place.stop - place.start, dtype=bool)
            low, high = np.searchsorted(medoids, [place.start, place.stop])
            free[medoids[low:high] - place.start] = False
            rows = np.flatnonzero(free)
            yield place.start + rows, self.cluster[place][rows]

    def _pilot_per_cluster(self, line: Rows) -> tuple[Rows, Floats]:
        """Take the first rows of a line in every cluster."""
        k = self.clusters.k
        cluster = np.asarray(self.cluster)
        line = line[np.argsort(cluster[line], kind="stable")]
        own = cluster[line]
        start = np.searchsorted(own, np.arange(k))
        chosen = line[np.arange(len(line)) - start[own] < spread.pilot_rows_per_cluster(k)]
        number = np.bincount(self.cluster[chosen], minlength=k)
        sizes = self.clusters.sizes / np.maximum(number, 1)
        return chosen, sizes[self.cluster[chosen]]

    def _try(self, proxy: proxies.Proxy, asked: _Asked, judged: proxies.Block) -> _Candidate:
        """Learn constants and mixture for one proxy."""
        settings, n = self.settings, len(self.table)
        values = proxy.predict(judged)
        distance = self._distance(judged.points, judged.cluster)
        pilot = self._held_out(proxy, asked)
        constants = spread.estimate_constants(
            settings.constants if pilot is not None else "balanced",
            mean_proxy=float(values.mean()),
            mean_distance=float(distance.mean()),
            k=self.clusters.k,
            rows=n,
            pilot=pilot,
        )
        line = np.lexsort(
            (
                distance,
                self.clusters.rank[judged.cluster],
                np.searchsorted(_edges(values), values, side="right"),
            )
        )
        # reach and power are settled with the mixture, unless one was asked for
        free = settings.mix == "auto" and settings.constants == "balanced"
        candidates = []
        for power, reach in FORMS if free and pilot is not None else AS_GIVEN:
            own = constants.scaled(reach)
            seen = np.empty(0)
            if pilot is not None:
                seen = own.scores(pilot.proxy, pilot.distance, pilot.cluster) ** power
            q = own.scores(values, distance, judged.cluster) ** power
            candidates.append(
                guard.Candidate(reach, seen, guard.Judged(values[line], q[line], n), power)
            )
        smoothness = guard.look(
            pilot, candidates, mix=settings.mix, design=settings.design, draws=settings.draws
        )
        constants = constants.scaled(smoothness.reach)
        return _Candidate(proxy, constants, smoothness, pilot, values)

    def _held_out(self, proxy: proxies.Proxy, asked: _Asked) -> spread.Pilot | None:
        """Return the pilot's rows with what the proxy says of them without their own score."""
        pilot = ~asked.known.medoid
        if not pilot.any():
            return None
        return spread.Pilot(
            cluster=asked.cluster[pilot],
            distance=self._distance(asked.known.block.points[pilot], asked.cluster[pilot]),
            score=asked.known.scores[pilot],
            proxy=proxy.held_out[pilot],
            weight=asked.weight[pilot],
        )

    def _distance(self, points: NDArray[np.float32], cluster: NDArray[np.int32]) -> Floats:
        return to_medoid(points, self.clusters.medoids[cluster], self.settings.z)


def _edges(values: Floats) -> Floats:
    """Part sorted proxies into bands of equal mass; fewer where they are few different ones."""
    line = np.sort(values)
    mass = np.cumsum(line)
    if mass[-1] <= 0.0:
        return np.empty(0)
    places = np.searchsorted(mass, mass[-1] * np.arange(1, BINS) / BINS)
    # halfway to the next value: no row may sit on an edge, where the last digit decides
    known = np.unique(line.astype(np.float32)).astype(np.float64)
    above = np.searchsorted(known, line[places].astype(np.float32), side="right")
    inner = np.unique(above[above < len(known)])
    return (known[inner - 1] + known[inner]) / 2.0

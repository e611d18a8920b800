"""Adaptive rounds: the model of the moment is asked at the medoids, and the law follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation import clustering, sampling
from curation.sampling import constants as spread
from curation.selection.inputs import Numbers, ask, read_ids, read_labels, read_seed, reader
from curation.selection.plan import resolve_k
from curation.selection.table import MemoryTable, Space

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

SPLIT_ABOVE = 0.5  # share of a cluster's evaluated rows whose score exceeded q
SPLIT_ROWS = 5  # evaluated rows before a cluster is judged


@dataclass(frozen=True)
class Round:
    """One round's rows.

    Attributes
    ----------
    indices
        (m,) int64 rows, sorted.
    weights
        (m,) Horvitz-Thompson weights of this round alone: each round's weighted total is unbiased.
    inclusion_probability
        (m,) given the rounds before.
    queries
        Scores asked for at the medoids.
    drawn
        The draw itself, in its own order.
    """

    indices: Rows
    weights: Floats
    inclusion_probability: Floats
    queries: int
    drawn: sampling.Draw


class AdaptiveRounds:
    """Draws a budget in rounds, each by a law made from the model trained on those before.

    The clustering is made once. In each round the current model is asked at the medoids, the
    constants are estimated anew from rows already evaluated, a share of the law is uniform, and
    the round's part of the budget is drawn. A training run uses the rows of all rounds, weighted
    by ``(s_r / sum s) w_r``: a mean of unbiased estimates. (The balance heuristic, which would
    divide by the rounds' mean law, is biased when a law depends on what was drawn before.)

    Parameters
    ----------
    embeddings
        (n, d) array, memory map or block reader.
    budget
        Rows of all rounds together.
    rounds
        Number of rounds; the budget is cut into equal parts.
    labels, ids, k, space, design, mix, seed
        As in :func:`curation.select`; `space` is ``embedding`` or ``embedding+label``, `mix` a
        number. Each round asks for k scores; ``auto`` is half of a round's rows, at most 400.
    split
        Whether to split, before the next round, clusters in which more than half of at least five
        evaluated rows had a larger score than q.

    Examples
    --------
    >>> rounds = AdaptiveRounds(embeddings, budget=1000, rounds=4)
    >>> for _ in range(4):
    ...     drawn = rounds.draw(lambda rows: loss(model, rows))
    ...     rounds.observe(loss(model, drawn.indices))
    ...     model = train(rounds.indices, rounds.weights)
    """

    def __init__(
        self,
        embeddings: ArrayLike | clustering.BlockReader,
        *,
        budget: int,
        rounds: int,
        labels: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        k: int | str = "auto",
        space: str = "embedding",
        design: str = "coordinated",
        mix: float = 0.1,
        split: bool = False,
        seed: int = 0,
    ) -> None:
        self._points = reader(embeddings, block_mib=64)
        n = len(self._points)
        if space not in ("embedding", "embedding+label"):
            raise ValueError(f"space must be embedding or embedding+label, got {space!r}")
        _check(n, budget, rounds, design, mix)
        self._labels = read_labels(labels, n)
        if self._labels is None and space != "embedding":
            raise ValueError(f"space {space!r} needs `labels`")
        numbers = Numbers(read_ids(ids, n), read_seed(seed))
        self._begin(numbers, budget, rounds, design, mix, seed, split=split)
        self._cluster_rows(resolve_k(k, budget=max(budget // rounds, 2), rows=n), space)

    @classmethod
    def of_clusters(
        cls,
        cluster: NDArray[np.int32],
        distance: Floats,
        medoid_rows: Rows,
        *,
        numbers: Numbers,
        budget: int,
        rounds: int,
        design: str = "coordinated",
        mix: float = 0.1,
        seed: int = 0,
    ) -> AdaptiveRounds:
        """Return rounds over rows that are clustered already; clusters are not split.

        Parameters
        ----------
        cluster, distance
            (n,) cluster of each row and squared distance to its medoid.
        medoid_rows
            (k,) what the score is asked for; they need not be among the n rows.
        numbers
            Of the n rows.
        budget, rounds, design, mix, seed
            As above.

        Raises
        ------
        ValueError
            As above.
        """
        _check(len(cluster), budget, rounds, design, mix)
        made = cls.__new__(cls)
        made._begin(numbers, budget, rounds, design, mix, seed, split=False)
        made._cluster, made._distance = cluster, distance
        made._medoid_rows = medoid_rows
        return made

    def _begin(
        self,
        numbers: Numbers,
        budget: int,
        rounds: int,
        design: str,
        mix: float,
        seed: int,
        *,
        split: bool,
    ) -> None:
        self._numbers, self._tags = numbers, numbers.tags()
        self._design, self._mix, self._split, self._seed = design, mix, split, seed
        self._sizes = np.diff(np.linspace(0, budget, rounds + 1).round().astype(int))
        self._done: list[Round] = []
        self._seen: list[tuple[Rows, Floats, Floats]] = []  # rows, scores, what q said of them
        self._q = self._law = self._proxy = np.empty(0)

    @property
    def k(self) -> int:
        """Number of clusters; splitting adds to it."""
        return len(self._medoid_rows)

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self._sizes)

    @property
    def sizes(self) -> list[int]:
        """Draws of each round."""
        return [int(size) for size in self._sizes]

    @property
    def law(self) -> Floats:
        """(n,) law of the last round drawn."""
        return self._law

    @property
    def scores(self) -> Floats:
        """(n,) sensitivity scores q the last round was drawn by."""
        return self._q

    @property
    def indices(self) -> Rows:
        """(m,) distinct rows of all rounds so far, sorted."""
        if not self._done:
            return np.empty(0, dtype=np.int64)
        return np.unique(np.concatenate([one.indices for one in self._done]))

    @property
    def weights(self) -> Floats:
        """(m,) weights of `indices`: ``(s_r / sum s) w_r``, added up where a row came twice."""
        rows = self.indices
        found = np.zeros(len(rows))
        done = float(self._sizes[: len(self._done)].sum())
        for size, one in zip(self._sizes, self._done, strict=False):
            np.add.at(found, np.searchsorted(rows, one.indices), size / done * one.weights)
        return found

    def draw(self, score: Callable[[Rows], ArrayLike]) -> Round:
        """Ask the current model at the medoids and draw the next round's rows.

        Raises
        ------
        ValueError
            If all rounds are drawn, the last one has not been observed, or a score is not finite or
            negative.
        """
        number = len(self._done)
        if number == len(self._sizes):
            raise ValueError(f"all {number} rounds are drawn")
        if len(self._seen) < number:
            raise ValueError("tell the scores of the last round's rows to observe() first")
        n = len(self._cluster)
        medoid_scores = ask(score, self._medoid_rows, n)
        self._proxy = medoid_scores[self._cluster]
        constants = spread.estimate_constants(
            "balanced" if number == 0 else "conformal",
            mean_proxy=float(self._proxy.mean()),
            mean_distance=float(self._distance.mean()),
            k=self.k,
            rows=n,
            pilot=self._pilot(),
        )
        self._q = constants.scores(self._proxy, self._distance, self._cluster)
        self._law = law = sampling.law(self._q, mix=self._mix)
        luck = self._numbers.of(f"round {number}")
        order = np.lexsort(
            (self._tags, self._distance, self._cluster, medoid_scores[self._cluster])
        )
        drawn = sampling.draw(
            self._design,
            law,
            int(self._sizes[number]),
            order=order,
            rng=np.random.default_rng([self._seed, 2, number]),
            numbers=luck,
        )
        by_row = np.argsort(drawn.indices, kind="stable")
        found = Round(
            drawn.indices[by_row],
            drawn.weights[by_row],
            drawn.inclusion_probability[by_row],
            self.k,
            drawn,
        )
        self._done.append(found)
        return found

    def observe(self, values: ArrayLike) -> None:
        """Tell the scores of the rows of the last round, in the order of its indices.

        Raises
        ------
        ValueError
            If no round waits for them, or they do not fit it.
        """
        if len(self._seen) == len(self._done):
            raise ValueError("no round waits for its scores; call draw() first")
        rows = self._done[-1].indices
        given = np.asarray(values, dtype=np.float64)
        if given.shape != rows.shape:
            raise ValueError(f"expected {len(rows)} scores, got shape {given.shape}")
        wrong = ~(np.isfinite(given) & (given >= 0.0))
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"score of row {rows[at]} is {given[at]}: it must be finite and >= 0")
        self._seen.append((rows, given, self._q[rows]))
        if self._split:
            self._split_clusters()

    def _cluster_rows(self, k: int, space: str) -> None:
        luck = self._numbers.of("k-means")
        sample = np.argsort(luck, kind="stable")[: 64 * k]
        targets = None if self._labels is None else self._labels.targets(sample)
        mapping = Space.fit(space, self._points.take(sample), targets, seed=self._seed)
        self._table = MemoryTable(self._points, self._labels, mapping, self._tags)
        points = self._table.take(sample).points
        centroids = clustering.fit_centroids(
            points, min(k, len(points)), seed=self._seed, numbers=luck[sample]
        )
        ties = self._ties = self._numbers.of("medoid")
        found = clustering.Summariser(centroids)
        cluster = np.empty(len(self._table), dtype=np.int32)
        for place, view in self._table.blocks():
            cluster[place] = found.add(view.points, ties[place])
        summary = found.finish()
        new = np.zeros(len(centroids), dtype=np.int32)
        new[summary.kept] = np.arange(summary.k, dtype=np.int32)
        self._cluster = new[cluster]
        self._medoid_rows = summary.medoid_rows
        self._distance = np.empty(len(self._table))
        for place, view in self._table.blocks():
            medoids = summary.medoids[self._cluster[place]]
            self._distance[place] = clustering.squared_distance(view.points, medoids)

    def _pilot(self) -> spread.Pilot | None:
        """Rows of the last round: their scores are the freshest, and by another model than before.

        The proxy they are compared with is the current one, so that the constants are as well.
        """
        if not self._seen:
            return None
        rows, scores, _ = self._seen[-1]
        return spread.Pilot(
            cluster=self._cluster[rows],
            distance=self._distance[rows],
            score=scores,
            proxy=self._proxy[rows],
            weight=self._done[len(self._seen) - 1].weights,
        )

    def _split_clusters(self) -> None:
        """Cut clusters in two whose evaluated rows were mostly worse than q promised."""
        rows = np.concatenate([r for r, _, _ in self._seen])
        over = np.concatenate([s > q * (1.0 + 1e-9) for _, s, q in self._seen])
        number = np.bincount(self._cluster[rows], minlength=self.k)
        share = np.bincount(self._cluster[rows], over, minlength=self.k) / np.maximum(number, 1)
        for one in np.flatnonzero((number >= SPLIT_ROWS) & (share > SPLIT_ABOVE)):
            members = np.flatnonzero(self._cluster == one)
            members = members[np.argsort(self._ties[members], kind="stable")]
            points = self._table.take(members).points
            centroids = clustering.fit_centroids(points, min(2, len(points)), seed=self._seed)
            if len(centroids) < 2:
                continue
            summary = clustering.summarise([points], centroids)  # ties: the first by number
            if summary.k < 2:
                continue
            half, _ = clustering.assign(points, summary.centroids)
            labels = np.array([one, self.k], dtype=np.int32)
            self._cluster[members] = labels[half]
            self._distance[members] = clustering.squared_distance(points, summary.medoids[half])
            medoids = members[summary.medoid_rows]
            self._medoid_rows = np.append(self._medoid_rows, medoids[1])
            self._medoid_rows[one] = medoids[0]


def _check(n: int, budget: int, rounds: int, design: str, mix: float) -> None:
    if not 1 <= rounds <= budget <= n:
        raise ValueError(
            f"expected 1 <= rounds <= budget <= {n} (the rows), got {rounds} rounds and a "
            f"budget of {budget} rows"
        )
    if design not in sampling.DESIGNS:
        known = ", ".join(sorted(sampling.DESIGNS))
        raise ValueError(f"unknown design {design!r}; known: {known}")
    if isinstance(mix, str) or not 0.0 < mix <= 1.0:
        raise ValueError(f"mix must be a number in (0, 1], got {mix!r}")

"""What is known cluster by cluster of a subset: how it is covered, and whether the score is smooth.

Numbers that a picture is drawn from, kept beside the subset as a view: scores differ in their last
bits with the size of blocks, and the subset's data version must not.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.pipeline.chosen import Chosen
from curation.selection import Fitted, PerRow, above
from curation.store import VIEW_PREFIX, Draft

BY_CLUSTER = f"{VIEW_PREFIX}clusters.parquet"

Floats = NDArray[np.float64]


class Tally:
    """Adds up, for each of k clusters, scores that were asked for against what was thought of them.

    Parameters
    ----------
    fitted
        What was learned: clusters and the sensitivity q.
    """

    def __init__(self, fitted: Fitted) -> None:
        self._fitted = fitted
        self.evaluated = np.zeros(fitted.clusters.k, dtype=np.int64)
        self.sums = {
            name: np.zeros(fitted.clusters.k)
            for name in ("weight_evaluated", "violated", "score", "square", "error")
        }

    def add(self, rows: PerRow, score: Floats, weight: Floats | None = None) -> None:
        """Add rows whose score was asked for.

        Parameters
        ----------
        rows
            Cluster, distance and proxy of the m rows.
        score
            (m,) their scores.
        weight
            (m,) how many rows each stands for; None: itself.
        """
        each = np.ones(len(score)) if weight is None else weight
        k = len(self.evaluated)
        self.evaluated += np.bincount(rows.cluster, minlength=k)
        over = above(score, self._fitted.scores(rows)) > 0.0
        for name, value in (
            ("weight_evaluated", each),
            ("violated", each * over),
            ("score", each * score),
            ("square", each * score**2),
            ("error", each * (score - rows.proxy) ** 2),
        ):
            self.sums[name] += np.bincount(rows.cluster, value, minlength=k)


def by_cluster(tally: Tally, chosen: Chosen, scored: PerRow, fitted: Fitted) -> pl.DataFrame:
    """Return a row for each cluster.

    Returns
    -------
    polars.DataFrame
        ``cluster``, its ``rank`` along the first axis, ``rows``, ``chosen`` of them and the
        ``weight`` of those; of the ``evaluated`` rows the sums, by weight, of 1
        (``weight_evaluated``), of rows above q (``violated``), of the ``score``, its ``square``
        and the squared ``error`` of the proxy.
    """
    k = fitted.clusters.k
    own = scored.cluster[chosen.rows]
    return pl.DataFrame(
        {
            "cluster": np.arange(k, dtype=np.int32),
            "rank": fitted.clusters.rank,
            "rows": np.bincount(scored.cluster, minlength=k),
            "chosen": np.bincount(own, minlength=k),
            "weight": np.bincount(own, chosen.weight, minlength=k),
            "evaluated": tally.evaluated,
            **tally.sums,
        }
    )


def write_by_cluster(draft: Draft, frame: pl.DataFrame) -> None:
    """Keep the table in a subset's draft."""
    frame.write_parquet(draft.folder / BY_CLUSTER, compression="zstd")

"""What the report is made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from curation.pipeline.by_cluster import BY_CLUSTER
from curation.pipeline.dataset import (
    ASSETS,
    CENTROIDS,
    PER_SHARD,
    REPORT,
    SELECTED_SUBSET,
    Dataset,
)
from curation.pipeline.people import Population
from curation.pipeline.tables import SUBSET
from curation.store import Artifact

LOWER_IS_BETTER = ("rmse",)


@dataclass(frozen=True)
class Stage:
    """What one asset cost when it was last computed: its shards together.

    `evaluations` is the number of times the score was asked for; None where it has no part.
    """

    asset: str
    artifacts: int
    seconds: float
    peak_mib: float
    evaluations: int | None
    computed: str


@dataclass(frozen=True)
class Made:
    """The population and the published artifacts.

    Attributes
    ----------
    people
        The rows that were up for selection.
    centroids, subset, evaluation
        The artifacts.
    """

    people: Population
    centroids: Artifact
    subset: Artifact
    evaluation: Artifact

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.people.dataset

    @property
    def chosen(self) -> dict[str, Any]:
        """The subset's figures."""
        return self.subset.figures

    @property
    def score(self) -> str:
        """What the score is called."""
        config = self.dataset.config.score
        if config.model == "column":
            return str(config.column)
        return config.value.replace("_", " ")

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The subset."""
        return pl.read_parquet(self.subset.path(SUBSET))

    @cached_property
    def clusters(self) -> pl.DataFrame:
        """What is known of each cluster (:func:`curation.pipeline.by_cluster.by_cluster`)."""
        return pl.read_parquet(self.subset.path(BY_CLUSTER))

    @property
    def all_evaluated(self) -> bool:
        """Whether the score of every row is known, not only of the subset's."""
        return self.chosen["estimate"]["truth"] is not None

    @cached_property
    def stages(self) -> list[Stage]:
        """The assets that were made, in the order of the graph."""
        dataset, found = self.dataset, []
        for asset in ASSETS[: ASSETS.index(REPORT)]:  # not itself: its last version may be damaged
            shards: tuple[str | None, ...] = self.people.shards if asset in PER_SHARD else (None,)
            current = (dataset.store.current(dataset.at(asset, shard)) for shard in shards)
            manifests = [one.manifest for one in current if one is not None]
            if manifests:
                found.append(
                    Stage(
                        asset,
                        len(manifests),
                        sum(m.seconds for m in manifests),
                        max(m.peak_mib for m in manifests),
                        self._evaluations(asset),
                        max(m.created for m in manifests)[:16].replace("T", " "),
                    )
                )
        return found

    def _evaluations(self, asset: str) -> int | None:
        if asset == CENTROIDS:
            return int(self.centroids.figures["queries"])
        if asset != SELECTED_SUBSET:
            return None
        estimate = self.chosen["estimate"]
        later_rounds = self.chosen["queries"] - self.centroids.figures["queries"]
        every = self.chosen["rows"] if self.all_evaluated else 0
        return int(later_rounds + estimate["evaluations"] + every)


def better(metric: str, difference: float) -> float:
    """Return a difference of a metric, positive where it is for the better."""
    return -difference if metric in LOWER_IS_BETTER else difference


def spoken(metric: str) -> str:
    """Return the name of a metric for people: ``macro F1``, ``worst class``."""
    return {"macro_f1": "macro F1", "rmse": "RMSE", "r2": "R²"}.get(
        metric, metric.replace("_", " ")
    )


def heading(text: str) -> str:
    """Return text with a capital at its beginning; the rest stays."""
    return text[:1].upper() + text[1:]


def signed(value: float) -> str:
    """Return a difference with its sign, the minus as wide as the plus."""
    return f"{value:+.3f}".replace("-", "−")


def interval(value: dict[str, Any], *, sign: bool = False) -> str:
    """Return a mean over seeds and its interval; a single run has none."""
    show = signed if sign else lambda x: f"{x:.3f}"
    if value["n"] < 2:
        return show(value["mean"])
    return f"{show(value['mean'])} [{show(value['low'])}, {show(value['high'])}]"

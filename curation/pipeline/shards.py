"""The per-shard stages as one step runs them: shard after shard, with what they share kept."""

from __future__ import annotations

from collections.abc import Callable

from curation.pipeline.dataset import (
    EMBEDDINGS,
    RAW,
    SENSITIVITY_SCORES,
    Dataset,
    NotThere,
    Outcome,
)
from curation.pipeline.findings import (
    Finding,
    embeddings_findings,
    raw_findings,
    scores_findings,
)
from curation.pipeline.ingest import make_embeddings, make_raw
from curation.pipeline.listing import Listing
from curation.pipeline.population import odd_widths
from curation.pipeline.score import Centroids, make_sensitivity_scores
from curation.store.failures import read_mark

MakeShard = Callable[[Dataset, str], tuple[Outcome, list[Finding]]]


def raw_maker() -> MakeShard:
    """Return what reads shards; the source is listed once."""
    listings: dict[str, Listing] = {}

    def make(dataset: Dataset, shard: str) -> tuple[Outcome, list[Finding]]:
        listing = listings.get(dataset.name) or Listing.of(dataset)
        listings[dataset.name] = listing
        try:
            outcome = make_raw(dataset, shard, listing)
        except Exception as error:
            known = listing.shards.get(shard)
            error.stamp = known.fingerprint if known else ""  # type: ignore[attr-defined]
            raise
        dataset.store.clear_failed(dataset.at(RAW, shard))
        return outcome, raw_findings(outcome)

    return make


def embeddings_maker() -> MakeShard:
    """Return what embeds shards; those that were never read are left out."""

    def make(dataset: Dataset, shard: str) -> tuple[Outcome, list[Finding]]:
        raw = dataset.store.current(dataset.at(RAW, shard))
        if raw is None and read_mark(dataset.store.folder(dataset.at(RAW, shard))) is not None:
            raise NotThere(f"data set {dataset.name}: shard {shard} could not be read")
        try:
            outcome = make_embeddings(dataset, shard)
        except Exception as error:
            error.stamp = raw.content_hash if raw else ""  # type: ignore[attr-defined]
            raise
        dataset.store.clear_failed(dataset.at(EMBEDDINGS, shard))
        return outcome, embeddings_findings(outcome)

    return make


def scores_maker() -> MakeShard:
    """Return what scores shards; the centroids are read once."""
    loaded: dict[str, Centroids] = {}
    odd: dict[str, dict[str, str]] = {}

    def make(dataset: Dataset, shard: str) -> tuple[Outcome, list[Finding]]:
        there = dataset.store.current(dataset.at(EMBEDDINGS, shard)) is not None
        for asset in (EMBEDDINGS, RAW):
            mark = read_mark(dataset.store.folder(dataset.at(asset, shard)))
            if mark is not None and (asset == EMBEDDINGS or not there):
                raise NotThere(f"data set {dataset.name}: shard {shard} is left out: {mark.reason}")
        if dataset.name not in odd:
            odd[dataset.name] = odd_widths(dataset)
        if shard in odd[dataset.name]:
            raise NotThere(odd[dataset.name][shard])
        centroids = loaded.get(dataset.name) or Centroids.load(dataset)
        loaded[dataset.name] = centroids
        outcome = make_sensitivity_scores(dataset, shard, centroids)
        return outcome, scores_findings(outcome)

    return make


MAKERS: dict[str, Callable[[], MakeShard]] = {
    RAW: raw_maker,
    EMBEDDINGS: embeddings_maker,
    SENSITIVITY_SCORES: scores_maker,
}

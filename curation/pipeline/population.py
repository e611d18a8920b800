"""The rows that are up for selection: training rows of all shards, each once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.pipeline.dataset import EMBEDDINGS, RAW, Dataset
from curation.pipeline.tables import EMBEDDINGS_FILE, ROWS, read_vectors
from curation.selection import Numbers
from curation.sources import stored_name
from curation.store import Artifact, StoreError, digest

MIB = 2**20


@dataclass(frozen=True)
class Population:
    """Rows of one split over all shards, ordered by shard and row, repeats left out.

    Attributes
    ----------
    dataset
        The data set.
    shards
        Names of the shards, sorted.
    shard
        (n,) int32 index into `shards`.
    position
        (n,) int64 position of the row among the shard's accepted rows.
    ids
        (n,) the rows' ids.
    labels
        (n,) classes as strings, targets as float64, or None.
    groups
        (n,) groups as strings where the settings need them, else None.
    repeats
        Rows left out because an earlier shard, or the holdout, has the same id.
    missing
        Shards the source has that are not embedded yet.
    content_hash
        Hash of what the rows and their embeddings are.
    """

    dataset: Dataset
    shards: tuple[str, ...]
    shard: NDArray[np.int32]
    position: NDArray[np.int64]
    ids: pl.Series
    labels: NDArray[np.generic] | None
    groups: NDArray[np.str_] | None
    repeats: int
    missing: tuple[str, ...]
    content_hash: str

    def __len__(self) -> int:
        return len(self.position)

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, sorted; empty without class labels."""
        if self.dataset.columns.label is None or self.labels is None:
            return ()
        return tuple(str(c) for c in np.unique(self.labels))

    def numbers(self, seed: int) -> Numbers:
        """Return the rows' permanent random numbers, which depend on id and seed alone."""
        return Numbers(self.ids.to_numpy().astype(np.str_), seed)

    def of_shard(self, shard: str) -> NDArray[np.int64]:
        """Return the rows (indices into the population) of one shard."""
        return np.flatnonzero(self.shard == self.shards.index(shard))

    def blocks(self, mib: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the embeddings in order, at most `mib` MiB at a time, with where they belong."""
        for index, shard in enumerate(self.shards):
            start, stop = np.searchsorted(self.shard, [index, index + 1])
            if start == stop:
                continue
            vectors = _vectors(self.dataset, shard)
            step = max(1, mib * MIB // max(vectors.shape[1] * 4, 1))
            for first in range(start, stop, step):
                rows = slice(first, min(first + step, stop))
                yield rows, vectors[self.position[rows]]

    def embeddings(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the (m, d) embeddings of chosen rows, in their order."""
        parts: NDArray[np.float32] | None = None
        for index in np.unique(self.shard[rows]):
            vectors = _vectors(self.dataset, self.shards[index])
            if parts is None:
                parts = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
            here = np.flatnonzero(self.shard[rows] == index)
            parts[here] = vectors[self.position[rows[here]]]
        return parts if parts is not None else np.empty((0, 0), dtype=np.float32)

    def rows(self, chosen: NDArray[np.int64]) -> pl.DataFrame:
        """Return the raw rows of chosen indices, in their order, with a `shard` column."""
        frames = []
        for index in np.unique(self.shard[chosen]):
            shard = self.shards[index]
            here = np.flatnonzero(self.shard[chosen] == index)
            table = pl.read_parquet(raw_artifact(self.dataset, shard).path(ROWS))
            frames.append(
                table[self.position[chosen[here]]].with_columns(
                    pl.lit(shard).alias("shard"), pl.Series("_place", here)
                )
            )
        # diagonal: shards may differ in their further columns
        return pl.concat(frames, how="diagonal_relaxed").sort("_place").drop("_place")


def raw_artifact(dataset: Dataset, shard: str) -> Artifact:
    """Return the raw artifact of a shard."""
    return dataset.store.need(dataset.at(RAW, shard))


def _vectors(dataset: Dataset, shard: str) -> NDArray[np.float32]:
    artifact = dataset.store.need(dataset.at(EMBEDDINGS, shard))
    return read_vectors(artifact.path(EMBEDDINGS_FILE), "embedding")


def population(dataset: Dataset, *, split: str = "train") -> Population:
    """Return the rows of a split over all embedded shards that the source has.

    Raises
    ------
    StoreError
        If no shard is embedded, an embedding does not belong to its raw rows, or no row is left.
    """
    known = [s.key for s in dataset.source().shards()]
    embedded = set(dataset.store.shards(dataset.name, EMBEDDINGS))
    shards = tuple(s for s in sorted(known) if s in embedded)
    missing = tuple(s for s in sorted(known) if s not in embedded)
    if not shards:
        raise StoreError(
            f"data set {dataset.name}: none of its {len(known)} shards is embedded; "
            f"materialize raw and embeddings first (curation run {dataset.name})"
        )
    hashes = []
    for shard in shards:
        raw = raw_artifact(dataset, shard)
        embeddings = dataset.store.need(dataset.at(EMBEDDINGS, shard))
        embeddings.require(
            upstream={"raw.input": str(raw.figures["input_hash"])},
            remedy=f"materialize embeddings of shard {shard} again",
        )
        hashes.append((shard, raw.content_hash, embeddings.content_hash))
    return _load(dataset, shards, missing, digest(hashes), split)


@lru_cache(maxsize=4)
def _load(
    dataset: Dataset, shards: tuple[str, ...], missing: tuple[str, ...], content: str, split: str
) -> Population:
    columns = dataset.columns
    label = columns.label or columns.target
    group = None
    if columns.group is not None and dataset.config.selection.by_group:
        group = stored_name(columns.group, columns=columns)
    frames = []
    for index, shard in enumerate(shards):
        table = pl.read_parquet(
            raw_artifact(dataset, shard).path(ROWS),
            columns=["id", "split", *dict.fromkeys(filter(None, [label, group]))],
        )
        frames.append(
            table.with_columns(
                pl.lit(index, dtype=pl.Int32).alias("_shard"),
                pl.int_range(len(table), dtype=pl.Int64).alias("_position"),
            )
        )
    table = pl.concat(frames)
    every = table.filter(pl.col("split") == split)
    rows = every.unique(subset="id", keep="first", maintain_order=True)
    if split == "train":
        # a row that is also in the holdout (by its id) must never be trained on
        rows = rows.join(
            table.filter(pl.col("split") != "train").select("id"),
            on="id",
            how="anti",
            maintain_order="left",
        )
    if len(rows) == 0:
        raise StoreError(
            f"data set {dataset.name}: no {split} rows in its {len(shards)} shards; "
            "look at `holdout` in defs.yaml and at the quarantined rows"
        )
    labels = None
    if label is not None:
        labels = rows[label].to_numpy()
        labels = labels.astype(np.str_) if columns.label else labels.astype(np.float64)
    return Population(
        dataset=dataset,
        shards=shards,
        shard=rows["_shard"].to_numpy(),
        position=rows["_position"].to_numpy(),
        ids=rows["id"],
        labels=labels,
        groups=None if group is None else _text(rows[group]),
        repeats=len(every) - len(rows),
        missing=missing,
        content_hash=content,
    )


def _text(values: pl.Series) -> NDArray[np.str_]:
    """Return values as text; those that are missing are a group of their own."""
    return values.cast(pl.String).fill_null("(none)").to_numpy().astype(np.str_)

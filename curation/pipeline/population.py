"""The rows that are up for selection: training rows of all shards, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.pipeline.dataset import EMBEDDINGS, RAW, Dataset
from curation.pipeline.tables import EMBEDDINGS_FILE, ROWS, read_vectors, together
from curation.selection import Numbers
from curation.sources import stored_name
from curation.store import Artifact, StoreError, digest

MIB = 2**20
NOT_YET = "not embedded yet"


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
    left_out
        Rows that are not in it because an earlier shard, or the holdout, has the same id: ``shard,
        row, field, reason, value``.
    missing
        Shards the source has whose rows are not there, each with the reason.
    stale
        Shards that have changed and could not be read again, each with the reason: the rows of
        their last good version are used.
    encoder
        What made the embeddings.
    hashes
        By shard: hash of its rows and their embeddings.
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
    left_out: pl.DataFrame
    missing: Mapping[str, str]
    stale: Mapping[str, str]
    encoder: str
    hashes: Mapping[str, str]
    content_hash: str

    def __len__(self) -> int:
        return len(self.position)

    @property
    def repeats(self) -> int:
        """Rows left out because an earlier shard, or the holdout, has the same id."""
        return len(self.left_out)

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
        frames, places = [], []
        for index in np.unique(self.shard[chosen]):
            shard = self.shards[index]
            here = np.flatnonzero(self.shard[chosen] == index)
            table = pl.read_parquet(raw_artifact(self.dataset, shard).path(ROWS))
            rows = table[self.position[chosen[here]]]
            frames.append(rows.with_columns(pl.lit(shard).alias("shard")))
            places.append(here)
        return together(frames)[np.argsort(np.concatenate(places))]


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
        If no shard is embedded, an embedding does not belong to its raw rows, embeddings come from
        different encoders, or no row is left.
    """
    known = [s.key for s in dataset.source().shards()]
    failed = {
        asset: {k: f.reason for k, f in dataset.store.failed(dataset.name, asset).items()}
        for asset in (RAW, EMBEDDINGS)
    }
    embedded = set(dataset.store.shards(dataset.name, EMBEDDINGS))
    there: dict[str, tuple[Artifact, Artifact]] = {}
    missing: dict[str, str] = {}
    for shard in known:
        why = failed[EMBEDDINGS].get(shard) or failed[RAW].get(shard) or NOT_YET
        if shard in embedded:
            pair = _pair(dataset, shard, may_differ=shard in failed[EMBEDDINGS])
            if pair is not None:
                there[shard] = pair
                continue
        missing[shard] = why
    if not there:
        told = "".join(f"\n- {shard}: {why}" for shard, why in list(missing.items())[:5])
        raise StoreError(
            f"data set {dataset.name}: none of its {len(known)} shards is embedded; "
            f"materialize raw and embeddings first (curation run {dataset.name}){told}"
        )
    odd = _odd_widths(dataset, {k: pair[1] for k, pair in there.items()})
    there = {shard: pair for shard, pair in there.items() if shard not in odd}
    missing.update(odd)
    return _load(
        dataset,
        tuple(there),
        _frozen(missing),
        _frozen({k: why for k, why in failed[RAW].items() if k in there}),
        _encoder_of(dataset, {k: pair[1] for k, pair in there.items()}),
        tuple(digest([a.content_hash, b.content_hash]) for a, b in there.values()),
        split,
    )


def shard_population(dataset: Dataset, shard: str) -> Population:
    """Return the training rows of one shard, those included that another shard repeats."""
    encoder = _encoder_of(dataset, {shard: dataset.store.need(dataset.at(EMBEDDINGS, shard))})
    hashes = (shard_hash(dataset, shard),)
    return _load.__wrapped__(dataset, (shard,), (), (), encoder, hashes, "train", empty=True)


def shard_hash(dataset: Dataset, shard: str) -> str:
    """Return the hash of a shard's rows and embeddings; neither is read."""
    pair = _pair(dataset, shard, may_differ=False)
    assert pair is not None  # noqa: S101
    return digest([pair[0].content_hash, pair[1].content_hash])


def odd_widths(dataset: Dataset) -> dict[str, str]:
    """Return the shards whose embeddings have another length than those of most rows, and why.

    Which ones these are depends on no order in which the shards came.
    """
    embedded = set(dataset.store.shards(dataset.name, EMBEDDINGS))
    known = [s.key for s in dataset.source().shards() if s.key in embedded]
    return _odd_widths(dataset, {k: dataset.store.need(dataset.at(EMBEDDINGS, k)) for k in known})


def _odd_widths(dataset: Dataset, embeddings: Mapping[str, Artifact]) -> dict[str, str]:
    rows: Counter[int] = Counter()
    widths: dict[str, int] = {}
    for shard, artifact in embeddings.items():
        if artifact.manifest.row_count:  # without a row, there is no length
            widths[shard] = int(artifact.figures["dimension"])
            rows[widths[shard]] += artifact.manifest.row_count
    if len(rows) < 2:
        return {}
    usual = max(rows, key=lambda width: (rows[width], width))
    return {
        shard: f"data set {dataset.name}, shard {shard}: its embeddings have {width} numbers, "
        f"those of most rows have {usual}. Make the inputs {dataset.columns.input!r} of one "
        "size, or remove the shard."
        for shard, width in widths.items()
        if width != usual
    }


def _pair(dataset: Dataset, shard: str, *, may_differ: bool) -> tuple[Artifact, Artifact] | None:
    """Return a shard's rows and embeddings; None where these are of older rows and may be."""
    raw = raw_artifact(dataset, shard)
    embeddings = dataset.store.need(dataset.at(EMBEDDINGS, shard))
    wanted = str(raw.figures["input_hash"])
    if may_differ and embeddings.manifest.recipe["upstream"].get("raw.input") != wanted:
        return None
    embeddings.require(
        upstream={"raw.input": wanted}, remedy=f"materialize embeddings of shard {shard} again"
    )
    return raw, embeddings


def _encoder_of(dataset: Dataset, embeddings: Mapping[str, Artifact]) -> str:
    """Return what made the embeddings; all of them must come from one encoder."""
    found: dict[str, str] = {}
    for shard, artifact in embeddings.items():
        found.setdefault(str(artifact.manifest.recipe["upstream"]["encoder"]), shard)
    if len(found) > 1:
        one, other = list(found.values())[:2]
        raise StoreError(
            f"data set {dataset.name}: the embeddings of shards {one} and {other} come from "
            "different encoders; materialize embeddings of all shards again"
        )
    return next(iter(found))


def _frozen(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(values.items())


@lru_cache(maxsize=4)
def _load(
    dataset: Dataset,
    shards: tuple[str, ...],
    missing: tuple[tuple[str, str], ...],
    stale: tuple[tuple[str, str], ...],
    encoder: str,
    hashes: tuple[str, ...],
    split: str,
    *,
    empty: bool = False,
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
            columns=["id", "row", "split", *dict.fromkeys(filter(None, [label, group]))],
        )
        if group is not None:  # its type may differ from shard to shard
            table = table.with_columns(pl.col(group).cast(pl.String))
        frames.append(
            table.with_columns(
                pl.lit(index, dtype=pl.Int32).alias("_shard"),
                pl.int_range(len(table), dtype=pl.Int64).alias("_position"),
            )
        )
    table = pl.concat(frames)
    every = table.filter(pl.col("split") == split)
    rows = every.unique(subset="id", keep="first", maintain_order=True)
    held = table.filter(pl.col("split") != split).select("id")
    if split == "train":
        # a row that is also in the holdout (by its id) must never be trained on
        rows = rows.join(held, on="id", how="anti", maintain_order="left")
    if len(rows) == 0 and not empty:
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
        left_out=_left_out(every, rows, held, shards),
        missing=dict(missing),
        stale=dict(stale),
        encoder=encoder,
        hashes=dict(zip(shards, hashes, strict=True)),
        content_hash=digest(list(zip(shards, hashes, strict=True))),
    )


def _left_out(
    every: pl.DataFrame, rows: pl.DataFrame, held: pl.DataFrame, shards: tuple[str, ...]
) -> pl.DataFrame:
    """Return the rows of `every` that are not among `rows`, with the reason."""
    place = ["_shard", "_position"]
    out = every.join(rows.select(place), on=place, how="anti", maintain_order="left")
    first = rows.select("id", pl.col("_shard").alias("_first"))
    out = out.join(first, on="id", how="left", maintain_order="left")
    names = pl.Series("shard", list(shards), dtype=pl.String)
    earlier = names.gather(out["_first"].fill_null(0)) if len(out) else names.head(0)
    return pl.DataFrame(
        {
            "shard": names.gather(out["_shard"]),
            "row": out["row"],
            "field": pl.Series(["id"] * len(out), dtype=pl.String),
            "reason": pl.select(
                pl.when(out["_first"].is_null())
                .then(pl.lit("the holdout has the same id"))
                .otherwise(pl.lit("same id as a row of shard ") + earlier)
            ).to_series(),
            "value": out["id"],
        }
    )


def _text(values: pl.Series) -> NDArray[np.str_]:
    """Return values as text; those that are missing are a group of their own."""
    return values.fill_null("(none)").to_numpy().astype(np.str_)

"""The rows that are up for selection: training rows of all shards, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.pipeline.codes import Codes, CodesBuilder
from curation.pipeline.dataset import EMBEDDINGS, RAW, Dataset
from curation.pipeline.numbers import number_ids
from curation.pipeline.people import Population as Population
from curation.pipeline.repeats import Every, first_of_each
from curation.pipeline.stored import open_vectors, raw_artifact
from curation.pipeline.tables import ROWS, read_blocks
from curation.store import Artifact, StoreError, digest

NOT_YET = "not embedded yet"
ROWS_AT_A_TIME = 1 << 16


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
    found = _load(
        dataset,
        tuple(there),
        _frozen(missing),
        _frozen({k: why for k, why in failed[RAW].items() if k in there}),
        _encoder_of(dataset, {k: pair[1] for k, pair in there.items()}),
        tuple(digest([a.content_hash, b.content_hash]) for a, b in there.values()),
    )[split]
    if not len(found):
        raise StoreError(
            f"data set {dataset.name}: no {split} rows in its {len(there)} shards; "
            "look at `holdout` in defs.yaml and at the quarantined rows"
        )
    return found


def shard_population(dataset: Dataset, shard: str) -> Population:
    """Return the training rows of one shard, those included that another shard repeats."""
    encoder = _encoder_of(dataset, {shard: dataset.store.need(dataset.at(EMBEDDINGS, shard))})
    hashes = (shard_hash(dataset, shard),)
    return _load.__wrapped__(dataset, (shard,), (), (), encoder, hashes)["train"]


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


@lru_cache(maxsize=2)
def _load(
    dataset: Dataset,
    shards: tuple[str, ...],
    missing: tuple[tuple[str, str], ...],
    stale: tuple[tuple[str, str], ...],
    encoder: str,
    hashes: tuple[str, ...],
) -> dict[str, Population]:
    """Return the rows of both splits: they are read once."""
    columns = _Columns(dataset)
    tags: list[NDArray[np.float64]] = []
    train: list[NDArray[np.bool_]] = []
    starts = [0]
    for shard in shards:
        tags += _tags(dataset, shard)
        train += columns.read(raw_artifact(dataset, shard).path(ROWS))
        starts.append(starts[-1] + raw_artifact(dataset, shard).manifest.row_count)
    none = np.empty(0)
    known = np.concatenate([none, *tags])
    del tags
    of_train = np.concatenate([none.astype(bool), *train])
    found = {}
    for split, own in (("train", of_train), ("holdout", ~of_train)):
        every = Every(dataset, shards, np.array(starts), known, own)
        keep, left_out = first_of_each(every, apart=split == "train")
        labels, groups = columns.of(keep)
        position = [np.flatnonzero(keep[a:b]).astype(np.int32) for a, b in pairwise(starts)]
        found[split] = Population(
            dataset=dataset,
            shards=shards,
            starts=np.cumsum([0, *map(len, position)]),
            position=np.concatenate([none.astype(np.int32), *position]),
            tags=known[keep],
            labels=labels,
            groups=groups,
            left_out=left_out,
            missing=dict(missing),
            stale=dict(stale),
            encoder=encoder,
            hashes=dict(zip(shards, hashes, strict=True)),
            content_hash=digest(list(zip(shards, hashes, strict=True))),
        )
    return found


def _tags(dataset: Dataset, shard: str) -> list[NDArray[np.float64]]:
    """Return the numbers that stand for the ids of a shard's rows, block by block."""
    with open_vectors(dataset, shard) as file:
        return [number_ids(ids) for _, ids in file.id_blocks()]


class _Columns:
    """What is held of the rows' own columns: labels, and groups where the settings need them."""

    def __init__(self, dataset: Dataset) -> None:
        columns = dataset.columns
        self._label, self._target, self._group = columns.label, columns.target, None
        if columns.group is not None and dataset.config.selection.by_group:
            self._group = columns.group
        self._labels, self._groups = CodesBuilder(), CodesBuilder()
        self._targets: list[NDArray[np.float64]] = []

    def read(self, path: Path) -> list[NDArray[np.bool_]]:
        """Read a shard's columns and return, block by block, which rows are for training."""
        own = [self._label, self._target, self._group]
        names = ["split", *dict.fromkeys(name for name in own if name)]
        train = []
        for block in read_blocks(path, names, rows=ROWS_AT_A_TIME):
            train.append((block["split"] == "train").to_numpy())
            if self._label:
                self._labels.add(block[self._label])
            if self._target:
                self._targets.append(block[self._target].cast(pl.Float64).to_numpy())
            if self._group:  # its type may differ from shard to shard; null is one of its own
                texts = block[self._group].cast(pl.String).fill_null("(none)")
                self._groups.add(texts)
        return train

    def of(
        self, keep: NDArray[np.bool_]
    ) -> tuple[Codes | NDArray[np.float64] | None, Codes | None]:
        """Return labels and groups of the rows that are kept."""
        labels: Codes | NDArray[np.float64] | None = None
        if self._label:
            labels = self._labels.finish(keep)
        elif self._target:
            labels = np.concatenate([np.empty(0), *self._targets])[keep]
        return labels, self._groups.finish(keep) if self._group else None

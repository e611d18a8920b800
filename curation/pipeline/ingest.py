"""The per-shard stages before anything is chosen: raw rows and their embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.config import Columns, Encoder
from curation.encoders import EncoderError, RowEncoder, encoder_fingerprint, open_encoder
from curation.encoders import train_encoder as fit_encoder
from curation.pipeline.dataset import EMBEDDINGS, RAW, Dataset, Outcome
from curation.pipeline.listing import Listing
from curation.pipeline.tables import (
    EMBEDDINGS_FILE,
    QUARANTINE,
    ROWS,
    ColumnHash,
    RowWriter,
    read_blocks,
)
from curation.pipeline.vectors import VectorWriter
from curation.pipeline.views import embeddings_view, raw_view
from curation.sources import RowReader, ShardChanged
from curation.store import Draft, Recipe, StoreError, digest

ENCODER = "encoder"
ENCODER_CODE_VERSION = "1"
PLACE = {"folder", "url", "options", "pattern", "include", "block_mib"}  # where, not what
TRIES = 3
ROWS_AT_A_TIME = 1 << 16
PICTURED = 5000


def make_raw(dataset: Dataset, shard: str, listing: Listing | None = None) -> Outcome:
    """Read a shard, validate its rows and write them, the rejected ones in quarantine.

    A shard that is replaced while it is read is read again.
    """
    for attempt in range(TRIES):
        try:
            if listing is None or attempt:
                listing = Listing.of(dataset)
            return _make_raw(dataset, shard, listing)
        except ShardChanged:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _make_raw(dataset: Dataset, shard: str, listing: Listing) -> Outcome:
    config = dataset.config
    found = listing.find(shard)
    content = listing.content(shard)

    def fill(draft: Draft) -> None:
        reader = RowReader(
            columns=config.columns, holdout=config.holdout, dataset=dataset.name, shard=shard
        )
        rejected: list[pl.DataFrame] = []
        about = _About(dataset.columns)
        with RowWriter(draft, ROWS) as out:
            for block in listing.source.blocks(shard):
                rows = reader.take(block)
                out.write(rows.accepted)
                about.add(rows.accepted)
                if len(rows.quarantined):
                    rejected.append(rows.quarantined)
        if rejected:
            pl.concat(rejected).write_parquet(draft.folder / QUARANTINE, compression="zstd")
        draft.row_count = reader.accepted
        draft.figures.update(
            rows=reader.accepted,
            rows_in=reader.rows_in,
            quarantined=reader.quarantined,
            **about.figures(),
            origin=found.origin,
        )
        raw_view(draft, dataset, shard)

    outcome = dataset.produce(
        RAW,
        shard,
        config_hash=digest(
            [
                config.columns.model_dump(),
                config.holdout.model_dump(),
                config.source.model_dump(exclude=PLACE),
            ]
        ),
        upstream={"source": content},
        fill=fill,
    )
    listing.note(shard, content)
    return outcome


class _About:
    """Figures of a shard's accepted rows, collected block by block."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.held = 0
        self.classes: set[str] = set()
        self.hash = ColumnHash()

    def add(self, rows: pl.DataFrame) -> None:
        """Take in a block."""
        self.held += int((rows["split"] == "holdout").sum())
        if self.columns.label:
            self.classes.update(rows[self.columns.label].unique().to_list())
        # what an embedding depends on: other columns may change without encoding again
        self.hash.add(rows["id"], rows[self.columns.input])

    def figures(self) -> dict[str, object]:
        """Return the figures."""
        found: dict[str, object] = {
            "holdout_rows": self.held,
            "input_hash": self.hash.hexdigest(),
        }
        if self.columns.label:
            found["classes"] = len(self.classes)
        return found


def make_embeddings(dataset: Dataset, shard: str) -> Outcome:
    """Encode a shard's rows, some at a time."""
    config, columns = dataset.config, dataset.columns
    raw = dataset.store.need(dataset.at(RAW, shard))
    trained = _trained_encoder(dataset) if config.encoder.type == "mlp" else None
    fingerprint = encoder_fingerprint(config.encoder)
    if trained is not None:
        fingerprint = digest([fingerprint, trained[1]])

    def fill(draft: Draft) -> None:
        encoder = _encoder_for(config.encoder, trained and trained[0])
        with VectorWriter(draft.folder / EMBEDDINGS_FILE, "embedding") as out:
            for rows in read_blocks(raw.path(ROWS), ["id", columns.input], rows=ROWS_AT_A_TIME):
                inputs = rows[columns.input]
                try:
                    encoded = encoder.encode(inputs, label=f"encode {shard}")
                except EncoderError as error:
                    raise EncoderError(
                        f"data set {dataset.name}, shard {shard}: {error}"
                    ) from error
                matrix = np.asarray(encoded, dtype=np.float32)
                _must_be_finite(matrix, rows, dataset, shard)
                out.write(rows["id"], matrix)
        draft.row_count = out.rows
        draft.schema = {"id": "String", "embedding": f"FixedSizeList(Float32, {out.width})"}
        draft.figures.update(
            rows=out.rows,
            dimension=out.width,
            finite=True,
            mean_norm=round(out.norms / max(out.rows, 1), 6),
        )
        labels = None
        if columns.label:
            labels = pl.read_parquet(raw.path(ROWS), columns=[columns.label], n_rows=PICTURED)
        embeddings_view(draft, shard, labels, rows=PICTURED)

    return dataset.produce(
        EMBEDDINGS,
        shard,
        config_hash=digest([config.encoder.type, columns.input]),
        upstream={"raw.input": str(raw.figures["input_hash"]), "encoder": fingerprint},
        fill=fill,
    )


def _must_be_finite(
    matrix: NDArray[np.float32], rows: pl.DataFrame, dataset: Dataset, shard: str
) -> None:
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise EncoderError(
            f"data set {dataset.name}, shard {shard}: the embedding of the row with the id "
            f"{rows['id'][row]!r} is not finite; look at its {rows.columns[1]!r}"
        )


def _encoder_for(config: Encoder, trained: Path | None) -> RowEncoder:
    if config.type in ("pixels", "precomputed"):
        # They take the rows' length from the first they see, and must not from another shard's:
        # which shard is wrong is not for their order to say.
        return open_encoder(config, trained=trained)
    return _encoder(config.model_dump_json(), trained)


@lru_cache(maxsize=1)
def _encoder(config: str, trained: Path | None) -> RowEncoder:
    """Return an encoder; the last one stays open, so that a run of many shards loads it once."""
    return open_encoder(Encoder.model_validate_json(config), trained=trained)


def _trained_encoder(dataset: Dataset) -> tuple[Path, str]:
    """Return the folder and hash of the trained encoder, training it on first use.

    It is trained on the first rows of the first shards that are not holdout, straight from the
    source: every shard must get the same encoder, whichever is embedded first. Once trained it
    stays, also when further shards arrive, until its settings change.
    """
    config, columns = dataset.config, dataset.columns
    at = dataset.at(ENCODER)
    config_hash = config.encoder.fingerprint()
    try:
        artifact = dataset.store.current(at)
    except StoreError:
        artifact = None  # damaged: it is trained again, and the same rows give the same encoder
    made_by = artifact.manifest.recipe if artifact is not None else {}
    if (
        artifact is None
        or made_by["config_hash"] != config_hash
        or made_by["code_version"] != ENCODER_CODE_VERSION
    ):
        rows, used = _training_rows(dataset)

        def fill(draft: Draft) -> None:
            fit_encoder(
                config.encoder,
                inputs=rows[columns.input],
                labels=rows[str(columns.label)].to_list(),
                folder=draft.folder,
                seed=config.selection.seed,
            )
            draft.row_count = len(rows)

        recipe = Recipe(ENCODER_CODE_VERSION, config_hash, {"source": used}, config.selection.seed)
        artifact = dataset.store.write(at, recipe, fill)
    return artifact.folder, artifact.content_hash


def _training_rows(dataset: Dataset) -> tuple[pl.DataFrame, str]:
    """Return the rows the encoder is trained on, and a hash of the shards they came from."""
    config = dataset.config
    listing = Listing.of(dataset)
    frames: list[pl.DataFrame] = []
    used: list[str] = []
    wanted = config.encoder.train_rows
    for shard in listing.shards:
        for rows in _train_split(dataset, listing, shard):
            frames.append(rows.head(wanted - sum(map(len, frames))))
            if sum(map(len, frames)) >= wanted:
                break
        used.append(listing.content(shard))
        if sum(map(len, frames)) >= wanted:
            break
    if dataset.columns.label is None or not frames:
        raise EncoderError(
            f"data set {dataset.name}: encoder `mlp` is trained on labelled rows; "
            "set columns.label, or choose another encoder"
        )
    return pl.concat(frames, how="diagonal_relaxed"), digest(used)


def _train_split(dataset: Dataset, listing: Listing, shard: str) -> Iterator[pl.DataFrame]:
    reader = RowReader(
        columns=dataset.config.columns,
        holdout=dataset.config.holdout,
        dataset=dataset.name,
        shard=shard,
    )
    for block in listing.source.blocks(shard):
        rows = reader.take(block).accepted.filter(pl.col("split") == "train")
        if len(rows):
            yield rows

"""The per-shard stages before anything is chosen: raw rows and their embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from curation.config import Columns
from curation.encoders import EncoderError, RowEncoder, encoder_fingerprint, open_encoder
from curation.encoders import train_encoder as fit_encoder
from curation.pipeline.dataset import EMBEDDINGS, RAW, Dataset, Outcome
from curation.pipeline.tables import (
    EMBEDDINGS_FILE,
    QUARANTINE,
    ROWS,
    series_hash,
    write_parquet,
    write_vectors,
)
from curation.pipeline.views import embeddings_view, raw_view
from curation.sources import Shard, SourceError, to_rows
from curation.store import Draft, Recipe, digest

ENCODER = "encoder"
ENCODER_CODE_VERSION = "1"


def make_raw(dataset: Dataset, shard: str) -> Outcome:
    """Read a shard, validate its rows and write them, the rejected ones in quarantine."""
    config = dataset.config
    source = dataset.source()
    found = _find(source.shards(), shard, dataset.name)

    def fill(draft: Draft) -> None:
        rows = to_rows(
            source.read(shard),
            columns=dataset.config.columns,
            holdout=config.holdout,
            dataset=dataset.name,
            shard=shard,
        )
        accepted = rows.accepted
        write_parquet(draft, ROWS, accepted)
        if len(rows.quarantined):
            rows.quarantined.write_parquet(draft.folder / QUARANTINE, compression="zstd")
        draft.row_count = len(accepted)
        draft.figures.update(_raw_figures(dataset.columns, accepted, len(rows.quarantined)))
        draft.figures["origin"] = found.origin
        raw_view(draft, dataset, accepted, shard)

    return dataset.produce(
        RAW,
        shard,
        config_hash=digest(
            [
                config.columns.model_dump(),
                config.holdout.model_dump(),
                config.source.model_dump(exclude={"include"}),
            ]
        ),
        upstream={"source": found.fingerprint},
        fill=fill,
    )


def _find(shards: list[Shard], key: str, dataset: str) -> Shard:
    for shard in shards:
        if shard.key == key:
            return shard
    known = ", ".join(s.key for s in shards[:10]) or "none"
    raise SourceError(
        f"data set {dataset}: the source has no shard {key!r} (it has {len(shards)}: {known}); "
        f"check source.include in defs.yaml, or delete the partition {key!r}"
    )


def _raw_figures(columns: Columns, accepted: pl.DataFrame, quarantined: int) -> dict[str, object]:
    figures: dict[str, object] = {
        "rows": len(accepted),
        "quarantined": quarantined,
        "holdout_rows": int((accepted["split"] == "holdout").sum()),
        # what an embedding depends on: other columns may change without encoding again
        "input_hash": series_hash(accepted["id"], accepted[columns.input]),
    }
    if columns.label:
        figures["classes"] = accepted[columns.label].n_unique()
    return figures


def make_embeddings(dataset: Dataset, shard: str) -> Outcome:
    """Encode a shard's rows."""
    config, columns = dataset.config, dataset.columns
    raw = dataset.store.need(dataset.at(RAW, shard))
    trained = _trained_encoder(dataset) if config.encoder.type == "mlp" else None
    fingerprint = encoder_fingerprint(config.encoder)
    if trained is not None:
        fingerprint = digest([fingerprint, trained[1]])

    def fill(draft: Draft) -> None:
        needed = ["id", columns.input, *filter(None, [columns.label])]
        rows = pl.read_parquet(raw.path(ROWS), columns=needed)
        encoder: RowEncoder = open_encoder(config.encoder, trained=trained and trained[0])
        matrix = np.asarray(
            encoder.encode(rows[columns.input], label=f"encode {shard}"), dtype=np.float32
        )
        finite = np.isfinite(matrix).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise EncoderError(
                f"data set {dataset.name}, shard {shard}: the embedding of row {row} "
                f"(id {rows['id'][row]!r}) is not finite; look at its {columns.input!r}"
            )
        write_vectors(
            draft.folder / EMBEDDINGS_FILE, {"id": rows["id"].to_list()}, embedding=matrix
        )
        draft.row_count = len(matrix)
        draft.schema = {"id": "String", "embedding": f"FixedSizeList(Float32, {matrix.shape[1]})"}
        norms = np.linalg.norm(matrix, axis=1)
        draft.figures.update(
            rows=len(matrix),
            dimension=int(matrix.shape[1]),
            finite=True,
            mean_norm=round(float(norms.mean()), 6) if len(norms) else 0.0,
        )
        labels = rows[columns.label] if columns.label else None
        embeddings_view(draft, matrix, labels, shard)

    return dataset.produce(
        EMBEDDINGS,
        shard,
        config_hash=digest([config.encoder.type, columns.input]),
        upstream={"raw.input": str(raw.figures["input_hash"]), "encoder": fingerprint},
        fill=fill,
    )


def _trained_encoder(dataset: Dataset) -> tuple[Path, str]:
    """Return the folder and hash of the trained encoder, training it on first use.

    It is trained on the first rows of the first shards that are not holdout, straight from the
    source: every shard must get the same encoder, whichever is embedded first. Once trained it
    stays, also when further shards arrive, until its settings change.
    """
    config, columns = dataset.config, dataset.columns
    at = dataset.at(ENCODER)
    config_hash = config.encoder.fingerprint()
    artifact = dataset.store.current(at)
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
    config, columns = dataset.config, dataset.columns
    source = dataset.source()
    frames: list[pl.DataFrame] = []
    used: list[str] = []
    for shard in source.shards():
        rows = to_rows(
            source.read(shard.key),
            columns=dataset.config.columns,
            holdout=config.holdout,
            dataset=dataset.name,
            shard=shard.key,
        ).accepted.filter(pl.col("split") == "train")
        if len(rows):
            frames.append(rows)
            used.append(shard.fingerprint)
        if sum(map(len, frames)) >= config.encoder.train_rows:
            break
    if columns.label is None or not frames:
        raise EncoderError(
            f"data set {dataset.name}: encoder `mlp` is trained on labelled rows; "
            "set columns.label, or choose another encoder"
        )
    return pl.concat(frames).head(config.encoder.train_rows), digest(used)

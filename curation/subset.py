"""Published subsets: reading and explaining them, without Dagster."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.store import Address, Artifact, Store

if TYPE_CHECKING:
    import polars as pl

FORMATS = ("parquet", "jsonl")
SUBSET_FILE = "subset.parquet"


def published(dataset: str, *, store: Path | None = None) -> Artifact:
    """Return the published subset of a data set, checked against its manifest.

    Raises
    ------
    curation.store.StoreError
        If none was published yet, or it does not match its manifest.
    """
    if store is None:
        from curation.pipeline.dataset import store_root

        store = store_root()
    return Store(store).need(Address(dataset, "selected_subset"))


def load_subset(dataset: str, *, store: Path | None = None) -> pl.DataFrame:
    """Return the published subset of a data set.

    Parameters
    ----------
    dataset
        Name of the data set.
    store
        The store's folder; left out, ``CURATION_STORE`` or the project's ``data/``.

    Returns
    -------
    polars.DataFrame
        ``id, shard, row, weight, training_weight, inclusion_probability, cluster, score, reason``
        and the rows' own columns.
    """
    import polars as pl

    return pl.read_parquet(published(dataset, store=store).path(SUBSET_FILE))


def format_of(out: Path, format: str | None = None, *, known: tuple[str, ...] = FORMATS) -> str:
    """Return the format a file is to be written in.

    Raises
    ------
    ValueError
        If it is not one of `known`, or contradicts the file's ending.
    """
    ending = out.suffix.lstrip(".").lower()
    ending = {"ndjson": "jsonl"}.get(ending, ending)
    kind = format or ending
    if kind not in known:
        remedy = f"give --format ({' or '.join(known)})"
        if known is not FORMATS:
            remedy = f"let it end in one of .{', .'.join(known)}"
        raise ValueError(f"{out}: the format can't be told from the ending; {remedy}")
    if ending in known and kind != ending:
        raise ValueError(f"{out}: ends like {ending}, but --format says {kind}; drop one of them")
    return kind


def save(frame: pl.DataFrame, out: Path, kind: str) -> None:
    """Write a table as ``parquet``, ``jsonl`` or ``csv``; it appears whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        temporary = Path(folder) / out.name
        if kind == "parquet":
            frame.write_parquet(temporary, compression="zstd")
        elif kind == "csv":
            frame.write_csv(temporary)
        else:
            frame.write_ndjson(temporary)
        shutil.move(temporary, out)


def explain(dataset: str, row_id: str, *, store: Path | None = None) -> dict[str, Any]:
    """Return what is known of one row: where it came from, its score, why it was chosen or not.

    Returns
    -------
    dict
        A chosen row's columns; else ``id``, ``shard`` and ``reason``: ``not drawn``, with cluster,
        distance, proxy and score; ``holdout`` or ``not scored`` (its shard came after the last
        draw, or the holdout has the same id), with the row's own columns.

    Raises
    ------
    KeyError
        If no shard has such a row.
    """
    import polars as pl

    frame = load_subset(dataset, store=store)
    found = frame.filter(pl.col("id") == row_id)
    if len(found):
        return found.row(0, named=True)
    where = Store(published(dataset, store=store).folder.parents[2])
    for asset, name in (("sensitivity_scores", "scores.parquet"), ("raw", "rows.parquet")):
        for shard in where.shards(dataset, asset):
            path = where.need(Address(dataset, asset, shard)).path(name)
            row = pl.scan_parquet(path).filter(pl.col("id") == row_id).collect()
            if len(row):
                known = row.row(0, named=True)
                # a row without a score is in the holdout, or its shard came after the last draw
                held = known.get("split") == "holdout"
                why = "not drawn" if asset == "sensitivity_scores" else "not scored"
                return {"shard": shard, **known, "reason": "holdout" if held else why}
    raise KeyError(f"no shard of {dataset} has a row with the id {row_id!r}")

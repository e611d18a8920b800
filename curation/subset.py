"""Published subsets: reading, exporting and explaining them, without Dagster."""

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


def export(dataset: str, out: Path, *, format: str, store: Path | None = None) -> int:
    """Write the published subset where a trainer can read it; return the number of rows.

    The file appears whole or not at all.

    Raises
    ------
    ValueError
        If the format is not one of ``FORMATS``.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    frame = load_subset(dataset, store=store)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        temporary = Path(folder) / out.name
        if format == "parquet":
            frame.write_parquet(temporary, compression="zstd")
        else:
            frame.write_ndjson(temporary)
        shutil.move(temporary, out)
    return len(frame)


def explain(dataset: str, row_id: str, *, store: Path | None = None) -> dict[str, Any]:
    """Return what is known of one chosen row: where it came from and why it was chosen.

    Raises
    ------
    KeyError
        If the row is not in the published subset.
    """
    import polars as pl

    frame = load_subset(dataset, store=store)
    found = frame.filter(pl.col("id") == row_id)
    if len(found) == 0:
        raise KeyError(f"row {row_id!r} is not in the published subset of {dataset}")
    return found.row(0, named=True)

"""Rows that were rejected when the shards were read."""

from __future__ import annotations

import polars as pl

from curation.store import Address, Store, StoreError

RAW = "raw"
QUARANTINE_FILE = "quarantine.parquet"
SCHEMA = {
    "shard": pl.String,
    "row": pl.UInt32,
    "field": pl.String,
    "reason": pl.String,
    "value": pl.String,
}


def quarantined(dataset: str, store: Store, *, shard: str | None = None) -> pl.DataFrame:
    """Return every rejected row of a data set, or of one shard.

    Returns
    -------
    polars.DataFrame
        ``shard, row`` (its number in the shard), ``field, reason, value`` (shortened), by shard and
        row.

    Raises
    ------
    curation.store.StoreError
        If that shard was not read yet, or an artifact is damaged.
    """
    shards = store.shards(dataset, RAW)
    if shard is not None:
        if shard not in shards:
            known = ", ".join(shards[:10]) or "none"
            raise StoreError(
                f"data set {dataset}: no shard {shard!r} was read (of {len(shards):,}: {known})"
            )
        shards = [shard]
    found = [pl.DataFrame(schema=SCHEMA)]
    for name in shards:
        artifact = store.need(Address(dataset, RAW, name))
        if QUARANTINE_FILE in artifact.manifest.files:
            rows = pl.read_parquet(artifact.path(QUARANTINE_FILE))
            named = rows.with_columns(pl.lit(name).alias("shard"))
            found.append(named.select(pl.col(c).cast(kind) for c, kind in SCHEMA.items()))
    return pl.concat(found).sort("shard", "row", maintain_order=True)


def counts(rows: pl.DataFrame) -> pl.DataFrame:
    """Count rejected rows by shard, field and reason, with the first value of each as an example.

    The most frequent come first: ``shard, field, reason, rows, first_row, example``.
    """
    return (
        rows.group_by("shard", "field", "reason", maintain_order=True)
        .agg(
            pl.len().alias("rows"),
            pl.col("row").first().alias("first_row"),
            pl.col("value").first().alias("example"),
        )
        .sort("rows", "shard", "field", "reason", descending=[True, False, False, False])
    )

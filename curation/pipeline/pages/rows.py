"""Rows to read, each with the reason it was chosen."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl

from curation.pipeline.pages.made import Made

EXAMPLES = 12
PICTURES = ("pixels", "mlp")  # encoders whose input is a square of grey levels


def examples(made: Made) -> list[dict[str, Any]]:
    """Return rows to read: of each reason a few, with large, small and middling weights."""
    columns = made.dataset.columns
    frame = _picked(made.frame)
    clusters = dict(
        zip(
            made.clusters["cluster"].to_list(),
            made.clusters.select("chosen", "rows").iter_rows(),
            strict=True,
        )
    )
    text = columns.input if frame.schema[columns.input] == pl.String else None
    return [
        {
            "id": row["id"],
            "text": row[text] if text else "",
            "picture": picture(made, row[columns.input]),
            "label": str(row[columns.label]) if columns.label else "",
            "reason": _reason(row, clusters.get(row["cluster"])),
            "weight": f"{row['weight']:.2f}",
            "training weight": f"{row['training_weight']:.2f}",
            "sensitivity": f"{row['score']:.3g}",
            "shard": row["shard"],
        }
        for row in frame.iter_rows(named=True)
    ]


def _picked(frame: pl.DataFrame) -> pl.DataFrame:
    """Return at most twelve rows: of those drawn the heaviest, the lightest and the most sensitive.

    Those that every draw takes, and the pilot's, are shown by two each.
    """
    numbered = frame.with_row_index("_at")
    drawn = numbered.filter(pl.col("reason") == "drawn").sort("weight", "_at", descending=True)
    wanted = [
        drawn.head(4),
        drawn.sort("score", "_at", descending=True).head(3),
        drawn.tail(3),
        numbered.filter(pl.col("reason") == "take-all").sort("score", descending=True).head(2),
        numbered.filter(pl.col("reason") == "pilot").head(2),
    ]
    found = pl.concat(wanted).unique("_at", keep="first", maintain_order=True)
    return found.head(EXAMPLES).drop("_at")


def _reason(row: dict[str, Any], cluster: tuple[int, int] | None) -> str:
    where = ""
    if cluster is not None:
        where = f" Cluster {row['cluster']}: {cluster[0]:,} of {cluster[1]:,} rows were chosen."
    if row["reason"] == "pilot":
        return f"Part of the uniform pilot; it stands for itself.{where}"
    if row["reason"] == "take-all":
        return f"So sensitive that every draw takes it; it stands for itself.{where}"
    chance = row["inclusion_probability"]
    return (
        f"Drawn, with a probability of {chance:.1%}: it stands for {row['weight']:.1f} rows.{where}"
    )


def picture(made: Made, value: object) -> bytes | None:
    """Return a row's picture as PNG where its input is one; None: it isn't."""
    if made.dataset.config.encoder.type not in PICTURES or not isinstance(value, list):
        return None
    side = round(len(value) ** 0.5)
    if side * side != len(value) or not side:
        return None
    from PIL import Image

    pixels = np.asarray(value, dtype=np.uint8).reshape(side, side)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()

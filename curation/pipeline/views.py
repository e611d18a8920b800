"""Pictures of what a stage produced, kept beside its data and shown in Dagster's UI.

They are drawn when the artifact is written and stored as ``view-*.png``: an unchanged artifact
shows its pictures again without drawing them again. ``CURATION_PICTURES=0`` leaves them out; where
shards are many and small, drawing is most of a shard's time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.pipeline.codes import Codes
from curation.pipeline.tables import EMBEDDINGS_FILE, ROWS
from curation.pipeline.vectors import VectorFile
from curation.reporting import plots
from curation.store import VIEW_PREFIX, Artifact, Draft

if TYPE_CHECKING:
    from curation.pipeline.dataset import Dataset
    from curation.pipeline.people import Population

TITLES = {
    "rows": "Rows",
    "map": "Map of the embeddings",
    "clusters": "Clusters",
    "scores": "Sensitivity scores",
    "weights": "Weights",
    "classes": "Class shares",
    "estimate": "Estimated total score",
    "accuracy": "Against uniform sampling",
    "fine-tune": "Fine-tuned on the subset and on uniform rows",
}


View = Callable[..., None]


def picture(draw: View) -> View:
    """Mark a function that draws: it does nothing where pictures are switched off."""

    @wraps(draw)
    def maybe(*args: Any, **kwargs: Any) -> None:
        if os.environ.get("CURATION_PICTURES", "1") != "0":
            draw(*args, **kwargs)

    return maybe


def save(draft: Draft, name: str, png: bytes) -> None:
    """Keep a picture in a draft."""
    (draft.folder / f"{VIEW_PREFIX}{name}.png").write_bytes(png)


def views_of(artifact: Artifact) -> dict[str, bytes]:
    """Return an artifact's pictures: name -> PNG bytes."""
    return {
        name.removeprefix(VIEW_PREFIX).removesuffix(".png"): artifact.path(name).read_bytes()
        for name in sorted(artifact.manifest.files)
        if name.startswith(VIEW_PREFIX) and name.endswith(".png")
    }


@picture
def raw_view(draft: Draft, dataset: Dataset, shard: str) -> None:
    """Picture a shard's rows: pixels as pictures, labels as counts, else text lengths."""
    total = draft.row_count
    if total == 0:
        return
    columns = dataset.columns
    column = columns.input
    rows = pl.scan_parquet(draft.folder / ROWS)
    if dataset.config.encoder.type in ("pixels", "mlp"):
        wanted = [column, *filter(None, [columns.label])]
        first = rows.select(wanted).head(24).collect()
        flat = np.asarray(first[column].to_list(), dtype=np.uint8)
        side = round(flat.shape[1] ** 0.5)
        if side * side == flat.shape[1]:
            titles = first[columns.label].to_list() if columns.label else None
            images = flat.reshape(len(flat), side, side)
            title = f"First rows of {shard} ({total:,} in all)"
            save(draft, "rows", plots.image_grid(images, titles=titles, title=title))
            return
    if columns.label:
        counts = rows.select(columns.label).collect()[columns.label].value_counts(sort=True)
        save(
            draft,
            "rows",
            plots.category_counts(
                counts[columns.label].to_list(),
                counts["count"].to_list(),
                title=f"{total:,} rows of {shard} in {len(counts)} classes",
            ),
        )
    elif rows.collect_schema()[column] == pl.String:
        found = rows.select(pl.col(column).str.len_chars()).collect(engine="streaming")
        title = f"Text lengths of {total:,} rows of {shard}"
        save(
            draft,
            "rows",
            plots.length_histogram(found[column].to_numpy(), title=title, unit="characters"),
        )


@picture
def embeddings_view(draft: Draft, shard: str, labels: pl.DataFrame | None, *, rows: int) -> None:
    """Picture a shard's first embeddings on their first two principal axes."""
    with VectorFile(draft.folder / EMBEDDINGS_FILE) as file:
        if len(file) < 3:
            return
        points = plots.project_2d(file.vectors(0, min(rows, len(file))), seed=0)
    colors = labels.to_series().to_list() if labels is not None else None
    few = f"the first {rows:,} of " if len(file) > rows else ""
    title = f"{few}{len(file):,} embeddings of {shard}, {file.width} dimensions"
    save(draft, "map", plots.embedding_map(points, colors=colors, title=title, selected=None))


@picture
def centroids_view(draft: Draft, sizes: NDArray[np.int64], costs: NDArray[np.float64]) -> None:
    """Picture the clusters' sizes and costs."""
    title = f"{len(sizes)} clusters, median size {np.median(sizes):,.0f}"
    save(draft, "clusters", plots.cluster_overview(sizes, costs, title=title))


@picture
def scores_view(draft: Draft, scores: NDArray[np.float64], shard: str) -> None:
    """Picture a shard's scores."""
    if len(scores):
        title = f"Sensitivity scores of {len(scores):,} rows of {shard}"
        save(draft, "scores", plots.score_distribution(scores, title=title))


@picture
def subset_view(draft: Draft, frame: pl.DataFrame, people: Population) -> None:
    """Picture a subset: its weights, its classes, its estimate."""
    figures = draft.figures
    title = f"{len(frame):,} rows stand for {len(people):,}"
    save(draft, "weights", plots.weight_histogram(frame["weight"].to_numpy(), title=title))
    if people.classes and isinstance(people.labels, Codes):
        label = str(people.dataset.columns.label)
        classes, counts = people.labels.names, people.labels.counts()
        chosen = dict(frame[label].value_counts().iter_rows())
        subset = np.array([chosen.get(str(c), 0) for c in classes], dtype=np.float64)
        rng = np.random.default_rng([people.dataset.config.selection.seed, 3])
        drawn = people.labels[rng.choice(len(people), len(frame), replace=False)]
        uniform = np.array([(drawn == c).sum() for c in classes], dtype=np.float64)
        png = plots.class_shares(
            [str(c) for c in classes],
            counts.astype(np.float64),
            subset,
            uniform,
            title=f"Rows of each of {len(classes)} classes",
        )
        save(draft, "classes", png)
    shown = {"this subset": figures["estimate"]}
    if "uniform" in figures["estimate"]:
        shown["uniform rows"] = figures["estimate"]["uniform"]
    score = people.dataset.config.score.value.replace("_", " ")
    if any(e["low"] is None for e in shown.values()):
        return  # too few random draws for an interval
    png = plots.estimate_errors(
        list(shown),
        [e["value"] for e in shown.values()],
        [e["low"] for e in shown.values()],
        [e["high"] for e in shown.values()],
        truth=figures["estimate"]["truth"],
        unit=f"total {score} of the pilot model",
        title=f"Total {score}, estimated from {len(frame):,} rows",
    )
    save(draft, "estimate", png)


@picture
def evaluation_view(draft: Draft, results: dict[str, Any], task: str) -> None:
    """Picture the comparison with uniform sampling."""
    metrics = ["accuracy", "macro_f1"] if task == "classification" else ["rmse", "r2"]
    seeds = len(next(iter(results["probe"]["subset"].values())))
    save(
        draft,
        "accuracy",
        plots.comparison(
            results["probe"], metrics=metrics, title=f"Probe on the holdout, {seeds} seeds"
        ),
    )
    if results["fine_tune"]:
        title = "Fine-tuned encoder on the holdout"
        save(
            draft, "fine-tune", plots.comparison(results["fine_tune"], metrics=metrics, title=title)
        )

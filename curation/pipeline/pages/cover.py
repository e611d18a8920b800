"""What was chosen: where it lies, which clusters it covers, what it stands for."""

from __future__ import annotations

import numpy as np
import polars as pl

from curation.pipeline.codes import Codes
from curation.pipeline.pages.made import Made
from curation.pipeline.score import CENTROIDS_FILE
from curation.pipeline.tables import read_columns
from curation.reporting.charts import (
    CHOSEN_POINTS,
    POINTS,
    Bar,
    bars,
    class_shares,
    even,
    histogram,
    row_map,
)
from curation.reporting.page import Figure, Section, Table
from curation.reporting.plots import project_2d

BORDERS = ((0, 0, "no row"), (1, 1, "1 row"), (2, 2, "2 rows"), (3, 5, "3 to 5 rows"),
           (6, 10, "6 to 10 rows"), (11, None, "more than 10 rows"))  # fmt: skip
BARE = 8  # clusters without a chosen row that are named


def cover(made: Made) -> Section:
    """Return the map, how clusters are covered, weights and classes."""
    bare = made.clusters.filter((pl.col("chosen") == 0) & (pl.col("rows") > 0))
    return Section(
        title="What was chosen?",
        lead=_lead(made, bare),
        figures=[_map(made), _coverage(made), _weights(made), *_classes(made)],
        tables=_bare_table(made, bare),
    )


def _lead(made: Made, bare: pl.DataFrame) -> str:
    clusters = made.clusters.filter(pl.col("rows") > 0)
    if bare.is_empty():
        return f"Each of the {len(clusters):,} clusters has a chosen row."
    share = float(bare["rows"].sum()) / float(clusters["rows"].sum())
    told = (
        f"{len(bare):,} of {len(clusters):,} clusters have no chosen row. They hold {share:.1%} of "
        "the rows"
    )
    total = float(clusters["score"].sum())
    if made.all_evaluated and total:
        told += f" and {float(bare['score'].sum()) / total:.1%} of the total {made.score}"
    return f"{told}; rows of other clusters, with their weights, stand for them on average."


def _map(made: Made) -> Figure:
    people = made.people
    chosen = people.find(made.frame["id"])
    weight = np.zeros(len(people))
    weight[chosen[chosen >= 0]] = made.frame["weight"].to_numpy()[chosen >= 0]
    mask = np.zeros(len(people), dtype=bool)
    mask[chosen[chosen >= 0]] = True
    shown = np.unique(
        np.concatenate(
            [even(np.flatnonzero(~mask), POINTS), even(np.flatnonzero(mask), CHOSEN_POINTS)]
        )
    )
    points = project_2d(people.embeddings(shown), seed=0)
    few = " of all rows a part is shown," if len(shown) < len(people) else ""
    caption = (
        f"Embeddings on their first two principal axes;{few} the largest dots stand for the most "
        "rows. What is close here may be far apart in other directions."
    )
    label = f"Map of {len(people):,} rows with {int(mask.sum()):,} chosen ones marked"
    picture = row_map(points, mask[shown], weight[shown], label=label)
    return Figure("Map of the embeddings", caption, picture)


def _coverage(made: Made) -> Figure:
    clusters = made.clusters.filter(pl.col("rows") > 0)
    total = max(int(clusters["rows"].sum()), 1)
    shown = []
    for low, high, name in BORDERS:
        inside = pl.col("chosen") >= low
        if high is not None:
            inside &= pl.col("chosen") <= high
        own = clusters.filter(inside)
        told = f"{len(own):,} ({int(own['rows'].sum()) / total:.1%} of rows)"
        shown.append(Bar(f"{name} chosen", len(own), told, "blue" if low else "orange"))
    label = "; ".join(f"{bar.name}: {bar.told}" for bar in shown)
    caption = (
        "Clusters by how many of their rows were chosen. A cluster without one is small, or its "
        "scores are: rows are drawn in proportion to them."
    )
    return Figure("Cluster coverage", caption, bars(shown, label))


def _weights(made: Made) -> Figure:
    weight = made.frame["weight"].to_numpy()
    size = made.chosen["effective_sample_size"]
    caption = (
        f"Median {np.median(weight):,.1f}, largest {weight.max():,.1f}, which is "
        f"{weight.max() / weight.sum():.1%} of all. For an unweighted total they are worth "
        f"{size:,.0f} uniform rows of {len(weight):,} (effective sample size). Rows of the pilot "
        "and those always taken weigh 1."
    )
    picture = histogram(weight, title="rows that one chosen row stands for", label=caption)
    return Figure("Weights", caption, picture)


def _classes(made: Made) -> list[Figure]:
    people = made.people
    if not people.classes or not isinstance(people.labels, Codes):
        return []
    column = str(made.dataset.columns.label)
    chosen = dict(made.frame[column].cast(pl.String).value_counts().iter_rows())
    names, counts = [str(c) for c in people.labels.names], people.labels.counts()
    own = [chosen.get(name, 0) for name in names]
    missing = int(sum(1 for here, every in zip(own, counts, strict=True) if every and not here))
    told = f"{missing:,} have no chosen row" if missing else "each has a chosen row"
    caption = f"{len(names):,} classes; {told}."
    picture = class_shares(names, counts, own, label=caption)
    return [Figure("Class shares", caption, picture)]


def _bare_table(made: Made, bare: pl.DataFrame) -> list[Table]:
    if bare.is_empty():
        return []
    largest = bare.sort("rows", "cluster", descending=[True, False]).head(BARE)
    medoids = read_columns(made.centroids.path(CENTROIDS_FILE), ["cluster", "medoid_id"])
    ids = largest.join(medoids, on="cluster", how="left", maintain_order="left")["medoid_id"]
    texts = _texts(made, ids)
    rows = [
        [str(one["cluster"]), f"{one['rows']:,}", identity, text]
        for one, identity, text in zip(largest.iter_rows(named=True), ids, texts, strict=True)
    ]
    return [
        Table(
            title="The largest clusters without a chosen row",
            caption="With the row in the middle of each; `curation explain` says why a row was not "
            "drawn.",
            headers=["cluster", "rows", "middle row", "its text"],
            rows=rows,
        )
    ]


def _texts(made: Made, ids: pl.Series) -> list[str]:
    """Return the texts of rows given by id; nothing where they are gone or are no text."""
    column, people = made.dataset.columns.input, made.people
    found = people.find(ids)
    there = found >= 0
    if not there.any():
        return [""] * len(ids)
    values = people.rows(found[there], [column])[column]
    texts = iter(values.to_list() if values.dtype == pl.String else [""] * int(there.sum()))
    return [str(next(texts))[:160] if here else "" for here in there]

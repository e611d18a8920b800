"""What changed since the subset that was published before, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from curation.pipeline.chosen import Chosen
from curation.pipeline.dataset import CENTROIDS, SELECTED_SUBSET, Dataset
from curation.pipeline.people import Population
from curation.pipeline.tables import SUBSET, read_json
from curation.store import Artifact, StoreError

SHARDS = "shards.json"
FITTED = "the clusters were fitted anew"
SETTINGS = "the settings changed"
# Why a row leaves that is as likely as before, by design; in the others strata decide.
OTHERS = {"iid": "the luck of the draw", "systematic": "the luck of the draw",
          "uniform": "rows with smaller numbers came"}  # fmt: skip
NAMED = 20  # shards that are named; the others are counted


def what_changed(
    people: Population, frame: pl.DataFrame, chosen: Chosen, config_hash: str
) -> dict[str, Any]:
    """Compare a subset that is about to be written with the published one.

    Parameters
    ----------
    people
        The population it was drawn from.
    frame
        The new subset.
    chosen
        Its draw.
    config_hash
        Of the settings it was drawn by.

    Returns
    -------
    dict
        ``against`` (the version compared with, None if there is none), counts ``kept``, ``added``
        and ``removed``, ``added_because`` and ``removed_because`` (reason -> rows), the shards that
        are new, changed and gone, and whether the clusters were fitted anew or settings changed.
    """
    before = _published(people.dataset)
    if before is None:
        return {
            "against": None,
            "kept": 0,
            "added": len(frame),
            "removed": 0,
            "added_because": {"the first subset": len(frame)},
            "removed_because": {},
        }
    had = read_json(before.path(SHARDS))
    now = dict(people.hashes)
    fit = people.dataset.store.need(people.dataset.at(CENTROIDS)).content_hash
    refit = before.manifest.recipe["upstream"].get("centroids") != fit
    settings = before.manifest.recipe["config_hash"] != config_hash
    why = FITTED if refit else SETTINGS if settings else ""
    old = pl.read_parquet(before.path(SUBSET), columns=["id", "shard", "inclusion_probability"])
    kept = frame.select("id").join(old.select("id"), on="id", how="semi")
    removed = old.join(frame.select("id"), on="id", how="anti")
    added = frame.select("id", "shard").join(old.select("id"), on="id", how="anti")
    return {
        "against": before.manifest.version,
        "kept": len(kept),
        "added": len(added),
        "removed": len(removed),
        "added_because": dict(
            Counter(_why_added(s, had, now, why) for s in added["shard"].to_list())
        ),
        "removed_because": _why_removed(people, removed, chosen, now, why),
        "shards_new": _named(s for s in now if s not in had),
        "shards_changed": _named(s for s in now if s in had and had[s] != now[s]),
        "shards_gone": _named(s for s in had if s not in now),
        "refit": refit,
        "settings": settings,
    }


def _published(dataset: Dataset) -> Artifact | None:
    try:
        found = dataset.store.current(dataset.at(SELECTED_SUBSET))
    except StoreError:
        return None  # damaged: nothing to compare with
    if found is None or SHARDS not in found.manifest.files:
        return None
    return found


def _named(shards: Any) -> list[str]:
    listed = sorted(shards)
    more = [f"and {len(listed) - NAMED:,} more"] if len(listed) > NAMED else []
    return listed[:NAMED] + more


def _why_added(shard: str, had: Mapping[str, str], now: Mapping[str, str], why: str) -> str:
    if shard not in had:
        return "its shard is new"
    if had[shard] != now[shard]:
        return "its shard changed"
    return why or "takes the place of rows that left"


def _why_removed(
    people: Population,
    removed: pl.DataFrame,
    chosen: Chosen,
    now: Mapping[str, str],
    why: str,
) -> dict[str, int]:
    """Count the reasons of the rows that left; `why` is that of all that could be drawn again."""
    rows = people.find(removed["id"])
    there = np.flatnonzero(rows >= 0)
    chance = np.zeros(len(rows))
    chance[there] = chosen.chance_of(rows[there])
    others = OTHERS.get(chosen.parts[0].drawn.design, "others of its stratum came")
    found: Counter[str] = Counter()
    for shard, before, row, now_is in zip(
        removed["shard"],
        removed["inclusion_probability"],
        rows.tolist(),
        chance.tolist(),
        strict=True,
    ):
        if row < 0 and shard in people.missing:
            found["its shard could not be read"] += 1
        elif row < 0:
            found["its shard is gone" if shard not in now else "it left its shard"] += 1
        else:
            fell = now_is < before * (1.0 - 1e-9)
            found[why or ("its probability fell" if fell else others)] += 1
    return dict(found)

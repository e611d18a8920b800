"""What pilot model and centroids depend on beside the rows: what a fit is kept by."""

from __future__ import annotations

from typing import Any

from curation.config import CuratedDatasetConfig
from curation.pipeline.dataset import PILOT_MODEL
from curation.pipeline.people import Population
from curation.store import Artifact, digest

SIZE = {"budget", "fraction", "epsilon", "delta"}


def columns_and_holdout(config: CuratedDatasetConfig) -> list[Any]:
    """Return what rows mean and which are held out: neither shows in the rows of a shard.

    A model that was trained on other labels, or on rows that are held out now, is of no use.
    """
    return [config.columns.model_dump(exclude={"group"}), config.holdout.model_dump()]


def pilot_recipe(people: Population) -> dict[str, Any]:
    """Return config hash, upstream and seed of the pilot model, but for the rows."""
    config = people.dataset.config
    return {
        "config_hash": digest(
            [
                config.score.model_dump(),
                config.selection.model_dump(include=SIZE),
                config.encoder.max_length,
                columns_and_holdout(config),
            ]
        ),
        "upstream": {"encoder": people.encoder},
        "seed": config.selection.seed,
    }


def centroids_recipe(people: Population, pilot: Artifact) -> dict[str, Any]:
    """Return config hash, upstream and seed of the centroids, but for the rows."""
    config = people.dataset.config
    return {
        "config_hash": digest(
            [
                config.clusters.model_dump(exclude={"block_mib"}),
                config.score.model_dump(),
                config.selection.model_dump(include={*SIZE, "design", "mix"}),
                columns_and_holdout(config),
            ]
        ),
        "upstream": {"encoder": people.encoder, PILOT_MODEL: pilot.content_hash},
        "seed": config.selection.seed,
    }

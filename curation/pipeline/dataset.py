"""A curated data set bound to a store: addresses, shards, and how a stage is produced."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from curation.config import Columns, CuratedDatasetConfig
from curation.memory import MIB, peak, peak_from_now
from curation.sources import ShardSource, open_source, stored_columns
from curation.store import Address, Artifact, Draft, Recipe, Store, StoreError

RAW = "raw"
EMBEDDINGS = "embeddings"
PILOT_MODEL = "pilot_model"
CENTROIDS = "centroids"
SENSITIVITY_SCORES = "sensitivity_scores"
SELECTED_SUBSET = "selected_subset"
EVALUATION_MODEL = "evaluation_model"
REPORT = "report"

ASSETS = (
    RAW,
    EMBEDDINGS,
    PILOT_MODEL,
    CENTROIDS,
    SENSITIVITY_SCORES,
    SELECTED_SUBSET,
    EVALUATION_MODEL,
    REPORT,
)
PER_SHARD = (RAW, EMBEDDINGS, SENSITIVITY_SCORES)
ADOPTED = (EMBEDDINGS, SENSITIVITY_SCORES)  # costly, and nothing in them depends on a shard's name

# Bumped when the code of a stage changes what it writes: the recipe of every artifact carries it,
# and Dagster shows it as the asset's code version.
CODE_VERSIONS = {
    RAW: "2",
    EMBEDDINGS: "1",
    PILOT_MODEL: "4",
    CENTROIDS: "7",
    SENSITIVITY_SCORES: "4",
    SELECTED_SUBSET: "6",
    EVALUATION_MODEL: "6",
    REPORT: "3",
}


def project_root() -> Path:
    """Return the folder that relative paths in YAML start from: the checkout, else the cwd."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def store_root() -> Path:
    """Return the store's folder: ``CURATION_STORE``, else ``data/`` in the project."""
    value = os.environ.get("CURATION_STORE")
    return Path(value).expanduser().resolve() if value else project_root() / "data"


class NotThere(StoreError):  # noqa: N818  the name says what happened
    """A shard is left out because a stage before could not make it."""


@dataclass(frozen=True)
class Outcome:
    """What a stage left behind.

    Attributes
    ----------
    artifact
        The published version.
    unchanged
        Whether it was there already, made by the same recipe, so that nothing was written.
    seconds
        Wall time the stage took now.
    told
        What is to be said of it now, beside the figures that were noted when it was written.
    """

    artifact: Artifact
    unchanged: bool
    seconds: float
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set's settings and the store its artifacts live in."""

    config: CuratedDatasetConfig
    store: Store
    root: Path

    @classmethod
    def open(cls, config: CuratedDatasetConfig) -> Dataset:
        """Bind a data set to the store and project of this process."""
        return cls(config, Store(store_root()), project_root())

    @cached_property
    def columns(self) -> Columns:
        """The configured columns by the names they have in the store.

        A user's column that clashes with one of ours, such as ``weight``, is stored under another
        name.
        """
        return stored_columns(self.config.columns)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.config.name

    def at(self, asset: str, shard: str | None = None) -> Address:
        """Return the address of one of its artifacts."""
        return Address(self.name, asset, shard)

    def source(self) -> ShardSource:
        """Return the source; it reads nothing before it is asked to."""
        return open_source(self.config.source, dataset=self.name, root=self.root)

    def produce(
        self,
        asset: str,
        shard: str | None,
        *,
        config_hash: str,
        upstream: Mapping[str, str],
        fill: Callable[[Draft], None],
        seed: int | None = None,
        publish: bool = True,
        told: Mapping[str, Any] | None = None,
    ) -> Outcome:
        """Write an artifact with `fill`, unless the published one has the same recipe.

        A shard's artifact is also taken from another shard that has one of the same recipe: a
        shard that was renamed costs nothing. Per-shard artifacts keep one older version (a reader
        may still have it open); the others keep all.
        """
        began = time.monotonic()
        at = self.at(asset, shard)
        recipe = Recipe(CODE_VERSIONS[asset], config_hash, dict(upstream), seed)
        found = self.store.unchanged(at, recipe)
        if found is None and asset in ADOPTED:
            found = self.store.adopt(at, recipe)
        if found is not None:
            return Outcome(found, True, time.monotonic() - began, told or {})
        keep = 1 if asset in PER_SHARD else None

        def fill_and_measure(draft: Draft) -> None:
            with peak_from_now():
                fill(draft)
            draft.peak_mib = round(peak() / MIB, 1)

        artifact = self.store.write(
            at, recipe, fill_and_measure, publish=publish, keep=keep, index=asset in ADOPTED
        )
        return Outcome(artifact, False, time.monotonic() - began, told or {})

    def kept(
        self, asset: str, *, config_hash: str, upstream: Mapping[str, str], seed: int | None
    ) -> Artifact | None:
        """Return the published version if all but the rows it was made from is the same."""
        try:
            found = self.store.current(self.at(asset))
        except StoreError:
            return None  # damaged: it has to be made again
        if found is None:
            return None
        had = found.manifest.recipe
        same = (
            had["code_version"] == CODE_VERSIONS[asset]
            and had["config_hash"] == config_hash
            and had["seed"] == seed
            and all(had["upstream"].get(name) == value for name, value in upstream.items())
        )
        return found if same else None

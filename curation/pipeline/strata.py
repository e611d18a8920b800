"""Strata that stay where they are from one draw to the next, while the fit is the same.

A row leaves a stratified draw when its stratum changes under it. So the borders of the strata are
kept beside the fit they were made with, and a new shard's rows fall between them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from curation.pipeline.chosen import Chosen
from curation.pipeline.dataset import CENTROIDS, Dataset
from curation.pipeline.tables import read_arrays, write_arrays
from curation.sampling.designs import IN_STRATA
from curation.selection import Borders
from curation.store import Artifact, Draft, Recipe, StoreError, digest

STRATA = "strata"
STRATA_FILE = "borders.safetensors"
CODE_VERSION = "1"


def kept_strata(
    dataset: Dataset, centroids: Artifact, budget: int, draw: Callable[[], Chosen]
) -> tuple[Borders | None, str]:
    """Return the borders of the strata that go with the centroids, and their hash.

    Parameters
    ----------
    dataset, centroids
        The data set and its fit.
    budget
        Number of draws: borders made for less than half or more than twice as many are not kept.
    draw
        Draws in new strata; called where there are none to keep, and the borders are stored.

    Returns
    -------
    tuple
        None and an empty hash where the design has no strata, or there is a draw for each group
        or round.
    """
    config = dataset.config
    if (
        config.selection.design not in IN_STRATA
        or config.selection.shared
        or config.score.rounds > 1
    ):
        return None, ""
    at = dataset.at(STRATA)
    selection = config.selection.model_dump(exclude={"calibrate", "weight_exponent"})
    upstream = {CENTROIDS: centroids.content_hash}
    found = _current(dataset)
    if found is not None:
        had = found.manifest.recipe
        same = (
            had["code_version"] == CODE_VERSION
            and had["config_hash"] == digest(selection)
            and had["upstream"] == upstream
        )
        if same:
            kept = _read(found)
            if 0.5 <= budget / kept.budget <= 2.0:
                return kept, found.content_hash
    borders = draw().borders
    if borders is None:
        return None, ""

    def fill(draft: Draft) -> None:
        assert borders is not None  # noqa: S101
        write_arrays(
            draft.folder / STRATA_FILE,
            {
                "budget": np.array([borders.budget]),
                "band": borders.band,
                "rank": borders.rank,
                "distance": borders.distance,
                "tag": borders.tag,
            },
        )
        draft.row_count = len(borders)

    recipe = Recipe(CODE_VERSION, digest(selection), upstream, config.selection.seed)
    artifact = dataset.store.write(at, recipe, fill)
    return _read(artifact), artifact.content_hash


def current_strata(dataset: Dataset) -> Borders | None:
    """Return the borders the published subset was drawn with, if any."""
    found = _current(dataset)
    return None if found is None else _read(found)


def _current(dataset: Dataset) -> Artifact | None:
    try:
        return dataset.store.current(dataset.at(STRATA))
    except StoreError:
        return None  # damaged: strata are cut anew


def _read(artifact: Artifact) -> Borders:
    arrays = read_arrays(artifact.path(STRATA_FILE))
    return Borders(
        int(arrays["budget"][0]),
        arrays["band"],
        arrays["rank"],
        arrays["distance"],
        arrays["tag"],
    )

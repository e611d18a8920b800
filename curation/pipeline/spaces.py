"""The space a data set is clustered in, as it is stored next to its centroids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import clustering
from curation.models import PilotModel
from curation.pipeline.people import Population
from curation.selection import SKETCH_DIMENSION, label_scale


@dataclass(frozen=True)
class SpaceMap:
    """Maps embeddings (and labels) to the points that are clustered."""

    settings: dict[str, Any]
    apply: Callable[[NDArray[np.float32], NDArray[np.generic] | None], NDArray[np.float32]]


def space_map(settings: dict[str, Any], pilot: PilotModel | None) -> SpaceMap:
    """Return the map described by `settings`."""
    if settings["space"] == "embedding":
        return SpaceMap(settings, lambda x, y: x)
    if settings["space"] == "embedding+label":
        how = clustering.LabelScale(
            tuple(settings["classes"]), settings["scale"], settings["centre"], settings["spread"]
        )
        return SpaceMap(settings, lambda x, y: clustering.append_labels(x, _known(y), how))
    assert pilot is not None  # noqa: S101  the configuration was checked
    sketch = clustering.GradientSketch.create(
        settings["residuals"],
        settings["features"],
        dimension=settings["dimension"],
        seed=settings["seed"],
    )
    return SpaceMap(settings, lambda x, y: sketch(pilot.residuals(x, _known(y)), pilot.features(x)))


def space_settings(
    people: Population, sample: NDArray[np.int64], pilot: PilotModel | None, *, seed: int
) -> dict[str, Any]:
    """Settle the map from a sample of the rows."""
    space = people.dataset.config.space
    if space == "embedding+label":
        assert people.labels is not None  # noqa: S101
        how = label_scale(people.embeddings(sample), people.labels[sample], people.classes)
        return {
            "space": space,
            "classes": list(people.classes),
            "scale": how.scale,
            "centre": how.centre,
            "spread": how.spread,
        }
    if space == "gradient":
        assert pilot is not None  # noqa: S101
        assert people.labels is not None  # noqa: S101
        few = sample[:2]
        residuals = pilot.residuals(people.embeddings(few), people.labels[few])
        return {
            "space": space,
            "residuals": residuals.shape[1],
            "features": pilot.features(people.embeddings(few)).shape[1],
            "dimension": SKETCH_DIMENSION,
            "seed": seed,
        }
    return {"space": space}


def _known(labels: NDArray[np.generic] | None) -> NDArray[np.generic]:
    assert labels is not None  # noqa: S101  the configuration was checked
    return labels

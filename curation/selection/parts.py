"""What was learned, as named arrays and plain values: for whoever stores it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import clustering
from curation.sampling import constants as spread
from curation.sampling import guard, proxies
from curation.selection.fit import Fitted

Arrays = dict[str, NDArray[Any]]

CLUSTERS = (
    "centroids",
    "medoids",
    "medoid_rows",
    "sizes",
    "centroid_cost",
    "medoid_cost",
    "rank",
    "kept",
)
PILOT = ("cluster", "distance", "score", "proxy", "weight")
HEAD = ("centre", "mixing", "offset", "weights", "bias")
REFERENCES = ("tags", "vectors", "targets")
PROXY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cluster": (("scores", "held_out"), ()),
    "low_rank": (("centre", "basis", "slope", "held_out"), ("intercept", "penalty")),
    "regression": (
        ("points", "scores", "centre", "slope", "coefficients", "held_out"),
        ("intercept",),
    ),
}


def to_parts(fitted: Fitted) -> tuple[Arrays, dict[str, Any]]:
    """Return what was learned as arrays by name, and what is left as values JSON can hold."""
    arrays = _of(fitted.clusters, CLUSTERS, "clusters")
    fields, numbers = PROXY[fitted.proxy.name]
    arrays |= _of(fitted.proxy, fields, "proxy")
    arrays |= {
        "constants": fitted.constants.values,
        "edges": fitted.edges,
        "medoid_scores": fitted.medoid_scores,
        "medoid_tags": fitted.medoid_tags,
    }
    if fitted.pilot is not None:
        arrays |= _of(fitted.pilot, PILOT, "pilot") | {"pilot_tags": fitted.pilot_tags}
    if fitted.hardness is not None:
        arrays |= _of(fitted.hardness.head, HEAD, "head")
        arrays |= _of(fitted.hardness, REFERENCES, "references")
    smooth = {k: _or_none(v) for k, v in asdict(fitted.smoothness).items()}
    values = {
        "z": fitted.z,
        "proxy": fitted.proxy.name,
        "proxy_values": {name: getattr(fitted.proxy, name) for name in numbers},
        "constants": fitted.constants.mode,
        "smoothness": smooth,
        "design": fitted.design,
        "candidates": {k: _or_none(v) for k, v in fitted.candidates.items()},
        "queries": fitted.queries,
        "head_scale": None if fitted.hardness is None else fitted.hardness.head.scale,
    }
    return {k: np.ascontiguousarray(v) for k, v in arrays.items()}, values


def from_parts(arrays: Arrays, values: dict[str, Any]) -> Fitted:
    """Return what :func:`to_parts` took apart."""
    clusters = clustering.ClusterSummary(**_with(arrays, CLUSTERS, "clusters"))
    fields, _ = PROXY[values["proxy"]]
    proxy = proxies.PROXIES[values["proxy"]](
        **_with(arrays, fields, "proxy"), **values["proxy_values"]
    )
    hardness = None
    if values["head_scale"] is not None:
        head = clustering.RidgeHead(**_with(arrays, HEAD, "head"), scale=values["head_scale"])
        hardness = clustering.Hardness(head, **_with(arrays, REFERENCES, "references"))
    pilot = None
    if "pilot.score" in arrays:
        pilot = spread.Pilot(**_with(arrays, PILOT, "pilot"))
    smooth: dict[str, Any] = {
        name: float("nan") if value is None else value
        for name, value in values["smoothness"].items()
    }
    return Fitted(
        z=values["z"],
        clusters=clusters,
        medoid_scores=arrays["medoid_scores"],
        medoid_tags=arrays["medoid_tags"],
        hardness=hardness,
        proxy=proxy,
        constants=spread.Constants(values["constants"], arrays["constants"]),
        smoothness=guard.Smoothness(**smooth),
        pilot=pilot,
        pilot_tags=arrays.get("pilot_tags", np.empty(0)),
        design=values["design"],
        candidates={k: float("inf") if v is None else v for k, v in values["candidates"].items()},
        edges=arrays["edges"],
        queries=values["queries"],
    )


def _of(thing: object, names: tuple[str, ...], prefix: str) -> Arrays:
    return {f"{prefix}.{name}": np.asarray(getattr(thing, name)) for name in names}


def _with(arrays: Arrays, names: tuple[str, ...], prefix: str) -> dict[str, Any]:
    return {name: arrays[f"{prefix}.{name}"] for name in names}


def _or_none(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return value if np.isfinite(value) else None

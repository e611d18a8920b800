"""The data card: what an exported subset is, where it comes from and how it is to be used.

Markdown with a YAML head, the form in which data sets are described on hubs; the head can be read
by programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from curation.config import CuratedDatasetConfig
from curation.reporting.text import escape_markdown, markdown_table
from curation.store import Artifact

if TYPE_CHECKING:
    import polars as pl

MEANINGS = {
    "id": "the row's identity",
    "shard": "the shard it came in",
    "row": "its place in the shard",
    "weight": "Horvitz-Thompson weight: weighted totals are unbiased for totals over all rows",
    "training_weight": "weight for a training loss, mean 1",
    "inclusion_probability": "the probability with which the row was to be chosen",
    "cluster": "its cluster",
    "score": "the sensitivity it was drawn by",
    "reason": "pilot (uniform, stands for itself), take-all (certain to be chosen) or drawn",
    "calibrated_weight": "weights that reproduce known totals",
    "round": "the round it was first drawn in",
}
NOT_STATED = "not stated"
USE = {
    "parquet": 'rows = polars.read_parquet("{name}")',
    "jsonl": 'rows = polars.read_ndjson("{name}")',
    "huggingface": 'rows = datasets.load_from_disk("{name}")',
    "webdataset": 'rows = datasets.load_dataset("webdataset", data_files="{name}/*.tar")',
}


def card_of(
    config: CuratedDatasetConfig, artifact: Artifact, frame: pl.DataFrame, kind: str, name: str
) -> str:
    """Return the data card of an exported subset.

    Parameters
    ----------
    config
        The data set. Storage options, which may name accounts, are left out.
    artifact
        The published subset.
    frame
        Its rows.
    kind, name
        Format and name of what was exported.
    """
    head = yaml.safe_dump(_head(config, artifact, frame), sort_keys=False, allow_unicode=True)
    return "\n".join(
        [
            "---",
            head.rstrip(),
            "---",
            "",
            f"# {escape_markdown(config.name)}, a weighted subset",
            "",
            *_summary(config, artifact, frame),
            "",
            "## Columns",
            "",
            markdown_table(
                ["column", "type", "meaning"],
                [[c, str(t), MEANINGS.get(c, "from the data")] for c, t in frame.schema.items()],
            ),
            "",
            "## Use",
            "",
            "```python",
            USE[kind].format(name=name),
            "```",
            "",
            "Multiply each row's loss by `training_weight` (mean 1) and divide by the number of "
            "rows in the batch, not by the batch's sum of weights. For totals over all rows, sum "
            "`weight * value`.",
            "",
        ]
    )


def _head(config: CuratedDatasetConfig, artifact: Artifact, frame: pl.DataFrame) -> dict[str, Any]:
    manifest = artifact.manifest
    settings = config.model_dump(mode="json", exclude_defaults=True)
    settings.get("source", {}).pop("options", None)
    return {
        "license": config.license or "unknown",
        "pretty_name": f"{config.name}, a weighted subset",
        "tags": ["data-selection", "coreset", "sample-weights"],
        "curation": {
            "dataset": config.name,
            "version": manifest.version,
            "created": manifest.created,
            "content_hash": manifest.content_hash,
            "rows": len(frame),
            "stands_for_rows": manifest.figures.get("rows"),
            "score_evaluations": manifest.figures.get("queries"),
            "effective_sample_size": manifest.figures.get("effective_sample_size"),
            "certificate": manifest.figures.get("certificate"),
            "estimate": manifest.figures.get("estimate"),
            "missing_shards": manifest.figures.get("missing_shards") or {},
            "recipe": manifest.recipe,
            "settings": settings,
            "libraries": manifest.libraries,
        },
    }


def _summary(config: CuratedDatasetConfig, artifact: Artifact, frame: pl.DataFrame) -> list[str]:
    figures = artifact.manifest.figures
    source = config.source
    where = source.package or source.url or source.folder or "?"
    told = [
        ["rows", f"{len(frame):,}"],
        ["stand for", f"{figures.get('rows', 0):,} rows"],
        ["source", str(where)],
        ["licence of the source", config.license or f"{NOT_STATED} (set `license` in defs.yaml)"],
        ["version", artifact.manifest.version],
        ["content hash", artifact.manifest.content_hash],
    ]
    certificate = figures.get("certificate")
    if certificate:
        told.append(
            [
                "certificate of the total score",
                f"off by more than {certificate['radius']:.4g} with probability at most "
                f"{certificate['delta']:g}, if {certificate['conditional_on']}",
            ]
        )
    estimate = figures.get("estimate") or {}
    if estimate.get("low") is not None:
        level = f"{estimate['level']:.0%}"
        told.append(
            [
                f"total score, {level} interval",
                f"{estimate['low']:.6g} to {estimate['high']:.6g}",
            ]
        )
    if figures.get("missing_shards"):
        told.append(["shards that are missing", ", ".join(figures["missing_shards"])])
    described = [escape_markdown(config.description, limit=2000), ""] if config.description else []
    return [*described, markdown_table(["", ""], told)]

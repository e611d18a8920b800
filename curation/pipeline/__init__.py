"""The pipeline: the only package that imports dagster."""

from curation.pipeline.component import CuratedDataset

__all__ = ["CuratedDataset"]

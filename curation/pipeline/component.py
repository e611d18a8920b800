"""The Dagster component ``CuratedDataset``: one YAML file to one data set's definitions."""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import BaseModel

from curation.config import CuratedDatasetConfig
from curation.pipeline.assets import build_assets
from curation.pipeline.automation import build_schedule, build_sensor, curation_job, ingest_job
from curation.pipeline.dataset import Dataset


class CuratedDataset(dg.Component):
    """A data set that is curated: its source, columns, clusters, selection and evaluation."""

    def __init__(self, config: CuratedDatasetConfig) -> None:
        self.config = config

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the schema: ``dg check yaml`` names each wrong field at its own line."""
        return CuratedDatasetConfig

    @classmethod
    def get_spec(cls) -> Any:
        """Return what the documentation tab shows."""
        return dg.ComponentTypeSpec(
            description="Embed, cluster, score, draw and evaluate the rows of a growing data set.",
            owners=["team:curation"],
            tags=["data selection"],
        )

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> CuratedDataset:
        """Bind the YAML's attributes; the data set is named after its folder unless it says so."""
        config = attributes or CuratedDatasetConfig.model_validate({})
        if not config.name:
            config = CuratedDatasetConfig.model_validate(
                {**config.model_dump(exclude_unset=True), "name": context.path.name}
            )
        return cls(config)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the assets, checks, jobs, schedule and sensor."""
        return dataset_definitions(Dataset.open(self.config))


def dataset_definitions(dataset: Dataset) -> dg.Definitions:
    """Return the definitions of one data set."""
    curate, ingest = curation_job(dataset), ingest_job(dataset)
    return dg.Definitions(
        assets=build_assets(dataset),
        jobs=[curate, ingest],
        schedules=[build_schedule(dataset, curate)],
        sensors=[build_sensor(dataset, ingest, curate)],
    )

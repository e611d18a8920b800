"""Dagster's entry point: every data set under ``defs/``."""

from pathlib import Path

import dagster as dg

from curation.threads import set_defaults

set_defaults()  # before numpy, faiss or torch are imported


@dg.definitions
def defs() -> dg.Definitions:
    """Load the data sets. A run is one process: its stages share the loaded encoder and models."""
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        dg.Definitions(executor=dg.in_process_executor),
    )

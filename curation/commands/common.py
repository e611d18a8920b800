"""What several commands need."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from curation.pipeline.dataset import Dataset


def own_name() -> str:
    """Return how this command can be called from here."""
    if shutil.which("curation"):
        return "curation"
    return os.path.relpath(Path(sys.executable).with_name("curation"))


def open_dataset(name: str) -> Dataset:
    """Return a data set, or say what is wrong with its YAML."""
    from curation.registry import RegistryError, load_config

    try:
        config = load_config(name)
    except RegistryError as error:
        raise failure(error) from None
    from curation.pipeline.dataset import Dataset

    return Dataset.open(config)


def failure(error: object) -> click.ClickException:
    """Return an error for the user; what came from data in it can't control the terminal."""
    from curation.terminal import visible

    return click.ClickException(visible(error, keep="\n"))

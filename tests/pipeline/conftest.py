"""A small real data set, and the pieces to curate it with real Dagster runs."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from helpers import vector_config, vectors

from curation.pipeline.dataset import Dataset
from curation.store import Store


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four shards of 200 vectors."""
    path = tmp_path / "source"
    path.mkdir()
    for i in range(4):
        vectors(200, seed=i).write_parquet(path / f"day-{i}.parquet")
    return path


@pytest.fixture
def clouds(folder, tmp_path) -> Dataset:
    """The data set over those shards, in a store of its own."""
    return Dataset(vector_config(folder), Store(tmp_path / "store"), tmp_path)


@pytest.fixture
def instance():
    """A Dagster instance in memory; the command line's and the server's tests use one on disk."""
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def disk_instance(tmp_path):
    """A Dagster instance on disk, as users have (schedules need a reference to it)."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    """Drawing takes most of the time of these small runs; tests marked `pictures` draw."""
    monkeypatch.setenv("CURATION_PICTURES", "1" if "pictures" in request.keywords else "0")

"""A small real data set, and the pieces to curate it with real Dagster runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from helpers import copied, four_shards, vector_config

from curation.pipeline.dataset import Dataset
from curation.pipeline.local import RunResult, run
from curation.store import Store


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four shards of 200 vectors."""
    return four_shards(tmp_path)


@pytest.fixture
def clouds(folder, tmp_path) -> Dataset:
    """The data set over those shards, in a store of its own."""
    return Dataset(vector_config(folder), Store(tmp_path / "store"), tmp_path)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory) -> Iterator[tuple[Dataset, dg.DagsterInstance, RunResult]]:
    """That data set, curated once for all tests that only look at what is there."""
    root = tmp_path_factory.mktemp("first-run")
    dataset = Dataset(vector_config(four_shards(root)), Store(root / "store"), root)
    with dg.DagsterInstance.ephemeral() as found:
        with pytest.MonkeyPatch.context() as patch:  # ended before the tests: a server inherits it
            patch.setenv("CURATION_PICTURES", "0")
            result = run(dataset, found)
        yield dataset, found, result


@pytest.fixture
def curated(first_run, instance, tmp_path) -> Dataset:
    """That data set as the first run left it, in a copy that may be changed.

    The instance knows its shards, and nothing of the run that made them.
    """
    dataset = copied(first_run[0], tmp_path)
    instance.add_dynamic_partitions("clouds_shards", [f"day-{i}" for i in range(4)])
    return dataset


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

"""Runs of one data set follow one another in the real daemon, where several runs may run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from server import Server

from curation.pipeline.dataset import project_root

pytestmark = pytest.mark.long

RUNS = """{ runsOrError { ... on Runs { results { runId status startTime endTime
    tags { key value } } } } }"""
BACKFILL = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    """A server whose settings are the shipped ones, but for the number of runs at a time."""
    shipped = (project_root() / "dagster.yaml").read_text()
    assert "max_concurrent_runs: 1" in shipped
    home = tmp_path / "store" / ".dagster"
    home.mkdir(parents=True)
    many = shipped.replace("max_concurrent_runs: 1", "max_concurrent_runs: 4")
    (home / "dagster.yaml").write_text(many)
    found = Server(tmp_path)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def test_runs_of_a_data_set_do_not_overlap(server):
    add = """mutation($s: RepositorySelector!, $k: String!) { addDynamicPartition(
        repositorySelector: $s, partitionsDefName: "questions_shards", partitionKey: $k) {
        __typename } }"""
    selector = {"repositoryName": "__repository__", "repositoryLocationName": "curation"}
    shards = [f"part-0{i}" for i in range(3)]
    for shard in shards:
        server.ask(add, s=selector, k=shard)
    # with embeddings a run takes long enough to meet the next one
    assets = [{"path": ["questions", a]} for a in ("raw", "embeddings")]
    for shard in shards:
        told = server.ask(BACKFILL, p={"assetSelection": assets, "partitionNames": [shard]})
        assert told["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", told

    def ended() -> list[dict]:
        found = server.ask(RUNS)["runsOrError"]["results"]
        over = [r for r in found if r["status"] in ("SUCCESS", "FAILURE")]
        return over if len(over) == len(shards) else []

    runs = sorted(server.wait("three runs", ended), key=lambda r: r["startTime"])
    assert {r["status"] for r in runs} == {"SUCCESS"}
    for before, after in pairwise(runs):
        assert after["startTime"] >= before["endTime"] - 0.5, runs

"""The shipped code location under a real webserver and daemon, and in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server

from curation.pipeline.dataset import ASSETS
from curation.store import Address, Store

SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": "curation"}
RUNS = "{ runsOrError { ... on Runs { results { runId status jobName tags { key value } } } } }"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("server"))
    try:
        found.start()
        yield found
    finally:
        found.stop()


def runs(server: Server) -> list[dict]:
    return server.ask(RUNS)["runsOrError"]["results"]


@pytest.fixture(scope="module")
def ingested(server) -> list[str]:
    """Shards that the sensor noticed, registered and had read and embedded."""
    start = """mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) {
        __typename ... on PythonError { message } } }"""
    told = server.ask(start, s={**SELECTOR, "sensorName": "questions_new_shards"})
    assert told["startSensor"]["__typename"] == "Sensor", told

    def done() -> list[dict]:
        found = [r for r in runs(server) if r["jobName"] == "questions_ingest"]
        assert not any(r["status"] == "FAILURE" for r in found), server.log.read_text()[-3000:]
        return [r for r in found if r["status"] == "SUCCESS"]

    found = server.wait("the sensor's run", done)
    assert len(found) == 1  # six new shards, one run
    return Store(server.folder / "store").shards("questions", "embeddings")


def test_sensor_registers_new_shards_and_starts_their_run(server, ingested):
    assert ingested == [f"part-0{i}" for i in range(6)]
    query = """query($k: AssetKeyInput!) { assetNodeOrError(assetKey: $k) {
        ... on AssetNode { partitionKeys } } }"""
    told = server.ask(query, k={"path": ["questions", "raw"]})
    assert told["assetNodeOrError"]["partitionKeys"] == ingested


@pytest.mark.long
def test_backfill_of_chosen_shards_over_graphql(server, ingested):
    """Two shards, not neighbours, of two assets: done, unchanged, with their own data versions."""
    launch = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
        __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
    told = server.ask(
        launch,
        p={
            "assetSelection": [{"path": ["questions", a]} for a in ("raw", "embeddings")],
            "partitionNames": ["part-01", "part-04"],
        },
    )["launchPartitionBackfill"]
    assert told["__typename"] == "LaunchBackfillSuccess", told
    status = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
        ... on PartitionBackfill { status } } }"""

    def ended() -> str:
        now = server.ask(status, id=told["backfillId"])["partitionBackfillOrError"]["status"]
        return now if now not in ("REQUESTED", "COMPLETING") else ""

    assert server.wait("the backfill", ended) == "COMPLETED_SUCCESS"
    query = """query($k: AssetKeyInput!) { assetNodeOrError(assetKey: $k) { ... on AssetNode {
        assetMaterializations(limit: 20) { partition runId tags { key value }
            metadataEntries { label ... on TextMetadataEntry { text } } } } } }"""
    store = Store(server.folder / "store")
    for asset in ("raw", "embeddings"):
        events = server.ask(query, k={"path": ["questions", asset]})["assetNodeOrError"][
            "assetMaterializations"
        ]
        for shard in ("part-01", "part-04"):
            newest = next(e for e in events if e["partition"] == shard)
            tags = {t["key"]: t["value"] for t in newest["tags"]}
            artifact = store.need(Address("questions", asset, shard))
            assert tags["dagster/data_version"] == artifact.content_hash
            told_status = [m["text"] for m in newest["metadataEntries"] if m["label"] == "status"]
            assert told_status == ["unchanged: nothing was written"]


@pytest.fixture
def page(server, chromium):
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update",
    ]  # fmt: skip
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        opened = browser.new_page(viewport={"width": 1500, "height": 1000})
        opened.set_default_timeout(40_000)
        yield opened
        browser.close()


@pytest.mark.browser
def test_asset_graph_shows_the_eight_assets(page, server, ingested):
    page.goto(f"{server.url}/locations/curation/asset-groups/questions/lineage")
    for asset in ASSETS:
        page.get_by_text(asset, exact=True).first.wait_for()
    save(page, server, "graph")


@pytest.mark.browser
def test_page_of_a_shard_shows_its_plot(page, server, ingested):
    page.goto(f"{server.url}/assets/questions/raw?view=partitions&partition=part-02")
    page.get_by_text("dagster/row_count").first.wait_for()
    page.get_by_text("[Show Markdown]").first.click()
    image = page.locator("img[src^='data:image/png;base64,']")
    image.first.wait_for()
    width = image.first.evaluate("node => node.naturalWidth")
    assert width > 300
    save(page, server, "shard")


@pytest.mark.browser
def test_schedule_is_listed_with_its_cron(page, server):
    page.goto(f"{server.url}/locations/curation/schedules/questions_schedule")
    page.get_by_text("questions_schedule").first.wait_for()
    page.get_by_text(re.compile("06:00 AM|0 6 \\* \\* \\*")).first.wait_for()
    save(page, server, "schedule")


def save(page, server: Server, name: str) -> None:
    """Keep a screenshot for whoever looks into a failure."""
    path = Path(server.folder) / f"{name}.png"
    page.screenshot(path=str(path))
    assert path.stat().st_size > 5_000

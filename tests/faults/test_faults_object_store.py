"""An object store that fails for a while, for ever, in the middle, or when it is listed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_ground import SHARDS, Ground, check_store, rows_of
from stores import Faults, proxy

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of an S3 server on loopback."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    found = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    found.start()
    yield found.get_host_and_port()[1]
    found.stop()


class Bucket:
    """A bucket of shards, behind a server with faults."""

    def __init__(self, port: int, name: str) -> None:
        self.name = name
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        self.client.create_bucket(Bucket=name)
        for shard in SHARDS:
            self.put(shard)

    def put(self, shard: str) -> None:
        """Write a shard."""
        from io import BytesIO

        buffer = BytesIO()
        rows_of(shard).write_parquet(buffer)
        self.client.put_object(
            Bucket=self.name, Key=f"rows/{shard}.parquet", Body=buffer.getvalue()
        )

    def ground(self, root: Path, address: str) -> Ground:
        """Return a data set over the bucket."""
        options = {"key": "$OUR_KEY", "secret": "$OUR_SECRET", "region": "us-east-1"}
        options |= {"endpoint_url": address, "read_timeout": 1}
        source = {"url": f"s3://{self.name}/rows", "options": options}
        return Ground(root, changes={"source": source})


@pytest.fixture
def bucket(server: int, request: pytest.FixtureRequest) -> Bucket:
    """A bucket with three shards."""
    return Bucket(server, f"b{abs(hash(request.node.nodeid)):x}")


@pytest.mark.parametrize("fault", ["500", "hang", "cut", "short", "reset"])
def test_faults_that_pass(bucket, server, tmp_path, first, row, fault):
    line = row(f"C object store, two requests go wrong: {fault}", "tried again: as a clean store")
    faults = Faults()
    with proxy(server, faults) as address:
        ground = bucket.ground(tmp_path / "ground", address)
        faults.first(2, fault, ending="day-1.parquet")
        ended = ground.run()
    asked = [p for m, p in faults.requests if m == "GET" and "day-1.parquet" in p]
    assert len(asked) > 2
    assert ended.success, ended.said
    assert not ended.told["failed_shards"]
    assert ground.published() == first.published()
    check_store(ground)
    line.seen = f"equal; the object was asked for {len(asked)} times"


@pytest.mark.parametrize("fault", ["500", "short", "reset"])
def test_faults_that_stay(bucket, server, tmp_path, first, without, row, fault):
    line = row(
        f"C object store, one object for ever: {fault}",
        "shard named, the others go on; when it is over: as a store that saw it later",
    )
    faults = Faults()
    with proxy(server, faults) as address:
        ground = bucket.ground(tmp_path / "ground", address)
        faults.first(10_000, fault, ending="day-1.parquet")
        ended = ground.run()
        assert ended.success, ended.said
        why = ended.told["failed_shards"]["day-1"]
        assert why.startswith(f"clouds: shard day-1: cannot read s3://{bucket.name}/rows/day-1")
        assert "run it again" in why
        assert tuple(ground.store.shards("clouds", "raw")) == ("day-0", "day-2")
        faults.choose = lambda *_: ""
        again = ground.run()
    assert again.success, again.said
    assert ground.published() == without.published()
    check_store(ground)
    line.seen = "equal; the message names data set, shard, address and what to do"


def test_listing_fails(bucket, server, tmp_path, first, row):
    line = row(
        "C object store can't be listed", "the run fails and says so; the store is untouched"
    )
    faults = Faults()
    with proxy(server, faults) as address:
        ground = bucket.ground(tmp_path / "ground", address)
        assert ground.run().success
        before = ground.state()
        faults.first(10_000, "500")
        ended = ground.run()
        assert not ended.success
        assert f"clouds: cannot list s3://{bucket.name}/rows" in ended.said
        assert "Check that the store can be reached" in ended.said
        assert ground.state() == before
        faults.choose = lambda *_: ""
        again = ground.run()
    assert again.success, again.said
    assert sum(again.computed.values()) == 0
    assert ground.published() == first.published()
    check_store(ground)
    line.seen = "not a byte changed; the next run had nothing to do"

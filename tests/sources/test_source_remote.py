"""Object stores: a real S3 server on loopback, faults of the network, no secret in a message."""

from __future__ import annotations

import gzip
import io
import logging
import os
import socket
import sys
import traceback
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fsspec.registry import _registry
from PIL import Image
from stores import Faults, proxy

from curation.config import Source
from curation.sources import ShardChanged, SourceError, open_source, remote
from curation.sources.remote import RemoteSource, glob_matches
from curation.sources.secrets import redact

boto3 = pytest.importorskip("boto3")
pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
from moto.core import DEFAULT_ACCOUNT_ID  # noqa: E402
from moto.s3.models import s3_backends  # noqa: E402

SECRET = "h0tter/than+hell"


@pytest.fixture(scope="module")
def s3():
    """The port of an S3 server; its data is that of the module."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(autouse=True)
def _credentials(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("OUR_KEY", "testing")
    monkeypatch.setenv("OUR_SECRET", SECRET)
    monkeypatch.setattr(remote, "DELAYS", (0.0, 0.0, 0.0))
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setenv("CURATION_SPOOL", str(spool))
    yield
    assert list(spool.iterdir()) == []  # nothing is left behind


class Bucket:
    def __init__(self, port: int, name: str) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key=SECRET,
        )
        self.client.create_bucket(Bucket=name)
        self.name = name

    def put(self, key: str, data: bytes | str, **options) -> None:
        data = data.encode() if isinstance(data, str) else data
        self.client.put_object(Bucket=self.name, Key=key, Body=data, **options)

    def source(self, prefix: str = "rows", endpoint: str | None = None, **fields) -> RemoteSource:
        options = {"key": "$OUR_KEY", "secret": "${OUR_SECRET}", "region": "us-east-1"}
        options |= {"endpoint_url": endpoint or self.endpoint, **fields.pop("options", {})}
        config = Source(url=f"s3://{self.name}/{prefix}", options=options, **fields)
        return open_source(config, dataset="demo", root=Path("/"))


@pytest.fixture
def bucket(s3, request):
    name = f"b{abs(hash(request.node.nodeid)):x}"
    return Bucket(s3, name)


def keys(source) -> list[str]:
    return [shard.key for shard in source.shards()]


def test_every_format_reads_as_from_a_folder(bucket, tmp_path):
    frame = pl.DataFrame({"text": ["one", "zwölf, drei", None], "n": [1, 2, 3]})
    folder = tmp_path / "rows"
    folder.mkdir()
    frame.write_parquet(folder / "a.parquet")
    frame.write_csv(folder / "b.csv")
    frame.write_ndjson(folder / "c.jsonl")
    frame.write_ipc(folder / "d.arrow")
    (folder / "e.csv.gz").write_bytes(gzip.compress((folder / "b.csv").read_bytes()))
    np.save(folder / "f.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    frame.write_parquet(folder / "f.parquet")
    for path in folder.iterdir():
        bucket.put(f"rows/{path.name}", path.read_bytes())
    here = open_source(Source(folder=str(folder)), dataset="demo", root=Path("/"))
    there = bucket.source()
    assert keys(there) == keys(here) == list("abcdef")
    for key in "abcdef":
        assert there.read(key).equals(here.read(key)), key
    assert there.read("f").columns == ["embedding", "text", "n"]


def test_what_is_a_shard(bucket):
    for name in (".a.csv", "b.csv.tmp", "c.csv.part", ".cache/d.csv", "x/e.csv", "f.csv", "y/z/"):
        bucket.put(f"rows/{name}", "a\n1\n" if name[-1] != "/" else "")
    bucket.put("rows2/other.csv", "a\n1\n")
    assert keys(bucket.source()) == ["f", "x-e"]
    assert keys(bucket.source(pattern="x/*.csv")) == ["x-e"]
    assert keys(bucket.source(pattern="*.csv")) == ["f"]
    assert keys(bucket.source("rows/")) == ["f", "x-e"]
    assert keys(bucket.source("rows/x")) == ["e"]
    assert keys(bucket.source("nothing")) == []
    bucket.put("rows/f.jsonl", '{"a": 1}\n')
    with pytest.raises(SourceError, match=r"demo: shard f: two files have this key, s3://.*f\.csv"):
        keys(bucket.source())


@pytest.mark.parametrize(
    "pattern", ["**/*", "*", "*/*", "a/**", "a/**/*.csv", "**/a/*", "?/x.csv", "[ab]/*.csv", "a/*"]
)
def test_globs_mean_what_they_mean_in_folders(tmp_path, pattern):
    names = ["x.csv", "a/x.csv", "b/x.csv", "a/b/x.csv", "a/a/y.txt", "B/x.CSV"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.glob(pattern) if p.is_file()}
    if pattern == "a/**":  # files as well, as pathlib has it from 3.13 on
        found = {"a/x.csv", "a/b/x.csv", "a/a/y.txt"}
    assert {name for name in names if glob_matches(name, pattern)} == found


def test_many_objects_are_listed_page_by_page(bucket):
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for i in range(1005):
        backend.put_object(bucket.name, f"rows/{i:04d}.csv", b"a\n1\n")
    assert len(keys(bucket.source())) == 1005


def test_content_is_known_without_reading_and_does_not_follow_the_name(bucket, s3):
    bucket.put("rows/a.csv", "a\n1\n")
    bucket.put("rows/b.csv", "a\n1\n")
    bucket.put("rows/c.csv", "a\n2\n")
    faults = Faults()
    with proxy(s3, faults) as address:
        source = bucket.source(endpoint=address)
        before = {s.key: s.fingerprint for s in source.shards()}
        assert source.content("a") == source.content("b") != source.content("c")
        assert [path for method, path in faults.requests if ".csv" in path] == []
    assert len(set(before.values())) == 3
    bucket.put("rows/a.csv", "a\n1\n")  # written again, with the same content
    again = bucket.source()
    assert again.shards()[0].fingerprint == before["a"]
    bucket.put("rows/a.csv", "a\n3\n")
    changed = bucket.source()
    assert changed.shards()[0].fingerprint != before["a"]
    assert changed.content("a") != again.content("a")


def test_a_shard_that_changes_while_it_is_read(bucket, monkeypatch):
    bucket.put("rows/a.csv", "a\n1\n")
    source = bucket.source()
    source.shards()
    bucket.put("rows/a.csv", "a\n2\n")
    with pytest.raises(ShardChanged, match=r"demo: shard a: s3://.* changed while it was read"):
        list(source.blocks("a"))
    assert source.read("a")["a"].to_list() == [2]
    found = source.blocks("a")
    next(found)
    bucket.put("rows/a.csv", "a\n4\n")
    with pytest.raises(ShardChanged):
        list(found)


def picture(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((2, 2), value, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_folders_of_objects(bucket):
    for shard, label, value in (("s1", "cat", 1), ("s1", "dog", 2), ("s2", "cat", 3)):
        bucket.put(f"rows/{shard}/{label}/x.png", picture(value))
    bucket.put("rows/flat/y.png", picture(4))
    source = bucket.source(format="images")
    assert keys(source) == ["flat", "s1", "s2"]
    assert source.read("s1")["label"].to_list() == ["cat", "dog"]
    assert source.read("flat")["label"].to_list() == ["flat"]
    bucket.put("rows/s2/../../../evil/x.png", picture(5))
    with pytest.raises(SourceError, match="no path within a folder"):
        keys(bucket.source(format="images"))


def test_a_saved_data_set(bucket, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"n": [1, 2]}).save_to_disk(tmp_path / "d")
    for path in (tmp_path / "d").iterdir():
        bucket.put(f"rows/deep/d/{path.name}", path.read_bytes())
    source = bucket.source(format="huggingface")
    assert keys(source) == ["deep-d"]
    assert source.read("deep-d")["n"].to_list() == [1, 2]


class TestFaults:
    @pytest.fixture
    def rows(self, bucket):
        bucket.put("rows/a.csv", "text\n" + "some words\n" * 5000)
        return bucket

    @pytest.mark.parametrize("fault", ["500", "503", "cut", "short", "hang"])
    def test_that_pass(self, rows, s3, fault):
        faults = Faults()
        with proxy(s3, faults) as address:
            options = {"read_timeout": 1} if fault == "hang" else {}
            source = rows.source(endpoint=address, options=options)
            faults.first(2 if fault != "hang" else 1, fault, ending="a.csv")
            assert source.read("a").height == 5000
            asked = [
                path for method, path in faults.requests if (method, path[-5:]) == ("GET", "a.csv")
            ]
            assert len(asked) == (3 if fault != "hang" else 2)

    @pytest.mark.parametrize("fault", ["500", "cut", "short"])
    def test_that_stay(self, rows, s3, fault):
        faults = Faults()
        with proxy(s3, faults) as address:
            source = rows.source(endpoint=address)
            faults.first(99, fault, ending="a.csv")
            with pytest.raises(SourceError) as error:
                source.read("a")
        text = str(error.value)
        assert text.startswith(
            f"demo: shard a: cannot read s3://{rows.name}/rows/a.csv (4 attempts)"
        )
        assert text.endswith("Check that the store can be reached, then run it again.")

    def test_while_listing(self, rows, s3):
        faults = Faults()
        with proxy(s3, faults) as address:
            faults.first(2, "500")
            assert keys(rows.source(endpoint=address)) == ["a"]
            faults.first(99, "500")
            with pytest.raises(SourceError, match=r"^demo: cannot list s3://.*\(4 attempts\)"):
                keys(rows.source(endpoint=address))

    def test_bytes_that_were_changed_on_the_way(self, rows, s3):
        faults = Faults()
        with proxy(s3, faults) as address:
            source = rows.source(endpoint=address)
            faults.first(1, "flip", ending="a.csv")
            assert source.read("a").columns == ["text"]
            faults.first(99, "flip", ending="a.csv")
            with pytest.raises(SourceError, match=r"came with other bytes .*\(MD5\), twice"):
                source.read("a")

    def test_tags_of_encrypted_objects_are_no_hashes(self, rows, monkeypatch):
        source = rows.source()
        monkeypatch.setattr(remote.hashlib, "md5", lambda **_: __import__("hashlib").sha256())
        with pytest.raises(SourceError, match="MD5"):
            source.read("a")
        rows.put("rows/a.csv", "text\nx\n", ServerSideEncryption="aws:kms")
        assert rows.source().read("a")["text"].to_list() == ["x"]

    def test_no_server_and_no_permission(self, rows, s3):
        with socket.socket() as closed:  # a port that nobody listens at
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        source = rows.source(endpoint=f"http://127.0.0.1:{port}")
        with pytest.raises(SourceError, match=r"cannot list s3://.*\(4 attempts\).*be reached"):
            source.shards()
        faults = Faults()
        with proxy(s3, faults) as address:
            faults.first(99, "403")
            with pytest.raises(SourceError, match=r"cannot list s3://\S+ *: PermissionError.*Give"):
                rows.source(endpoint=address).shards()

    def test_a_bucket_that_is_not_there(self, rows):
        rows.name = "no-such-bucket"
        with pytest.raises(SourceError, match=r"cannot list s3://no-such-bucket/rows: .*Create it"):
            rows.source().shards()

    def test_a_damaged_object_is_named_by_its_address(self, rows):
        rows.put("rows/b.parquet", "PAR1 but no more")
        with pytest.raises(SourceError) as error:
            rows.source().read("b")
        message = f"demo: shard b: cannot read s3://{rows.name}/rows/b.parquet as parquet: "
        assert str(error.value).startswith(message)
        assert os.environ["CURATION_SPOOL"] not in str(error.value)

    def test_no_room(self, rows, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setenv("CURATION_SPOOL", "/nowhere")
            with pytest.raises(SourceError, match=r"cannot write to /nowhere: .*CURATION_SPOOL"):
                rows.source().read("a")


class TestSecrets:
    def test_a_variable_that_is_not_set(self, bucket, monkeypatch):
        monkeypatch.delenv("OUR_SECRET")
        with pytest.raises(SourceError, match=r"options.secret: .* variable OUR_SECRET is not set"):
            bucket.source().shards()

    def test_are_in_no_message_and_no_traceback(self, bucket, s3):
        def fail(path: str) -> str:
            raise OSError(f"GET https://h/{path}?X-Amz-Signature=cafe&k={SECRET} token: {SECRET}")

        source = bucket.source()
        source._system.find = lambda *_, **__: fail("x")
        with pytest.raises(SourceError) as error:
            source.shards()
        shown = "".join(traceback.format_exception(error.value))
        assert "cannot list" in shown
        assert SECRET not in shown
        assert "cafe" not in shown

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("s3://user:hunter2@host/x", "s3://***@host/x"),
            ("https://h/x?X-Amz-Signature=hunter2&X-Amz-Date=1", "https://h/x?"),
            ("az://c/x?sv=1&sig=hunter2%3D", "az://c/x?"),
            ("AccountName=a;AccountKey=hunter2==;Suffix=x", "AccountName=a;"),
            ("{'token': 'hunter2', 'x': 1}", "'x': 1"),
            ("Authorization: Bearer hunter2hunter2", "Authorization: "),
            ("aws_secret_access_key = hunter2", "aws_secret"),
            ("cannot read a.csv: it has 3 rows", "cannot read a.csv: it has 3 rows"),
        ],
    )
    def test_redacted(self, text, kept):
        assert "hunter2" not in redact(text)
        assert kept in redact(text)

    def test_packages_that_are_missing_are_named(self, monkeypatch):
        for scheme, package in (("gs", "gcsfs"), ("az", "adlfs"), ("s3", "s3fs")):
            monkeypatch.setitem(sys.modules, package, None)
            monkeypatch.delitem(_registry, scheme, raising=False)
            source = open_source(Source(url=f"{scheme}://b/x"), dataset="demo", root=Path("/"))
            with pytest.raises(SourceError, match=rf"pip install 'curation\[{scheme}\]'"):
                source.shards()

    def test_options_that_are_not_known(self, bucket):
        with pytest.raises(SourceError, match=r"demo: .*s3://"):
            bucket.source(options={"colour": "blue"}).shards()

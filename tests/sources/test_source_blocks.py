"""What all sources promise: blocks, content, changes, memory, and ids seen before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from curation.config import Columns, CuratedDatasetConfig, Holdout, Source
from curation.sources import RowReader, ShardChanged, SourceError, open_source
from curation.sources.base import safe_key
from curation.sources.formats import FORMATS
from curation.sources.ids import Seen, hashes


def source(folder: Path, **fields):
    return open_source(Source(folder=str(folder), **fields), dataset="demo", root=Path("/"))


def reader(**columns) -> RowReader:
    columns = Columns(**{"input": "text", **columns})
    return RowReader(columns=columns, holdout=Holdout(fraction=0.2), dataset="demo", shard="s")


class TestColumnar:
    FRAME = pl.DataFrame({"text": [f"{i} " * 50 for i in range(30_000)], "n": range(30_000)})

    def blocks(self, path: Path, **fields) -> list[pl.DataFrame]:
        found = list(source(path.parent, pattern=path.name, **fields).blocks(path.stem))
        assert len({str(block.schema) for block in found}) == 1
        return found

    @pytest.mark.parametrize("rows", [1000, 10**6])
    def test_parquet(self, tmp_path, rows):
        path = tmp_path / "x.parquet"
        self.FRAME.write_parquet(path, row_group_size=rows)
        found = self.blocks(path, block_mib=1)
        assert pl.concat(found).equals(self.FRAME)
        assert len(found) >= 7
        assert max(block.estimated_size() for block in found) < 1.5 * 2**20
        assert len(self.blocks(path, block_mib=64)) == 1

    def test_rows_stored_once_and_repeated(self, tmp_path):
        """A small file whose pages unpack to far more than a block."""
        path = tmp_path / "x.parquet"
        table = pa.table({"text": pa.array(["z" * 2000]).take(pa.array([0] * 200_000))})
        pq.write_table(table, path)
        assert path.stat().st_size < 2**16
        sizes = [b.height for b in source(tmp_path, block_mib=1).blocks("x")]
        assert sum(sizes) == 200_000
        assert max(sizes) <= 2**20 / 2000

    @pytest.mark.parametrize("kind", ["file", "stream", "compressed"])
    def test_arrow(self, tmp_path, kind):
        path = tmp_path / "x.arrow"
        if kind == "stream":
            self.FRAME.write_ipc_stream(path)
        else:
            self.FRAME.write_ipc(path, compression="zstd" if kind == "compressed" else None)
        found = self.blocks(path, block_mib=1)
        assert pl.concat(found).equals(self.FRAME)
        assert len(found) >= 7
        for name in ("y.feather", "z.ipc"):
            path.rename(tmp_path / name)
            path = tmp_path / name
            assert pl.concat(self.blocks(path)).equals(self.FRAME)

    @pytest.mark.parametrize("ending", [".parquet", ".arrow"])
    def test_without_rows(self, tmp_path, ending):
        empty = self.FRAME.clear()
        path = tmp_path / f"x{ending}"
        (empty.write_parquet if ending == ".parquet" else empty.write_ipc)(path)
        (found,) = self.blocks(path)
        assert found.equals(empty)

    @pytest.mark.parametrize("ending", [".parquet", ".arrow"])
    def test_damage(self, tmp_path, ending):
        path = tmp_path / f"x{ending}"
        table = pa.table({"text": ["abc", "def"] * 50})
        if ending == ".parquet":
            pq.write_table(table, path, compression="none", use_dictionary=False)
        else:
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table)
        whole = path.read_bytes()
        not_text = whole.replace(b"abc", b"a\xffc")
        assert not_text != whole
        for damaged in (b"", whole[:9], whole[:-9], whole[: len(whole) // 2], not_text, b"x" * 99):
            path.write_bytes(damaged)
            with pytest.raises(SourceError, match=r"^demo: shard x: cannot read .*/x\."):
                self.blocks(path)

    def test_types_that_a_table_cannot_hold(self, tmp_path):
        union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
        with pa.ipc.new_file(tmp_path / "x.arrow", pa.schema([("u", union.type)])) as file:
            file.write_table(pa.table({"u": union}))
        twice = pa.table([[1], [2]], names=["a", "a"])
        with pa.ipc.new_file(tmp_path / "y.arrow", twice.schema) as file:
            file.write_table(twice)
        for key in "xy":
            with pytest.raises(SourceError, match=rf"^demo: shard {key}: cannot read"):
                source(tmp_path).read(key)


class TestListing:
    def test_a_thousand_shards_take_no_second(self, tmp_path):
        for i in range(1000):
            (tmp_path / f"{i:04d}.csv").write_text("a\n1\n")
        spent = []
        for _ in range(3):
            began = time.process_time()  # others may be busy
            assert len(source(tmp_path).shards()) == 1000
            spent.append(time.process_time() - began)
        assert min(spent) < 0.5

    def test_one_listing_serves_all_shards(self, tmp_path, monkeypatch):
        for i in range(5):
            (tmp_path / f"{i}.csv").write_text("a\n1\n")
        found = source(tmp_path)
        count = []
        original = type(found)._list
        monkeypatch.setattr(type(found), "_list", lambda s: count.append(1) or original(s))
        for key in "01234":
            found.read(key)
            found.content(key)
        assert len(count) == 1

    def test_names_that_are_no_text_or_too_long(self, tmp_path):
        odd = os.fsencode(str(tmp_path)) + b"/caf\xe9.csv"
        Path(os.fsdecode(odd)).write_text("a,b\n1,2,3\n")
        deep = tmp_path / ("d" * 200) / ("e" * 200)
        deep.mkdir(parents=True)
        (deep / "x.csv").write_text("a\n1\n")
        shards = source(tmp_path).shards()
        assert [s.key[:5] for s in shards] == ["caf-", "ddddd"]
        assert len(shards[1].key) == 150
        assert shards[0].origin.endswith("caf\\udce9.csv")
        with pytest.raises(SourceError) as error:
            source(tmp_path).read("caf-")
        str(error.value).encode()
        assert safe_key("x" * 200) != safe_key("x" * 201)

    def test_a_folder_that_may_not_be_read_is_not_skipped(self, tmp_path, monkeypatch):
        """The system's refusal is put in place of one, which root does not get."""
        (tmp_path / "shut").mkdir()
        original = os.scandir

        def scandir(path):
            if Path(path).name == "shut":
                raise PermissionError(13, "Permission denied", str(path))
            return original(path)

        monkeypatch.setattr(os, "scandir", scandir)
        with pytest.raises(SourceError, match=r"cannot look at .*shut"):
            source(tmp_path).shards()

    def test_tables_beside_arrays_are_no_shards(self, tmp_path):
        np.save(tmp_path / "x.npy", np.ones((2, 3)))
        pl.DataFrame({"id": ["a", "b"]}).write_csv(tmp_path / "x.csv")
        pl.DataFrame({"id": ["a", "b"]}).write_csv(tmp_path / "y.csv")
        for fields in ({}, {"format": "npy"}, {"pattern": "*.npy"}):
            found = source(tmp_path, **fields)
            assert [s.key for s in found.shards()] == (["x", "y"] if not fields else ["x"])
            assert found.read("x").columns == ["embedding", "id"]
        before, content = found.shards()[0], found.content("x")
        pl.DataFrame({"id": ["a", "c"]}).write_csv(tmp_path / "x.csv")
        after = source(tmp_path)
        assert after.shards()[0].fingerprint != before.fingerprint
        assert after.content("x") != content
        assert FORMATS["npy"].beside == import_module("curation.sources.npy").SIDECARS


class TestContent:
    def test_does_not_follow_name_or_time(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("a\n1\n")
        first, content = source(tmp_path).shards()[0], source(tmp_path).content("a")
        os.utime(path, ns=(0, 0))
        path = path.rename(tmp_path / "b.csv")
        renamed = source(tmp_path)
        assert renamed.shards()[0].fingerprint != first.fingerprint
        assert renamed.content("b") == content
        path = path.rename(tmp_path / "b.jsonl")  # the same bytes mean something else now
        assert source(tmp_path).content("b") != content

    def test_a_change_that_keeps_size_and_time_is_seen(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("a\n1\n")
        os.utime(path, ns=(10**18, 10**18))
        found = source(tmp_path)
        before, content = found.shards()[0].fingerprint, found.content("a")
        path.write_text("a\n2\n")
        os.utime(path, ns=(10**18, 10**18))
        found = source(tmp_path)
        assert found.shards()[0].fingerprint != before
        assert found.content("a") != content

    def test_of_folders(self, tmp_path):
        def picture(name: str, value: int) -> None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((2, 2), value, dtype=np.uint8)).save(tmp_path / name)

        picture("s1/cat/a.png", 1)
        picture("s2/cat/a.png", 1)
        picture("s3/dog/a.png", 1)
        picture("cat/a.png", 1)
        picture("dog/a.png", 1)
        found = source(tmp_path, format="images")
        before = {s.key: s.fingerprint for s in found.shards()}
        content = {key: found.content(key) for key in before}
        assert content["s1"] == content["s2"]
        assert len(set(content.values())) == 4  # the label is in the path, or is the folder's name
        assert found.read("s3")["label"].to_list() == ["dog"]
        picture("s1/cat/a.png", 2)
        found = source(tmp_path, format="images")
        after = {s.key: s.fingerprint for s in found.shards()}
        assert [key for key in before if before[key] != after[key]] == ["s1"]
        assert found.content("s1") != content["s1"]


class TestChanges:
    ROWS = "a\n" + "1\n" * 700_000

    def test_while_it_is_read(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text(self.ROWS)
        blocks = source(tmp_path, block_mib=1).blocks("x")
        next(blocks)
        path.write_text(self.ROWS + "2\n")
        with pytest.raises(ShardChanged, match=r"^demo: shard x: .*x\.csv changed while it was"):
            list(blocks)

    def test_an_error_it_caused_is_not_told(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text(self.ROWS)
        blocks = source(tmp_path, block_mib=1).blocks("x")
        next(blocks)
        path.write_text('a\n"never closed' + self.ROWS)
        with pytest.raises(ShardChanged):
            list(blocks)

    def test_between_listing_and_reading(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text("a\n1\n")
        found = source(tmp_path)
        found.shards()
        path.write_text("a\n2\n3\n")
        for call in (lambda: list(found.blocks("x")), lambda: found.content("x")):
            with pytest.raises(ShardChanged):
                call()
        assert found.read("x")["a"].to_list() == [2, 3]
        path.unlink()
        with pytest.raises(SourceError, match="shard x: not found"):
            found.read("x")


class TestRowReader:
    def test_numbers_and_repeated_ids_go_on(self):
        rows = reader(id="key")
        first = rows.take(pl.DataFrame({"text": ["a", "", "c"], "key": ["1", "2", "1"]}))
        second = rows.take(pl.DataFrame({"text": ["d", "e", "f"], "key": ["2", "1", "3"]}))
        assert first.quarantined.rows() == [
            (1, "text", "the input is empty", ""),
            (2, "key", "same id as row 0", "1"),
        ]
        assert second.quarantined.rows() == [(4, "key", "same id as row 0", "1")]
        assert second.accepted["row"].to_list() == [3, 5]
        assert (rows.rows_in, rows.accepted, rows.quarantined) == (6, 3, 3)
        third = rows.take(pl.DataFrame({"text": ["g"], "key": ["3"]}))
        assert third.quarantined.rows() == [(6, "key", "same id as row 5", "3")]

    def test_the_usual_length_is_that_of_the_first_block_with_one(self):
        def lists(values):
            return pl.DataFrame({"text": values}, schema={"text": pl.List(pl.Float64)})

        rows = reader()
        assert rows.take(lists([[], None])).accepted.is_empty()
        assert rows.take(lists([[1, 2], [3, 4], [5]])).accepted.height == 2
        third = rows.take(lists([[6], [7], [8, 9]]))
        assert third.accepted["text"].to_list() == [[8, 9]]
        assert third.quarantined["reason"][0].endswith("most of this shard's have 2")

    def test_memory_per_row_is_small(self):
        seen = Seen()
        for start in range(0, 200_000, 1000):
            rows = np.arange(start, start + 1000)
            assert (seen.add(hashes([str(i) for i in rows], are_hex=False), rows) < 0).all()
        held = sum(part.nbytes for level in seen._levels for part in level)
        assert held == 20 * 200_000
        assert len(seen._levels) < 12


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.lists(st.integers(0, 12), max_size=12), max_size=12),
    same_half=st.booleans(),
)
def test_ids_seen_before_are_those_a_dictionary_finds(blocks, same_half):
    seen, known, row = Seen(), {}, 0
    for block in blocks:
        numbers = np.arange(row, row + len(block))
        ids = np.array([[0 if same_half else x, x] for x in block], dtype=np.uint64).reshape(-1, 2)
        expected = []
        for number, x in zip(numbers.tolist(), block, strict=True):
            first = known.setdefault(x, number)
            expected.append(-1 if first == number else first)
        assert seen.add(ids, numbers).tolist() == expected
        row += len(block)


MEMORY = """
import sys
from pathlib import Path
from curation.config import Columns, Holdout, Source
from curation.sources import RowReader, open_source

def run(name):
    config = Source(folder=sys.argv[1], block_mib=4)
    source = open_source(config, dataset="d", root=Path("/"))
    columns = Columns(input="text", id="id", target="n")
    rows = RowReader(columns=columns, holdout=Holdout(shards=["none"]), dataset="d", shard="x")
    for block in source.blocks(name):
        rows.take(block)
    return rows.accepted

def peak():  # of this program alone: ru_maxrss begins with what its parent held
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024

run("little")
before = peak()
print(run("large"), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_large_shard_does_not_need_memory_of_its_size(tmp_path, ending):
    def write(name: str, rows: int) -> Path:
        path = tmp_path / f"{name}{ending}"
        text = "lorem ipsum " * 200
        with path.open("w") as file:
            file.write("id,text,n\n" if ending == ".csv" else "")
            for i in range(rows):
                row = f'{i},"{text}{i}",{i / 2}\n'
                row = row if ending == ".csv" else f'{{"id": {i}, "text": "{text}", "n": {i}}}\n'
                file.write(row)
        return path

    write("little", 2000)
    size = write("large", 80_000).stat().st_size / 2**20
    assert size > 180
    shown = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
    )
    rows, growth = shown.stdout.split()
    assert int(rows) == 80_000
    assert float(growth) < size / 3


class TestSettings:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"url": "s3://user:hunter2@bucket/x"}, "source.url: names a user"),
            ({"url": "s3://b/x?X-Amz-Signature=hunter2"}, "source.url: carries a signature"),
            ({"url": "az://c/x?sv=2&sig=hunter2"}, "source.url: carries a signature"),
            ({"url": "s3://b/x?versionId=hunter2"}, "without `\\?`"),
            ({"url": "http://hunter2"}, "expected s3://BUCKET"),
            ({"url": "s3://"}, "expected s3://BUCKET"),
            ({"url": "s3://b", "options": {"secret": "hunter2"}}, "options.secret: looks like"),
            ({"url": "s3://b", "options": {"key": "hunter2"}}, "options.key: looks like"),
            ({"url": "gs://b", "options": {"token": "hunter2"}}, "options.token: looks like"),
            ({"url": "az://b", "options": {"account_key": "hunter2"}}, "looks like a secret"),
            ({"url": "az://b", "options": {"sas_token": "hunter2"}}, "looks like a secret"),
            ({"url": "az://b", "options": {"connection_string": "hunter2"}}, "looks like a secret"),
            ({"url": "s3://b", "options": {"password": "hunter2"}}, "looks like a secret"),
            ({"url": "s3://b", "options": {"key": "$A hunter2"}}, "expected \\$NAME"),
            ({"url": "s3://b", "options": {"endpoint_url": "http://a:hunter2@h"}}, "names a user"),
            ({"folder": "hunter2", "options": {"anon": True}}, "`options` go with `url`"),
            ({"url": "s3://hunter2", "format": "idx"}, "`idx` is read from"),
            ({"url": "s3://hunter2", "folder": "x"}, "exactly one of"),
        ],
    )
    def test_secrets_are_refused_and_not_repeated(self, fields, message):
        whole = {
            "source": fields,
            "columns": {"input": "text", "label": "label"},
            "selection": {"budget": 3},
        }
        for call in (
            lambda: Source(**fields),
            lambda: CuratedDatasetConfig.model_validate(whole),
        ):
            with pytest.raises(ValidationError, match=message) as error:
                call()
            assert "hunter2" not in str(error.value)

    def test_what_is_no_secret(self):
        options = {
            "key": "$KEY",
            "secret": "${SECRET}",
            "anon": False,
            "endpoint_url": "http://h:1",
        }
        assert Source(url="s3://bucket/a/b", options=options).options == options
        assert Source(url="gs://b", options={"token": "anon", "project": "p"}).options
        json.dumps(Source(url="az://b/c").model_dump())

"""Folders of files: what is a shard, what it is called, and how it is read."""

from __future__ import annotations

import gzip
import math
import os
import re
from pathlib import Path

import polars as pl
import pytest

from curation.config import Source
from curation.sources import SourceError, open_source

KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._=-]*$")


def source(folder, *, root=Path("/"), **fields):
    return open_source(Source(folder=str(folder), **fields), dataset="demo", root=root)


def keys(folder, **fields) -> list[str]:
    return [s.key for s in source(folder, **fields).shards()]


def write(path: Path, text: str | bytes = "a\n1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_known_format_reads_the_same_rows(tmp_path):
    frame = pl.DataFrame({"text": ["one", "zwölf, drei", None], "n": [1, 2, 3]})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "b.csv")
    frame.write_ndjson(tmp_path / "c.jsonl")
    frame.write_ndjson(tmp_path / "d.ndjson")
    for name in ("b.csv", "c.jsonl", "d.ndjson"):
        write(tmp_path / f"z{name}.gz", gzip.compress((tmp_path / name).read_bytes()))
    write(tmp_path / "README.md", "not data")
    folder = source(tmp_path)
    shards = folder.shards()
    assert [s.key for s in shards] == ["a", "b", "c", "d", "zb", "zc", "zd"]
    for shard in shards:
        assert folder.read(shard.key).equals(frame), shard


def test_keys_come_from_relative_paths(tmp_path):
    for name in ("day=2024-01-02/part 0.csv", "_first.csv", "ü/x.y.csv", "日本.csv"):
        write(tmp_path / name)
    found = keys(tmp_path)
    assert all(KEY.match(key) for key in found)
    assert {"day=2024-01-02-part-0", "first", "x.y"} < set(found)
    assert found == sorted(found)
    assert len(found) == 4


def test_a_key_two_files_have_names_both(tmp_path):
    write(tmp_path / "a b.csv")
    write(tmp_path / "a-b.jsonl", '{"a": 1}\n')
    with pytest.raises(SourceError, match=r"shard a-b: .*a b\.csv and .*a-b\.jsonl"):
        source(tmp_path).shards()


def test_unfinished_and_hidden_files_have_not_arrived(tmp_path):
    for name in (".a.csv", "b.csv.tmp", "c.csv.part", ".cache/d.csv", "e.csv"):
        write(tmp_path / name)
    assert keys(tmp_path) == ["e"]


def test_pattern_format_and_include(tmp_path):
    for name in ("2023/a.csv", "2024/a.csv", "2024/b.csv", "2024/c.parquet"):
        write(tmp_path / name)
    assert keys(tmp_path, pattern="2024/*.csv") == ["2024-a", "2024-b"]
    assert keys(tmp_path, format="csv") == ["2023-a", "2024-a", "2024-b"]
    assert keys(tmp_path, include=["*-a", "2024-c"]) == ["2023-a", "2024-a", "2024-c"]


@pytest.mark.parametrize("pattern", ["/etc/*", ""])
def test_a_pattern_that_is_no_glob(tmp_path, pattern):
    with pytest.raises(SourceError, match=r"source\.pattern"):
        source(tmp_path, pattern=pattern).shards()


def test_links_inside_the_folder_are_read_and_links_out_of_it_refused(tmp_path):
    folder, outside = tmp_path / "in", write(tmp_path / "secret.csv")
    write(folder / "a.csv")
    (folder / "b.csv").symlink_to(folder / "a.csv")
    (folder / "gone.csv").symlink_to(folder / "nothing.csv")
    assert keys(folder) == ["a", "b"]
    (folder / "c.csv").symlink_to(outside)
    for call in (lambda: source(folder).shards(), lambda: source(folder).read("c")):
        with pytest.raises(SourceError, match=r"c\.csv leads to .*secret\.csv, outside"):
            call()


def test_a_linked_folder_and_dots_do_not_lead_out(tmp_path):
    write(tmp_path / "other/x.csv")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "other")
    for pattern in ("link/*.csv", "../other/*.csv"):
        with pytest.raises(SourceError, match="outside the folder"):
            source(tmp_path / "in", pattern=pattern).shards()


def test_the_folder_itself_may_be_a_link(tmp_path):
    write(tmp_path / "real/x.csv")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert source(tmp_path / "link").read("x")["a"].to_list() == [1]


def test_where_the_folder_is(tmp_path, monkeypatch):
    write(tmp_path / "rows/x.csv")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ROWS", str(tmp_path / "rows"))
    monkeypatch.delenv("NOT_SET", raising=False)
    assert keys("~/rows") == keys("$ROWS") == keys("${ROWS}") == ["x"]
    assert keys("rows", root=tmp_path) == keys("./rows/../rows", root=tmp_path) == ["x"]
    with pytest.raises(SourceError, match=r"\$NOT_SET is not set"):
        source("$NOT_SET/rows").shards()


def test_opening_needs_no_data_and_a_missing_folder_is_named(tmp_path):
    missing = source("nowhere", root=tmp_path)
    with pytest.raises(SourceError, match=re.escape(f"demo: there is no folder {tmp_path}/now")):
        missing.shards()
    with pytest.raises(SourceError, match="there is no folder"):
        missing.read("x")


def test_an_empty_folder_waits_for_its_first_shard(tmp_path):
    folder = source(tmp_path)
    assert folder.shards() == []
    write(tmp_path / "x.csv")
    assert [s.key for s in folder.shards()] == ["x"]


def test_an_unknown_shard_names_the_known(tmp_path):
    write(tmp_path / "x.csv")
    with pytest.raises(SourceError, match=r"demo: shard y: .*Known shards: x\."):
        source(tmp_path).read("y")


def test_fields_that_would_do_nothing_are_refused(tmp_path):
    with pytest.raises(SourceError, match="shard_by, deduplicate cut the file of a package"):
        source(tmp_path, shard_by="g", deduplicate=True).shards()


def test_fingerprints_follow_size_time_and_name(tmp_path):
    path = write(tmp_path / "x.csv")
    first = source(tmp_path).shards()[0]
    assert source(tmp_path).shards()[0] == first
    assert re.fullmatch("[0-9a-f]{64}", first.fingerprint)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    second = source(tmp_path).shards()[0]
    write(path, "a\n22\n")
    os.utime(path, ns=(0, 0))
    third = source(tmp_path).shards()[0]
    path = path.rename(tmp_path / "y.csv")
    os.utime(path, ns=(0, 0))
    fourth = source(tmp_path).shards()[0]
    assert len({s.fingerprint for s in (first, second, third, fourth)}) == 4


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a\n1\n2\n", [1, 2]),
        ("a\n" + "1\n" * 20_000 + "x\n", ["1"] * 20_000 + ["x"]),
        ("a\n1\n2.5\n", [1.0, 2.5]),
        ("a\n007\n7\n", ["007", "7"]),
        ("a\n12345678901234567890\n1\n", ["12345678901234567890", "1"]),
        ("a\ntrue\nfalse\n", [True, False]),
        ('a,b\n,1\n"",2\n', [None, ""]),
        ("\ufeffa\nx\n", ["x"]),
    ],
)
def test_csv_types_hold_for_every_row(tmp_path, text, values):
    write(tmp_path / "x.csv", text)
    assert source(tmp_path).read("x")["a"].to_list() == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a": 1}\n' * 20_000 + '{"a": "x"}\n', ["1"] * 20_000 + ["x"]),
        ('{"a": 1}\n\n{"b": 2}\n', [1, None]),
        ('{"a": 1}\n{"a": true}\n', ["1", "true"]),
        ('{"a": [1, 2]}\n{"a": [0.5]}\n', [[1.0, 2.0], [0.5]]),
        ('{"a": [1, 2], "b": 1}\n{"a": [0.5], "b": true}\n', [[1.0, 2.0], [0.5]]),
        ('{"a": 1, "b": 1}\n{"a": 0.5, "b": true}\n', [1.0, 0.5]),
        ('{"a": 1}\n{"a": NaN}\n{"a": null}\n', [1.0, pytest.approx(math.nan, nan_ok=True), None]),
        ('{"a": {"b": 1}}\n{"a": [true]}\n', ['{"b": 1}', "[true]"]),
        ('\ufeff{"a": 1}\n', [1]),
    ],
)
def test_jsonl_types_hold_for_every_row(tmp_path, text, values):
    write(tmp_path / "x.jsonl", text)
    assert source(tmp_path).read("x")["a"].to_list() == values


def test_a_jsonl_field_that_appears_late_is_not_lost(tmp_path):
    write(tmp_path / "x.jsonl", '{"a": 1}\n' * 20_000 + '{"a": 1, "b": 2}\n')
    assert source(tmp_path).read("x")["b"].drop_nulls().to_list() == [2]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.jsonl", b'hello\n{"a": 1\n', "none of its 2 rows .*: line 1 is not JSON"),
        ("x.jsonl", b"\n[1]\n", "line 2 is not an object: expected an object, got an array"),
        ("x.jsonl", b"", "empty"),
        ("x.csv", b"", "empty"),
        ("x.csv", "a\né\n".encode("latin-1"), "utf-8"),
        ("x.csv", b"a,b\n1,2,3\n", "more fields"),
        ("x.csv.gz", b"a\n1\n", "gzip"),
        ("x.csv.gz", gzip.compress(b"a\n1\n", mtime=0)[:-9], "ended"),
        ("x.parquet", b"PAR1 but no more", "parquet"),
    ],
)
def test_a_damaged_file_names_data_set_shard_file_and_fault(tmp_path, name, data, message):
    path = write(tmp_path / name, data)
    with pytest.raises(SourceError, match=message) as error:
        source(tmp_path).read("x")
    assert str(error.value).startswith("demo: shard x: ")
    assert str(path) in str(error.value)


def test_other_encodings_also_gzipped(tmp_path):
    data = "a\né\n".encode("latin-1")
    write(tmp_path / "x.csv", data)
    write(tmp_path / "y.csv.gz", gzip.compress(data))
    folder = source(tmp_path, encoding="latin-1")
    assert [folder.read(key)["a"].to_list() for key in ("x", "y")] == [["é"], ["é"]]


def test_glob_signs_in_a_name_mean_themselves(tmp_path):
    for name, value in (("x[12]", 0), ("x1", 1)):
        pl.DataFrame({"a": [value]}).write_parquet(tmp_path / f"{name}.parquet")
    folder = source(tmp_path)
    assert [folder.read(key)["a"].to_list() for key in ("x-12-", "x1")] == [[0], [1]]


def test_folders_named_like_columns_add_none(tmp_path):
    (tmp_path / "day=1").mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "day=1/x.parquet")
    assert source(tmp_path).read("day=1-x").columns == ["a"]


def test_lines(tmp_path):
    write(tmp_path / "x.txt", "1 one\r\nodd\n2 two\x85too\n")
    frame = source(tmp_path, format="lines", line_pattern=r"(?P<n>\d) (?P<t>.+)").read("x")
    assert frame.to_dict(as_series=False) == {
        "n": ["1", None, "2"],
        "t": ["one", None, "two\x85too"],
        "_unparsed": [None, "the line does not match line_pattern", None],
        "_unparsed_value": [None, "odd", None],
    }

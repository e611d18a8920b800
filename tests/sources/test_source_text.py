"""Text files: blocks, types over the whole file, and hostile lines that cost themselves only."""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from curation.config import Columns, Holdout, Source
from curation.sources import RowReader, SourceError, csvs, jsonl, text
from curation.sources.formats import open_blocks

sys.path.append(str(Path(__file__).parents[1] / "reporting"))
from hostile import CORPUS

UNICODE = [t for t in CORPUS if not any("\ud800" <= c <= "\udfff" for c in t)]


@pytest.fixture
def read(tmp_path):
    """Read a file's content; the blocks must have one schema."""

    def call(name: str, data: bytes | str, **fields) -> pl.DataFrame:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        config = Source(folder="/x", **fields)
        found = list(open_blocks(path, config=config, where="demo: shard x"))
        assert len({str(block.schema) for block in found}) == 1
        call.blocks = len(found)
        return pl.concat(found)

    return call


@pytest.fixture
def small(monkeypatch):
    """Blocks of a few bytes, so that every boundary is met."""

    def set_size(size: int) -> None:
        for module in (csvs, jsonl):
            monkeypatch.setattr(module, "chunk_size", lambda config: size)

    return set_size


def faults(frame: pl.DataFrame) -> list[tuple]:
    """Number, reason and text of the rows that could not be parsed; they are null otherwise."""
    rest = frame.select(pl.exclude("_unparsed", "_unparsed_value"))
    wrong = frame["_unparsed"].is_not_null()
    assert all(value is None for row in rest.filter(wrong).rows() for value in row)
    told = frame.select("_unparsed", "_unparsed_value").with_row_index().filter(wrong)
    return told.rows()


class TestJsonLines:
    def test_wrong_lines_are_rows_with_a_reason(self, read):
        lines = [
            b'{"a": "x"}',
            b"",
            b"hello " * 99,
            b"[1]",
            b'{"a": "caf\xe9"}',
            b'{"a": 1} {"a": 2}',
            b'{"a": "\\ud83d"}',
            b'{"a": ' + b"[" * 100_000,
            b'{"a": ' + b"9" * 5000 + b"}",
            b"\0\0\0",
            b'{"a": "\\ud83d\\ude00\\u0000 \\u00e9"}\r',
        ]
        frame = read("x.jsonl", b"\n".join(lines))
        assert frame["a"].to_list() == ["x", *[None] * 8, "😀\0 é"]
        found = faults(frame)
        assert [row for row, *_ in found] == list(range(1, 9))
        beginnings = [
            "line 3 is not JSON: Expecting value",
            "line 4 is not an object: expected an object, got an array",
            "line 5 is not UTF-8 (byte 11)",
            "line 6 is not JSON: Extra data",
            "line 7 holds half of a surrogate pair",
            "line 8 is nested too deeply",
            "line 9 is not JSON: Exceeds the limit",
            "line 10 is not JSON",
        ]
        for (_, reason, _), expected in zip(found, beginnings, strict=True):
            assert reason.startswith(expected)
        assert found[0][2] == ("hello " * 99)[:200]
        assert found[2][2] == '{"a": "caf\\xe9"}'

    def test_lines_that_are_right_together_only(self, read):
        lines = ['{"a": [{"b": 1}', '{"b": 2}]}', '{"a": 1},0,{"a": 2}', '{"a": [3]}']
        frame = read("x.jsonl", "\n".join(lines))
        assert [row for row, *_ in faults(frame)] == [0, 1, 2]
        assert frame["a"].to_list()[3] == [3]

    @pytest.mark.parametrize("size", [1, 7, 20, 10**6])
    @pytest.mark.parametrize(
        ("values", "expected", "dtype"),
        [
            ([1, 2.5, None], [1.0, 2.5, None], pl.Float64),
            ([[1], [0.5], []], [[1.0], [0.5], []], pl.List(pl.Float64)),
            ([1, "x", 1.5, True], ["1", "x", "1.5", "true"], pl.String),
            ([{"b": 1}, {"c": "x"}], [{"b": 1, "c": None}, {"b": None, "c": "x"}], None),
            ([{"b": 1}, {"b": "x"}], ['{"b": 1}', '{"b": "x"}'], pl.String),
            ([{}, {}], ["{}", "{}"], pl.String),
            ([1, 2**63], ["1", str(2**63)], pl.String),
            ([2**53 + 1, 2**63 - 1], [2**53 + 1, 2**63 - 1], pl.Int64),
            ([0.5, 2**70], ["0.5", str(2**70)], pl.String),
            ([[[1]], [[0.5]]], [[[1.0]], [[0.5]]], pl.List(pl.List(pl.Float64))),
            ([[1], ["x"]], ["[1]", '["x"]'], pl.String),
            ([None, None], [None, None], pl.Null),
            ([None, True], [None, True], pl.Boolean),
            (["2020-01-01", "x"], ["2020-01-01", "x"], pl.String),
        ],
    )
    def test_types_hold_for_the_whole_file(self, read, small, size, values, expected, dtype):
        small(size)
        frame = read("x.jsonl", "".join(json.dumps({"a": v}) + "\n" for v in values))
        assert frame["a"].to_list() == expected
        assert dtype is None or frame.schema["a"] == dtype
        assert size > 1 or read.blocks == len(values)

    def test_fields_used_as_keys_and_nested_without_end(self, read):
        keys = "".join(json.dumps({"a": {f"k{i}": 1}}) + "\n" for i in range(400))
        assert read("x.jsonl", keys).schema == {"a": pl.String}
        deep = json.dumps({"a": json.loads("[" * 100 + "]" * 100)})
        assert read("x.jsonl", deep).schema == {"a": pl.String}

    def test_many_columns(self, read, monkeypatch):
        wide = json.dumps({f"c{i}": i for i in range(10_000)})
        frame = read("x.jsonl", f"{wide}\n{wide}\n")
        assert frame.shape == (2, 10_000)
        other = "".join(json.dumps({f"f{i}": i}) + "\n" for i in range(20_001))
        with pytest.raises(SourceError, match=r"^demo: shard x: .*more than 20000 columns"):
            read("x.jsonl", other)
        monkeypatch.setattr(jsonl, "_MOST_CELLS", 10_000)
        sparse = "".join(json.dumps({f"f{i % 100}": i}) + "\n" for i in range(1000)) + "oops"
        frame = read("x.jsonl", sparse)
        assert read.blocks == 11
        assert frame["f7"].drop_nulls().to_list() == list(range(7, 1000, 100))
        assert [row for row, *_ in faults(frame)] == [1000]

    def test_a_last_line_without_end_is_no_block_of_its_own(self, read):
        assert read("x.jsonl", '{"a": 1}\n{"a": 2}')["a"].to_list() == [1, 2]
        assert read.blocks == 1

    def test_a_name_of_ours(self, read):
        with pytest.raises(SourceError, match="a column '_unparsed', a name that is used here"):
            read("x.jsonl", '{"_unparsed": 1}')

    def test_hostile_texts_come_through_as_they_are(self, read):
        lines = [json.dumps({"t": t}, ensure_ascii=i % 2 == 0) for i, t in enumerate(UNICODE)]
        assert read("x.jsonl", "\n".join(lines))["t"].to_list() == UNICODE


class TestCsv:
    def test_wrong_records_are_rows_with_a_reason(self, read):
        data = b'a,b\n1,"x\ny"\n1,2,3\r\n\n4\n\xff,\xff\n5" wide,6\n\xff\n7,"say ""hi"""'
        frame = read("x.csv", data)
        assert frame["a"].to_list() == ["1", None, None, None, '5" wide', None, "7"]
        assert frame["b"].to_list() == ["x\ny", None, None, None, "6", None, 'say "hi"']
        more, fewer = "more fields than the header: 3 instead of 2", "the row has fewer fields"
        assert [(row, value) for row, _, value in faults(frame)] == [
            (1, "1,2,3"),
            (2, "4"),
            (3, "\ufffd"),
            (5, "\ufffd"),
        ]
        reasons = [reason for _, reason, _ in faults(frame)]
        assert more in reasons[0]
        assert reasons[1].startswith(fewer)
        assert reasons[2] == "the row holds bytes that are not utf-8"
        assert reasons[3].startswith(fewer)

    @pytest.mark.parametrize("seed", range(8))
    def test_every_cut_gives_the_same_rows(self, read, small, seed):
        draw = random.Random(seed)
        pieces = ["x", "7", "", '"q"', '"a ""b"" c"', '"two\nlines"', '5" x', '"a"b', '"c,d"', "é"]
        lines = [",".join(draw.choices(pieces, k=draw.choice([3, 3, 3, 2, 4]))) for _ in range(40)]
        data = ("a,b,c\n1,2,3\n" + draw.choice(["\n", "\r\n"]).join(lines)).encode()
        data = data.replace("é".encode(), b"\xff", 2)
        small(10**6)
        whole = read("x.csv", data)
        assert read.blocks == 1
        assert whole.height >= 40
        for size in (1, 3, 17, 64):
            small(size)
            assert read("x.csv", data).equals(whole)
            assert size > 17 or read.blocks > 10

    def test_types_hold_over_all_blocks(self, read, small):
        small(8)
        data = "a,b,c,d,e\n" + "1,1,true,007,\n" * 20 + "2,0.5,false,7,\n" * 20 + "3,1,x,7,\n"
        frame = read("x.csv", data)
        kinds = [pl.Int64, pl.Float64, pl.String, pl.String, pl.String]
        assert list(frame.schema.values()) == kinds
        assert frame.row(0) == (1, 1.0, "true", "007", None)
        assert read.blocks > 20

    @pytest.mark.parametrize("cut", [0, 10**6])
    def test_a_quote_that_is_never_closed(self, read, small, cut):
        small(cut or 16)
        for tail in ('"open,4\n5,6\n', '5,"open\n6,7\n8,9'):
            with pytest.raises(SourceError, match="a quote is opened and never closed"):
                read("x.csv", "a,b\n1,2\n" + tail)

    def test_a_field_longer_than_a_block(self, read, monkeypatch):
        long = '"' + "z,\n" * 2_000_000 + '"'
        frame = read("x.csv", f"a,b\n1,{long}\n2,x\n", block_mib=1)
        assert frame["b"].str.len_chars().to_list() == [6_000_000, 1]
        monkeypatch.setattr(csvs, "MOST_BYTES", 2**21)
        with pytest.raises(SourceError, match="a record longer than 2 MiB"):
            read("x.csv", f"a,b\n1,{long}\n2,x\n", block_mib=1)

    def test_headers(self, read):
        assert read("x.csv", "a,b").schema == {"a": pl.String, "b": pl.String}
        assert read("x.csv", "\r\n\na,b\r\n").height == 0
        assert read("x.csv", "a\r1\r2\r")["a"].to_list() == [1, 2]
        assert read("x.csv", '"a\n""x""",b\n1,2\n').columns == ['a\n"x"', "b"]
        assert read("x.csv", "a,a,,\n1,2,3,4\n").columns == [
            *("a", "a_duplicated_0", "column_3", "column_4"),
        ]
        same = "c," * 10_000
        assert read("x.csv", f"{same}\n{same}\n").columns[9999] == "c_duplicated_9998"
        wide = ",".join(f"c{i}" for i in range(10_000))
        assert read("x.csv", f"{wide}\n{wide}\n").shape == (1, 10_000)
        for data, reason in (
            (b"a,\0b\n1,2\n", "NUL bytes"),
            (b"caf\xe9\n1\n", "its header holds bytes that are not utf-8"),
            (b'"a,b\n1,2\n', "its header has no end"),
            (b"\n\n", "empty"),
            (b"a,_unparsed\n1,2\n", "a name that is used here"),
            (wide.replace("c", "c,c,").encode() + b"\n", "more than 20000 columns"),
        ):
            with pytest.raises(SourceError, match=rf"^demo: shard x: cannot read .*{reason}"):
                read("x.csv", data)

    def test_one_column_has_nulls_where_lines_are_blank(self, read):
        assert read("x.csv", "a\nx\n\ny\n")["a"].to_list() == ["x", None, "y"]

    def test_hostile_texts_come_through_as_they_are(self, read):
        quoted = ['"' + t.replace('"', '""') + '"' for t in UNICODE]
        data = "t,n\n" + "".join(f"{q},1\n" for q in quoted)
        assert read("x.csv", data)["t"].to_list() == UNICODE


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig"])
    def test_csv(self, read, small, encoding):
        small(5)
        frame = read("x.csv", "a,b\né,1\n€,2\n".encode(encoding), encoding=encoding)
        assert frame.rows() == [("é", 1), ("€", 2)]

    def test_wrong_bytes_cost_their_row(self, read):
        data = "a,b\né,1\n".encode("cp1252") + b"\x81,2\n"
        frame = read("x.csv", data, encoding="cp1252")
        assert frame["a"].to_list() == ["é", None]
        assert faults(frame)[0][1] == "the row holds bytes that are not cp1252"
        lines = b"1 a\n2 \x81\n3 c"
        options = {"format": "lines", "line_pattern": r"(?P<n>\d) (?P<t>.+)"}
        frame = read("x.txt", lines, encoding="cp1252", **options)
        assert frame["t"].to_list() == ["a", None, "c"]
        assert "bytes that are no text" in faults(frame)[0][1]

    @pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
    def test_utf_16_that_is_not_expected(self, read, name):
        with pytest.raises(SourceError, match="byte order mark of UTF-16"):
            read(name, '{"a": 1}\n'.encode("utf-16"))

    @pytest.mark.parametrize("encoding", ["no-such", "hex", "rot13"])
    def test_that_there_are_not(self, read, encoding):
        with pytest.raises(SourceError, match=r"^demo: shard x: .*encoding"):
            read("x.csv", "a\n1\n", encoding=encoding)


class TestPacked:
    DATA = b'{"a": 1}\n{"a": 2}\n'

    def test_members_one_after_the_other(self, read):
        twice = gzip.compress(self.DATA) * 2
        assert read("x.jsonl.gz", twice)["a"].to_list() == [1, 2, 1, 2]
        frames = pa.compress(self.DATA, codec="zstd", asbytes=True) * 2
        assert read("x.jsonl.zst", frames)["a"].to_list() == [1, 2, 1, 2]

    @pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst", "x.csv.gz", "x.csv.zst"])
    def test_damage(self, read, name):
        rng = random.Random(0)
        data = "".join(f'{{"a": {rng.random()}}}\n' for _ in range(20_000)).encode()
        packed = gzip.compress(data) if name.endswith("gz") else pa.compress(data, codec="zstd")
        packed = bytes(packed)
        middle = bytes([packed[len(packed) // 2] ^ 0xFF])
        damaged = [
            packed[:-5],
            packed[: len(packed) // 2],
            packed[: len(packed) // 2] + middle + packed[len(packed) // 2 + 1 :],
            data,
            packed + b"garbage",
        ]
        if name.endswith("zst"):
            del damaged[2]  # packed like this, there is no checksum to tell
        for wrong in damaged:
            with pytest.raises(SourceError, match=r"^demo: shard x: cannot read .*x\."):
                read(name, wrong)

    def test_a_line_that_unpacks_to_too_much(self, read, monkeypatch):
        monkeypatch.setattr(text, "MOST_BYTES", 2**22)
        bomb = gzip.compress(b'{"a": "' + b" " * 2**25 + b'"}\n' + self.DATA)
        with pytest.raises(SourceError, match="a line longer than 4 MiB"):
            read("x.jsonl.gz", bomb)
        monkeypatch.setattr(csvs, "MOST_BYTES", 2**22)
        with pytest.raises(SourceError, match="a record longer than 4 MiB"):
            read("x.csv.gz", gzip.compress(b"a\n" + b" " * 2**25), block_mib=1)


@pytest.mark.parametrize(
    ("name", "line"),
    [("x.jsonl", '{{"id": {i}, "text": "{t}", "n": {n}}}\n'), ("x.csv", '{i},"{t}",{n}\n')],
)
def test_the_size_of_blocks_changes_nothing(tmp_path, name, line):
    """The same ids, rows and quarantine, whatever is read at a time."""
    path = tmp_path / name
    with path.open("wb") as file:
        if name == "x.csv":
            file.write(b"id,text,n\n")
        for i in range(30_000):
            if i % 1000 == 3:
                file.write(b"\xff broken\n" if i % 2 else b"1,2,3,4\n")
                continue
            k = i % 29_000
            t = f"row {k} " * 12 if i % 777 else ""
            n = k if k < 25_000 else k / 2
            file.write(line.format(i=i % 29_500, t=t, n=n).encode())

    def run(block_mib: int, id: str | None) -> tuple:
        config = Source(folder="/x", block_mib=block_mib)
        columns = Columns(input="text", id=id, target="n")
        holdout = Holdout(fraction=0.2)
        reader = RowReader(columns=columns, holdout=holdout, dataset="demo", shard="x")
        blocks = list(open_blocks(path, config=config, where="demo: shard x"))
        rows = [reader.take(block) for block in blocks]
        accepted = pl.concat(r.accepted for r in rows)
        quarantined = pl.concat(r.quarantined for r in rows)
        assert reader.rows_in == 30_000
        assert (reader.accepted, reader.quarantined) == (len(accepted), len(quarantined))
        assert reader.accepted + reader.quarantined == 30_000
        return len(blocks), accepted, quarantined

    for id in ("id", None):
        many, *small = run(1, id)
        one, *large = run(64, id)
        assert one == 1 < many
        assert all(a.equals(b) for a, b in zip(small, large, strict=True))
        reasons = "\n".join(small[1]["reason"].unique())
        for part in ("same id as row", "the input is empty"):
            assert part in reasons
        assert (small[1]["field"] == "_unparsed").sum() == 30

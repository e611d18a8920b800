"""Cases of tables: types, columns and ids that differ between shards, files that are damaged."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from corpus_case import Expected, Record, accepted, aside, case, failed, jsonl, records

sys.path.append(str(Path(__file__).parents[1] / "reporting"))
from hostile import CORPUS

WORLD = "texts"


def _parquet(folder: Path, name: str, rows: list[Record], **types: pl.DataType) -> None:
    pl.DataFrame(rows, schema_overrides=types).write_parquet(folder / f"{name}.parquet")


@case(WORLD, "input that is a struct")
def struct_input(folder: Path) -> Expected:
    rows = [{**row, "text": {"a": 1, "b": "x"}} for row in records("struct-input")]
    _parquet(folder, "struct-input", rows)
    return failed("columns.input 'text' is Struct")


@case(WORLD, "input that is a list of structs")
def nested_input(folder: Path) -> Expected:
    rows = [{**row, "text": [{"a": 1}]} for row in records("nested-input")]
    (folder / "nested-input.jsonl").write_text(jsonl(rows))
    return failed("columns.input 'text' is List")


@case(WORLD, "label that is a list")
def list_label(folder: Path) -> Expected:
    rows = [{**row, "label": ["a", "b"]} for row in records("list-label")]
    _parquet(folder, "list-label", rows)
    return failed("columns.label 'label' is List")


@case(WORLD, "inputs that are numbers in one shard")
def number_input(folder: Path) -> Expected:
    rows = [{**row, "text": i} for i, row in enumerate(records("number-input"))]
    _parquet(folder, "number-input", rows)
    return failed("columns.input 'text' is Int64")


@case(WORLD, "lists of numbers where other shards have texts")
def vectors_for_text(folder: Path) -> Expected:
    rows = [{**row, "text": [1.0, 2.0]} for row in records("vectors-for-text")]
    _parquet(folder, "vectors-for-text", rows)
    return failed("takes strings, not List")


@case(WORLD, "the same id twice in a shard")
def ids_twice(folder: Path) -> Expected:
    rows = records("ids-twice", 5)
    rows[3]["key"] = rows[1]["key"]
    _parquet(folder, "ids-twice", rows)
    return aside(rows, {3: ("key", "same id as row 1")})


@case(WORLD, "two ids of another shard (it comes first)")
def ids_elsewhere(folder: Path) -> Expected:
    rows = records("ids-elsewhere")
    rows[0]["key"], rows[1]["key"] = "good-a-0", "good-a-1"
    _parquet(folder, "ids-elsewhere", rows)
    return accepted(rows)


@case(WORLD, "all ids of another shard")
def ids_all_elsewhere(folder: Path) -> Expected:
    rows = records("good-b")
    _parquet(folder, "ids-all-elsewhere", rows)
    return accepted(rows)


@case(WORLD, "ids that are in the holdout too")
def ids_held_out(folder: Path) -> Expected:
    rows = records("held-out")
    _parquet(folder, "ids-held-out", rows)
    return accepted(rows)


@case(WORLD, "labels that are numbers in one shard")
def int_label(folder: Path) -> Expected:
    rows = [{**row, "label": i % 2} for i, row in enumerate(records("int-label"))]
    _parquet(folder, "int-label", rows)
    return accepted(rows)


@case(WORLD, "ids that are numbers in one shard")
def int_id(folder: Path) -> Expected:
    rows = [{**row, "key": 7000 + i} for i, row in enumerate(records("int-id"))]
    _parquet(folder, "int-id", rows)
    return accepted(rows)


@case(WORLD, "groups that are numbers, and nulls, in one shard")
def int_group(folder: Path) -> Expected:
    rows = [{**row, "team": i if i else None} for i, row in enumerate(records("int-group"))]
    _parquet(folder, "int-group", rows)
    return accepted(rows)


@case(WORLD, "groups that are lists in one shard")
def list_group(folder: Path) -> Expected:
    rows = [{**row, "team": ["a", "b"]} for row in records("list-group")]
    _parquet(folder, "list-group", rows)
    return failed("columns.group 'team' is List")


@case(WORLD, "labels and ids that are dates, decimals, categories, booleans")
def odd_types(folder: Path) -> Expected:
    rows = records("odd-types")
    for i, row in enumerate(rows):
        row |= {"key": dt.date(2024, 1, 1 + i), "label": i % 2 == 0}
    frame = pl.DataFrame(rows).with_columns(pl.col("text").cast(pl.Categorical))
    frame.write_parquet(folder / "odd-types.parquet")
    told = [{**row, "label": str(row["label"]).lower()} for row in rows]
    return accepted(told)


@case(WORLD, "ids that are bytes, some of them no text")
def binary_id(folder: Path) -> Expected:
    rows = [{**row, "key": bytes([200 + i])} for i, row in enumerate(records("binary-id"))]
    _parquet(folder, "binary-id", rows)
    return failed("columns.id 'key' is Binary")


def _extra(name: str, value: object) -> None:
    shard = f"more-{name.replace(' ', '-')}"

    @case(WORLD, f"a further column that is {name} here and something else elsewhere", shard)
    def make(folder: Path) -> Expected:
        rows = [{**row, "more": value} for row in records(shard, 8)]
        _parquet(folder, shard, rows)
        return accepted(rows, shard)


for _name, _value in (
    ("a text", "x"), ("a number", 3), ("a list", [1, 2]), ("a list of texts", ["a", "é"]),
    ("a struct", {"a": [1], "b": None}), ("bytes", b"\xff\x00"),
    ("a date", dt.date(2024, 2, 29)), ("a null", None), ("a boolean", True),
):  # fmt: skip
    _extra(_name, _value)


@case(WORLD, "further columns with names that are used inside: weight, _place, _shard, class")
def own_names(folder: Path) -> Expected:
    names = ("weight", "row", "shard", "split", "id", "_place", "_shard", "_position", "_first",
             "class")  # fmt: skip
    rows = [{**row, **dict.fromkeys(names, f"theirs {i}")} for i, row in enumerate(records("own"))]
    _parquet(folder, "own-names", rows)
    return accepted(rows)


@case(WORLD, "a column with a name that marks rows which could not be parsed")
def unparsed_name(folder: Path) -> Expected:
    rows = [{**row, "_unparsed": "no"} for row in records("unparsed-name")]
    _parquet(folder, "unparsed-name", rows)
    return failed("'_unparsed'")


@case(WORLD, "the label's column is missing")
def no_label(folder: Path) -> Expected:
    rows = [{k: v for k, v in row.items() if k != "label"} for row in records("no-label")]
    _parquet(folder, "no-label", rows)
    return failed("missing columns.label 'label'")


@case(WORLD, "the input's column has another name")
def renamed(folder: Path) -> Expected:
    pl.DataFrame(records("renamed")).rename({"text": "Text"}).write_parquet(
        folder / "renamed.parquet"
    )
    return failed("missing columns.input 'text'.*Text")


@case(WORLD, "columns in another order, and one more")
def other_order(folder: Path) -> Expected:
    rows = [{"new": 1, **dict(reversed(row.items()))} for row in records("other-order")]
    _parquet(folder, "other-order", rows)
    return accepted(rows)


@case(WORLD, "Parquet with the same name for two columns")
def parquet_names(folder: Path) -> Expected:
    table = pl.DataFrame(records("parquet-names")).to_arrow()
    table = table.append_column("text", table.column("label"))
    pq.write_table(table, folder / "parquet-names.parquet")
    return failed("'?text'?")


@case(WORLD, "Parquet of 10,000 columns")
def parquet_wide(folder: Path) -> Expected:
    rows = records("parquet-wide", 2)
    more = dict.fromkeys([f"c{i}" for i in range(10_000)], 1)
    _parquet(folder, "parquet-wide", [{**row, **more} for row in rows])
    return accepted(rows)


@case(WORLD, "Parquet of no rows")
def parquet_no_rows(folder: Path) -> Expected:
    pl.DataFrame(records("x")).clear().write_parquet(folder / "parquet-no-rows.parquet")
    return accepted([])


@case(WORLD, "Parquet of no columns")
def parquet_no_columns(folder: Path) -> Expected:
    pq.write_table(pa.table({}), folder / "parquet-no-columns.parquet")
    return failed("missing .*columns.id")


@case(WORLD, "an empty file under the name of Parquet")
def parquet_empty(folder: Path) -> Expected:
    (folder / "parquet-empty.parquet").write_bytes(b"")
    return failed("cannot read")


@case(WORLD, "Parquet, cut off")
def parquet_cut(folder: Path) -> Expected:
    path = folder / "parquet-cut.parquet"
    _parquet(folder, "parquet-cut", records("parquet-cut", 50))
    path.write_bytes(path.read_bytes()[:-100])
    return failed("cannot read")


@case(WORLD, "Parquet with a wrong footer")
def parquet_footer(folder: Path) -> Expected:
    path = folder / "parquet-footer.parquet"
    _parquet(folder, "parquet-footer", records("parquet-footer", 50))
    data = path.read_bytes()
    path.write_bytes(data[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1")
    return failed("cannot read")


@case(WORLD, "Parquet with its pages overwritten")
def parquet_pages(folder: Path) -> Expected:
    path = folder / "parquet-pages.parquet"
    _parquet(folder, "parquet-pages", records("parquet-pages", 50))
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(range(14, 210))
    path.write_bytes(bytes(data))
    return failed("cannot read")


@case(WORLD, "JSON under the name of Parquet")
def parquet_text(folder: Path) -> Expected:
    (folder / "parquet-text.parquet").write_text(jsonl(records("x")))
    return failed("cannot read")


@case(WORLD, "Parquet under the name of CSV")
def csv_parquet(folder: Path) -> Expected:
    pl.DataFrame(records("x")).write_parquet(folder / "csv-parquet.csv")
    return failed("cannot read")


def _arrow(path: Path, rows: list[Record], *, stream: bool) -> None:
    table = pl.DataFrame(rows).to_arrow(compat_level=pl.CompatLevel.oldest())
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(str(path), table.schema) as out:
        out.write_table(table)


@case(WORLD, "an Arrow stream, cut off in the midst of its rows")
def arrow_stream_cut(folder: Path) -> Expected:
    path = folder / "arrow-stream-cut.arrow"
    _arrow(path, records("arrow-stream-cut", 50), stream=True)
    path.write_bytes(path.read_bytes()[:-300])
    return failed("cannot read")


@case(WORLD, "an Arrow file, cut off")
def arrow_cut(folder: Path) -> Expected:
    path = folder / "arrow-cut.arrow"
    _arrow(path, records("arrow-cut", 50), stream=False)
    path.write_bytes(path.read_bytes()[:-30])
    return failed("cannot read")


@case(WORLD, "an Arrow file whose texts point outside of it")
def arrow_offsets(folder: Path) -> Expected:
    path = folder / "arrow-offsets.arrow"
    offsets = pa.array([0, 5, 2**30, 9, 12], pa.int32()).buffers()[1]
    text = pa.StringArray.from_buffers(4, offsets, pa.py_buffer(b"hello, world"))
    rows = pl.DataFrame(records("x")).to_arrow().set_column(1, "text", text)
    with pa.ipc.new_file(str(path), rows.schema) as out:
        out.write_table(rows)
    return failed("cannot read")


@case(WORLD, "emoji, right to left, zero width and control characters in ids and labels")
def odd_characters(folder: Path) -> Expected:
    odd = ("🦆‍🔥", "\u202eevil\u202c", "zero\u200bwidth", "bell\x07 esc\x1b[31m", "שלום", "\x00nul")
    rows = records("odd-characters", len(odd))
    for row, text in zip(rows, odd, strict=True):
        row |= {"key": f"id {text}", "label": f"label {text}", "team": text}
    (folder / "odd-characters.jsonl").write_text(jsonl(rows))
    return accepted(rows)


@case(WORLD, "ids that are paths")
def path_ids(folder: Path) -> Expected:
    rows = records("path-ids", 5)
    odd = ("../../etc/passwd", "/etc/passwd", "C:\\x", "a/b\\..", "file:///etc/passwd")
    for row, key in zip(rows, odd, strict=True):
        row["key"] = row["label"] = key
    (folder / "path-ids.jsonl").write_text(jsonl(rows))
    return accepted(rows)


@case(WORLD, "HTML, scripts and Markdown in texts, labels and ids")
def markup(folder: Path) -> Expected:
    odd = [text for text in CORPUS if text.strip() and "\ud800" not in text]
    rows = records("markup", len(odd))
    for row, text in zip(rows, odd, strict=True):
        row |= {"key": text[:900], "text": text, "label": text[:60]}
    (folder / "markup.jsonl").write_text(jsonl(rows))
    return accepted(rows)


def _named(told: str, name: str, key: str) -> None:
    @case(WORLD, f"a file's name with {told}", key)
    def make(folder: Path) -> Expected:
        rows = records(key)
        (folder / f"{name}.jsonl").write_text(jsonl(rows))
        return accepted(rows, key)


for _told, _file, _key in (
    ("markup", "<img src=x onerror=alert(1)>", "img-src=x-onerror=alert-1--"),
    ("spaces and percent signs", "50% off %2e%2e now", "50--off--2e-2e-now"),
    ("a line end", "two\nlines", "two-lines"),
    ("emoji and right to left", "🦆\u202educk", "duck"),
    ("Markdown", "![x](https___evil.example)", "x--https___evil.example-"),
):
    _named(_told, _file, _key)

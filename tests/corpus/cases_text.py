"""Cases of text files: encodings, ends of lines, JSON and CSV that are not what they seem."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
from corpus_case import Expected, accepted, aside, case, comma, failed, jsonl, lines, records

WORLD = "texts"


@case(WORLD, "CSV with a byte order mark")
def csv_bom(folder: Path) -> Expected:
    rows = records("csv-bom")
    (folder / "csv-bom.csv").write_text(comma(rows), encoding="utf-8-sig")
    return accepted(rows)


@case(WORLD, "JSON lines with a byte order mark")
def json_bom(folder: Path) -> Expected:
    rows = records("json-bom")
    (folder / "json-bom.jsonl").write_text(jsonl(rows), encoding="utf-8-sig")
    return accepted(rows)


@case(WORLD, "CSV in UTF-16 with a byte order mark")
def csv_utf16(folder: Path) -> Expected:
    (folder / "csv-utf16.csv").write_text(comma(records("csv-utf16")), encoding="utf-16")
    return failed("UTF-16")


@case(WORLD, "CSV in UTF-16 without a mark")
def csv_utf16_bare(folder: Path) -> Expected:
    (folder / "csv-utf16-bare.csv").write_text(comma(records("x")), encoding="utf-16-le")
    return failed("NUL")


@case(WORLD, "JSON lines in UTF-16 with a byte order mark")
def json_utf16(folder: Path) -> Expected:
    (folder / "json-utf16.jsonl").write_text(jsonl(records("x")), encoding="utf-16")
    return failed("UTF-16")


@case(WORLD, "JSON lines in UTF-16 without a mark")
def json_utf16_bare(folder: Path) -> Expected:
    (folder / "json-utf16-bare.jsonl").write_text(jsonl(records("x")), encoding="utf-16-le")
    return failed("none of its .* rows can be parsed")


@case(WORLD, "CSV in UTF-8 with a byte of latin-1 in one row")
def csv_latin(folder: Path) -> Expected:
    rows = records("csv-latin")
    rows[1]["text"] = "caf~ au lait"
    (folder / "csv-latin.csv").write_bytes(comma(rows).encode().replace(b"~", b"\xe9"))
    return aside(rows, {1: ("_unparsed", "not utf-8")})


@case(WORLD, "JSON lines in UTF-8 with a byte of latin-1 in one row")
def json_latin(folder: Path) -> Expected:
    rows = records("json-latin")
    rows[1]["text"] = "caf~ au lait"
    (folder / "json-latin.jsonl").write_bytes(jsonl(rows).encode().replace(b"~", b"\xe9"))
    return aside(rows, {1: ("_unparsed", "not UTF-8")})


@case(WORLD, "bytes that no encoding has, within an id")
def bad_bytes(folder: Path) -> Expected:
    rows = records("bad-bytes")
    rows[2]["key"] = "bad-bytes-~"
    (folder / "bad-bytes.csv").write_bytes(comma(rows).encode().replace(b"~", b"\xff\xfe\xc0"))
    return aside(rows, {2: ("_unparsed", "not utf-8")})


@case(WORLD, "CSV with the line ends of Windows")
def csv_crlf(folder: Path) -> Expected:
    rows = records("csv-crlf")
    (folder / "csv-crlf.csv").write_bytes(comma(rows, end="\r\n").encode())
    return accepted(rows)


@case(WORLD, "CSV with carriage returns only")
def csv_cr(folder: Path) -> Expected:
    rows = records("csv-cr")
    (folder / "csv-cr.csv").write_bytes(comma(rows, end="\r").encode())
    return accepted(rows)


@case(WORLD, "JSON lines with the line ends of Windows, blank lines between")
def json_crlf(folder: Path) -> Expected:
    rows = records("json-crlf")
    (folder / "json-crlf.jsonl").write_bytes("\r\n\r\n".join(lines(rows)).encode())
    return accepted(rows)


@case(WORLD, "NUL characters in the texts of JSON lines")
def json_nul(folder: Path) -> Expected:
    rows = records("json-nul")
    rows[0]["text"] = "before \0 after"
    (folder / "json-nul.jsonl").write_text(jsonl(rows))
    return accepted(rows)


@case(WORLD, "NUL bytes in a CSV")
def csv_nul(folder: Path) -> Expected:
    rows = records("csv-nul")
    rows[0]["text"] = "before \0 after"
    (folder / "csv-nul.csv").write_text(comma(rows))
    return accepted(rows)


@case(WORLD, "a line of JSON that is raw NUL bytes")
def json_nul_line(folder: Path) -> Expected:
    rows = records("json-nul-line")
    text = lines(rows)
    text[2] = "\0" * 40
    (folder / "json-nul-line.jsonl").write_text("\n".join(text))
    return aside(rows, {2: ("_unparsed", "not JSON")})


@case(WORLD, "nulls as input, label and id")
def nulls(folder: Path) -> Expected:
    rows = records("nulls", 6)
    rows[1]["text"] = rows[2]["label"] = rows[4]["key"] = None
    (folder / "nulls.jsonl").write_text(jsonl(rows))
    wrong = {1: ("text", "null"), 2: ("label", "null"), 4: ("key", "null")}
    return aside(rows, wrong)


@case(WORLD, "empty fields of a CSV as input, label and id")
def csv_nulls(folder: Path) -> Expected:
    rows = records("csv-nulls", 6)
    text = comma(rows).replace('"csv-nulls-1"', "").replace('"csv-nulls-2"', '""')
    lines = text.splitlines()
    lines[4] = lines[4].replace(f'"{rows[3]["label"]}"', "")
    lines[5] = lines[5].replace(f'"{rows[4]["text"]}"', "")
    (folder / "csv-nulls.csv").write_text("\n".join(lines) + "\n")
    wrong = {1: ("key", "null"), 2: ("key", "empty"), 3: ("label", "null"), 4: ("text", "null")}
    return aside(rows, wrong)


@case(WORLD, "blank inputs and ids: spaces, tabs, ideographic spaces")
def blanks(folder: Path) -> Expected:
    rows = records("blanks", 6)
    rows[0]["key"], rows[2]["key"], rows[3]["text"] = "  ", "\t\u3000", " \n "
    (folder / "blanks.jsonl").write_text(jsonl(rows))
    return aside(rows, {0: ("key", "empty"), 2: ("key", "empty"), 3: ("text", "empty")})


@case(WORLD, "a text of 10 MB")
def huge_text(folder: Path) -> Expected:
    rows = records("huge-text", 3)
    rows[1]["text"] = "word " * 2_000_000
    (folder / "huge-text.jsonl").write_text(jsonl(rows))
    return accepted(rows)


@case(WORLD, "an id, a label and a group of 100 kB: held side by side, they would fill the memory")
def huge_names(folder: Path) -> Expected:
    rows = records("huge-names", 5)
    rows[1]["key"], rows[2]["label"], rows[3]["team"] = "k" * 100_000, "l" * 100_000, "t" * 100_000
    (folder / "huge-names.jsonl").write_text(jsonl(rows))
    return aside(rows, {1: ("key", "longer"), 2: ("label", "longer"), 3: ("team", "longer")})


@case(WORLD, "an empty JSON lines file")
def json_empty(folder: Path) -> Expected:
    (folder / "json-empty.jsonl").write_bytes(b"")
    return failed("empty")


@case(WORLD, "an empty CSV")
def csv_empty(folder: Path) -> Expected:
    (folder / "csv-empty.csv").write_bytes(b"")
    return failed("empty")


@case(WORLD, "a CSV of a header only")
def csv_header(folder: Path) -> Expected:
    (folder / "csv-header.csv").write_text("key,text,label,team\n")
    return accepted([])


@case(WORLD, "gzip: garbage under that name")
def gzip_garbage(folder: Path) -> Expected:
    (folder / "gzip-garbage.jsonl.gz").write_bytes(b"this was never gzip")
    return failed("gzip")


@case(WORLD, "gzip, cut off")
def gzip_cut(folder: Path) -> Expected:
    packed = gzip.compress(jsonl(records("gzip-cut", 500)).encode())
    (folder / "gzip-cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    return failed("ended before|end")


@case(WORLD, "gzip with a wrong checksum")
def gzip_checksum(folder: Path) -> Expected:
    packed = bytearray(gzip.compress(comma(records("gzip-checksum")).encode()))
    packed[-6] ^= 1
    (folder / "gzip-checksum.csv.gz").write_bytes(bytes(packed))
    return failed("CRC")


@case(WORLD, "gzip of two members, one after the other")
def gzip_two(folder: Path) -> Expected:
    rows = records("gzip-two")
    text = jsonl(rows).encode()
    (folder / "gzip-two.jsonl.gz").write_bytes(gzip.compress(text[:70]) + gzip.compress(text[70:]))
    return accepted(rows)


@case(WORLD, "zstd")
def zstd(folder: Path) -> Expected:
    rows = records("zstd")
    with pa.CompressedOutputStream(str(folder / "zstd.csv.zst"), "zstd") as out:
        out.write(comma(rows).encode())
    return accepted(rows)


@case(WORLD, "zstd, cut off")
def zstd_cut(folder: Path) -> Expected:
    path = folder / "zstd-cut.jsonl.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as out:
        out.write(jsonl(records("zstd-cut", 500)).encode())
    path.write_bytes(path.read_bytes()[:-20])
    return failed("end|zstd|[Tt]runcated")


@case(WORLD, "a line of JSON that is cut off")
def json_bad_line(folder: Path) -> Expected:
    rows = records("json-bad-line")
    text = lines(rows)
    text[1] = text[1][:-9]
    (folder / "json-bad-line.jsonl").write_text("\n".join(text))
    return aside(rows, {1: ("_unparsed", "line 2 is not JSON")})


@case(WORLD, "JSON lines with commas at their ends")
def json_comma(folder: Path) -> Expected:
    rows = records("json-comma")
    text = lines(rows)
    text[0] += ","
    text[3] = text[3][:-1] + ",}"
    (folder / "json-comma.jsonl").write_text("\n".join(text))
    return aside(rows, {0: ("_unparsed", "not JSON"), 3: ("_unparsed", "not JSON")})


@case(WORLD, "JSON lines that are an array, a number, a text, null")
def json_no_object(folder: Path) -> Expected:
    rows = records("json-no-object", 6)
    text = lines(rows)
    text[1:5] = ["[1, 2]", "3", '"text"', "null"]
    (folder / "json-no-object.jsonl").write_text("\n".join(text))
    return aside(rows, dict.fromkeys(range(1, 5), ("_unparsed", "not an object")))


@case(WORLD, "a JSON array under the name of JSON lines")
def json_array(folder: Path) -> Expected:
    (folder / "json-array.jsonl").write_text(json.dumps(records("json-array")))
    return failed("not an object")


@case(WORLD, "JSON nested 100,000 levels deep")
def json_deep(folder: Path) -> Expected:
    rows = records("json-deep")
    text = lines(rows)
    text[2] = text[2][:-1] + ', "more": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (folder / "json-deep.jsonl").write_text("\n".join(text))
    return aside(rows, {2: ("_unparsed", "nested too deeply")})


@case(WORLD, "JSON nested 200 levels deep in a further column")
def json_rather_deep(folder: Path) -> Expected:
    rows = records("json-rather-deep")
    text = lines(rows)
    text[2] = text[2][:-1] + ', "more": ' + '[{"a":' * 100 + "1" + "}]" * 100 + "}"
    (folder / "json-rather-deep.jsonl").write_text("\n".join(text))
    return accepted(rows)


@case(WORLD, "JSON with the same key twice: the last one counts")
def json_twice(folder: Path) -> Expected:
    rows = records("json-twice")
    text = lines(rows)
    text[0] = '{"label": "wrong", ' + text[0][1:]
    (folder / "json-twice.jsonl").write_text("\n".join(text))
    return accepted(rows)


@case(WORLD, "JSON with NaN and Infinity in a further column")
def json_nan(folder: Path) -> Expected:
    rows = records("json-nan")
    for row, value in zip(rows, (float("nan"), float("inf"), 1.5, None), strict=True):
        row["size"] = value
    (folder / "json-nan.jsonl").write_text(jsonl(rows))
    return accepted(rows)


@case(WORLD, "whole numbers of 40 and of 5,000 digits in JSON")
def json_large(folder: Path) -> Expected:
    rows = records("json-large")
    text = lines(rows)
    text[0] = text[0][:-1] + ', "size": ' + "9" * 40 + "}"
    text[1] = text[1][:-1] + ', "size": ' + "9" * 5000 + "}"
    (folder / "json-large.jsonl").write_text("\n".join(text))
    return aside(rows, {1: ("_unparsed", "digits")})


@case(WORLD, "half of a surrogate pair in JSON")
def json_surrogate(folder: Path) -> Expected:
    rows = records("json-surrogate")
    text = lines(rows)
    text[1] = text[1].replace("wind", "\\ud800")
    (folder / "json-surrogate.jsonl").write_text("\n".join(text))
    return aside(rows, {1: ("_unparsed", "surrogate")})


@case(WORLD, "CSV with too few and too many fields")
def csv_ragged(folder: Path) -> Expected:
    rows = records("csv-ragged", 5)
    text = comma(rows).splitlines()
    text[2], text[4] = '"csv-ragged-1","only"', text[4] + ',"more","and more"'
    (folder / "csv-ragged.csv").write_text("\n".join(text) + "\n")
    return aside(rows, {1: ("_unparsed", "fewer fields"), 3: ("_unparsed", "more fields")})


@case(WORLD, "CSV with a quote that is never closed")
def csv_quote(folder: Path) -> Expected:
    text = comma(records("csv-quote")).rstrip()
    (folder / "csv-quote.csv").write_text(text[:-1])
    return failed("never closed")


@case(WORLD, "CSV with line ends, commas and quotes within fields")
def csv_newlines(folder: Path) -> Expected:
    rows = records("csv-newlines")
    rows[0]["text"], rows[1]["label"] = 'one\ntwo, "three"\r\nfour', "class\n0"
    (folder / "csv-newlines.csv").write_bytes(comma(rows).encode())
    return accepted(rows)


@case(WORLD, "CSV with semicolons")
def csv_semicolons(folder: Path) -> Expected:
    (folder / "csv-semicolons.csv").write_text("key;text;label;team\n1;a;b;c\n2;a;b;c\n")
    return failed("missing .*columns.id 'key'")


@case(WORLD, "CSV with the same name for two columns: the first keeps it")
def csv_names(folder: Path) -> Expected:
    rows = records("csv-names")
    text = comma(rows).splitlines()
    text = [text[0] + ',"text"', *(line + ',"other"' for line in text[1:])]
    (folder / "csv-names.csv").write_text("\n".join(text) + "\n")
    return accepted(rows)


@case(WORLD, "CSV of 2,000 columns")
def csv_wide(folder: Path) -> Expected:
    rows = records("csv-wide", 2)
    for row in rows:
        row.update({f"c{i}": i for i in range(2_000)})
    (folder / "csv-wide.csv").write_text(comma(rows))
    return accepted(rows)


@case(WORLD, "CSV of 30,000 columns")
def csv_too_wide(folder: Path) -> Expected:
    names = ",".join(f"c{i}" for i in range(30_000))
    (folder / "csv-too-wide.csv").write_text(f"{names}\n")
    return failed("more than 20000 columns")

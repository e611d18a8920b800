"""Arrays in numpy's format."""

from __future__ import annotations

import io
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curation.config import Source
from curation.sources import SourceError, npy


def blocks(path: Path, **fields) -> list[pl.DataFrame]:
    config = Source(folder="/x", format="npy", **fields)
    return list(npy.blocks(path, config=config, where="demo: shard x"))


def read(path: Path, **fields) -> pl.DataFrame:
    return pl.concat(blocks(path, **fields))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    return tmp_path / "x.npy"


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "i1", "u2", "i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_float32(tmp_path, dtype, order):
    values = np.asarray([[1, 2, 3], [4, 5, 6]], dtype=dtype, order=order)
    np.save(tmp_path / "x.npy", values)
    frame = read(tmp_path / "x.npy")
    assert frame.schema == {"embedding": pl.List(pl.Float32)}
    assert frame["embedding"].to_list() == [[1, 2, 3], [4, 5, 6]]


def test_further_dimensions_are_flattened(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.int64).reshape(2, 2, 3))
    assert read(tmp_path / "x.npy")["embedding"].to_list() == [[*range(6)], [*range(6, 12)]]


def test_what_is_not_finite_stays(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[np.nan, -np.inf], [1e300, 2.0]]))
    first, second = read(tmp_path / "x.npy")["embedding"].to_list()
    assert np.isnan(first[0])
    assert first[1] == -np.inf
    assert second == [np.inf, 2.0]


def test_blocks_are_bounded_with_their_rows_beside(tmp_path):
    values = np.random.default_rng(0).normal(size=(1000, 1024)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    pl.DataFrame({"name": [f"r{i}" for i in range(1000)]}).write_parquet(tmp_path / "x.parquet")
    found = blocks(tmp_path / "x.npy", block_mib=1)
    assert [block.height for block in found] == [256, 256, 256, 232]
    assert len({str(block.schema) for block in found}) == 1
    frame = pl.concat(found)
    np.testing.assert_array_equal(np.stack(frame["embedding"].to_list()), values)
    assert frame["name"].to_list() == [f"r{i}" for i in range(1000)]


@pytest.mark.parametrize("end", ["parquet", "csv", "jsonl"])
def test_a_table_beside_gives_columns(path, end):
    table = pl.DataFrame({"id": ["a", "b", "c"], "y": [1, 2, 3]})
    file = path.with_suffix(f".{end}")
    {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}[end](file)
    frame = read(path)
    assert frame.columns == ["embedding", "id", "y"]
    assert frame.drop("embedding").equals(table)
    assert frame["embedding"].to_list() == [[0, 1], [2, 3], [4, 5]]


class TestTablesBeside:
    def test_of_another_length(self, path):
        pl.DataFrame({"id": ["a", "b"]}).write_csv(path.with_suffix(".csv"))
        with pytest.raises(SourceError, match=r"x\.npy has 3 rows, but x\.csv beside it has 2"):
            read(path)

    def test_more_than_one(self, path):
        for end in (".csv", ".parquet"):
            path.with_suffix(end).touch()
        with pytest.raises(SourceError, match=r"x\.parquet and x\.csv\. Keep one"):
            read(path)

    def test_with_a_column_of_the_same_name(self, path):
        pl.DataFrame({"embedding": [1, 2, 3]}).write_csv(path.with_suffix(".csv"))
        with pytest.raises(SourceError, match=r"a column 'embedding'.*Rename"):
            read(path)

    def test_that_is_damaged(self, path):
        path.with_suffix(".parquet").write_bytes(b"PAR1")
        with pytest.raises(SourceError, match=r"^demo: shard x: cannot read .*x\.parquet"):
            read(path)

    def test_elsewhere(self, tmp_path):
        (tmp_path / "in").mkdir()
        np.save(tmp_path / "in" / "x.npy", np.ones((1, 2)))
        pl.DataFrame({"secret": [1]}).write_csv(tmp_path / "x.csv")
        (tmp_path / "in" / "x.csv").symlink_to(tmp_path / "x.csv")
        with pytest.raises(SourceError, match="outside the folder"):
            read(tmp_path / "in" / "x.npy")


class Trap:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize("raw", [False, True])
def test_pickles_are_never_loaded(tmp_path, raw):
    trap, path = Trap(tmp_path / "trapped"), tmp_path / "x.npy"
    if raw:
        path.write_bytes(pickle.dumps(trap))
    else:
        np.save(path, np.array([[trap]], dtype=object))
    with pytest.raises(SourceError, match=r"^demo: shard x: .*x\.npy.*never loaded"):
        read(path)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float32(3), r"the shape \(\)"),
        (np.ones(3), r"the shape \(3,\), expected .*reshape"),
        (np.ones((0, 3)), r"the shape \(0, 3\), no values"),
        (np.ones((3, 0)), r"the shape \(3, 0\), no values"),
        (np.ones((1, 1), dtype=complex), "holds complex128"),
        (np.array([["a"]]), "holds <U1"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), "holds datetime64"),
        (np.zeros((1, 1), dtype=[("a", "f4")]), "holds .*'a'"),
    ],
)
def test_arrays_without_rows_of_numbers(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(SourceError, match=rf"^demo: shard x: .*x\.npy.*{message}"):
        read(tmp_path / "x.npy")


def version(data: bytes) -> bytes:
    return data[:6] + b"\x09\x00" + data[8:]


def open_bracket(data: bytes) -> bytes:
    return data.replace(b"(3, 2)", b"(3, 2 ")


def negative(data: bytes) -> bytes:
    return data.replace(b"(3, 2)", b"(-3,2)")


def giant(data: bytes) -> bytes:
    file = io.BytesIO()
    stated = {"descr": "<f4", "fortran_order": False, "shape": (10**15, 2)}
    np.lib.format.write_array_header_1_0(file, stated)
    return file.getvalue() + data[-24:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "mmap length is greater than file size"),
        (lambda data: data[:40], "cannot read"),
        (lambda data: data[:7], "cannot read"),
        (lambda data: b"", "not in numpy's format"),
        (lambda data: b"1,2\n3,4\n", "not in numpy's format"),
        (lambda data: b"PK\x03\x04" + data, "archive of arrays"),
        (version, r"cannot read .*version"),
        (open_bracket, "cannot read"),
        (negative, "cannot read"),
        (giant, "cannot read"),
    ],
)
def test_damage(path, damage, message):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=rf"^demo: shard x: .*(?=.*x\.npy).*{message}"):
        read(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(SourceError, match=r"^demo: shard x: cannot read .*none\.npy"):
        read(tmp_path / "none.npy")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_array_is_never_held_whole(tmp_path):
    """Memory of its own, without the pages of the mapped file, stays far below the file's size."""
    path, rows = tmp_path / "x.npy", 50_000
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, 1000)).flush()

    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    before, most, seen = held(), 0, 0
    config = Source(folder="/x", format="npy", block_mib=4)
    for block in npy.blocks(path, config=config, where="x"):
        most, seen = max(most, held()), seen + block.height
    assert seen == rows
    assert path.stat().st_size > 200e6
    assert most - before < 60e6

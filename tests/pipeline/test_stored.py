"""Rows are read from the store in pieces, and a number that stands for an id is no id."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pytest
from helpers import vector_config, vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.pipeline import numbers, people, population, repeats, stored
from curation.pipeline import vectors as files
from curation.pipeline.dataset import Dataset
from curation.pipeline.ingest import make_embeddings, make_raw
from curation.pipeline.numbers import number_ids
from curation.pipeline.stored import raw_rows_at
from curation.pipeline.tables import read_vectors, write_vectors
from curation.pipeline.vectors import VectorFile, VectorWriter, id_texts, longest
from curation.sampling import permanent_random_numbers
from curation.store import Store

IDS = st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=40)


@given(IDS, IDS)
@settings(max_examples=50, deadline=None)
def test_numbers_of_stored_ids_are_those_of_the_texts(ids, more):
    told = np.array([*ids, *more], dtype=np.str_)
    for kind in (pa.string(), pa.large_string()):
        # a slice, as a block of a file is
        found = pa.concat_arrays([pa.array(["x"] * 3, kind), pa.array([*ids, *more], kind)])[3:]
        assert id_texts(found).tolist() == told.tolist()
        wanted = permanent_random_numbers(told, seed=5, purpose="draw")
        assert number_ids(found, seed=5, purpose="draw").tolist() == wanted.tolist()
        assert longest(found) == max([len(i.encode()) for i in [*ids, *more]], default=0)


def test_one_long_id_does_not_make_a_block_of_short_ones_as_wide(monkeypatch):
    monkeypatch.setattr(numbers, "WIDEST", 10_000)
    widths = []
    monkeypatch.setattr(
        numbers, "id_texts", lambda ids: widths.append(len(ids) * longest(ids)) or id_texts(ids)
    )
    ids = [f"row {i}" for i in range(3000)]
    ids[1234] = "x" * 5000
    wanted = permanent_random_numbers(np.array(ids), seed=0, purpose="identity")
    assert number_ids(pa.array(ids)).tolist() == wanted.tolist()
    assert max(widths) <= 10_000


@pytest.fixture
def written(tmp_path):
    """A file of three record batches, one of them empty, and what is in it."""
    rng = np.random.default_rng(0)
    sizes, ids, parts = (700, 0, 801), [], []
    schema = pa.schema([("id", pa.string()), ("embedding", pa.list_(pa.float32(), 5))])
    with pa.OSFile(str(tmp_path / "v.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
        for size in sizes:
            own = [f"größe {len(ids) + i}" for i in range(size)]
            part = rng.normal(size=(size, 5)).astype(np.float32)
            flat = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), 5)
            out.write_batch(pa.record_batch([pa.array(own, pa.string()), flat], schema=schema))
            ids += own
            parts.append(part)
    return tmp_path / "v.arrow", ids, np.concatenate(parts)


@pytest.mark.parametrize("piece", [40, 1 << 22])
def test_rows_are_read_by_place_in_any_order(written, monkeypatch, piece):
    path, ids, matrix = written
    monkeypatch.setattr(files, "PIECE", piece)
    monkeypatch.setattr(files, "GAP", piece)
    monkeypatch.setattr(files, "IDS_AT_A_TIME", 7)
    rng = np.random.default_rng(1)
    with VectorFile(path) as file:
        assert (len(file), file.width) == matrix.shape
        for rows in (
            rng.permutation(1501)[:300].astype(np.int32),
            np.arange(690, 720),
            np.array([1500, 0, 0, 700]),
            np.empty(0, dtype=np.int64),
        ):
            assert np.array_equal(file.take(rows), matrix[rows])
            assert file.take_ids(rows).to_list() == [ids[i] for i in rows]
        assert np.array_equal(file.vectors(650, 750), matrix[650:750])
        assert [i for _, block in file.id_blocks(64) for i in block.to_pylist()] == ids
        with pytest.raises(IndexError, match="1502"):
            file.vectors(0, 1502)


def test_a_file_written_in_pieces_is_that_written_at_once(tmp_path):
    rng = np.random.default_rng(2)
    ids = [f"r{i}" for i in range(500)]
    matrix = rng.normal(size=(500, 7)).astype(np.float32)
    with VectorWriter(tmp_path / "pieces.arrow", "embedding") as out:
        for part in (slice(0, 200), slice(200, 201), slice(201, 500)):
            out.write(pl.Series(ids[part]), matrix[part])
    write_vectors(tmp_path / "whole.arrow", {"id": ids}, embedding=matrix)
    assert (tmp_path / "pieces.arrow").read_bytes() == (tmp_path / "whole.arrow").read_bytes()
    assert np.array_equal(read_vectors(tmp_path / "pieces.arrow", "embedding"), matrix)
    assert not list(tmp_path.glob("*.flat"))


@pytest.fixture
def made(tmp_path) -> Dataset:
    """Three shards, the last with rows of the first, some of them held out."""
    folder = tmp_path / "source"
    folder.mkdir()
    frames = [vectors(150, seed=i) for i in range(2)]
    frames.append(pl.concat([frames[0].tail(60), frames[1].head(20)]))
    for i, frame in enumerate(frames):
        held = pl.Series("held", ["test" if j % 7 == i else "no" for j in range(len(frame))])
        frame.with_columns(held).write_parquet(folder / f"day-{i}.parquet")
    config = vector_config(folder, holdout={"column": "held"})
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    for shard in ("day-0", "day-1", "day-2"):
        make_raw(dataset, shard)
        make_embeddings(dataset, shard)
    return dataset


def told(dataset: Dataset, path) -> tuple[object, ...]:
    population._load.cache_clear()
    found = []
    for split in ("train", "holdout"):
        rows = population.population(dataset, split=split)
        rows.left_out.write(path)
        found += [rows.ids.to_list(), rows.position.tolist(), pl.read_parquet(path).rows()]
    return tuple(found)


def test_rows_with_one_number_are_compared_by_their_ids(made, tmp_path, monkeypatch):
    """All ids have one of eleven numbers, and still only those that are equal are taken as such."""
    path = tmp_path / "left_out.parquet"
    expected = told(made, path)
    assert {row[3] for row in expected[2]} == {
        "the holdout has the same id",
        "same id as a row of shard day-0",
        "same id as a row of shard day-1",
    }

    def coarse(ids, **how):
        return np.ceil(number_ids(ids, **how) * 11) / 12

    for module in (population, people):
        monkeypatch.setattr(module, "number_ids", coarse)
    for at_a_time in (1 << 20, 50):  # and part by part
        monkeypatch.setattr(repeats, "AT_A_TIME", at_a_time)
        assert told(made, path) == expected
    rows = population.population(made)
    wanted = pl.Series("any", [rows.ids[7], "of no row", rows.ids[3]])
    assert rows.find(wanted).tolist() == [7, -1, 3]
    assert rows.find(wanted[:0]).tolist() == []


def test_raw_rows_are_those_of_the_file(made, monkeypatch):
    rows = population.population(made)
    chosen = np.array([200, 3, 3, 119, 0])
    found = rows.rows(chosen)
    assert found["id"].to_list() == rows.ids[chosen].to_list()
    whole = pl.read_parquet(stored.raw_artifact(made, "day-0").path("rows.parquet"))
    place = np.array([5, 149, 0])
    assert raw_rows_at(made, "day-0", place).equals(whole[place])
    assert raw_rows_at(made, "day-0", place, ["row"]).columns == ["row"]

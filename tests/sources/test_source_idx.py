"""Image files in the idx format."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curation.config import Columns, Holdout, Source
from curation.sources import SourceError, idx, open_source, to_rows

FASHION = Path("/usr/share/datasets/fashion-mnist")


def source(folder, **fields):
    config = Source(folder=str(folder), format="idx", **fields)
    return open_source(config, dataset="demo", root=Path("/"))


def write_idx(path: Path, values: np.ndarray, *, cut: int = 0) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    data = (header + values.astype(np.uint8).tobytes())[: -cut or None]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_pair(folder: Path, prefix: str = "train", *, n: int = 7, end: str = "") -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (n, 2, 3))
    write_idx(folder / f"{prefix}-images-idx3-ubyte{end}", images)
    write_idx(folder / f"{prefix}-labels-idx1-ubyte{end}", np.arange(n) % 10)
    return images


@pytest.mark.skipif(not FASHION.is_dir(), reason="apt install dataset-fashion-mnist")
class TestFashion:
    def test_seventy_shards_parsed_once(self):
        fashion = source(FASHION)
        shards = fashion.shards()
        assert [s.key for s in shards] == [
            *(f"t10k-{i:02d}" for i in range(10)),
            *(f"train-{i:02d}" for i in range(60)),
        ]
        idx._parse.cache_clear()
        frames = [fashion.read(s.key) for s in shards if s.key.startswith("train")]
        assert idx._parse.cache_info().misses == 2
        assert all(f.height == 1000 for f in frames)
        labels = pl.concat([f.select("label") for f in frames])["label"]
        assert labels.value_counts()["count"].to_list() == [6000] * 10
        # Published mean of the training pixels, as a share of 255.
        mean = np.mean([f["image"].to_numpy().mean() for f in frames]) / 255
        assert mean == pytest.approx(0.2860, abs=1e-4)

    def test_rows(self):
        fashion = source(FASHION, include=["train-00"])
        frame = fashion.read("train-00")
        assert frame.schema == {
            "id": pl.String,
            "image": pl.Array(pl.UInt8, 784),
            "label": pl.String,
        }
        rows = to_rows(
            frame,
            columns=Columns(input="image", id="id", label="label"),
            holdout=Holdout(shards=["t10k-*"]),
            dataset="demo",
            shard="train-00",
        )
        assert rows.accepted.columns == ["id", "row", "split", "image", "label"]
        assert rows.accepted["id"][42] == "train-00042"
        assert rows.accepted["label"][0] == "9"
        assert rows.accepted["split"].unique().to_list() == ["train"]
        assert rows.quarantined.is_empty()


@pytest.mark.parametrize("end", ["", ".gz"])
def test_pixels_and_labels_belong_together(tmp_path, end):
    images = write_pair(tmp_path, end=end)
    small = source(tmp_path, rows_per_shard=3)
    assert [s.key for s in small.shards()] == ["train-00", "train-01", "train-02"]
    frame = pl.concat([small.read(s.key) for s in small.shards()])
    np.testing.assert_array_equal(frame["image"].to_numpy(), images.reshape(7, 6))
    assert frame["label"].to_list() == list("0123456")
    assert frame["id"].to_list() == [f"train-0000{i}" for i in range(7)]


def test_pairs_in_folders_are_groups_of_their_own(tmp_path):
    write_pair(tmp_path / "a")
    write_pair(tmp_path / "b")
    assert [s.key for s in source(tmp_path).shards()] == ["a-train-00", "b-train-00"]


def test_a_changed_file_is_read_anew(tmp_path):
    write_pair(tmp_path)
    small = source(tmp_path)
    before, first = small.shards()[0], small.read("train-00")
    labels = tmp_path / "train-labels-idx1-ubyte"
    write_idx(labels, np.full(7, 5))
    os.utime(labels, ns=(0, labels.stat().st_mtime_ns + 10**9))
    assert small.shards()[0].fingerprint != before.fingerprint
    assert first["label"].to_list() != small.read("train-00")["label"].to_list() == ["5"] * 7


def damage_magic(folder):
    (folder / "train-images-idx3-ubyte").write_bytes(b"\x00\x00\x0d\x03" + bytes(99))


def damage_header(folder):
    (folder / "train-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03\x00")


def damage_end(folder):
    write_idx(folder / "train-images-idx3-ubyte", np.zeros((7, 2, 3)), cut=1)


def damage_counts(folder):
    write_idx(folder / "train-labels-idx1-ubyte", np.zeros(6))


def remove_labels(folder):
    (folder / "train-labels-idx1-ubyte").unlink()


def remove_all(folder):
    for path in folder.iterdir():
        path.unlink()


def add_gz(folder):
    write_pair(folder, end=".gz")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_magic, "begins with 00000d03, expected 00000803"),
        (damage_header, "ends within its header"),
        (damage_end, "states 7 x 2 x 3 bytes, but holds 41"),
        (damage_counts, "7 images of 2 x 3 pixels, .* 6 labels"),
        (remove_labels, "no file of labels beside it"),
        (remove_all, r"no \*-images-idx3-ubyte"),
        (add_gz, "two files of (images|labels) have the same key"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    write_pair(tmp_path)
    damage(tmp_path)
    with pytest.raises(SourceError, match=message):
        source(tmp_path).read("train-00")


def test_unknown_shards_and_missing_folders(tmp_path):
    write_pair(tmp_path)
    with pytest.raises(SourceError, match="Known shards: train-00"):
        source(tmp_path).read("train-7")
    with pytest.raises(SourceError, match="there is no folder"):
        source(tmp_path / "nowhere").shards()

"""Data sets saved to disk by the package datasets."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from curation.config import Source
from curation.sources import SourceError, huggingface

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()
Features, Value = datasets.Features, datasets.Value


def blocks(path: Path, **fields) -> list[pl.DataFrame]:
    config = Source(folder="/x", format="huggingface", **fields)
    found = list(huggingface.blocks(path, config=config, where="demo: shard a"))
    assert len({str(block.schema) for block in found}) == 1
    return found


def read(path: Path, **fields) -> pl.DataFrame:
    return pl.concat(blocks(path, **fields))


def save(path: Path, columns: dict, features: dict | None = None) -> Path:
    """Save a data set, pictures exactly as given: `datasets` would fetch those that are paths."""
    made = datasets.Dataset.from_dict(columns, features=features and Features(features))
    images = [n for n, f in made.features.items() if isinstance(f, datasets.Image)]
    blank = columns | {name: [None] * len(made) for name in images}
    datasets.Dataset.from_dict(blank, features=made.features).save_to_disk(path)
    if images:
        (file,) = path.glob("*.arrow")
        with pa.ipc.new_stream(str(file), made.data.schema) as stream:
            stream.write_table(made.data.table)
    return path


def picture(*rows: list[int]) -> dict:
    file = io.BytesIO()
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "x.png"}


def test_columns_as_they_are(tmp_path):
    columns = {
        "text": ["a", None, "ü"],
        "n": [1, 2, 3],
        "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        "nested": [{"x": 1, "y": ["p"]}] * 3,
        "nothing": [None] * 3,
    }
    frame = read(save(tmp_path / "a", columns))
    assert frame.columns == ["text", "n", "vector", "nested", "nothing", "_unparsed"]
    assert frame.schema["vector"] == pl.List(pl.Float64)
    assert frame.drop("_unparsed").to_dict(as_series=False) == columns
    assert frame["_unparsed"].to_list() == [None] * 3


def test_rows_that_were_selected_and_shuffled_keep_their_order(tmp_path):
    made = datasets.Dataset.from_dict({"n": list(range(100))}).select([70, 3, 5])
    made.save_to_disk(tmp_path / "a")
    assert read(tmp_path / "a")["n"].to_list() == [70, 3, 5]


def test_classes_have_names(tmp_path):
    features = {"label": datasets.ClassLabel(names=["cat", "dog"]), "n": Value("int8")}
    path = save(tmp_path / "a", {"label": [1, 0, -1, None], "n": [1, 2, 3, 4]}, features)
    frame = read(path)
    assert frame["label"].to_list() == ["dog", "cat", None, None]
    assert frame["_unparsed"].null_count() == 4
    # One class fewer than the data has: what a hand on the description can do.
    info = path / "dataset_info.json"
    info.write_text(info.read_text().replace('"dog"', "").replace('"cat",', '"cat"'))
    frame = read(path)
    assert frame["label"].to_list() == [None, "cat", None, None]
    assert frame["n"].to_list() == [None, 2, 3, 4]
    assert frame["_unparsed"].to_list() == ["label: class 1, but there are 1"] + [None] * 3


def test_pictures_are_decoded(tmp_path):
    columns = {"pic": [picture([1, 2, 3], [4, 5, 6]), None], "name": ["a", "b"]}
    features = {"pic": datasets.Image(), "name": Value("string")}
    path = save(tmp_path / "a", columns, features)
    frame = read(path)
    assert frame.schema == {
        "pic": pl.List(pl.UInt8),
        "pic_width": pl.UInt32,
        "pic_height": pl.UInt32,
        "name": pl.String,
        "_unparsed": pl.String,
    }
    assert frame.rows() == [([1, 2, 3, 4, 5, 6], 3, 2, "a", None), (None, None, None, "b", None)]
    rgb = read(path, image_mode="RGB", image_size=(1, 1))
    assert rgb["pic"].list.len().to_list() == [3, None]


def test_a_column_of_the_data_is_not_replaced(tmp_path):
    features = {"pic": datasets.Image(), "pic_width": Value("string")}
    path = save(tmp_path / "a", {"pic": [picture([7])], "pic_width": ["mine"]}, features)
    assert read(path).columns == ["pic", "pic_height", "pic_width", "_unparsed"]
    assert read(path)["pic_width"].to_list() == ["mine"]


def test_wrong_pictures_are_rows_with_a_reason(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture([9])["bytes"])
    columns = {
        "pic": [
            picture([7]),
            {"bytes": b"text", "path": None},
            {"bytes": None, "path": str(secret)},
            {"bytes": None, "path": "https://example.org/x.png"},
        ],
        "name": list("abcd"),
    }
    path = save(tmp_path / "a", columns, {"pic": datasets.Image(), "name": Value("string")})
    frame = read(path)
    assert frame["pic"].to_list() == [[7], None, None, None]
    assert frame["name"].to_list() == ["a", None, None, None]
    outside = "pic: leads outside the data set, which holds only its path"
    assert frame["_unparsed"].to_list() == [
        None,
        "pic: not a picture (cannot identify image file)",
        outside,
        outside,
    ]


def test_arrays_are_flattened_and_media_left_out(tmp_path):
    features = {
        "matrix": datasets.Array2D((2, 3), "float32"),
        "cube": datasets.Array3D((1, 2, 2), "uint8"),
        "sound": datasets.Audio(),
        "album": datasets.List(datasets.Image()),
        "page": {"scan": datasets.Image(), "n": Value("int8")},
    }
    columns = {
        "matrix": [np.arange(6).reshape(2, 3), np.ones((2, 3))],
        "cube": [np.zeros((1, 2, 2)), np.arange(4).reshape(1, 2, 2)],
        "sound": [None, None],
        "album": [[], []],
        "page": [None, None],
    }
    path = tmp_path / "a"
    datasets.Dataset.from_dict(columns, features=Features(features)).save_to_disk(path)
    frame = read(path)
    assert frame.schema == {
        "matrix": pl.List(pl.Float32),
        "cube": pl.List(pl.UInt8),
        "_unparsed": pl.String,
    }
    assert frame["matrix"].to_list() == [[0, 1, 2, 3, 4, 5], [1] * 6]
    assert frame["cube"].to_list() == [[0] * 4, [0, 1, 2, 3]]


class TestBlocks:
    def test_of_texts(self, tmp_path):
        texts = [f"{i:04d}" * 250 for i in range(3000)]
        texts[1500] = "x" * 900_000  # the sizes of rows differ
        found = blocks(save(tmp_path / "a", {"text": texts}), block_mib=1)
        assert max(block.estimated_size() for block in found) < 1.1 * 2**20
        assert 4 <= len(found) <= 12
        assert pl.concat(found)["text"].to_list() == texts

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_are_read_out_of_the_mapped_file(self, tmp_path):
        path = save(tmp_path / "a", {"text": ["x"]})
        config = Source(folder="/x", format="huggingface")
        for _ in huggingface.blocks(path, config=config, where="demo: shard a"):
            assert f"{path}/data-" in Path("/proc/self/maps").read_text()

    def test_of_pictures_by_what_they_become(self, tmp_path):
        flat = [[value] * 600 for value in range(10)]
        columns = {
            "pic": [picture(*[row] * 500) for row in flat],  # 300 kB each, stored in a few bytes
            "n": list(range(10)),
        }
        path = save(tmp_path / "a", columns, {"pic": datasets.Image(), "n": Value("int8")})
        found = blocks(path, block_mib=1)
        assert [block.height for block in found] == [4, 4, 2]
        frame = pl.concat(found)
        assert frame["n"].to_list() == list(range(10))
        assert frame["pic"].list.first().to_list() == list(range(10))

    def test_a_bad_row_does_not_change_the_types(self, tmp_path):
        columns = {
            "pic": [{"bytes": b"no", "path": None}, picture([5])],
            "n": [1, 1],
            "nothing": [None, None],
            "vector": [[1.5], [1.5]],
        }
        features = {
            "pic": datasets.Image(),
            "n": Value("int32"),
            "nothing": Value("null"),
            "vector": datasets.List(Value("float32")),
        }
        frame = read(save(tmp_path / "a", columns, features))
        assert list(frame.schema.values())[3:6] == [pl.Int32, pl.Null, pl.List(pl.Float32)]
        assert frame["vector"].to_list() == [None, [1.5]]


class TestRefused:
    @pytest.fixture
    def path(self, tmp_path):
        return save(tmp_path / "data" / "a", {"text": ["a", "b"]})

    def refused(self, path: Path, message: str) -> None:
        with pytest.raises(SourceError, match=rf"^demo: shard a: (?=.*{path.name}).*{message}"):
            read(path)

    def test_a_state_that_names_files_elsewhere(self, path, tmp_path):
        secret = save(tmp_path / "secret", {"text": ["secret"]})
        (file,) = secret.glob("*.arrow")
        state = json.loads((path / "state.json").read_text())
        for name in (f"../../secret/{file.name}", str(file)):
            state["_data_files"] = [{"filename": name}]
            (path / "state.json").write_text(json.dumps(state))
            self.refused(path, "lies outside the folder.*Save the data set again")
        (path / "link.arrow").symlink_to(file)
        state["_data_files"] = [{"filename": "link.arrow"}]
        (path / "state.json").write_text(json.dumps(state))
        self.refused(path, "lies outside the folder")

    def test_damage(self, path):
        (file,) = path.glob("*.arrow")
        whole = file.read_bytes()
        file.write_bytes(whole[:100])
        self.refused(path, "cannot read .*Save the data set again")
        file.unlink()
        self.refused(path, "cannot read")
        file.write_bytes(whole)
        for text in ("{", "[]", "{}", '{"_data_files": 3}', '{"_data_files": [{}]}'):
            (path / "state.json").write_text(text)
            self.refused(path, "cannot read")

    def test_offsets_that_lead_out_of_the_data(self, path):
        """Arrow and polars would read whatever lies in memory there."""
        (file,) = path.glob("*.arrow")
        data = bytearray(file.read_bytes())
        offsets = np.array([0, 1, 2], dtype="<i4").tobytes()
        at = data.rindex(offsets)
        data[at : at + 12] = np.array([0, 2**20, 2**21], dtype="<i4").tobytes()
        file.write_bytes(data)
        self.refused(path, "cannot read")

    @pytest.mark.parametrize(
        ("was", "becomes"),
        [
            (np.arange(4, dtype="<i4").tobytes(), np.array([0, 2**20, 2, 3], "<i4").tobytes()),
            (b"xyz", b"x\xffz"),
        ],
        ids=["an offset within", "no UTF-8"],
    )
    def test_texts_that_are_none(self, tmp_path, was, becomes):
        path = save(tmp_path / "a", {"text": ["x", "y", "z"]})
        (file,) = path.glob("*.arrow")
        data = bytearray(file.read_bytes())
        at = data.rindex(was)
        data[at : at + len(was)] = becomes
        file.write_bytes(data)
        self.refused(path, "cannot read")

    def test_without_rows_or_columns(self, tmp_path):
        empty = save(tmp_path / "e", {"text": []}, {"text": Value("string")})
        self.refused(empty, "has no rows")
        sound = save(tmp_path / "s", {"sound": [None]}, {"sound": datasets.Audio()})
        self.refused(sound, "has the columns sound.*needs one that can be read")
        taken = save(tmp_path / "t", {"_unparsed": ["x"], "n": [1]})
        self.refused(taken, "none may have the name '_unparsed'")
        wrong = {"pic": [{"bytes": b"no", "path": None}] * 2}
        self.refused(save(tmp_path / "w", wrong, {"pic": datasets.Image()}), "none of the 2 rows")

    def test_a_path_that_fsspec_takes_for_addresses(self, path):
        odd = path.rename(path.with_name("b::c"))
        self.refused(odd, "rename that folder")

    def test_without_the_package(self, path, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        self.refused(path, r"pip install 'curation\[huggingface\]'")


class TestShardFolders:
    def names(self, folder: Path, pattern: str = "**/*") -> list[str]:
        found = huggingface.shard_folders(folder, pattern=pattern, dataset="demo")
        return [path.relative_to(folder).as_posix() for path in found]

    def test_saved_data_sets_at_any_depth(self, tmp_path):
        splits = {name: datasets.Dataset.from_dict({"n": [1]}) for name in ("train", "test")}
        datasets.DatasetDict(splits).save_to_disk(tmp_path / "reviews")
        save(tmp_path / "alone", {"n": [1]})
        save(tmp_path / ".hidden", {"n": [1]})
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / "state.json").write_text("{}")
        assert self.names(tmp_path) == ["alone", "reviews/test", "reviews/train"]
        assert self.names(tmp_path, "*/train") == ["reviews/train"]
        assert self.names(tmp_path / "half") == []

    def test_the_folder_itself(self, tmp_path):
        save(tmp_path / "alone", {"n": [1]})
        with pytest.raises(SourceError, match=r"^demo: .*Make .* with `pattern` 'alone'"):
            self.names(tmp_path / "alone")

    def test_links(self, tmp_path):
        save(tmp_path / "in" / "a", {"n": [1]})
        save(tmp_path / "out", {"n": [1]})
        (tmp_path / "in" / "b").symlink_to(tmp_path / "out", target_is_directory=True)
        with pytest.raises(SourceError, match=r"^demo: .*/b leads to .*outside the folder"):
            self.names(tmp_path / "in")

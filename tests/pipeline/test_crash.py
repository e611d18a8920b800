"""Killed at every stage, run again: it completes, and the subset is the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import polars as pl
import pytest
from helpers import vector_config

from curation.pipeline.dataset import ASSETS, PER_SHARD, Dataset
from curation.pipeline.local import run
from curation.store import Store

CODE = """
import os, signal, sys
from pathlib import Path
import curation.store as s
asset, nth = sys.argv[1], int(sys.argv[2])
original, seen = s.Store.write, 0
def write(self, at, recipe, fill, **how):
    global seen
    def half(draft):
        global seen
        (draft.folder / "begun").write_text("x")
        fill(draft)
        seen += at.asset == asset
        if at.asset == asset and seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        (draft.folder / "begun").unlink()
    return original(self, at, recipe, half, **how)
s.Store.write = write
sys.path.insert(0, {tests!r})
import dagster as dg
from helpers import vector_config
from curation.pipeline.dataset import Dataset
from curation.pipeline.local import run
root = Path({root!r})
with dg.DagsterInstance.local_temp({home!r}) as instance:
    run(Dataset(vector_config(root / "source"), s.Store(root / "store"), root), instance)
"""


@pytest.mark.long
def test_sigkill_in_every_stage_and_run_again(folder, tmp_path, instance):
    """One store, killed in the middle of a write of each asset in turn, then left to finish."""
    clean = Dataset(vector_config(folder), Store(tmp_path / "clean"), tmp_path)
    assert run(clean, instance).success
    expected = clean.store.need(clean.at("selected_subset"))

    home = tmp_path / "home"
    home.mkdir()
    code = textwrap.dedent(CODE).format(
        tests=str(Path(__file__).parent), root=str(tmp_path), home=str(home)
    )
    for asset in ASSETS:
        nth = 2 if asset in PER_SHARD else 1
        ended = subprocess.run(
            [sys.executable, "-c", code, asset, str(nth)], capture_output=True, text=True
        )
        assert ended.returncode == -signal.SIGKILL, (asset, ended.stderr[-2000:])
    killed = Dataset(vector_config(folder), Store(tmp_path / "store"), tmp_path)
    result = run(killed, instance)
    assert result.success
    # raw and embeddings were finished before: nothing is done twice
    assert [a.computed for a in result.assets[:2]] == [0, 0]
    found = killed.store.need(killed.at("selected_subset"))
    assert found.content_hash == expected.content_hash
    assert not list((tmp_path / "store").rglob(".tmp-*"))
    assert len(pl.read_parquet(found.path("subset.parquet"))) == 100

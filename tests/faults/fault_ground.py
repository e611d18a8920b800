"""A source, a store and runs over them in processes of their own; what must hold after a fault."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import polars as pl

for _folder in ("pipeline", "sources"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))

from helpers import vector_config, vectors  # noqa: E402

from curation.config import CuratedDatasetConfig  # noqa: E402
from curation.pipeline.dataset import PER_SHARD, SELECTED_SUBSET  # noqa: E402
from curation.store import Address, Artifact, Store  # noqa: E402
from curation.store.manifests import file_hash  # noqa: E402

ROWS = 120
SHARDS = ("day-0", "day-1", "day-2")
MORE = (*SHARDS, "day-3")
SMALL = {"clusters": {"k": 8}, "selection": {"budget": 60}, "evaluation": {"probe_seeds": 2}}
VERSION = re.compile(r"^[0-9a-f]{16}$")
PATIENCE = 120  # seconds that a run may take on a busy machine

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["fault_child", "fault_ground"])


@lru_cache(maxsize=1)
def _serve() -> None:
    """Start the server that children are forked from; it imports this module as well."""
    # what can't be imported is silently left out, and the server has no path but this
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    forkserver.ensure_running()


def _child(job: dict[str, Any]) -> None:
    import fault_child  # the whole pipeline: not in the process of the tests

    fault_child.main(job)


def rows_of(shard: str) -> pl.DataFrame:
    """Return the rows of a shard, which follow from its name."""
    return vectors(ROWS, seed=int(shard.removeprefix("day-")))


def write_shard(folder: Path, shard: str, ending: str = "parquet") -> Path:
    """Write a shard as a producer should: under another name, then renamed."""
    path, temporary = folder / f"{shard}.{ending}", folder / f"{shard}.{ending}.tmp"
    rows = rows_of(shard)
    rows.write_parquet(temporary) if ending == "parquet" else rows.write_ndjson(temporary)
    return temporary.replace(path)


@dataclass
class Ended:
    """What became of a run."""

    code: int
    told: dict[str, Any]
    log: str

    @property
    def success(self) -> bool:
        """Whether all that could be made was made."""
        return self.code == 0 and bool(self.told["success"])

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -9

    @property
    def computed(self) -> dict[str, int]:
        """Artifacts that were written, by asset."""
        return {asset: made[0] for asset, made in self.told["assets"].items()}

    @property
    def said(self) -> str:
        """All that the run says is wrong."""
        errors = [made[2] for made in self.told.get("assets", {}).values()]
        shards = [f"{s}: {why}" for s, why in self.told.get("failed_shards", {}).items()]
        return "\n".join(filter(None, [self.told.get("error", ""), *errors, *shards]))


@dataclass
class Running:
    """A run that has not ended yet, and the channel by which it waits for the test."""

    process: Any
    result: Path
    log: Path
    channel: Path

    def reached(self) -> Running:
        """Wait until it has come to its point."""
        deadline = time.monotonic() + PATIENCE
        while not (self.channel / "reached").exists():
            assert self.process.is_alive(), f"ended before its point:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, "its point was not reached"
            time.sleep(0.02)
        return self

    def go(self) -> Ended:
        """Let it go on, and wait for its end."""
        (self.channel / "go").touch()
        return self.wait()

    def wait(self) -> Ended:
        """Wait for its end."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"did not end:\n{self.log.read_text()[-3000:]}")
        told = json.loads(self.result.read_text()) if self.result.exists() else {}
        return Ended(self.process.exitcode, told, self.log.read_text())


@dataclass
class Ground:
    """A data set in a folder of its own.

    Attributes
    ----------
    root
        Everything is in it, but for a store that is told otherwise.
    store_folder
        The store's folder; left out, in `root`.
    changes
        Settings that differ from those of all cases.
    home
        Dagster's home; left out, in `root`.
    """

    root: Path
    store_folder: Path | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    home: Path | None = None
    runs: int = 0

    def __post_init__(self) -> None:
        self.source.mkdir(parents=True, exist_ok=True)
        self.store_folder = self.store_folder or self.root / "store"

    @property
    def source(self) -> Path:
        """The folder of shards."""
        return self.root / "source"

    @property
    def config(self) -> CuratedDatasetConfig:
        """The settings."""
        return vector_config(self.source, **{**SMALL, **self.changes})

    @property
    def store(self) -> Store:
        """The store, as readers see it."""
        assert self.store_folder is not None
        return Store(self.store_folder)

    @property
    def folder(self) -> Path:
        """The data set's folder in the store."""
        return self.store.root / self.config.name

    def fill_source(self, shards: tuple[str, ...] = SHARDS, ending: str = "parquet") -> Ground:
        """Write the shards that are not there yet."""
        for shard in shards:
            if not (self.source / f"{shard}.{ending}").exists():
                write_shard(self.source, shard, ending)
        return self

    def start(
        self, fault: str = "", *, no_capabilities: bool = False, **environment: str
    ) -> Running:
        """Start a run with a fault."""
        self.runs += 1
        channel = self.root / f"run-{self.runs}"
        channel.mkdir()
        job = {
            "root": str(self.root),
            "store": str(self.store.root),
            "home": str(self.home or self.root / ".dagster"),
            "config": self.config.model_dump(mode="json", exclude_unset=True),
            "log": str(channel / "log"),
            "result": str(channel / "result.json"),
            "no_capabilities": no_capabilities,
            "environment": {
                "OUR_KEY": "testing",
                "OUR_SECRET": "testing",
                "AWS_EC2_METADATA_DISABLED": "true",
                "CURATION_FAULT": fault,
                "CURATION_FAULT_CHANNEL": str(channel),
                **environment,
            },
        }
        _serve()
        process = _context.Process(target=_child, args=(job,))
        process.start()
        return Running(process, channel / "result.json", channel / "log", channel)

    def run(self, fault: str = "", **more: Any) -> Ended:
        """Run and wait for the end."""
        return self.start(fault, **more).wait()

    def kill(self, point: str) -> None:
        """Run, and be killed at a point."""
        ended = self.run(f"kill:{point}")
        assert ended.killed, f"was not killed at {point}: {ended.said}\n{ended.log[-2000:]}"

    def copy_of(self, other: Ground) -> Ground:
        """Begin with the source and the store of another ground."""
        shutil.copytree(other.source, self.source, dirs_exist_ok=True)
        shutil.copytree(other.store.root, self.store.root, dirs_exist_ok=True)
        if (other.root / ".dagster").exists():
            shutil.copytree(other.root / ".dagster", self.root / ".dagster")
        return self

    def subset(self) -> Artifact:
        """Return the published subset."""
        return self.store.need(Address(self.config.name, SELECTED_SUBSET))

    def published(self) -> str:
        """Return the bytes of the published subset, as a hash, and its content hash."""
        found = self.subset()
        return f"{found.content_hash} {file_hash(found.path('subset.parquet'))}"

    def state(self) -> dict[str, str]:
        """Return every file of the data set with a hash, but for the lock."""
        return {
            str(p.relative_to(self.folder)): file_hash(p)
            for p in sorted(self.folder.rglob("*"))
            if p.is_file() and p.name != ".lock"
        }


def check_store(ground: Ground, shards: tuple[str, ...] = SHARDS, rows: Any = rows_of) -> None:
    """Check that nothing is left over, nothing is damaged and nothing is lost."""
    store, name = ground.store, ground.config.name
    assert not list(ground.folder.rglob(".tmp-*"))
    for folder in ground.folder.rglob("*"):
        if folder.is_dir() and VERSION.match(folder.name):
            parts = folder.parent.relative_to(ground.folder).parts
            store.open(Address(name, *parts), folder.name)
            # by ourselves as well: a store that no longer looks would open anything
            listed = json.loads((folder / "manifest.json").read_text())["files"]
            assert listed == {
                str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": file_hash(p)}
                for p in folder.rglob("*")
                if p.is_file() and p.name != "manifest.json"
            }, folder
    for asset in PER_SHARD:
        assert tuple(store.shards(name, asset)) == shards, asset
    for folder in ground.folder.iterdir():
        if folder.is_dir() and folder.name not in PER_SHARD:
            at = Address(name, folder.name)
            assert store.published(at)[-1].version == store.need(at).manifest.version
            sequences = [p.sequence for p in store.published(at)]
            assert sequences == list(range(1, len(sequences) + 1))
    for shard in shards:
        raw = store.need(Address(name, "raw", shard))
        wanted = rows(shard)["key"].to_list()
        assert pl.read_parquet(raw.path("rows.parquet"))["id"].to_list() == wanted
        assert raw.manifest.row_count == len(wanted)
    for asset in PER_SHARD[:2]:
        assert not store.failed(name, asset)


class Row:
    """A line of the table: what is expected, and what was seen when the case has ended."""

    def __init__(self, case: str, expected: str) -> None:
        self.cells = [case, expected, "not as expected"]

    @property
    def seen(self) -> str:
        """What was seen."""
        return self.cells[2]

    @seen.setter
    def seen(self, text: str) -> None:
        self.cells[2] = text


@contextmanager
def pausing(ground: Ground, fault: str) -> Iterator[Running]:
    """Start a run that waits at a point; whatever happens, it has ended after the block."""
    running = ground.start(f"pause:{fault}").reached()
    try:
        yield running
    finally:
        if running.process.is_alive():
            running.process.kill()
        running.process.join()

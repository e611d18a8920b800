"""One run of the pipeline in a process of its own, in which a fault happens at a named point.

The variable ``CURATION_FAULT`` says which: ``<action>:<point>:<subject>[:<number>]``, such as
``kill:renamed:centroids`` or ``pause:block:day-1``. The subject is an asset, a shard or a file,
the number counts how often the point was reached (0: every time). Nothing of the product is
changed on disk: points are put around its functions when a child starts.

Importing this module imports the whole pipeline, once: children are forked from the process that
did (multiprocessing's fork server).
"""

from __future__ import annotations

import ctypes
import datetime as dt
import functools
import json
import os
import signal
import sys
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

for _pool in ("CURATION_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[_pool] = "1"  # before the libraries start their threads: we are forked from
os.environ["CURATION_PICTURES"] = "0"

import alembic.command  # noqa: E402, F401
import dagster as dg  # noqa: E402
import dagster._core.storage.event_log.sqlite.sqlite_event_log  # noqa: E402
import dagster._core.storage.runs.sqlite.sqlite_run_storage  # noqa: E402
import dagster._core.storage.schedules.sqlite.sqlite_schedule_storage  # noqa: E402
import dagster._daemon.controller  # noqa: E402
import faiss  # noqa: E402, F401
import matplotlib.pyplot  # noqa: E402, F401
import s3fs  # noqa: E402, F401
import safetensors.torch  # noqa: E402, F401
import scipy.optimize  # noqa: E402, F401
import sklearn.linear_model  # noqa: E402, F401
import torch  # noqa: E402, F401

import curation.pipeline.local as local  # noqa: E402
from curation.config import CuratedDatasetConfig  # noqa: E402
from curation.pipeline import (  # noqa: E402, F401
    assets,
    component,
    dataset,
    evaluate,
    ingest,
    listing,
    pilot,
    report,
    score,
    shards,
    subset,
)
from curation.sources import remote  # noqa: E402
from curation.store import (  # noqa: E402
    Store,
    artifacts,
    failures,
    files,
    manifests,
    publishing,
)

FAULT = "CURATION_FAULT"
CHANNEL = "CURATION_FAULT_CHANNEL"  # folder by which a child and its test wait for each other
CLOCK = "CURATION_FAULT_CLOCK"  # seconds that are added to the time

_reached: Counter[tuple[str, str]] = Counter()


def reach(point: str, subject: str, *, tear: Callable[[], None] | None = None) -> None:
    """Do what is to be done at a point; `tear` leaves half of what is being written."""
    action, _, rest = os.environ.get(FAULT, "").partition(":")
    wanted = [*rest.split(":"), "1"]
    if wanted[:2] != [point, subject]:
        return
    _reached[point, subject] += 1
    if wanted[2] not in ("0", str(_reached[point, subject])):
        return
    channel = Path(os.environ[CHANNEL])
    (channel / "reached").touch()
    if action == "kill":
        if tear is not None:
            tear()
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "fill":
        fill_disk(Path(os.environ["CURATION_FAULT_BALLAST"]))
    elif action == "grow":
        path = Path(os.environ["CURATION_FAULT_GROWS"])
        with path.open("a") as file:
            line = path.read_text().splitlines()[0]
            file.write(line.replace("r1-", f"g{time.time_ns()}-") + "\n")
    elif action == "pause":
        deadline = time.monotonic() + 60
        while not (channel / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def fill_disk(ballast: Path) -> None:
    """Write, beside the store, until nothing more can be written."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1 << 9, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def around(
    owner: Any,
    name: str,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
) -> None:
    """Put points around a function; both get its arguments."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **named: Any) -> Any:
        if before is not None:
            before(*args, **named)
        result = original(*args, **named)
        if after is not None:
            after(*args, **named)
        return result

    setattr(owner, name, wrapped)


def asset_of(path: Path, root: Path) -> str:
    """Return the asset a path in the store belongs to."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return parts[1] if len(parts) > 1 else ""


def tear_files(folder: Path) -> None:
    """Cut the largest file of a folder in half."""
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def put_points(root: Path) -> None:
    """Put points around the functions that write."""
    _points_of_writes(root)
    _points_of_small_files(root)
    for name in ("_make", "_make_shard"):
        _points_of_stages(name)
    around(
        ingest.RowReader, "take", after=lambda self, block, *_, **__: reach("block", self.shard_key)
    )
    around(listing.Listing, "of", after=lambda *_, **__: reach("listed", "source"))
    init = ingest.RowReader.__init__

    @functools.wraps(init)
    def note_shard(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        self.shard_key = named["shard"]

    ingest.RowReader.__init__ = note_shard


def _points_of_stages(name: str) -> None:
    """Put points before and after each stage, for every shard where it goes by shards."""
    original = getattr(assets, name)

    def make(asset: str) -> Any:
        stage = original(asset)

        def staged(*args: Any) -> Any:
            reach("before", asset)
            result = stage(*args)
            reach("after", asset)
            return result

        return staged

    setattr(assets, name, make)


def _points_of_writes(root: Path) -> None:
    write = artifacts.Store.write

    @functools.wraps(write)
    def torn(self: Any, at: Any, recipe: Any, fill: Any, **how: Any) -> Any:
        def half(draft: Any) -> None:
            fill(draft)
            reach("fill", at.asset, tear=lambda: tear_files(draft.folder))

        reach("begin", at.asset)
        return write(self, at, recipe, half, **how)

    artifacts.Store.write = torn
    around(artifacts.Store, "_counted", before=lambda self, at, _: reach("data", at.asset))
    around(files, "bring_to_disk", before=lambda path: reach("manifest", asset_of(path, root)))
    around(files, "put_in_place", after=lambda _, path: reach("renamed", asset_of(path, root)))
    around(artifacts, "point_at", after=lambda path, _: reach("pointed", asset_of(path, root)))
    around(
        artifacts.Store, "publish", after=lambda self, at, *_, **__: reach("published", at.asset)
    )

    def torn_line(descriptor: int, entry: Any) -> None:
        line = json.dumps(asdict(entry)).encode()
        path = Path(f"/proc/self/fd/{descriptor}").readlink()

        def half() -> None:
            os.write(descriptor, line[: len(line) // 2])

        reach("log", asset_of(path, root), tear=half)

    around(publishing, "_append", before=torn_line)


def _points_of_small_files(root: Path) -> None:
    """Put points before and after a file or folder gets its name."""
    replace, rename = Path.replace, Path.rename

    def replaced(self: Path, target: Path) -> Path:
        name = f"{asset_of(Path(target), root)}/{Path(target).name}"
        recipe = f"{asset_of(Path(target), root)}/{Path(target).parent.name}"
        reach("replace", name)
        reach("replace", recipe)
        result = replace(self, target)
        reach("replaced", name)
        return result

    def renamed(self: Path, target: Path) -> Path:
        result = rename(self, target)
        if Path(target).name.startswith(files.TEMPORARY):
            reach("aside", asset_of(Path(target), root))
        return result

    Path.replace, Path.rename = replaced, renamed  # type: ignore[method-assign]
    around(artifacts, "remove_mark", after=lambda path: reach("unmarked", asset_of(path, root)))


def shift_clocks(seconds: float) -> None:
    """Let every clock that the product asks be off."""
    moment, nanoseconds = time.time, time.time_ns
    time.time = lambda: moment() + seconds
    time.time_ns = lambda: nanoseconds() + int(seconds * 10**9)

    class Shifted(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return dt.datetime.now(tz) + dt.timedelta(seconds=seconds)

    fake = types.SimpleNamespace(**vars(dt))
    fake.datetime = Shifted
    for module in (manifests, failures, sys.modules["curation.locks"]):
        module.dt = fake


def give_up_capabilities() -> None:
    """Give up root's right to read what nobody may read."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for word in range(3):  # effective, permitted, inheritable
        data[word] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def main(job: dict[str, Any]) -> None:
    """Run the pipeline as a job says and write what became of it."""
    out = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(job["environment"])
    os.environ["CURATION_STORE"] = job["store"]
    remote.DELAYS = (0.05, 0.05, 0.05)
    put_points(Path(job["store"]))
    if os.environ.get(CLOCK):
        shift_clocks(float(os.environ[CLOCK]))
    if job["no_capabilities"]:
        give_up_capabilities()
    told: dict[str, Any] = {"success": False, "error": "", "assets": {}, "failed_shards": {}}
    try:
        result = _run(job)
        told |= {
            "success": result.success,
            "assets": {a.asset: [a.computed, a.unchanged, a.error] for a in result.assets},
            "failed_shards": result.failed_shards,
        }
    except BaseException as error:
        traceback.print_exc()
        told["error"] = f"{type(error).__name__}: {error}"
    Path(job["result"]).write_text(json.dumps(told))


def _run(job: dict[str, Any]) -> local.RunResult:
    config = CuratedDatasetConfig.model_validate(job["config"])
    bound = dataset.Dataset(config, Store(Path(job["store"])), Path(job["root"]))
    if job["home"] is None:
        with dg.DagsterInstance.ephemeral() as instance:
            return local.run(bound, instance)
    os.environ["DAGSTER_HOME"] = job["home"]
    with local.instance() as instance:
        return local.run(bound, instance)

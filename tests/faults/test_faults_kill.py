"""SIGKILL at every boundary of a stage and in the middle of every kind of write."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_ground import MORE, Ground, check_store

from curation.pipeline.dataset import ASSETS, PER_SHARD

BOUNDARIES = [
    f"{when}:{asset}" + (":2" if asset in PER_SHARD and when == "before" else "")
    for asset in ASSETS
    for when in ("before", "after")
]
# in the order of a write: data, manifest, name, pointer, log
WRITES = [
    *(f"{point}:raw:2" for point in ("fill", "data", "manifest", "renamed", "pointed")),
    *(f"{point}:embeddings" for point in ("fill", "renamed")),
    *(f"{point}:centroids" for point in ("data", "log")),
    *(f"{point}:strata" for point in ("begin", "fill", "renamed", "pointed", "log", "published")),
    "pointed:sensitivity_scores:3",
    *(f"{point}:selected_subset" for point in ("fill", "manifest", "renamed", "pointed", "log")),
    "replace:raw/seen.json:2",
    "replaced:raw/seen.json:2",
    "replace:embeddings/.recipes",
    "replace:selected_subset/current",
]
# of a new shard: pilot, centroids and strata are kept, and nothing is written of them
MORE_WRITES = [
    *(f"{point}:raw" for point in ("fill", "pointed")),
    *(f"{point}:embeddings" for point in ("data", "published")),
    "renamed:sensitivity_scores",
    *(f"{point}:selected_subset" for point in ("fill", "renamed", "pointed", "log", "published")),
    "renamed:report",
    "replaced:raw/seen.json",
]


@pytest.mark.parametrize("point", [*BOUNDARIES, *WRITES])
def test_killed_in_the_first_run(ground: Ground, first: Ground, row, point):
    line = row(f"A killed, first run: {point}", "run again: the subset of a clean store")
    ground.kill(point)
    again = ground.run()
    assert again.success, again.said
    assert ground.published() == first.published()
    check_store(ground)
    line.seen = f"equal; {sum(again.computed.values())} artifacts written by the second run"


@pytest.mark.parametrize("point", [*BOUNDARIES[::2], *MORE_WRITES])
def test_killed_when_a_shard_is_added(grown: Ground, second: Ground, row, point):
    line = row(f"A killed, a shard came: {point}", "run again: the subset of a clean store")
    before = grown.published()
    grown.kill(point)
    assert grown.published() in (before, second.published())  # readers are served all the time
    again = grown.run()
    assert again.success, again.said
    assert again.computed["centroids"] == 0
    assert grown.published() == second.published()
    check_store(grown, MORE)
    line.seen = f"equal; {sum(again.computed.values())} artifacts written by the second run"


@pytest.mark.parametrize("point", ["replace:raw/failed.json", "replaced:raw/failed.json"])
def test_killed_while_a_shard_is_marked(grown: Ground, second: Ground, row, point):
    line = row(f"A killed at a shard's mark: {point}", "mended, run again: as a clean store")
    broken = grown.source / "day-3.parquet"
    broken.write_bytes(b"PAR1 but no more")
    grown.kill(point)
    marked = grown.run()
    assert marked.success, marked.said
    assert set(marked.told["failed_shards"]) == {"day-3"}
    assert "shard day-3: cannot read" in marked.said
    broken.unlink()
    grown.fill_source(MORE)
    grown.kill("unmarked:raw:4")
    again = grown.run()
    assert again.success, again.said
    assert grown.published() == second.published()
    check_store(grown, MORE)
    line.seen = "equal; the shard was named while it was broken"


@pytest.mark.parametrize("asset", ["raw", "centroids", "selected_subset"])
def test_killed_while_a_damaged_version_is_replaced(grown: Ground, first: Ground, row, asset):
    line = row(f"A killed between two renames: aside:{asset}", "run again: as a clean store")
    (grown.source / "day-3.parquet").unlink()
    damaged = max((p for p in (grown.folder / asset).rglob("*.*") if p.is_file()), key=_size)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    grown.kill(f"aside:{asset}")
    again = grown.run()
    assert again.success, again.said
    assert grown.published() == first.published()
    check_store(grown)
    line.seen = "equal"


def _size(path: Path) -> int:
    return path.stat().st_size

"""A store whose files were damaged: the next run heals it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_ground import Ground, check_store

from curation.pipeline.dataset import ASSETS, PER_SHARD

ALL = (*ASSETS, "strata")


def flip(folder: Path, current: Path) -> None:
    path = max(
        (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".json"),
        key=lambda p: p.stat().st_size,
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate_manifest(folder: Path, current: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:200])


def empty_pointer(folder: Path, current: Path) -> None:
    current.write_bytes(b"")


def dangling_pointer(folder: Path, current: Path) -> None:
    current.write_text("0123456789abcdef\n")


def remove_file(folder: Path, current: Path) -> None:
    next(p for p in sorted(folder.iterdir()) if p.name != "manifest.json").rename(
        folder.parents[2] / ".gone"
    )


CASES = [
    *((flip, asset) for asset in ALL),
    *(
        (damage, asset)
        for damage in (truncate_manifest, empty_pointer, dangling_pointer)
        for asset in ("raw", "embeddings", "centroids", "strata", "selected_subset")
    ),
    (truncate_manifest, "pilot_model"),
    (dangling_pointer, "pilot_model"),
    (remove_file, "sensitivity_scores"),
]


@pytest.mark.parametrize(
    ("damage", "asset"), CASES, ids=[f"{d.__name__}-{asset}" for d, asset in CASES]
)
def test_damaged(tmp_path, first: Ground, row, damage, asset):
    what = damage.__name__.replace("_", " ")
    line = row(f"H {what}: {asset}", "made again by the next run: as before")
    ground = Ground(tmp_path / "ground").copy_of(first)
    place = ground.folder / asset
    current = (place / "day-1" if asset in PER_SHARD else place) / "current"
    damage(current.parent / current.read_text().strip(), current)
    again = ground.run()
    assert again.success, again.said
    assert ground.published() == first.published()
    check_store(ground)
    line.seen = f"healed; {sum(again.computed.values())} artifacts written"

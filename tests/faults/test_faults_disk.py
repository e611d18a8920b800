"""A disk that is full from some point on, then enlarged."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_ground import Ground, check_store

POINTS = [
    "begin:raw:2",
    "fill:embeddings",
    "replace:raw/seen.json",
    "replace:embeddings/.recipes",
    "begin:centroids",
    "fill:strata",
    "replace:selected_subset/current",
    "log:selected_subset",
    "begin:report",
]


@pytest.fixture
def disk(file_system: Callable[[str], Path]) -> Path:
    """A file system of 8 MiB."""
    return file_system("8m")


def enlarge(disk: Path) -> None:
    """Make room; what filled the disk stays."""
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


@pytest.mark.parametrize("point", POINTS)
def test_full_disk(disk: Path, tmp_path: Path, first: Ground, row, point):
    line = row(
        f"B disk full from here on: {point}", "said with remedy; room made: as a clean store"
    )
    ground = Ground(tmp_path / "ground", store_folder=disk / "store").fill_source()
    ended = ground.run(f"fill:{point}", CURATION_FAULT_BALLAST=str(disk / "ballast"))
    assert (disk / "ballast").stat().st_size > 1 << 20
    assert not ended.success
    assert "the disk is full" in ended.said, ended.said
    assert "data set clouds" in ended.said
    assert "make room" in ended.said
    enlarge(disk)
    again = ground.run()
    assert again.success, again.said
    assert ground.published() == first.published()
    check_store(ground)
    line.seen = "equal; the message: the disk is full, what was not written, make room"

"""What a run will need is summed and told; what a machine has is read where it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curation import memory

MIB = 1 << 20


def test_a_plan_says_its_sum_and_its_parts_the_largest_first() -> None:
    plan = memory.Plan.of(
        [
            memory.Need("block", 64 * MIB),
            memory.Need.per_row("per-row numbers", 10_000_000, 48),
            memory.Need("nothing", 0),
        ]
    )
    assert plan.bytes == 64 * MIB + 480_000_000
    assert plan.largest is not None
    assert plan.largest.name == "per-row numbers"
    assert str(plan) == (
        "about 522 MiB: 458 MiB per-row numbers (10,000,000 rows x 48 B), 64 MiB block"
    )
    assert plan.as_dict() == {"block": 64 * MIB, "per-row numbers": 480_000_000}


def test_the_peak_of_a_process_is_what_it_has_touched() -> None:
    code = (
        "from curation import memory\n"
        "before = memory.resident()\n"
        "held = bytearray(200 << 20)\n"  # zeroed by calloc: pages appear when written
        "held[:: 4096] = b'x' * len(held[:: 4096])\n"
        "now = memory.resident()\n"
        "del held\n"
        "print(now - before, memory.peak() - before, memory.resident() - before)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    now, peak, after = (int(word) / MIB for word in told.stdout.split())
    assert now == pytest.approx(200, abs=10)
    assert peak == pytest.approx(200, abs=10)
    assert after < 20


def _machine(root: Path, *, cgroup: str, files: dict[str, str]) -> None:
    base = {"proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapTotal: 0 kB\n"}
    for name, text in (base | {"proc/self/cgroup": cgroup} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_control_group_above_counts(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version == 2:
        group, limit, used, idle = "0::/a/b\n", "memory.max", "memory.current", "inactive_file"
        base, none = "sys/fs/cgroup", "max\n"
    else:
        group, limit, used = "4:memory:/a/b\n", "memory.limit_in_bytes", "memory.usage_in_bytes"
        base, none, idle = "sys/fs/cgroup/memory", f"{2**63 - 4096}\n", "total_inactive_file"
    files = {
        f"{base}/a/b/{limit}": none,
        f"{base}/a/{limit}": f"{1024 * MIB}\n",
        f"{base}/a/{used}": f"{700 * MIB}\n",
        f"{base}/a/memory.stat": f"active_file 5\n{idle} {100 * MIB}\n",
    }
    _machine(tmp_path, cgroup=group, files=files)
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    assert memory.limit() == 1024 * MIB
    assert memory.available() == 424 * MIB

    with pytest.warns(RuntimeWarning, match="only 424 MiB are free now; take smaller blocks"):
        memory.Plan.of([memory.Need("blocks", 500 * MIB)]).check(remedy="take smaller blocks")
    with pytest.raises(MemoryError, match=r"about 2,000 MiB.*may hold 1,024 MiB at most; take"):
        memory.Plan.of([memory.Need("blocks", 2000 * MIB)]).check(remedy="take smaller blocks")


def test_without_control_groups_the_machine_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(tmp_path, cgroup="", files={})
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    assert memory.limit() == 8 << 30
    assert memory.available() == 4 << 30

"""The number format that ``dtype: auto`` stands for: measured once on a machine, then kept.

The format is part of an encoder's fingerprint, so that the answer must be the same every time. It
is measured in a process of its own the first time it is asked for, by processor time, which other
work on the machine hardly changes, and kept in the user's cache folder under a name that holds the
processor and the version of torch. Where nothing can be kept, the processor's flags decide.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from curation.encoders.cache import cache_folder, keep_first

log = logging.getLogger(__name__)

CPUINFO = Path("/proc/cpuinfo")
FASTER = 1.2
"""How many times as fast bfloat16 must be to be taken."""
PATIENCE = 120.0
"""Seconds the measurement may take before the flags decide."""

_known: dict[Path, str] = {}


def resolve_dtype(dtype: str) -> str:
    """Return ``float32`` or ``bfloat16``; ``auto`` is what was measured on this machine.

    bfloat16 is about twice as fast where the processor multiplies it natively, and far slower
    where it does not. torch is not imported: the measurement, once per processor and version of
    torch, is another process, and takes some seconds.
    """
    if dtype != "auto":
        return dtype
    path = record_path()
    if path not in _known:
        _known[path] = _kept(path) or _flagged()
    return _known[path]


def record_path() -> Path:
    """Return where the answer for this processor and version of torch is kept."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = ""
    key = json.dumps([*_processor(), torch])
    return cache_folder() / f"number-format-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _kept(path: Path) -> str | None:
    """Return the answer in the file, after measuring and writing it where it is missing."""
    try:
        text: str | None = path.read_text(encoding="utf-8")
    except OSError:
        # Asked before measuring: an answer that cannot be kept might be another one tomorrow.
        probe = path.with_name(f"{path.name}.writable")
        if keep_first(probe, "") is None:
            return None
        probe.unlink(missing_ok=True)
        text = keep_first(path, json.dumps(_measured()))
    try:
        found = json.loads(text or "")["dtype"]
    except (ValueError, KeyError, TypeError):
        log.warning("%s cannot be read: delete it, and it is measured again", path)
        return None
    return found if found in ("float32", "bfloat16") else None


def _measured() -> dict[str, object]:
    """Return the answer and how it was found, from a process that has loaded torch."""
    code = "from curation.encoders.number_format import measure; measure()"
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and a constant
            [sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, check=True
        )
        faster = float(done.stdout.decode().split()[-1])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return {"dtype": _flagged(), "by": "flags of the processor"}
    dtype = "bfloat16" if faster >= FASTER else "float32"
    return {"dtype": dtype, "by": "measured", "bfloat16_times_as_fast": round(faster, 3)}


def measure() -> None:
    """Print how many times as fast as float32 a product in bfloat16 is, on one thread."""
    import time

    import torch
    from torch.nn.functional import linear

    torch.set_num_threads(1)
    exact = (torch.randn(1024, 384), torch.randn(1536, 384))
    sides = [exact, tuple(one.bfloat16() for one in exact)]
    best = [float("inf"), float("inf")]
    with torch.inference_mode():
        for turn in range(12):
            for side, (x, weight) in enumerate(sides):
                began = time.thread_time()
                linear(x, weight)
                if turn > 1:
                    best[side] = min(best[side], time.thread_time() - began)
    print(best[0] / best[1])


def _flagged() -> str:
    native = {"avx512_bf16", "amx_bf16"} & set(_processor()[1].split())
    return "bfloat16" if native else "float32"


def _processor() -> tuple[str, str]:
    """Return the name and the flags of the first processor; empty where they are not told."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return "", ""
    found = {"model name": "", "flags": ""}
    for line in reversed(lines):
        name, _, value = line.partition(":")
        if name.strip() in found:
            found[name.strip()] = value.strip()
    return found["model name"], found["flags"]

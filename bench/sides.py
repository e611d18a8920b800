"""A selector of ``bench.peers`` in a process of its own, with a limit of time and of memory."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.peers import PEERS
from curation.threads import POOLS, count

ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
SPARE_GIB = 2.0
STARTING = 180.0
POLL = 0.1


class UnableError(Exception):
    """A selector can't do what it was asked here; the message says why."""


class Side:
    """One selector, waiting for seeds.

    Parameters
    ----------
    name
        Of ``bench.peers.PEERS``.
    file, scores
        ``.npy`` files of the rows and, for ours, of their scores.
    rows, budget
        How many of the rows, and how many to choose.
    limit
        Seconds after which a choice is given up.
    """

    def __init__(
        self, name: str, file: Path, *, rows: int, budget: int, limit: float, scores: Path
    ) -> None:
        python = Path(sys.executable) if PEERS[name].own else PEERS_PYTHON
        if not python.exists():
            raise UnableError(
                f"{python.relative_to(ROOT)} is missing; `make bench-select` makes it"
            )
        self.limit = limit
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        command = [str(python), "-m", "bench.peers", name, str(file)]
        self._process = subprocess.Popen(
            [*command, f"--rows={rows}", f"--budget={budget}"],
            cwd=ROOT,
            env=_environment(own=PEERS[name].own) | {"BENCH_SCORES": str(scores)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.version = str(self._answer(STARTING)["version"])

    def run(self, seed: int) -> dict[str, Any]:
        """Return one choice: `seconds`, `cpu`, `mib`, `indices` and `weights`.

        Raises
        ------
        UnableError
            If it fails, takes longer than the limit, or takes the machine's memory.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        return self._answer(self.limit)

    def close(self) -> None:
        """End the process; once is enough."""
        if self._errors.closed:
            return
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self, limit: float) -> dict[str, Any]:
        """Wait for a line; meanwhile look at the clock and at the memory that is left."""
        began, least = time.monotonic(), available_gib()
        with selectors.DefaultSelector() as waiting:
            assert self._process.stdout is not None
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            while not waiting.select(POLL):
                least = min(least, available_gib())
                if time.monotonic() - began > limit:
                    self._give_up(f"stopped after {limit:.0f} s")
                if least < SPARE_GIB:
                    self._give_up(f"stopped with less than {SPARE_GIB:.0f} GiB of memory left")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = [one for one in self._errors.read().splitlines() if one.strip()]
            self._give_up(said[-1].strip() if said else f"ended: {self._process.returncode}")
        told: dict[str, Any] = json.loads(line)
        return told

    def _give_up(self, why: str) -> None:
        self.close()
        raise UnableError(why)


def available_gib() -> float:
    """Return the memory that processes can still get, in GiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 2**20
    return float("inf")


def _environment(*, own: bool) -> dict[str, str]:
    """Return the variables of a process: every pool has the same number of threads.

    Waiting threads spin or sleep as each library has it: the project's own choice is for our side.
    """
    found = dict(os.environ)
    if not own:
        found.pop("OMP_WAIT_POLICY", None)
    pools = (*POOLS, "NUMBA_NUM_THREADS")
    return found | dict.fromkeys(pools, str(count())) | {"JAX_PLATFORMS": "cpu"}

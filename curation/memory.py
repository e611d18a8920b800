"""What a run will need of memory, item by item, and what the process and the machine have.

A plan is made of named numbers of bytes before anything is allocated, so that it can be told, kept
and compared with the peak that was seen.
"""

from __future__ import annotations

import os
import resource
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
LIBRARIES = {"torch": 195, "scipy": 45, "sklearn": 20, "faiss": 15}  # MiB that importing them takes
_ROOT = Path("/")
_counting = 0  # how many stages, one inside another, the peak is counted for
_NO_LIMIT = 1 << 60  # version 1 of control groups writes a huge number where there is no limit


@dataclass(frozen=True)
class Need:
    """One thing that takes memory.

    Attributes
    ----------
    name
        What it is.
    bytes
        How much of it is held at the moment when most is held.
    how
        Where the number comes from, for the reader; may be empty.
    """

    name: str
    bytes: int
    how: str = ""

    @classmethod
    def per_row(cls, name: str, rows: int, each: float) -> Need:
        """Return what `rows` rows take at `each` bytes."""
        return cls(name, round(rows * each), f"{rows:,} rows x {each:g} B")

    @classmethod
    def libraries(cls, *names: str) -> Need:
        """Return what importing those of some libraries takes that are not there yet."""
        missing = sum(LIBRARIES[name] for name in names if name not in sys.modules)
        return cls("libraries", missing * MIB)

    def __str__(self) -> str:
        """Return ``480 MiB per-row numbers (10,000,000 rows x 48 B)``."""
        return f"{mib(self.bytes)} {self.name}" + (f" ({self.how})" if self.how else "")


@dataclass(frozen=True)
class Plan:
    """Everything a run will hold at its peak, beyond what the process holds already.

    Attributes
    ----------
    needs
        Its parts.
    """

    needs: tuple[Need, ...]

    @classmethod
    def of(cls, needs: Iterable[Need]) -> Plan:
        """Return the plan of some needs; those of nothing are left out."""
        return cls(tuple(need for need in needs if need.bytes > 0))

    @property
    def bytes(self) -> int:
        """Sum of all parts."""
        return sum(need.bytes for need in self.needs)

    @property
    def largest(self) -> Need | None:
        """The largest part; None where there is none."""
        return max(self.needs, key=lambda need: need.bytes, default=None)

    def __str__(self) -> str:
        """Return one line: the sum, then its parts, the largest first."""
        parts = sorted(self.needs, key=lambda need: -need.bytes)
        if not parts:
            return "about 0 MiB"
        return f"about {mib(self.bytes)}: " + ", ".join(map(str, parts))

    def as_dict(self) -> dict[str, int]:
        """Return bytes by name, for manifests and figures."""
        found: dict[str, int] = {}
        for need in self.needs:
            found[need.name] = found.get(need.name, 0) + need.bytes
        return found

    def check(self, *, remedy: str) -> None:
        """Warn if this is more than is free now, and refuse if it is more than there can be.

        Parameters
        ----------
        remedy
            What to do about it, a clause that ends the message.

        Raises
        ------
        MemoryError
            If it exceeds the machine's memory or the limit of the process' control group.
        """
        least = limit()
        if least is not None and self.bytes > least:
            raise MemoryError(
                f"this needs {self}; this process may hold {mib(least)} at most; {remedy}"
            )
        free = available()
        if free is not None and self.bytes > free:
            warnings.warn(
                f"this needs {self}; only {mib(free)} are free now; {remedy}",
                RuntimeWarning,
                stacklevel=3,
            )


def mib(number: float) -> str:
    """Return a number of bytes as text: ``612 MiB``, below ten with one digit more."""
    size = number / MIB
    return f"{size:,.0f} MiB" if size >= 9.95 or size == 0.0 else f"{size:.1f} MiB"


def resident() -> int:
    """Return the bytes this process holds now, pages of memory maps included.

    Where the system doesn't tell, the most it has held so far.
    """
    found = _status("VmRSS")
    return peak() if found is None else found


def peak() -> int:
    """Return the most bytes this process has held so far."""
    found = _status("VmHWM")
    if found is not None:
        return found
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


@contextmanager
def peak_from_now() -> Iterator[None]:
    """Let :func:`peak` count from here on, where the system can; inside another, from that one."""
    global _counting
    if _counting == 0:
        with suppress(OSError):  # then it stays that of the process so far
            Path("/proc/self/clear_refs").write_text("5")
    _counting += 1
    try:
        yield
    finally:
        _counting -= 1


def limit() -> int | None:
    """Return the most bytes this process can ever hold: machine or control group; None: unknown."""
    known = [found for found in (_machine_total(), *(most for most, _ in _groups())) if found]
    return min(known, default=None)


def available() -> int | None:
    """Return the bytes that can still be taken now, by machine and control group; None: unknown.

    Pages of files that the system can drop count as free.
    """
    known = [max(0, most - used) for most, used in _groups()]
    told = _meminfo("MemAvailable")
    if told is not None:
        known.append(told)
    return min(known, default=None)


def _status(field: str) -> int | None:
    return _kib(_ROOT / "proc/self/status", field)


def _meminfo(field: str) -> int | None:
    return _kib(_ROOT / "proc/meminfo", field)


def _machine_total() -> int | None:
    told = _meminfo("MemTotal")
    if told is not None:
        return told + (_meminfo("SwapTotal") or 0)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _kib(path: Path, field: str) -> int | None:
    """Return a field of a file of lines like ``VmRSS:  1234 kB``, in bytes."""
    for line in _lines(path):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def _groups() -> list[tuple[int, int]]:
    """Return limit and use of every control group above this process that has a limit."""
    found = []
    for line in _lines(_ROOT / "proc/self/cgroup"):
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            base, most, used, idle = "sys/fs/cgroup", "max", "current", "inactive_file"
        elif "memory" in kinds.split(","):
            base, idle = "sys/fs/cgroup/memory", "total_inactive_file"
            most, used = "limit_in_bytes", "usage_in_bytes"
        else:
            continue
        for folder in _upwards(_ROOT / base, path):
            least, held = _whole(folder / f"memory.{most}"), _whole(folder / f"memory.{used}")
            if least is not None and least < _NO_LIMIT:
                found.append((least, max(0, (held or 0) - _idle(folder, idle))))
    return found


def _upwards(base: Path, path: str) -> list[Path]:
    """Return a group's folder and those above it; inside a container the outer ones are absent."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [base.joinpath(*parts[:end]) for end in range(len(parts), -1, -1)]


def _idle(folder: Path, field: str) -> int:
    """Return bytes of files in a group's page cache that can be dropped."""
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name == field:
            return int(value)
    return 0


def _whole(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []

"""Progress of long work, told to whoever listens: a terminal's bar or a run's log.

Work reports with :func:`track`; where it is shown is decided by the caller with :func:`listen`.
Nobody listening costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """Something that shows progress."""

    def start(self, label: str, total: int) -> int:
        """Begin a piece of work of `total` units and return its number."""

    def advance(self, task: int, amount: int) -> None:
        """Note that `amount` further units of `task` are done."""

    def finish(self, task: int) -> None:
        """Note that `task` has ended, whether or not it was completed."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


_listener: ContextVar[Listener | None] = ContextVar("curation_progress", default=None)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Send the progress of everything inside the block to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Listener | None:
    """Return who listens now, if anyone."""
    return _listener.get()


@contextmanager
def track(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Report a piece of work; the block calls the yielded function with units done."""
    current = _listener.get()
    if current is None:
        yield lambda amount: None
        return
    task = current.start(label, total)
    try:
        yield lambda amount: current.advance(task, amount)
    finally:
        current.finish(task)


def say(line: str) -> None:
    """Tell whoever listens a line that stays."""
    current = _listener.get()
    if current is not None:
        current.say(line)


class LogListener:
    """Writes a line at most every `seconds`, for a run's log page.

    Progress bars in bulk freeze Dagster's log page, so lines are throttled and short work says
    nothing at all.
    """

    def __init__(self, write: Callable[[str], None], *, seconds: float = 10.0) -> None:
        self._write = write
        self._seconds = seconds
        self._tasks: dict[int, tuple[str, int, int, float]] = {}
        self._last = time.monotonic()

    def start(self, label: str, total: int) -> int:
        """Begin a piece of work."""
        task = len(self._tasks)
        self._tasks[task] = (label, total, 0, time.monotonic())
        return task

    def advance(self, task: int, amount: int) -> None:
        """Count, and write a line when the last one is long enough ago."""
        label, total, done, began = self._tasks[task]
        done += amount
        self._tasks[task] = (label, total, done, began)
        now = time.monotonic()
        if now - self._last < self._seconds:
            return
        self._last = now
        left = (now - began) * (total - done) / max(done, 1)
        self._write(f"{label}: {done:,} of {total:,}, about {left:,.0f} s left")

    def finish(self, task: int) -> None:
        """End a piece of work."""

    def say(self, line: str) -> None:
        """Write a line."""
        self._write(line)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and reporting on loading, inside the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()

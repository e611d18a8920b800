"""Runs of one data set, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dagster as dg

from curation.locks import dataset_lock
from curation.pipeline.dataset import Dataset

_until_the_end: dict[tuple[str, str], ExitStack] = {}


@contextmanager
def alone(context: dg.AssetExecutionContext, dataset: Dataset) -> Iterator[None]:
    """Keep other processes from changing the data set while a step runs.

    A run that was launched has a process of its own, which keeps the lock until it ends: no other
    run comes between its steps. A run inside somebody else's process keeps it for the step.
    """
    store, name = dataset.store.root, dataset.name
    lock = dataset_lock(store, name, owner=f"run {context.run_id}", told=context.log.info)
    launched = context.run.remote_job_origin is not None
    if launched and (str(store), name) not in _until_the_end:
        stack = ExitStack()
        stack.enter_context(lock)
        _until_the_end[str(store), name] = stack
        yield
        return
    with lock:
        yield

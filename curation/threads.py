"""One setting for every thread pool.

BLAS, OpenMP (faiss, torch) and polars each start a pool of their own; nested, they fight for the
same cores. The count is ``CURATION_THREADS``, else the number of processors this process may use.
"""

from __future__ import annotations

import gc
import os

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def count() -> int:
    """Return the number of threads a pool may use."""
    value = os.environ.get("CURATION_THREADS", "")
    if value.isdigit() and int(value) > 0:
        return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_defaults() -> None:
    """Set the pools' variables where unset. Has effect only before the libraries are imported.

    Loading torch and transformers makes a million objects that stay. Python looks through them for
    cycles 1,300 times, a fifth of the time it takes; from here on it does so more seldom.
    """
    gc.set_threshold(50_000, 20, 20)
    for name in POOLS:
        os.environ.setdefault(name, str(count()))
    # Waiting threads sleep instead of spinning: with another process on the same two cores, ten
    # fine-tuning steps took 49 s spinning and 7 s sleeping.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # OpenBLAS's wait for 2**20 cycles, not 2**26: a fifth of the processor time of a pass over a
    # million rows was its threads waiting for the next product.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

"""What a selection will need of memory, before it begins."""

from __future__ import annotations

import logging

from curation import products
from curation.clustering.passes import handed_over
from curation.mapped import ROOMS, WORTH
from curation.memory import MIB, Need, Plan, mib
from curation.selection import columns
from curation.selection.plan import resolve_budget, resolve_k
from curation.selection.table import SKETCH_DIMENSION
from curation.threads import count

LOG = logging.getLogger("curation.select")

SAMPLE = 64  # rows per centroid that everything but the scores is fitted on
COPIES = 2.5  # of the sample: as it is read, as it is clustered, and what is worked out of it
LEARNT_ON = 4000  # rows at least
# Bytes per row, held in arrays: what is drawn by (68) and what the draw needs while it is made.
IN_MEMORY = 180
ON_DISK = 60  # bytes per row in temporary files while rows are ordered; 36 are kept
PIECES = 24  # arrays of numbers of the rows that are worked on at a time
PER_DRAW = 500  # bytes: candidates of all strata, and the rows drawn
BETWEEN = 24  # MiB that threads leave behind on their way through a block


def memory_needed(
    n: int,
    d: int,
    *,
    budget: int | None = None,
    fraction: float | None = None,
    epsilon: float | None = None,
    delta: float = 0.05,
    k: int | str = "auto",
    space: str = "embedding",
    classes: int = 0,
    design: str = "coordinated",
    tilted: bool = False,
    ids: bool = False,
    mapped: bool = True,
    block_mib: int = 64,
) -> Plan:
    """Return what :func:`curation.select` will hold at its peak, beyond the process as it is.

    Up to 262,144 rows all numbers of the rows are held in memory. Beyond, they are in temporary
    files (``$TMPDIR``), as long as the design is ``coordinated`` without tilt, shares and minimum.
    What the caller holds (labels, groups, embeddings in memory) is not counted.

    Parameters
    ----------
    n, d
        Shape of the embeddings.
    budget, fraction, epsilon, delta, k, space, design, block_mib
        As in :func:`curation.select`.
    classes
        Number of classes, where the space appends them.
    tilted
        Whether there are tilt, shares or minimum.
    ids
        Whether ids are given.
    mapped
        Whether the embeddings are in a file, of float32; else they are in memory.

    Returns
    -------
    Plan
        ``str`` of it is one line; ``bytes`` its sum.
    """
    s = resolve_budget(n, budget=budget, fraction=fraction, epsilon=epsilon, delta=delta)
    centroids = resolve_k(k, budget=s, rows=n)
    width = {"embedding": d, "embedding+label": d + classes, "gradient": SKETCH_DIMENSION}[space]
    rows = min(n, max(1, block_mib * MIB // (4 * d)))
    sample = min(n, max(SAMPLE * centroids, LEARNT_ON))
    on_disk = n > columns.AT_A_TIME
    held = 0 if on_disk and design == "coordinated" and not tilted else n
    libraries = ["scipy", "faiss"]
    if n * centroids * width >= products.IMPORT_PAYS:
        libraries.append("torch")  # else its products of bytes would not pay for it
    blocks = (ROOMS if -(-n // rows) >= WORTH else 2) if mapped else 0
    return Plan.of(
        [
            Need.libraries(*libraries),
            Need("blocks of embeddings", blocks * rows * 4 * d, f"{blocks} x {mib(rows * 4 * d)}"),
            Need("points made of a block", rows * 4 * width * (space != "embedding")),
            Need("work on a block", BETWEEN * MIB + rows * width // 2),
            Need("pieces of a block", handed_over(rows, width, centroids), f"{count()} threads"),
            Need.per_row("sample", sample, COPIES * 4 * max(width, d)),
            Need("sums of clusters", centroids * width * 48, f"{centroids:,} clusters"),
            Need("pieces of per-row numbers", min(n, columns.AT_A_TIME) * PIECES * 8 * (held < n)),
            Need.per_row("per-row numbers", held, IN_MEMORY),
            Need.per_row("ids", n * ids, 24.0),
            Need.per_row("draws", s, PER_DRAW),
        ]
    )


def tell(plan: Plan, rows: int) -> None:
    """Log what will be needed, and warn or refuse where it is not there.

    Small selections say nothing.
    """
    if rows <= columns.AT_A_TIME and plan.bytes < 1024 * MIB:
        return
    files = rows * ON_DISK if rows > columns.AT_A_TIME else 0
    LOG.info("needs %s of memory, and %s of temporary files", plan, mib(files))
    plan.check(
        remedy="a smaller block_mib or k takes less, and the design 'coordinated' without tilt, "
        "shares or minimum keeps the rows' numbers on disk"
    )

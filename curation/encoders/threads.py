"""Torch's threads."""

from __future__ import annotations


def set_threads(count: int) -> None:
    """Set how many threads torch computes with, for the whole process.

    Nothing in this package does so by itself. The same seed gives the same bytes only under the
    same number of threads, since sums are split differently otherwise.

    Parameters
    ----------
    count : int
        At least 1.
    """
    import torch

    if count < 1:
        raise ValueError(f"threads: at least 1, got {count}")
    torch.set_num_threads(count)

"""Choose, weight and certify the rows a model should be trained on."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curation.selection import (
        AdaptiveRounds,
        Selection,
        memory_needed,
        select,
        select_regression,
    )
    from curation.subset import load_subset

__version__ = "0.1.0"
__all__ = [
    "AdaptiveRounds",
    "Selection",
    "load_subset",
    "memory_needed",
    "select",
    "select_regression",
]


SUBPACKAGES = ("clustering", "encoders", "models", "reporting", "sampling", "sources")


def __dir__() -> list[str]:
    """List the API for completion, whether or not it was imported yet."""
    return sorted({*globals(), *__all__, *SUBPACKAGES})


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that a code location does not pay for numpy and faiss."""
    if name in ("AdaptiveRounds", "Selection", "memory_needed", "select", "select_regression"):
        from curation import selection

        return getattr(selection, name)
    if name == "load_subset":
        from curation.subset import load_subset

        return load_subset
    if name in SUBPACKAGES:
        return importlib.import_module(f"curation.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Composes clustering and sampling in memory: what ``curation.select`` is.

The pipeline runs the same functions over blocks from the store; this package is for a notebook, and
for everything that both need.
"""

from curation.sampling.guard import FLAT
from curation.selection.api import select
from curation.selection.calibrated import Kind, calibrate
from curation.selection.curve import Foresight
from curation.selection.drawing import law_of
from curation.selection.fit import (
    Borders,
    Fitted,
    PerRow,
    Settings,
    above,
    assign,
    fit,
    fit_sample,
    measure,
)
from curation.selection.inputs import Labels, Numbers, read_labels
from curation.selection.needs import memory_needed
from curation.selection.parts import from_parts, to_parts
from curation.selection.per_row import find_tags
from curation.selection.plan import AUTO_K_MOST, label_scale, resolve_budget, resolve_k
from curation.selection.regression import RegressionSelection, select_regression
from curation.selection.result import Selection
from curation.selection.rounds import AdaptiveRounds
from curation.selection.table import SKETCH_DIMENSION, View

__all__ = [
    "AUTO_K_MOST",
    "FLAT",
    "SKETCH_DIMENSION",
    "AdaptiveRounds",
    "Borders",
    "Fitted",
    "Foresight",
    "Kind",
    "Labels",
    "Numbers",
    "PerRow",
    "RegressionSelection",
    "Selection",
    "Settings",
    "View",
    "above",
    "assign",
    "calibrate",
    "find_tags",
    "fit",
    "fit_sample",
    "from_parts",
    "label_scale",
    "law_of",
    "measure",
    "memory_needed",
    "read_labels",
    "resolve_budget",
    "resolve_k",
    "select",
    "select_regression",
    "to_parts",
]

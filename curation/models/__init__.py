"""Models that rows are scored and judged with: pilots on embeddings, fine-tuned encoders, metrics.

Importing this package loads neither torch, transformers nor scikit-learn. Models are saved as
safetensors and JSON; nothing is ever pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curation.models.base import ModelError, PilotModel
from curation.models.loss import weighted_cross_entropy
from curation.models.metrics import evaluate
from curation.models.pilot import FittedPilot, load_pilot
from curation.models.pilot_fit import fit_image_classifier, fit_pilot

if TYPE_CHECKING:
    from curation.models.text import TextClassifier

__all__ = [
    "FittedPilot",
    "ModelError",
    "PilotModel",
    "evaluate",
    "fit_image_classifier",
    "fit_pilot",
    "fit_text_classifier",
    "load_pilot",
    "load_text_classifier",
    "weighted_cross_entropy",
]


def fit_text_classifier(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    weights: np.ndarray | None,
    classes: Sequence[str],
    weights_folder: Path,
    max_length: int = 128,
    epochs: int = 5,
    learning_rate: float = 3e-4,
    batch_size: int = 32,
    seed: int = 0,
    label: str = "fine-tune",
) -> TextClassifier:
    """Fine-tune a transformer encoder with a fresh classification head.

    Parameters
    ----------
    texts, labels : sequence of str
        (n,) training rows and their classes.
    weights : numpy.ndarray, optional
        (n,) row weights, at least 0; they are used as they are, without clipping. Only their ratios
        matter (:func:`weighted_cross_entropy`).
    classes : sequence of str
        Every class known in the data set, also those without a training row.
    weights_folder : Path
        A folder with ``model.safetensors``, ``config.json`` and tokenizer files.
    max_length : int
        Tokens kept per text.
    epochs : int
        Passes over the rows.
    learning_rate : float
        Peak rate of the encoder; the fresh head learns thirty times as fast.
    batch_size : int
        Rows per step.
    seed : int
        Decides the head's first weights, dropout and the order of the batches. The same seed on the
        same number of threads gives the same model, byte for byte.
    label : str
        What progress is reported under, in rows.

    Returns
    -------
    TextClassifier

    Raises
    ------
    ModelError
        If rows, labels, weights and classes do not fit together, the folder cannot be loaded, or
        the loss stops being finite.
    """
    from curation.models.text_fit import fit

    return fit(
        texts,
        labels,
        weights=weights,
        classes=classes,
        weights_folder=weights_folder,
        max_length=max_length,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        label=label,
    )


def load_text_classifier(folder: Path) -> TextClassifier:
    """Load what :meth:`TextClassifier.save` wrote.

    Raises
    ------
    ModelError
        If `folder` does not hold a text classifier.
    """
    from curation.models.text import load

    return load(folder)

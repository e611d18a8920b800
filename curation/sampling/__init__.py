"""Scores, laws, designs, weights and certificates. Arrays in, arrays out."""

from curation.sampling.certificates import Certificate, certify, sample_size
from curation.sampling.designs import DESIGNS, Draw, draw, inclusion_probabilities
from curation.sampling.estimators import Estimate, effective_sample_size, estimate_total
from curation.sampling.laws import balanced_constant, law, sensitivity
from curation.sampling.weights import training_weights

__all__ = [
    "DESIGNS",
    "Certificate",
    "Draw",
    "Estimate",
    "balanced_constant",
    "certify",
    "draw",
    "effective_sample_size",
    "estimate_total",
    "inclusion_probabilities",
    "law",
    "sample_size",
    "sensitivity",
    "training_weights",
]

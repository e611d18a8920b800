"""Scores, laws, designs, weights and certificates. Arrays in, arrays out."""

from curation.sampling.along import coordinated_along
from curation.sampling.calibration import CalibrationError, rake
from curation.sampling.certificates import Certificate, certify, certify_rounds, sample_size
from curation.sampling.designs import DESIGNS, Draw, draw, inclusion_probabilities
from curation.sampling.estimators import (
    Estimate,
    design_effect,
    effective_sample_size,
    estimate_calibrated,
    estimate_difference,
    estimate_total,
)
from curation.sampling.inclusion import Inclusion, find_inclusion
from curation.sampling.laws import balanced_constant, law, sensitivity
from curation.sampling.random_numbers import permanent_random_numbers
from curation.sampling.regression import (
    REGRESSION_LAWS,
    excess_risk,
    leverage_scores,
    medoid_leverage,
    regression_baseline,
    regression_law,
    regression_scores,
    ridge_leverage_scores,
    row_norm_scores,
    weighted_least_squares,
)
from curation.sampling.weights import training_weights

__all__ = [
    "DESIGNS",
    "REGRESSION_LAWS",
    "CalibrationError",
    "Certificate",
    "Draw",
    "Estimate",
    "Inclusion",
    "balanced_constant",
    "certify",
    "certify_rounds",
    "coordinated_along",
    "design_effect",
    "draw",
    "effective_sample_size",
    "estimate_calibrated",
    "estimate_difference",
    "estimate_total",
    "excess_risk",
    "find_inclusion",
    "inclusion_probabilities",
    "law",
    "leverage_scores",
    "medoid_leverage",
    "permanent_random_numbers",
    "rake",
    "regression_baseline",
    "regression_law",
    "regression_scores",
    "ridge_leverage_scores",
    "row_norm_scores",
    "sample_size",
    "sensitivity",
    "training_weights",
    "weighted_least_squares",
]

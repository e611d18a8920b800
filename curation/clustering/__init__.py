"""Embeddings to centroids, medoids and assignments. Arrays in, arrays out."""

from curation.clustering.kmeans import assign, fit_centroids
from curation.clustering.medoids import ClusterSummary, summarise
from curation.clustering.spaces import GradientSketch, LabelScale, append_labels

__all__ = [
    "ClusterSummary",
    "GradientSketch",
    "LabelScale",
    "append_labels",
    "assign",
    "fit_centroids",
    "summarise",
]

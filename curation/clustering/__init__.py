"""Embeddings to centroids, medoids and assignments. Arrays in, arrays out."""

from curation.clustering.hardness import Hardness, RidgeHead
from curation.clustering.kmeans import assign, fit_centroids, squared_distance
from curation.clustering.medoids import ClusterSummary, Summariser, summarise
from curation.clustering.points import BlockReader, Points
from curation.clustering.spaces import GradientSketch, LabelScale, append_labels

__all__ = [
    "BlockReader",
    "ClusterSummary",
    "GradientSketch",
    "Hardness",
    "LabelScale",
    "Points",
    "RidgeHead",
    "Summariser",
    "append_labels",
    "assign",
    "fit_centroids",
    "squared_distance",
    "summarise",
]

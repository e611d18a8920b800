"""Artifacts on disk: written whole or not at all, and refused when they differ.

Layout under the store's root::

    <dataset>/<asset>[/<shard>]/<version>/manifest.json and the data files
    <dataset>/<asset>[/<shard>]/current          # names the version readers get

A version is written to a temporary folder, fsynced and renamed; then ``current`` is replaced. A
process that dies at any point leaves either the old state or the new one, and at most a temporary
folder, which the next write to the same place removes.
"""

from curation.store.artifacts import CURRENT, Artifact, Store
from curation.store.manifests import (
    MANIFEST,
    SAFE_PART,
    VIEW_PREFIX,
    Address,
    Draft,
    Manifest,
    Recipe,
    StoreError,
    digest,
    file_hash,
)

__all__ = [
    "CURRENT",
    "MANIFEST",
    "SAFE_PART",
    "VIEW_PREFIX",
    "Address",
    "Artifact",
    "Draft",
    "Manifest",
    "Recipe",
    "Store",
    "StoreError",
    "digest",
    "file_hash",
]

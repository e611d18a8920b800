"""Artifacts on disk: written whole or not at all, and refused when they differ.

Layout under the store's root::

    <dataset>/<asset>[/<shard>]/<version>/manifest.json and the data files
    <dataset>/<asset>[/<shard>]/current          # names the version readers get
    <dataset>/<asset>/published.jsonl            # what it named before, for assets without shards
    <dataset>/<asset>/<shard>/failed.json        # why the shard could not be read or computed
    <dataset>/<asset>/.recipes/<fingerprint>     # which shard has an artifact of that recipe
    <dataset>/.lock                              # held while a data set is curated (locks.py)
    <dataset>/.holdout-<hash>.json               # what a holdout was asked (pipeline/protected.py)

Names that begin with a dot are never those of shards or versions.

A version is written to a temporary folder, fsynced and renamed; then ``current`` is replaced. A
process that dies at any point leaves either the old state or the new one, and at most a temporary
folder, which the next write to the same place removes. The order of versions and publications is
counted; clocks have no say in it.
"""

from curation.store.artifacts import Artifact, Store
from curation.store.failures import Failed
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
from curation.store.publishing import CURRENT, Published

__all__ = [
    "CURRENT",
    "MANIFEST",
    "SAFE_PART",
    "VIEW_PREFIX",
    "Address",
    "Artifact",
    "Draft",
    "Failed",
    "Manifest",
    "Published",
    "Recipe",
    "Store",
    "StoreError",
    "digest",
    "file_hash",
]

"""Which shard has an artifact of a recipe: what renamed shards are not computed again by."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from curation.store.files import fsync, write_atomically
from curation.store.manifests import SAFE_PART, Manifest

RECIPES = ".recipes"


def note(asset: Path, fingerprint: str, *, shard: str, version: str) -> None:
    """Note where an artifact of a recipe is."""
    folder = asset / RECIPES
    folder.mkdir(exist_ok=True)
    # the temporary file lies with the shard's, where the next write finds it should we die here
    write_atomically(folder / fingerprint, f"{shard}/{version}\n", beside=asset / shard)


def recall(asset: Path, fingerprint: str) -> tuple[str, str] | None:
    """Return shard and version of an artifact of a recipe; what was noted may be out of date."""
    try:
        text = (asset / RECIPES / fingerprint).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    shard, _, version = text.partition("/")
    return (shard, version) if SAFE_PART.match(shard) and SAFE_PART.match(version) else None


def forget(asset: Path, fingerprint: str) -> None:
    """Remove a note that is out of date."""
    (asset / RECIPES / fingerprint).unlink(missing_ok=True)


def take_files(manifest: Manifest, source: Path, target: Path) -> None:
    """Link a version's files into another folder, or copy them where links can't be made."""
    for name in manifest.files:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, path)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, none with links, or too many links
            shutil.copyfile(source / name, path)
            fsync(path)

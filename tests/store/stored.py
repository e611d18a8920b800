"""What tests of the store write, publish and read."""

from __future__ import annotations

import os

from curation.store import Address, Draft, Recipe, Store

AT = Address("demo", "raw", "s1")
RECIPE = Recipe("1", "c", {"source": "x"}, seed=0)


def write(store: Store, text: str = "hello", recipe: Recipe = RECIPE, at: Address = AT, **how):
    def fill(draft: Draft) -> None:
        (draft.folder / "rows.txt").write_text(text)
        (draft.folder / "view-rows.png").write_bytes(os.urandom(8))
        draft.row_count = len(text)
        draft.figures["letters"] = len(text)

    return store.write(at, recipe, fill, **how)


SUBSET = Address("demo", "selected_subset")


def publish(store: Store, text: str, **how):
    """Write and publish a version of an asset without shards."""
    return write(store, text, Recipe(text, "", {}), at=SUBSET, **how)


def log_of(store: Store) -> list[tuple[int, str]]:
    return [(p.sequence, p.version) for p in store.published(SUBSET)]


def shard(name: str) -> Address:
    return Address("demo", "raw", name)

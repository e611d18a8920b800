"""Vectors, pictures, archives, arrays and saved data sets that are damaged, odd or hostile."""

from __future__ import annotations

from pathlib import Path

import cases_media as media
import cases_vectors as vectors
import pytest
from corpus_case import of_world
from judge import check_shard, check_subset, seen
from worlds import GENTLE, World, build, curate, ingest

COMMON = {"evaluation": {"probe_seeds": 2, "fine_tune": {"enabled": False}}, "validation": GENTLE}

WORLDS = {
    vectors.WORLD: (
        {
            **COMMON,
            "columns": {"id": "key", "input": "vector", "label": "label"},
            "holdout": {"fraction": 0.25},
            "encoder": {"type": "precomputed"},
            "clusters": {"k": 8},
            "selection": {"budget": 60},
        },
        vectors.good_clouds,
        curate,
    ),
    media.WORLD: (
        {
            **COMMON,
            "source": {"format": "images", "image_size": [8, 8], "pattern": "*"},
            "columns": {"id": "id", "input": "image", "label": "label"},
            "holdout": {"fraction": 0.25},
            "encoder": {"type": "pixels"},
            "clusters": {"k": 4},
            "selection": {"budget": 20},
        },
        media.good_pictures,
        curate,
    ),
    vectors.NPY: (
        {
            "columns": {"input": "embedding", "label": "label"},
            "source": {"format": "npy"},
            "selection": {"budget": 3},
        },
        vectors.good_arrays,
        ingest,
    ),
    media.TAR: (
        {"columns": {"id": "id", "input": "txt", "label": "cls"}, "selection": {"budget": 3}},
        media.good_archives,
        ingest,
    ),
    media.SAVED: (
        {
            "columns": {"id": "key", "input": "text", "label": "label"},
            "source": {"format": "huggingface"},
            "selection": {"budget": 3},
        },
        media.good_saved,
        ingest,
    ),
}
CASES = [case for name in WORLDS for case in of_world(name)]


@pytest.fixture(scope="module")
def world_of(tmp_path_factory):
    """A function that returns a world, run once."""
    made: dict[str, World] = {}

    def get(name: str) -> World:
        if name not in made:
            settings, good, run = WORLDS[name]
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CURATION_PICTURES", "0")
                made[name] = run(build(tmp_path_factory.mktemp(name), name, settings, good))
        return made[name]

    return get


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.world}-{case.name}")
def test_case(world_of, case, record_property):
    world = world_of(case.world)
    expected = world.expected[case.name]
    record_property("hostile", [case.world, case.told, str(expected), seen(world, case.name)])
    check_shard(world, case.name, expected)


@pytest.mark.parametrize("name", WORLDS)
def test_sound_shards_are_not_affected(world_of, name):
    world = world_of(name)
    for shard in world.expected:
        if shard.startswith("good-"):
            check_shard(world, shard, world.expected[shard])


@pytest.mark.parametrize("name", [n for n, (_, _, how) in WORLDS.items() if how is curate])
def test_runs_succeed_and_subsets_hold_rows_of_the_source(world_of, name):
    world = world_of(name)
    assert world.result.success, world.assets()
    check_subset(world)


def test_nothing_was_written_beside_the_store(world_of):
    """Archives are never unpacked."""
    root = world_of(media.TAR).dataset.root
    assert sorted(p.name for p in Path(root).iterdir()) == ["source", "store"]

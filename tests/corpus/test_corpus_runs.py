"""Whole data sets that are odd, each curated in a run of its own."""

from __future__ import annotations

import re

import pytest
from cases_runs import WHOLES
from judge import check_message, check_shard, check_subset
from worlds import build, curate

from curation.sources import SourceError

SETTINGS = {
    "columns": {"id": "key", "input": "vector", "label": "label"},
    "holdout": {"fraction": 0.25},
    "encoder": {"type": "precomputed"},
    "clusters": {"k": 6},
    "selection": {"budget": 24},
    "evaluation": {"probe_seeds": 2, "fine_tune": {"enabled": False}},
}


@pytest.mark.parametrize("whole", WHOLES, ids=lambda whole: whole.name)
def test_whole(whole, tmp_path, monkeypatch, record_property):
    monkeypatch.setenv("CURATION_PICTURES", "0")
    settings = {**SETTINGS, **whole.settings}
    world = build(tmp_path, whole.name, settings, whole.make, cases=[])
    wanted = "error" if whole.error else "accepted"
    try:
        curate(world)
        errors = world.assets()
        seen = "error" if errors else "accepted"
    except SourceError as error:
        errors, seen = [str(error)], "error"
    record_property("hostile", ["data sets", whole.told, wanted, seen])
    for shard, expected in world.expected.items():
        check_shard(world, shard, expected)
    if whole.error:
        assert errors
        assert re.search(whole.error, errors[0], re.DOTALL), errors
        check_message(errors[0], dataset=whole.name)
        return
    assert world.result.success, errors
    check_subset(world)

"""Two runs of one data set at once, and clocks that go backwards."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from fault_ground import MORE, SHARDS, Ground, check_store, pausing

from curation.locks import holder
from curation.pipeline.dataset import Dataset
from curation.retention import apply, plan
from curation.store import Address


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("point", ["before:raw:2", "begin:centroids"])
def test_two_runs_at_once(ground: Ground, first: Ground, row, point, killed):
    what = "the first is killed" if killed else "both end"
    line = row(
        f"D two runs at once, the first at {point}; {what}",
        "the second waits, then goes on; the subset of a single run",
    )
    with pausing(ground, point) as one:
        two = ground.start()
        time.sleep(1.5)
        assert two.process.is_alive()
        known = holder(ground.store.root, "clouds")
        assert known is not None
        assert known["pid"] == one.process.pid
        if killed:
            one.process.kill()
        else:
            ended = one.go()
            assert ended.success, ended.said
        waited = two.wait()
    assert waited.success, waited.said + waited.log[-2000:]
    made = sum(waited.computed.values())
    assert (made > 0) == killed
    assert ground.published() == first.published()
    assert holder(ground.store.root, "clouds") is None
    check_store(ground)
    line.seen = f"equal; the second waited, and wrote {made} artifacts"


def test_a_clock_that_goes_backwards(ground: Ground, second: Ground, row):
    line = row(
        "E the clock goes back two days, then on by one",
        "history and `current` by sequence; retention keeps the newest published",
    )
    day = 86_400
    at = Address("clouds", "selected_subset")
    seen = []
    for shards, seconds in ((SHARDS, 0), (MORE, -2 * day), ((*MORE, "day-4"), -day)):
        ended = ground.fill_source(shards).run(CURATION_FAULT_CLOCK=str(seconds))
        assert ended.success, ended.said
        seen.append(ground.store.need(at).manifest)
        if shards == MORE:
            assert ground.published() == second.published()
    assert [m.ordinal for m in seen] == [1, 2, 3]
    assert seen[1].created < seen[2].created < seen[0].created
    log = ground.store.published(at)
    assert [(p.sequence, p.version) for p in log] == [
        (i + 1, m.version) for i, m in enumerate(seen)
    ]
    assert ground.store.versions(at) == seen
    bound = Dataset(ground.config, ground.store, ground.root)
    now = dt.datetime.now(dt.UTC)
    apply(plan(bound, versions=2, days=None, present={*MORE, "day-4"}, now=now))
    assert ground.store.versions(at) == seen[1:]
    again = ground.run(CURATION_FAULT_CLOCK=str(-3 * day))
    assert again.success, again.said
    assert sum(again.computed.values()) == 0
    check_store(ground, (*MORE, "day-4"))
    line.seen = "sequence 1, 2, 3; the second and third stay, nothing is computed again"

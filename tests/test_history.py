"""What was published one after the other, and what two subsets differ in."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest

from curation.history import DELETED, diff, history
from curation.quarantine import counts, quarantined
from curation.store import Address, Draft, Recipe, Store, StoreError

AT = Address("demo", "selected_subset")


def publish(store: Store, rows: list[tuple], *, changes=None, publish: bool = True) -> str:
    """Publish a subset of (id, shard, label, weight) and return its version."""
    schema = ["id", "shard", "topic", "weight"]
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.col("weight").cast(pl.Float64)
    )

    def fill(draft: Draft) -> None:
        frame.write_parquet(draft.folder / "subset.parquet")
        draft.row_count = len(frame)
        if changes is not None:
            draft.figures["changes"] = changes

    recipe = Recipe("1", json.dumps(rows), {})
    return store.write(AT, recipe, fill, publish=publish).manifest.version


FIRST = [("a", "s1", "cat", 2), ("b", "s1", "dog", 3), ("c", "s2", "cat", 4)]
SECOND = [
    ("e", "s1", "dog", 1),
    ("c", "s2", "cat", 10),
    ("a", "s1", "cat", 5),
    ("d", "s3", None, 7),
]
THIRD = [("d", "s3", None, 7)]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def versions(store):
    first = publish(store, FIRST)
    noted = {"against": first, "kept": 2, "added": 2, "removed": 1, "added_because": {"new": 2}}
    second = publish(store, SECOND, changes=noted)
    return [first, second, publish(store, THIRD, changes={"against": "another", "kept": 9})]


def figures(entries):
    return [(e.sequence, e.version, e.rows, e.kept, e.added, e.removed) for e in entries]


def test_history_counts_against_the_one_before(store, versions):
    found = history("demo", store)
    assert figures(found) == [
        (1, versions[0], 3, 0, 3, 0),
        (2, versions[1], 4, 2, 2, 1),
        (3, versions[2], 1, 1, 0, 3),
    ]
    assert found[1].reasons["added_because"] == {"new": 2}
    assert found[0].reasons is None
    assert found[2].reasons is None  # noted against a version that is not the one before
    assert [e.note for e in found] == ["", "", ""]
    assert history("nothing", store) == []


def test_a_version_that_comes_back_is_counted_anew(store, versions):
    store.publish(AT, versions[1])
    last = history("demo", store)[-1]
    assert (last.sequence, last.kept, last.added, last.removed) == (4, 1, 3, 0)
    assert last.reasons is None


def test_history_tells_what_retention_deleted(store, versions):
    shutil.rmtree(store.folder(AT) / versions[0])
    found = history("demo", store)
    assert found[0].note == DELETED
    assert figures(found) == [
        (1, versions[0], 3, None, None, None),
        (2, versions[1], 4, 2, 2, 1),  # from what was noted when it was drawn
        (3, versions[2], 1, 1, 0, 3),
    ]
    shutil.rmtree(store.folder(AT) / versions[1])
    assert figures(history("demo", store))[2] == (3, versions[2], 1, None, None, None)


def test_history_tells_what_is_damaged(store, versions):
    (store.folder(AT) / versions[0] / "subset.parquet").write_bytes(b"x")
    found = history("demo", store)
    assert found[0].note.startswith("damaged: ")
    assert found[2].kept == 1


def test_diff_tells_rows_and_totals(store, versions):
    found = diff("demo", "1", "2", store, label="topic")
    assert (found.a.version, found.a.sequence, found.a.rows) == (versions[0], 1, 3)
    assert found.b.version == versions[1]
    assert found.gone == ()
    assert found.kept.columns == ["id", "shard", "class", "weight_a", "weight_b", "change"]
    assert found.kept.rows() == [("c", "s2", "cat", 4, 10, 6), ("a", "s1", "cat", 2, 5, 3)]
    assert found.added.rows() == [("d", "s3", None, 7), ("e", "s1", "dog", 1)]
    assert found.removed.rows() == [("b", "s1", "dog", 3)]
    assert found.by_shard.rows() == [
        ("s1", 1, 1, 1, 5, 6),
        ("s2", 1, 0, 0, 4, 10),
        ("s3", 0, 1, 0, 0, 7),
    ]
    assert found.by_label.rows() == [
        ("cat", 2, 0, 0, 6, 15),
        ("dog", 0, 1, 1, 3, 1),
        (None, 0, 1, 0, 0, 7),
    ]


def test_diff_the_other_way_round_is_the_mirror(store, versions):
    there, back = diff("demo", "1", "2", store), diff("demo", "2", "1", store)
    assert there.added.rows() == back.removed.rows()
    assert there.by_shard["added"].to_list() == back.by_shard["removed"].to_list()
    assert (there.kept["change"] == -back.kept["change"]).all()
    assert diff("demo", "1", "1", store).by_shard["added"].sum() == 0


def test_rows_without_a_class_are_one_group(store, versions):
    found = diff("demo", "2", "3", store, label="topic")
    assert found.by_label.rows()[-1] == (None, 1, 0, 0, 7, 7)


def test_diff_without_the_label_column(store, versions):
    for label in (None, "nowhere"):
        found = diff("demo", "1", "2", store, label=label)
        assert found.by_label is None
        assert "class" not in found.kept.columns
        assert len(found.kept) == 2


def test_subsets_are_named_in_several_ways(store, versions):
    found = diff("demo", "previous", "current", store)
    assert [found.a.version, found.b.version] == versions[1:]
    assert diff("demo", versions[0], versions[1][:6], store).b.version == versions[1]
    held_back = publish(store, [("z", "s1", "cat", 1)], publish=False)
    found = diff("demo", "current", held_back, store)
    assert (found.b.version, found.b.sequence) == (held_back, None)
    assert found.b.rows == 1


def test_the_last_publication_of_a_version_that_came_back(store, versions):
    store.publish(AT, versions[0])
    assert diff("demo", "1", "current", store).b.sequence == 4
    assert diff("demo", "1", "current", store).a.sequence == 1
    assert diff("demo", versions[0], "2", store).a.sequence == 4


@pytest.mark.parametrize("name", ["9", "abc", "0", "-1", "", "../..", "zzzzzz", "previous "])
def test_what_there_is_not_is_said(store, versions, name):
    with pytest.raises(StoreError, match=r"no subset .*\(1 to 3\).*curation history demo"):
        diff("demo", name, "current", store)


def test_a_prefix_must_be_of_one_version(store, versions):
    for version in ("abcd000000000000", "abcd111111111111"):
        shutil.copytree(store.folder(AT) / versions[0], store.folder(AT) / version)
        path = store.folder(AT) / version / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "version": version}))
    with pytest.raises(StoreError, match=r"'abcd' is the beginning of 2 versions.*give more"):
        diff("demo", "abcd", "current", store)
    assert diff("demo", "abcd0", "current", store).a.version == "abcd000000000000"


def test_one_subset_has_no_previous(store):
    with pytest.raises(StoreError, match="no subset was published yet"):
        diff("demo", "previous", "current", store)
    publish(store, FIRST)
    with pytest.raises(StoreError, match="only one subset"):
        diff("demo", "previous", "current", store)


def test_diff_with_a_deleted_version_says_so(store, versions):
    shutil.rmtree(store.folder(AT) / versions[0])
    found = diff("demo", "1", "current", store, label="topic")
    assert found.gone == (versions[0],)
    assert (found.a.rows, found.b.rows) == (3, 1)
    assert len(found.kept) == len(found.added) == len(found.removed) == len(found.by_shard) == 0


def reject(store: Store, shard: str, rows: list[tuple] | None) -> None:
    def fill(draft: Draft) -> None:
        pl.DataFrame({"id": ["x"]}).write_parquet(draft.folder / "rows.parquet")
        if rows is not None:
            schema = {"row": pl.UInt32, "field": pl.String, "reason": pl.String, "value": pl.String}
            frame = pl.DataFrame(rows, schema=schema, orient="row")
            frame.write_parquet(draft.folder / "quarantine.parquet")

    store.write(Address("demo", "raw", shard), Recipe("1", shard, {}), fill)


def test_every_rejected_row_is_listed(store):
    reject(store, "s2", [(7, "text", "is null", None), (9, "text", "is empty", "")])
    reject(store, "s1", [(3, "label", "is null", None), (4, "text", "is null", None)])
    reject(store, "s3", None)
    found = quarantined("demo", store)
    assert found.columns == ["shard", "row", "field", "reason", "value"]
    assert [r[:3] for r in found.rows()] == [
        ("s1", 3, "label"),
        ("s1", 4, "text"),
        ("s2", 7, "text"),
        ("s2", 9, "text"),
    ]
    assert quarantined("demo", store, shard="s2").rows() == found.rows()[2:]
    assert quarantined("demo", store, shard="s3").is_empty()
    assert quarantined("nothing", store).is_empty()
    with pytest.raises(StoreError, match=r"no shard 's4' was read \(of 3: s1, s2, s3\)"):
        quarantined("demo", store, shard="s4")


def test_rejected_rows_are_counted_with_an_example(store):
    reject(store, "s1", [(1, "n", "odd", "b"), (2, "n", "odd", "a"), (3, "m", "odd", "c")])
    assert counts(quarantined("demo", store)).rows() == [
        ("s1", "n", "odd", 2, 1, "b"),
        ("s1", "m", "odd", 1, 3, "c"),
    ]

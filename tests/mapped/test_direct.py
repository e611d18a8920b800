"""Files read past the system's cache, and how it is found out whether that pays."""

import gc
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

import curation
from curation.clustering.points import Points
from curation.mapped import ROOMS, WORTH, Direct, Keeping, Mapped, direct, kept
from curation.mapped.kept import COUNTED, SETTLED

WAY = SETTLED + COUNTED  # blocks until a way of reading has a figure


def mapped_rows(path, n=60_011, d=77, dtype=np.float32):
    rows = np.random.default_rng(0).normal(size=(n, d)).astype(dtype)
    np.save(path, rows)
    return rows, np.load(path, mmap_mode="r")


def past_the_cache(source, block_mib=1):
    """Return points that are read past the cache from the first block on."""
    points = Points(source, block_mib=block_mib)
    points._keeping.stays, points._keeping.decided = False, True
    return points


def check(points, rows):
    """Hold all blocks against the rows."""
    assert np.array_equal(np.concatenate([block.copy() for _, block in points.blocks()]), rows)


@pytest.fixture
def possible(tmp_path):
    """Skip where the file system of the tests can't be read so: found out by other means."""
    rows, source = mapped_rows(tmp_path / "probe.npy", n=2000)
    try:
        file = os.open(tmp_path / "probe.npy", os.O_RDONLY | os.O_DIRECT)
    except (AttributeError, OSError):
        pytest.skip("no O_DIRECT on the file system of temporary files")
    try:
        os.preadv(file, [mmap.mmap(-1, 4096)], 0)
    except OSError:
        pytest.skip("no O_DIRECT on the file system of temporary files")
    finally:
        os.close(file)
    with Direct(Mapped.behind(source)) as reader:
        assert np.array_equal(reader.read(source), rows)


class TestReading:
    @pytest.mark.parametrize("backwards", [False, True])
    @pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
    def test_gives_the_rows_of_the_map(self, possible, tmp_path, dtype, backwards):
        rows, source = mapped_rows(tmp_path / "rows.npy", dtype=dtype)
        for part, wanted in ((source, rows), (source[1000:], rows[1000:])):
            points = past_the_cache(part)
            places = []
            for place, block in points.blocks(backwards=backwards):
                np.testing.assert_array_equal(block, wanted[place].astype(np.float32))
                places.append(place)
            assert not points._keeping.stays
            places = places[::-1] if backwards else places
            assert [p.start for p in places] == [0, *(p.stop for p in places[:-1])]
            assert places[-1].stop == len(wanted)
            assert len(places) > 10

    def test_of_a_map_that_begins_far_into_its_file(self, possible, tmp_path):
        rows = np.random.default_rng(0).normal(size=(30_000, 64)).astype(np.float32)
        (tmp_path / "rows.raw").write_bytes(b"x" * 70_003 + rows.tobytes())
        source = np.memmap(tmp_path / "rows.raw", np.float32, "r", 70_003, rows.shape)
        points = past_the_cache(source)
        check(points, rows)
        assert not points._keeping.stays

    def test_overwrites_nothing_that_somebody_holds(self, possible, tmp_path):
        rows, source = mapped_rows(tmp_path / "rows.npy")
        points = past_the_cache(source)
        held = [block[::2] for _, block in points.blocks()]
        wanted = [rows[place][::2] for place, _ in points.blocks()]
        assert not points._keeping.stays
        for block, part in zip(held, wanted, strict=True):
            np.testing.assert_array_equal(block, part)

    def test_uses_the_same_memory_again(self, possible, tmp_path, monkeypatch):
        _, source = mapped_rows(tmp_path / "rows.npy")
        made, empty = [], np.empty

        def noted(shape, *rest):
            if rest == (np.uint8,):
                made.append(shape)
            return empty(shape, *rest)

        monkeypatch.setattr(np, "empty", noted)
        assert len([1 for _ in past_the_cache(source).blocks()]) > 10
        assert 1 <= len(made) <= ROOMS

    def test_is_left_where_another_file_took_the_name(self, possible, tmp_path):
        rows, source = mapped_rows(tmp_path / "rows.npy")
        np.save(tmp_path / "new.npy", np.zeros_like(rows))
        (tmp_path / "new.npy").replace(tmp_path / "rows.npy")
        points = past_the_cache(source)
        check(points, rows)
        assert points._keeping.stays

    def test_is_left_where_nobody_says_which_file_is_mapped(self, possible, tmp_path, monkeypatch):
        rows, source = mapped_rows(tmp_path / "rows.npy")
        monkeypatch.setattr(direct, "_ADDRESSES", tmp_path / "nothing")
        points = past_the_cache(source)
        check(points, rows)
        assert points._keeping.stays

    def test_is_not_misled_by_the_names_of_other_files(self, possible, tmp_path):
        """Bytes that are no text, and what Python takes for the end of a line."""
        others = []
        for name in (b"caf\xe9.npy", b"a\x0b\x1c\rb c.npy"):
            path = tmp_path / os.fsdecode(name)
            np.save(path, np.zeros(5000))
            others.append(np.load(path, mmap_mode="r"))
        rows, source = mapped_rows(tmp_path / "rows.npy")
        points = past_the_cache(source)
        check(points, rows)
        assert not points._keeping.stays
        assert all((other == 0.0).all() for other in others)

    def test_goes_on_after_who_read_stopped_early(self, possible, tmp_path):
        rows, source = mapped_rows(tmp_path / "rows.npy")
        points = past_the_cache(source)
        files = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            for place, block in points.blocks():
                assert np.array_equal(block, rows[place])
                if place.start:
                    break
        assert not points._keeping.stays
        gc.collect()
        assert len(list(Path("/proc/self/fd").iterdir())) <= files

    def test_is_left_where_the_array_may_be_written_to(self, possible, tmp_path):
        rows, _ = mapped_rows(tmp_path / "rows.npy")
        source = np.load(tmp_path / "rows.npy", mmap_mode="r+")
        source[:] = 7.0
        points = past_the_cache(source)
        check(points, np.full_like(rows, 7.0))
        assert points._keeping.stays

    def test_is_left_where_the_system_can_not(self, possible, tmp_path, monkeypatch):
        calls = []

        def refuse(*_):
            calls.append(1)
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(os, "preadv", refuse)
        rows, source = mapped_rows(tmp_path / "rows.npy")
        points = past_the_cache(source)
        for _ in range(2):
            check(points, rows)
        assert len(calls) == 1
        assert points._keeping.stays

    def test_makes_no_difference_to_a_selection(self, possible, tmp_path, monkeypatch):
        rows, _ = mapped_rows(tmp_path / "rows.npy")
        scores = np.abs(rows[:, 0]) + 1.0
        plain = curation.select(rows, scores, budget=100)
        monkeypatch.setattr(kept, "WORTH", 1)
        monkeypatch.setattr(kept, "DEAR", 0.0)  # always worth it, once it was tried
        seen = []
        read = Direct.read

        def noted(self, part):
            found = read(self, part)
            seen.append(found is not None)
            return found

        monkeypatch.setattr(Direct, "read", noted)
        chosen = curation.select(tmp_path / "rows.npy", scores, budget=100, block_mib=1)
        assert len(seen) > WAY
        assert all(seen)
        np.testing.assert_array_equal(chosen.indices, plain.indices)
        np.testing.assert_allclose(chosen.weights, plain.weights, rtol=1e-12)


def drive(keeping, stays, past, blocks):
    """Let blocks take `stays(number)` or `past` seconds; return which were left in the cache."""
    ways = []
    for number in range(blocks):
        ways.append(keeping.stays)
        way = keeping.stays
        keeping.took(stays(number) if way else past, stayed=way)
    return ways


class TestTrial:
    def test_goes_past_a_cache_that_is_dear(self):
        keeping = Keeping(WORTH)
        ways = drive(keeping, lambda _: 0.25, 0.04, WORTH)
        assert ways == [True] * WAY + [False] * (WORTH - WAY)
        assert keeping.decided

    def test_stays_with_one_that_is_not(self):
        keeping = Keeping(1000)
        ways = drive(keeping, lambda _: 0.06, 0.04, 1000)
        assert ways.count(False) == WAY
        assert keeping.stays
        assert not keeping.decided

    def test_is_made_again_once_memory_gets_dear(self):
        keeping = Keeping(1000)
        ways = drive(keeping, lambda number: 0.05 if number < 500 else 0.25, 0.04, 1000)
        assert ways[:500].count(False) == WAY
        assert ways[500 + 2 * WAY :].count(True) == 0

    def test_is_not_misled_by_single_blocks(self):
        keeping = Keeping(1000)
        ways = drive(keeping, lambda number: 3.0 if number % 5 == 0 else 0.05, 0.04, 1000)
        assert ways.count(False) == WAY

    def test_is_not_made_for_a_few_blocks(self):
        assert all(drive(Keeping(WORTH - 1), lambda _: 0.25, 0.01, WORTH))

"""What the speed benchmark does with its figures: verdicts, files, the page; limits of a side."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from bench import harness, peers, performance, select, show, sides, speed
from bench.harness import Ratio, Timings

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "kept")
    monkeypatch.delenv("BENCH_QUICK", raising=False)
    monkeypatch.delenv("BENCH_PARTS", raising=False)


@pytest.mark.parametrize(
    ("value", "text"), [(0.99985, "0.99985"), (1.0, "1"), (1.004, "1"), (0.375, "0.375")]
)
def test_what_is_below_one_is_not_said_to_be_one(value, text):
    assert harness.three_digits(value) == text


@pytest.mark.parametrize(
    ("value", "bound", "at_least", "met"),
    [
        (2.0, 1.5, True, True),
        (1.5, 1.5, True, True),
        (1.4, 1.5, True, False),
        (1.4, 1.5, False, True),
        (1.5, 1.5, False, True),
        (1.6, 1.5, False, False),
        (float("nan"), 1.5, True, False),
        (float("nan"), 1.5, False, False),
    ],
)
def test_a_ratio_is_met_on_its_own_side(value, bound, at_least, met):
    assert Ratio("a / b", value, bound, at_least=at_least).met is met


@pytest.mark.parametrize("met", [True, False])
def test_finish_keeps_everything_and_ends_with_the_ratios(met, capsys):
    ratios = [Ratio("x / y", 2.0, 1.0 if met else 3.0, at_least=True, note="noted")]
    timings = {"what": Timings({"x": [2.0, 1.0, 9.0], "y": [1.0, 1.0, 1.0]})}
    status = harness.finish("part", ratios, timings=timings, figures={"rows": np.int64(7)})
    assert status == (0 if met else 1)
    kept = json.loads(harness.results_of("part").read_text())
    assert kept["ratios"][0]["met"] is met
    assert kept["seconds"]["what"]["x"] == [2.0, 1.0, 9.0]
    assert kept["figures"] == {"rows": 7}
    assert kept["machine"]["threads"] >= 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("x / y: 2.000 (at least")
    assert ("MISSED" in last) is not met


def test_sides_are_timed_in_turn_and_the_order_turns_round():
    order: list[str] = []
    ran = harness.in_turn(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3
    )
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert [len(seconds) for seconds in ran.seconds.values()] == [3, 3]


def test_ratios_are_those_of_medians_and_rounds_belong_together():
    timed = Timings({"a": [2.0, 4.0, 100.0], "b": [1.0, 2.0, 4.0]})
    assert timed.ratio("a", "b") == 2.0
    assert timed.spread("a", "b") == "single rounds 2 to 25"


def test_quick_figures_lie_beside_the_others(monkeypatch):
    whole = harness.results_of("part")
    monkeypatch.setenv("BENCH_QUICK", "1")
    assert harness.results_of("part") != whole


def test_parts_by_name():
    assert speed.chosen("") == list(performance.PARTS)
    assert speed.chosen("select, cluster") == ["select", "cluster"]
    with pytest.raises(SystemExit, match="known: encode, cluster"):
        speed.chosen("selekt")


def row(name: str, seconds: list[float], *, rows: int = 100, reasons: tuple[str, ...] = ()):
    return {
        "name": name,
        "title": peers.PEERS[name].title,
        "package": peers.PEERS[name].package,
        "version": "1",
        "rows": rows,
        "seconds": seconds,
        "ours": [1.0] * len(seconds),
        "ours_cpu": 2.0,
        "cpu": 1.0,
        "mib": 3.0,
        "distance": 0.9,
        "error": 0.05,
        "draws": 5,
        "reasons": list(reasons),
    }


def test_ratios_of_selectors():
    """Uniform rows need not be beaten; a peer stopped at full size took at least the limit."""
    rows = [
        row("ours", [1.0]),
        row("uniform", [0.1]),
        row("k-center", [9.0]),
        row("kmeans", [0.5]),
        row("coreax", [7.0], rows=50, reasons=("100 rows: stopped after 120 s",)),
        row("apricot", [7.0], rows=50, reasons=("100 rows: all pairs are 9 GiB, 1 GiB are free",)),
        {"name": "activeml", "title": "", "package": "", "reasons": ["100 rows: ImportError"]},
    ]
    found = {one.name: one for one in select.ratios(rows, 100, 120.0)}
    assert [one.value for one in found.values()] == [120.0, 7.0, 0.5, 9.0]
    last = list(found.values())[-1]
    assert last.note == "single rounds 9 to 9; in CPU seconds 0.5"
    assert (last.name, last.bound) == ("numpy k-center greedy / ours", 8.0)
    assert [one.met for one in found.values()] == [True, True, False, True]
    assert "all pairs are 9 GiB" in found["apricot-select facility location, lazy / ours"].note


def test_quality_of_a_choice(monkeypatch):
    """A coverage of nothing and a total without error, where every row is chosen."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 4)).astype(np.float32)
    measure = object.__new__(select.Measure)
    measure.settings, measure.points = {"budget": 6}, points
    measure.losses, measure._even = rng.gamma(1.0, size=60), {}
    everything = {"indices": list(range(60)), "weights": None}
    distance, error = measure.quality(60, [everything])
    assert distance == pytest.approx(0.0, abs=1e-5)
    assert error == pytest.approx(0.0, abs=1e-12)
    one = {"indices": [0], "weights": None}  # all rows are nearest to it, and so are its weight
    distance, error = measure.quality(60, [one])
    assert distance > 1.0
    assert error == pytest.approx(abs(60 * measure.losses[0] / measure.losses.sum() - 1.0))
    doubled = {"indices": list(range(60)), "weights": [2.0] * 60}
    assert measure.quality(60, [doubled, everything])[1] == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize("name", ["uniform", "lightweight", "k-center"])
def test_baselines_of_our_own(name):
    points = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    chosen, weights = peers.PEERS[name].load()(points, 40, 3)
    assert chosen.shape == (40,)
    assert chosen.min() >= 0
    assert chosen.max() < 500
    if weights is not None:  # four standard errors and more: the sum has at most 8%
        assert weights.sum() == pytest.approx(500, rel=0.4)


def test_k_center_takes_the_farthest_row_every_time():
    points = np.random.default_rng(2).normal(size=(200, 3)).astype(np.float32)
    chosen, _ = peers.k_center()(points, 10, 0)
    for i in range(1, 10):
        away = np.linalg.norm(points[:, None] - points[chosen[:i]], axis=2).min(axis=1)
        assert away[chosen[i]] == pytest.approx(away.max(), rel=1e-4)


@pytest.fixture
def side(tmp_path):
    file = tmp_path / "rows.npy"
    np.save(file, np.random.default_rng(3).normal(size=(300, 4)).astype(np.float32))
    with sides.Side("uniform", file, rows=250, budget=20, limit=20.0, scores=file) as one:
        yield one


def test_a_selector_in_a_process_of_its_own(side):
    told = side.run(5)
    expected, weights = peers.uniform()(np.empty((250, 4), dtype=np.float32), 20, 5)
    assert told["indices"] == expected.tolist()
    assert told["weights"] == weights.tolist()
    assert told["seconds"] > 0.0
    assert side.version == np.__version__
    side.limit = 0.0
    side._process.send_signal(signal.SIGSTOP)  # stopped: it does not answer
    began = time.monotonic()
    with pytest.raises(sides.UnableError, match="stopped after 0 s"):
        side.run(6)
    assert time.monotonic() - began < 5.0
    side.close()  # twice is once


def test_a_selector_that_fails_says_why(tmp_path):
    missing = tmp_path / "missing.npy"
    with pytest.raises(sides.UnableError, match="FileNotFoundError"):
        sides.Side("uniform", missing, rows=5, budget=2, limit=9.0, scores=missing)


def test_the_memory_that_is_left_is_watched(side, monkeypatch):
    side._process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(sides, "available_gib", lambda: 0.5)
    with pytest.raises(sides.UnableError, match="less than 2 GiB"):
        side.run(0)


def results():
    ratio = Ratio("a | b < c", 3.0, 1.0, at_least=True, note="n")
    figures = {
        "rows": 1234.5,
        "selectors": [row("ours", [1.0, 2.0]), row("coreax", [9.0], reasons=("why",))],
    }
    told = Ratio("only told", 5.0, float("inf"), at_least=False)
    ratios = [{**vars(one), "met": one.met} for one in (ratio, told)]
    kept = {"ratios": ratios, "machine": {"python": "3"}}
    return {"select": kept | {"figures": figures, "seconds": {"w": {"s": [1.0, 3.0]}}}}


def test_tables_and_plots_of_a_page(tmp_path):
    page = tmp_path / "performance.md"
    tables = performance.grids(results())
    page.write_text("".join(f"<!-- table: {name} -->\nstale\n<!-- end -->\n" for name in tables))
    performance.write(results(), page)
    text = page.read_text()
    assert "stale" not in text
    assert "| `select` | a / b &lt; c | n | 3 | ≥ 1 | met |" in text
    assert "| `select` | only told |  | 5 | - | told |" in text
    assert "| kernel herding | coreax | why |" in text
    assert "| `select` | rows | 1,234 |" in text
    for grid in tables.values():
        for line in grid.markdown().splitlines():
            assert line.count("|") == len(grid.head) + 1
    drawn = sorted(one.name for one in (tmp_path / "images").iterdir())
    assert drawn == ["bench-ratios.png", "bench-select.png"]


@pytest.fixture
def one_part(tmp_path, monkeypatch):
    """Return the folder of a page whose parts do nothing but leave a ratio."""
    monkeypatch.setattr(speed, "KEPT", tmp_path / "performance.json")
    monkeypatch.setattr(speed, "PAGE", tmp_path / "performance.md")
    monkeypatch.setattr(performance, "draw_all", lambda results, folder: [])
    marks = [f"<!-- table: {name} -->\n<!-- end -->\n" for name in performance.GRIDS]
    (tmp_path / "performance.md").write_text("".join(marks))

    def run(names):
        status = {}
        for name in names:
            ratio = Ratio("x", 2.0, 9.0 if name == "cluster" else 1.0, at_least=True)
            status[name] = harness.finish(name, [ratio])
        return status

    monkeypatch.setattr(speed, "run", run)
    return tmp_path


def test_parts_that_did_not_run_keep_their_figures(one_part, capsys):
    assert speed.main(["--parts=select"]) == 0
    assert speed.main(["--parts=cluster"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("cluster: x: 2.000 (at least 9; MI")
    assert json.loads((one_part / "performance.json").read_text()).keys() == {"select", "cluster"}
    text = (one_part / "performance.md").read_text()
    assert "| `select` | x |" in text
    assert "**missed**" in text
    assert speed.main(["--show", "--parts=select"]) == 0


def test_a_quick_run_writes_no_page(one_part, monkeypatch):
    monkeypatch.setenv("BENCH_QUICK", "1")
    before = (one_part / "performance.md").read_text()
    assert speed.main(["--parts=select"]) == 0
    assert not (one_part / "performance.json").exists()
    assert (one_part / "performance.md").read_text() == before


@pytest.mark.parametrize("status", [2, 127, -9])
def test_a_part_that_breaks_is_a_failure(status, one_part, monkeypatch, capsys):
    monkeypatch.setattr(speed, "run", lambda names: dict.fromkeys(names, status))
    assert speed.main(["--parts=select"]) == 1
    assert f"status {status}" in capsys.readouterr().out


def test_the_page_says_what_was_kept():
    """The tables of docs/performance.md are those of the figures beside it."""
    kept = json.loads((DOCS / "performance.json").read_text())
    text = (DOCS / "performance.md").read_text()
    assert show.fill(text, performance.grids(kept)) == text

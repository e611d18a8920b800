"""Choosing 1,000 of 50,000 rows from their embeddings, end to end, against other selectors.

``python -m bench.select`` runs every selector of ``bench.peers`` in a process of its own, in turn
with ours: five rounds each, one where a round takes longer than 20 s. ``--only a,b`` measures some
of them and keeps the figures of the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import embedded, harness
from bench.harness import Ratio
from bench.peers import PEERS, Peer
from bench.sides import Side, UnableError, available_gib

FULL = {"rows": 50_000, "budget": 1000, "limit": 120.0, "sizes": (50_000, 20_000, 10_000, 5000)}
QUICK = {"rows": 5000, "budget": 300, "limit": 20.0, "sizes": (5000, 2000)}
LONG = 20.0
SHORT = 3.0
DRAWS = 20
BOUNDS = {"k-center": 8.0, "skmatter": 8.0, "activeml": 8.0}

Floats = NDArray[np.float64]
Row = dict[str, Any]


class Measure:
    """Everything one run of this part measures with.

    Parameters
    ----------
    settings
        ``FULL`` or ``QUICK``.
    folder
        Where the scores are put for the processes.
    """

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.settings = settings
        self.points = embedded.sentences(settings["rows"])
        self.losses = embedded.losses(settings["rows"])
        self.scores = folder / "scores.npy"
        np.save(self.scores, self.losses)
        self._even: dict[int, float] = {}

    def start(self, name: str, rows: int) -> Side:
        """Return a selector's process."""
        budget, limit = self.settings["budget"], self.settings["limit"]
        file = embedded.path(self.settings["rows"])
        return Side(name, file, rows=rows, budget=budget, limit=limit, scores=self.scores)

    def row(self, name: str, ours: Side) -> Row:
        """Measure one selector at the largest size it can do."""
        peer, reasons = PEERS[name], []
        for rows in self.settings["sizes"]:
            try:
                _fits(peer, rows)
                with self.start(name, rows) as side:
                    runs = self._rounds(peer, side, ours)
                    return self._told(name, rows, side, runs, reasons)
            except UnableError as error:
                reasons.append(f"{rows:,} rows: {error}")
                print(f"  {name}, {reasons[-1]}", file=sys.stderr, flush=True)
                if "Error" in str(error):  # it does not run at all, whatever the size
                    break
        return {"name": name, "title": peer.title, "package": peer.package, "reasons": reasons}

    def _rounds(self, peer: Peer, side: Side, ours: Side) -> tuple[list[Row], list[Row], int]:
        """Return the runs of a selector and of ours, in turn, and how many of them count as timed.

        The first run is a warm-up, unless it took so long that it is the only one.
        """
        first = side.run(0)
        if first["seconds"] > LONG:
            return [first], [ours.run(0)], 1
        theirs: list[Row] = []
        mine: list[Row] = []
        for turn in range(self.settings["repeats"]):
            order = ((side, theirs), (ours, mine))
            for one, kept in order if turn % 2 == 0 else order[::-1]:
                kept.append(one.run(turn))
        timed = len(theirs)
        if peer.seeded and first["seconds"] < SHORT:
            theirs += [side.run(seed) for seed in range(timed, DRAWS)]
        return theirs, mine, timed

    def _told(
        self,
        name: str,
        rows: int,
        side: Side,
        runs: tuple[list[Row], list[Row], int],
        reasons: list[str],
    ) -> Row:
        theirs, mine, timed = runs
        peer = PEERS[name]
        distance, error = self.quality(rows, theirs if peer.seeded else theirs[:1])
        found = {
            "name": name,
            "title": peer.title,
            "package": peer.package,
            "version": side.version,
            "rows": rows,
            "seconds": [one["seconds"] for one in theirs[:timed]],
            "ours": [one["seconds"] for one in mine],
            "ours_cpu": statistics.median(one["cpu"] for one in mine),
            "cpu": statistics.median(one["cpu"] for one in theirs[:timed]),
            "mib": max(one["mib"] for one in theirs[:timed]),
            "distance": distance,
            "error": error,
            "draws": len(theirs) if peer.seeded else 1,
            "reasons": reasons,
        }
        seconds = statistics.median(found["seconds"])
        print(f"  {name}: {seconds:.2f} s at {rows:,} rows", file=sys.stderr, flush=True)
        return found

    def quality(self, rows: int, runs: Sequence[Row]) -> tuple[float, float]:
        """Return how near the choices are to all rows, and how far off their total of the loss is.

        The first is the mean squared distance of a row to the nearest chosen one, as a share of
        that of uniform rows; the second the root mean square of relative errors over `runs`. In a
        method without weights, the weight of a chosen row is the number of rows it is nearest to.
        """
        points, losses = np.asarray(self.points[:rows]), self.losses[:rows]
        distances, errors = [], []
        for one in runs:
            chosen = np.array(one["indices"])
            nearest, squared = _nearest(points, points[chosen])
            weights = one["weights"]
            if weights is None:
                weights = np.bincount(nearest, minlength=len(chosen))
            distances.append(squared)
            errors.append(np.dot(weights, losses[chosen]) / losses.sum() - 1.0)
        return float(np.mean(distances)) / self._uniform(rows), float(
            np.sqrt(np.mean(np.square(errors)))
        )

    def _uniform(self, rows: int) -> float:
        """Return the mean squared distance to the nearest of uniform rows."""
        if rows not in self._even:
            points = np.asarray(self.points[:rows])
            each = []
            for seed in range(5):
                rng = np.random.default_rng([seed, 7])
                chosen = rng.choice(rows, self.settings["budget"], replace=False)
                each.append(_nearest(points, points[chosen])[1])
            self._even[rows] = float(np.mean(each))
        return self._even[rows]


def _nearest(points: NDArray[np.float32], chosen: NDArray[np.float32]) -> tuple[Floats, float]:
    """Return (n,) the nearest of (s, d) chosen rows, and the mean squared distance to it."""
    nearest, total = np.empty(len(points), dtype=np.int64), 0.0
    half = 0.5 * np.einsum("ij,ij->i", chosen, chosen)
    for begin in range(0, len(points), 8192):
        block = points[begin : begin + 8192]
        closeness = block @ chosen.T - half
        best = closeness.argmax(axis=1)
        nearest[begin : begin + len(block)] = best
        squared = np.einsum("ij,ij->i", block, block) - 2.0 * closeness.max(axis=1)
        total += float(np.maximum(squared, 0.0).sum())
    return nearest, total / len(points)


def _fits(peer: Peer, rows: int) -> None:
    """Refuse a size whose table of all pairs is larger than the memory that is free."""
    gib, free = peer.square * rows**2 / 2**30, available_gib()
    if gib > 0.8 * free:
        raise UnableError(f"all pairs are {gib:.0f} GiB, {free:.0f} GiB are free")


def ratios(rows: Sequence[Row], full: int, limit: float) -> list[Ratio]:
    """Return how many times faster ours is than each peer it must beat, k-center the last.

    A peer that only did fewer rows is compared with ours at all of them, which is in its favour;
    one that was stopped at all of them took at least the limit.
    """
    found = []
    for row in rows:
        if not PEERS[row["name"]].slower or row["name"] == "ours" or "seconds" not in row:
            continue
        value = statistics.median(row["seconds"]) / statistics.median(row["ours"])
        pairs = [a / b for a, b in zip(row["seconds"], row["ours"], strict=True)]
        note = f"single rounds {min(pairs):.3g} to {max(pairs):.3g}"
        note += f"; in CPU seconds {row['cpu'] / row['ours_cpu']:.3g}"
        if row["rows"] < full:
            note = f"at {row['rows']:,} rows against ours at {full:,}; " + "; ".join(row["reasons"])
            if any(
                "stopped after" in why and why.startswith(f"{full:,}") for why in row["reasons"]
            ):
                value = max(value, limit / statistics.median(row["ours"]))
                note = f"at least: the {limit:g} s after which it was stopped; {note}"
        name = f"{row['package']} {row['title']} / ours"
        found.append(Ratio(name, value, BOUNDS.get(row["name"], 1.0), at_least=True, note=note))
    return sorted(found, key=lambda one: (one.name.startswith("numpy k-center"), -one.value))


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep and print; return 1 when a ratio falls short."""
    names, repeats = _options(arguments)
    settings = (QUICK if harness.quick() else FULL) | {"repeats": repeats}
    before, rate = harness.machine(), harness.product_rate()
    figures = {"rows": settings["rows"], "budget": settings["budget"]}
    figures["product_seconds"] = settings["rows"] * 384 * settings["budget"] / rate
    kept = {row["name"]: row for row in _kept(settings)} if names else {}
    with tempfile.TemporaryDirectory() as folder:
        measure = Measure(settings, Path(folder))
        with measure.start("ours", settings["rows"]) as ours:
            ours.run(0)
            for name in names or PEERS:
                print(f"{name} ...", file=sys.stderr, flush=True)
                kept[name] = measure.row(name, ours)
                rows = [kept[one] for one in PEERS if one in kept]
                found = ratios(rows, settings["rows"], settings["limit"])
                figures["selectors"] = rows  # kept at once: what comes later may take an hour
                harness.keep("select", found, figures=figures, before=before)
    for row in rows:
        _say(row)
    return harness.finish("select", found, figures=figures, before=before, show_figures=False)


def _options(arguments: list[str] | None) -> tuple[list[str], int]:
    """Return the selectors that are asked for (none: all of them) and the number of rounds."""
    parser = argparse.ArgumentParser(prog="python -m bench.select", description=__doc__)
    parser.add_argument("--only", default="", help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=harness.REPEATS)
    asked = parser.parse_args(arguments)
    names = [name for name in asked.only.split(",") if name]
    for name in names:
        if name not in PEERS:
            parser.error(f"no selector is called {name!r}; known: {', '.join(PEERS)}")
    return names, asked.rounds


def _kept(settings: dict[str, Any]) -> list[Row]:
    """Return what an earlier run measured at the same size."""
    path = harness.results_of("select")
    if not path.is_file():
        return []
    figures = json.loads(path.read_text())["figures"]
    same = all(figures.get(name) == settings[name] for name in ("rows", "budget"))
    return list(figures["selectors"]) if same else []


def _say(row: Row) -> None:
    name = f"{row['package']} {row['title']}"
    if "seconds" in row:
        print(
            f"{name:<52} {row['rows']:>7,} rows {statistics.median(row['seconds']):9.3f} s "
            f"{row['cpu']:8.1f} CPU-s {row['mib']:8.0f} MiB  "
            f"distance {row['distance']:.3f}  error {100 * row['error']:.1f}%"
        )
    for why in row["reasons"]:
        print(f"{name:<52} {why}")


if __name__ == "__main__":
    sys.exit(main())

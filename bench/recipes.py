"""How rows of each task are chosen: the recipes that ``bench.texts`` found, as strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import baselines, sampling
from curation.baselines import Choice, Pool, sampled
from curation.models import fit_pilot


@dataclass(frozen=True)
class Recipe:
    """How rows are chosen, and how they count in training.

    Attributes
    ----------
    space
        ``embedding``, ``embedding+label``, or ``gradient`` (the pilot's own).
    value
        The score: ``loss`` or ``gradient_norm``.
    tilt
        None, ``classes`` (the geometric mean with the class-balanced law), or a number b: classes
        get ``(1 - b) n_c / n + b / C`` of the rows, as far as they have so many.
    k, mix
        Of :func:`curation.select`.
    exponent
        Training weights are the weights raised to this.
    rounds
        With 2, half of the rows are drawn first, and the pilot model is trained again on all that
        are there before the others are.
    """

    space: str = "embedding+label"
    value: str = "loss"
    tilt: str | float | None = "classes"
    k: int | str = "auto"
    mix: float | str = 0.1
    exponent: float = 0.5
    rounds: int = 1

    def __str__(self) -> str:
        """Return a name."""
        tilt = f"{self.tilt:g}" if isinstance(self.tilt, float) else self.tilt or "none"
        return (
            f"{self.space}, {self.value}, tilt {tilt}, k {self.k}, mix {self.mix}, "
            + ("" if self.rounds == 1 else f"{self.rounds} rounds, ")
            + f"w^{self.exponent:g}"
        )


def follow(pool: Pool, size: int, rng: np.random.Generator, *, recipe: Recipe) -> Choice:
    """Choose by a recipe; a :data:`curation.baselines.Strategy` once `recipe` is given."""
    if recipe.rounds > 1:
        return _in_rounds(pool, size, rng, recipe)
    own = replace(pool, value=recipe.value)
    options: dict[str, Any] = {"k": recipe.k, "mix": recipe.mix, "design": "systematic"}
    if recipe.tilt == "classes":
        options["tilt"] = "classes"
    elif recipe.tilt is not None:
        labels = pool.labels[pool.rest]
        options |= {"groups": labels, "shares": class_shares(labels, size, float(recipe.tilt))}
    if recipe.space == "gradient":
        found = sampled.ours(own, size, rng, **options)
    else:
        found = sampled.ours_by_label(own, size, rng, space=recipe.space, **options)
    pool.evaluations += own.evaluations
    return temper(found, recipe.exponent)


def _in_rounds(pool: Pool, size: int, rng: np.random.Generator, recipe: Recipe) -> Choice:
    """Draw a part, train on all rows so far, and draw the next from those that are left.

    The model in between takes rows as they are: tilted rows without weights are nearly balanced,
    and a model that knows rare classes is what the first pilot could not be. A round's weights
    count in proportion to its rows (docs/methods.md, adaptive rounds).
    """
    once = replace(recipe, rounds=1, exponent=1.0)
    parts: list[Choice] = []
    known, model = pool.pilot, pool.model
    for part in np.diff(np.linspace(0, size, recipe.rounds + 1).round().astype(int)):
        if parts:
            x, y = pool.given(known), pool.labels[known]
            model = fit_pilot("probe", x, y, task="classification", classes=pool.classes)
        own = replace(pool, pilot=known, model=model)
        parts.append(follow(own, int(part), rng, recipe=once))
        pool.evaluations += own.evaluations
        known = np.concatenate([known, parts[-1].rows])
    weights = [
        len(one.rows) / size * (np.ones(len(one.rows)) if one.weights is None else one.weights)
        for one in parts
    ]
    rows = np.concatenate([one.rows for one in parts])
    return temper(Choice(rows, np.concatenate(weights)), recipe.exponent)


def temper(found: Choice, exponent: float) -> Choice:
    """Raise weights to a power, relative to their mean: the mean is what pilot rows are worth."""
    if found.weights is None or exponent == 1.0:
        return found
    mean = float(found.weights.mean())
    return replace(found, weights=mean * (found.weights / mean) ** exponent)


def class_shares(labels: Any, size: int, balance: float) -> dict[str, float]:
    """Return the share of the rows for each class, between proportional and balanced.

    Parameters
    ----------
    labels
        (n,) classes.
    size
        Rows to choose. A class that has fewer than its share gives what it has.
    balance
        0: in proportion to the classes' sizes; 1: as many of each.
    """
    names, sizes = np.unique(labels, return_counts=True)
    aim = (1.0 - balance) * sizes / sizes.sum() + balance / len(names)
    wanted = np.minimum(size * aim, sizes)
    while (left := size - wanted.sum()) > 1e-9:
        room = wanted < sizes
        wanted[room] += left * aim[room] / aim[room].sum()
        wanted = np.minimum(wanted, sizes)
    shares = wanted / wanted.sum()
    return {str(name): float(share) for name, share in zip(names, shares, strict=True)}


RECIPES: dict[str, Recipe] = {}
"""By task; found on validation rows by ``bench.texts``."""


def strategies_of(task: str) -> dict[str, baselines.Strategy]:
    """Return all strategies by name, with the task's ``recipe`` where there is one."""
    found = dict(baselines.STRATEGIES)
    if task in RECIPES:
        found["recipe"] = partial(follow, recipe=RECIPES[task])
    return found


def all_weights(pool: Pool, chosen: Choice) -> NDArray[np.float64] | None:
    """Return weights of pilot and chosen rows; None where the strategy has none."""
    if chosen.weights is None:
        return None
    together = np.concatenate([np.ones(len(pool.pilot)), chosen.weights])
    of_pilot = np.arange(len(together)) < len(pool.pilot)
    return sampling.training_weights(together, of_pilot, rows=len(pool))

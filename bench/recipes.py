"""How rows of each task are chosen: the recipes that ``bench.texts`` found, as strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from curation import baselines
from curation.baselines import Choice, Pool, sampled


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
    """

    space: str = "embedding+label"
    value: str = "loss"
    tilt: str | float | None = "classes"
    k: int | str = "auto"
    mix: float | str = 0.1
    exponent: float = 0.5

    def __str__(self) -> str:
        """Return a name."""
        tilt = f"{self.tilt:g}" if isinstance(self.tilt, float) else self.tilt or "none"
        return (
            f"{self.space}, {self.value}, tilt {tilt}, k {self.k}, mix {self.mix}, "
            f"w^{self.exponent:g}"
        )


def follow(pool: Pool, size: int, rng: np.random.Generator, *, recipe: Recipe) -> Choice:
    """Choose by a recipe; a :data:`curation.baselines.Strategy` once `recipe` is given."""
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


TILTED = Recipe(mix="auto", exponent=0.0)
BY_GRADIENT = Recipe(space="gradient", value="gradient_norm", tilt=0.7, exponent=0.0)
RECIPES = {
    "questions": {"recipe": TILTED},
    "r8": {"recipe": TILTED, "by-gradient": BY_GRADIENT},
    "r52": {"recipe": TILTED},  # taken over from R8
    "reviews": {"recipe": Recipe(tilt=None, mix="auto", exponent=0.5)},  # as shipped before
}
"""By task: what was best on validation rows (``bench.texts``), where nothing else is said."""


def strategies_of(task: str) -> dict[str, baselines.Strategy]:
    """Return all strategies by name, with the recipes of the task where there are any."""
    recipes = RECIPES.get(task, {})
    return {
        **baselines.STRATEGIES,
        **{name: partial(follow, recipe=recipe) for name, recipe in recipes.items()},
    }

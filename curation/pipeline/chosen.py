"""A subset: which rows, with which weights, and the draws they came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import sampling
from curation.pipeline.codes import Codes
from curation.pipeline.laws import groups_of, law_of_rows
from curation.pipeline.people import Population
from curation.pipeline.pilot import budget_of
from curation.sampling.shares import allocate, draw_by_group
from curation.selection import Borders, Fitted, Kind, PerRow, calibrate

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """One draw of a subset: all of it, or one of several rounds.

    Attributes
    ----------
    drawn
        The draw, over the rows that are not in the pilot.
    draws
        How many draws it is.
    law, scores
        (r,) the law and the sensitivity scores it was made by.
    """

    drawn: sampling.Draw
    draws: int
    law: Floats
    scores: Floats


@dataclass(frozen=True)
class Chosen:
    """The rows of a subset, as indices into the population.

    Attributes
    ----------
    rows
        (b,) indices into the population, sorted.
    weight
        (b,) Horvitz-Thompson weights; pilot rows have 1, they stand for themselves. Over rounds
        the mean of the rounds' weights, each in proportion to its size.
    training_weight
        (b,) mean 1.
    probability
        (b,) inclusion probabilities given the pilot; over rounds each given those before.
    reason
        (b,) ``pilot``, ``take-all`` or ``drawn``.
    rest
        Indices into the population of the (r,) rows that were up for drawing.
    parts
        The draw, or one for each round.
    additive
        ``sum L v`` over `rest`, in units of the score.
    queries
        Score evaluations beyond those of the clustering.
    calibrated
        (b,) weights that reproduce known totals, where they are asked for.
    round
        (b,) the round a row was first drawn in, from 1; 0 for the pilot. None without rounds.
    borders
        Of the strata it was drawn in, to be kept; None where the design has none.
    """

    rows: Rows
    weight: Floats
    training_weight: Floats
    probability: Floats
    reason: NDArray[np.str_]
    rest: Rows
    parts: tuple[Part, ...]
    additive: float
    queries: int = 0
    calibrated: Floats | None = None
    round: NDArray[np.int32] | None = None
    borders: Borders | None = None

    @property
    def pilot(self) -> Rows:
        """The pilot's rows."""
        return self.rows[self.reason == "pilot"]

    @property
    def chance(self) -> Floats:
        """(r,) inclusion probability of every row that was up for drawing, all rounds together."""
        missed = np.ones(len(self.rest))
        for part in self.parts:
            if part.drawn.probabilities is not None:
                missed *= 1.0 - part.drawn.probabilities
        return 1.0 - missed

    def chance_of(self, rows: Rows) -> Floats:
        """Return (m,) inclusion probabilities of rows of the population; 1 of the pilot's."""
        place = np.minimum(np.searchsorted(self.rest, rows), max(len(self.rest) - 1, 0))
        missed = np.ones(len(rows))
        for part in self.parts:
            if part.drawn.probabilities is not None:
                missed *= 1.0 - part.drawn.probabilities[place]
        return np.where(self.rest[place] == rows, 1.0 - missed, 1.0)

    @property
    def draws(self) -> int:
        """Number of draws, all rounds together."""
        return sum(part.draws for part in self.parts)

    @property
    def size(self) -> int:
        """Rows a trainer is given, repetitions counted: what uniform rows are compared by."""
        times = sum(int(part.drawn.multiplicity.sum()) for part in self.parts)
        return times + len(self.pilot)

    def estimate(
        self, values_of: Callable[[Rows], Floats], *, known: float = 0.0
    ) -> sampling.Estimate:
        """Estimate a total over the population from the drawn rows.

        Over rounds: the mean of unbiased estimates, each given those before, in proportion to
        their sizes. Their errors are uncorrelated, so squares of standard errors add up.

        Parameters
        ----------
        values_of
            Returns the values of rows given as indices into the population.
        known
            Total over the pilot's rows.
        """
        found = [
            sampling.estimate_total(values_of(self.rest[part.drawn.indices]), part.drawn)
            for part in self.parts
        ]
        share = np.array([part.draws for part in self.parts]) / self.draws
        value = known + float(sum(s * one.value for s, one in zip(share, found, strict=True)))

        def together(lengths: list[float]) -> float:
            return float(np.sqrt(np.square(share * np.array(lengths)).sum()))

        return sampling.Estimate(
            value=value,
            standard_error=together([one.standard_error for one in found]),
            low=value - together([one.value - one.low for one in found]),
            high=value + together([one.high - one.value for one in found]),
            level=found[0].level,
        )


def choose(
    people: Population,
    fitted: Fitted,
    scored: PerRow,
    pilot: Rows,
    *,
    seed: int,
    borders: Borders | None = None,
) -> Chosen:
    """Draw a subset in one go: the pilot as it is, the rest of the budget by the law.

    Given the pilot, the law over the other rows is fixed before anything is drawn, so the weighted
    total is unbiased whatever the pilot model is.

    Parameters
    ----------
    people
        The n rows; the ``selection`` settings of their data set are read.
    fitted
        What was learned: the law's parts.
    scored
        Clusters, distances and proxies of all n rows.
    pilot
        Rows that are in the subset already.
    seed
        Seed of the draw.
    borders
        Of the strata of an earlier draw by the same fit, which are kept; None: cut anew.
    """
    wanted = people.dataset.config.selection
    draws = budget_of(people.dataset, len(people)) - len(pilot)
    rest = others(len(people), pilot)
    there = scored[rest]
    codes, names = groups_of(people, rest)
    law = law_of_rows(people, fitted, there, rest)
    if wanted.shared and codes is not None:
        law = allocate(
            law,
            codes,
            names,
            draws,
            shares=None if wanted.shares == "none" else wanted.shares,
            minimum=wanted.minimum or None,
        )
    numbers = people.numbers(seed)
    tags = people.tags[rest]
    how: dict[str, Any] = {
        "order": fitted.order(there, tags),
        "rng": np.random.default_rng([seed, 1]),
        "numbers": numbers.of("draw")[rest],
    }
    if wanted.shared and codes is not None:
        drawn = draw_by_group(wanted.design, law, codes, draws, **how)
    else:
        if borders is not None:
            how["cuts"] = fitted.cuts(borders, there, tags, how["order"])
        drawn = sampling.draw(wanted.design, law, draws, **how)
        if drawn.cuts is not None and borders is None:
            starts = how["order"][drawn.cuts]
            borders = fitted.borders(there, tags, starts, budget=draws)
    part = Part(drawn, draws, law, fitted.scores(there))
    calibrated = _calibrated(people, fitted, there, rest, drawn) if wanted.calibrate else None
    return put_together(
        people,
        pilot,
        rest,
        (part,),
        drawn=rest[drawn.indices],
        weight=drawn.weights,
        probability=drawn.inclusion_probability,
        take_all=drawn.take_all,
        calibrated=calibrated,
        additive=fitted.constants.additive(there.distance, there.cluster),
        borders=borders,
    )


def others(rows: int, pilot: Rows) -> Rows:
    """Return the rows that are up for drawing: all but the pilot's."""
    free = np.ones(rows, dtype=bool)
    free[pilot] = False
    return np.flatnonzero(free)


def put_together(
    people: Population,
    pilot: Rows,
    rest: Rows,
    parts: tuple[Part, ...],
    *,
    drawn: Rows,
    weight: Floats,
    probability: Floats,
    take_all: NDArray[np.bool_],
    additive: float,
    calibrated: Floats | None = None,
    rounds: NDArray[np.int32] | None = None,
    queries: int = 0,
    borders: Borders | None = None,
) -> Chosen:
    """Return pilot and drawn rows together, sorted, with their weights for training."""
    wanted = people.dataset.config.selection
    ones = np.ones(len(pilot))
    rows = np.concatenate([pilot, drawn])
    weights = np.concatenate([ones, weight])
    is_pilot = np.arange(len(rows)) < len(pilot)
    reason = np.where(is_pilot, "pilot", "drawn").astype("U8")  # has room for take-all
    reason[len(pilot) :][take_all] = "take-all"
    raked = None if calibrated is None else np.concatenate([ones, calibrated])
    training = sampling.training_weights(
        weights if raked is None else raked,
        is_pilot,
        rows=len(people),
        draws=sum(int(part.drawn.multiplicity.sum()) for part in parts),
        exponent=wanted.weight_exponent,
    )
    by_row = np.argsort(rows, kind="stable")
    number = None
    if rounds is not None:
        number = np.concatenate([np.zeros(len(pilot), dtype=np.int32), rounds])[by_row]
    return Chosen(
        rows=rows[by_row],
        weight=weights[by_row],
        training_weight=training[by_row],
        probability=np.concatenate([ones, probability])[by_row],
        reason=reason[by_row],
        rest=rest,
        parts=parts,
        additive=additive,
        queries=queries,
        calibrated=None if raked is None else raked[by_row],
        round=number,
        borders=borders,
    )


def _calibrated(
    people: Population, fitted: Fitted, there: PerRow, rest: Rows, drawn: sampling.Draw
) -> Floats:
    """Return the drawn rows' weights raked to what is known of all rows but the pilot's."""
    kinds = []
    if people.classes and isinstance(people.labels, Codes):
        codes = people.labels.codes[rest].astype(np.int64)
        kinds.append(Kind("class", codes, len(people.classes)))
    own, names = groups_of(people, rest)
    if own is not None:
        kinds.append(Kind("group", own, len(names)))
    try:
        return calibrate(drawn, fitted, there, kinds).weights
    except sampling.CalibrationError as error:
        raise sampling.CalibrationError(
            f"data set {people.dataset.name}: {error}; raise the budget, or leave out "
            "selection.calibrate"
        ) from None

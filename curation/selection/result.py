"""What `select` returns: rows, weights, and answers to the questions people ask of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation import sampling
from curation.selection.calibrated import Calibrated, Kind, calibrate
from curation.selection.curve import Foresight
from curation.selection.drawing import Drawing, draw_from, law_of
from curation.selection.fit import Borders
from curation.selection.per_row import find_tags

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Method = Literal["ht", "difference", "calibrated"]


@dataclass(frozen=True, repr=False)
class Selection:
    """Rows chosen, their weights and how they came about.

    Arrays are aligned and sorted by row.

    Attributes
    ----------
    indices
        (m,) int64 rows.
    weights
        (m,) float64 Horvitz-Thompson weights, never rescaled.
    training_weights
        (m,) float64, mean 1: the weights raised to `weight_exponent`.
    inclusion_probability
        (m,) float64 in (0, 1].
    reason
        (m,) ``take-all`` or ``drawn``.
    queries
        Score evaluations spent.
    certificate
        A-priori bound on the error of the estimated total score.
    diagnostics
        Smoothness, constants, effective sample size, design effect, coverage per cluster, bytes of
        memory that were thought to be needed.
    cluster, score
        (m,) cluster and sensitivity score of each chosen row.
    """

    indices: Rows
    weights: Floats
    training_weights: Floats
    inclusion_probability: Floats
    reason: NDArray[np.str_]
    queries: int
    certificate: sampling.Certificate
    diagnostics: dict[str, Any]
    cluster: NDArray[np.int32]
    score: Floats
    _draw: sampling.Draw = field(repr=False)
    _state: Drawing = field(repr=False)

    def __len__(self) -> int:
        """Return the number of distinct rows."""
        return len(self.indices)

    def __repr__(self) -> str:
        """Say what was chosen, in one line."""
        if not len(self):
            return f"Selection(no rows by {self._draw.design})"
        return (
            f"Selection({len(self):,} of {self._state.n:,} rows by {self._draw.design}, "
            f"{self.queries:,} score evaluations, weights from {self.weights.min():.3g} to "
            f"{self.weights.max():.3g})"
        )

    def estimate(
        self, values: ArrayLike, *, method: Method = "ht", level: float = 0.95
    ) -> sampling.Estimate:
        """Estimate a total over all rows from the values of the chosen rows.

        Parameters
        ----------
        values
            (m,) values of the chosen rows, in the order of ``indices``.
        method
            ``ht`` (Horvitz-Thompson), ``difference`` (the proxy's total plus the weighted sum of
            what it missed; unbiased, for values in the unit of the score) or ``calibrated``
            (weights that reproduce the sizes of groups of clusters, the proxy's total and the
            counts of classes and groups; nearly unbiased).
        level
            Nominal coverage of the interval.

        Returns
        -------
        Estimate
            ``value``, ``low``, ``high`` and ``standard_error``.

        Raises
        ------
        ValueError
            If the values are not those of the chosen rows, or calibration is impossible.
        """
        given = np.asarray(values, dtype=np.float64)
        if given.shape != self.indices.shape:
            raise ValueError(
                f"expected the values of the {len(self)} chosen rows (values[indices]), "
                f"got shape {given.shape}"
            )
        if not np.isfinite(given).all():
            row = self.indices[np.flatnonzero(~np.isfinite(given))[0]]
            raise ValueError(f"the value of row {row} is not finite")
        drawn = self._draw.indices
        own = given[np.searchsorted(self.indices, drawn)]
        proxy = self._state.rows.proxy
        if method == "ht":
            return sampling.estimate_total(own, self._draw, level=level)
        if method == "difference":
            return sampling.estimate_difference(
                own, proxy[drawn], self._state.rows.proxy_total(), self._draw, level=level
            )
        if method == "calibrated":
            known = self._calibrated()
            return sampling.estimate_calibrated(
                own, known.columns, known.totals, self._draw, level=level
            )
        raise ValueError(f"method must be ht, difference or calibrated, got {method!r}")

    def calibrated_weights(self) -> Floats:
        """Return (m,) positive weights near ``weights`` that reproduce what is known of all rows.

        Known are the sizes of groups of neighbouring clusters, the proxy's total, and the counts of
        classes and groups. Raking: the weights change by as small a factor as possible. Where the
        drawn rows can't reproduce the sizes of so many groups of clusters, they are joined.

        Raises
        ------
        ValueError
            Where no positive weights can, with the reason: the total that is out of reach.
        """
        back = np.empty(len(self))
        back[np.searchsorted(self.indices, self._draw.indices)] = self._calibrated().weights
        return back

    def _calibrated(self) -> Calibrated:
        state = self._state
        kinds = [
            Kind(what, labels.codes, len(labels.classes))
            for what, labels in (("class", state.labels), ("group", state.groups))
            if labels is not None and labels.classes
        ]
        return calibrate(self._draw, state.fitted, state.rows, kinds)

    def explain(self, row: int) -> dict[str, Any]:
        """Return why a row was chosen or not, for any row of the data set.

        ``proxy`` is what its score is taken for, ``score`` its sensitivity q.

        Parameters
        ----------
        row
            Index of the row among all rows.
        """
        state = self._state
        if not isinstance(row, int | np.integer) or isinstance(row, bool):
            raise TypeError(f"row must be the number of a row, not {type(row).__name__}")
        row = int(row)
        if not 0 <= row < state.n:
            raise ValueError(f"row {row} is not one of the {state.n:,} rows")
        cluster = int(state.rows.cluster[row])
        place = int(np.searchsorted(self.indices, row))
        chosen = place < len(self) and int(self.indices[place]) == row
        told: dict[str, Any] = {
            "row": int(row),
            "chosen": chosen,
            "reason": str(self.reason[place]) if chosen else "not drawn",
            "cluster": cluster,
            "cluster_size": int(np.count_nonzero(np.asarray(state.rows.cluster) == cluster)),
            "distance": float(state.rows.distance[row]),
            "medoid": self._medoid(cluster),
            "medoid_score": float(state.fitted.medoid_scores[cluster]),
            "proxy": float(state.rows.proxy[row]),
            "score": float(state.scores[row]),
            "law": float(state.law[row]),
            "inclusion_probability": self._probability(row),
            "weight": float(self.weights[place]) if chosen else None,
            "training_weight": float(self.training_weights[place]) if chosen else None,
        }
        return told

    def _probability(self, row: int) -> float:
        known, inclusion = self._draw.probabilities, self._draw.inclusion
        if inclusion is not None:
            return float(inclusion(self._state.law[np.array([row])])[0])
        return float("nan") if known is None else float(known[row])

    def _borders(self) -> Borders | None:
        """Return the borders of the strata, for a later selection; None where there are none."""
        state, cuts = self._state, self._draw.cuts
        if state.cuts() is not None or cuts is None:
            return state.borders
        starts = state.order[cuts]
        return state.fitted.borders(state.rows, state.tags, starts, budget=state.budget)

    def _medoid(self, cluster: int) -> int | None:
        """Return the row of a cluster's medoid; None if it is not among the rows any more."""
        tag = self._state.fitted.medoid_tags[cluster : cluster + 1]
        row = int(find_tags(self._state.tags, tag)[0])
        return row if row >= 0 else None

    def at_budget(self, budget: int) -> Selection:
        """Return the selection of another number of rows; nothing is clustered or asked for again.

        With ``design="coordinated"`` most rows of a smaller budget are among those of a larger.
        """
        again: Selection = self._state.redraw(self._state, budget)
        return again

    def error_curve(self, budgets: Sequence[int] | None = None) -> pl.DataFrame:
        """Return the expected relative error of the estimated total against the budget.

        Estimated from the pilot's rows: where a few rows hold much of the total, and the pilot has
        not seen them, both errors are too small (by half with a lognormal score, sigma 1.5, and 60
        pilot rows); their ratio misleads less.

        Parameters
        ----------
        budgets
            Numbers of rows; left out, a dozen from 20 to n.

        Returns
        -------
        polars.DataFrame
            ``budget``, ``relative_error`` (expected, of a total estimated with these weights),
            ``uniform_error`` (of as many uniform rows) and ``uniform_budget`` (how many uniform
            rows are as good). By the law before shares and tilt.

        Raises
        ------
        ValueError
            If no pilot rows were asked for, from which errors are estimated.
        """
        import polars as pl

        state, pilot = self._state, self._state.fitted.pilot
        smooth = state.fitted.smoothness
        if pilot is None or smooth.pilot_rows < 2:
            raise ValueError(
                "errors are estimated from pilot rows, and none were asked for; "
                "select with mix='auto' or proxy='auto'"
            )
        n = state.n
        if budgets is None:
            budgets = np.unique(np.geomspace(min(20, n), n, 12).round().astype(int)).tolist()
        total = 0.0 if state.design == "stratified_uniform" else self._raised_total()
        foresight = Foresight(
            pilot=pilot,
            pilot_law=state.fitted.law_of_pilot(total=total, rows=n),
            proxy=np.asarray(state.rows.proxy),
            law=np.asarray(state.law),
            order=np.asarray(state.order),
            rows=n,
            design=state.design,
            uniform_error=smooth.uniform_error,
        )
        ours = [foresight.error(m) for m in budgets]
        uniform = [foresight.uniform(m) for m in budgets]
        square = [(error / max(smooth.uniform_error, 1e-300)) ** 2 for error in ours]
        equal = [round(1.0 / (value + 1.0 / n)) for value in square]
        return pl.DataFrame(
            {
                "budget": list(budgets),
                "relative_error": ours,
                "uniform_error": uniform,
                "uniform_budget": equal,
            }
        )

    def _raised_total(self) -> float:
        """Sum of what the law is proportional to before mixtures."""
        state = self._state
        if state.layout is not None:
            return state.layout.total
        return float(state.fitted.drawn_by(state.rows).sum())

    def to_frame(self) -> pl.DataFrame:
        """Return the selection as a polars frame, one row per chosen row."""
        import polars as pl

        return pl.DataFrame(
            {
                "index": self.indices,
                "weight": self.weights,
                "training_weight": self.training_weights,
                "inclusion_probability": self.inclusion_probability,
                "cluster": self.cluster,
                "proxy": self._state.rows.proxy[self.indices],
                "score": self.score,
                "reason": self.reason,
            }
        )


def make_selection(state: Drawing, *, by_group: bool = False) -> Selection:
    """Draw by a state, each group by itself if wanted, and put the result together."""
    drawn = draw_from(state, by_group=by_group)
    by_row = np.argsort(drawn.indices, kind="stable")
    chosen, weights = drawn.indices[by_row], drawn.weights[by_row]
    tempered = weights**state.exponent
    smooth = state.fitted.smoothness
    law = law_of(drawn, state.law, state.budget)
    certificate = sampling.certify(
        state.scores,
        law,
        state.budget,
        additive=state.additive,
        delta=state.delta,
        violated_share=state.fitted.violated_share,
        excess_variance=state.fitted.excess_variance(law, state.tags),
    )
    return Selection(
        indices=chosen,
        weights=weights,
        training_weights=tempered / tempered.mean() if len(tempered) else tempered,
        inclusion_probability=drawn.inclusion_probability[by_row],
        reason=np.where(drawn.take_all[by_row], "take-all", "drawn"),
        queries=state.fitted.queries,
        certificate=certificate,
        diagnostics={
            "smoothness_r2": smooth.r2,
            "verdict": smooth.verdict,
            "mix": smooth.mix,
            "reach": smooth.reach,
            "power": smooth.power,
            "proxy": state.fitted.proxy.name,
            "candidates": state.fitted.candidates,
            "k": state.fitted.clusters.k,
            "constants": state.fitted.constants.values,
            "effective_sample_size": sampling.effective_sample_size(weights)
            if len(weights)
            else 0.0,
            "design_effect": sampling.design_effect(weights) if len(weights) else 1.0,
            "coverage": _coverage(state, chosen),
            "memory_needed": {} if state.needs is None else state.needs.as_dict(),
        },
        cluster=state.rows.cluster[chosen],
        score=state.scores[chosen],
        _draw=drawn,
        _state=state,
    )


def _coverage(state: Drawing, chosen: Rows) -> NDArray[np.int64]:
    """(k,) chosen rows of each cluster."""
    return np.bincount(state.rows.cluster[chosen], minlength=state.fitted.clusters.k)

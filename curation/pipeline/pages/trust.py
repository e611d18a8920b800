"""How far the estimated total can be trusted: certificate, measured error, curve, smoothness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.pipeline.pages.made import Made
from curation.pipeline.pages.top import off
from curation.reporting.charts import Bar, bars, error_curve, over_clusters
from curation.reporting.page import Figure, Section, Table

POOLED = 20  # evaluated rows of neighbouring clusters that are looked at together
OFTEN = 0.1  # share of a cluster's rows above q that is worth counting


def trust(made: Made) -> Section:
    """Return what is promised of the estimate, and what was found."""
    return Section(
        title="Can the estimate be trusted?",
        lead=_lead(made),
        figures=[_errors(made), *_curve(made), *_smoothness(made)],
        tables=[_draw(made)],
    )


def _lead(made: Made) -> str:
    chosen = made.chosen
    estimate, uniform = chosen["estimate"], chosen["estimate"].get("uniform")
    told = f"The total {made.score} of all rows is estimated as {estimate['value']:,.0f}"
    if estimate["low"] is not None:
        told += f" [{estimate['low']:,.0f}, {estimate['high']:,.0f}]"
    if estimate["truth"] is None:
        return f"{told}; the truth would take the score of every row and was not measured."
    told += f"; the truth is {estimate['truth']:,.0f}, {off(estimate['value'], estimate['truth'])}"
    if not uniform:
        return f"{told} away."
    told += (
        f" away. As many uniform rows said {uniform['value']:,.0f}, "
        f"{off(uniform['value'], estimate['truth'])} away in this one draw"
    )
    if uniform["low"] is None or estimate["low"] is None:
        return f"{told}."
    ratio = (uniform["high"] - uniform["low"]) / max(estimate["high"] - estimate["low"], 1e-300)
    return f"{told}, with an interval {ratio:.1f} times as wide."


def _errors(made: Made) -> Figure:
    """Return certificate, intervals and measured errors side by side, as shares of the total."""
    chosen = made.chosen
    estimate, uniform = chosen["estimate"], chosen["estimate"].get("uniform") or {}
    total, truth = max(abs(estimate["value"]), 1e-300), estimate["truth"]
    level = f"{1 - chosen['certificate']['delta']:.0%}"

    def bar(name: str, error: float, look: str) -> Bar:
        return Bar(name, error / total, f"{error / total:.1%} ({error:,.0f})", look)

    rows = [bar(f"certified before the draw, {level}", chosen["certificate"]["radius"], "grey")]
    for who, found, look in (("", estimate, "blue"), ("uniform rows: ", uniform, "orange")):
        if found.get("low") is not None:
            rows.append(bar(f"{who}95% interval, ±", found["value"] - found["low"], look))
        if found and truth is not None:
            rows.append(bar(f"{who}measured error", abs(found["value"] - truth), look))
    caption = (
        "Shares of the estimated total. The certificate holds for the worst scores that its "
        "assumption allows, whatever the draw; it is meant to be wide."
    )
    label = "; ".join(f"{row.name} {row.told}" for row in rows)
    return Figure("Certificate and measured error", caption, bars(rows, label))


def _curve(made: Made) -> list[Figure]:
    curve = made.chosen.get("error_curve") or {}
    if "budget" not in curve:
        return []
    here = made.chosen["distinct_rows"]
    place = int(np.argmin(np.abs(np.array(curve["budget"]) - here)))
    ours, theirs = curve["relative_error"][place], curve["uniform_error"][place]
    enough = _uniform_rows(curve, ours)
    told = f"At {curve['budget'][place]:,} rows: {ours:.1%}, of uniform rows {theirs:.1%}"
    told += f", which need about {enough:,} rows to be as good." if enough else "."
    picture = error_curve(
        curve["budget"], curve["relative_error"], curve["uniform_error"], here=here, label=told
    )
    caption = (
        f"Expected error of the estimated total, as the rows asked for beside the medoids foresee "
        f"it. {told} Both axes go by factors."
    )
    return [Figure("Error against budget", caption, picture)]


def _uniform_rows(curve: dict[str, Any], error: float) -> int | None:
    """Return how many uniform rows have an expected error, by the curve; None beyond its end."""
    falling = np.array(curve["uniform_error"])
    if not falling[-1] < error < falling[0]:
        return None
    budgets = np.log(np.array(curve["budget"], dtype=float))
    found = np.exp(np.interp(np.log(error), np.log(falling[::-1]), budgets[::-1]))
    return int(float(f"{found:.2g}"))


@dataclass(frozen=True)
class Smoothness:
    """What the evaluated rows say of each cluster, or of neighbouring ones together.

    Attributes
    ----------
    rows
        (c,) how many rows each has.
    explained
        (c,) 1 minus the proxy's mean squared error over the variance of the score over all rows:
        weighted by rows, their mean is that of all rows.
    violated
        (c,) share of the rows above their sensitivity q.
    overall, overall_violated
        Of all rows.
    pooled
        Whether neighbouring clusters were taken together.
    """

    rows: NDArray[np.float64]
    explained: NDArray[np.float64]
    violated: NDArray[np.float64]
    overall: float
    overall_violated: float
    pooled: bool


def smoothness(clusters: pl.DataFrame, *, pooled: bool) -> Smoothness | None:
    """Return how well the proxy explains the score, cluster by cluster; None if it cannot be told.

    Parameters
    ----------
    clusters
        The table of :func:`curation.pipeline.by_cluster.by_cluster`.
    pooled
        Whether only some rows were evaluated: then neighbouring clusters are taken together until
        they have 20 evaluated rows.
    """
    table = clusters.sort("rank")
    names = ("weight_evaluated", "violated", "score", "square", "error")
    total = {name: float(table[name].sum()) for name in names}
    weight = total["weight_evaluated"]
    if weight <= 0.0:
        return None
    variance = total["square"] / weight - (total["score"] / weight) ** 2
    if variance <= 1e-12 * total["square"] / weight:
        return None  # every row has the same score
    seen = table["evaluated"].to_numpy()
    least = POOLED if pooled else 1
    place = np.minimum((np.cumsum(seen) - seen) // least, max((int(seen.sum()) - 1) // least, 0))
    count = int(place.max()) + 1
    sums = {name: np.bincount(place, table[name].to_numpy(), count) for name in names}
    rows = np.bincount(place, table["rows"].to_numpy(), count)
    there = sums["weight_evaluated"] > 0.0
    own = sums["weight_evaluated"][there]
    return Smoothness(
        rows=rows[there].astype(np.float64),
        explained=1.0 - sums["error"][there] / own / variance,
        violated=sums["violated"][there] / own,
        overall=1.0 - total["error"] / weight / variance,
        overall_violated=total["violated"] / weight,
        pooled=pooled,
    )


def _smoothness(made: Made) -> list[Figure]:
    found = smoothness(made.clusters, pooled=not made.all_evaluated)
    if found is None:
        return []
    rows = found.rows.sum()
    what = "groups of neighbouring clusters" if found.pooled else "clusters"
    bad = found.explained <= 0.0
    verdict = (
        f"The method rests on rows of one cluster having similar scores. The proxy explains "
        f"{found.overall:.0%} of the score's variance"
        f"{'' if made.all_evaluated else ', by the rows that were evaluated'}; in "
        f"{int(bad.sum()):,} of {len(bad):,} {what}, {found.rows[bad].sum() / rows:.1%} of the "
        "rows, it does no better than the mean score. Weights stay unbiased there; the draw gains "
        "nothing."
    )
    often = found.violated > OFTEN
    above = (
        f"{found.overall_violated:.1%} of the rows have a score above their sensitivity q, which "
        f"the certificate goes by; in {int(often.sum()):,} of {len(often):,} {what} it is more "
        f"than {OFTEN:.0%}. The certificate allows for as much of it as the pilot's rows showed "
        f"({_share(made.chosen['certificate']['violated_share'])}); estimates need nothing of it."
    )
    return [
        Figure(
            "Is the score smooth? R² by cluster",
            verdict,
            over_clusters(
                found.explained, found.rows, low=-1.0, high=1.0, mean=found.overall,
                title="explained by the proxy", label=verdict,
            ),
        ),
        Figure(
            "Rows above the bound, by cluster",
            above,
            over_clusters(
                found.violated, found.rows, low=0.0, high=1.0, mean=found.overall_violated,
                title="share of rows above q", label=above, good="orange", order="worst",
            ),
        ),
    ]  # fmt: skip


def _draw(made: Made) -> Table:
    chosen = made.chosen
    certificate = chosen["certificate"]
    rounds = f", in {chosen['rounds']} rounds" if chosen["rounds"] > 1 else ""
    skipped = (chosen.get("error_curve") or {}).get("skipped")
    rows = [
        ["Drawn by", f"{chosen['law'].replace('_', ' ')}, design {chosen['design']}{rounds}"],
        ["Proxy of the scores not asked for", chosen["proxy"].replace("_", " ")],
        ["What the pilot rows say of it", chosen["verdict"]],
        ["Pilot rows (uniform)", f"{chosen['pilot_rows']:,}"],
        ["Take-all rows", f"{chosen['take_all_rows']:,}"],
        ["Largest weight", f"{chosen['largest_weight']:,.2f}"],
        ["Effective sample size", f"{chosen['effective_sample_size']:,.0f} rows"],
        [
            "Certificate before evaluation",
            f"error at most {certificate['radius']:,.0f} with probability "
            f"{1 - certificate['delta']:.0%} (epsilon {certificate['epsilon']:.3f}), "
            f"of it {certificate['excess']:,.0f} for rows above their sensitivity q; distance adds "
            f"{certificate['additive']:,.0f} to the bound",
        ],
        ["Conditional on", certificate["conditional_on"]],
        ["Rows above q, before the draw", _share(certificate["violated_share"])],
        ["Drawn rows above q", f"{chosen['estimate']['violated_share']:.1%}"],
        ["Score evaluations to check it", f"{chosen['estimate']['evaluations']:,}"],
        *([["Error at other budgets", f"not foreseen: {skipped}"]] if skipped else []),
    ]
    return Table(
        title="The draw",
        caption=f"In units of the {made.score}.",
        headers=["", ""],
        rows=rows,
    )


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"

"""The first screen: one sentence and the numbers a lead asks for."""

from __future__ import annotations

from typing import Any

from curation.pipeline.pages.cost import newest
from curation.pipeline.pages.made import Made, better, heading, interval, signed, spoken
from curation.pipeline.protected import GAIN
from curation.reporting.page import Tile
from curation.reporting.text import duration

GAIN_TILES = 2  # metrics with a tile; the others are in the tables


def verdict(made: Made) -> tuple[str, str]:
    """Return the sentence that says whether the subset helps, and its tone."""
    chosen, figures = made.chosen, made.evaluation.figures
    rows = f"{chosen['distinct_rows']:,} of {chosen['rows']:,} rows"
    if "skipped" in figures:
        return f"{rows} were chosen. They were not held against uniform rows: " + str(
            figures["skipped"]
        ), ""
    metric, gain = next(iter(figures["gain"].items()))
    outcome = judged(metric, gain)
    told = _against(figures["probe"], metric, gain)
    if outcome == "better":
        text = f"{rows} train a better model than as many uniform rows: {told}."
    elif outcome == "worse":
        text = (
            f"Uniform rows win: trained on {rows} the model is worse than on as many uniform rows: "
            f"{told}. To train on, take uniform rows."
        )
    elif outcome == "one seed":
        text = f"{rows} were chosen. A single seed tells no difference from uniform rows: {told}."
    else:
        text = f"{rows} do as well as uniform rows, as far as can be told: {told}."
    rest = [
        f"{spoken(name)} is {judged(name, other)} ({signed(other['mean'])})"
        for name, other in list(figures["gain"].items())[1:GAIN_TILES]
        if judged(name, other) in ("better", "worse") and judged(name, other) != outcome
    ]
    rest += _fine_tuned(figures.get("fine_tune") or {}, gain["mean"])
    tone = _tone(outcome)
    if _refuted(figures):
        rest.insert(0, "the protected half of the holdout does not confirm this difference")
        tone = ""
    return " ".join([text, *(f"{heading(one)}." for one in rest)]), tone


def _refuted(figures: dict[str, Any]) -> bool:
    """Whether the protected half of the holdout contradicts the probe's gain."""
    answers = (figures.get("holdout") or {}).get("answers", ())
    gains = (a for a in answers if a["kind"] == "probe" and a["strategy"] == GAIN)
    return any(answer["overfitted"] for answer in gains)


def _fine_tuned(table: dict[str, Any], gain: float) -> list[str]:
    """Say what the fine-tuned encoder shows where that is not what the probe shows."""
    if not table:
        return []
    metric = next(iter(table["subset"]))
    ours, theirs = (table[name][metric] for name in ("subset", "uniform"))
    if (ours["mean"] - theirs["mean"]) * gain >= 0.0:
        return []
    runs = "one run each" if ours["n"] < 2 else f"{ours['n']} seeds"
    sides = [("the subset", ours["mean"]), ("uniform rows", theirs["mean"])]
    if better(metric, ours["mean"] - theirs["mean"]) < 0.0:
        sides.reverse()
    (first, high), (second, low) = sides
    return [
        f"the fine-tuned encoder ({runs}) does better on {first}: {spoken(metric)} {high:.3f} "
        f"against {low:.3f} on {second}"
    ]


def judged(metric: str, gain: dict[str, Any]) -> str:
    """Return ``better``, ``worse``, ``no difference`` or ``one seed`` of a gain over uniform."""
    if gain["n"] < 2:
        return "one seed"
    if gain["low"] <= 0.0 <= gain["high"]:
        return "no difference"
    return "better" if better(metric, gain["mean"]) > 0.0 else "worse"


def _tone(outcome: str) -> str:
    return {"better": "good", "worse": "bad"}.get(outcome, "")


def _against(probe: dict[str, Any], metric: str, gain: dict[str, Any]) -> str:
    ours, theirs = (probe[name][metric]["mean"] for name in ("subset", "uniform"))
    seeds = f" over {gain['n']} seeds" if gain["n"] > 1 else ""
    return f"{spoken(metric)} {ours:.3f} against {theirs:.3f}, {interval(gain, sign=True)}{seeds}"


def tiles(made: Made) -> list[Tile]:
    """Return the numbers of the first screen."""
    chosen = made.chosen
    share = chosen["distinct_rows"] / chosen["rows"]
    return [
        Tile("Rows chosen", f"{chosen['distinct_rows']:,}", f"{share:.1%} of {chosen['rows']:,}"),
        *_gains(made),
        _estimate(made),
        _certificate(chosen),
        Tile(
            "Score evaluations",
            f"{chosen['queries']:,}",
            f"to choose by, {chosen['queries'] / chosen['rows']:.1%} of all rows' scores; "
            f"{chosen['pilot_rows']:,} rows trained the pilot"
            + (
                ", which saw every row once"
                if made.centroids.figures["space"] == "gradient"
                else ""
            ),
        ),
        _time(made),
        _changes(chosen),
    ]


def _gains(made: Made) -> list[Tile]:
    figures = made.evaluation.figures
    if "skipped" in figures:
        return [Tile("Against uniform rows", "not measured", str(figures["skipped"]))]
    notes = {
        "better": "the subset is better",
        "worse": "uniform rows win",
        "no difference": "no difference can be told",
        "one seed": "one seed: no interval",
    }
    found = []
    for metric, gain in list(figures["gain"].items())[:GAIN_TILES]:
        outcome = judged(metric, gain)
        ends = f"95% interval {signed(gain['low'])} to {signed(gain['high'])}, {gain['n']} seeds: "
        found.append(
            Tile(
                f"{heading(spoken(metric))} against uniform",
                signed(gain["mean"]),
                ("" if outcome == "one seed" else ends) + notes[outcome],
                _tone(outcome),
            )
        )
    return found


def _estimate(made: Made) -> Tile:
    estimate = made.chosen["estimate"]
    value, low, truth = estimate["value"], estimate["low"], estimate["truth"]
    shown = f"{value:,.0f}" if low is None else f"{value:,.0f} ± {value - low:,.0f}"
    if truth is None:
        note = "95% interval; the truth was not measured, it would take every row's score"
        if low is None:
            note = "no interval: fewer than two random draws; the truth was not measured"
        return Tile(f"Estimated total {made.score}", shown, note)
    note = f"true total {truth:,.0f}: {off(value, truth)} off"
    if low is None:
        return Tile(f"Estimated total {made.score}", shown, note)
    inside = low <= truth <= estimate["high"]
    return Tile(
        f"Estimated total {made.score}",
        shown,
        f"{note}, {'inside' if inside else 'outside'} the 95% interval",
        "" if inside else "bad",
    )


def off(value: float, truth: float) -> str:
    """Return how far an estimate is from the truth, as a share of it."""
    return f"{abs(value - truth) / truth:.1%}" if truth else f"{abs(value):,.3g}"


def _certificate(chosen: dict[str, Any]) -> Tile:
    certificate = chosen["certificate"]
    radius, value = certificate["radius"], chosen["estimate"]["value"]
    share = f"{radius / value:.0%}" if value else "unknown"
    return Tile(
        "Certified error, at most",
        share,
        f"of the total ({radius:,.0f}), probability {1 - certificate['delta']:.0%}; known before "
        "a drawn row was evaluated",
    )


def _time(made: Made) -> Tile:
    spent = made.stages
    slowest = max(spent, key=lambda stage: stage.seconds)
    peak = max(stage.peak_mib for stage in spent)
    memory = f"; {peak:,.0f} MiB at most" if peak else ""
    return Tile(
        "Time",
        duration(sum(stage.seconds for stage in spent)),
        f"{duration(slowest.seconds)} of it for {slowest.asset.replace('_', ' ')}{memory}; last "
        f"computed on {newest(spent)}",
    )


def _changes(chosen: dict[str, Any]) -> Tile:
    changes = chosen["changes"]
    if changes["against"] is None:
        return Tile("Since the last subset", "first", "nothing was published before")
    return Tile(
        "Since the last subset",
        f"{changes['added']:,} in, {changes['removed']:,} out",
        f"{changes['kept']:,} rows stayed",
    )

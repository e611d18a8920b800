"""What docs/results/generation.md shows: tables and a plot of what `bench.generation` kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiment import interval
from bench.plots import save_all
from bench.show import Grid, fill

DOCS = Path(__file__).resolve().parents[1] / "docs" / "results"
WORDS = {
    "uniform": "uniform",
    "uniform, as many tokens": "uniform, as many tokens as by loss",
    "loss": "ours, by loss",
    "gradient_norm": "ours, by gradient norm",
}
AGAINST = "uniform"
COLOURS = {
    "uniform, as many tokens": "#7d8597",
    "loss": "#0b6e4f",
    "gradient_norm": "#3d5a80",
}

Results = dict[str, Any]


def grids(kept: Results) -> dict[str, Grid]:
    """Return every table of the page, by its name."""
    return {name: make(kept) for name, make in GRIDS.items()}


def report(kept: Results) -> None:
    """Print all tables."""
    for grid in grids(kept).values():
        print(f"\n{grid.title}\n\n{grid.markdown()}")


def write(kept: Results, folder: Path = DOCS) -> None:
    """Fill the page's tables, draw its plot, and lay the figures beside it."""
    page = folder / "generation.md"
    text = fill(page.read_text(), grids(kept))
    save_all(PLOTS, kept, folder.parent / "images", prefix="generation")
    (folder / "generation.json").write_text(json.dumps(kept, indent=1) + "\n")
    page.write_text(text)


def differences(kept: Results, arm: str, against: str = AGAINST) -> list[float]:
    """Return held-out losses of an arm minus another's, seed by seed."""
    return [
        cell[arm]["held"] - cell[against]["held"]
        for _, cell in sorted(kept["seeds"].items(), key=lambda one: int(one[0]))
        if arm in cell and against in cell
    ]


def _held(kept: Results) -> Grid:
    """Held-out loss of every arm, and its paired difference."""
    rows = [("not fine-tuned", "", "", "", f"{kept['before']:.4f}", "")]
    for arm, words in WORDS.items():
        cells = [cell[arm] for cell in kept["seeds"].values() if arm in cell]
        if not cells:
            continue
        found = interval([one["held"] for one in cells])
        told = "" if arm == AGAINST else _difference(differences(kept, arm))
        middle = {key: np.median([one[key] for one in cells]) for key in ("rows", "tokens")}
        rows.append(
            (
                words,
                f"{middle['rows']:,.0f}",
                f"{middle['tokens']:,.0f}",
                f"{np.median([one['queries'] for one in cells]):,.0f}",
                f"{found['mean']:.4f} ± {found['high'] - found['mean']:.4f}",
                told,
            )
        )
    head = ("rows", "number", "tokens", "texts asked about", "held-out loss, nats a token")
    return Grid("Held-out loss", (*head, "minus that of uniform rows [95%]"), rows)


def _difference(values: list[float]) -> str:
    """Return mean and interval; in bold where the interval has no 0."""
    if len(values) < 2:
        return "-"
    found = interval(values)
    text = f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
    return f"**{text}**" if found["low"] > 0.0 or found["high"] < 0.0 else text


def _total(kept: Results) -> Grid:
    """Error of the estimated total of each score."""
    rows = [
        (
            name.replace("_", " "),
            f"{kept['total'][name]:,.0f}",
            f"{100 * one['rmse']:.2f}%",
            f"{100 * one['uniform']:.2f}%",
            f"{one['rmse'] / one['uniform']:.2f}",
            f"{100 * kept['by_tokens'][name]:.2f}%",
            f"{100 * one['bias']:+.2f}%",
        )
        for name, one in kept["errors"].items()
    ]
    head = ("score", "true total", "ours", "uniform rows", "ratio", "by tokens alone")
    return Grid("Error of the estimated total", (*head, "ours, mean error"), rows)


def _rates(kept: Results) -> Grid:
    rows = [
        (
            f"**{rate}**" if float(rate) == kept["rate"] else rate,
            f"{np.mean(list(cell.values())):.4f}",
            ", ".join(f"{value:.4f}" for value in cell.values()),
        )
        for rate, cell in kept["rates"].items()
    ]
    return Grid("Learning rates", ("rate", "mean, nats a token", "single seeds"), rows)


def _reloaded(kept: Results) -> Grid:
    """What the saved model says."""
    one = kept["reloaded"]
    stored = kept["seeds"]["0"]["loss"]["held"]
    rows = [
        ("held-out loss before saving", f"{stored:.6f}"),
        ("held-out loss of the model that was loaded", f"{one['held']:.6f}"),
        ("before fine-tuning", _quoted(one["before"])),
        ("after", _quoted(one["after"])),
    ]
    return Grid("Saved, loaded and used", ("", ""), rows, left=2)


def _quoted(text: str) -> str:
    return "“" + " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;") + "”"


def _cost(kept: Results) -> Grid:
    """Processor seconds."""
    first = [cell["uniform"]["train_seconds"] for cell in kept["seeds"].values()]
    settings = kept["settings"]
    queries = np.median([cell["loss"]["queries"] for cell in kept["seeds"].values()])
    share = queries / settings["rows"]
    rows = [
        (f"embedding {settings['rows']:,} texts with MiniLM", f"{kept['embed_seconds']:.0f}"),
        (f"loss and gradient norm of all {settings['rows']:,}", f"{kept['score_seconds']:.0f}"),
        (f"of the {queries:.0f} that were asked about", f"{share * kept['score_seconds']:.0f}"),
        (f"fine-tuning on {settings['budget']} uniform rows", f"{np.median(first):.0f}"),
    ]
    return Grid("Processor seconds", ("what", "seconds"), rows)


def _settings(kept: Results) -> Grid:
    rows = [(key, str(value)) for key, value in kept["settings"].items()]
    rows.append(("seeds", str(len(kept["seeds"]))))
    rows += [
        (key, str(kept["machine"][key]))
        for key in ("processor", "threads", "torch", "transformers", "date")
        if key in kept["machine"]
    ]
    return Grid("Settings", ("", ""), rows, left=2)


def _seeds(kept: Results) -> Any:
    """Differences of every seed, and their interval."""
    import matplotlib.pyplot as plt

    arms = [arm for arm in COLOURS if len(differences(kept, arm)) > 1]
    if not arms:
        return None
    figure, axes = plt.subplots(figsize=(7.0, 3.4), layout="constrained")
    for place, arm in enumerate(arms):
        values = differences(kept, arm)
        found = interval(values)
        spread = np.linspace(-0.12, 0.12, len(values))
        axes.plot(values, place + spread, ".", color=COLOURS[arm], alpha=0.6)
        axes.errorbar(
            found["mean"], place - 0.25, xerr=found["high"] - found["mean"], fmt="o",
            color=COLOURS[arm], capsize=3,
        )  # fmt: skip
    axes.set_yticks(range(len(arms)), [WORDS[arm] for arm in arms])
    axes.axvline(0.0, color="k", linewidth=0.8)
    axes.set_xlabel("held-out loss minus that of uniform rows, nats a token (left is better)")
    axes.grid(alpha=0.3, axis="x")
    return figure


GRIDS: dict[str, Callable[[Results], Grid]] = {
    "held": _held,
    "total": _total,
    "rates": _rates,
    "cost": _cost,
    "reloaded": _reloaded,
    "settings": _settings,
}
PLOTS: dict[str, Callable[[Results], Any]] = {"seeds": _seeds}

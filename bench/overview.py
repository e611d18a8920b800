"""The README's first figure: what the pages of results say, in one picture.

``python -m bench.overview`` draws docs/images/results.png from the JSON beside the pages.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiment import interval
from bench.pages import ALL, DOCS, IMAGES

COLOURS = {"uniform rows": "#a3a8b4", "balanced classes": "#d9a441", "curation": "#0b6e4f"}


@dataclass(frozen=True)
class Panel:
    """One data set in the figure: where its seeds are, and which strategies are shown."""

    page: str
    budget: str
    title: str
    shown: dict[str, str]


PANELS = (
    Panel(
        "r8", "274", "Reuters R8, 5% of the rows",
        {"uniform rows": "uniform", "balanced classes": "class-balanced", "curation": "recipe"},
    ),
    Panel(
        "questions", "646", "TREC questions, 15%",
        {"uniform rows": "uniform", "balanced classes": "class-balanced", "curation": "recipe"},
    ),
    Panel(
        "images", "4000", "Fashion-MNIST, 6.7%",
        {
            "uniform rows": "uniform",
            "balanced classes": "class-balanced",
            "curation": "ours-by-label-coordinated",
        },
    ),
)  # fmt: skip


def figure(pages: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the macro-F1 of each strategy with its 95% interval, and that of all rows as a line.

    Parameters
    ----------
    pages
        What the JSON files hold, by the page's name.
    path
        The picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(1, len(PANELS), figsize=(9.0, 2.2), sharey=True)
    for one, panel in zip(axes, PANELS, strict=True):
        columns = pages[panel.page]["budgets"][panel.budget]
        whole = pages[panel.page][ALL]["macro_f1"]
        means = [float(np.mean(columns[name]["macro_f1"])) for name in panel.shown.values()]
        for at, (label, name) in enumerate(panel.shown.items()):
            found = interval(columns[name]["macro_f1"])
            half = (found["high"] - found["low"]) / 2.0
            one.errorbar(
                found["mean"], -at, xerr=half, marker="o", markersize=8, capsize=3,
                color=COLOURS[label],
            )  # fmt: skip
            left = found["mean"] - max(half, 0.02 * (whole - min(means)))
            one.text(left, -at, f"{found['mean']:.3f}  ", ha="right", va="center", size=8)
        one.axvline(whole, color="k", linewidth=1.0, linestyle="--")
        one.text(whole, 0.62, f"all rows {whole:.3f} ", size=8, ha="right", va="bottom")
        span = whole - min(means)
        one.set_xlim(min(means) - 0.55 * span, whole + 0.12 * span)
        one.set_ylim(0.6 - len(panel.shown), 0.6)
        one.set_yticks([-i for i in range(len(panel.shown))], list(panel.shown), size=9)
        one.tick_params(axis="x", labelsize=8)
        one.set_title(panel.title, size=9, loc="left", pad=16)
        one.spines[["top", "right"]].set_visible(False)
        one.set_xlabel("macro-F1 on rows never chosen from", size=8)
    drawn.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(drawn)


def main() -> int:
    """Read the pages' seeds and draw."""
    pages = {p.page: json.loads((DOCS / f"{p.page}.json").read_text()) for p in PANELS}
    figure(pages, IMAGES / "results.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

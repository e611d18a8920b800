"""What the checks look at. Plain functions; the assets turn their findings into check results."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from curation.pipeline.dataset import Outcome
from curation.pipeline.people import Population
from curation.pipeline.population import NOT_YET, population
from curation.pipeline.tables import EMBEDDINGS_FILE, ROWS, SCORES
from curation.pipeline.vectors import VectorFile
from curation.store import StoreError

# Standard errors of independent draws by the same law: an upper bound for the other designs in
# practice, so that the check stays silent on sound subsets and catches weights that are wrong.
WEIGHT_TOLERANCE = 5.0
VECTORS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    passed: bool
    description: str
    metadata: dict[str, float | int | str] = field(default_factory=dict)
    warning: bool = False

    @property
    def blocks(self) -> bool:
        """Whether it keeps a subset from being published."""
        return not self.passed and not self.warning


# What each asset is checked for: name -> what it means.
CHECKS: dict[str, dict[str, str]] = {
    "raw": {
        "readable": "The shard could be read.",
        "unique_ids": "Every id occurs once in the shard.",
        "nothing_set_aside": "No row is in quarantine. A warning; above a share a subset is held "
        "back (validation.quarantined_share).",
    },
    "embeddings": {
        "embedded": "The shard could be embedded.",
        "finite_embeddings": "No NaN or infinity; one embedding per row.",
    },
    "sensitivity_scores": {"valid_scores": "Scores are finite and not negative."},
    "selected_subset": {
        "weights_add_up": "The weights add up to the number of rows, within five standard errors.",
        "probabilities": "Inclusion probabilities lie in (0, 1] and weights are positive.",
        "unique_ids": "Every row is chosen at most once.",
        "holdout_disjoint": "No holdout row was chosen.",
        "quarantine_within_limit": "The share of rows in quarantine is within "
        "validation.quarantined_share.",
        "shards_readable": "The share of shards that could not be read is within "
        "validation.failed_share.",
    },
    "evaluation_model": {
        "evaluation_present": "The subset was held against uniform sampling, with error bars.",
        "holdout_disjoint": "No holdout row is among the training rows.",
        "holdout_agrees": "What was measured on the holdout's open half holds on the protected "
        "half.",
        "holdout_budget": "The protected half has events of overfitting left. If not, take a fresh "
        "holdout.",
    },
}


def raw_findings(outcome: Outcome) -> list[Finding]:
    """Check a shard's raw rows."""
    ids = pl.read_parquet(outcome.artifact.path(ROWS), columns=["id"])["id"]
    repeated = len(ids) - ids.n_unique()
    aside, rows = outcome.artifact.figures["quarantined"], outcome.artifact.figures["rows_in"]
    return [
        Finding("readable", True, "the shard was read"),
        Finding("unique_ids", repeated == 0, f"{repeated} ids occur twice in {len(ids)} rows"),
        Finding(
            "nothing_set_aside",
            aside == 0,
            f"{aside:,} of {rows:,} rows are in quarantine",
            {"quarantined": aside, "rows_in": rows},
            warning=True,
        ),
    ]


def failed_shard(asset: str, error: str) -> list[Finding]:
    """Return what is found of a shard that could not be read or embedded."""
    name = {"raw": "readable", "embeddings": "embedded"}[asset]
    return [Finding(name, False, error)]


def set_aside(people: Population) -> tuple[int, int]:
    """Return how many rows of a population's shards are in quarantine, and of how many."""
    dataset = people.dataset
    figures = [dataset.store.need(dataset.at("raw", shard)).figures for shard in people.shards]
    return sum(int(f["quarantined"]) for f in figures), sum(int(f["rows_in"]) for f in figures)


def limits(people: Population) -> list[Finding]:
    """Check how much of the data is wrong against the limits of ``validation``."""
    wanted = people.dataset.config.validation
    aside, rows = set_aside(people)
    failed = [*people.stale, *(s for s, why in people.missing.items() if why != NOT_YET)]
    known = len(people.shards) + len(people.missing)
    found = []
    for name, count, of, what, limit, more in (
        (
            "quarantine_within_limit", aside, rows, "rows are in quarantine",
            wanted.quarantined_share,
            "see `curation quarantine`; mend them, or raise validation.quarantined_share",
        ),
        (
            "shards_readable", len(failed), known, "shards could not be read",
            wanted.failed_share,
            f"{', '.join(failed[:20])}; repair them, or raise validation.failed_share",
        ),
    ):  # fmt: skip
        share = count / max(of, 1)
        told = f"{count:,} of {of:,} {what} ({share:.1%}, limit {limit:.1%})"
        found.append(
            Finding(
                name,
                count == 0,
                f"{told}: {more}" if count else told,
                {"share": share, "limit": limit},
                warning=share <= limit,
            )
        )
    return found


def embeddings_findings(outcome: Outcome) -> list[Finding]:
    """Check a shard's embeddings."""
    wrong = 0
    with VectorFile(outcome.artifact.path(EMBEDDINGS_FILE)) as file:
        rows = len(file)
        for start in range(0, rows, VECTORS_AT_A_TIME):
            block = file.vectors(start, min(start + VECTORS_AT_A_TIME, rows))
            wrong += int((~np.isfinite(block).all(axis=1)).sum())
    whole = rows == outcome.artifact.manifest.row_count
    return [
        Finding("embedded", True, "the shard was embedded"),
        Finding(
            "finite_embeddings",
            wrong == 0 and whole,
            f"{wrong} of {rows} embeddings hold NaN or infinity",
            {"rows": rows, "not_finite": wrong},
        ),
    ]


def scores_findings(outcome: Outcome) -> list[Finding]:
    """Check a shard's scores."""
    scores = pl.read_parquet(outcome.artifact.path(SCORES), columns=["score"])["score"].to_numpy()
    wrong = int((~(np.isfinite(scores) & (scores >= 0.0))).sum())
    return [Finding("valid_scores", wrong == 0, f"{wrong} of {len(scores)} scores are not valid")]


def subset_findings(frame: pl.DataFrame, outcome: Outcome, people: Population) -> list[Finding]:
    """Check a subset before it is published."""
    figures = outcome.artifact.figures
    total = float(frame["weight"].sum())
    error = float(figures["weight_standard_error"])
    tolerance = WEIGHT_TOLERANCE * error + 1e-6 * len(people)
    pi = frame["inclusion_probability"].to_numpy()
    weight = frame["weight"].to_numpy()
    valid = bool(((pi > 0) & (pi <= 1) & np.isfinite(weight) & (weight > 0)).all())
    repeated = len(frame) - frame["id"].n_unique()
    held = holdout(people)
    held_rows = 0 if held is None else len(held)
    leaked = 0 if held is None else int((held.find(frame["id"]) >= 0).sum())
    return [
        Finding(
            "weights_add_up",
            bool(np.isfinite(tolerance)) and abs(total - len(people)) <= tolerance,
            f"the weights add up to {total:,.1f}; {len(people):,} rows, tolerance {tolerance:,.1f}",
            {"weight_total": total, "rows": len(people), "tolerance": tolerance},
        ),
        Finding(
            "probabilities",
            valid,
            f"inclusion probabilities from {pi.min():.3g} to {pi.max():.3g}",
            {"smallest": float(pi.min()), "largest": float(pi.max())},
        ),
        Finding("unique_ids", repeated == 0, f"{repeated} ids occur twice in {len(frame)} rows"),
        Finding(
            "holdout_disjoint",
            leaked == 0,
            f"{leaked} of {held_rows:,} holdout rows are in the subset",
            {"holdout_rows": held_rows, "leaked": leaked},
        ),
        *limits(people),
    ]


def holdout(people: Population) -> Population | None:
    """Return the rows of the holdout; None where there is none."""
    try:
        return population(people.dataset, split="holdout")
    except StoreError:
        return None

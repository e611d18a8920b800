"""What the checks look at. Plain functions; the assets turn their findings into check results."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from curation.pipeline.dataset import Outcome
from curation.pipeline.population import Population, population
from curation.pipeline.tables import EMBEDDINGS_FILE, ROWS, SCORES, read_vectors
from curation.store import StoreError

# Standard errors of independent draws by the same law: an upper bound for the other designs in
# practice, so that the check stays silent on sound subsets and catches weights that are wrong.
WEIGHT_TOLERANCE = 5.0


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    passed: bool
    description: str
    metadata: dict[str, float | int | str] = field(default_factory=dict)


# What each asset is checked for: name -> what it means.
CHECKS: dict[str, dict[str, str]] = {
    "raw": {"unique_ids": "Every id occurs once in the shard."},
    "embeddings": {"finite_embeddings": "No NaN or infinity; one embedding per row."},
    "sensitivity_scores": {"valid_scores": "Scores are finite and not negative."},
    "selected_subset": {
        "weights_add_up": "The weights add up to the number of rows, within five standard errors.",
        "probabilities": "Inclusion probabilities lie in (0, 1] and weights are positive.",
        "unique_ids": "Every row is chosen at most once.",
        "holdout_disjoint": "No holdout row was chosen.",
    },
    "evaluation_model": {
        "evaluation_present": "The subset was held against uniform sampling, with error bars.",
        "holdout_disjoint": "No holdout row is among the training rows.",
    },
}


def raw_findings(outcome: Outcome) -> list[Finding]:
    """Check a shard's raw rows."""
    ids = pl.read_parquet(outcome.artifact.path(ROWS), columns=["id"])["id"]
    repeated = len(ids) - ids.n_unique()
    return [Finding("unique_ids", repeated == 0, f"{repeated} ids occur twice in {len(ids)} rows")]


def embeddings_findings(outcome: Outcome) -> list[Finding]:
    """Check a shard's embeddings."""
    vectors = read_vectors(outcome.artifact.path(EMBEDDINGS_FILE), "embedding")
    wrong = int((~np.isfinite(vectors).all(axis=1)).sum())
    whole = len(vectors) == outcome.artifact.manifest.row_count
    return [
        Finding(
            "finite_embeddings",
            wrong == 0 and whole,
            f"{wrong} of {len(vectors)} embeddings hold NaN or infinity",
            {"rows": len(vectors), "not_finite": wrong},
        )
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
    held_out = holdout_ids(people)
    leaked = int(frame["id"].is_in(held_out).sum()) if held_out else 0
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
            f"{leaked} of {len(held_out):,} holdout rows are in the subset",
            {"holdout_rows": len(held_out), "leaked": leaked},
        ),
    ]


def holdout_ids(people: Population) -> list[str]:
    """Return the ids of the holdout (none where there is no holdout row)."""
    try:
        return population(people.dataset, split="holdout").ids.to_list()
    except StoreError:
        return []

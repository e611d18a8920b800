"""The schema of a curated data set, as it is written in ``defs.yaml``.

Plain pydantic models, shared by the Dagster component, the command line and the Python API. They
import nothing heavy, so that a code location with a hundred data sets loads at once.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from curation.config_encoder import Encoder as Encoder
from curation.config_evaluation import Evaluation as Evaluation
from curation.config_source import Source as Source
from curation.schema import Strict

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]

NAME_PATTERN = r"^[a-z][a-z0-9_]*$"


class Columns(Strict):
    """Which column is what."""

    input: str = Field(description="The column that is embedded: text, pixels or a vector.")
    id: str | None = Field(None, description="A unique id; left out, a hash of the row's content.")
    label: str | None = Field(None, description="A class label.")
    target: str | None = Field(None, description="A number to predict (regression).")
    group: str | None = Field(None, description="A group, carried along into the subset.")

    @model_validator(mode="after")
    def _label_or_target(self) -> Columns:
        if self.label and self.target:
            raise ValueError("columns: give `label` or `target`, not both")
        return self


class Holdout(Strict):
    """Rows that are never selected and that the evaluation is measured on."""

    fraction: Fraction | None = Field(
        None, description="Share of rows, chosen by a hash of the id: a row never changes sides."
    )
    shards: list[str] | None = Field(None, description="Globs over shard keys.")
    column: str | None = Field(None, description="A column that says which split a row is in.")
    values: list[str] = Field(
        ["test", "holdout"], description="With `column`: the holdout's values."
    )
    seed: int = Field(0, description="Changes which rows `fraction` takes.")

    @model_validator(mode="after")
    def _one_rule(self) -> Holdout:
        if sum(x is not None for x in (self.fraction, self.shards, self.column)) != 1:
            raise ValueError("holdout: give exactly one of `fraction`, `shards`, `column`")
        return self


class Clusters(Strict):
    """How the rows are clustered."""

    k: int | Literal["auto"] = Field(
        "auto", description="Number of clusters; `auto`: half of the budget, at most 400."
    )
    space: Literal["auto", "embedding", "embedding+label", "gradient"] = Field(
        "auto",
        description="What is clustered (docs/methods.md, spaces); `auto` uses labels if there are.",
    )
    sample_per_centroid: int = Field(
        64, ge=1, description="Rows per centroid k-means is fitted on."
    )
    iterations: int = Field(20, ge=1, le=1000)
    block_mib: int = Field(64, ge=1, description="MiB of embeddings held at a time.")

    @field_validator("k")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("clusters.k: must be at least 1, or `auto`")
        return value


class Score(Strict):
    """The expensive per-row score, asked for at the k medoids and a few pilot rows."""

    model: Literal["probe", "mlp", "transformer", "column"] = Field(
        "probe", description="The pilot model, or a column that already holds the score."
    )
    value: Literal["loss", "gradient_norm"] = "loss"
    column: str | None = Field(None, description="With model `column`: the column's name.")
    pilot_share: Annotated[float, Field(gt=0.0, le=0.5)] = Field(
        0.2, description="Share of the budget drawn uniformly to train the pilot model."
    )
    proxy: Literal["auto", "cluster", "low_rank", "regression"] = Field(
        "auto",
        description="How scores that are not asked for are estimated; `auto` takes the one whose "
        "law has the smallest expected error.",
    )
    constants: Literal["balanced", "max", "quantile", "conformal", "variance"] = Field(
        "balanced", description="How distance enters the sensitivity (docs/methods.md, constants)."
    )
    epochs: int = Field(20, ge=1, description="For `mlp` and `transformer` pilots.")
    rounds: int = Field(
        1,
        ge=1,
        le=100,
        description="Adaptive rounds: the draw is cut into so many parts, and each but the first "
        "follows the scores of a model trained on all rows so far.",
    )

    @model_validator(mode="after")
    def _column_named(self) -> Score:
        if (self.model == "column") != (self.column is not None):
            raise ValueError("score: model `column` and the field `column` go together")
        if self.rounds > 1 and self.model not in ("probe", "mlp"):
            raise ValueError(
                f"score.rounds: model `{self.model}` cannot be trained anew in each round; take "
                "`probe` or `mlp`"
            )
        if self.rounds > 1 and self.proxy not in ("auto", "cluster"):
            raise ValueError("score.rounds: rounds go by the medoids' scores (proxy `cluster`)")
        return self


class Selection(Strict):
    """How many rows are drawn, and by which design."""

    budget: int | None = Field(None, ge=1, description="Number of rows.")
    fraction: Fraction | None = Field(None, description="Share of the rows.")
    epsilon: Fraction | None = Field(
        None,
        description="Error radius as a share of the certificate's bound (the largest possible "
        "contribution of one draw); gives the budget, the pilot comes on top.",
    )
    delta: Fraction = Field(0.05, description="Error probability of the certificate.")
    design: Literal[
        "coordinated",
        "systematic",
        "iid",
        "poisson",
        "stratified",
        "uniform",
        "stratified_uniform",
    ] = Field(
        "coordinated",
        description="How rows are drawn; `coordinated` keeps the choice stable as shards arrive.",
    )
    mix: Annotated[float, Field(gt=0.0, le=1.0)] | Literal["auto"] = Field(
        "auto",
        description="Share of uniform sampling in the law; caps every weight. `auto`: 0.1, or more "
        "where the score has little to do with the embedding.",
    )
    tilt: Literal["none", "classes", "groups"] = Field(
        "none", description="Tilts the law towards rare classes or groups (geometric mean)."
    )
    shares: Literal["none", "proportional"] | dict[str, Annotated[float, Field(ge=0.0, le=1.0)]] = (
        Field(
            "none",
            description="Shares of the drawn rows for groups: `proportional` to their sizes, or a "
            "share by group.",
        )
    )
    minimum: int | dict[str, Annotated[int, Field(ge=0)]] = Field(
        0, description="Least expected number of drawn rows of every group, or by group."
    )
    law: Literal["sensitivity", "regression", "leverage", "ridge_leverage", "row_norm"] = Field(
        "sensitivity",
        description="What rows are drawn by. `regression` (residual at the medoids, leverage, "
        "uniform) and the baselines after it are for least-squares fits of `columns.target` on the "
        "embeddings; the baselines hold all embeddings in memory.",
    )
    calibrate: bool = Field(
        False,
        description="Adds `calibrated_weight`, which reproduces the sizes of groups of clusters, "
        "the proxy's total and the counts of classes and groups, and trains with it.",
    )
    weight_exponent: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        1.0, description="training_weight = (combined weight) ** this; 1 keeps it unbiased."
    )
    seed: int = 0

    @property
    def by_group(self) -> bool:
        """Whether the rows' groups are needed."""
        return self.tilt == "groups" or self.shared

    @property
    def shared(self) -> bool:
        """Whether groups have a part of the budget each."""
        return self.shares != "none" or self.minimum != 0

    @model_validator(mode="after")
    def _one_size(self) -> Selection:
        if sum(x is not None for x in (self.budget, self.fraction, self.epsilon)) != 1:
            raise ValueError("selection: give exactly one of `budget`, `fraction`, `epsilon`")
        return self


class Schedule(Strict):
    """Recurring curation."""

    cron: str = Field("0 6 * * *", description="When the whole graph is brought up to date.")
    timezone: str = "UTC"
    enabled: bool = Field(False, description="Whether the schedule is on from the start.")

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        if len(value.split()) != 5:
            raise ValueError(f"schedule.cron: expected five fields, got {value!r}")
        return value


class Automation(Strict):
    """Watching the source for new, changed and deleted shards."""

    watch: bool = Field(False, description="Whether the sensor is on from the start.")
    interval_seconds: int = Field(60, ge=5)
    run: Literal["ingest", "curation"] = Field(
        "ingest",
        description="What a change starts: reading and embedding the shards (a schedule curates), "
        "or the whole graph.",
    )


class Validation(Strict):
    """How much may be wrong with the data before a subset is held back."""

    quarantined_share: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1, description="Share of rows in quarantine above which no subset is published."
    )
    failed_share: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5, description="Share of shards that cannot be read above which no subset is published."
    )


class Refit(Strict):
    """When pilot model and centroids are fitted anew; else they are kept as shards come and go."""

    cost_ratio: Annotated[float, Field(gt=0.0)] = Field(
        1.25,
        description="Cost per row (squared distance to the centroid) of the rows that came since "
        "the fit, over that of the rows it was made on.",
    )
    violated_share: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.15,
        description="How much larger the share of rows whose score exceeds their sensitivity may "
        "be among the rows that came since the fit.",
    )
    growth: Annotated[float, Field(ge=1.0)] = Field(
        2.0, description="How many times as many rows as at the fit (or as few) are still served."
    )
    sample: int = Field(
        200, ge=0, description="Rows that came since the fit whose score is asked for to see that."
    )


class Retention(Strict):
    """Which old versions stay."""

    versions: int = Field(30, ge=1, description="Published subsets that stay, the newest first.")
    days: int | None = Field(None, ge=1, description="Those younger than this stay as well.")


class CuratedDatasetConfig(Strict):
    """One curated data set: everything a user sets."""

    name: str = Field("", description="Left out: the name of the folder that holds defs.yaml.")
    description: str = ""
    owner: str = Field("team:data", description="A team (`team:NAME`) or an e-mail address.")
    license: str = Field(
        "", description="The licence of the data (an SPDX identifier); stands in the data card."
    )
    source: Source
    columns: Columns
    holdout: Holdout = Holdout(fraction=0.2)
    encoder: Encoder = Encoder()
    clusters: Clusters = Clusters()
    score: Score = Score()
    selection: Selection
    evaluation: Evaluation = Evaluation()
    schedule: Schedule = Schedule()
    automation: Automation = Automation()
    validation: Validation = Validation()
    refit: Refit = Refit()
    retention: Retention = Retention()

    @property
    def space(self) -> str:
        """The space that is clustered: ``clusters.space`` with ``auto`` resolved."""
        if self.clusters.space != "auto":
            return self.clusters.space
        known = self.columns.label or self.columns.target
        return "embedding+label" if known else "embedding"

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if value and not re.match(NAME_PATTERN, value):
            raise ValueError(f"name: {value!r} must be lower-case letters, digits and _")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> CuratedDatasetConfig:
        labelled = self.columns.label is not None
        if not labelled and self.columns.target is None and self.score.model != "column":
            raise ValueError(
                "columns: a pilot model needs `label` or `target`; without either, name a column "
                "that holds a score: score: {model: column, column: NAME}"
            )
        if self.clusters.space == "gradient" and (not labelled or self.score.model == "column"):
            raise ValueError("clusters.space: `gradient` needs `columns.label` and a pilot model")
        if self.clusters.space == "embedding+label" and not (labelled or self.columns.target):
            raise ValueError("clusters.space: `embedding+label` needs `label` or `target`")
        if self.selection.tilt == "classes" and not labelled:
            raise ValueError("selection.tilt: `classes` needs `columns.label`")
        design = self.selection.design
        if design in ("uniform", "stratified_uniform") and self.selection.tilt != "none":
            raise ValueError(
                f"selection: design `{design}` draws every row with the same probability; `tilt` "
                "needs another one"
            )
        self._law_fits()
        if self.selection.by_group and not self.columns.group:
            raise ValueError(
                "selection: tilt `groups`, `shares` and `minimum` need `columns.group`"
            )
        if self.score.model == "transformer" and self.encoder.type != "text":
            raise ValueError("score.model: `transformer` needs encoder.type `text`")
        if self.score.model in ("mlp", "transformer") and not labelled:
            raise ValueError(f"score.model: `{self.score.model}` needs `columns.label`")
        if self.clusters.space == "gradient" and self.score.model == "transformer":
            raise ValueError("clusters.space: `gradient` goes with score.model `probe` or `mlp`")
        return self

    def _law_fits(self) -> None:
        wanted, rounds = self.selection, self.score.rounds
        if wanted.law != "sensitivity":
            if self.columns.target is None:
                raise ValueError(f"selection.law: `{wanted.law}` needs `columns.target`")
            if wanted.design in ("uniform", "stratified_uniform") or wanted.tilt != "none":
                raise ValueError(
                    f"selection.law: `{wanted.law}` goes with neither uniform designs nor `tilt`"
                )
            if rounds > 1:
                raise ValueError("score.rounds: rounds need selection.law `sensitivity`")
        if rounds > 1 and (wanted.tilt != "none" or wanted.shared or wanted.calibrate):
            raise ValueError(
                "score.rounds: rounds go with neither `tilt`, `shares`, `minimum` nor `calibrate`"
            )


def matches(key: str, globs: list[str]) -> bool:
    """Whether a shard key matches one of the globs (case counts)."""
    return any(fnmatchcase(key, glob) for glob in globs)

"""How a subset is held against uniform rows, as it is set in YAML."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from curation.schema import Strict


class FineTune(Strict):
    """Fine-tuning of the real encoder (text), or training a small network (images)."""

    enabled: bool = True
    epochs: int = Field(5, ge=1)
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    batch_size: int = Field(32, ge=1)
    seeds: int = Field(1, ge=1)


class Protected(Strict):
    """The half of the holdout that only says whether figures agree with it (Thresholdout)."""

    protect: bool = Field(
        True,
        description="Split the holdout by a hash of the ids: tables and plots are of the open "
        "half, and accuracies are published as far as the protected half agrees. Else all figures "
        "are of all its rows.",
    )
    overfitting_events: int = Field(
        20,
        ge=1,
        description="How many times the protected half may say that a figure is overfitted, over "
        "all runs; after that it takes a fresh holdout.",
    )
    least_rows: int = Field(
        400,
        ge=1,
        description="Rows the protected half must have; of fewer it would notice next to nothing "
        "(with n rows, differences above 4 / sqrt(n)), and the holdout is not split.",
    )


class Evaluation(Strict):
    """What the subset is held against."""

    probe: Literal["linear", "mlp"] = Field(
        "linear", description="The cheap model trained on embeddings, once per seed and strategy."
    )
    probe_seeds: int = Field(10, ge=2, description="Draws of the probe comparison (error bars).")
    probe_epochs: int = Field(10, ge=1, description="For probe `mlp`.")
    all_rows: bool = Field(True, description="Also train the probe on all rows.")
    fine_tune: FineTune = FineTune()
    protected: Protected = Protected()

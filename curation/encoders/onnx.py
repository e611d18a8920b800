"""Weights in eight bits by ONNX Runtime: small, for processors without bfloat16, and less exact."""

from __future__ import annotations

import hashlib
import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.encoders.base import EncoderError
from curation.encoders.batches import Tokens
from curation.encoders.cache import cache_folder
from curation.encoders.loading import load_model
from curation.encoders.weights import weights_identity
from curation.progress import quiet

OPSET = 17
MADE = 1
"""Raised when the graph is made in another way."""


class OnnxInt8:
    """The forward pass in ONNX Runtime; weights int8 per column, activations uint8 per tensor.

    The graph is made once, by torch's exporter and ONNX Runtime's dynamic quantisation, and kept in
    the user's cache folder, named by the weights it was made of.
    """

    name = "ONNX Runtime, int8"
    workers = 0

    def __init__(self, folder: Path, *, pad: int) -> None:
        runtime = _need("onnxruntime")
        path = _graph(folder)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # batches run side by side instead
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        from transformers import AutoConfig

        with quiet():
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        self.dim = int(self._session.get_outputs()[0].shape[-1])
        self.positions = int(getattr(config, "max_position_embeddings", 0) or 2**31)
        self._pad = pad

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        """Return (n, dim) float32 sums of the token vectors of n texts.

        Activations are quantised over all texts that are computed together, so that a vector would
        depend on its company: every text is computed alone.
        """
        return np.concatenate([self._sum(ids) for ids in np.split(tokens.ids, tokens.begins[1:-1])])

    def _sum(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        row = ids.astype(np.int64)[None] if len(ids) else np.full((1, 1), self._pad)
        (hidden,) = self._session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row)})
        return hidden.sum(axis=1) * bool(len(ids))


def _graph(folder: Path) -> Path:
    """Return the path of the quantised graph, making it if it is not there."""
    made_by = [MADE, OPSET, *(_version(one) for one in ("onnx", "onnxruntime", "torch"))]
    key = hashlib.sha256(f"{weights_identity(folder)} {made_by}".encode()).hexdigest()[:32]
    path = cache_folder() / f"int8-{key}.onnx"
    if path.is_file():
        return path
    _need("onnx")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            exact, small = Path(scratch) / "exact.onnx", Path(scratch) / "small.onnx"
            _export(folder, exact)
            _quantise(exact, small)
            os.replace(small, path)  # noqa: PTH105 - whole or not at all
    except OSError as error:
        raise EncoderError(
            f"encoder.backend `onnx-int8`: the graph cannot be kept in {path.parent} ({error}); "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return path


def _export(folder: Path, path: Path) -> None:
    import torch

    model = load_model(folder, eager=True)

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    ids = torch.tensor([[1, 2, 3], [1, 2, 0]])
    names = {"input_ids": {0: "n", 1: "l"}, "attention_mask": {0: "n", 1: "l"}}
    import warnings

    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Hidden().eval(),
            (ids, (ids > 0).long()),
            str(path),
            input_names=list(names),
            output_names=["hidden"],
            dynamic_axes={**names, "hidden": {0: "n", 1: "l"}},
            opset_version=OPSET,
            dynamo=False,  # the other exporter needs another package and six times as long
        )


def _quantise(source: Path, target: Path) -> None:
    import logging

    quantization = _need("onnxruntime.quantization")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns about a step that changes nothing here
    try:
        quantization.quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
        )
    finally:
        root.setLevel(level)


def _need(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EncoderError(
            f"encoder.backend `onnx-int8` needs {name}: pip install 'curation[onnx]'"
        ) from error


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""

"""BERT's forward pass without padding, from the weights of a loaded module.

The tokens of all texts of a batch lie one after the other: linear layers, which are nine tenths of
the work, see one matrix without padding. Attention is asked for once per run of texts of equal
length, and needs no mask. The three projections of attention are one product, oneDNN gets its
weights in the layout it multiplies fastest, and GELU and the residual are part of the products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curation.encoders.batches import Tokens

if TYPE_CHECKING:
    from torch import Tensor, dtype

ARCHITECTURES = ("bert",)


def knows(config: Any) -> bool:
    """Whether :class:`PackedBert` computes the encoder of a transformers configuration."""
    return (
        config.model_type in ARCHITECTURES
        and config.hidden_act == "gelu"
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
    )


class PackedBert:
    """Sums of last-layer token vectors, computed without padding.

    Parameters
    ----------
    model : torch.nn.Module
        A ``BertModel`` in float32 for which :func:`knows` holds. Its weights are copied.
    number : torch.dtype
        What layers are computed in: float32 or bfloat16. Embeddings and the sums are float32.
    """

    def __init__(self, model: Any, number: dtype) -> None:
        config, found = model.config, model.embeddings
        self._number = number
        self._heads = int(config.num_attention_heads)
        self._epsilon = float(config.layer_norm_eps)
        self._words = found.word_embeddings.weight.detach()
        kind = found.token_type_embeddings.weight.detach()[0]
        self._places = found.position_embeddings.weight.detach() + kind
        self._norm = (found.LayerNorm.weight.detach(), found.LayerNorm.bias.detach())
        self._layers = [_Layer(one, number) for one in model.encoder.layer]

    def __call__(self, tokens: Tokens) -> NDArray[np.float32]:
        """Return (n, dim) float32 sums of the token vectors of n texts.

        Parameters
        ----------
        tokens : Tokens
            The fewer different lengths follow one another, the fewer calls: sort them by length.
        """
        import torch
        from torch.nn.functional import layer_norm

        lengths = tokens.lengths
        place = np.arange(len(tokens.ids)) - np.repeat(tokens.begins[:-1], lengths)
        runs = list(_runs(lengths))
        with torch.inference_mode():
            x = self._words[torch.from_numpy(tokens.ids)] + self._places[torch.from_numpy(place)]
            x = layer_norm(x, x.shape[1:], *self._norm, self._epsilon).to(self._number)
            for layer in self._layers:
                mixed = _attention(layer.projections(x), runs, self._heads)
                x = layer.norm(layer.attended(mixed, add=x), self._epsilon, 0)
                inner = layer.inner(x, gelu=True)
                x = layer.norm(layer.outer(inner, add=x), self._epsilon, 1)
            parts, begin = [], 0
            for rows, length in runs:
                part = x[begin : begin + rows * length].view(rows, length, -1)
                parts.append(part.sum(1, dtype=torch.float32))
                begin += rows * length
            return torch.cat(parts).numpy()


def _runs(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (texts, tokens of each) of the runs of equal length."""
    ends = np.flatnonzero(np.diff(lengths, append=-1)) + 1
    begin = 0
    for end in ends.tolist():
        yield end - begin, int(lengths[end - 1])
        begin = end


def _attention(projected: Tensor, runs: list[tuple[int, int]], heads: int) -> Tensor:
    """Return (t, dim) mixed values from (t, 3 dim) queries, keys and values."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    width = projected.shape[1] // 3
    parts, begin = [], 0
    for rows, length in runs:
        part = projected[begin : begin + rows * length]
        q, k, v = part.view(rows, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v)
        parts.append(mixed.transpose(1, 2).reshape(rows * length, width))
        begin += rows * length
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Layer:
    """Weights of one layer."""

    def __init__(self, layer: Any, number: dtype) -> None:
        import torch

        own, after = layer.attention.self, layer.attention.output
        three = (own.query, own.key, own.value)
        weight = torch.cat([one.weight.detach() for one in three])
        bias = torch.cat([one.bias.detach() for one in three])
        self.projections = _Product(weight, bias, number)
        self.attended = _product(after.dense, number)
        self.inner = _product(layer.intermediate.dense, number)
        self.outer = _product(layer.output.dense, number)
        self._norms = [_norm(part.LayerNorm, number) for part in (after, layer.output)]

    def norm(self, x: Tensor, epsilon: float, which: int) -> Tensor:
        from torch.nn.functional import layer_norm

        return layer_norm(x, x.shape[1:], *self._norms[which], epsilon)


def _product(layer: Any, number: dtype) -> _Product:
    return _Product(layer.weight.detach(), layer.bias.detach(), number)


def _norm(layer: Any, number: dtype) -> tuple[Tensor, Tensor]:
    return layer.weight.detach().to(number), layer.bias.detach().to(number)


class _Product:
    """``x @ weight.T + bias``, then GELU or the residual added, in one call where oneDNN has it."""

    def __init__(self, weight: Tensor, bias: Tensor, number: dtype) -> None:
        import torch

        self._weight: Tensor = weight.to(number).contiguous()
        self._bias = bias.to(number)
        self._packed = _onednn(number)
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)

    def __call__(self, x: Tensor, *, gelu: bool = False, add: Tensor | None = None) -> Tensor:
        import torch
        from torch.nn import functional

        if self._packed:
            pointwise = torch.ops.mkldnn._linear_pointwise
            if add is not None:
                return pointwise.binary(x, add, self._weight, self._bias, "add")
            kind = "gelu" if gelu else "none"
            return pointwise.default(x, self._weight, self._bias, kind, [], "none")
        out = functional.linear(x, self._weight, self._bias)
        if gelu:
            return functional.gelu(out)
        return out if add is None else out.add_(add)


def _onednn(number: dtype) -> bool:
    """Whether this build of torch has oneDNN's fused products for the number format."""
    import torch

    ops = torch.ops.mkldnn
    names = ("_reorder_linear_weight", "_linear_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(ops, one) for one in names):
        return False
    return number != torch.bfloat16 or bool(ops._is_mkldnn_bf16_supported())

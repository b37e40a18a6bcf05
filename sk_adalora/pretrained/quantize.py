"""Frozen layers whose weights take 8 or 4 bits a number, and compute as before.

A layer makes its weight of the packed one when it is used, in the forward pass and
again in the backward pass: so of all weights, one at a time is there unpacked.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_adalora.adalora.layer_replacement import replace_modules
from sk_adalora.adalora.products import linear, refuse_second_derivatives

# Numbers in four bits have a scale for so many of them. It is even.
_BLOCK = 64
# By Dettmers et al., "QLoRA", NeurIPS 2023, arXiv:2305.14314: the outermost quantile.
_OUTERMOST = 0.9677083


class _Unpacking(torch.autograd.Function):
    """``x @ weight.T + bias``, which keeps the packed weight for the backward pass."""

    # Dimensions: m = tokens, in, out = widths of the layer.

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (m, in)
        layer: QuantizedLinear,
        bias: Tensor | None,  # (out,)
    ) -> Tensor:
        ctx.layer = layer
        return linear(x, layer.unpack(x.dtype), bias)  # (m, out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # (m, out)
        refuse_second_derivatives()
        needs_x, _, needs_bias = ctx.needs_input_grad
        of_x = None
        if needs_x:
            of_x = linear(gradient, ctx.layer.unpack(gradient.dtype).t())
        return of_x, None, gradient.sum(dim=0) if needs_bias else None


class QuantizedLinear(nn.Linear):
    """A frozen linear layer with a packed weight; the subclasses say how.

    Parameters
    ----------
    layer : torch.nn.Linear
        The layer whose weight to pack, and whose bias to use.
    device : torch.device
        Where to compute.
    """

    # Models that look at the type of a weight know of this one that it is packed.
    weight: nn.Parameter  # of torch.int8
    scale: Tensor  # in float32

    def __init__(self, layer: nn.Linear, device: torch.device) -> None:
        super(nn.Linear, self).__init__()  # nn.Linear would draw a weight
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.compute_dtype = layer.weight.dtype
        weight, scale = self.pack(layer.weight.detach().to(device).float())
        self.weight = nn.Parameter(weight, requires_grad=False)
        # Not a parameter: models take the type of their first one for their own.
        self.register_buffer("scale", scale, persistent=False)
        self.bias = layer.bias

    @staticmethod
    def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return a weight as integers, and their scales."""
        raise NotImplementedError

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """Return the weight, of shape (out, in)."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """Multiply by the weight, and add the bias."""
        flat = input.reshape(-1, self.in_features)
        out: Tensor = _Unpacking.apply(flat, self, self.bias)
        return out.view(*input.shape[:-1], self.out_features)


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:  # (n, w)
    """Round each row to whole numbers from -127 to 127, times a scale of its own."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 127  # (n, 1)
    scale[scale == 0] = 1
    return (weight / scale).round_().to(torch.int8), scale


class Int8Linear(QuantizedLinear):
    """A linear layer with 8 bits a weight, and a scale for each output."""

    pack = staticmethod(_to_int8)

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """Return the weight, of shape (out, in)."""
        # Converted first: a product of the two types takes 35 times as long on a CPU.
        return self.weight.float().mul_(self.scale).to(dtype)


class FourBitLinear(QuantizedLinear):
    """A linear layer with 4 bits a weight, and a scale for each 64: QLoRA's NF4."""

    @staticmethod
    def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return a weight as integers of two numbers each, and their scales."""
        flat = weight.flatten()
        blocks = F.pad(flat, (0, -len(flat) % _BLOCK)).view(-1, _BLOCK)
        scale = blocks.abs().amax(dim=1, keepdim=True)
        scale[scale == 0] = 1
        levels = _levels().to(weight.device)
        between = (levels[1:] + levels[:-1]) / 2
        codes = torch.bucketize(blocks / scale, between, out_int32=True)
        pairs = codes.to(torch.uint8).view(-1, 2)
        return ((pairs[:, 0] << 4) | pairs[:, 1]).view(torch.int8), scale

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """Return the weight, of shape (out, in)."""
        pairs = self.weight.view(torch.uint8).int()
        table = _pairs_of_levels(self.weight.device)
        numbers = table.index_select(0, pairs).view(torch.float32)
        blocks = numbers.view(-1, _BLOCK).mul_(self.scale)
        flat = blocks.view(-1)[: self.out_features * self.in_features]
        return flat.view(self.out_features, self.in_features).to(dtype)


def _levels() -> Tensor:
    """Return the numbers that four bits stand for, of shape (16,).

    They are quantiles of normally distributed weights, from -1 to 1, with 0 among them.
    """
    above, below = (
        torch.special.ndtri(
            torch.linspace(_OUTERMOST, 0.5, count, dtype=torch.float64)[:-1]
        )
        for count in (9, 8)
    )
    levels = torch.cat([-below, torch.zeros(1, dtype=torch.float64), above])
    return (levels.sort().values / levels.max()).float()


@cache
def _pairs_of_levels(device: torch.device) -> Tensor:
    """Return the two numbers that each byte stands for, as one of 64 bits, (256,).

    To look up one number takes a quarter of the time of two.
    """
    with torch.inference_mode(False):
        pairs = torch.cartesian_prod(_levels(), _levels())
        return pairs.view(torch.int64).flatten().to(device)


class Int8Embedding(nn.Embedding):
    """A frozen embedding with 8 bits a number, and a scale for each token.

    Parameters
    ----------
    table : torch.nn.Embedding
        The embedding to pack.
    device : torch.device
        Where to compute.
    """

    weight: nn.Parameter  # of torch.int8
    scale: Tensor  # in float32

    def __init__(self, table: nn.Embedding, device: torch.device) -> None:
        super(nn.Embedding, self).__init__()  # nn.Embedding would draw a weight
        self.num_embeddings, self.embedding_dim = table.weight.shape
        self.padding_idx, self.compute_dtype = table.padding_idx, table.weight.dtype
        weight, scale = _to_int8(table.weight.detach().to(device).float())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the vector of each token."""
        rows = F.embedding(input, self.weight), F.embedding(input, self.scale)
        return rows[0].float().mul_(rows[1]).to(self.compute_dtype)

    def extra_repr(self) -> str:
        """Describe the size of the table in the module's repr."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


_KINDS = {"int8": Int8Linear, "4bit": FourBitLinear}


def quantize(
    body: nn.Module, kind: str, device: torch.device, kept: Collection[Tensor] = ()
) -> None:
    """Pack the weights of a model's linear layers and of its tokens' embedding.

    Parameters
    ----------
    body : torch.nn.Module
        The model, without a head to be trained. It is changed.
    kind : {"int8", "4bit"}
        How to pack linear layers. The embedding is packed in 8 bits.
    device : torch.device
        Where to compute. One layer at a time is there unpacked.
    kept : collection of torch.Tensor, default=()
        Weights that are to be trained, and stay as they are.

    Raises
    ------
    ValueError
        If the model has no linear layers of torch's own.
    """
    trained = {id(weight) for weight in kept}
    layers: list[Any] = [
        part
        for part in body.modules()
        # Another class may do something else with its weight.
        if type(part) is nn.Linear and id(part.weight) not in trained
    ]
    if not layers:
        raise ValueError(
            "`quantization` needs a model with linear layers of torch's own class. Got "
            f"a {type(body).__name__}, which has none. Set quantization=None."
        )
    table = _token_embedding(body)
    if type(table) is nn.Embedding and id(table.weight) not in trained:
        replace_modules(body, {table: Int8Embedding(table, device)})
    while layers:  # each original is freed before the next one is packed
        layer = layers.pop()
        replace_modules(body, {layer: _KINDS[kind](layer, device)})


def _token_embedding(body: Any) -> Any:
    """Return the embedding of the tokens, or None if the model does not tell."""
    try:
        return body.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def scales(module: nn.Module) -> list[Tensor]:
    """Return the scales of all packed weights in a module."""
    kinds = (QuantizedLinear, Int8Embedding)
    return [part.scale for part in module.modules() if isinstance(part, kinds)]


def count_numbers(module: nn.Module) -> int:
    """Return how many parameters a module has, if all were unpacked."""
    return sum(p.numel() for p in module.parameters()) + sum(
        part.in_features * part.out_features - part.weight.numel()
        for part in module.modules()
        if isinstance(part, QuantizedLinear)
    )

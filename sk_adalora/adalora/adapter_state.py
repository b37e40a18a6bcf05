"""The numbers of an adapter as a flat dict under PEFT's names, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .layers import SVDLinear
from .modules_to_save import TrainedCopies
from .triplets import Factors, Triplets

PREFIX = "base_model.model."  # what PEFT puts before every path


def collect(
    adapted: Mapping[str, SVDLinear], triplets: Triplets, copies: TrainedCopies
) -> dict[str, Tensor]:
    """Copy the numbers of an adapter.

    The copies are contiguous, and further training does not change them.
    """
    state: dict[str, Tensor] = {}
    for path, (left, values, right) in zip(adapted, triplets.per_layer(), strict=True):
        start = f"{PREFIX}{path}."
        state[start + "lora_A"] = right.clone()
        state[start + "lora_B"] = left.T.clone(memory_format=torch.contiguous_format)
        state[start + "lora_E"] = values.unsqueeze(1).clone()
    for path, tensor in copies.named_tensors():
        state[PREFIX + path] = tensor.detach().clone()
    return state


def factors(
    state: dict[str, Tensor], adapted: Mapping[str, SVDLinear], init_r: int
) -> list[Factors]:
    """Take the factors of every layer out of `state`.

    Refuse missing ones, and shapes that do not fit the layer or `init_r`.
    """
    found = [_factors(state, path, layer) for path, layer in adapted.items()]
    for path, (_, values, _) in zip(adapted, found, strict=True):
        if len(values) > init_r:  # the scale would be another one
            raise ValueError(
                f"`init_r`={init_r} must be that of the adapter. Got rank "
                f"{len(values)} for {path!r}. Adapt the model with the `init_r` that "
                "the adapter was trained with."
            )
    return found


def _factors(state: dict[str, Tensor], path: str, layer: SVDLinear) -> Factors:
    try:
        right, left, values = (
            state.pop(f"{PREFIX}{path}.{name}")
            for name in ("lora_A", "lora_B", "lora_E")
        )
    except KeyError as error:
        raise ValueError(
            f"The adapter must hold {error.args[0]!r}. Got no such tensor. Check "
            "that it belongs to this model and these `target_modules`."
        ) from None
    rank = values.numel()
    expected = ((rank, layer.in_features), (layer.out_features, rank), (rank, 1))
    shapes = (tuple(right.shape), tuple(left.shape), tuple(values.shape))
    if shapes != expected:
        raise ValueError(
            f"The factors of {path!r} must have shapes "
            f"{', '.join(map(str, expected))}. Got {', '.join(map(str, shapes))}. "
            "Check that the adapter belongs to this model."
        )
    return Factors(left.T, values.flatten(), right)


class Matched(NamedTuple):
    """What is trained in full, beside a stored state.

    Attributes
    ----------
    pairs : list of (torch.Tensor, torch.Tensor)
        Tensors of the model, and their stored values.
    missing, unknown : list of str
        Names that only the model, or only the state, has.
    """

    pairs: list[tuple[Tensor, Tensor]]
    missing: list[str]
    unknown: list[str]


def match_copies(
    state: Mapping[str, Tensor], copies: TrainedCopies, strict: bool
) -> Matched:
    """Pair what is trained in full with what :func:`factors` left of a state.

    Refuse other shapes and, if `strict`, missing and unknown names.
    """
    own = {PREFIX + path: tensor for path, tensor in copies.named_tensors()}
    missing = sorted(own.keys() - state.keys())
    unknown = sorted(state.keys() - own.keys())
    if strict and (missing or unknown):
        raise ValueError(
            "The adapter must hold what the model trains. Missing: "
            f"{missing[:5]}. Unknown: {unknown[:5]}. Check the base model and "
            "`modules_to_save`. What PEFT may adapt or save beside linear layers, such "
            "as embeddings, tokens and convolutions, is not read: train without it."
        )
    pairs = {name: (own[name], state[name]) for name in own if name in state}
    for name, (tensor, stored) in pairs.items():
        if tensor.shape != stored.shape:
            raise ValueError(
                f"{name!r} must have shape {tuple(tensor.shape)}. Got "
                f"{tuple(stored.shape)}. Check that the model has as many labels as "
                "the adapter."
            )
    return Matched([*pairs.values()], missing, unknown)


def check_same_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse a state whose names and shapes are not the adapter's own."""
    for name in sorted({*state, *own}):
        got, expected = (
            tuple(s[name].shape) if name in s else None for s in (state, own)
        )
        if got != expected:
            raise ValueError(
                "`state_dict` must have the names and shapes of the adapter's. Got "
                f"{name!r} of shape {got} in place of {expected}. Pass what "
                "`state_dict()` of the adapted model returns."
            )

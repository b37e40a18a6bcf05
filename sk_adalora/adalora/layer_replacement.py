"""Adapted layers take the places of plain ones in a model, and give them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .layers import SVDLinear

# Attributes by which torch's transformer encoder chooses its fused fast path, and
# values that prevent it.
_UNFUSED = (
    (nn.TransformerEncoderLayer, "activation_relu_or_gelu", 0),
    (nn.TransformerEncoder, "use_nested_tensor", False),
)


def check_adaptable(model: nn.Module, layers: list[str], copied: list[str]) -> None:
    """Refuse layers that do not hold their weights themselves, and such copies."""
    for path in [*layers, *copied]:
        for part in model.get_submodule(path).modules():
            own = part.parameters(recurse=False)
            if hasattr(part, "_hf_hook") and any(p.is_meta for p in own):
                raise ValueError(
                    f"What is adapted or trained must hold its weights. Got {path!r}, "
                    "which accelerate has offloaded. Load the model without "
                    "offloading, or leave such layers out with `exclude_modules`."
                )
    for path in layers:
        if "weight" not in model.get_submodule(path)._parameters:
            raise ValueError(
                f"The weight of an adapted layer must be a parameter. Got {path!r}, "
                "whose weight is computed from others, as by weight_norm. Remove the "
                "parametrization, or leave the layer out with `exclude_modules`."
            )


def replace_modules(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Replace some modules of a model by others, wherever they are used."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in new and parent is not new[child]:
                parent._modules[name] = new[child]


def stop_fused_layers(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Keep torch's transformer encoder from bypassing the adapted layers.

    In evaluation mode it computes a whole layer in one kernel, from the frozen weights,
    and packs padded rows into a nested tensor for it, unless these attributes prevent
    it. Return their former values.
    """
    before: list[tuple[nn.Module, str, Any]] = []
    for module in model.modules():
        for kind, name, value in _UNFUSED:
            if isinstance(module, kind) and _holds_adapted(module):
                before.append((module, name, getattr(module, name)))
                setattr(module, name, value)
    return before


def entries(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose forward pass callers start.

    `generate` of an encoder-decoder runs the encoder alone; others run the body
    of a model without its head, or methods of the model run one of its parts, such as
    the tower for images.
    """
    inside = set(model.modules())
    found = [model, getattr(model, getattr(model, "base_model_prefix", ""), None)]
    for getter in ("get_encoder", "get_decoder"):
        try:
            found.append(getattr(model, getter)())
        except Exception:  # a method of this name may do something else
            continue
    wholes = [m for m in found if isinstance(m, nn.Module) and m in inside]
    parts = [part for whole in wholes for part in whole.children()]
    return [*dict.fromkeys([*wholes, *filter(_is_part, parts)])]


def _is_part(module: nn.Module) -> bool:
    """Tell whether a module runs several layers of which some are adapted."""
    return _holds_adapted(module) and not isinstance(module, SVDLinear)


def _holds_adapted(module: nn.Module) -> bool:
    return any(isinstance(part, SVDLinear) for part in module.modules())

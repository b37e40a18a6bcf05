"""Fewer triplets for the same updates, after training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .adapter_state import PREFIX
from .peft_format import is_factor, ranks_of

# Dimensions: r = rank of one layer.


def compress(state: Mapping[str, Tensor], energy: float) -> dict[str, Tensor]:
    """Keep the largest singular values of all updates together.

    Each update is decomposed anew: trained triplets are orthogonal only by a penalty,
    and their numbers are no singular values. Then one threshold holds for all layers.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        Numbers under PEFT's names.
    energy : float
        Share of the sum of all squared singular values to keep, above 0 and up to 1.

    Returns
    -------
    dict of str to torch.Tensor
        The same, with as many triplets or fewer. Left and right vectors are
        orthonormal.
    """
    updates = {path: _decompose(state, path) for path in ranks_of(state)}
    squares = torch.cat([values**2 for _, values, _ in updates.values()])
    largest = squares.sort(descending=True).values
    kept = largest.cumsum(0) < energy * largest.sum()
    # The one that reaches the share is kept too.
    threshold = largest[min(int(kept.sum()), len(largest) - 1)]
    result = {name: value for name, value in state.items() if not is_factor(name)}
    for path, (left, values, right) in updates.items():
        chosen = values**2 >= threshold
        result[f"{PREFIX}{path}.lora_A"] = right[chosen].float().contiguous()
        result[f"{PREFIX}{path}.lora_B"] = left[:, chosen].float().contiguous()
        result[f"{PREFIX}{path}.lora_E"] = values[chosen].float().unsqueeze(1)
    return {name: result[name] for name in state}


def _decompose(
    state: Mapping[str, Tensor], path: str
) -> tuple[Tensor, Tensor, Tensor]:  # (out, r), (r,), (r, in)
    """Return the singular value decomposition of a layer's update, in float64."""
    right, left, values = (
        state[f"{PREFIX}{path}.lora_{kind}"].double() for kind in "ABE"
    )
    basis_left, of_left = torch.linalg.qr(left)
    basis_right, of_right = torch.linalg.qr(right.T)
    core = of_left @ (values * of_right.T)  # (r, r)
    u, singular, v = torch.linalg.svd(core)
    return basis_left @ u, singular, (basis_right @ v.T).T

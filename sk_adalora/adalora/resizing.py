"""Parameters that get other rows while optimizers and others refer to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .products import is_plain


def check_shrinks(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> None:
    """Refuse an optimizer whose state :func:`shrunk_state` cannot treat."""
    kind = type(optimizer).__name__
    if not hasattr(optimizer, "state"):
        raise TypeError(
            f"`compact` must be given optimizers. Got {kind}. Pass each optimizer as "
            "an argument of its own."
        )
    values = ((p, v) for p in parameters for v in optimizer.state.get(p, {}).values())
    # That of LBFGS is one for all parameters.
    of_all = isinstance(optimizer, torch.optim.LBFGS)
    if of_all or not all(_shrinks(value, parameter) for parameter, value in values):
        raise TypeError(
            "The state of an optimizer must consist of numbers and of tensors as large "
            f"as a parameter, which can shrink with it. Got {kind}, whose state holds "
            "something else, such as rows and columns, or blocks in 8 bits. Leave it "
            "out, and make a new one after `compact`."
        )


def shrunk_state(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, rows: Tensor
) -> dict[str, Tensor]:
    """Return what is left of a parameter's state where only some rows are kept."""
    return {
        name: value[rows]
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    }


def _shrinks(value: Any, parameter: Tensor) -> bool:
    """Tell whether a value is a number, or a tensor of numbers of a parameter's."""
    if not isinstance(value, Tensor):
        return isinstance(value, int | float | None)
    same_kind = is_plain(value) or type(value) is type(parameter.detach())
    # What is quantised means something together with others only.
    numbers = same_kind and value.is_floating_point()
    return value.numel() == 1 or (numbers and value.shape == parameter.shape)


def store(parameter: nn.Parameter, value: Tensor) -> None:
    """Write other numbers into a parameter, of any number of rows.

    Of another number, the parameter may keep `value` itself.
    """
    if value.shape == parameter.shape:
        parameter.copy_(value)
    else:
        resize(parameter, value)


def resize(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a parameter a value of another shape."""
    parameter.grad = None
    # A graph that is still alive, as that of the last loss, would make the next one
    # expect gradients of the old shape. A change of type makes torch forget that.
    other = torch.float if parameter.dtype == torch.half else torch.half
    parameter.data = value.new_empty(0, dtype=other)
    parameter.data = value

"""Parameters that get other rows while optimizers and others refer to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .messages import warn_user
from .products import is_plain


def check_shrinks(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> None:
    kind = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError(
            "An optimizer must have a state for each parameter, which can shrink with "
            f"it. Got {kind}, which has one state for all parameters. Leave it out, "
            "and make a new one after `compact`."
        )
    if not hasattr(optimizer, "state"):
        raise TypeError(
            f"`compact` must be given optimizers. Got {kind}. Pass each optimizer as "
            "an argument of its own."
        )
    for parameter in parameters:
        for name, value in optimizer.state.get(parameter, {}).items():
            if not _shrinks(name, value, parameter):
                raise TypeError(
                    "The state of an optimizer must consist of numbers for each row of "
                    f"a parameter, which can shrink with it. Got {kind}, whose "
                    f"{name!r} is something else, such as blocks in 8 bits. Leave it "
                    "out, and make a new one after `compact`."
                )


def warn_of_shared_memory(parameters: Sequence[nn.Parameter]) -> None:
    """Warn of parameters in a larger buffer, which they leave when they shrink."""
    if any(p.numel() * p.itemsize < p.untyped_storage().nbytes() for p in parameters):
        warn_user(
            "Parameters should own their memory when they shrink. Got some that lie in "
            "a larger buffer, as a `ZeroRedundancyOptimizer` with "
            "`parameters_as_bucket_view=True` makes one, and go on training there "
            "without them. Leave that option out, or make the optimizer after "
            "`compact`."
        )


def shrink_state(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, rows: Tensor
) -> None:
    """Keep some rows of a parameter's state, before the parameter itself shrinks."""
    state = optimizer.state.get(parameter, {})
    for name, value in state.items():
        if isinstance(value, Tensor) and _is_per_row(name, value, parameter):
            state[name] = value[rows]


def _shrinks(name: str, value: Any, parameter: Tensor) -> bool:
    """Tell whether `shrink_state` knows what to do with an entry of the state."""
    if not isinstance(value, Tensor) or value.numel() <= 1:
        return not _holds_tensor(value)
    same_kind = is_plain(value) or type(value) is type(parameter.detach())
    if not (same_kind and value.is_floating_point()):
        return False  # quantised: its numbers mean something together with others
    columns = parameter.shape[1:]  # of a mean over all rows
    of_columns = value.shape in (columns, (1, *columns))
    return of_columns or _is_per_row(name, value, parameter)


def _holds_tensor(value: Any, depth: int = 3) -> bool:
    """Tell whether an entry of a state is a tensor, or holds one somewhere.

    Some optimizers keep objects, such as the projector of a parameter's gradient.
    """
    if isinstance(value, Tensor):
        return value.numel() > 1
    if not depth:
        return False
    if not isinstance(value, list | tuple | deque | dict):
        value = getattr(value, "__dict__", {})
    parts = value.values() if isinstance(value, dict) else value
    return any(_holds_tensor(part, depth - 1) for part in parts)


def _is_per_row(name: str, value: Tensor, old: Tensor) -> bool:
    """Tell whether a tensor of the optimizer's state has one entry for each row."""
    if value.shape[:1] != old.shape[:1] or value.ndim > old.ndim:
        return False
    if value.ndim == old.ndim:
        sizes = zip(value.shape, old.shape, strict=True)
        return all(size in (full, 1) for size, full in sizes)
    # Adafactor has one number per row and one per column. In a square bank their shapes
    # are equal, and only the name tells them apart.
    return "col" not in name


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

"""Tell where the forward passes of a model begin and end."""

from __future__ import annotations

import torch
from torch import nn


def in_backward() -> bool:
    """Tell whether a backward pass is running, as where it repeats a forward pass."""
    # torch.compile cannot trace the question, and compiles forward passes only.
    compiles = torch.compiler.is_compiling()
    return not compiles and torch._C._current_graph_task_id() != -1


class ForwardPasses:
    """The forward pass that is running, as hooks on a model and its parts see it.

    It begins where a module is called that is not inside of one that runs already.
    """

    def __init__(self) -> None:
        # The module whose forward pass is running.
        self._outermost: nn.Module | None = None
        # Ids of the modules whose last forward pass was not inside that of another one.
        # (torch before 2.9 compiles no WeakSet.)
        self._began: set[int] = set()

    @property
    def running(self) -> bool:
        """Whether a forward pass is running."""
        return self._outermost is not None

    def begins(self, module: nn.Module) -> bool:
        """Tell whether a pass begins with the call of a module."""
        if in_backward():  # checkpointing: do what the forward pass did
            return id(module) in self._began
        # When a KeyboardInterrupt ends a forward pass, torch calls no forward hook, and
        # `_outermost` stays set. So a module that is not inside it begins.
        outer = self._outermost
        begins = outer is None or not _is_inside(module, outer)
        (self._began.add if begins else self._began.discard)(id(module))
        return begins

    def start(self, module: nn.Module) -> None:
        """Note that a pass of a module is running."""
        self._outermost = module

    def end(self, module: nn.Module) -> None:
        """Note that a module has returned."""
        if self._outermost is module:
            self._outermost = None

    def stop(self) -> None:
        """Note that no pass is running: an interrupted one may not have ended."""
        self._outermost = None


def _is_inside(module: nn.Module, outer: nn.Module) -> bool:
    """Tell whether `outer` holds `module`.

    Search level by level: a model that is called by others is near the top.
    """
    level, seen = {outer}, {outer}
    while level:
        level = {child for parent in level for child in parent.children()} - seen
        if module in level:
            return True
        seen |= level
    return False

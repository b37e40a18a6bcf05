"""What a training loop of the user's has forgotten, told when it shows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from .allocator import RankAllocator
from .layers import SVDLinear
from .messages import warn_user
from .modules_to_save import TrainedCopies


class LoopChecks:
    """Checks of a loop that calls `update_and_allocate`, and what they have seen.

    Parameters
    ----------
    adapted : mapping of str to SVDLinear
        The adapted layers, by path.
    allocator : RankAllocator
        Of these layers.
    orth_reg_weight : float
        Weight of the penalty that the loop should add.

    Attributes
    ----------
    has_penalty : bool
        Whether the loop has asked for the penalty.
    """

    def __init__(
        self,
        adapted: Mapping[str, SVDLinear],
        allocator: RankAllocator,
        orth_reg_weight: float,
    ) -> None:
        self.adapted, self.allocator = adapted, allocator
        self.orth_reg_weight = orth_reg_weight
        self.has_penalty = False
        self._done = False

    def check(self, step: int) -> None:
        """Refuse or warn of what is missing, before a step is allocated.

        `step` is the optimizer step that was just taken, counted from 0.
        """
        if any(layer.merged_weight is not None for layer in self.adapted.values()):
            raise RuntimeError(
                "The updates must be apart from the weights while they are trained. "
                "Got merged weights, with which the loss does not reach them. Call "
                "`unmerge` before the forward pass."
            )
        parameters = list(self.allocator.triplets.parameters())
        if not self._done and any(p.requires_grad for p in parameters):
            if not self.allocator.finished:
                self._check_gradients(parameters)
            self._check_penalty()
            self._done = True
        if self.allocator.last_step < 0 and not self.allocator.finished:
            self._warn_of_a_late_start(step)

    def _check_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Refuse a first step without gradients; warn of layers that got none."""
        if all(p.grad is None for p in parameters):
            raise RuntimeError(
                "`update_and_allocate` must be called before `zero_grad`, as it "
                "needs the gradients of the step. Got an adapter without any. With the "
                "Trainer of transformers, use `AdaLoraCallback`."
            )
        triplets = self.allocator.triplets
        gradient = triplets.singular_values.grad
        if gradient is None:
            unused = list(self.adapted)
        else:
            parts = torch.split(gradient.ne(0).cpu(), triplets.ranks)
            pairs = zip(self.adapted, parts, strict=True)
            unused = [path for path, part in pairs if len(part) and not part.any()]
        if unused:
            warn_user(
                f"{len(unused)} adapted layers got no gradient in the first step: "
                f"{', '.join(unused[:8])}. They count as unimportant. Leave them out "
                "of `target_modules` if the loss does not depend on them, or if the "
                "model reads their weights without calling them."
            )

    def _check_penalty(self) -> None:
        if self.orth_reg_weight > 0 and not self.has_penalty:
            warn_user(
                f"`orth_reg_weight`={self.orth_reg_weight} must be met by a penalty in "
                "the loss, which `forward` does not add. Got a first step without any. "
                "Add `orthogonality_loss()` to the loss, or set `orth_reg_weight=0`."
            )

    def _warn_of_a_late_start(self, step: int) -> None:
        """Warn if allocations have happened before the first step."""
        missed = self.allocator.schedule.last_allocation(step - 1)
        if missed is not None:
            warn_user(
                "The importance of triplets must be known from the first step on. Got "
                f"step {step} first, after the allocation of step {missed}. To resume "
                "a run, load the state of the allocator, too, with "
                "`model.allocator.load_state_dict`: ranks differ otherwise."
            )


def check_before_saving(
    model: nn.Module, copies: TrainedCopies, allocator: RankAllocator
) -> None:
    """Warn of an adapter that learned nothing, and of what is trained beside it."""
    triplets = allocator.triplets
    trained = allocator.finished and allocator.got_gradients
    if trained and not triplets.singular_values.any():
        warn_user(
            "The optimizer must train the parameters of the adapter. Got singular "
            "values that are all 0 at the end, though they had gradients. Give it "
            "`model.trainable_parameters()` of the adapted model: the plain one does "
            "not hold them."
        )
    stored = {id(tensor) for _, tensor in copies.named_tensors()}
    stored.update(map(id, triplets.parameters()))
    others = [
        name.removeprefix("model.")
        for name, parameter in model.named_parameters()  # also what was set on `model`
        if parameter.requires_grad and id(parameter) not in stored
    ]
    if others:
        warn_user(
            "What is trained in full must be in `modules_to_save` or `bias` to be "
            f"saved. Got {len(others)} other parameters that require gradients: "
            f"{', '.join(others[:8])}. Name their modules there before training, or "
            "save them yourself."
        )

"""What a training loop of the user's has forgotten, told at its first steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .messages import warn_user

if TYPE_CHECKING:
    from .model import AdaLoraModel


class LoopChecks:
    """Checks of a loop that calls `update_and_allocate`, and what they have seen.

    Attributes
    ----------
    has_penalty : bool
        Whether the loop has asked for the penalty.
    """

    def __init__(self) -> None:
        self.has_penalty = False
        self._done = False

    def check(self, model: AdaLoraModel, step: int) -> None:
        """Refuse or warn of what is missing, before a step is allocated.

        `step` is the optimizer step that was just taken, counted from 0.
        """
        if step < 0:
            raise ValueError(
                "`global_step` must be the optimizer step that was just taken, counted "
                f"from 0. Got {step}. Give the first step 0; in `on_optimizer_step` of "
                "the Trainer, that is `state.global_step`."
            )
        if any(layer.merged_weight is not None for layer in model.adapted.values()):
            raise RuntimeError(
                "The updates must be apart from the weights while they are trained. "
                "Got merged weights, with which the loss does not reach them. Call "
                "`unmerge` before the forward pass."
            )
        if not self._done:
            if any(p.requires_grad for p in model.triplets.parameters()):
                self._check_first_step(model)
                self._done = True
            else:
                _refuse_allocation(model, step)
        if model.allocator.last_step < 0:
            _warn_of_a_late_start(model, step)

    def _check_first_step(self, model: AdaLoraModel) -> None:
        """Check the first step that trains the triplets."""
        if not model.allocator.finished:
            if all(p.grad is None for p in model.triplets.parameters()):
                raise RuntimeError(
                    "`update_and_allocate` must be called before `zero_grad`, as it "
                    "needs the gradients of the step. Got an adapter without any. In a "
                    "callback of the Trainer, call it in `on_optimizer_step`, not in "
                    "`on_step_end`."
                )
            _warn_unused(model)
        weight = model.peft_config.orth_reg_weight
        if weight > 0 and not self.has_penalty:
            warn_user(
                f"`orth_reg_weight`={weight} must be met by a penalty in the loss, "
                "which `forward` does not add. Got a first step without any. Add "
                "`orthogonality_loss()` to the loss, or set `orth_reg_weight=0`."
            )


def _refuse_allocation(model: AdaLoraModel, step: int) -> None:
    """Refuse to remove rank of triplets that were never trained."""
    allocates = model.allocator.schedule.last_allocation(step) is not None
    if allocates and not model.allocator.finished:
        raise RuntimeError(
            "The triplets must be trained before rank is removed. Got step "
            f"{step}, which removes rank, with frozen triplets. Call "
            "`triplets.requires_grad_(True)` on the model before, or raise `tinit`."
        )


def _warn_of_a_late_start(model: AdaLoraModel, step: int) -> None:
    """Warn if allocations have happened before the first step."""
    missed = model.allocator.schedule.last_allocation(step - 1)
    if missed is not None and not model.allocator.finished:
        warn_user(
            "The importance of triplets must be known from the first step on. Got "
            f"step {step} first, after the allocation of step {missed}. To resume a "
            "run, load the state of the allocator, too, with "
            "`model.allocator.load_state_dict`: ranks differ otherwise."
        )


def _warn_unused(model: AdaLoraModel) -> None:
    """Warn of adapted layers that the loss does not depend on."""
    gradient, advice = model.triplets.singular_values.grad, ""
    if gradient is None:
        unused = list(model.adapted)
        advice = (
            " With a reversible model, such as Reformer, call "
            "`enable_input_require_grads()` before the forward pass."
        )
    else:
        parts = torch.split(gradient.ne(0).cpu(), model.triplets.ranks)
        pairs = zip(model.adapted, parts, strict=True)
        unused = [path for path, part in pairs if len(part) and not part.any()]
    if unused:
        warn_user(
            f"{len(unused)} adapted layers got no gradient in the first step: "
            f"{', '.join(unused[:8])}. They count as unimportant. Leave them out "
            "of `target_modules` if the loss does not depend on them, or if the model "
            "reads their weights without calling them. In a loop of your own, call "
            f"`update_and_allocate` before `zero_grad`.{advice}",
        )


def check_before_saving(model: AdaLoraModel) -> None:
    """Warn of an adapter that learned nothing, and of what is trained beside it."""
    _warn_of_no_learning(model)
    stored = {id(tensor) for _, tensor in model._copies.named_tensors()}
    stored.update(map(id, model.triplets.parameters()))
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


def _warn_of_no_learning(model: AdaLoraModel) -> None:
    """Warn if a finished run has changed no singular value, though it had gradients."""
    values, allocator = model.triplets.singular_values, model.allocator
    if allocator.finished and allocator.got_gradients and not values.any():
        warn_user(
            "The optimizer must train the parameters of the adapter. Got singular "
            "values that are all 0 at the end, though they had gradients. Give it "
            "`model.trainable_parameters()` of the adapted model: the plain one does "
            "not hold them."
        )

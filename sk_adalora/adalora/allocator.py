"""Decide which triplets matter, and prune the others to the budget."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .row_bank import RowBank
from .schedule import BudgetSchedule
from .triplets import Triplets


class Importance:
    """Smoothed sensitivity and its uncertainty, for every number of one tensor.

    Equations 8 to 10 of the paper, without bias correction.

    Parameters
    ----------
    like : torch.Tensor
        Gives shape and device.
    beta1, beta2 : float
        Decay factors of the two moving averages.
    """

    def __init__(self, like: Tensor, beta1: float, beta2: float) -> None:
        self.beta1, self.beta2 = beta1, beta2
        self.sensitivity = torch.zeros_like(like, dtype=torch.float32)
        self.uncertainty = torch.zeros_like(self.sensitivity)

    def update(self, current: Tensor, valid: Tensor) -> None:
        """Update the averages with the sensitivity ``|p * grad|`` of one step.

        Parameters
        ----------
        current : torch.Tensor
            Sensitivity of this step, in float32. It is overwritten.
        valid : torch.Tensor of shape ()
            1.0, or 0.0 to leave the averages as they are. A tensor, so that the
            host need not wait for it.
        """
        current.nan_to_num_()  # NaN or infinity would count even with `valid` = 0
        self.sensitivity.lerp_(current, valid * (1 - self.beta1))
        deviation = current.sub_(self.sensitivity).abs_()
        self.uncertainty.lerp_(deviation, valid * (1 - self.beta2))

    def score(self) -> Tensor:
        """Return the importance of every number: sensitivity times uncertainty."""
        return self.sensitivity * self.uncertainty


class RankAllocator:
    """Measures how much each triplet matters, and prunes to the budget.

    Call :meth:`update_and_allocate` once for each optimizer step, after the step and
    before the gradients are cleared. Any step may be skipped or repeated: an
    allocation that was missed is caught up, and the budget never rises.

    Parameters
    ----------
    triplets : Triplets
        The numbers of all updates.
    schedule : BudgetSchedule
        The budget of each step.
    beta1, beta2 : float, default=0.85
        Decay factors of the moving averages of the sensitivity and of its uncertainty.

    Attributes
    ----------
    kept : torch.Tensor of shape (n,)
        Which triplets the last allocation has kept, as booleans.
    budget : int
        Number of triplets that live.
    finished : bool
        Whether the last allocation has happened.
    averages : list of Importance or None
        Of the singular values, then of each bank. None before the first step, and after
        the last allocation, which drops them.
    """

    def __init__(
        self,
        triplets: Triplets,
        schedule: BudgetSchedule,
        beta1: float = 0.85,
        beta2: float = 0.85,
    ) -> None:
        self.triplets = triplets
        self.schedule = schedule
        self.beta1, self.beta2 = beta1, beta2
        self.reset()

    def reset(self) -> None:
        """Forget all averages, and let all existing triplets live."""
        self.last_step = -1
        self.last_allocation: int | None = None
        self.finished = False
        values = self.triplets.singular_values
        self.budget = len(values)
        self.kept = torch.ones_like(values, dtype=torch.bool)
        self.averages: list[Importance] | None = None
        self._reached = torch.zeros_like(self.kept)  # (n,) ever got a gradient
        self._index_layers()

    def _index_layers(self) -> None:
        """Note the layer of each triplet ahead of the steps.

        A step that made this tensor would wait for the device.
        """
        ranks = torch.tensor(self.triplets.ranks, device="cpu")  # whatever the default
        self._layer_of = torch.repeat_interleave(ranks).to(self.kept.device)

    def _tensors(self) -> list[Tensor]:
        banks = [bank.rows for bank in self.triplets.banks]
        return [self.triplets.singular_values, *banks]

    def _new_averages(self) -> list[Importance]:
        return [Importance(p, self.beta1, self.beta2) for p in self._tensors()]

    def update_and_allocate(self, step: int) -> int:
        """Update the importance, and allocate when the schedule says so.

        Parameters
        ----------
        step : int
            The optimizer step that was just taken, counted from 0.

        Returns
        -------
        int
            Number of triplets that live.
        """
        # A tensor that is counted up in place would change what is remembered here.
        step = int(step)
        if step > self.last_step and not self.finished:
            self.last_step = step
            # Like the reference implementation, keep the averages at the boundary step.
            if step < self.schedule.total_step - self.schedule.tfinal:
                self._update_importance()
            due = self.schedule.last_allocation(step)
            if due is not None and due != self.last_allocation:
                self._allocate(due)
        if self.finished:  # until then pruned triplets train on, and may come back
            self.zero_pruned()
        return self.budget

    def replan(self, schedule: BudgetSchedule) -> None:
        """Follow another schedule from the next step on.

        Before the first allocation, it may be any. After it, it should differ in the
        number of steps at the final ranks only: the budget never rises again.

        Parameters
        ----------
        schedule : BudgetSchedule
            Of the same triplets, from and to the same budget.
        """
        self.schedule = schedule

    def finish(self) -> None:
        """Allocate the target budget now, for a training that stops early.

        Where no step has been taken since the adapter was loaded, the triplets with the
        largest singular values live. If training goes on, call `update_and_allocate` or
        `compact`: pruned triplets come back otherwise.
        """
        if not self.finished:
            self._allocate(self.schedule.final_step)

    def rank_of_layers(self) -> Tensor:
        """Count the live triplets of each layer; the host does not wait for it.

        Returns
        -------
        torch.Tensor of shape (n_layers,)
            Integers, on the device of the triplets.
        """
        ranks = self._layer_of.new_zeros(len(self.triplets.ranks))
        return ranks.index_add_(0, self._layer_of, self.kept.to(ranks.dtype))

    @torch.no_grad()
    def _update_importance(self) -> None:
        current = [_sensitivity(p) for p in self._tensors()]
        # No number is negative: if one is not finite, neither is the sum.
        valid = torch.stack([c.sum() for c in current]).sum().isfinite().float()
        if self.averages is None:
            self.averages = self._new_averages()
        for average, sensitivity in zip(self.averages, current, strict=True):
            average.update(sensitivity, valid)
        gradient = self.triplets.singular_values.grad
        if gradient is not None:  # clipping may turn 0 into NaN, which is not above 0
            self._reached |= gradient.abs() > 0

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Score each triplet: its singular value plus the means of its two rows.

        All triplets of a layer whose singular values never got a gradient score 0:
        otherwise the orthogonality penalty alone would make their rows important.

        Returns
        -------
        torch.Tensor of shape (n,)
            0 where there are no averages.
        """
        values, *rows = self.averages or self._new_averages()
        score = values.score()
        for bank, average in zip(self.triplets.banks, rows, strict=True):
            _add_rows(score, bank, average.score().mean(dim=1))
        return score.masked_fill_(self._layers_without_gradient(), 0.0)

    def _layers_without_gradient(self) -> Tensor:
        """Return (n,): whether no triplet of the same layer ever got a gradient.

        The averages cannot tell: they underflow to 0 where a layer is rarely used.
        """
        reached = self._reached.float()
        n_reached = reached.new_zeros(len(self.triplets.ranks))
        n_reached.index_add_(0, self._layer_of, reached)
        return n_reached.index_select(0, self._layer_of) == 0

    @torch.no_grad()
    def _allocate(self, step: int) -> None:
        if self.averages is None:  # an adapter was loaded, and not its importance
            score = self.triplets.singular_values.abs()
        else:
            score = self.scores()
        self.budget = min(self.schedule.budget(step), self.budget)
        score = torch.where(torch.isfinite(score), score, -torch.inf)
        # Stable, so that ties go to the lowest index and the count is exact.
        order = torch.sort(score, descending=True, stable=True).indices
        kept = torch.zeros_like(score, dtype=torch.bool)
        self.kept = kept.index_fill_(0, order[: self.budget], True)
        self.last_allocation = step
        self.finished = step == self.schedule.final_step
        if self.finished:
            self.averages = None
        self.zero_pruned()

    @torch.no_grad()
    def zero_pruned(self) -> None:
        """Set the singular values of pruned triplets to 0: they change no output."""
        self.triplets.singular_values.masked_fill_(~self.kept, 0.0)

    def compact(self, *optimizers: torch.optim.Optimizer) -> None:
        """Delete the pruned triplets for good, once ranks are final.

        Outputs stay the same; the orthogonality penalty falls, as the pruned rows are
        gone.

        Parameters
        ----------
        *optimizers : torch.optim.Optimizer
            All optimizers that train the triplets. Their state shrinks with the
            parameters.

        Raises
        ------
        RuntimeError
            If the last allocation has not happened yet.
        TypeError
            If the state of an optimizer cannot shrink; nothing is changed then.
        """
        if not self.finished:
            raise RuntimeError(
                "Triplets may be deleted only when the budget is final, at step "
                f"{self.schedule.final_step}. Got step {self.last_step}. Call `finish` "
                "first to end the allocation early, or, after an adapter was loaded, "
                "load the state of its allocator, too."
            )
        # Before anything changes, as memory may run out.
        reached, kept = self._reached[self.kept], self.kept[self.kept]
        self.triplets.keep(self.kept, optimizers)
        self._reached, self.kept = reached, kept
        self._index_layers()

    def to(self, device: torch.device) -> None:
        """Move the state to the device of the triplets.

        Parameters
        ----------
        device : torch.device
            Where the triplets are.
        """
        self.kept = self.kept.to(device)
        self._reached = self._reached.to(device)
        self._layer_of = self._layer_of.to(device)
        for average in self.averages or ():
            average.sensitivity = average.sensitivity.to(device)
            average.uncertainty = average.uncertainty.to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, beside the full-rank triplets.

        Returns
        -------
        dict
        """
        averages = None
        if self.averages is not None:
            averages = [
                (a.sensitivity.clone(), a.uncertainty.clone()) for a in self.averages
            ]
        return {
            "last_step": self.last_step,
            "last_allocation": self.last_allocation,
            "budget": self.budget,
            "finished": self.finished,
            "kept": self.kept.clone(),
            "reached": self._reached.clone(),
            "averages": averages,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Parameters
        ----------
        state : dict
            What :meth:`state_dict` returned.

        Raises
        ------
        ValueError
            If it belongs to another number of triplets, or to matrices of other sizes;
            nothing is changed then.
        """
        stored = state["averages"] or ()
        own = [(len(self.kept),), *(p.shape for p in self._tensors() if stored)]
        found = [
            (len(state["kept"]),),
            *(sensitivity.shape for sensitivity, _ in stored),
        ]
        if found != own:
            raise ValueError(
                "The allocator's state must be of triplets and averages of shapes "
                f"{[*map(tuple, own)]}. Got {[*map(tuple, found)]}. Load the adapter "
                "of the same step first, with the same layers adapted."
            )
        device = self.triplets.singular_values.device
        self.last_step = state["last_step"]
        self.last_allocation = state["last_allocation"]
        self.budget = state["budget"]
        self.finished = state["finished"]
        with torch.inference_mode(False):  # training may go on after it
            self.kept = state["kept"].to(device, copy=True)
            self._reached = state["reached"].to(device, copy=True)
            self.averages = self._new_averages() if stored else None
            for average, pair in zip(self.averages or (), stored, strict=True):
                average.sensitivity.copy_(pair[0])
                average.uncertainty.copy_(pair[1])


def _sensitivity(parameter: Tensor) -> Tensor:
    """Return ``|p * grad|``: p after the optimizer's step, the gradient before it."""
    if parameter.grad is None:
        return torch.zeros_like(parameter, dtype=torch.float32)
    return (parameter.detach() * parameter.grad).abs_().float()


def _add_rows(score: Tensor, bank: RowBank, per_row: Tensor) -> None:
    if bank.holds_all:
        score += per_row
    else:
        score.index_add_(0, bank.triplet_of, per_row)

"""The rank budget of each optimizer step. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["initial", "reduction", "final"]


@dataclass(frozen=True)
class BudgetSchedule:
    """Plan of the total rank (the budget) at each optimizer step.

    Parameters
    ----------
    initial : int
        Total rank of all layers at the start. A unit of rank is called a triplet.
    target : int
        Total rank of all layers at the end.
    tinit : int
        Last optimizer step, counted from 0, at full rank; ranks fall at the allocations
        after it.
    tfinal : int
        Number of steps at the target, before training ends.
    deltaT : int
        Number of steps between two allocations.
    total_step : int
        Number of steps of the whole training.

    Examples
    --------
    Four layers that go from rank 4 to rank 2 in 12 steps:

    >>> schedule = BudgetSchedule(initial=16, target=8, tinit=2, tfinal=3,
    ...                           deltaT=1, total_step=12)
    >>> [schedule.budget(step) for step in range(12)]
    [16, 16, 16, 13, 10, 9, 8, 8, 8, 8, 8, 8]
    >>> [schedule.phase(step) for step in (2, 3, 8, 9)]
    ['initial', 'reduction', 'reduction', 'final']
    """

    initial: int
    target: int
    tinit: int
    tfinal: int
    deltaT: int
    total_step: int

    @property
    def final_step(self) -> int:
        """First step of the final phase, at which the last allocation happens."""
        # With tfinal=0, the reference implementation waits for a step that never comes.
        return min(self.total_step - self.tfinal, self.total_step - 1)

    def phase(self, step: int) -> Phase:
        """Name the phase of a step.

        Parameters
        ----------
        step : int
            Optimizer step, counted from 0.

        Returns
        -------
        {"initial", "reduction", "final"}
            Whether the budget is full, falls, or is the target.
        """
        if step >= self.final_step:
            return "final"
        return "initial" if step <= self.tinit else "reduction"

    def budget(self, step: int) -> int:
        """Return the planned budget of a step, also if it is not one that allocates.

        Parameters
        ----------
        step : int
            Optimizer step, counted from 0.

        Returns
        -------
        int
            The total rank of all layers.
        """
        phase = self.phase(step)
        if phase == "initial":
            return self.initial
        if phase == "final":
            return self.target
        window = self.total_step - self.tfinal - self.tinit
        left = 1 - (step - self.tinit) / window
        return int((self.initial - self.target) * left**3 + self.target)

    def last_allocation(self, step: int) -> int | None:
        """Return the latest step, up to this one, that allocates.

        Parameters
        ----------
        step : int
            Optimizer step, counted from 0.

        Returns
        -------
        int or None
            None if nothing has been allocated yet.
        """
        if step >= self.final_step:
            return self.final_step
        multiple = step - step % self.deltaT
        return multiple if multiple > self.tinit else None

    def held_budget(self, step: int) -> int:
        """Return the total rank after a step.

        Parameters
        ----------
        step : int
            Optimizer step, counted from 0.

        Returns
        -------
        int
            The budget of the latest allocation.
        """
        last = self.last_allocation(step)
        return self.initial if last is None else self.budget(last)


BudgetSchedule.__module__ = "sk_adalora"  # where users import it from: for pickles

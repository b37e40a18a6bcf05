"""A training that ends on time: its steps are planned anew from how long they take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch

from .loop import TrainingRun
from .schedule_steps import ResolvedSchedule

# Steps whose mean time counts: their lengths differ, and so does the machine's load.
_REMEMBERED = 50
# Steps that the one measured before the training counts as.
_WEIGHT_BEFORE = 4


class TimeLimit:
    """Plans the steps of a training, after each of them, so that it ends on time.

    While ranks are full, the whole schedule is planned anew. Once they fall, only the
    number of steps at the final ranks changes.

    Parameters
    ----------
    plan : callable
        From a number of steps, makes the schedule.
    most_steps : int
        That `epochs` and `max_steps` allow.
    seconds : float
        What a step takes, as measured before the training.
    start, deadline : float
        When the fit began, and when the last step has to be over, by
        `time.perf_counter`.
    """

    def __init__(
        self,
        plan: Callable[[int], ResolvedSchedule],
        most_steps: int,
        seconds: float,
        start: float,
        deadline: float,
    ) -> None:
        self._plan, self._most = plan, most_steps
        self._seconds, self.start, self.deadline = seconds, start, deadline
        self._ends: deque[float] = deque(maxlen=_REMEMBERED + 1)

    def spent(self) -> float:
        """Return the seconds that the fit has taken so far."""
        return time.perf_counter() - self.start

    def begin(self, run: TrainingRun) -> None:
        """Plan from now on: what came before may have taken longer than expected."""
        self._ends.append(time.perf_counter())
        self._plan_rest(run)

    def after_step(self, run: TrainingRun) -> None:
        """Plan the rest of the training."""
        if run.compute.device.type == "cuda":  # which has only been told of the step
            torch.cuda.synchronize(run.compute.device)
        self._ends.append(time.perf_counter())
        self._plan_rest(run)

    def _plan_rest(self, run: TrainingRun) -> None:
        now = self._ends[-1]
        measured, elapsed = len(self._ends) - 1, now - self._ends[0]
        weight = max(0, _WEIGHT_BEFORE - measured)
        seconds = (elapsed + weight * self._seconds) / (measured + weight)
        # At least one step, or nothing would be trained.
        steps = max(round((self.deadline - now) / seconds), run.step == 0)
        total = min(run.step + max(steps, 0), self._most)
        schedule = self._with(run.schedule, run.step, total)
        if schedule != run.schedule:
            run.replan(schedule)

    def _with(self, now: ResolvedSchedule, step: int, total: int) -> ResolvedSchedule:
        """Return the plan of so many steps, of which `step` are over."""
        if step <= now.tinit + 1:  # no rank has been removed
            try:
                return self._plan(total)
            except ValueError:  # absolute steps of phases, which do not fit in
                return now
        # A training that is late stops where it is; it then prunes to the target.
        first = min(now.total_step - now.tfinal, total)
        return replace(now, total_step=total, tfinal=total - first)

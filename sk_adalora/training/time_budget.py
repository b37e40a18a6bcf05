"""A training that ends on time: its steps are planned anew from how long they take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch

from sk_adalora.runtime.messages import warn_user

from .loop import TrainingHistory, TrainingRun
from .schedule_steps import ResolvedSchedule

# Steps whose mean time counts: their lengths differ, and so does the machine's load.
_REMEMBERED = 50
# Part of the time that is left for what follows the last step.
_FOR_THE_END = 0.02


class TimeBudget:
    """The seconds that a fit may take, shared out among its trainings.

    Parameters
    ----------
    end : float
        When all of it has to be over, by `time.perf_counter`.
    n_fits : float
        Trainings to come, of which one on a part of the rows counts as that part.
    """

    def __init__(self, end: float, n_fits: float) -> None:
        self._end, self._n_fits = end, n_fits

    def limit(
        self, plan: Callable[[int], ResolvedSchedule], most_steps: int, part: float
    ) -> TimeLimit:
        """Return the limit of the next training, on a part of the rows."""
        left = max(0.0, self._end - time.perf_counter()) * (1 - _FOR_THE_END)
        seconds = left * part / self._n_fits
        self._n_fits = max(self._n_fits - part, part)
        return TimeLimit(plan, most_steps, seconds)


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
        How long the training may take, from its first step on.
    """

    def __init__(
        self, plan: Callable[[int], ResolvedSchedule], most_steps: int, seconds: float
    ) -> None:
        self._plan, self._most, self._seconds = plan, most_steps, seconds
        self._ends: deque[float] = deque(maxlen=_REMEMBERED + 1)

    def begin(self, history: TrainingHistory) -> None:
        """Start the clock; what a killed training has spent counts."""
        now = time.perf_counter()
        self._ends.append(now)
        self._deadline = now + self._seconds - history.seconds

    def after_step(self, run: TrainingRun) -> None:
        """Plan the rest of the training."""
        if run.compute.device.type == "cuda":  # which has only been told of the step
            torch.cuda.synchronize(run.compute.device)
        now = time.perf_counter()
        self._ends.append(now)
        if len(self._ends) == 3:  # the first step warmed up
            self._ends.popleft()
        left = self._deadline - now
        if left < 0 and run.step == 1:
            warn_user(
                "`timeout` must leave time for more than one step of training. Got "
                f"one that took {now - self._ends[0]:.2g} seconds, after which the "
                "training ends. Raise it."
            )
        mean = (now - self._ends[0]) / (len(self._ends) - 1)
        total = min(run.step + max(round(left / mean), 0), self._most)
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

"""How long a fit takes: measured on a few rows, estimated, and kept within a limit."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from sk_adalora.data.rows import TrainingRows, UnreadTexts, take_rows
from sk_adalora.files.checkpoint import stored_draw
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.runtime.devices import resolve_compute
from sk_adalora.runtime.messages import warn_user
from sk_adalora.tokens.batches import pad, prediction_batches, training_batches
from sk_adalora.tokens.long_texts import encode_for_training
from sk_adalora.training.loop import TrainingRun, train_step
from sk_adalora.training.schedule_steps import ResolvedSchedule
from sk_adalora.training.time_limit import TimeLimit

from .fitting import (
    FitPlan,
    build_adapted,
    calibrates,
    count_fits,
    cross_fits,
    draw_of_rows,
    plan_fit,
    plan_schedule,
    prepare_run,
    read_drawn,
    rows_of_steps,
    start_head,
)
from .predicting import load_model, most_tokens

# Steps that are measured, after one that warms up.
_STEPS = 4
# Part of the time left that these may take, but for the first.
_MOST_MEASURING = 0.1
# Rows that the head learns from before the training.
_ROWS_OF_HEAD = 1000
# Rows drawn for each that the planned steps read: the steps may turn out faster.
_SPARE = 1.1


@dataclass(frozen=True)
class Timings:
    """What the parts of a fit take on this machine, in seconds.

    Parameters
    ----------
    reading : float
        To read a draw of rows.
    tokens, head, vector : float
        A row: to cut it into tokens, to start the head, and to predict.
    network : float
        To build the network.
    step : float
        An optimizer step at full rank.
    """

    reading: float
    tokens: float
    head: float
    vector: float
    network: float
    step: float

    def of_fit(self, n_rows: int, n_steps: int) -> float:
        """Return what it takes to tokenise, start and train."""
        head = self.head * min(n_rows, _ROWS_OF_HEAD)
        return n_rows * self.tokens + self.network + head + n_steps * self.step

    @property
    def end(self) -> float:
        """What comes after the last step: the network that predicts is built."""
        return self.network + 8 * self.vector


def measure(
    estimator: Any,
    rows: TrainingRows,
    backbone: Backbone,
    schedule: ResolvedSchedule,
    seconds: float = math.inf,
) -> Timings:
    """Measure the parts of a fit on some rows, and a network that is thrown away.

    After `seconds`, no further step is measured.
    """
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    n_rows, read = len(rows.texts), rows_of_steps(estimator, _STEPS)
    some = np.random.default_rng(0).choice(
        n_rows, int(min(n_rows, read)), replace=False, shuffle=False
    )
    sample = rows.take(np.sort(some))
    if isinstance(sample.texts, UnreadTexts):
        sample = replace(sample, texts=sample.texts.read()[1])
    marks = [start, time.perf_counter()]
    most = most_tokens(estimator.max_length, backbone)
    tokens = encode_for_training(
        sample.texts_read, backbone.tokenizer, most, estimator.long_text
    )
    marks.append(time.perf_counter())
    network = build_adapted(estimator, backbone, schedule, generator)
    marks.append(time.perf_counter())
    plan = FitPlan(sample, schedule)
    run = prepare_run(estimator, network, tokens, plan, backbone.compute)
    start_head(estimator, run, generator)
    marks.append(time.perf_counter())
    reading, encoding, building, heading = np.diff(marks).tolist()
    step = _seconds_of_a_step(run, generator, start + seconds)
    return Timings(
        reading=reading,
        tokens=encoding / len(some),
        head=heading / min(len(some), _ROWS_OF_HEAD),
        vector=_seconds_of_a_row(run),
        network=building,
        step=step,
    )


def _seconds_of_a_step(
    run: TrainingRun, generator: torch.Generator, deadline: float
) -> float:
    """Take a few optimizer steps; the first, which warms up, counts if it is alone."""
    batch_size, device = run.recipe.batch_size, run.compute.device
    batches = training_batches(run.examples.tokens, batch_size, generator)
    groups = np.array_split(np.arange(len(batches)), run.steps_per_epoch)
    run.network.train()
    seconds: list[float] = []
    for group in [groups[0], *groups]:
        start = time.perf_counter()
        loss, _ = train_step(run, [batches[i] for i in group])
        float(loss)  # waits for the device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
        if time.perf_counter() > deadline:
            break
    return float(np.mean(seconds[1:] or seconds))


def _seconds_of_a_row(run: TrainingRun) -> float:
    """Predict the rows, as after the training."""
    tokens, compute = run.examples.tokens, run.compute
    start = time.perf_counter()
    with torch.no_grad():
        for rows in prediction_batches(tokens, compute.tokens_to_predict):
            batch = pad(tokens, rows, compute.length_multiple).to(compute.device)
            run.network(batch).cpu()  # waits for the device
    return (time.perf_counter() - start) / len(tokens)


# ---- a limit ------------------------------------------------------------------


def within_time(
    estimator: Any,
    plan: FitPlan,
    y: Any,
    backbone: Backbone,
    generator: torch.Generator,
    start: float,
) -> FitPlan:
    """Draw as many rows, and plan as many steps, as there is time for.

    Parameters
    ----------
    estimator : estimator
        What is fitted.
    plan : FitPlan
        All rows, unread with `max_time`.
    y : array-like
        The targets that `fit` got.
    backbone : Backbone
        The pretrained model.
    generator : torch.Generator
        Draws the rows.
    start : float
        When the fit began, by `time.perf_counter`.
    """
    if estimator.max_time is None:
        return plan
    rows, held_out, n_rows = plan.rows, plan.held_out, len(plan.rows.texts)
    clock = start_clock(estimator, plan, backbone, start)
    clock.fits = count_fits(estimator)
    size = clock.rows_to_draw(estimator, n_rows, plan.schedule.total_step)
    targets = estimator._targets
    drawn = draw_of_rows(np.arange(n_rows), rows.targets, targets, generator, size)
    if held_out is not None and plan.own_held:
        n_held = math.ceil(len(drawn) / n_rows * len(held_out[1]))
        held_out = (_head(held_out[0], n_held), _head(held_out[1], n_held))
    rows = read_drawn(rows.take(drawn), y, targets, rows.targets)
    if held_out is not None:  # they are scored after the last step
        times = 1 + calibrates(estimator)
        clock.end -= times * len(held_out[1]) * clock.timings.vector
    if cross_fits(estimator):
        clock.to_encode = len(drawn)
    schedule, limit = clock.limit(estimator, len(drawn))
    return FitPlan(rows, schedule, held_out, plan.own_held, limit, clock)


@dataclass
class Clock:
    """The time that is left to an estimator, for one fit or several.

    Parameters
    ----------
    timings : Timings
        What the parts of a fit take.
    start, end : float
        Of all of it, by `time.perf_counter`.
    drawn : int or None
        Rows that were drawn before the fit was killed.
    fits : float, default=1
        Fits to come, of which one to a part of the rows counts as that part.
    to_encode : int, default=0
        Rows to encode after them.
    """

    timings: Timings
    start: float
    end: float
    drawn: int | None
    fits: float = 1.0
    to_encode: int = 0

    def left(self) -> float:
        """Return the seconds left to the fits, for each but a part of the last."""
        left = self.end - time.perf_counter() - self.to_encode * self.timings.vector
        return left / self.fits - self.timings.end

    def rows_to_draw(self, estimator: Any, n_rows: int, most_steps: int) -> int:
        """Return how many rows the steps of a fit read that there is time for."""
        if self.drawn is not None:
            return self.drawn
        left = self.left() - self.timings.reading
        steps = steps_within(estimator, self.timings, n_rows, most_steps, left)
        return _rows_for(estimator, steps)

    def limit(
        self, estimator: Any, n_rows: int, part: float = 1.0
    ) -> tuple[ResolvedSchedule, TimeLimit]:
        """Return the plan of the next fit, to `part` of the rows, and its limit."""
        left = part * self.left()
        plan = partial(plan_schedule, estimator, n_rows)
        most = plan().total_step
        other = self.timings.of_fit(n_rows, 0)
        steps = int((left - other) / self.timings.step)
        deadline = time.perf_counter() + left
        self.fits = max(self.fits - part, part)
        limit = TimeLimit(plan, most, self.timings.step, self.start, deadline)
        return plan(min(max(steps, 1), most)), limit

    def encoded(self, n_rows: int, seconds: float) -> None:
        """Note that so many rows have been encoded, and how long that took."""
        self.to_encode = max(0, self.to_encode - n_rows)
        self.timings = replace(self.timings, vector=seconds / n_rows)


def start_clock(
    estimator: Any, plan: FitPlan, backbone: Backbone, start: float
) -> Clock:
    """Measure what the parts of a fit take, and count what a killed one has spent."""
    drawn, spent = stored_draw(estimator.checkpoint_dir) or (None, 0.0)
    start -= spent
    end = start + float(estimator.max_time)
    spare = _MOST_MEASURING * (end - time.perf_counter())
    timings = measure(estimator, plan.rows, backbone, plan.schedule, spare)
    return Clock(timings, start, end, drawn)


def steps_within(
    estimator: Any, timings: Timings, n_rows: int, most: int, seconds: float
) -> int:
    """Return how many steps fit into the time, at least one, and at most so many."""

    def takes(steps: int) -> float:
        return timings.of_fit(min(n_rows, _rows_for(estimator, steps)), steps)

    if takes(1) > seconds:
        needed = float(estimator.max_time) - seconds + takes(1)
        warn_user(
            "`max_time` must leave time for a step of training. Got "
            f"{estimator.max_time} seconds, and a fit of one step takes about "
            f"{needed:.2g}. It takes that step; raise it for more."
        )
        return 1
    low, high = 1, most  # the former fits
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if takes(middle) <= seconds else (low, middle - 1)
    return low


def _rows_for(estimator: Any, steps: int) -> int:
    return math.ceil(_SPARE * rows_of_steps(estimator, steps))


def _head(data: Any, n_rows: int) -> Any:
    return take_rows(data, np.arange(n_rows))


# ---- an estimate --------------------------------------------------------------


def estimate_seconds(estimator: Any, X: Any, y: Any) -> float:
    """Return what `fit(X, y)` will take; nothing of the estimator changes."""
    view = copy.copy(estimator)
    # Neither a generator of the user's nor a checkpoint is touched.
    view.random_state, view.checkpoint_dir, view.max_time = 0, None, None
    start = time.perf_counter()
    plan, _ = plan_fit(view, X, y)
    rows, held_out, schedule = plan.rows, plan.held_out, plan.schedule
    reading = time.perf_counter() - start
    compute = resolve_compute(view.device, view.precision)
    backbone = load_model(view, compute, view._targets.n_outputs)
    timings = measure(view, rows, backbone, schedule)
    training = timings.of_fit(len(rows.texts), schedule.total_step)
    n_held = 0 if held_out is None else len(held_out[1])
    scoring = (schedule.epochs + calibrates(view)) * n_held * timings.vector
    found = reading + training + scoring + timings.end
    if cross_fits(view):
        found += (count_fits(view) - 1) * training + len(rows.texts) * timings.vector
    limit = estimator.max_time
    return found if limit is None else min(found, float(limit))

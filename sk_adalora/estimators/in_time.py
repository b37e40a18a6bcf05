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
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.runtime.devices import resolve_compute
from sk_adalora.runtime.messages import warn_user
from sk_adalora.tokens.batches import training_batches
from sk_adalora.tokens.long_texts import encode_for_training
from sk_adalora.training.loop import TrainingRun, train_step
from sk_adalora.training.schedule_steps import ResolvedSchedule
from sk_adalora.training.time_limit import TimeLimit

from .fitting import (
    FitPlan,
    build_adapted,
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
# Passes through the network without gradients for one with them.
_FORWARD = 1 / 3


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
    per_step = rows_of_steps(estimator, 1)
    return Timings(
        reading=reading,
        tokens=encoding / len(some),
        head=heading / min(len(some), _ROWS_OF_HEAD),
        vector=_FORWARD * step / min(per_step, n_rows),
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
    rows, schedule, held_out = plan.rows, plan.schedule, plan.held_out
    deadline = start + float(estimator.max_time)
    spare = _MOST_MEASURING * (deadline - time.perf_counter())
    timings = measure(estimator, rows, backbone, schedule, spare)
    n_rows = len(rows.texts)
    left = deadline - time.perf_counter() - timings.end - timings.reading
    steps = steps_within(estimator, timings, n_rows, schedule.total_step, left)
    drawn = draw_of_rows(
        np.arange(n_rows),
        rows.targets,
        estimator._targets,
        generator,
        _rows_for(estimator, steps),
    )
    share = len(drawn) / n_rows
    if held_out is not None and plan.own_held and share < 1:
        n_held = math.ceil(share * len(held_out[1]))
        held_out = (_head(held_out[0], n_held), _head(held_out[1], n_held))
    rows = read_drawn(rows.take(drawn), y, estimator._targets, rows.targets)
    scoring = 0 if held_out is None else len(held_out[1]) * timings.vector
    schedule = plan_schedule(estimator, len(drawn), steps)
    limit = TimeLimit(
        partial(plan_schedule, estimator, len(drawn)),
        plan_schedule(estimator, len(drawn)).total_step,
        timings.step,
        start,
        deadline - timings.end - scoring,
    )
    return replace(plan, rows=rows, held_out=held_out, schedule=schedule, limit=limit)


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
            f"{needed:.2g}, which is what is done. Raise it."
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
    scoring = schedule.epochs * n_held * timings.vector
    found = reading + training + scoring + timings.end
    limit = estimator.max_time
    return found if limit is None else min(found, float(limit))

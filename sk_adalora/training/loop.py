"""Train an adapted network under a rank budget: train -> train_epoch -> train_step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from sk_adalora.adalora import RankAllocator
from sk_adalora.network.network import TextNetwork
from sk_adalora.runtime.devices import Compute
from sk_adalora.runtime.html import html_curve, html_table
from sk_adalora.runtime.messages import progress_bar
from sk_adalora.runtime.ranks import Ranks, ranks_now
from sk_adalora.tokens.batches import Batch, micro_batches, pad, send, training_batches
from sk_adalora.tokens.table import TokenTable

from .schedule_steps import ResolvedSchedule

# (n, k) outputs and the targets of the same rows -> (n,) losses.
LossFunction = Callable[[Tensor, Tensor], Tensor]
# Bound on the norm of all gradients together.
_MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Examples:
    """The training rows, and their loss.

    Parameters
    ----------
    tokens : TokenTable
        Tokens of each row.
    targets : torch.Tensor of shape (n_samples,) or (n_samples, n_outputs)
        Class indices, indicators, or scaled numbers.
    weights : torch.Tensor of shape (n_samples,) or None
        Weight of each row's loss, or None for all equal.
    loss : callable
        Loss of each row.
    """

    tokens: TokenTable
    targets: Tensor
    weights: Tensor | None
    loss: LossFunction

    def take(self, rows: np.ndarray) -> Examples:
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return replace(
            self,
            tokens=self.tokens.take(rows),
            targets=self.targets[rows],
            weights=weights,
        )

    @cached_property
    def mean_weight(self) -> float:
        """Mean weight of all rows.

        A step divides by this, and not by the mean weight of its own rows: a batch of
        rows with small weights shall count less than one of rows with large weights.
        """
        return 1.0 if self.weights is None else float(self.weights.double().mean())


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Parameters
    ----------
    epochs, batch_size, total_step : int
        Passes over the rows, rows of an optimizer step, and number of these.
    learning_rate, head_learning_rate : float
        Peak learning rates of the triplets and of the head.
    warmup_ratio : float
        Share of all steps in which the learning rates rise.
    """

    epochs: int
    batch_size: int
    total_step: int
    learning_rate: float
    head_learning_rate: float
    warmup_ratio: float

    @property
    def warmup_steps(self) -> int:
        """Steps until the learning rates peak; the first is taken at a rate of 0."""
        # 0.07 of 100 steps are 7, though 0.07 * 100 is more.
        steps = math.ceil(round(self.warmup_ratio * self.total_step, 9))
        return min(steps, self.total_step - 1)  # a single step must change something


@dataclass
class TrainingHistory:
    """What happened at each optimizer step and at the end of each epoch.

    Attributes
    ----------
    loss, orthogonality, learning_rate : list of float
        At each optimizer step: the mean loss of its rows, weighted by weight / mean
        weight of all rows; the penalty that was added to it; and the learning rate of
        the updates.
    budget : list of int
        The total rank of all updates, which is the number of live triplets, after each
        optimizer step.
    ranks : list of list of int
        The rank of each matrix, in the order of `ranks_`: a row before the first step,
        one after each step at which the total rank fell, and one when ranks became
        final.
    rank_steps : list of int
        The number of optimizer steps taken before each row of `ranks`.
    score : list of float
        The validation score after each epoch; empty without early stopping.
    epochs : int
        Number of epochs trained.
    best_epoch : int or None
        The epoch, counted from 0, whose state was kept, if a validation score chose it.
    seconds : float
        How long the training took.
    """

    loss: list[float] = field(default_factory=list)
    orthogonality: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    budget: list[int] = field(default_factory=list)
    ranks: list[list[int]] = field(default_factory=list)
    rank_steps: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    epochs: int = 0
    best_epoch: int | None = None
    seconds: float = 0.0

    def __repr__(self) -> str:
        last = f", loss={self.loss[-1]:.4g}" if self.loss else ""
        return (
            f"TrainingHistory(steps={len(self.loss)}, epochs={self.epochs}{last}, "
            f"seconds={self.seconds:.1f})"
        )

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {
            "steps": len(self.loss),
            "epochs": self.epochs,
            "seconds": f"{self.seconds:.1f}",
        }
        if self.ranks:
            first, last = np.mean(self.ranks[0]), np.mean(self.ranks[-1])
            rows["ranks"] = f"{first:.1f} to {last:.1f} on average"
        if self.score:
            best = -1 if self.best_epoch is None else self.best_epoch
            rows |= {"best_epoch": self.best_epoch, "score": f"{self.score[best]:.3f}"}
        if not self.loss:
            return html_table(type(self).__name__, rows)
        rows["loss"] = f"{self.loss[0]:.3f} to {self.loss[-1]:.3f}"
        curve = html_curve(self.loss, "the loss of each step")
        return html_table(type(self).__name__, rows) + curve


class EpochHooks(Protocol):
    """Methods that are called before and after each epoch."""

    def skip(self) -> None:
        """Count an epoch that a checkpoint has."""

    def begin(self) -> None:
        """Prepare for an epoch."""

    def end(self, run: TrainingRun, history: TrainingHistory) -> bool:
        """Evaluate the network after an epoch; True stops the training."""

    def finish(self, history: TrainingHistory) -> None:
        """Note that the fit ends."""


@dataclass
class Progress:
    """Where a training is: what a resumed one needs beside the state of the run.

    Attributes
    ----------
    history : TrainingHistory
        What happened so far; losses and penalties only of epochs that are over.
    losses, penalties : list of torch.Tensor of shape ()
        Those of the steps of this epoch.
    ranks : list of torch.Tensor of shape (n_matrices,)
        Rows that the history lacks yet.
    shuffled_by : torch.Tensor or None
        State of the generator before it shuffled the rows of this epoch.
    """

    history: TrainingHistory = field(default_factory=TrainingHistory)
    losses: list[Tensor] = field(default_factory=list)
    penalties: list[Tensor] = field(default_factory=list)
    ranks: list[Tensor] = field(default_factory=list)
    shuffled_by: Tensor | None = None

    def note_ranks(self, run: TrainingRun) -> None:
        """Note the present ranks, without waiting for the device."""
        self.ranks.append(run.allocator.rank_of_layers())
        self.history.rank_steps.append(run.step)

    def read_ranks(self) -> None:
        """Add noted ranks to the history, for which the host waits for the device."""
        if self.ranks:
            self.history.ranks += torch.stack(self.ranks).tolist()
            self.ranks.clear()


@dataclass
class Saver:
    """Knows where a training is. Subclasses save it.

    Parameters
    ----------
    progress : Progress
        Where the training is, or an earlier one was, whose state the run has.
    """

    progress: Progress = field(default_factory=Progress)

    def after_step(self, run: TrainingRun) -> None:
        """Save the training, if it is time to."""


class Limit(Protocol):
    """Decides how many steps there will be."""

    def begin(self, history: TrainingHistory) -> None:
        """Start the clock, of a training that has come so far."""

    def after_step(self, run: TrainingRun) -> None:
        """Plan the rest of the training."""


@dataclass
class TrainingRun:
    """A training in progress: its inputs, optimizer and number of steps taken.

    Parameters
    ----------
    network : TextNetwork
        The network to train.
    examples : Examples
        The rows to train on.
    recipe : Recipe
        Settings of the training.
    compute : Compute
        Device and precision.
    frozen : dict of int to torch.Tensor, default={}
        Vectors (w,) of texts by the pretrained model without updates, by where a text
        begins in the table of tokens. Those computed to start the head are added.
    limit : Limit or None, default=None
        Plans the rest of the training after each step.
    ranks : Ranks, default=ranks_now()
        The processes that share the training.
    """

    network: TextNetwork
    examples: Examples
    recipe: Recipe
    compute: Compute
    frozen: dict[int, Tensor] = field(default_factory=dict)
    limit: Limit | None = None
    ranks: Ranks = field(default_factory=ranks_now)

    # What the steps come from; of a run in an estimator.
    schedule: ResolvedSchedule = field(init=False)

    def __post_init__(self) -> None:
        self.step = 0
        self.optimizer = make_optimizer(self.network, self.recipe)
        self.scheduler = LambdaLR(self.optimizer, _rates(self.recipe))
        # Only float16 gradients underflow; elsewhere the scaler does nothing.
        self.scaler = torch.amp.GradScaler(
            self.compute.device.type, enabled=self.compute.precision == "float16"
        )
        if self.scaler.is_enabled():
            # It leaves out steps whose gradients overflow, the first ones too, and then
            # the scheduler warns of a step before any of the optimizer's. Without
            # gradients, this one changes nothing.
            self.optimizer.step()
            # A rank without a row in the first batch scales no loss.
            self.scaler.scale(torch.zeros((), device=self.compute.device))
        self.differ_in_dropout()

    def differ_in_dropout(self) -> None:
        """Have each rank drop out on its own rows what the others do not."""
        if not self.ranks.is_first:
            for drawn in self.dropout_generators():
                drawn.manual_seed(drawn.initial_seed() + self.ranks.rank + self.step)

    def dropout_generators(self) -> list[torch.Generator]:
        """Return those of dropout: one that all layers share, or one a device."""
        layers = self.network.encoder.adapted.values()
        own = {id(layer.generator): layer.generator for layer in layers}
        return [generator for generator in own.values() if generator is not None]

    def replan(self, schedule: ResolvedSchedule) -> None:
        """Go on with other numbers of steps; the rate of the next one is theirs."""
        total, self.schedule = schedule.total_step, schedule
        self.recipe = replace(self.recipe, epochs=schedule.epochs, total_step=total)
        if self.step < total:  # else it stops now, and prunes to the target
            self.network.encoder.replan(
                tinit=schedule.tinit,
                tfinal=schedule.tfinal,
                deltaT=schedule.deltaT,
                total_step=total,
            )
        share = _rates(self.recipe)
        self.scheduler.lr_lambdas = [share] * len(self.scheduler.base_lrs)
        rates = [peak * share(self.step) for peak in self.scheduler.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.scheduler._last_lr = rates

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that read every row once."""
        return -(-len(self.examples.tokens) // self.recipe.batch_size)

    @property
    def parameters(self) -> list[Tensor]:
        """All trained parameters."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def allocator(self) -> RankAllocator:
        """The network's rank allocator."""
        return self.network.encoder.allocator


def train(
    run: TrainingRun,
    generator: torch.Generator,
    *,
    hooks: EpochHooks,
    saver: Saver | None = None,
    verbose: int = 0,
) -> TrainingHistory:
    """Train until all epochs are over, or the hook stops it.

    Parameters
    ----------
    run : TrainingRun
        The training.
    generator : torch.Generator
        Shuffles the rows.
    hooks : EpochHooks
        Called around each epoch; after it, with the network in evaluation mode.
    saver : Saver or None, default=None
        Says where to go on, and is called after each step.
    verbose : int, default=0
        Whether to show a progress bar.

    Returns
    -------
    TrainingHistory
        The ranks are final, even where training was stopped early.

    Raises
    ------
    FloatingPointError
        If the loss stops being finite.
    """
    saver = Saver() if saver is None else saver
    history = saver.progress.history
    start = time.perf_counter() - history.seconds
    if run.limit is not None:
        run.limit.begin(history)
    verbose = verbose if run.ranks.is_first else 0
    with closing(progress_bar(run.recipe.total_step, verbose, "fit", "step")) as bar:
        bar.update(run.step)
        if not history.rank_steps:
            saver.progress.note_ranks(run)
        for _ in range(history.epochs):
            hooks.skip()
        while history.epochs < run.recipe.epochs:
            hooks.begin()
            run.network.train()
            train_epoch(run, generator, saver, bar)
            history.epochs += 1
            history.seconds = time.perf_counter() - start
            run.network.eval()
            stop = hooks.end(run, history)
            _show(bar, history)  # with the score, which a hook may have added
            if stop:
                break
    if not run.allocator.finished:  # training has stopped early: ranks may still fall
        run.allocator.finish()
        saver.progress.note_ranks(run)
    saver.progress.read_ranks()
    _compact_when_final(run)
    _check_finite(run)
    history.seconds = time.perf_counter() - start
    return history


def train_epoch(
    run: TrainingRun, generator: torch.Generator, saver: Saver, bar: Any
) -> None:
    """Train on every row once, or until the last step, and add to the history."""
    progress = saver.progress
    history, losses, penalties = progress.history, progress.losses, progress.penalties
    progress.shuffled_by = generator.get_state()
    batches = training_batches(run.examples.tokens, run.recipe.batch_size, generator)
    for rows in batches[len(losses) :]:
        if run.step == run.recipe.total_step:
            break
        history.learning_rate.append(float(run.scheduler.get_last_lr()[0]))
        before = (run.allocator.budget, run.allocator.finished)
        loss, penalty = train_step(run, rows)
        if (run.allocator.budget, run.allocator.finished) != before:
            progress.note_ranks(run)
        if run.compute.device.type == "cpu":  # reading the loss waits for no device
            _check_losses(run, history, [float(loss)])
        losses.append(loss)
        penalties.append(penalty)
        history.budget.append(run.allocator.budget)
        bar.update()
        if run.limit is not None:
            run.limit.after_step(run)
        saver.after_step(run)
    # Read once per epoch, not once per step: each time, the host waits for the device.
    history.loss += torch.stack(losses).tolist()
    history.orthogonality += torch.stack(penalties).tolist()
    progress.read_ranks()
    _show(bar, history)
    _check_losses(run, history, history.loss[-len(losses) :])
    losses.clear()
    penalties.clear()


def _check_losses(
    run: TrainingRun, history: TrainingHistory, losses: list[float]
) -> None:
    if not np.isfinite(losses).all():
        raise FloatingPointError(
            "The training loss must stay finite. Got NaN or infinity in epoch "
            f"{history.epochs + 1} of {run.recipe.epochs}. Lower `learning_rate`"
            f"{run.compute.or_exact}."
        )


def _check_finite(run: TrainingRun) -> None:
    """Check the parameters after the last step: no later loss would show a fault."""
    if not all(bool(torch.isfinite(parameter).all()) for parameter in run.parameters):
        raise FloatingPointError(
            "Trained numbers must stay finite. Got NaN or infinity after the last "
            f"step. Lower `learning_rate`{run.compute.or_exact}."
        )


def train_step(run: TrainingRun, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Take one optimizer step: algorithm 1 of arXiv:2303.10512.

    Parameters
    ----------
    run : TrainingRun
        The training.
    rows : ndarray of shape (batch_size,)
        The rows of the step.

    Returns
    -------
    loss, orthogonality : torch.Tensor of shape ()
        Mean loss of the rows, weights included, and the penalty.
    """
    model, optimizer, scaler = run.network.encoder, run.optimizer, run.scaler
    loss, penalty = run.ranks.add_up(run.parameters, partial(_backward, run, rows))
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(run.parameters, _MAX_GRAD_NORM)
    scaler.step(optimizer)
    scaler.update()
    model.update_and_allocate(run.step)
    optimizer.zero_grad()
    _compact_when_final(run)
    run.scheduler.step()
    run.step += 1
    return loss, penalty


def _backward(run: TrainingRun, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Add the gradients of a step; on several ranks, those of this one's rows.

    Many tokens go through the network in parts.
    """
    total_weight = len(rows) * run.examples.mean_weight
    # The penalty belongs to the step: not to each part of it, nor to each rank.
    penalty = run.network.encoder.orthogonality_loss()
    if not run.ranks.is_first:
        penalty = torch.zeros_like(penalty)
    loss = torch.zeros_like(penalty)
    mine = rows[run.ranks.rank :: run.ranks.count]
    tokens, limit = run.examples.tokens, run.compute.tokens_to_train
    parts = micro_batches(tokens, mine, limit) if len(mine) else []
    for index, part in enumerate(parts):
        share = _loss_sum(run, part) / total_weight
        objective = share + penalty if index == 0 else share
        run.scaler.scale(objective).backward()
        loss += share.detach()
    return loss, penalty.detach()


def _loss_sum(run: TrainingRun, rows: np.ndarray) -> Tensor:
    """Add up the weighted losses of some rows."""
    examples, device = run.examples, run.compute.device
    index = torch.from_numpy(rows)
    batch: Batch = pad(examples.tokens, rows, run.compute.length_multiple)
    outputs = run.network(batch.to(device))  # (n, k)
    losses = examples.loss(outputs, send(examples.targets[index], device))  # (n,)
    if examples.weights is not None:
        losses = losses * send(examples.weights[index], device)
    return losses.sum()


def _compact_when_final(run: TrainingRun) -> None:
    """Delete the pruned triplets, once the last allocation has happened."""
    model = run.network.encoder
    if run.allocator.finished and run.allocator.budget < len(run.allocator.kept):
        model.compact(run.optimizer)


def make_optimizer(network: TextNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    """Make AdamW with one group for the triplets and one for the head."""
    head = network.head_parameters()
    adapter = list(network.encoder.triplets.parameters())
    stray = {id(p) for p in network.parameters() if p.requires_grad}
    stray -= {id(p) for p in (*head, *adapter)}
    assert not stray, "every trained parameter belongs to the adapter or the head"
    return torch.optim.AdamW(
        [
            {"params": adapter, "lr": recipe.learning_rate},
            {"params": head, "lr": recipe.head_learning_rate},
        ],
        weight_decay=0.0,
        fused=head[0].device.type in ("cpu", "cuda"),
    )


def _rates(recipe: Recipe) -> Callable[[int], float]:
    """Return the share of the peak rates at each step."""
    return partial(
        rate_share, warmup_steps=recipe.warmup_steps, total_step=recipe.total_step
    )


def rate_share(step: int, *, warmup_steps: int, total_step: int) -> float:
    """Return the learning rates of a step as a share of their peaks, from 0 to 1.

    They rise and fall linearly, as by transformers' `get_scheduler`. That imports PEFT
    if it is installed, and fails if that is a version for another transformers.

    Parameters
    ----------
    step : int
        Number of optimizer steps before this one.
    warmup_steps : int
        Steps in which the rates rise, from 0.
    total_step : int
        Steps of the whole training.
    """
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_step - step) / max(1, total_step - warmup_steps))


def _show(bar: Any, history: TrainingHistory) -> None:
    """Write the latest numbers beside the bar."""
    rank = np.mean(history.ranks[-1])
    shown = {"loss": f"{history.loss[-1]:.3f}", "rank": f"{rank:.1f}"}
    if history.score:
        shown["score"] = f"{history.score[-1]:.3f}"
    bar.set_postfix(shown)

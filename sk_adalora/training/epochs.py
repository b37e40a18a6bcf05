"""Around each epoch: interpolation, the validation score, scikit-learn's callbacks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sk_adalora.network.network import TextNetwork

from .loop import TrainingHistory, TrainingRun


class Interpolation:
    """Move a trained network back towards its state when this object was made.

    Moved a little back towards the start, a network predicts unseen rows as well as
    before or better, and is less confident (WiSE-FT: Wortsman et al. 2022,
    arXiv:2109.01903). benchmarks/DEFAULTS.md has what that gains here.

    Parameters
    ----------
    network : TextNetwork
        A network before its training: the head is initialised, and all updates are 0.
    share : float
        Position between that state (0) and the trained one (1), in [0, 1].

    Attributes
    ----------
    start : list of torch.Tensor
        The parameters of the head before the training.
    """

    def __init__(self, network: TextNetwork, share: float) -> None:
        self.network, self.share = network, share
        self.start = [p.detach().clone() for p in network.head_parameters()]

    @torch.no_grad()
    def apply(self) -> None:
        """Interpolate the network permanently."""
        # Between two allocations pruned triplets train on; what is kept has none.
        self.network.encoder.allocator.zero_pruned()
        if self.share == 1:
            return
        # An update is linear in its singular values, and starts at 0.
        self.network.encoder.triplets.singular_values.mul_(self.share)
        head = self.network.head_parameters()
        for start, parameter in zip(self.start, head, strict=True):
            parameter.lerp_(start, 1 - self.share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Interpolate the network in a `with` block, between two epochs."""
        parameters = [
            self.network.encoder.triplets.singular_values,
            *self.network.head_parameters(),
        ]
        trained = [p.detach().clone() for p in parameters]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for value, parameter in zip(trained, parameters, strict=True):
                    parameter.copy_(value)


@dataclass
class ScoreWatcher:
    """Score the network at the end of each epoch.

    Only states of the final phase are compared: before it, the ranks still fall, and a
    better score may be due to a model that is larger than asked for.

    Parameters
    ----------
    score : callable
        Returns the validation score of the network; greater is better.
    patience : int
        Epochs of the final phase without a better score before training stops.
    best_score : float, default=-inf
        The best finite score of the final phase.
    waited : int, default=0
        Epochs since then.
    best : dict of str to torch.Tensor or None, default=None
        The state of the network that had it.
    """

    score: Callable[[], float]
    patience: int
    best_score: float = -math.inf
    waited: int = 0
    best: dict[str, Tensor] | None = None

    def __call__(self, run: TrainingRun, history: TrainingHistory) -> bool:
        """Score the network, add the score to the history, and tell whether to stop."""
        score = self.score()
        history.score.append(score)
        if math.isnan(score):  # no later score would compare as greater
            score = -math.inf
        if not run.allocator.finished:
            return False
        # While no state has a finite score, keep the latest: it was trained longest.
        if score > self.best_score or self.best_score == -math.inf:
            self.best_score, self.waited = score, 0
            history.best_epoch = history.epochs - 1
            self.best = copy.deepcopy(run.network.state_dict())
            return False
        self.waited += 1
        return self.waited >= self.patience

    def restore(self, network: TextNetwork) -> None:
        """Put the best state back, if the final phase had one."""
        if self.best is not None:
            network.load_state_dict(self.best)


def one_number(score: Any) -> float:
    """Return what a scorer gave as a float; refuse several scores."""
    try:
        return float(score)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`scoring` must return one number. Got {score!r}. Return the one score "
            "that is to be watched."
        ) from error


def data_of_fit(X: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
    """Return what callbacks get of a fit's data."""
    given = None if sample_weight is None else {"sample_weight": sample_weight}
    return {"X": X, "y": y, "metadata": given}


class Unwatched:
    """Nothing happens around an epoch of a fold."""

    def skip(self) -> None: ...

    def begin(self) -> None: ...

    def end(self, run: TrainingRun, history: TrainingHistory) -> bool:
        return False

    def finish(self, history: TrainingHistory) -> None: ...


class EpochCallbacks:
    """What happens around each epoch of a fit; on several ranks, on the first.

    Parameters
    ----------
    estimator : estimator
        The estimator being fitted, which may hold callbacks.
    data : dict
        What :func:`data_of_fit` returned.
    run : TrainingRun
        The training.
    fitted : callable
        From the history so far, returns the attributes of the estimator as it is
        now, with the ranks of this step. Called only if a callback asks.
    interpolation : Interpolation
        Scores and callbacks see the interpolated network, as it would be kept then.
    watcher : ScoreWatcher or None
        Scores the network, with early stopping; None on other ranks.
    """

    def __init__(
        self,
        estimator: Any,
        data: dict[str, Any],
        run: TrainingRun,
        fitted: Callable[[TrainingHistory], dict[str, Any]],
        interpolation: Interpolation,
        watcher: ScoreWatcher | None,
    ) -> None:
        self.estimator, self.data, self.run = estimator, data, run
        self.fitted, self.interpolation = fitted, interpolation
        self.watcher = watcher
        run.ranks.on_first(self._announce)

    def _announce(self) -> None:
        # How many epochs fit into a limit of time, is not known yet.
        most = self.run.recipe.epochs if self.run.limit is None else None
        self.fit_task = self.estimator._init_callback_context(max_subtasks=most)
        self.fit_task.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def skip(self) -> None:
        """Count an epoch that a checkpoint has; callbacks saw it before."""
        self.run.ranks.on_first(lambda: self.fit_task.subcontext(task_name="epoch"))

    def begin(self) -> None:
        """Tell the callbacks that an epoch begins."""
        self.run.ranks.on_first(self._begin)

    def _begin(self) -> None:
        self.epoch_task = self.fit_task.subcontext(task_name="epoch")
        self.epoch_task.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def end(self, run: TrainingRun, history: TrainingHistory) -> bool:
        """Score the network and tell the callbacks; return whether to stop."""
        return run.ranks.from_first(partial(self._end, run, history))

    def _end(self, run: TrainingRun, history: TrainingHistory) -> bool:
        with self.interpolation.applied():
            enough = self.watcher is not None and self.watcher(run, history)
            so_far = history
            if history.best_epoch != history.epochs - 1:
                # A copy has the state of now, not that of the best epoch.
                so_far = replace(history, best_epoch=None)
            stop = self.epoch_task.call_on_fit_task_end(
                estimator=self.estimator,
                reconstruction_attributes=partial(self.fitted, so_far),
                **self.data,
            )
        return bool(enough or stop)

    def finish(self, history: TrainingHistory) -> None:
        """Tell the callbacks that the fit ends."""
        self.run.ranks.on_first(partial(self._finish, history))

    def _finish(self, history: TrainingHistory) -> None:
        self.fit_task.call_on_fit_task_end(
            estimator=self.estimator,
            reconstruction_attributes=partial(self.fitted, history),
            **self.data,
        )

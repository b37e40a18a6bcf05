"""Watch a validation score, keep the best state, and stop when it no longer rises."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sk_adalora.network.network import TextNetwork

from .loop import TrainingHistory, TrainingRun


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
    """

    score: Callable[[], float]
    patience: int

    def __post_init__(self) -> None:
        self.best_score, self.waited = -math.inf, 0
        self._best: dict[str, Tensor] | None = None

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
            self._best = copy.deepcopy(run.network.state_dict())
            return False
        self.waited += 1
        return self.waited >= self.patience

    def restore(self, network: TextNetwork) -> None:
        """Put the best state back, if the final phase had one."""
        if self._best is not None:
            network.load_state_dict(self._best)


def one_number(score: Any) -> float:
    """Return what a scorer gave as a float; refuse several scores."""
    try:
        return float(score)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`scoring` must return one number. Got {score!r}. Return the one score "
            "that is to be watched."
        ) from error

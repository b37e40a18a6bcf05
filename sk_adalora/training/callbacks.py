"""Around each epoch: scikit-learn's callbacks, and the validation score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from .early_stopping import ScoreWatcher
from .interpolation import Interpolation
from .loop import TrainingHistory, TrainingRun


def data_of_fit(X: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
    """Return what callbacks get of a fit's data."""
    given = None if sample_weight is None else {"sample_weight": sample_weight}
    return {"X": X, "y": y, "metadata": given}


class EpochCallbacks:
    """What happens around each epoch of a fit.

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
        Scores the network, with early stopping.
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
        self.fit_task = estimator._init_callback_context(max_subtasks=run.recipe.epochs)
        self.fit_task.call_on_fit_task_begin(estimator=estimator, **data)

    def begin(self) -> None:
        """Tell the callbacks that an epoch begins."""
        self.epoch_task = self.fit_task.subcontext(task_name="epoch")
        self.epoch_task.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def end(self, run: TrainingRun, history: TrainingHistory) -> bool:
        """Score the network and tell the callbacks; return whether to stop."""
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

    def settle_network(self) -> None:
        """Interpolate the trained network for good, or take the best scored state."""
        self.interpolation.apply()
        if self.watcher is not None:  # states that it scored were interpolated already
            self.watcher.restore(self.run.network)

    def finish(self, history: TrainingHistory) -> None:
        """Tell the callbacks that the fit ends."""
        self.fit_task.call_on_fit_task_end(
            estimator=self.estimator,
            reconstruction_attributes=partial(self.fitted, history),
            **self.data,
        )

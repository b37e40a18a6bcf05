"""What a search found, as a picture: trials, running best, importances."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from sk_adalora.displays.draw import (
    GREY,
    VERMILION,
    blue_on,
    import_pyplot,
    list_axes,
    whole_numbers,
)

from .marks import may_be_best

# Of more parameters than this, only the most important are shown.
_MOST_BARS = 12


@dataclass(frozen=True)
class TrialCurves:
    """The numbers of the picture.

    Parameters
    ----------
    complete, pruned : ndarray of shape (n, 2)
        Number and value of each trial; of pruned ones, the mean of the folds it saw.
        Complete trials that break a constraint are left out.
    best : ndarray of shape (n, 2)
        Number of each complete trial, and the best value so far; the last of these
        once more at the last trial, if that is not complete.
    importances : dict of str to float
        Share of the complete trials' variance that each parameter explains, largest
        first. Empty if there are no more complete trials than parameters.
    """

    complete: np.ndarray
    pruned: np.ndarray
    best: np.ndarray
    importances: dict[str, float]


def trial_curves(study: optuna.Study, trials: Sequence[FrozenTrial]) -> TrialCurves:
    """Work out the numbers of the picture."""
    complete = _points(filter(may_be_best, trials))
    pruned = _points(t for t in trials if t.state is TrialState.PRUNED)
    best = complete.copy()
    best[:, 1] = np.maximum.accumulate(best[:, 1])
    last = max((t.number for t in trials if t.state.is_finished()), default=0)
    if len(best) and last > best[-1, 0]:
        best = np.vstack([best, [last, best[-1, 1]]])
    return TrialCurves(complete, pruned, best, _importances(study, trials))


def draw_trials(curves: TrialCurves, ax: Any = None) -> np.ndarray:
    """Draw the picture, as `AdaLoraSearchCV.plot_trials` says."""
    plt = import_pyplot()
    if ax is None:
        _, ax = plt.subplots(1, 2, figsize=(10, 4), layout="tight")
    axes = list_axes(ax, 2, alone="the trials")
    _draw_values(curves, axes[0])
    if len(axes) > 1:
        _draw_importances(curves, axes[1])
    return axes


def _draw_values(curves: TrialCurves, ax: Any) -> None:
    n_trials = len(curves.complete) + len(curves.pruned)
    size = float(np.clip(60 / np.sqrt(max(n_trials, 1)), 2, 7))  # many points: small
    ax.plot(
        *curves.complete.T, "o", color=blue_on(ax), ms=size, alpha=0.8, label="complete"
    )
    if len(curves.pruned):
        ax.plot(*curves.pruned.T, "x", color=GREY, ms=size, label="pruned")
    ax.step(*curves.best.T, where="post", color=VERMILION, lw=2, label="best so far")
    ax.set(xlabel="trial", ylabel="mean score of the folds")
    ax.set_title("Score of each trial: higher is better", fontsize="medium")
    whole_numbers(ax.xaxis)
    ax.legend(fontsize="small")


def _draw_importances(curves: TrialCurves, ax: Any) -> None:
    names = list(curves.importances)[:_MOST_BARS][::-1]
    shares = [curves.importances[name] for name in names]
    ax.barh(names, shares, color=blue_on(ax))
    ax.set(xlabel="share of the differences in score", xlim=(0, 1))
    title = "How much each parameter matters" if names else "too few trials to tell"
    ax.set_title(title, fontsize="medium")


def _points(trials: Iterable[FrozenTrial]) -> np.ndarray:
    points = [(t.number, t.value) for t in trials]
    return np.array(points, dtype=float).reshape(-1, 2)


def _importances(
    study: optuna.Study, trials: Sequence[FrozenTrial]
) -> dict[str, float]:
    scored = [trial for trial in trials if math.isfinite(_compared(trial))]
    most = max((len(trial.params) for trial in scored), default=0)
    # Any parameter would explain few values as well as another.
    if len(scored) <= most or len(set(map(_compared, scored))) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        found = optuna.importance.get_param_importances(
            study, evaluator=evaluator, target=_compared
        )
    except RuntimeError:  # its trees cannot tell apart what varies so little
        return {}
    return {name: float(value) for name, value in found.items()}


def _compared(trial: FrozenTrial) -> float:
    """Return a trial's value, or NaN, which Optuna leaves out, if it is not drawn."""
    value = trial.value if may_be_best(trial) else None
    return math.nan if value is None else value

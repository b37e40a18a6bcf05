"""Stop trials that are too far behind the best: a paired comparison over the folds."""

from __future__ import annotations

import copy
import math

import numpy as np
import optuna
from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from optuna.trial import FrozenTrial

from sk_adalora.runtime.messages import warn_user

from .study import may_be_best

# Complete trials before the first is stopped.
_STARTUP_TRIALS = 3
# How many standard errors a trial may be behind.
_ERRORS = 0.5
# Relative difference that sums in another order may have.
_ROUNDING = 1e-9


def make_pruner(pruner: BasePruner | str | None) -> BasePruner:
    """Return the pruner of a study; that of the user is copied."""
    if pruner is None:
        return NopPruner()
    if isinstance(pruner, str):
        return FoldPruner()
    if isinstance(pruner, WilcoxonPruner):
        warn_user(
            "`pruner` should compare means over folds. Got a WilcoxonPruner, whose "
            "test is of single scores: it stops good trials too often. Pass 'auto', "
            "which compares fold by fold."
        )
    return copy.deepcopy(pruner)


class FoldPruner(BasePruner):
    """Stop a trial that is behind the best one by more than the noise of the folds.

    Folds differ more from each other than settings do on one fold. All trials see the
    same folds, so a trial is compared with the best complete one fold by fold, over
    those that it has seen: it is stopped when the mean of the differences exceeds half
    their standard error. That error is pooled over the complete trials that differ from
    the best, so that there is one after a single fold. A whole error would lose the
    best setting less often, and save fewer fits.

    For studies that maximize, whose trials report the mean over the folds so far, with
    the steps 0, 1, 2... The present mean is compared, whatever it was before. A trial
    equal to the best is never stopped, however many are equal: the other folds have to
    tell them apart, where few rows make for few different scores.

    Compared are the trials with as many folds as the latest complete one. What has a
    score that is not finite in any fold, or other steps, or breaks a constraint, is
    left out, and is never the best.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Tell whether to stop a trial that runs."""
        n_seen = len(trial.intermediate_values)
        if not n_seen or fold_scores(trial) is None:
            return False
        mean = trial.intermediate_values[n_seen - 1]
        if math.isnan(mean):
            return True
        complete = _comparable(study)  # (trials, folds)
        if len(complete) < _STARTUP_TRIALS or n_seen >= complete.shape[1]:
            return False
        best = complete[complete.mean(axis=1).argmax()]
        lag = best[:n_seen].mean() - mean
        error = _spread(complete, best) / math.sqrt(n_seen)
        rounding = _ROUNDING * np.abs(best).max()
        return bool(lag > _ERRORS * error + rounding)


def fold_scores(trial: FrozenTrial) -> np.ndarray | None:
    """Return the scores of the folds, of which a trial reports the running mean.

    None if its steps are not 0, 1, 2...
    """
    reported = trial.intermediate_values
    n_folds = len(reported)
    if reported.keys() != set(range(n_folds)):
        return None
    means = np.array([reported[k] for k in range(n_folds)])
    with np.errstate(invalid="ignore"):  # infinity less infinity
        return np.diff(means * np.arange(1, n_folds + 1), prepend=0.0)


def _comparable(study: optuna.Study) -> np.ndarray:
    """Return the scores of what may be the best, of shape (n_trials, n_folds)."""
    each = map(fold_scores, filter(may_be_best, study.get_trials(deepcopy=False)))
    found = [scores for scores in each if scores is not None and len(scores)]
    alike = [scores for scores in found if len(scores) == len(found[-1])]
    finite = [scores for scores in alike if np.isfinite(scores).all()]
    return np.array(finite) if finite else np.empty((0, 0))


def _spread(complete: np.ndarray, best: np.ndarray) -> float:
    """Return the pooled standard deviation, over folds, of the lag behind the best."""
    others = complete[(complete != best).any(axis=1)]
    if not len(others):
        return 0.0
    return float(np.sqrt((best - others).var(axis=1, ddof=1).mean()))

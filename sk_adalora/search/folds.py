"""The folds that all trials are evaluated on, and what a fit on one of them gave."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from optuna import Study
from optuna.trial import FrozenTrial
from sklearn.base import clone
from sklearn.model_selection._validation import _fit_and_score

from sk_adalora.files.checkpoint import remove_checkpoints
from sk_adalora.runtime.digest import digest
from sk_adalora.runtime.ranks import alone

from .storage import until_reached
from .study import FOLD

# Characters that are kept of an error's text: its end, which says what happened.
_LONGEST_ERROR = 4000

Scores = float | dict[str, float]


@dataclass(frozen=True)
class FoldResult:
    """What fitting and scoring on one fold gave.

    Parameters
    ----------
    test : float or dict of str to float
        Score on the test rows, or one of each metric.
    train : float, dict of str to float or None
        The same on the training rows, if it was asked for.
    fit_time, score_time : float
        Seconds.
    error : str or None
        Traceback of a fit that failed.
    """

    test: Scores
    train: Scores | None
    fit_time: float
    score_time: float
    error: str | None = None

    @classmethod
    def read(cls, out: dict[str, Any]) -> FoldResult:
        """Read what scikit-learn's `_fit_and_score` returned for a fold."""
        error = out["fit_error"]
        return cls(
            _map_numbers(out["test_scores"], float),
            _map_numbers(out.get("train_scores"), float),
            float(out["fit_time"]),
            float(out["score_time"]),
            None if error is None else error[-_LONGEST_ERROR:],
        )

    def objective(self, metric: str | None) -> float:
        """Return the score to compare: of several, `metric` or else the first."""
        if isinstance(self.test, dict):
            return self.test[metric or next(iter(self.test))]
        return self.test

    def as_attribute(self) -> dict[str, Any]:
        """Return what a storage keeps: JSON, which has no NaN."""
        numbers = {**asdict(self), "error": None}
        kept = _map_numbers(numbers, lambda x: x if math.isfinite(x) else repr(x))
        return {**kept, "error": self.error}

    @classmethod
    def of_attribute(cls, kept: dict[str, Any]) -> FoldResult:
        """Read what a storage has kept."""
        numbers = {name: kept[name] for name in kept if name != "error"}
        return cls(**_map_numbers(numbers, float), error=kept["error"])


def folds_of(trial: FrozenTrial, n_folds: int) -> list[FoldResult | None]:
    """Return the results of a trial's folds, with None for those that never ran."""
    kept = [trial.user_attrs.get(f"{FOLD}{k}") for k in range(n_folds)]
    return [None if k is None else FoldResult.of_attribute(k) for k in kept]


def score_names(trials: Sequence[FrozenTrial]) -> list[str] | None:
    """Return the names of the scores, if folds have several: those of the first."""
    kept = (
        value["test"]
        for trial in trials
        for name, value in trial.user_attrs.items()
        if name.startswith(FOLD)
    )
    return next((list(scores) for scores in kept if isinstance(scores, dict)), None)


@dataclass(frozen=True)
class FoldFit:
    """A fold to evaluate.

    Parameters
    ----------
    number : int
        The trial, by its number.
    params : dict
        Its parameters.
    fold : int
        The fold, counted from 0.
    """

    number: int
    params: dict[str, Any]
    fold: int


@dataclass(kw_only=True, eq=False)
class FoldEvaluator:
    """Fits and scores trials on folds, as scikit-learn's searches do.

    Parameters
    ----------
    search : AdaLoraSearchCV
        What callbacks of scikit-learn are told to be fitting.
    sent : AdaLoraSearchCV
        What they are told in another process.
    X, y : object
        The rows and their targets.
    splits : list of pair of ndarray
        Training and test rows of each fold.
    scorer : callable
        Of one score or several.
    fit_params, score_params : dict
        What fits and scorers get beside the rows.
    parallel : joblib.Parallel
        Runs the fits.
    task : sklearn.callback.CallbackContext
        The task of the search.
    study : optuna.Study
        Has the names of several scores.
    """

    search: Any
    sent: Any
    X: Any
    y: Any
    splits: list[tuple[np.ndarray, np.ndarray]]
    scorer: Any
    fit_params: dict[str, Any]
    score_params: dict[str, Any]
    parallel: Parallel
    task: Any
    study: Study

    def __call__(self, fits: list[FoldFit]) -> list[FoldResult]:
        """Evaluate folds of some candidates."""
        search = self.search
        names = score_names(until_reached(self.study.get_trials, deepcopy=False))
        task = self.task.subcontext(
            task_name=_name_of(sorted({fit.fold for fit in fits}), len(self.splits)),
            max_subtasks=len(fits),
            sequential_subtasks=False,
        ).call_on_fit_task_begin(estimator=search)
        name = "candidate-split-evaluation"
        # Before the first is sent to a worker: sending copies the whole tree of tasks.
        tasks = [task.subcontext(task_name=name, task_id=k) for k in range(len(fits))]
        candidates = list(dict.fromkeys(fit.number for fit in fits))
        outs = self.parallel(
            delayed(_evaluate)(
                clone(search.estimator),
                self.X,
                self.y,
                scorer=self.scorer,
                train=self.splits[fit.fold][0],
                test=self.splits[fit.fold][1],
                parameters={**fit.params, **self._folders(fit)},
                fit_params=self.fit_params,
                score_params=self.score_params,
                return_train_score=search.return_train_score,
                return_times=True,
                split_progress=(fit.fold, len(self.splits)),
                candidate_progress=(candidates.index(fit.number), len(candidates)),
                error_score=search.error_score,
                verbose=search.verbose,
                caller=self.sent,
                callback_ctx=own,
            )
            for fit, own in zip(fits, tasks, strict=True)
        )
        results = [FoldResult.read(out) for out in outs]
        if callable(search.scoring):
            for place, result in enumerate(results):
                if isinstance(result.test, dict):
                    names = names or list(result.test)
                    results[place] = _in_order(result, names)
                    search._check_refit_for_multimetric(result.test)
        task.call_on_fit_task_end(estimator=search)
        return results

    def _folders(self, fit: FoldFit) -> dict[str, Path]:
        """Return folders of its own for the checkpoints of a fit, if it writes any.

        Another process finds them again, if this one is killed.
        """
        given = {**self.search.estimator.get_params(), **fit.params}
        own = f"{digest(fit.params)}-{fit.fold}"
        return {
            name: Path(os.path.expanduser(folder), own)
            for name, folder in given.items()
            if _is_folder(name) and folder is not None
        }


def _evaluate(*args: Any, **named: Any) -> dict[str, Any]:
    """Fit and score on a fold, in this process alone."""
    # Ranks that search together take different trials: none waits for another.
    with alone():
        out: dict[str, Any] = _fit_and_score(*args, **named)
    for name, value in named["parameters"].items():
        if _is_folder(name):  # a fit that failed has left its checkpoint
            remove_checkpoints(value)
    return out


def _is_folder(name: str) -> bool:
    """Tell whether a parameter is the folder of checkpoints of an estimator."""
    return name.rpartition("__")[2] == "checkpoint_dir"


def _in_order(result: FoldResult, names: list[str]) -> FoldResult:
    """Order the scores as the study's first: that may be the one to compare."""
    scores: dict[str, float] = result.test  # type: ignore[assignment]
    if not scores:
        raise ValueError(
            "`scoring` must return a score, or a dict of at least one. Got {}. "
            "Return what the search shall maximise."
        )
    if scores.keys() != set(names):
        raise ValueError(
            "`scoring` must return a dict of the same names for each fold. Got "
            f"{list(scores)} after {names}. Return NaN for a score that a fold "
            "does not have."
        )
    return replace(result, test={name: scores[name] for name in names})


def _map_numbers(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change what is not None, in nested dicts."""
    if isinstance(value, dict):
        return {str(key): _map_numbers(item, change) for key, item in value.items()}
    return None if value is None else change(value)


def _name_of(folds: list[int], n_folds: int) -> str:
    if len(folds) == 1:
        return f"fold {folds[0] + 1}"
    if len(folds) == n_folds:
        return "all folds"
    return f"folds {folds[0] + 1} to {folds[-1] + 1}"

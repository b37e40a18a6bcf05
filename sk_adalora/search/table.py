"""The results of folds: how trials store them, and the table that is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata

from .dimensions import Space
from .marks import ERROR, FOLD, is_feasible, is_over

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
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


@dataclass(frozen=True)
class TrialRow:
    """A trial that is over.

    Parameters
    ----------
    trial : FrozenTrial
        The trial.
    params : dict
        What `set_params` takes.
    folds : list of FoldResult or None
        Results of the folds, with None for those that never ran.
    """

    trial: FrozenTrial
    params: dict[str, Any]
    folds: list[FoldResult | None]

    @property
    def done(self) -> list[FoldResult]:
        """Results of the folds that ran."""
        return [fold for fold in self.folds if fold]

    @property
    def state(self) -> str:
        """The trial's state, in the words of the table."""
        state = _STATES[self.trial.state]
        infeasible = state == "complete" and not is_feasible(self.trial)
        return "infeasible" if infeasible else state

    @property
    def pruned_at_fold(self) -> int:
        """The last fold of a trial that was stopped, or -1."""
        return len(self.done) - 1 if self.state == "pruned" else -1

    def mean(self, metric: str | None) -> float:
        """Return the mean of the folds that ran."""
        if not self.done:
            return np.nan
        return float(np.mean([fold.objective(metric) for fold in self.done]))


@dataclass(frozen=True)
class TrialTable:
    """All trials of a study that are over, as scikit-learn's `_format_results` has it.

    Parameters
    ----------
    rows : list of TrialRow
        The trials, by number.
    metrics : list of str or None
        Names of the scores, when folds have several.
    """

    rows: list[TrialRow]
    metrics: list[str] | None

    def out(self, *, with_train: bool) -> list[dict[str, Any]]:
        """Return the results of all folds, trial by trial; NaN for what never ran."""
        out = []
        for result in (fold for row in self.rows for fold in row.folds):
            kept = {
                "test_scores": self._scores(result.test if result else None),
                "fit_time": result.fit_time if result else np.nan,
                "score_time": result.score_time if result else np.nan,
            }
            if with_train:
                kept["train_scores"] = self._scores(result.train if result else None)
            out.append(kept)
        return out

    def more(self, metric: str | None) -> dict[str, list[Any]]:
        """Return the columns that a grid search does not have.

        `metric` is the one of several that is compared.
        """
        return {
            "trial_number": [row.trial.number for row in self.rows],
            "state": [row.state for row in self.rows],
            "pruned_at_fold": [row.pruned_at_fold for row in self.rows],
            "running_mean": [row.mean(metric) for row in self.rows],
        }

    def compared(self, metric: str | None) -> str:
        """Return the name of the score to compare, as the columns have it."""
        return "score" if self.metrics is None else (metric or self.metrics[0])

    def correct(self, results: dict[str, Any]) -> None:
        """Correct what scikit-learn computed from missing folds, in place.

        Times are means over the folds that ran. What is not complete, or breaks a
        constraint, has no mean, and is ranked last.
        """
        for name in ("fit_time", "score_time"):
            times = [[getattr(f, name) for f in row.done] for row in self.rows]
            results[f"mean_{name}"] = np.array([np.mean(t or np.nan) for t in times])
            results[f"std_{name}"] = np.array([np.std(t or np.nan) for t in times])
        incomplete = [row.state != "complete" for row in self.rows]
        for name in self.metrics or ["score"]:
            for statistic in ("mean_test", "std_test", "mean_train", "std_train"):
                if f"{statistic}_{name}" in results:
                    results[f"{statistic}_{name}"][incomplete] = np.nan
            means = results[f"mean_test_{name}"]
            # As scikit-learn ranks, for which NaN is last; a score of -inf is not.
            scores = np.maximum(means, np.finfo(float).min)
            ranked = np.where(np.isnan(means), -np.inf, scores)
            ranks = rankdata(-ranked, method="min")
            results[f"rank_test_{name}"] = ranks.astype(np.int32)

    def first_error(self) -> str | None:
        """Return why the first trial that failed has failed."""
        errors = (row.trial.user_attrs.get(ERROR) for row in self.rows)
        return next((error for error in errors if error is not None), None)

    def scored_errors(self) -> list[str]:
        """Return why fits failed that have a number for a score all the same."""
        return [
            fold.error
            for row in self.rows
            for fold in row.done
            if fold.error is not None and row.state != "failed"
        ]

    def number_of_fits(self) -> int:
        """Return how many folds were evaluated."""
        return sum(len(row.done) for row in self.rows)

    def number_of(self, state: str) -> int:
        """Return how many trials are in a state."""
        return sum(row.state == state for row in self.rows)

    def _scores(self, scores: Scores | None) -> Scores:
        if self.metrics is None:
            return scores if isinstance(scores, Real) else np.nan
        if isinstance(scores, dict):
            return scores
        # A fit that failed before any metric's name was known has one number.
        value = np.nan if scores is None else scores
        return dict.fromkeys(self.metrics, value)


def make_table(trials: Sequence[FrozenTrial], space: Space, n_folds: int) -> TrialTable:
    """Collect the trials that are over and will not be tried again."""
    rows = [
        TrialRow(trial, _params_of(trial, space), _folds_of(trial, n_folds))
        for trial in trials
        if is_over(trial)
    ]
    return TrialTable(rows, _score_names([row.trial for row in rows]))


def in_one_order(
    results: list[FoldResult], trials: Sequence[FrozenTrial]
) -> list[FoldResult]:
    """Order the scores of a callable as the study's first: that may be compared."""
    named = [result.test for result in results if isinstance(result.test, dict)]
    names = _score_names(trials) or (list(named[0]) if named else [])
    for scores in named:
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
    return [
        replace(result, test={name: result.test[name] for name in names})
        if isinstance(result.test, dict)
        else result
        for result in results
    ]


def _score_names(trials: Sequence[FrozenTrial]) -> list[str] | None:
    """Return the names of the scores, if folds have several: those of the first."""
    kept = (
        value["test"]
        for trial in trials
        for name, value in trial.user_attrs.items()
        if name.startswith(FOLD)
    )
    return next((list(scores) for scores in kept if isinstance(scores, dict)), None)


def _folds_of(trial: FrozenTrial, n_folds: int) -> list[FoldResult | None]:
    """Return the results of a trial's folds."""
    kept = [trial.user_attrs.get(f"{FOLD}{k}") for k in range(n_folds)]
    return [None if k is None else FoldResult.of_attribute(k) for k in kept]


def _params_of(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """Return what `set_params` takes, or what a trial had drawn before it ended."""
    try:
        return space.complete(trial.params, trial.number)
    except ValueError:  # a function asks for what the trial never came to
        if trial.state is TrialState.COMPLETE:
            raise
        return dict(trial.params)


def check_best(table: TrialTable, trials: Sequence[FrozenTrial]) -> None:
    """Refuse a study in which no trial may be the best; say why the first failed."""
    complete = [row for row in table.rows if row.state == "complete"]
    errors = [fold.error for row in complete for fold in row.done]
    if complete and (None in errors or not errors):
        return
    if complete:
        raise ValueError(
            "At least one fit must succeed, or there is no best trial to refit. Got "
            f"{len(complete)} complete trials, all of whose fits failed. Correct what "
            f"the first of them failed with:\n{errors[0]}"
        )
    n_infeasible = table.number_of("infeasible")
    if n_infeasible:
        raise ValueError(
            "At least one complete trial must keep the constraints, or there is no "
            f"best trial to refit. Got {n_infeasible} complete trials, none of which "
            "does. Allow more trials or more time, or loosen the constraints."
        )
    running = sum(t.state is TrialState.RUNNING for t in trials)
    error = table.first_error()
    raise ValueError(
        "At least one trial must be complete, or there is no best trial to refit. Got "
        f"{table.number_of('failed')} failed, {table.number_of('pruned')} pruned and "
        f"{running} running ones. "
        + (
            f"Correct what the first of them failed with:\n{error}"
            if error
            else "Allow more trials or more time, or prune less."
        )
    )


def _map_numbers(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change what is not None, in nested dicts."""
    if isinstance(value, dict):
        return {str(key): _map_numbers(item, change) for key, item in value.items()}
    return None if value is None else change(value)

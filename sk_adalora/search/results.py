"""What a search found: its table, a summary, and warnings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata
from sklearn.exceptions import FitFailedWarning

from sk_adalora.runtime.messages import warn_user

from .dimensions import Space
from .folds import FoldResult, Scores, folds_of, score_names
from .study import ERROR, FIRST, is_feasible, is_over, place_of

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_INFEASIBLE = "infeasible"
# Characters of a value in the summary.
_LONGEST_VALUE = 60


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
        return _INFEASIBLE if infeasible else state

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
        The trials, by place.
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
    """Collect the trials that are over and will not be tried again.

    One that was tried again has the place of its first try: of equal scores, the first
    is the best, whatever was killed on the way.
    """
    rows = [
        TrialRow(trial, _params_of(trial, space), folds_of(trial, n_folds))
        for trial in sorted(trials, key=lambda trial: place_of(trial, trials))
        if is_over(trial)
    ]
    return TrialTable(rows, score_names([row.trial for row in rows]))


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
    n_infeasible = table.number_of(_INFEASIBLE)
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


def summarise(
    table: TrialTable, results: dict[str, Any], n_folds: int, metric: str | None
) -> str:
    """Describe the trials of a search, and the best of them, in several lines.

    `metric` is the one of several scores that is compared.
    """
    states = (*_STATES.values(), _INFEASIBLE)
    counted = {state: table.number_of(state) for state in states}
    told = ", ".join(f"{n} {state}" for state, n in counted.items() if n)
    name = table.compared(metric)
    best = results[f"rank_test_{name}"].argmin()
    row, mean = table.rows[best], results[f"mean_test_{name}"][best]
    end = ":" if row.params else "."
    trials = "1 trial" if len(table.rows) == 1 else f"{len(table.rows)} trials"
    width = max(map(len, row.params), default=0)
    return "\n".join(
        [
            f"{trials}: {told}.{_count_fits(table, n_folds)}",
            f"Best mean {name}: {mean:.4g}, of trial {row.trial.number}{end}",
            *(f"  {key:{width}}  {_show(row.params[key])}" for key in row.params),
        ]
    )


def _count_fits(table: TrialTable, n_folds: int) -> str:
    """Say how many fits there were, and how many more if no trial had ended early."""
    fits = table.number_of_fits()
    # Of settings that a function excludes: none.
    all_folds = n_folds * sum(bool(row.done) for row in table.rows)
    return f" {fits} fits" + (f" instead of {all_folds}." if fits < all_folds else ".")


def _show(value: Any) -> str:
    """Write a value of any kind in one line that is not too long."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def warn_of_unasked(queued: FrozenTrial, asked: Collection[str]) -> None:
    """Warn if a function as space has not asked a queued trial for all of its names."""
    point = queued.system_attrs.get("fixed_params", {})
    unasked = [repr(name) for name in point if name not in asked]
    if FIRST in queued.user_attrs and unasked:
        warn_user(
            "`enqueue` should name what `space` asks the trial for: other values are "
            f"left out. Got {', '.join(unasked)}, and trial {queued.number} was asked "
            f"for {', '.join(map(repr, asked)) or 'nothing'}. Take names from "
            "`study_.best_params`, and queue the choices that they depend on, too."
        )


def warn_of_failures(table: TrialTable) -> None:
    """Warn of trials that failed, and of fits that have `error_score` for a score."""
    failed, error = table.number_of("failed"), table.first_error()
    if failed:
        warn_user(
            f"{failed} of {len(table.rows)} trials failed and are left out."
            + (f" The first of them with:\n{error}" if error else ""),
            FitFailedWarning,
        )
    errors = table.scored_errors()
    if errors:
        warn_user(
            f"{len(errors)} of {table.number_of_fits()} fits failed and have "
            f"`error_score` for a score. The first of them with:\n{errors[0]}",
            FitFailedWarning,
        )

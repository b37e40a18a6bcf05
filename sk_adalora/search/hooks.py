"""Hooks of scikit-learn's search: Optuna proposes settings, and folds score them."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np
from joblib import effective_n_jobs
from optuna import Study
from optuna.samplers import GridSampler
from sklearn.base import clone
from sklearn.model_selection._search import BaseSearchCV

from sk_adalora.data.rows import refuse_name
from sk_adalora.runtime.messages import progress_bar, write_lines
from sk_adalora.runtime.rules import check_parameters
from sk_adalora.runtime.transaction import unchanged_on_error

from .dimensions import CalledSpace, Space
from .fingerprint import fingerprint
from .pruner import make_pruner
from .rules import SEARCH_RULES, check_rows
from .sampler import count_points, make_sampler
from .space import AdaLoraSpace, read_space
from .start import check_names, find_prefix, starting_points
from .storage import open_storage
from .study import (
    SearchStudy,
    bind,
    check_bound,
    handed_over,
    load_study,
    open_study,
    record_of,
    silent_optuna,
)
from .summary import summarise
from .table import FoldResult, TrialTable, check_best, in_one_order, make_table
from .trials import Evaluate, TrialRunner
from .warnings import warn_of_failures, warn_of_few_settings
from .workers import Worker

# The error of scikit-learn's if all fits failed, and the traceback in it.
_ALL_FAILED = re.compile(
    r"\s*All the \d+ fits failed.*?with the following error:\n(.*\S)", re.DOTALL
)


class _NothingEvaluated(Exception):
    """No trial was left to evaluate, and scikit-learn's `fit` cannot go on without."""


class _Folds:
    """Some of the folds, as a splitter. All trials get the same rows."""

    def __init__(self, splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.splits = splits

    def split(self, X: Any = None, y: Any = None, **params: Any) -> Iterator[Any]:
        """Yield training and test rows of each fold."""
        yield from self.splits


@dataclass(repr=False, eq=False)
class _Session:
    """What the hooks of scikit-learn's `fit` share, in the order in which it is set.

    What has no default has no value before its hook was called. `results` is filled in
    place: scikit-learn uses the object that `_format_results` returned last.
    """

    stored_only: bool
    verbose: int  # what the user set
    stack: ExitStack  # what ends with the fit
    # By `_get_routed_params_for_fit`: what `fit` got beside X and y, and for what part.
    fit_params: dict[str, Any] = field(init=False)
    routed: Any = field(init=False)
    # By `_check_input_parameters`.
    X: Any = field(init=False)
    y: Any = field(init=False)
    space: Space = field(init=False)
    splits: list[tuple[np.ndarray, np.ndarray]] = field(init=False)
    study: SearchStudy = field(init=False)
    worker: Worker | None = None  # None where stored trials are only read
    # By `_format_results` and `_make_results`.
    out: list[dict[str, Any]] = field(default_factory=list)
    table: TrialTable = field(init=False)
    results: dict[str, Any] = field(default_factory=dict)


# What only some fits set, depending on their scores and on `refit`.
_NOT_OF_EACH_FIT = {
    *("best_estimator_", "best_index_", "best_params_", "best_score_"),
    *("feature_names_in_", "refit_time_"),
}
# All that an earlier fit found, and the splitter. Neither `n_splits_`, which callbacks
# may look at, nor what a subclass has set for its scorer.
NOT_SENT = _NOT_OF_EACH_FIT | {
    *("cv_results_", "multimetric_", "scorer_", "trials_"),
    *("_study_record", "_checked_cv_orig"),
}


class SearchHooks(BaseSearchCV):
    """What `BaseSearchCV.fit` calls, so that Optuna proposes the candidates."""

    verbose: int
    study_: Study

    def _fit(
        self, X: Any, y: Any, params: dict[str, Any], *, stored_only: bool = False
    ) -> Self:
        check_parameters(self, SEARCH_RULES)
        refuse_name(y)
        with (
            unchanged_on_error(self),
            silent_optuna(),
            self._session(stored_only) as session,
        ):
            with suppress(_NothingEvaluated):
                super().fit(X, y, **params)
        warn_of_failures(session.table)
        return self

    @contextmanager
    def _session(self, stored_only: bool) -> Iterator[_Session]:
        """Hold the state that the hooks of scikit-learn's `fit` share, for one fit."""
        verbose = self.verbose
        with ExitStack() as stack:
            self._now = _Session(stored_only, verbose, stack)
            self.verbose = max(0, int(verbose) - 1)  # the first level is our bar
            try:
                yield self._now
            finally:
                self.verbose = verbose
                del self._now

    def _get_routed_params_for_fit(self, params: dict[str, Any]) -> Any:
        """Share out what `fit` got beside X and y: scikit-learn's hook."""
        self._now.fit_params = params
        self._now.routed = super()._get_routed_params_for_fit(params)
        return self._now.routed

    def _check_input_parameters(self, X: Any, y: Any, split_params: Any) -> None:
        """Open the study: scikit-learn's hook, before anything is evaluated."""
        now = self._now
        check_rows(X, "X")
        if y is not None:
            check_rows(y, "y")
        now.X, now.y, now.space = X, y, self._read_space()
        check_names(self.estimator, now.space)
        now.splits = list(self._checked_cv_orig.split(X, y, **split_params))
        if not now.splits:
            raise ValueError(
                f"`cv` must give at least one fold. Got {self.cv!r}, which gives none. "
                "Pass a list of folds: a generator gives them to one fit only."
            )
        # None is not passed on. Groups make the folds, which are compared themselves.
        passed = {**now.routed.estimator.fit, **now.routed.scorer.score}
        given = {
            name: value
            for name, value in now.fit_params.items()
            if value is not None and (name != "groups" or name in passed)
        }
        data = [X, y, given]
        scoring = [self.scoring, self._metric()]
        made_with = fingerprint(data, now.splits, now.space, scoring, self.estimator)
        if now.stored_only:
            now.study = load_study(open_storage(self.storage), self.study_name)
            check_bound(now.study, made_with)
        else:
            warn_of_few_settings(self._n_settings(now.space), self.n_trials)
            now.study = self._open_study(now.space, made_with)
            now.worker = self._join(now.study, now.space)

    def _open_study(self, space: Space, made_with: dict[str, Any]) -> SearchStudy:
        """Create the study, with what is tried first in line, or go on with it."""
        enqueue = self.enqueue
        if isinstance(enqueue, str) and isinstance(self.sampler, GridSampler):
            enqueue = None  # it has its own settings, and draws no others beside them
        points = starting_points(enqueue, self.estimator, space)
        storage = open_storage(self.storage)  # from here on, something is written
        study = open_study(
            storage,
            self.study_name,
            make_pruner(self.pruner),
            points,
            load_if_exists=self.load_if_exists,
        )
        bind(study, made_with)
        return study

    def _join(self, study: SearchStudy, space: Space) -> Worker:
        """Begin to work on a study, until the fit ends."""
        if self.storage is None:
            self._now.stack.enter_context(handed_over(study))
        worker = Worker(study, beats=self.storage is not None)
        self._now.stack.enter_context(worker)
        over = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
        study.sampler = make_sampler(
            self.sampler,
            space.distributions(),
            self.n_trials,
            self.random_state,
            [over] if worker.alone() else [over, int(worker.run_id, 16)],
        )
        return worker

    def _n_settings(self, space: Space) -> float:
        """Return after how many settings a search ends; infinity for never."""
        if self.sampler != "auto" or isinstance(space, CalledSpace):
            return math.inf
        return count_points(space.distributions())

    def _metric(self) -> str | None:
        """Return the one of several scores that the search maximises, if known yet."""
        if isinstance(self.refit, str):
            return self.refit
        if isinstance(self.scoring, list | tuple | dict):
            return next(iter(self.scoring), None)
        return None

    def _read_space(self) -> Space:
        space = AdaLoraSpace() if self.space is None else self.space
        prefix = self.prefix
        if prefix == "auto":
            named = isinstance(space, AdaLoraSpace)
            prefix = find_prefix(self.estimator) if named else ""
        return read_space(space, prefix)

    def _run_search(self, evaluate_candidates: Any, *, callback_ctx: Any) -> None:
        """Ask, evaluate and tell: scikit-learn's hook."""
        task = callback_ctx.subcontext(task_name="search", max_subtasks=None)
        task.call_on_fit_task_begin(estimator=self)
        if self._now.worker is not None:
            evaluate = partial(self._evaluate, evaluate_candidates, task)
            self._run_trials(self._now.worker, evaluate)
        self._make_results()
        task.call_on_fit_task_end(estimator=self)
        if not self._now.out:
            self._take_over(callback_ctx)
            raise _NothingEvaluated
        self._show_metrics()

    def _run_trials(self, worker: Worker, evaluate: Evaluate) -> None:
        """Evaluate trials until the study has enough of them."""
        now, n_settings = self._now, self._n_settings(self._now.space)
        total = int(min(self.n_trials, n_settings))
        with closing(progress_bar(total, now.verbose, "search", "trial")) as bar:
            runner = TrialRunner(
                study=now.study,
                space=now.space,
                worker=worker,
                n_trials=self.n_trials,
                finite=n_settings < math.inf,
                n_folds=len(now.splits),
                batch=effective_n_jobs(self.n_jobs),
                racing=self.pruner is not None,
                timeout=self.timeout,
                metric=self._metric(),
                callbacks=self.callbacks or (),
                bar=bar,
            )
            runner.run(evaluate)

    def _show_metrics(self) -> None:
        """Give the first result all metrics: scikit-learn reads their names there."""
        first, metrics = self._now.out[0], self._now.table.metrics
        if metrics is not None and not isinstance(first["test_scores"], dict):
            first["test_scores"] = dict.fromkeys(metrics, np.nan)  # its scorer failed

    def _evaluate(
        self, evaluate_candidates: Any, task: Any, params: Any, folds: list[int]
    ) -> list[list[FoldResult]]:
        """Fit and score trials on some folds, by scikit-learn."""
        splits = self._now.splits
        n_fits = len(params) * len(folds)
        part = task.subcontext(
            task_name=_name_of(folds, len(splits)),
            max_subtasks=n_fits,
            sequential_subtasks=False,
        ).call_on_fit_task_begin(estimator=self)
        self.n_splits_ = len(folds)
        began = time.monotonic()
        try:
            cv = _Folds([splits[k] for k in folds])
            evaluate_candidates(params, cv=cv, callback_ctx=part)
            results = [FoldResult.read(out) for out in self._now.out[-n_fits:]]
        except ValueError as error:
            failed = _ALL_FAILED.match(str(error))
            if self.error_score == "raise" or not failed:
                raise
            # How long each fit took is lost with the error: about so long.
            rounds = math.ceil(n_fits / effective_n_jobs(self.n_jobs))
            seconds = (time.monotonic() - began) / rounds
            out = {"test_scores": self.error_score, "fit_error": failed[1]}
            if self.return_train_score:
                out["train_scores"] = self.error_score
            out |= {"fit_time": seconds, "score_time": 0.0}
            results = [FoldResult.read(out)] * n_fits
        finally:
            self.n_splits_ = len(splits)
        part.call_on_fit_task_end(estimator=self)
        if callable(self.scoring):
            results = in_one_order(results, self._now.study.get_trials(deepcopy=False))
            for result in results:
                if isinstance(result.test, dict):
                    self._check_refit_for_multimetric(result.test)
        return [results[i : i + len(folds)] for i in range(0, n_fits, len(folds))]

    def _format_results(
        self, candidate_params: Any, n_splits: int, out: Any, more_results: Any = None
    ) -> dict[str, Any]:
        """Collect results of folds: scikit-learn's hook. The table is made later."""
        self._now.out = out
        return self._now.results

    def _make_results(self) -> None:
        """Turn the study into scikit-learn's table."""
        for name in _NOT_OF_EACH_FIT & vars(self).keys():
            delattr(self, name)  # of an earlier fit
        now, metric = self._now, self._metric()
        trials = now.study.get_trials(deepcopy=False)
        # Before the refit, after which the storage may be gone.
        self.study_, self.trials_ = now.study, trials
        self._study_record = record_of(now.study)
        now.table = table = make_table(trials, now.space, len(now.splits))
        check_best(table, trials)
        with warnings.catch_warnings():  # folds that never ran have no score
            warnings.filterwarnings("ignore", message=".*scores are non-finite")
            results = super()._format_results(
                [row.params for row in table.rows],
                len(now.splits),
                table.out(with_train=self.return_train_score),
                table.more(metric),
            )
        table.correct(results)
        now.results.update(results)
        if now.verbose:
            write_lines(summarise(table, results, len(now.splits), metric))

    def _select_best_index(self, refit: Any, refit_metric: str, results: Any) -> int:
        """Choose the row to refit: scikit-learn's hook, but of what may be the best."""
        index = int(super()._select_best_index(refit, refit_metric, results))
        row = self._now.table.rows[index]
        if row.state != "complete":
            raise ValueError(
                "`refit` must choose a complete trial. Got row "
                f"{index} of `cv_results_`, whose state is {row.state!r}. Choose among "
                "the rows with state 'complete': others have NaN for a mean score, "
                "which argmax takes for the largest and np.nanargmax leaves out."
            )
        return index

    def _take_over(self, context: Any) -> None:
        """End a fit in which nothing was evaluated, as `BaseSearchCV.fit` does.

        It cannot do so itself: it looks for the names of the scores in the first fit.
        """
        now = self._now
        results, names = now.results, now.table.metrics
        weight = now.fit_params.get("sample_weight")
        metadata = None if weight is None else {"sample_weight": weight}
        data = {"X": now.X, "y": now.y, "metadata": metadata}
        metric = "score"
        self.multimetric_ = names is not None
        if names is not None:
            self._check_refit_for_multimetric(names)
            metric = self.refit
        if self.refit or not self.multimetric_:
            self.best_index_ = self._select_best_index(self.refit, metric, results)
            if not callable(self.refit):
                self.best_score_ = results[f"mean_test_{metric}"][self.best_index_]
            self.best_params_ = results["params"][self.best_index_]
        if self.refit:
            self._refit_best(context, data)
        self.scorer_ = self._scorer_to_keep()
        self.cv_results_ = results
        context.call_on_fit_task_end(estimator=self, **data)

    def _refit_best(self, context: Any, data: dict[str, Any]) -> None:
        """Fit the best trial on all rows, as `BaseSearchCV.fit` does."""
        best = clone(self.best_params_, safe=False)
        self.best_estimator_ = clone(self.estimator).set_params(**best)
        rows = (data["X"],) if data["y"] is None else (data["X"], data["y"])
        task = context.subcontext(task_name="refit-with-best-params")
        with task.propagate_callback_context(self.best_estimator_):
            task.call_on_fit_task_begin(estimator=self, **data)
            start = time.time()
            self.best_estimator_.fit(*rows, **self._now.routed.estimator.fit)
            self.refit_time_ = time.time() - start
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_
        task.call_on_fit_task_end(estimator=self, **data)

    def _scorer_to_keep(self) -> Any:
        """Return what `score` uses: of several scorers, a dict."""
        scorers, _ = self._get_scorers()
        if callable(self.scoring):
            return scorers
        return getattr(scorers, "_scorers", scorers)


def _name_of(folds: list[int], n_folds: int) -> str:
    if len(folds) == 1:
        return f"fold {folds[0] + 1}"
    if len(folds) == n_folds:
        return "all folds"
    return f"folds {folds[0] + 1} to {folds[-1] + 1}"

"""A search that asks Optuna for trials, and leaves ranks and refit to scikit-learn."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from joblib import effective_n_jobs
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._conduct import Conductor, Plan
from ._doc_links import DocLinkMixin
from ._enqueue import check_names, find_prefix, starting_points
from ._fingerprint import fingerprint
from ._messages import warn_user
from ._parameters import check_parameters
from ._racing import make_pruner, make_sampler
from ._search_rules import SEARCH_RULES
from ._space import AdaLoraSpace, CalledSpace, DeclaredSpace, read_space
from ._study import (
    FINGERPRINT,
    SearchStudy,
    bind,
    in_memory,
    load_study,
    open_storage,
    open_study,
    queue,
    quiet,
    record_of,
)
from ._transaction import CALLBACKS, unchanged_on_error
from ._trial_plot import draw_trials, trial_curves
from ._trial_table import (
    FoldResult,
    TrialTable,
    cause,
    check_complete,
    check_values,
    make_table,
)
from ._workers import Worker

# Of a database, up to the last "@" of its URL, and in the query of one.
_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S+(?=@)|([?&;]password=)[^&\s'\"]+")
_ALL_FAILED = re.compile(r"\s*All the \d+ fits failed")


class _NothingEvaluated(Exception):
    """All trials were there: scikit-learn, which wants a result, stops here."""


class _Folds:
    """Some of the folds, as a splitter. All trials get the same rows."""

    def __init__(self, splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.splits = splits

    def split(self, X: Any = None, y: Any = None, **params: Any) -> Iterator[Any]:
        """Yield training and test rows of each fold."""
        yield from self.splits


@dataclass
class _Session:
    """What a fit needs while it runs.

    `results` is filled in place: scikit-learn takes the object that it got last.
    """

    metadata: dict[str, Any]
    stack: ExitStack
    verbose: int
    stored_only: bool
    context: Any = None  # of scikit-learn's callbacks
    rows: tuple[Any, Any] = (None, None)
    study: Any = None
    space: Any = None
    worker: Any = None
    splits: list[Any] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    out: list[dict[str, Any]] = field(default_factory=list)
    table: TrialTable | None = None


class AdaLoraSearchCV(DocLinkMixin, BaseSearchCV):
    """Search the parameters of an AdaLora estimator with Optuna and cross-validation.

    Optuna proposes parameters and says which trials are not worth their remaining
    folds. Everything else is scikit-learn's, as in `GridSearchCV`: folds, scoring,
    ranks, refit, parallel work, metadata routing and callbacks.

    Parameters
    ----------
    estimator : estimator
        What is searched: an AdaLora estimator, or a pipeline or other composite that
        holds one.
    space : AdaLoraSpace, dict, callable or None, default=None
        What may be tried. None stands for ``AdaLoraSpace()``. A dict has names that
        `set_params` takes, and as values Optuna's distributions, tuples (low, high),
        lists of choices, fixed values, or an `AdaLoraSpace` under the name of its
        step. A callable gets the trial and returns a dict for `set_params`. It is
        called again for each trial when the table is made, and must return the same
        then: it may go by what it suggests and by `trial.number`, and by nothing else.
    prefix : str, default="auto"
        What stands before the names of an `AdaLoraSpace`, such as ``"clf__"``. "auto"
        finds the AdaLora estimator by itself.
    n_trials : int, default=30
        Trials of the study in all: those of earlier runs and of other processes count.
    timeout : float or None, default=None
        Seconds after which no further trial begins. One trial is always evaluated.
    sampler : "auto" or BaseSampler, default="auto"
        What proposes parameters. "auto" is a Gaussian process if all of them are
        numbers and `n_trials` is at most 100, else TPE.
    pruner : "auto", BasePruner or None, default="auto"
        With a pruner, trials race: they are evaluated fold by fold, the mean so far
        is reported after each (step 0 is after the first), and the pruner may stop
        them. "auto" stops what is behind the best complete trial, on the folds that
        both have seen, by more than half a standard error, once three are complete.
        None evaluates all folds.
    storage : str, path-like, BaseStorage or None, default=None
        Where the study is kept: the URL of a database ("postgresql://...",
        "sqlite:///..."), a path of a journal file, or a storage of Optuna's. None
        stands for memory. Several processes may work on one study.
    study_name : str or None, default=None
        Name of the study, by which it is resumed. None stands for a new study.
    load_if_exists : bool, default=True
        Whether to go on with a study of that name.
    enqueue : "paper", dict, list of dict or None, default="paper"
        What is tried first in a new study. "paper" is the estimator as it is, whose
        defaults are the paper's, moved into the ranges where it is outside.
    callbacks : list of callable or None, default=None
        Called as ``callback(study, trial)`` after each trial, as by Optuna.
        ``study.stop()`` ends the search.
    scoring : str, callable, list, tuple, dict or None, default=None
        How folds are scored, as in `GridSearchCV`. Of several scores, the search
        maximises the one that `refit` names, or else the first.
    n_jobs : int or None, default=None
        Fits at once, and trials that are asked for at once. None stands for 1, unless
        joblib is configured. Each worker has a pretrained model: on one GPU, leave it.
    refit : bool, str or callable, default=True
        Whether, or by which score, to refit the best trial on all rows. A function
        gets `cv_results_` and returns the row of a complete trial; others have NaN
        for a mean score.
    cv : int, splitter, iterable or None, default=None
        Folds. None stands for 5. All trials get the same.
    error_score : float or "raise", default=np.nan
        Score of a fold that fails. A trial with NaN in a fold is a failed one.
    return_train_score : bool, default=False
        Whether to score the training rows of each fold too.
    random_state : int, RandomState instance or None, default=None
        Seed of the automatic sampler. Processes that work on one study at the same
        time draw different parameters whatever the seed.
    verbose : int, default=0
        1 shows a bar of trials; more also makes scikit-learn print.

    Attributes
    ----------
    best_estimator_ : estimator
        The best trial's, refitted on all rows. Only with `refit`.
    best_params_ : dict
        Parameters of the best complete trial.
    best_score_ : float
        Its mean score over the folds.
    best_index_ : int
        Its row in `cv_results_`.
    cv_results_ : dict of str to ndarray of shape (n_trials,)
        A row for each trial of the study that is over, whichever process evaluated
        it. Beside what `GridSearchCV` has: `trial_number`; `state` ("complete",
        "pruned" or "failed"); `pruned_at_fold`, counted from 0, or -1;
        `running_mean` over the folds that a trial saw. Mean scores of trials that
        are not complete are NaN.
    study_ : optuna.Study
        The study. In an unpickled search, a copy in memory.
    trials_ : list of FrozenTrial
        The study's trials when `fit` ended, by number.
    n_splits_ : int
        Number of folds.
    scorer_ : callable or dict
        What scored.
    multimetric_ : bool
        Whether there are several scores.
    refit_time_ : float
        Seconds of the refit.
    classes_ : ndarray of shape (n_classes,)
        Classes of a refitted classifier.
    n_features_in_ : int
        Columns that the refit saw.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if they have any.

    See Also
    --------
    AdaLoraSpace : What may be tried.
    suggest_params : For an objective of your own.

    Notes
    -----
    A study is bound to its rows, folds, space, scoring and estimator by hashes; to go
    on with it with something else is an error. A trial of a process that died is
    queued again: at once if that was on the same machine, else after ten minutes
    without a sign of life. Parameters over which three processes have died are not.

    Pickles of a fitted search hold no storage, whose URL may have a password in it,
    and no callbacks.

    Examples
    --------
    >>> import optuna
    >>> from sk_adalora import AdaLoraClassifier, AdaLoraSearchCV, AdaLoraSpace
    >>> space = AdaLoraSpace(init_r=[8, 16], target_r=0.5, learning_rate=(1e-3, 1e-2))
    >>> search = AdaLoraSearchCV(AdaLoraClassifier(), space, n_trials=20, cv=3)
    >>> search.fit(texts, labels)  # doctest: +SKIP
    >>> search.best_params_["learning_rate"]  # doctest: +SKIP
    0.0061
    """

    # What scikit-learn's constructor would set: no parameter of ours.
    pre_dispatch = "2*n_jobs"

    def __init__(
        self,
        estimator: Any,
        space: Any = None,
        *,
        prefix: str = "auto",
        n_trials: int = 30,
        timeout: float | None = None,
        sampler: Any = "auto",
        pruner: Any = "auto",
        storage: Any = None,
        study_name: str | None = None,
        load_if_exists: bool = True,
        enqueue: Any = "paper",
        callbacks: Any = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.space = space
        self.prefix = prefix
        self.n_trials = n_trials
        self.timeout = timeout
        self.sampler = sampler
        self.pruner = pruner
        self.storage = storage
        self.study_name = study_name
        self.load_if_exists = load_if_exists
        self.enqueue = enqueue
        self.callbacks = callbacks
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.refit = refit
        self.cv = cv
        self.error_score = error_score
        self.return_train_score = return_train_score
        self.random_state = random_state
        self.verbose = verbose

    # ---- fit ----------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, **params: Any) -> AdaLoraSearchCV:
        """Search, and refit the best trial.

        Parameters
        ----------
        X : sequence, array or table of shape (n_samples,) or (n_samples, n_columns)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets.
        **params : dict
            `groups` for the splitter, and what the estimator's `fit` takes: values of
            one a row are split like X.

        Returns
        -------
        AdaLoraSearchCV
            Itself.

        Raises
        ------
        ValueError
            If a parameter, the space or the study does not fit, or if no trial is
            complete.
        """
        return self._fit(X, y, params)

    @classmethod
    def from_study(
        cls,
        study: Any,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        space: Any = None,
        storage: Any = None,
        fit_params: dict[str, Any] | None = None,
        **options: Any,
    ) -> AdaLoraSearchCV:
        """Make a fitted search of a study's trials, and refit the best of them.

        Nothing is evaluated. The study may be that of worker processes with
        ``refit=False``, or one of an objective of your own that used
        :func:`suggest_params`.

        Parameters
        ----------
        study : str or optuna.Study
            The study, or its name in `storage`.
        estimator : estimator
            As for the search.
        X : sequence, array or table of shape (n_samples,) or (n_samples, n_columns)
            The rows that were searched with.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their targets.
        space : AdaLoraSpace, dict, callable or None, default=None
            As for the search.
        storage : str, path-like, BaseStorage or None, default=None
            Where the study is, if `study` is a name.
        fit_params : dict or None, default=None
            What `fit` got beside X and y.
        **options : dict
            Other parameters of the search: `cv` and `scoring` as they were.

        Returns
        -------
        AdaLoraSearchCV
            Fitted.

        Raises
        ------
        ValueError
            If there is no such study or no complete trial in it, or if it was made
            with something else.
        """
        if isinstance(study, optuna.Study):
            trials = study.get_trials(deepcopy=False)
            if study.directions != [optuna.study.StudyDirection.MAXIMIZE]:
                raise ValueError(
                    "`study` must have one value, of which more is better. Got "
                    f"{study.directions}. Choose another study."
                )
            name, storage = study.study_name, InMemoryStorage()
            in_memory(trials, *record_of(study), storage)
        else:
            name = study
        search = cls(estimator, space, storage=storage, study_name=name, **options)
        return search._fit(X, y, fit_params or {}, stored_only=True)

    def _fit(
        self, X: Any, y: Any, params: dict[str, Any], *, stored_only: bool = False
    ) -> AdaLoraSearchCV:
        check_parameters(self, SEARCH_RULES)
        with unchanged_on_error(self), self._session(params, stored_only) as session:
            with suppress(_NothingEvaluated):
                super().fit(X, y, **params)
        self._warn_of_failures(session.table)
        return self

    @contextmanager
    def _session(self, params: dict[str, Any], stored_only: bool) -> Iterator[_Session]:
        """Hold what the hooks of scikit-learn's `fit` share, and end it."""
        verbose = self.verbose
        with quiet(), ExitStack() as stack:
            self._now = _Session(params, stack, verbose, stored_only)
            self.verbose = max(0, int(verbose) - 1)  # the first level is our bar
            try:
                yield self._now
            finally:
                self.verbose = verbose
                del self._now

    def _check_input_parameters(self, X: Any, y: Any, split_params: Any) -> None:
        """Open the study: scikit-learn's hook, before anything is evaluated."""
        now = self._now
        now.rows = X, y
        now.space = self._read_space()
        check_names(self.estimator, now.space)
        now.splits = list(self._checked_cv_orig.split(X, y, **split_params))
        data = [X, y, {k: v for k, v in now.metadata.items() if k != "groups"}]
        scoring = [self.scoring, self._metric()]
        made_with = fingerprint(data, now.splits, now.space, scoring, self.estimator)
        storage = open_storage(self.storage)
        if now.stored_only:
            now.study = load_study(storage, self.study_name)
            if FINGERPRINT in now.study.user_attrs:
                bind(now.study, made_with)
            else:
                check_values(now.study.get_trials(deepcopy=False), now.space)
            return
        points = starting_points(self.enqueue, self.estimator, now.space)
        now.study, created = open_study(
            storage,
            self.study_name,
            self._make_sampler(now.space),
            make_pruner(self.pruner),
            load_if_exists=self.load_if_exists,
        )
        if created:  # of several workers that begin at once, only one
            queue(now.study, points)
        bind(now.study, made_with)
        now.worker = Worker(now.study, beats=self.storage is not None)
        now.stack.enter_context(now.worker)
        self._reseed(now.study, now.worker)

    def _metric(self) -> str | None:
        """Return the one of several scores that the search maximises, if known yet."""
        if isinstance(self.refit, str):
            return self.refit
        if isinstance(self.scoring, list | tuple | dict):
            return next(iter(self.scoring), None)
        return None

    def _read_space(self) -> DeclaredSpace | CalledSpace:
        space = AdaLoraSpace() if self.space is None else self.space
        prefix = self.prefix
        if prefix == "auto":
            named = isinstance(space, AdaLoraSpace)
            prefix = find_prefix(self.estimator) if named else ""
        return read_space(space, prefix)

    def _make_sampler(self, space: DeclaredSpace | CalledSpace) -> BaseSampler:
        seed = self._seed()
        return make_sampler(self.sampler, space.distributions(), self.n_trials, seed)

    def _seed(self) -> int | None:
        if self.random_state is None:
            return None
        return int(check_random_state(self.random_state).randint(2**31))

    def _reseed(self, study: SearchStudy, worker: Worker) -> None:
        """Draw other parameters than runs before this one and beside it."""
        if self.sampler != "auto" or self.random_state is None:
            return
        over = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
        entropy = [over] if worker.alone() else [over, int(worker.run, 16)]
        if entropy != [0]:
            words = np.random.SeedSequence([self._seed(), *entropy]).generate_state(1)
            study.sampler = make_sampler(
                "auto",
                self._now.space.distributions(),
                self.n_trials,
                int(words[0]) % 2**31,
            )

    def _run_search(self, evaluate_candidates: Any, *, callback_ctx: Any) -> None:
        """Ask, evaluate and tell: scikit-learn's hook."""
        from tqdm.auto import tqdm

        now = self._now
        now.context = callback_ctx
        metric = self._metric()
        task = callback_ctx.subcontext(task_name="search", max_subtasks=None)
        task.call_on_fit_task_begin(estimator=self)
        if not now.stored_only:
            plan = Plan(
                self.n_trials,
                len(now.splits),
                effective_n_jobs(self.n_jobs),
                self.pruner is not None,
                self.timeout,
                metric,
            )
            with tqdm(
                total=self.n_trials,
                disable=not now.verbose,
                desc="search",
                unit="trial",
            ) as bar:
                parts = (now.study, now.space, plan, now.worker)
                conductor = Conductor(*parts, self.callbacks or (), bar)
                conductor.run(
                    lambda params, folds: self._evaluate(
                        evaluate_candidates, params, folds, task
                    )
                )
        self._make_results(metric)
        task.call_on_fit_task_end(estimator=self)
        if not now.out:
            self._take_over()
            raise _NothingEvaluated

    def _evaluate(
        self, evaluate_candidates: Any, params: Any, folds: list[int], task: Any
    ) -> list[list[FoldResult]]:
        """Fit and score trials on some folds, by scikit-learn."""
        now = self._now
        n_fits = len(params) * len(folds)
        part = task.subcontext(
            task_name=f"fold {folds[0] + 1}" if len(folds) == 1 else "all folds",
            max_subtasks=n_fits,
            sequential_subtasks=False,
        ).call_on_fit_task_begin(estimator=self)
        self.n_splits_ = len(folds)
        try:
            cv = _Folds([now.splits[k] for k in folds])
            evaluate_candidates(params, cv=cv, callback_ctx=part)
            results = [FoldResult.read(out) for out in now.out[-n_fits:]]
        except ValueError as error:
            if self.error_score == "raise" or not _ALL_FAILED.match(str(error)):
                raise
            score = float(self.error_score)
            nothing = FoldResult(score, None, 0.0, 0.0, cause(str(error)))
            results = [nothing] * n_fits
        finally:
            self.n_splits_ = len(now.splits)
        part.call_on_fit_task_end(estimator=self)
        for result in results:
            if isinstance(result.test, dict) and callable(self.scoring):
                self._check_refit_for_multimetric(result.test)
        return [results[i : i + len(folds)] for i in range(0, n_fits, len(folds))]

    def _format_results(
        self, candidate_params: Any, n_splits: int, out: Any, more_results: Any = None
    ) -> dict[str, Any]:
        """Take the results of folds over; the table is made when all are there."""
        self._now.out = out
        return self._now.results

    def _make_results(self, metric: str | None) -> None:
        """Turn the study into scikit-learn's table."""
        now = self._now
        trials = now.study.get_trials(deepcopy=False)
        # Before the refit, after which the storage may be gone.
        self.study_, self.trials_ = now.study, trials
        self._study_record = record_of(now.study)
        table = now.table = make_table(trials, now.space, len(now.splits))
        check_complete(table, trials)
        with warnings.catch_warnings():  # folds that never ran have no score
            warnings.filterwarnings("ignore", message=".*scores are non-finite")
            results = super()._format_results(
                table.params,
                len(now.splits),
                table.out(with_train=self.return_train_score),
                table.more(metric),
            )
        table.finish(results, metric)
        now.results.update(results)

    @staticmethod
    def _select_best_index(refit: Any, refit_metric: str, results: Any) -> int:
        """Choose the row to refit: scikit-learn's hook, but of complete trials only."""
        index = BaseSearchCV._select_best_index(refit, refit_metric, results)
        state = str(results["state"][index])
        if state != "complete":
            raise ValueError(
                "`refit` must choose a complete trial. Got row "
                f"{index} of `cv_results_`, whose state is {state!r}. Choose among the "
                "rows with state 'complete': others have NaN for a mean score, which "
                "argmax takes for the largest and np.nanargmax leaves out."
            )
        return int(index)

    def _warn_of_failures(self, table: TrialTable) -> None:
        failed = table.number_of("failed")
        if failed:
            warn_user(
                f"{failed} of {len(table.trials)} trials failed and are left out. The "
                f"first of them with:\n{table.first_error()}",
                FitFailedWarning,
            )

    def _take_over(self) -> None:
        """End a fit in which nothing was evaluated, as scikit-learn would."""
        now, metric = self._now, "score"
        (X, y), params = now.rows, now.metadata
        results, names = now.results, now.table.metrics
        weight = params.get("sample_weight")
        metadata = None if weight is None else {"sample_weight": weight}
        data = {"X": X, "y": y, "metadata": metadata}
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
            best = clone(self.best_params_, safe=False)
            self.best_estimator_ = clone(self.estimator).set_params(**best)
            rows = (X,) if y is None else (X, y)
            routed = self._get_routed_params_for_fit(params)
            task = now.context.subcontext(task_name="refit-with-best-params")
            with task.propagate_callback_context(self.best_estimator_):
                task.call_on_fit_task_begin(estimator=self, **data)
                start = time.time()
                self.best_estimator_.fit(*rows, **routed.estimator.fit)
                self.refit_time_ = time.time() - start
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
            task.call_on_fit_task_end(estimator=self, **data)
        scorers, _ = self._get_scorers()
        scorers = getattr(scorers, "_scorers", scorers)
        if isinstance(scorers, dict) and not self.multimetric_:
            scorers = scorers[self._metric()]  # of trials that have a value only
        self.scorer_ = scorers
        self.cv_results_ = results
        now.context.call_on_fit_task_end(estimator=self, **data)

    # ---- after fit ----------------------------------------------------------

    def plot_trials(self, ax: Any = None) -> np.ndarray:
        """Draw the trials, the running best, and which parameters mattered.

        Parameters
        ----------
        ax : Axes, pair of Axes or None, default=None
            Where to draw. None stands for a new figure. On one Axes, importances are
            left out.

        Returns
        -------
        ndarray of Axes
            What was drawn on.

        Raises
        ------
        ImportError
            If matplotlib is not installed: the extra `plot` has it.
        NotFittedError
            If it was not fitted.
        """
        check_is_fitted(self, "study_")
        return draw_trials(trial_curves(self.study_, self.trials_), ax)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled.

        Never of a fitted search, nor of one that sends its fits to workers: the
        storage and the live study, which hold the URL of a database and its password;
        callbacks, Optuna's and scikit-learn's. Nor, of one that sends its fits to
        workers: what only the search itself uses. Always: the other parameters, the
        trials, the table and the refitted estimator. An unfitted search keeps its
        storage, for a worker to use it.
        """
        state = dict(super().__getstate__())
        running = state.pop("_now", None)
        fitted = state.pop("study_", None) is not None
        if fitted or running is not None:
            state |= dict.fromkeys(("storage", "callbacks"))
        if running is not None:
            state |= dict.fromkeys(("space", "sampler", "pruner", "enqueue"))
        if fitted and running is None:
            for name in CALLBACKS:
                state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_study_record" in state:
            for trial in self.trials_:  # skops writes an IntEnum as an int
                trial.state = TrialState(trial.state)
            self.study_ = in_memory(self.trials_, *self._study_record)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        return _PASSWORD.sub(r"\1\2***", super().__repr__(N_CHAR_MAX))

    def _html_repr(self) -> str:
        return _PASSWORD.sub(r"\1\2***", super()._html_repr())

"""AdaLoraSearchCV: its parameters, its fit, and what is pickled of it."""

from __future__ import annotations

import time
import warnings
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import optuna
from joblib import Parallel, effective_n_jobs
from optuna.samplers import BaseSampler, GridSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import indexable
from sklearn.utils.validation import _check_method_params

from sk_adalora.data.rows import refuse_name
from sk_adalora.estimators.base import with_callbacks
from sk_adalora.runtime.doc_links import LINK_TEMPLATE
from sk_adalora.runtime.messages import progress_bar, write_lines
from sk_adalora.runtime.ranks import alone
from sk_adalora.runtime.rules import check_parameters, defaults_of
from sk_adalora.runtime.transaction import CALLBACKS, unchanged_on_error

from .dimensions import CalledSpace, Space
from .fingerprint import fingerprint
from .folds import FoldEvaluator
from .pruner import make_pruner
from .results import (
    TrialTable,
    check_best,
    make_table,
    summarise,
    warn_of_failures,
)
from .sampler import count_points, make_sampler
from .space import AdaLoraSpace, read_space
from .start import (
    SEARCH_RULES,
    check_names,
    check_rows,
    find_prefix,
    starting_points,
)
from .storage import StorageURL, open_storage, until_reached
from .study import (
    SearchStudy,
    bind,
    check_bound,
    check_directions,
    in_memory,
    load_study,
    open_study,
    record_of,
    resumable,
    silent_optuna,
)
from .trials import TrialRunner

# What a fit finds, some of it depending on the scores and on `refit`.
_FOUND = {
    *("best_estimator_", "best_index_", "best_params_", "best_score_"),
    *("cv_results_", "feature_names_in_", "multimetric_", "refit_time_", "scorer_"),
    *("study_", "trials_", "_study_record"),
}
# Parameters that stay in the process of the search.
_NOT_SENT = ("storage", "callbacks", "space", "sampler", "pruner", "enqueue", "cv")


@dataclass(kw_only=True, eq=False)
class _Data:
    """What a search is fitted to, and how its folds are scored.

    Parameters
    ----------
    X, y : object
        The rows and their targets.
    params : dict
        What `fit` got beside them.
    routed : Bunch
        The same, for the estimator, the scorer and the splitter.
    scorer : callable
        Of one score or several.
    splits : list of pair of ndarray
        Training and test rows of each fold.
    """

    X: Any
    y: Any
    params: dict[str, Any]
    routed: Any
    scorer: Any
    splits: list[tuple[np.ndarray, np.ndarray]]

    def told(self) -> dict[str, Any]:
        """Return what callbacks of scikit-learn are told."""
        weight = self.params.get("sample_weight")
        metadata = None if weight is None else {"sample_weight": weight}
        return {"X": self.X, "y": self.y, "metadata": metadata}

    def compared(self) -> list[Any]:
        """Return what a study must go on with. None is not passed on.

        Groups make the folds, which are compared themselves.
        """
        passed = {**self.routed.estimator.fit, **self.routed.scorer.score}
        given = {
            name: value
            for name, value in self.params.items()
            if value is not None and (name != "groups" or name in passed)
        }
        return [self.X, self.y, given]


class AdaLoraSearchCV(BaseSearchCV):
    """Search the parameters of an AdaLora estimator with Optuna and cross-validation.

    Optuna proposes parameters, and says which trials are not worth their remaining
    folds. Everything else is scikit-learn's, as in `GridSearchCV`: folds, scoring,
    ranks, refit, parallel work, metadata routing and callbacks.

    Parameters
    ----------
    estimator : estimator
        The AdaLora estimator whose parameters are searched, or a pipeline or other
        composite that holds one.
    space : AdaLoraSpace, dict, callable or None, default=None
        The parameters and values that may be tried. None stands for ``AdaLoraSpace()``.
        A dict has names that `set_params` takes. Its values are Optuna's distributions,
        tuples (low, high) on a linear scale (of two ints: whole numbers), lists or
        one-dimensional arrays of choices, fixed values, or an `AdaLoraSpace` under the
        name of its step. A full name overrides that space, wherever it stands; that of
        `beta2` also unties it from `beta1`. A function gets the trial and returns a
        dict for `set_params`. It is called again for each trial when the table is made,
        and must then return the same: it may depend on what it suggests and on
        `trial.number`, and on nothing else.
    prefix : str, default="auto"
        What stands before the names of an `AdaLoraSpace`, such as ``"clf__"``. "auto"
        finds the AdaLora estimator by itself.
    n_trials : int, default=30
        Number of trials that the study has in the end. Those of earlier runs and of
        other processes count; processes that ask at the same moment may make one more
        each. If the space has fewer settings, the automatic sampler
        tries each once, and the search ends.
    timeout : float or None, default=None
        Seconds after which no further trial begins; one is always evaluated. None does
        not limit the time.
    sampler : "auto" or BaseSampler, default="auto"
        The sampler of Optuna's that proposes parameters. "auto" is a `TPESampler`; but
        without a `pruner`, for up to 100 trials of numbers alone, a `GPSampler`, which
        learns from complete trials only. A trial that breaks a constraint, such as one
        of TPE's `constraints_func`, is never the best.
    pruner : "auto", BasePruner or None, default="auto"
        What stops poor trials before their last fold. With a pruner, trials are
        evaluated fold by fold, and report their mean so far after each (step 0 is after
        the first). "auto" stops a trial that is behind the best complete one by more
        than half a standard error, on the folds that both have seen, once three trials
        are complete. None evaluates all folds. Optuna's `WilcoxonPruner` expects single
        scores, and stops good trials too often.
    storage : str, path-like, BaseStorage or None, default=None
        Where the study is kept, so that a search can be resumed and several processes
        can share it: the URL of a database ("postgresql://...", "sqlite:///..."), the
        path of a journal file, or a storage of Optuna's. None keeps it in memory.
    study_name : str or None, default=None
        Name by which the study is resumed. None makes a new study.
    load_if_exists : bool, default=True
        Whether to go on with a study of that name. If False, it is an error that there
        is one.
    enqueue : "paper", dict, list of dict or None, default="paper"
        The settings that a study tries first, if the search creates it. "paper" is the
        estimator as it is, as far as the space allows. A number outside its range is
        moved to the nearest one inside, `target_r` is turned into a share of `init_r`
        or back, and None for `init_r` into the number that it stands for. What the
        space cannot express is drawn: a value that is none of the choices, None of
        another parameter where the space has numbers, or steps where it has shares. If
        the space is a function, or `sampler` a `GridSampler`, "paper" adds nothing. A
        dict has full names and values of the space, as `best_params_` has; fixed and
        tied parameters may be in it, with the values that they have there. Other names
        are an error. For a function, it has names that this asks the trial for, as
        `study_.best_params` has, and a warning says which others were left out. What is
        not named is drawn (a `GridSampler` needs all names).
    callbacks : list of callable or None, default=None
        Functions that are called as ``callback(study, trial)`` after each trial, as by
        Optuna. ``study.stop()`` ends the search. For callbacks of scikit-learn, use
        `set_callbacks`.
    scoring : str, callable, list, tuple, dict or None, default=None
        How folds are scored, as in `GridSearchCV`. With several scores, the search
        maximises the one that `refit` names, or otherwise the first.
    n_jobs : int or None, default=None
        How many fits run at once, and how many trials are asked for at once. None
        stands for 1, unless joblib is configured. Each worker holds a pretrained model,
        so keep None on a single GPU.
    refit : bool, str or callable, default=True
        Whether to refit the best trial on all rows; a str names the score that decides.
        A function gets `cv_results_` and returns the row of a complete trial. Trials
        that cannot be chosen have NaN for a mean score there.
    cv : int, splitter, iterable or None, default=None
        How rows are split into folds, as in `GridSearchCV`. None stands for 5 folds.
        All trials get the same.
    error_score : float or "raise", default=np.nan
        Score of a fold that fails. A trial with NaN in a fold counts as failed. A
        number counts as a score like any other, and should be a little below all
        scores; a warning says how many fits failed. If all did, that is an error.
        "raise" raises the error of the fit.
    return_train_score : bool, default=False
        Whether to score the training rows of each fold too. Trials that the study holds
        already, evaluated without that, have NaN there.
    random_state : int, RandomState instance or None, default=None
        Seed of the automatic sampler. None draws one from NumPy's global generator.
        Each trial has a seed of its own, made of this one and the trial's number: a
        study that goes on draws what it would have drawn without a break, and processes
        that share a seed draw different settings. From the eleventh trial on, what is
        drawn also depends on `n_jobs`, as trials that run together do not learn from
        each other. A `sampler` of yours is seeded anew in all processes but the first.
    verbose : int, default=0
        1 shows a bar of trials and, at its end, how many trials and fits there were and
        what the best one has; more also makes scikit-learn print.

    Attributes
    ----------
    best_estimator_ : estimator
        The estimator with the best parameters, refitted on all rows. Only with `refit`.
    best_params_ : dict
        The parameters of the best complete trial. Not with several scores and
        ``refit=False``, as the next two.
    best_score_ : float
        Its mean score over the folds. Not if `refit` is a function.
    best_index_ : int
        Its row in `cv_results_`.
    cv_results_ : dict of str to ndarray of shape (n_trials,)
        A row for each trial of the study that is over, whichever process evaluated it,
        in the order in which they were first tried.
        Beside what `GridSearchCV` has: `trial_number`; `state` ("complete", "pruned",
        "failed", or "infeasible": evaluated in full, but breaks a constraint);
        `pruned_at_fold`, counted from 0, or -1; `running_mean` over the folds that a
        trial saw. Trials that are not complete have NaN for a mean score.
    study_ : optuna.Study
        The study. In an unpickled search, a copy in memory.
    trials_ : list of FrozenTrial
        The study's trials when `fit` ended, by number.
    n_splits_ : int
        Number of folds.
    scorer_ : callable or dict
        The scorer, or a scorer for each of several scores.
    multimetric_ : bool
        Whether there are several scores.
    refit_time_ : float
        How many seconds the refit took. Only with `refit`.
    classes_ : ndarray of shape (n_classes,)
        The classes of a refitted classifier.
    n_features_in_ : int
        Number of columns in the refit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if they have any.

    See Also
    --------
    AdaLoraSpace : What may be tried.
    suggest_params : For an objective of your own.

    Notes
    -----
    A study belongs to the rows, folds, space, scoring and estimator that it began with;
    to go on with others is an error. A trial whose process was killed is tried again
    from its first fold, once there was no sign of life for a minute. A database that
    cannot be reached is waited for, for up to 10 minutes.

    The password in a storage's URL is neither shown nor pickled: keep it where the
    database's driver finds it. A pickle of a fitted search holds no storage, and no
    callbacks but those set on `estimator`. `best_estimator_` is saved without any. So
    it is with a copy by `copy.copy` or `copy.deepcopy`, whose next fit begins a new
    study. `clone` keeps both, but copies a storage in memory.

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

    # What a fit sets: declared for editors and type checkers.
    best_estimator_: Any
    best_params_: dict[str, Any]
    best_score_: float
    best_index_: int
    cv_results_: dict[str, Any]
    study_: optuna.Study
    trials_: list[optuna.trial.FrozenTrial]
    n_splits_: int
    scorer_: Any
    multimetric_: bool
    refit_time_: float
    classes_: np.ndarray
    n_features_in_: int
    feature_names_in_: np.ndarray

    if TYPE_CHECKING:  # scikit-learn's are untyped

        def set_callbacks(self, *callbacks: Any) -> Self: ...

        def set_params(self, **params: Any) -> Self: ...

        def predict(self, X: Any) -> np.ndarray: ...

        def predict_proba(self, X: Any) -> np.ndarray: ...

        def predict_log_proba(self, X: Any) -> np.ndarray: ...

        def decision_function(self, X: Any) -> np.ndarray: ...

        def score(self, X: Any, y: Any = None, **params: Any) -> float: ...

    # scikit-learn's constructor would set this; it is not a parameter here.
    pre_dispatch = "2*n_jobs"

    __module__ = "sk_adalora"  # where users import it from: for pickles
    _doc_link_module = "sk_adalora"
    _doc_link_template = LINK_TEMPLATE

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

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Search, and refit the best trial.

        Parameters
        ----------
        X : sequence, array or table of shape (n_samples,) or (n_samples, n_columns)
            The rows, in a form that the estimator takes.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their targets.
        **params : dict
            `groups` for the splitter, and what the estimator's `fit` takes. Arrays with
            one value per row are split like X.

        Returns
        -------
        AdaLoraSearchCV
            The search itself.

        Raises
        ------
        ValueError
            If a parameter or the space is wrong, if the study is another one's, if no
            trial is complete and keeps the constraints, or if all fits fail.
        TypeError
            If scikit-learn cannot split X into folds, or if the space is of another
            type.
        ConnectionError
            If the database of the study stays away.
        ImportError
            If `storage` needs a driver that is not installed.
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
    ) -> Self:
        """Make a fitted search of a study's trials, and refit the best of them.

        No trial is evaluated. The study may come from worker processes with
        ``refit=False``, or from an error that ended a search without a storage.

        Parameters
        ----------
        study : str or optuna.Study
            The study, or its name in `storage`.
        estimator : estimator
            The estimator that was searched.
        X : sequence, array or table of shape (n_samples,) or (n_samples, n_columns)
            The rows that were searched with.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their targets.
        space : AdaLoraSpace, dict, callable or None, default=None
            The space that was searched. None stands for ``AdaLoraSpace()``.
        storage : str, path-like, BaseStorage or None, default=None
            Where the study is, if `study` is a name.
        fit_params : dict or None, default=None
            What `fit` got beside X and y.
        **options : dict
            Other parameters of the search. Give `cv` and `scoring` as they were.

        Returns
        -------
        AdaLoraSearchCV
            A fitted search.

        Raises
        ------
        ValueError
            If there is no such study, if it has no complete trial, if it was made with
            something else, or if no search made it.
        TypeError
            If scikit-learn cannot split X into folds, or if the study or the space is
            of another type.
        FileNotFoundError
            If `storage` is the path of a folder, or of a file in a folder that does not
            exist.
        ImportError
            If `storage` needs a driver that is not installed.
        """
        if isinstance(study, optuna.Study):
            trials = study.get_trials(deepcopy=False)
            check_directions(study)
            name, storage = study.study_name, InMemoryStorage()
            in_memory(trials, *record_of(study), storage)
        elif isinstance(study, str):
            name = study
        else:
            raise TypeError(
                "`study` must be a study of Optuna's, or the name of one in `storage`. "
                f"Got {type(study).__name__}. Pass `study_` of a search, or `study` of "
                "an error that ended one."
            )
        search = cls(estimator, space, storage=storage, study_name=name, **options)
        return search._fit(X, y, fit_params or {}, stored_only=True)

    # ---- the steps of a fit -------------------------------------------------

    @with_callbacks
    def _fit(
        self, X: Any, y: Any, params: dict[str, Any], *, stored_only: bool = False
    ) -> Self:
        check_parameters(self, SEARCH_RULES)
        self._validate_params()
        refuse_name(y)
        with unchanged_on_error(self), silent_optuna(), alone():
            for name in _FOUND & vars(self).keys():  # of an earlier fit
                delattr(self, name)
            root, data = self._begin(X, y, params)
            space = self._read_space()
            check_names(self.estimator, space)
            study = self._open_study(data, space, stored_only)
            task = root.subcontext(task_name="search", max_subtasks=None)
            task.call_on_fit_task_begin(estimator=self)
            if not stored_only:
                study.sampler = self._sampler(study, space)
                with resumable(study, stored=self.storage is not None):
                    self._run_trials(study, space, data, task)
            table = self._make_table(study, space, len(data.splits))
            task.call_on_fit_task_end(estimator=self)
            self._choose(table)
            if self.refit:
                self._refit(data, root)
            # Of several scorers, a dict.
            self.scorer_ = data.scorer
            if not callable(self.scoring):
                self.scorer_ = getattr(data.scorer, "_scorers", data.scorer)
            root.call_on_fit_task_end(estimator=self, **data.told())
        warn_of_failures(table)
        return self

    def _begin(self, X: Any, y: Any, params: dict[str, Any]) -> tuple[Any, _Data]:
        """Split the rows into folds, and tell callbacks that the fit begins."""
        scorer, _ = self._get_scorers()
        X, y = indexable(X, y)
        params = _check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)
        data = _Data(X=X, y=y, params=params, routed=routed, scorer=scorer, splits=[])
        root = self._init_callback_context(max_subtasks=1 + (self.refit is not False))
        root.call_on_fit_task_begin(estimator=self, **data.told())
        check_rows(X, "X")
        if y is not None:
            check_rows(y, "y")
        cv = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        data.splits = list(cv.split(X, y, **routed.splitter.split))
        if not data.splits:
            raise ValueError(
                f"`cv` must give at least one fold. Got {self.cv!r}, which gives none. "
                "Pass a list of folds: a generator gives them to one fit only."
            )
        self.n_splits_ = len(data.splits)
        return root, data

    def _read_space(self) -> Space:
        space = AdaLoraSpace() if self.space is None else self.space
        prefix = self.prefix
        if prefix == "auto":
            named = isinstance(space, AdaLoraSpace)
            prefix = find_prefix(self.estimator) if named else ""
        return read_space(space, prefix)

    def _open_study(self, data: _Data, space: Space, stored_only: bool) -> SearchStudy:
        """Create the study, with what is tried first in line, or go on with it."""
        scoring = [self.scoring, self._metric()]
        made_with = fingerprint(
            data.compared(), data.splits, space, scoring, self.estimator
        )
        if stored_only:
            study = load_study(open_storage(self.storage), self.study_name)
            check_bound(study, made_with)
            return study
        enqueue = self.enqueue
        if isinstance(enqueue, str) and isinstance(self.sampler, GridSampler):
            enqueue = None  # it has its own settings, and draws no others beside them
        points = starting_points(enqueue, self.estimator, space)
        study = until_reached(
            open_study,
            open_storage(self.storage),  # from here on, something is written
            self.study_name,
            make_pruner(self.pruner),
            points,
            load_if_exists=self.load_if_exists,
        )
        until_reached(bind, study, made_with)
        return study

    def _sampler(self, study: SearchStudy, space: Space) -> BaseSampler:
        return make_sampler(
            self.sampler,
            space.distributions(),
            self.n_trials,
            self.random_state,
            racing=self.pruner is not None,
            is_first=study.is_new,
        )

    def _metric(self) -> str | None:
        """Return the one of several scores that the search maximises, if known yet."""
        if isinstance(self.refit, str):
            return self.refit
        if isinstance(self.scoring, list | tuple | dict):
            return next(iter(self.scoring), None)
        return None

    def _run_trials(
        self, study: SearchStudy, space: Space, data: _Data, task: Any
    ) -> None:
        """Evaluate trials until the study has enough of them."""
        n_trials = self.n_trials
        if self.sampler == "auto" and not isinstance(space, CalledSpace):
            n_trials = int(min(n_trials, count_points(space.distributions())))
        with (
            closing(progress_bar(n_trials, self.verbose, "search", "trial")) as bar,
            Parallel(
                n_jobs=self.n_jobs,
                pre_dispatch=self.pre_dispatch,
            ) as parallel,
        ):
            evaluate = FoldEvaluator(
                search=self,
                sent=self._twin(**dict.fromkeys(_NOT_SENT)),
                X=data.X,
                y=data.y,
                splits=data.splits,
                scorer=data.scorer,
                fit_params=data.routed.estimator.fit,
                score_params=data.routed.scorer.score,
                parallel=parallel,
                task=task,
                study=study,
            )
            TrialRunner(
                study=study,
                space=space,
                evaluate=evaluate,
                shared=self.storage is not None,
                n_trials=n_trials,
                n_folds=len(data.splits),
                batch=effective_n_jobs(self.n_jobs),
                racing=self.pruner is not None,
                timeout=self.timeout,
                metric=self._metric(),
                callbacks=self.callbacks or (),
                bar=bar,
            ).run()

    def _make_table(self, study: SearchStudy, space: Space, n_folds: int) -> TrialTable:
        """Turn the study into scikit-learn's table."""
        trials = until_reached(study.get_trials, deepcopy=False)
        # Before the refit, after which the storage may be gone.
        self.study_, self.trials_ = study, trials
        self._study_record = until_reached(record_of, study)
        table, metric = make_table(trials, space, n_folds), self._metric()
        check_best(table, trials)
        with warnings.catch_warnings():  # folds that never ran have no score
            warnings.filterwarnings("ignore", message=".*scores are non-finite")
            results = self._format_results(
                [row.params for row in table.rows],
                n_folds,
                table.out(with_train=self.return_train_score),
                table.more(metric),
            )
        table.correct(results)
        self.cv_results_ = results
        self.multimetric_ = table.metrics is not None
        if self.verbose:
            write_lines(summarise(table, results, n_folds, metric))
        return table

    def _choose(self, table: TrialTable) -> None:
        """Choose the best trial, unless nobody said by which of several scores."""
        if not self.refit and self.multimetric_:
            return
        if table.metrics is not None:
            self._check_refit_for_multimetric(table.metrics)
        name = self.refit if self.multimetric_ else "score"
        index = int(self._select_best_index(self.refit, name, self.cv_results_))
        row = table.rows[index]
        if row.state != "complete":
            raise ValueError(
                "`refit` must choose a complete trial. Got row "
                f"{index} of `cv_results_`, whose state is {row.state!r}. Choose among "
                "the rows with state 'complete': others have NaN for a mean score, "
                "which argmax takes for the largest and np.nanargmax leaves out."
            )
        self.best_index_, self.best_params_ = index, row.params
        if not callable(self.refit):
            self.best_score_ = self.cv_results_[f"mean_test_{name}"][index]

    def _refit(self, data: _Data, root: Any) -> None:
        """Fit the best trial on all rows."""
        # Some of the parameters may be estimators themselves.
        best = clone(self.best_params_, safe=False)
        self.best_estimator_ = clone(self.estimator).set_params(**best)
        task = root.subcontext(task_name="refit-with-best-params")
        with task.propagate_callback_context(self.best_estimator_):
            task.call_on_fit_task_begin(estimator=self, **data.told())
            rows = (data.X,) if data.y is None else (data.X, data.y)
            start = time.time()
            self.best_estimator_.fit(*rows, **data.routed.estimator.fit)
            self.refit_time_ = time.time() - start
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_
        task.call_on_fit_task_end(estimator=self, **data.told())

    # ---- after fit ----------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled.

        Of a fitted search neither the storage nor the live study, nor callbacks of
        Optuna's or scikit-learn's. All else is pickled: the other parameters, the
        trials, the table and the refitted estimator. An unfitted search keeps its
        storage, without the password.
        """
        state = dict(super().__getstate__())
        if state.pop("study_", None) is not None:
            state |= dict.fromkeys(("storage", "callbacks"))
            for name in CALLBACKS:
                state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(defaults_of(type(self)) | state)
        if "_study_record" in state:
            for trial in self.trials_:  # skops writes an IntEnum as an int
                trial.state = TrialState(trial.state)
            self.study_ = in_memory(self.trials_, *self._study_record)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "storage" and type(value) is str:
            value = StorageURL(value)  # shown without its password, also by others
        super().__setattr__(name, value)

    def _twin(self, **changes: Any) -> Self:
        """Return a search with the same attributes, but for some."""
        twin = object.__new__(type(self))
        twin.__dict__.update(vars(self) | changes)
        return twin

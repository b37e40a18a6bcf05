"""AdaLoraSearchCV: its parameters, its ways to begin, and what is pickled of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from sklearn.utils.validation import check_is_fitted

from ._doc_links import DocLinkMixin
from ._search_hooks import SearchHooks
from ._search_plot import draw_trials, trial_curves
from ._search_study import check_directions, in_memory, record_of
from ._transaction import CALLBACKS

# The password in the URL of a database: up to its last "@", or in its query.
_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S+(?=@)|([?&;]password=)[^&\s'\"]+")


class AdaLoraSearchCV(DocLinkMixin, SearchHooks):
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
        `set_params` takes, and as values Optuna's distributions, tuples (low, high) on
        a linear scale, lists or one-dimensional arrays of choices, fixed values, or an
        `AdaLoraSpace` under the name of its step. A full name takes precedence over
        that space, whichever comes first, and one of `beta2` unties it from `beta1`. A
        callable gets the trial and returns a dict for `set_params`. It is called again
        for each trial when the table is made, and must return the same then: it may go
        by what it suggests and by `trial.number`, and by nothing else.
    prefix : str, default="auto"
        What stands before the names of an `AdaLoraSpace`, such as ``"clf__"``. "auto"
        finds the AdaLora estimator by itself.
    n_trials : int, default=30
        Trials of the study in all: those of earlier runs and of other processes count.
    timeout : float or None, default=None
        Seconds after which no further trial begins. One trial is always evaluated.
    sampler : "auto" or BaseSampler, default="auto"
        What proposes parameters. "auto" is a Gaussian process if all of them are
        numbers and `n_trials` is at most 100, else TPE. No setting is repeated while
        the space has others. What breaks a constraint, such as TPE's
        `constraints_func`, is never the best.
    pruner : "auto", BasePruner or None, default="auto"
        With a pruner, trials race: they are evaluated fold by fold, the mean so far
        is reported after each (step 0 is after the first), and the pruner may stop
        them. "auto" stops what is behind the best complete trial, on the folds that
        both have seen, by more than half a standard error, once three are complete.
        None evaluates all folds.
    storage : str, path-like, BaseStorage or None, default=None
        Where the study is kept: the URL of a database ("postgresql://...",
        "sqlite:///..."), a path of a journal file, in which "~" is the home directory,
        or a storage of Optuna's. None stands for memory. Several processes may work on
        one study.
    study_name : str or None, default=None
        Name of the study, by which it is resumed. None stands for a new study.
    load_if_exists : bool, default=True
        Whether to go on with a study of that name.
    enqueue : "paper", dict, list of dict or None, default="paper"
        What is tried first, in a new study only. "paper" is the estimator as it is:
        numbers that are not in their range are moved to the nearest one that is,
        `target_r` is turned into a share of `init_r` or back, None for `init_r` or
        `lora_alpha` into the number that it stands for, and what the space has no terms
        for is drawn, such as a value that is none of the choices, None of another
        parameter where it has numbers, or steps where it has shares. Where the space is
        a function, it stands for nothing. A dict has full names and values of the
        space, as `best_params_`: fixed and tied parameters may be in it, if they have
        the value that they have there. For a function it has names that this asks the
        trial for, as `study_.best_params`. Other names are an error; what is left out
        is drawn.
    callbacks : list of callable or None, default=None
        Called as ``callback(study, trial)`` after each trial, as by Optuna.
        ``study.stop()`` ends the search. Callbacks of scikit-learn are set by
        `set_callbacks`.
    scoring : str, callable, list, tuple, dict or None, default=None
        How folds are scored, as in `GridSearchCV`. Of several scores, the search
        maximises the one that `refit` names, or else the first.
    n_jobs : int or None, default=None
        Fits at once, and trials that are asked for at once. None stands for 1, unless
        joblib is configured. Each worker has a pretrained model: on one GPU, leave it.
    refit : bool, str or callable, default=True
        Whether, or by which score, to refit the best trial on all rows. A function
        gets `cv_results_` and returns the row of a complete trial; others have NaN
        for a mean score, or a number as `error_score` where all of their fits failed.
    cv : int, splitter, iterable or None, default=None
        Folds. None stands for 5. All trials get the same.
    error_score : float or "raise", default=np.nan
        Score of a fold that fails. A trial with NaN in a fold is a failed one; with a
        number, a warning says how many fits failed. If all did, that is an error.
    return_train_score : bool, default=False
        Whether to score the training rows of each fold too. Trials that a study holds
        already and that were evaluated without have NaN there, with a warning.
    random_state : int, RandomState instance or None, default=None
        Seed of the automatic sampler. A study that goes on draws anew: two trials and
        one more are not the three of a single run. Processes that work on one study at
        the same time draw different parameters whatever the seed, that of a `sampler`
        included.
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
        "pruned", "failed", or "infeasible" for what was evaluated in full but breaks a
        constraint); `pruned_at_fold`, counted from 0, or -1; `running_mean` over the
        folds that a trial saw. Mean scores of trials that are not complete are NaN. A
        trial of an objective of your own has no folds: its value is the mean score.
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
    queued again: at once if that was on the same machine, after ten minutes without a
    sign of life on another one and on Windows. Parameters over which three processes
    have died are not.

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

    # scikit-learn's constructor would set this; it is not a parameter here.
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
            `groups` for the splitter, and what the estimator's `fit` takes: arrays
            with one value per row are split like X.

        Returns
        -------
        AdaLoraSearchCV
            Itself.

        Raises
        ------
        ValueError
            If a parameter, the space or the study does not fit, if no trial is
            complete and keeps the constraints, or if all fits fail.
        TypeError
            If scikit-learn cannot split X into folds, or if the space is of another
            type.
        FileNotFoundError
            If `storage` is the path of a folder, or in a folder that does not exist.
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
    ) -> AdaLoraSearchCV:
        """Make a fitted search of a study's trials, and refit the best of them.

        Nothing is evaluated. The study may be that of worker processes with
        ``refit=False``, or one of an objective of your own that used
        :func:`suggest_params`; what was `fixed` there must be set on `estimator`.

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
        TypeError
            If scikit-learn cannot split X into folds, or if the space is of another
            type.
        FileNotFoundError
            If `storage` is the path of a folder, or in a folder that does not exist.
        ImportError
            If `storage` needs a driver that is not installed.
        """
        if isinstance(study, optuna.Study):
            trials = study.get_trials(deepcopy=False)
            check_directions(study)
            name, storage = study.study_name, InMemoryStorage()
            in_memory(trials, *record_of(study), storage)
        else:
            name = study
        search = cls(estimator, space, storage=storage, study_name=name, **options)
        return search._fit(X, y, fit_params or {}, stored_only=True)

    # ---- after fit ----------------------------------------------------------

    def plot_trials(self, ax: Any = None) -> np.ndarray:
        """Draw the trials, the running best, and which parameters mattered.

        Trials that failed, in all folds if `error_score` is a number, or that break a
        constraint are left out.

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
        TypeError, ValueError
            If `ax` is neither one Axes nor two.
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

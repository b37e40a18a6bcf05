"""AdaLoraSearchCV: its parameters, its ways to begin, and what is pickled of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from sklearn.utils.validation import check_is_fitted

from sk_adalora.runtime.doc_links import LINK_TEMPLATE
from sk_adalora.runtime.rules import defaults_of
from sk_adalora.runtime.transaction import CALLBACKS

from .hooks import NOT_SENT, SearchHooks
from .plot import draw_trials, trial_curves
from .study import check_directions, in_memory, record_of

# The password in the URL of a database: up to its last "@", or in its query, whose
# values may be settings in their turn, as ODBC's are.
_PASSWORD = re.compile(
    r"(://[^:/]*:).+(?=@)|((?:password|passwd|pwd)(?:=|%3D))[^&]+",
    re.IGNORECASE | re.DOTALL,
)


class AdaLoraSearchCV(SearchHooks):
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
        other processes count. With the automatic sampler, a search also ends when all
        settings of a space of up to 1,000 were tried.
    timeout : float or None, default=None
        Seconds after which no further trial begins; one is always evaluated. None does
        not limit the time.
    sampler : "auto" or BaseSampler, default="auto"
        The sampler of Optuna's that proposes parameters. "auto" is a Gaussian process
        if all of them are numbers and `n_trials` is at most 100, and otherwise TPE;
        neither repeats a setting while the space has others. A trial that breaks a
        constraint, such as one of TPE's `constraints_func`, is never the best.
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
        path of a journal file, in which "~" is the home directory, or a storage of
        Optuna's. None keeps it in memory.
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
        Seed of the automatic sampler. None draws one from NumPy's global generator. A
        study that goes on draws anew: two trials and one more are not the three of a
        single run. From the eleventh trial on (with a function as space, before that),
        what is drawn also depends on `n_jobs`, as trials that run together do not learn
        from each other. Processes that work on one study at the same time draw
        different parameters whatever the seed, also that of a `sampler`.
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
        A row for each trial of the study that is over, whichever process evaluated it.
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
    to go on with others is an error. A trial whose process died is tried again: at once
    if that was on the same machine, under Linux; otherwise after ten minutes without a
    sign of life. Parameters over which three processes have died are not.

    A pickle of a fitted search holds no storage, whose URL may have a password in it,
    and no callbacks but those set on `estimator`. `best_estimator_` is saved without
    any. So it is with a copy by `copy.copy` or `copy.deepcopy`, whose next fit begins a
    new study. `clone` keeps both, but copies a storage in memory.

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
        FileNotFoundError
            If `storage` is the path of a folder, or of a file in a folder that does not
            exist.
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

    # ---- after fit ----------------------------------------------------------

    def plot_trials(self, ax: Any = None) -> np.ndarray:
        """Draw the trials, the best score so far, and which parameters mattered.

        Trials that broke a constraint, or that failed, are left out.

        Parameters
        ----------
        ax : Axes, pair of Axes or None, default=None
            Where to draw. None makes a new figure. A single Axes shows no importances.

        Returns
        -------
        ndarray of Axes
            The axes that were drawn on.

        Raises
        ------
        TypeError, ValueError
            If `ax` is neither one Axes nor two.
        ImportError
            If matplotlib is not installed: the extra `plot` has it.
        NotFittedError
            If the search has not been fitted.
        """
        check_is_fitted(self, "study_")
        # Others may have gone on with the study, or its storage may be gone.
        study = in_memory(self.trials_, *self._study_record)
        return draw_trials(trial_curves(study, self.trials_), ax)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled.

        Of a fitted search, and of one that sends its fits to workers: neither the
        storage nor the live study, which hold the URL of a database and its password,
        nor Optuna's callbacks. Of a fitted one, nor scikit-learn's, which workers call.
        Of one that sends its fits to workers, nor what only the search itself uses, and
        what an earlier fit found. All else is pickled: the other parameters, the
        trials, the table and the refitted estimator. An unfitted search keeps its
        storage, for a worker to use it.
        """
        state = dict(super().__getstate__())
        running = state.pop("_now", None)
        fitted = state.pop("study_", None) is not None
        if fitted or running is not None:
            state |= dict.fromkeys(("storage", "callbacks"))
        if running is not None:
            state |= dict.fromkeys(("space", "sampler", "pruner", "enqueue", "cv"))
            for name in NOT_SENT & state.keys():
                del state[name]
        if fitted and running is None:
            for name in CALLBACKS:
                state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(defaults_of(type(self)) | state)
        if "_study_record" in state:
            for trial in self.trials_:  # skops writes an IntEnum as an int
                trial.state = TrialState(trial.state)
            self.study_ = in_memory(self.trials_, *self._study_record)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        return super(AdaLoraSearchCV, self._without_password()).__repr__(N_CHAR_MAX)

    def _html_repr(self) -> str:
        return super(AdaLoraSearchCV, self._without_password())._html_repr()

    def _without_password(self) -> Self:
        """Return a twin to show: the text may be cut in the middle of the password."""
        twin = object.__new__(type(self))
        twin.__dict__.update(vars(self))
        if isinstance(self.storage, str):
            twin.storage = _PASSWORD.sub(r"\1\2***", self.storage)
        return twin

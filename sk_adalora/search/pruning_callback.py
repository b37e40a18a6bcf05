"""End a trial of Optuna's early if its validation score is poor: OptunaPruning."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal

from optuna import TrialPruned
from optuna.study import StudyDirection
from sklearn.metrics import check_scoring

from sk_adalora.estimators.base import BaseAdaLora
from sk_adalora.training.epochs import one_number


class OptunaPruning:
    """Report the validation score of each epoch to a trial, and end poor trials.

    A callback for `set_callbacks` of the estimators. After each epoch, it scores the
    estimator on validation rows and asks the study's pruner. If the pruner says so,
    `fit` ends with `optuna.TrialPruned`, which `study.optimize` expects.

    Parameters
    ----------
    trial : optuna.trial.BaseTrial
        The trial that runs. Its study must maximize, since greater scores are better,
        as everywhere in scikit-learn.
    X_val, y_val : array-like or table of shape (n_samples, ...)
        Validation rows, in the form in which the estimator gets `X` and `y`. Give
        neither rows that it learns from, nor those that the winner is judged by.
    scoring : str, callable or None, default=None
        The validation score, as in :func:`sklearn.metrics.check_scoring`. None stands
        for the estimator's `score`.
    phase : {"final", "any"}, default="final"
        Which epochs are reported to the pruner. "final": those after the last
        allocation, when every trial has its final ranks. "any": all epochs, in some of
        which a trial whose ranks fall late has more ranks than one whose ranks fall
        early.
    threshold : float or None, default=None
        Smallest score with which a trial goes on, after any epoch, whatever `phase` is.
        None sets no such limit.

    Raises
    ------
    ValueError, TypeError
        If a parameter is wrong, or the study does not maximize. A wrong `scoring` is an
        error in `fit`.

    Notes
    -----
    A score of NaN ends the trial after any epoch.

    The estimator remains as it was before `fit`, as after any error. scikit-learn's
    `cross_validate` and `cross_val_score` turn errors into NaN, so the callback needs
    ``error_score="raise"`` there. Their folds must run one after the other, in this
    process; each continues the steps of the one before.

    Examples
    --------
    >>> from sk_adalora import AdaLoraClassifier, OptunaPruning, suggest_params
    >>> def objective(trial):  # X, y, X_val and y_val come from train_test_split
    ...     classifier = AdaLoraClassifier(**suggest_params(trial), epochs=5)
    ...     classifier.set_callbacks(OptunaPruning(trial, X_val=X_val, y_val=y_val))
    ...     return classifier.fit(X, y).score(X_val, y_val)
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    def __init__(
        self,
        trial: Any,
        *,
        X_val: Any,
        y_val: Any,
        scoring: Any = None,
        phase: Literal["final", "any"] = "final",
        threshold: float | None = None,
    ) -> None:
        _check(trial, phase, threshold)
        self.trial = trial
        self.X_val, self.y_val = X_val, y_val
        self.scoring, self.phase, self.threshold = scoring, phase, threshold
        self._first_step = self._next_step = 0

    def setup(self, estimator: Any, context: Any) -> None:
        """Prepare for a fit.

        Parameters
        ----------
        estimator : estimator
            What is fitted.
        context : sklearn.callback.CallbackContext
            Its task.
        """
        if not isinstance(estimator, BaseAdaLora):
            raise TypeError(
                "OptunaPruning looks at the epochs of an AdaLoraClassifier or an "
                f"AdaLoraRegressor. Got {type(estimator).__name__}. In a pipeline, "
                "set it on that step."
            )
        self._scorer = check_scoring(estimator, scoring=self.scoring)
        self._first_step = self._next_step

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing.

        Parameters
        ----------
        estimator : estimator
            What is fitted.
        context : sklearn.callback.CallbackContext
            The task that begins.
        """

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, fitted_estimator: Any = None
    ) -> None:
        """Score an epoch, report it, and end a poor trial.

        Parameters
        ----------
        estimator : estimator
            What is fitted.
        context : sklearn.callback.CallbackContext
            The task that ends.
        fitted_estimator : estimator
            The estimator as it is now, with the ranks of this step.

        Raises
        ------
        optuna.TrialPruned
            If the pruner says so, or if the score is NaN or below the threshold.
        """
        if context.task_name != "epoch":
            return
        epoch = context.task_id
        self._next_step = self._first_step + context.parent.max_subtasks
        y_val = self.y_val
        if not callable(self.scoring):  # those of scikit-learn do not take all forms
            y_val = fitted_estimator._targets.to_score(y_val)
        score = one_number(self._scorer(fitted_estimator, self.X_val, y_val))
        if math.isnan(score):
            raise TrialPruned(f"The score of epoch {epoch} is NaN.")
        if self.threshold is not None and score < self.threshold:
            raise TrialPruned(
                f"The score of epoch {epoch} is {score:.6g}, below the threshold of "
                f"{self.threshold:g}."
            )
        if self.phase == "final" and not _is_final(fitted_estimator, epoch):
            return
        self.trial.report(score, step=self._first_step + epoch)
        if self.trial.should_prune():
            raise TrialPruned(
                f"The pruner ended the trial after epoch {epoch}, with a score of "
                f"{score:.6g}."
            )

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing.

        Parameters
        ----------
        estimator : estimator
            What was fitted.
        context : sklearn.callback.CallbackContext
            Its task.
        """

    def __getstate__(self) -> dict[str, Any]:
        """Refuse: in another process, nobody would use the copy of the trial."""
        raise TypeError(
            "OptunaPruning belongs to a trial of this process. Got an attempt to "
            "pickle or copy it. Set n_jobs=None in what fits the estimator, or save "
            "the estimator when it is fitted, as it then holds no callbacks."
        )


def _check(trial: Any, phase: Any, threshold: Any) -> None:
    if not all(hasattr(trial, name) for name in ("report", "should_prune")):
        raise TypeError(
            f"`trial` must be a trial of Optuna's. Got {trial!r}. Pass what the "
            "objective gets."
        )
    if phase not in ("final", "any"):
        raise ValueError(
            f"`phase` must be 'final' or 'any'. Got {phase!r}. Choose one of the two."
        )
    number = isinstance(threshold, Real) and math.isfinite(threshold)
    if threshold is not None and not number:
        raise ValueError(
            f"`threshold` must be a finite number or None. Got {threshold!r}. "
            "Leave it out to end no trial by its score alone."
        )
    study = getattr(trial, "study", None)  # a FixedTrial has none
    if study is not None and study.directions != [StudyDirection.MAXIMIZE]:
        found = ", ".join(direction.name.lower() for direction in study.directions)
        raise ValueError(
            "OptunaPruning needs a study that maximizes one score. Got a study with "
            f"the directions: {found}. Make it with "
            'create_study(direction="maximize"), and return a score of which greater '
            "is better."
        )


def _is_final(fitted: Any, epoch: int) -> bool:
    """Tell whether the last allocation has happened when an epoch ends."""
    planned = fitted.schedule_
    last_step = planned.steps_per_epoch * (epoch + 1) - 1
    return planned.config().schedule().phase(last_step) == "final"

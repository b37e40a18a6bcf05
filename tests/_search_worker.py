"""Estimators whose scores are known, and what worker processes of a search do."""

import os
import time
import warnings
from pathlib import Path

import numpy as np
import optuna
from sklearn.base import BaseEstimator, ClassifierMixin

FLOAT = optuna.distributions.FloatDistribution
SPACE = {"a": FLOAT(0.0, 1.0), "b": FLOAT(0.0, 1.0)}


class Peak(ClassifierMixin, BaseEstimator):
    """A classifier whose score is highest at a=0.3, b=0.7, and a bit lower by fold.

    `X` is a column of row numbers, so that each fold has a level of its own. `fits`
    counts in all clones of a process.
    """

    fits = 0

    def __init__(self, a=0.5, b=0.5, seconds=0.0, log=None, fail_above=2.0):
        self.a = a
        self.b = b
        self.seconds = seconds
        self.log = log
        self.fail_above = fail_above

    def fit(self, X, y, sample_weight=None):
        type(self).fits += 1
        if self.a > self.fail_above:
            raise RuntimeError(f"a={self.a} is too much")
        if self.log is not None:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{self.a!r}\n")
        time.sleep(self.seconds)
        self.classes_ = np.unique(y)
        self.n_features_in_ = 1
        self.weight_ = None if sample_weight is None else float(np.sum(sample_weight))
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def score(self, X, y, sample_weight=None):
        level = 0.1 * float(np.mean(X)) / 100
        return 1.0 - (self.a - 0.3) ** 2 - (self.b - 0.7) ** 2 - level


def rows(n_rows=40):
    """Row numbers and two classes in turn."""
    return np.arange(n_rows).reshape(-1, 1), np.arange(n_rows) % 2


def search(estimator=None, space=None, **options):
    """A search of few trials that is quick, without a race, and repeatable."""
    from sk_adalora import AdaLoraSearchCV

    quick = {"n_trials": 6, "cv": 3, "random_state": 0, "enqueue": None, "pruner": None}
    return AdaLoraSearchCV(
        Peak() if estimator is None else estimator,
        SPACE if space is None else space,
        **{**quick, **options},
    )


def values(fitted, name="a"):
    """The parameter of each trial."""
    return [trial.params[name] for trial in fitted.trials_]


def two_scores(estimator, X, y):
    score = estimator.score(X, y)
    return {"high": score, "low": 1 - score}


def work(storage, name, n_trials, seconds, folder):
    """Work on a study until it has enough trials; for a process of its own.

    Fits are logged in the folder, and what is warned of.
    """
    from sk_adalora import AdaLoraSearchCV
    from sk_adalora.search import heartbeats

    heartbeats._SECONDS = 0.3
    optuna.logging.disable_default_handler()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        AdaLoraSearchCV(
            Peak(seconds=seconds, log=f"{folder}/fits.log"),
            SPACE,
            n_trials=n_trials,
            storage=storage,
            study_name=name,
            cv=3,
            refit=False,
            random_state=0,
        ).fit(*rows())
    told = "\n".join(str(warning.message) for warning in caught)
    Path(folder, f"{os.getpid()}.warned").write_text(told, encoding="utf-8")

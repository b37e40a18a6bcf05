"""A search with nothing left to evaluate ends as scikit-learn ends a fit."""

import warnings
from itertools import product

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, make_scorer

from sk_adalora import AdaLoraSearchCV

X = pd.DataFrame({"a": np.arange(24.0) % 5, "b": np.arange(24.0) % 7})
Y = np.where(X["a"] + np.arange(24) % 2 > 2, "yes", "no")
WEIGHT = 1 + np.arange(24) % 3
SPACE = {"C": optuna.distributions.FloatDistribution(1e-2, 1e2, log=True)}

F1 = make_scorer(f1_score, pos_label="yes")


def one_score(estimator, X, y):
    return accuracy_score(y, estimator.predict(X))


def two_scores(estimator, X, y):
    return {"accuracy": one_score(estimator, X, y), "f1": F1(estimator, X, y)}


def choose(table):
    return 1


ONE = (None, "accuracy", F1, one_score)
SEVERAL = (["accuracy", "balanced_accuracy"], {"accuracy": F1, "f1": F1}, two_scores)
CASES = [
    *product(ONE, (True, False, "accuracy", choose)),
    *product(SEVERAL, (False, "accuracy", choose)),
]


class Counted(LogisticRegression):
    """Counts its fits."""

    fits = 0

    def fit(self, X, y, sample_weight=None):
        type(self).fits += 1
        return super().fit(X, y, sample_weight)


def fit_twice(estimator, space, y=None, metadata=None, **options):
    """Fit a search that evaluates trials, and one that finds them in the study.

    Returns
    -------
    searches : list of AdaLoraSearchCV
    warned : list of list of str
        What each fit warned of.
    """
    kept = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}
    kept["sampler"] = optuna.samplers.RandomSampler(seed=0)
    searches, warned = [], []
    for _ in range(2):
        search = AdaLoraSearchCV(
            estimator,
            space,
            n_trials=3,
            cv=2,
            enqueue=None,
            pruner=None,
            **kept,
            **options,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            searches.append(search.fit(X, y, **(metadata or {})))
        warned.append([str(warning.message) for warning in caught])
    return searches, warned


def learned(search):
    """Public fitted attributes by name, those that are properties among them."""
    names = {name for name in vars(search) if name.endswith("_")}
    names |= {"classes_", "n_features_in_", "feature_names_in_"}
    return {name: getattr(search, name) for name in names if hasattr(search, name)}


def check_same(first, second):
    assert vars(first).keys() == vars(second).keys()
    first, second = learned(first), learned(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert type(value) is type(second[name]), name
        if name not in {"best_estimator_", "refit_time_", "study_", "scorer_"}:
            np.testing.assert_equal(second[name], value, err_msg=name)
    assert repr(first["scorer_"]) == repr(second["scorer_"])


@pytest.mark.parametrize(("scoring", "refit"), CASES)
def test_both_ways_to_end_a_fit_agree(scoring, refit):
    Counted.fits = 0
    metadata = {"sample_weight": WEIGHT}
    (first, second), warned = fit_twice(
        Counted(), SPACE, Y, metadata, scoring=scoring, refit=refit
    )

    assert Counted.fits == 3 * 2 + 2 * bool(refit)
    assert warned[0] == warned[1]
    check_same(first, second)
    assert not hasattr(second.estimator, "coef_")  # a clone of it was fitted
    assert hasattr(second, "refit_time_") == bool(refit)
    if refit:
        assert second.refit_time_ > 0
        assert list(second.feature_names_in_) == ["a", "b"]
        np.testing.assert_array_equal(
            first.best_estimator_.coef_, second.best_estimator_.coef_
        )
        if refit is not choose or scoring in ONE:
            assert first.score(X, Y) == second.score(X, Y)


def test_a_study_is_read_with_what_fit_got():
    fit_params = {"sample_weight": WEIGHT}
    options = {"space": SPACE, "cv": 2, "enqueue": None}
    first = AdaLoraSearchCV(Counted(), n_trials=2, **options).fit(X, Y, **fit_params)
    second = AdaLoraSearchCV.from_study(
        first.study_, Counted(), X, Y, fit_params=fit_params, **options
    )

    np.testing.assert_array_equal(
        first.best_estimator_.coef_, second.best_estimator_.coef_
    )


def test_both_ways_to_end_a_fit_agree_without_targets():
    fits = []

    class Means(KMeans):
        def fit(self, X):
            fits.append(len(X))
            return super().fit(X)

    space = {"n_clusters": [2, 3, 4]}
    (first, second), _ = fit_twice(Means(random_state=0), space)

    # Two folds of three candidates in the first alone, and a refit of each.
    assert [n == len(X) for n in fits] == [*6 * [False], True, True]
    check_same(first, second)
    np.testing.assert_array_equal(first.predict(X), second.predict(X))


def test_a_scorer_may_keep_scorers_of_its_own():
    class Both:
        """Under a name that scikit-learn's own several scores have."""

        _scorers = (one_score, F1)

        def __call__(self, estimator, X, y):
            return min(scorer(estimator, X, y) for scorer in self._scorers)

        def __repr__(self):
            return "Both()"

    (first, second), _ = fit_twice(Counted(), SPACE, Y, scoring=Both())

    check_same(first, second)

"""What type checkers say of programs that use the library: mypy checks this file.

Nothing runs it. `assert_type` says which type something has; an error that is expected
has a comment, and mypy reports comments that hide none.
"""

from pathlib import Path
from typing import assert_type

import matplotlib
import numpy as np
import optuna

import sk_adalora
from sk_adalora import (
    AdaLoraClassifier,
    AdaLoraRegressor,
    AdaLoraSearchCV,
    AdaLoraSpace,
    AdaLoraTableClassifier,
    AdaLoraTableRegressor,
    OptunaPruning,
    RankAllocationDisplay,
    suggest_params,
)

texts, labels, numbers = ["good", "bad"], ["yes", "no"], [1.0, 2.0]


class Mine(AdaLoraClassifier):
    """A subclass keeps its type."""


def names() -> None:
    assert_type(AdaLoraClassifier(), AdaLoraClassifier)
    _ = sk_adalora.AdaLoraClasifier  # type: ignore[attr-defined]


def estimators() -> None:
    fitted = AdaLoraClassifier(Path("folder"), target_r=4).fit(texts, labels)
    assert_type(fitted, AdaLoraClassifier)
    assert_type(fitted.predict_proba(texts), np.ndarray)
    assert_type(fitted.score(texts, labels), float)
    assert_type(fitted.set_output(transform="pandas").transform(texts), np.ndarray)
    assert_type(fitted.set_params(epochs=2), AdaLoraClassifier)
    assert_type(fitted.set_fit_request(sample_weight=True), AdaLoraClassifier)
    fitted.fit(texts, labels, sample_weights=[1, 1])  # type: ignore[call-arg]
    fitted.fit()  # type: ignore[call-arg]
    regressor = AdaLoraRegressor(row_format=lambda row: str(row["a"]))
    assert_type(regressor.fit(texts, numbers).score(texts, numbers), float)
    assert_type(Mine().fit(texts, labels), Mine)
    assert_type(Mine.from_pretrained("folder"), Mine)


def tables() -> None:
    classifier = AdaLoraTableClassifier(parts=["table"], column_roles={"a": "text"})
    assert_type(classifier.set_params(cv=2), AdaLoraTableClassifier)
    assert_type(classifier.fit(texts, labels).predict_proba(texts), np.ndarray)
    regressor = AdaLoraTableRegressor(cv=2).fit(texts, numbers, sample_weight=[1, 2])
    assert_type(regressor, AdaLoraTableRegressor)
    assert_type(regressor.score(texts, numbers), float)


def objective(trial: optuna.Trial) -> float:
    classifier = AdaLoraClassifier().set_params(**suggest_params(trial))
    classifier.set_callbacks(OptunaPruning(trial, X_val=texts, y_val=labels))
    return classifier.fit(texts, labels).score(texts, labels)


def searches() -> None:
    search = AdaLoraSearchCV(AdaLoraClassifier(), AdaLoraSpace(), n_trials=2)
    assert_type(search.set_params(cv=3).fit(texts, labels), AdaLoraSearchCV)
    assert_type(search.best_score_, float)
    assert_type(search.study_, optuna.Study)
    assert_type(search.classes_, np.ndarray)
    assert_type(search.predict(texts), np.ndarray)
    assert 1 - search.score(texts, labels) < 0.5


def displays(fitted: AdaLoraClassifier) -> None:
    display = RankAllocationDisplay.from_estimator(fitted)
    display.plot(cmap=matplotlib.colormaps["viridis"])

"""The learners of a blend: the final estimator, and a linear model with words."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import clone, config_context
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from sk_adalora.data.roles import MOST_CATEGORIES, MixedTable, import_skrub
from sk_adalora.data.targets import Labels, Numbers, Targets

from .blend import Blended
from .table_rows import TableFit

# Terms that half of a few rows would lack.
_FEW_ROWS = 200
_MOST_TERMS = 50_000
# Single letters and digits are words too, as in "rating: 5".
_WORD = r"(?u)\b\w+\b"
# The column of each row's texts as one.
WORDS = "adalora_words"
# How large standardised columns are beside words, of which all of a row together have
# length 1; and strengths of the linear models. The loss is flat around all of these.
_OF_COLUMNS = 0.3
_C = 3.0
_ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0)
# The default, and what a user makes of it: for several outputs there is one of each.
_WRAPPED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_FOR_EACH = (MultiOutputClassifier, MultiOutputRegressor)


def seeded(estimator: Any, seed: int) -> Any:
    """Seed all that is random in an estimator, and not seeded yet."""
    seeds = {
        name: seed
        for name, value in estimator.get_params().items()
        if name.split("__")[-1] == "random_state" and value is None
    }
    return estimator.set_params(**seeds)


def make_learner(part: str, estimator: Any, fit: TableFit) -> Pipeline:
    """Return a new learner for a part, which prepares what it reads."""
    targets = fit.blended.targets
    if part == "linear":
        learner = make_linear(targets, fit.rows)
    else:
        learner = prepare_for(_final_estimator(estimator, fit), targets)
    return seeded(learner, fit.seed)


def make_linear(targets: Targets, rows: MixedTable) -> Pipeline:
    """Return a linear model on counted words and pairs of words, beside the columns."""
    terms = TfidfVectorizer(
        ngram_range=(1, 2),
        token_pattern=_WORD,
        sublinear_tf=True,
        min_df=2 if len(rows) > _FEW_ROWS else 1,
        max_features=_MOST_TERMS,
        dtype=np.float64,
    )
    read: list[Any] = [("words", terms, WORDS)]
    if len(rows.others.columns):
        columns = prepare_for(RidgeCV(), targets)[:-1]
        read.append(("columns", columns, [*rows.others.columns]))
    features = ColumnTransformer(read, transformer_weights={"columns": _OF_COLUMNS})
    if isinstance(targets, Numbers):
        return make_pipeline(features, RidgeCV(_ALPHAS, cv=3))
    linear: Any = LogisticRegression(C=_C, max_iter=1000)
    several = isinstance(targets, Labels)
    return make_pipeline(features, _for_each(linear, targets) if several else linear)


def default_final_estimator(estimator: Any) -> Any:
    """Return the learner that `final_estimator=None` stands for."""
    # A split for early stopping needs two rows of each class.
    if is_regressor(estimator):
        return HistGradientBoostingRegressor(early_stopping=False)
    return HistGradientBoostingClassifier(early_stopping=False)


def _final_estimator(estimator: Any, fit: TableFit) -> Any:
    """Return a new final estimator; refuse one that cannot do what is asked for."""
    kind = type(estimator).__name__
    if estimator.final_estimator is None:
        return default_final_estimator(estimator)
    final = clone(estimator.final_estimator)
    got = type(final).__name__
    classifies = not is_regressor(estimator)
    if not (is_classifier(final) if classifies else is_regressor(final)):
        wanted = "classifier" if classifies else "regressor"
        raise ValueError(
            f"`final_estimator` of {kind} must be a {wanted}. Got {got}. Pass a "
            f"{wanted} of scikit-learn's interface."
        )
    if classifies and not hasattr(final, "predict_proba"):
        raise ValueError(
            f"`final_estimator` of {kind} must have `predict_proba`. Got {got} "
            "without it. Pass another one, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV."
        )
    tags = get_tags(final)
    several = tags.classifier_tags.multi_label if classifies else _multi_output(tags)
    several = several or isinstance(final, _WRAPPED)
    if _has_several(fit.blended.targets) and not several:
        wrapper = "MultiOutputClassifier" if classifies else "MultiOutputRegressor"
        raise ValueError(
            "`final_estimator` must predict several outputs, as `y` has them. Got "
            f"{got}. Wrap it in sklearn.multioutput.{wrapper}."
        )
    last = final[-1] if isinstance(final, Pipeline) else final
    if fit.weights is not None and not has_fit_parameter(last, "sample_weight"):
        raise ValueError(
            "`final_estimator` must take `sample_weight`, as rows have weights by "
            f"`sample_weight` or `class_weight`. Got {got}. Pass another one, or no "
            "weights."
        )
    return final


def _multi_output(tags: Any) -> bool:
    return bool(tags.target_tags.multi_output)


def _has_several(targets: Targets) -> bool:
    numbers = isinstance(targets, Numbers) and targets.n_outputs > 1
    return numbers or isinstance(targets, Labels)


def prepare_for(final: Any, targets: Targets) -> Pipeline:
    """Put before a final estimator what prepares numbers, categories and dates."""
    learner: Pipeline = import_skrub().tabular_pipeline(final)
    vectorizer = learner[0]
    if vectorizer.cardinality_threshold == MOST_CATEGORIES:  # "below", and not "up to"
        vectorizer.set_params(cardinality_threshold=MOST_CATEGORIES + 1)
    if isinstance(vectorizer.low_cardinality, OneHotEncoder):
        # It would warn of categories that a fold, or a fit, has not seen.
        vectorizer.set_params(low_cardinality__drop=None)
    if _has_several(targets) and isinstance(final, _WRAPPED):
        learner.steps[-1] = (learner.steps[-1][0], _for_each(final, targets))
    return learner


def _for_each(learner: Any, targets: Targets) -> Any:
    """Return a learner that fits one for each output."""
    numbers = isinstance(targets, Numbers)
    return (MultiOutputRegressor if numbers else MultiOutputClassifier)(learner)


def fit_learner(
    learner: Pipeline, X: Any, fit: TableFit, rows: np.ndarray | slice = slice(None)
) -> np.ndarray:
    """Fit a learner to some rows, of which `X` are the features.

    Returns
    -------
    ndarray of shape (k,)
        What it need not learn, as `Blended.constants`.
    """
    constants = fit.constants(rows)
    if np.isnan(constants).any():
        y = fit.blended.for_learner(fit.coded[rows], constants)
        weights = {} if fit.weights is None else {"sample_weight": fit.weights[rows]}
        # Step by step: a pipeline would ask for routing of the weights. One for each
        # output would ask for a request, which refers to its owner: skops has no end.
        own = {"enable_metadata_routing": False}
        with config_context(**own if isinstance(learner[-1], _FOR_EACH) else {}):
            learner[-1].fit(learner[:-1].fit_transform(X, y), y, **weights)
    return constants


def predict_learner(
    learner: Pipeline, X: Any, constants: np.ndarray, blended: Blended
) -> np.ndarray:
    """Return what is averaged, of shape (n_samples, k)."""
    predictions = np.tile(constants, (len(X), 1))
    learned = np.isnan(constants)
    if learned.any():
        predictions[:, learned] = blended.from_learner(learner, X, constants)
    return predictions


def predict_out_of_fold(learner: Pipeline, X: Any, fit: TableFit) -> np.ndarray:
    """Return what a learner predicts of each row when fitted to other rows."""
    predictions = np.empty((len(X), fit.blended.targets.n_outputs))
    for rows, held in fit.folds:
        of_fold = clone(learner)
        constants = fit_learner(of_fold, _take(X, rows), fit, rows)
        predictions[held] = predict_learner(
            of_fold, _take(X, held), constants, fit.blended
        )
    return predictions


def _take(X: Any, rows: np.ndarray) -> Any:
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]

"""The estimators inside scikit-learn's own: pipelines, searches and ensembles.

Each test writes what a user would write. Where scikit-learn wants a table, and not a
list of texts, the docstring of the test says so.
"""

import functools
import pickle
import warnings

import _toy
import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from _toy import topics, toy
from scipy.stats import loguniform, randint
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import (
    MultiOutputClassifier,
    MultiOutputRegressor,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sk_adalora.estimators.predicting import both_of, predict_outputs, predict_rows

X3, Y3 = topics(36)
X2, Y2 = toy(36)
TABLE = pd.DataFrame(
    {
        "title": X3,
        "body": topics(36, seed=1)[0],
        "price": np.arange(36) / 8,
        "noise": np.random.default_rng(0).permutation(36),
    }
)
HEAD = ("weight", "bias")
FOLDS = StratifiedKFold(2, shuffle=True, random_state=0)


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier that is quick to fit."""
    return functools.partial(_toy.make, tiny_model, max_length=64)


@pytest.fixture(scope="module")
def make_regressor(tiny_model):
    """Function: changed parameters -> a regressor that is quick to fit."""
    return functools.partial(_toy.make_regressor, tiny_model, max_length=64)


def is_distribution(probabilities):
    return (
        np.isfinite(probabilities).all()
        and (probabilities >= 0).all()
        and np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    )


# Pipelines


def upper_to_lower(texts):
    return [text.lower() for text in texts]


def test_pipeline(make):
    """A step before the estimator; the pipeline predicts as the estimator alone."""
    shouted = [text.upper() for text in X3]
    pipeline = make_pipeline(FunctionTransformer(upper_to_lower), make())
    alone = make().fit(X3, Y3)

    pipeline.fit(shouted, Y3)

    np.testing.assert_array_equal(
        pipeline.predict_proba(shouted), alone.predict_proba(X3)
    )
    assert pipeline.predict(shouted).tolist() == alone.predict(X3).tolist()
    assert pipeline.score(shouted, Y3) == alone.score(X3, Y3)
    assert pipeline.classes_.tolist() == alone.classes_.tolist()
    np.testing.assert_array_equal(
        pipeline.decision_function(shouted), alone.decision_function(X3)
    )


def columns_as(output):
    return ColumnTransformer(
        [
            ("text", "passthrough", ["title", "body"]),
            ("number", StandardScaler(), ["price"]),
        ],
        verbose_feature_names_out=False,
    ).set_output(transform=output)


@pytest.mark.filterwarnings("ignore:X should hold texts:UserWarning")
@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_column_transformer_gives_a_frame(make, output):
    """The names of the columns reach the texts: `title: ...`."""
    frame = TABLE if output == "pandas" else pl.DataFrame(TABLE.to_dict("list"))
    pipeline = make_pipeline(columns_as(output), make())
    pipeline.fit(frame, Y3)
    last = pipeline[-1]

    assert last.feature_names_in_.tolist() == ["title", "body", "price"]
    scaled = TABLE[["title", "body"]].assign(
        price=StandardScaler().fit_transform(TABLE[["price"]])[:, 0]
    )
    np.testing.assert_array_equal(
        pipeline.predict_proba(frame), last.predict_proba(scaled)
    )
    assert is_distribution(pipeline.predict_proba(frame.head(5)))


@pytest.mark.parametrize("max_length", [64, 512])
def test_texts_made_numbers_are_asked_about(make, max_length):
    """Whether or not the numbers are cut: more room for them would not help."""
    vectors = make_pipeline(TfidfVectorizer(analyzer="char"), TruncatedSVD(11))
    pipeline = make_pipeline(vectors, make(epochs=1, max_length=max_length))

    with pytest.warns(
        UserWarning, match="Got 11 columns, all of numbers. If"
    ) as caught:
        pipeline.fit(*topics(48))
    assert [warning.filename for warning in caught] == [__file__]
    assert (pipeline[-1].fit_report_.truncated_share > 0.1) == (max_length == 64)


# Vectors


@pytest.fixture(scope="module", params=["classifier", "regressor"])
def with_vectors(request, make, make_regressor):
    """A fitted estimator; do not refit it."""
    kind = {"classifier": make, "regressor": make_regressor}[request.param]
    return kind().fit(X2, Y2)


def test_vectors_are_what_the_head_reads(with_vectors):
    vectors = with_vectors.transform(X2)
    outputs = predict_outputs(with_vectors, X2)
    head = {name: with_vectors._adapter.arrays[f"head.{name}"] for name in HEAD}

    assert (vectors.dtype, vectors.shape) == (np.float32, (36, 32))
    read = vectors @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(read, outputs, rtol=1e-4, atol=1e-4)
    both = predict_rows(with_vectors, X2, both_of)
    np.testing.assert_array_equal(both, np.hstack([outputs, vectors]))


def test_a_vector_depends_on_its_row_alone(with_vectors):
    vectors = with_vectors.transform(X2)

    np.testing.assert_array_equal(with_vectors.transform(X2[::-1])[::-1], vectors)
    few = with_vectors.transform(X2[:5])
    np.testing.assert_allclose(few, vectors[:5], rtol=1e-4, atol=1e-5)


def test_files_keep_the_vectors(with_vectors, tmp_path):
    with_vectors.save_pretrained(tmp_path / "folder")
    loaded = [
        type(with_vectors).from_pretrained(tmp_path / "folder"),
        pickle.loads(pickle.dumps(with_vectors)),
    ]

    for each in loaded:
        np.testing.assert_array_equal(each.transform(X2), with_vectors.transform(X2))
        assert each.get_feature_names_out().size == 32


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_vectors_in_a_frame(make, output):
    frame = pd.DataFrame({"text": X2}, index=range(100, 136))
    estimator = make(epochs=1).set_output(transform=output)
    vectors = estimator.fit_transform(frame, Y2, sample_weight=np.ones(36))

    assert list(vectors.columns) == [f"adaloraclassifier{i}" for i in range(32)]
    assert list(vectors.columns) == estimator.get_feature_names_out().tolist()
    if output == "pandas":
        assert vectors.index.equals(frame.index)
    again = make(epochs=1).fit(frame, Y2).transform(frame)
    np.testing.assert_array_equal(vectors.to_numpy(), again)


def test_an_estimator_is_a_step_before_another(make):
    pipeline = make_pipeline(make(), LogisticRegression())

    assert pipeline.fit(X2, Y2).score(X2, Y2) > 0.9


def test_what_has_no_vectors_says_so_before_a_model_is_loaded(make):
    with pytest.raises(NotFittedError):
        make().transform(X2)
    with pytest.raises(NotFittedError):
        make().get_feature_names_out()
    fitted = make(pooling="model", epochs=1).fit(X2, Y2).set_params(model="missing")
    for ask in (lambda: fitted.transform(X2), fitted.get_feature_names_out):
        with pytest.raises(ValueError, match="Got a fit with pooling='model'"):
            ask()


# Searches


def test_grid_search(make):
    """Every candidate is scored, and the best is refitted on all rows."""
    grid = {"target_r": [1, 2], "learning_rate": [1e-4, 0.02]}
    search = GridSearchCV(make(epochs=3), grid, cv=FOLDS, scoring="accuracy")
    search.fit(X3, Y3)

    results = search.cv_results_
    assert len(results["params"]) == 4
    assert np.isfinite(results["mean_test_score"]).all()
    assert search.best_score_ == results["mean_test_score"].max()
    refitted = make(epochs=3, **search.best_params_).fit(X3, Y3)
    np.testing.assert_array_equal(search.predict_proba(X3), refitted.predict_proba(X3))


def test_randomized_search(make):
    """By several scores, of which one chooses the best."""
    search = RandomizedSearchCV(
        make(epochs=1),
        {"learning_rate": loguniform(1e-4, 0.1), "target_r": randint(1, 4)},
        n_iter=2,
        cv=FOLDS,
        random_state=0,
        scoring=["accuracy", "neg_log_loss"],
        refit="neg_log_loss",
    ).fit(X3, Y3)

    assert (search.cv_results_["mean_test_neg_log_loss"] < 0).all()
    best = clone(search.best_estimator_).fit(X3, Y3)
    assert search.score(X3, Y3) == -log_loss(Y3, best.predict_proba(X3))


def test_cross_val_predict(make):
    """Out-of-fold probabilities are those of the estimators of the folds."""
    expected = np.empty((36, 3))
    for train, test in FOLDS.split(X3, Y3):
        fold = make().fit([X3[i] for i in train], Y3[train])
        expected[test] = fold.predict_proba([X3[i] for i in test])

    found = cross_val_predict(make(), X3, Y3, cv=FOLDS, method="predict_proba")

    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_halving_search_over_epochs(make):
    """A candidate that lasts is fitted anew with more epochs, and its own schedule."""
    search = HalvingGridSearchCV(
        make(),
        {"learning_rate": [0.01, 0.05]},
        resource="epochs",
        min_resources=1,
        max_resources=2,
        factor=2,
        cv=FOLDS,
        random_state=0,
    ).fit(X3, Y3)

    assert search.n_resources_ == [1, 2]
    assert search.best_estimator_.total_step_ == 2 * 3


# Classes that a fold lacks


RARE = np.array(["common", "other"] * 17 + ["rare", "rare"])


def test_a_class_that_a_fold_lacks_has_probability_0(make):
    """scikit-learn aligns the columns by `classes_`, and says so."""
    folds = KFold(2)  # the rare class is in the second half only
    with pytest.warns(RuntimeWarning, match="Number of classes in training fold"):
        found = cross_val_predict(make(), X3, RARE, cv=folds, method="predict_proba")

    assert found.shape == (36, 3)
    assert is_distribution(found)
    assert (found[18:, 2] == 0).all()
    assert (found[:18, 2] > 0).all()


def test_a_fold_of_one_class_fails_with_its_reason(make):
    """With `error_score` a number, the other folds are kept."""
    y = np.array([0] * 18 + [0, 1] * 9)
    with pytest.warns(FitFailedWarning, match=r"`y` must have at least 2 classes"):
        scores = cross_validate(make(), X2, y, cv=KFold(2), error_score=-1.0)

    assert scores["test_score"][1] == -1
    assert scores["test_score"][0] >= 0
    with pytest.raises(ValueError, match="Got 1 class: 0"):
        cross_validate(make(), X2, y, cv=KFold(2), error_score="raise")


# Calibration and thresholds


@pytest.mark.parametrize("ensemble", [True, False])
def test_calibrated_classifier(make, ensemble):
    calibrated = CalibratedClassifierCV(
        make(epochs=4), method="sigmoid", cv=FOLDS, ensemble=ensemble
    ).fit(X3, Y3)

    assert is_distribution(calibrated.predict_proba(X3))
    assert len(calibrated.calibrated_classifiers_) == (2 if ensemble else 1)
    assert calibrated.predict(X3).dtype == Y3.dtype


# Ensembles

OF_LISTS = {
    # TF-IDF reads a list of texts, too.
    "stacking": lambda c: StackingClassifier([("a", c), ("t", tfidf())], cv=FOLDS),
    "voting": lambda c: VotingClassifier([("a", c), ("t", tfidf())], voting="soft"),
    "one vs. rest": OneVsRestClassifier,
}
OF_TABLES = {
    "bagging": lambda c: BaggingClassifier(c, n_estimators=2, random_state=0),
    "boosting": lambda c: AdaBoostClassifier(c, n_estimators=2, random_state=0),
}


def tfidf():
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


@pytest.mark.parametrize("name", OF_LISTS)
def test_ensembles_that_take_lists_of_texts(make, name):
    ensemble = OF_LISTS[name](make(epochs=4)).fit(X3, Y3)

    assert is_distribution(ensemble.predict_proba(X3))
    assert ensemble.score(X3, Y3) > 0.5


@pytest.mark.filterwarnings("ignore:X should hold texts:UserWarning")
@pytest.mark.parametrize("name", OF_TABLES)
@pytest.mark.parametrize("X", [TABLE, np.array(X3, dtype=object)[:, np.newaxis]])
def test_ensembles_that_take_tables(make, name, X):
    """scikit-learn wants a table here: a frame, or an object array (n, 1)."""
    ensemble = OF_TABLES[name](make(epochs=4)).fit(X, Y3)

    assert is_distribution(ensemble.predict_proba(X))


OF_REGRESSORS = {
    "stacking": lambda r: StackingRegressor([("a", r), ("t", tfidf_ridge())], cv=2),
    "voting": lambda r: VotingRegressor([("a", r), ("t", tfidf_ridge())]),
    "one a target": MultiOutputRegressor,
    "logarithms": lambda r: TransformedTargetRegressor(
        r, func=np.log, inverse_func=np.exp
    ),
}


def tfidf_ridge():
    return make_pipeline(TfidfVectorizer(), Ridge())


@pytest.mark.parametrize("name", OF_REGRESSORS)
def test_ensembles_of_regressors(make_regressor, name):
    y = 1 + Y2 * 5.0
    if name == "one a target":
        y = np.column_stack([y, -y])
    ensemble = OF_REGRESSORS[name](make_regressor(epochs=1)).fit(X2, y)

    assert ensemble.predict(X2).shape == y.shape
    assert np.isfinite(ensemble.predict(X2)).all()


def test_multi_output_classifier(make):
    """Targets with labels of their own, which an indicator matrix cannot say."""
    y = np.column_stack([Y3, np.where(Y2, "good", "bad")])
    several = MultiOutputClassifier(make(epochs=1)).fit(X2, y)

    assert [c.tolist() for c in several.classes_] == [sorted(set(Y3)), ["bad", "good"]]


def test_tuned_threshold(make):
    y = (np.arange(36) % 4 == 0).astype(int)
    tuned = TunedThresholdClassifierCV(make(), cv=FOLDS).fit(X2, y)
    scores = tuned.estimator_.predict_proba(X2)[:, 1]

    np.testing.assert_array_equal(tuned.predict(X2), scores >= tuned.best_threshold_)


# Metadata routing


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_weights_are_routed_through_a_search(make, routing):
    """To the fits and to the scores of the folds, each with its own rows' weights."""
    classifier = make(epochs=1)
    classifier.set_fit_request(sample_weight=True)
    classifier.set_score_request(sample_weight=True)
    pipeline = make_pipeline(FunctionTransformer(upper_to_lower), classifier)
    folds = StratifiedKFold(2)
    weights = np.random.default_rng(0).integers(1, 4, 36).astype(float)
    search = GridSearchCV(
        pipeline, {"adaloraclassifier__target_r": [1, 2]}, cv=folds
    ).fit(X3, Y3, sample_weight=weights)

    for number, (train, test) in enumerate(folds.split(X3, Y3)):
        fold = make(epochs=1, target_r=2).fit(
            [X3[i] for i in train], Y3[train], sample_weight=weights[train]
        )
        expected = accuracy_score(
            Y3[test],
            fold.predict([X3[i] for i in test]),
            sample_weight=weights[test],
        )
        found = search.cv_results_[f"split{number}_test_score"][1]
        assert found == pytest.approx(expected)


def test_validation_rows_go_through_the_pipeline_too(make, routing):
    """If its `transform_input` names them: the estimator scores transformed rows."""
    scored = []

    def scoring(estimator, X, y):
        scored.append(X)
        return 0.5

    classifier = make(early_stopping=True, scoring=scoring)
    pipeline = Pipeline(
        [
            ("lower", FunctionTransformer(upper_to_lower)),
            ("classify", classifier.set_fit_request(X_val=True, y_val=True)),
        ],
        transform_input=["X_val"],
    )
    pipeline.fit(X3, Y3, X_val=[text.upper() for text in X3[:12]], y_val=Y3[:12])

    assert scored
    assert all(X == X3[:12] for X in scored)


# Processes and threads


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_two_jobs_give_the_scores_of_one(make, backend):
    grid = {"target_r": [1, 2], "learning_rate": [0.01, 0.02]}
    alone = GridSearchCV(make(), grid, cv=FOLDS, scoring="neg_log_loss")
    together = clone(alone).set_params(n_jobs=2)

    alone.fit(X3, Y3)
    with joblib.parallel_config(backend), warnings.catch_warnings():
        warnings.simplefilter("error")
        together.fit(X3, Y3)

    np.testing.assert_allclose(
        together.cv_results_["mean_test_score"],
        alone.cv_results_["mean_test_score"],
        atol=1e-5,
    )
    np.testing.assert_allclose(
        together.predict_proba(X3), alone.predict_proba(X3), atol=1e-5
    )

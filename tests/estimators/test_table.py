"""The estimators of mixed tables: parts, shares, learners, bad input, and copies."""

import copy
import pickle
import sys

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from _toy import QUICK, attributes, global_states, same_attributes, toy
from sklearn import clone
from sklearn.datasets import make_regression
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.svm import LinearSVC

from sk_adalora import (
    AdaLoraEncoder,
    AdaLoraSearchCV,
    AdaLoraSpace,
    AdaLoraTableClassifier,
    AdaLoraTableRegressor,
    clear_backbone_cache,
)

pytest.importorskip("skrub", reason="needs the extra `tables`")

ROLES = {
    "review": "text",
    "minutes": "number",
    "price": "number",
    "seen": "date",
    "genre": "category",
    "nothing": "empty",
}
# What tests of the other parts need no encoder for.
WORDS = {"parts": ["linear"], "random_state": 0}


def films(n_rows=60, seed=0):
    """A table with one column of each role, and what its text says: 1 or 0."""
    texts, y = toy(n_rows, seed)
    rng = np.random.default_rng(seed)
    minutes = rng.integers(80, 180, n_rows).astype(float)
    minutes[3] = np.nan
    genre = rng.choice(["drama", "comedy"], n_rows).astype(object)
    genre[4] = None
    columns = {
        "review": [f"{text} {i}" for i, text in enumerate(texts)],
        "minutes": minutes,
        "price": [f"{price:.2f}" for price in rng.uniform(5, 15, n_rows)],
        "seen": pd.date_range("2020-01-10", periods=n_rows).strftime("%d/%m/%Y"),
        "genre": genre,
        "nothing": [None] * n_rows,
    }
    return pd.DataFrame(columns), y


def numbers_of(X, y):
    """A number that both the text and the other columns tell of."""
    return y + X.minutes.fillna(130) / 50 + (X.genre == "drama")


@pytest.fixture(scope="module")
def encoder(tiny_model):
    quick = {**QUICK, "n_components": 4}
    del quick["random_state"]
    return AdaLoraEncoder(tiny_model, **quick)


@pytest.fixture(scope="module")
def fitted(encoder):
    """A classifier fitted on `films()`. Do not refit."""
    return AdaLoraTableClassifier(encoder, random_state=0).fit(*films())


@pytest.fixture
def nowhere():
    """An encoder whose model cannot be loaded: what fails before has another error."""
    return AdaLoraEncoder("/no/such/model")


# ---- what a fit does --------------------------------------------------------


def test_a_mixed_table_is_learned(fitted):
    X, y = films(seed=1)

    assert fitted.score(X, y) > 0.9
    assert fitted.column_roles_ == ROLES
    assert fitted.feature_names_in_.tolist() == list(X.columns)
    assert fitted.n_features_in_ == len(X.columns)
    assert fitted.predict_proba(X).sum(axis=1) == pytest.approx(np.ones(len(X)))
    assert np.exp(fitted.predict_log_proba(X)) == pytest.approx(fitted.predict_proba(X))


def test_shares_are_those_of_the_least_loss_out_of_fold(fitted):
    shares, scores = fitted.weights_, fitted.fit_report_.scores

    assert list(shares) == ["columns", "vectors", "text", "linear"]
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0
    least = min(scores[part]["log loss"] for part in shares)
    assert scores["blend"]["log loss"] <= least + 1e-6


def test_numbers_are_blended_by_their_squared_error(encoder):
    X, y = films(120)
    numbers = numbers_of(X, y)
    reg = AdaLoraTableRegressor(encoder, random_state=0).fit(X, numbers)
    scores = reg.fit_report_.scores
    new, labels = films(seed=1)

    assert reg.predict(new).shape == (60,)
    assert reg.score(new, numbers_of(new, labels)) > 0.7
    best = max(scores[part]["R2"] for part in reg.weights_)
    assert scores["blend"]["R2"] >= best - 1e-6


def test_out_of_fold_scores_know_nothing_of_a_random_target(encoder):
    X, _ = films(80)
    noise = np.random.default_rng(0).normal(size=80)
    reg = AdaLoraTableRegressor(encoder, random_state=0).fit(X, noise)

    assert max(score["R2"] for score in reg.fit_report_.scores.values()) < 0.15


def test_the_report_is_a_table(fitted, encoder):
    report = fitted.fit_report_

    assert report.n_rows == 60
    assert report.columns == ROLES
    assert report.weights == fitted.weights_
    assert report.part_seconds.keys() == fitted.weights_.keys()
    assert 0 < sum(report.part_seconds.values()) <= report.seconds
    lines = str(report).splitlines()
    assert "number   minutes, price" in lines
    assert lines[-6].split() == ["part", "weight", "accuracy", "log", "loss", "seconds"]
    assert [line.split()[0] for line in lines[-5:]] == [*fitted.weights_, "blend"]


def test_verbose_says_each_step(encoder, capsys):
    AdaLoraTableClassifier(encoder, cv=2, verbose=1, random_state=0).fit(*films())
    said = capsys.readouterr()

    assert said.out == ""
    for words in (
        "review text",
        "text: 3 fits",
        "vectors: 2 fits",
        "linear: 2",
        "weights:",
    ):
        assert words in said.err


def test_a_part_without_a_share_is_not_computed(nowhere):
    X, y = films()
    clf = AdaLoraTableClassifier(nowhere, **WORDS).fit(X, y)

    assert clf.weights_ == {"linear": 1.0}
    assert clf.encoder_ is None
    assert clf.score(X, y) > 0.9


def test_text_alone_needs_no_learner_of_tables(encoder):
    texts, y = toy()
    clf = AdaLoraTableClassifier(encoder, random_state=0).fit(texts, y)

    assert list(clf.weights_) == ["text", "linear"]
    assert clf.score(texts, y) > 0.9
    table = AdaLoraTableClassifier(encoder, parts=("vectors",), random_state=0)
    assert table.fit(texts, y).weights_ == {"vectors": 1.0}


def test_without_text_there_is_the_final_estimator_alone(nowhere):
    X, y = films()
    clf = AdaLoraTableClassifier(nowhere, random_state=0)
    with pytest.warns(UserWarning, match="found no column of text") as warnings:
        clf.fit(X.drop(columns="review"), y)

    assert len(warnings) == 1
    assert clf.weights_ == {"columns": 1.0}
    assert clf.encoder_ is None


def test_an_encoder_that_is_not_tuned_gives_vectors_alone(encoder):
    X, y = films()
    frozen = clone(encoder).set_params(tune=False)
    clf = AdaLoraTableClassifier(frozen, random_state=0).fit(X, y)

    assert list(clf.weights_) == ["columns", "vectors", "linear"]
    assert len(clf.predict(X)) == len(X)


# ---- targets ----------------------------------------------------------------


def test_a_class_of_fewer_rows_than_folds_is_spread(encoder):
    X, y = films()
    labels = np.where(y == 1, "fresh", "rotten").astype(object)
    labels[7] = "odd"
    clf = AdaLoraTableClassifier(encoder, random_state=0).fit(X, labels)

    assert clf.classes_.tolist() == ["fresh", "odd", "rotten"]
    assert clf.predict_proba(X).shape == (60, 3)


def test_a_fold_may_lack_all_classes_but_one():
    X, _ = films(9)
    y = np.arange(9) == 8
    clf = AdaLoraTableClassifier(**WORDS).fit(X, y)

    assert clf.classes_.tolist() == [False, True]
    assert np.isfinite(clf.fit_report_.scores["linear"]["log loss"])


@pytest.mark.parametrize(
    "final",
    [None, HistGradientBoostingClassifier(max_iter=9), RandomForestClassifier(5)],
)
def test_several_labels_a_row(encoder, final):
    X, y = films()
    never, other = np.zeros_like(y), np.arange(60) % 3 == 0
    labels = np.column_stack([y, 1 - y, other, never])
    clf = AdaLoraTableClassifier(encoder, final, random_state=0).fit(X, labels)
    probabilities = clf.predict_proba(X)

    assert probabilities.shape == (60, 4)
    assert (probabilities[:, 3] < 0.2).all()
    assert ((clf.predict(X) == 1) == (probabilities > 0.5)).all()


def test_several_numbers_a_row(encoder):
    X, y = films()
    numbers = np.column_stack([y, 1000 * numbers_of(X, y)])
    reg = AdaLoraTableRegressor(encoder, random_state=0).fit(X, numbers)

    assert reg.predict(X).shape == (60, 2)
    assert reg.score(X, numbers) > 0.5


def test_rows_of_weight_0_do_not_count(encoder):
    X, y = films()
    weights = np.where(np.arange(60) < 48, 1.0, 0.0)
    wrong = np.where(weights == 0, 2, y)
    clf = AdaLoraTableClassifier(encoder, random_state=0)
    with_all = clone(clf).fit(X, wrong, sample_weight=weights)
    without = clone(clf).fit(X[:48], y[:48], sample_weight=weights[:48])

    assert with_all.classes_.tolist() == [0, 1]
    assert with_all.fit_report_.n_rows == 48
    np.testing.assert_array_equal(with_all.predict_proba(X), without.predict_proba(X))


def test_folds_of_the_user_count_all_rows(encoder):
    X, y = films()
    weights = np.r_[np.zeros(4), np.ones(56)]
    own = [(np.arange(30, 60), np.arange(30)), (np.arange(30), np.arange(30, 60))]
    shifted = [(a[a >= 4] - 4, b[b >= 4] - 4) for a, b in own]
    clf = AdaLoraTableClassifier(encoder, cv=own, random_state=0)
    expected = clone(clf).set_params(cv=shifted).fit(X[4:], y[4:], weights[4:])

    scores = clf.fit(X, y, sample_weight=weights).fit_report_.scores
    assert scores == expected.fit_report_.scores


def test_weights_pass_where_metadata_is_routed(encoder):
    X, y = films()
    labels, weights = np.column_stack([y, 1 - y]), np.linspace(1, 2, 60)
    clf = AdaLoraTableClassifier(encoder, random_state=0)
    expected = clone(clf).fit(X, labels, weights).predict_proba(X)

    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True).fit(X, labels, sample_weight=weights)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def test_weights_of_classes_are_weights_of_rows(encoder):
    X, y = films()
    y = y * (np.arange(60) % 3 > 0)
    by_class = AdaLoraTableClassifier(encoder, class_weight={1: 5}, random_state=0)
    by_row = AdaLoraTableClassifier(encoder, random_state=0)
    expected = by_row.fit(X, y, sample_weight=np.where(y == 1, 5, 1)).predict_proba(X)

    np.testing.assert_array_equal(by_class.fit(X, y).predict_proba(X), expected)
    assert (
        AdaLoraTableClassifier(class_weight="balanced", **WORDS).fit(X, y).score(X, y)
    )


# ---- learners ---------------------------------------------------------------


@pytest.mark.parametrize(
    "final",
    [
        LogisticRegression(),
        HistGradientBoostingClassifier(max_iter=5, categorical_features=None),
        RandomForestClassifier(5),
        make_pipeline(PolynomialFeatures(interaction_only=True), LogisticRegression()),
    ],
)
def test_any_classifier_may_be_the_final_one(encoder, final):
    X, y = films()
    before = repr(final)
    clf = AdaLoraTableClassifier(encoder, final, parts=["vectors"], random_state=0)
    clf.fit(X, np.where(y == 1, "fresh", "rotten"))
    new = X.assign(genre="unheard of", minutes=None, seen=None, nothing="something")

    assert clf.predict(new).shape == (60,)
    assert repr(final) == before
    assert not hasattr(final, "classes_")


def test_a_category_of_many_values_has_vectors(encoder):
    X, y = films(120)
    X["zip"] = [f"{10_000 + 7 * (i % 50)}" for i in range(120)]
    clf = AdaLoraTableClassifier(encoder, column_roles={"zip": "category"})
    first, second = (clone(clf).set_params(random_state=1).fit(X, y) for _ in range(2))

    assert first.column_roles_["zip"] == "category"
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (AdaLoraTableClassifier(final_estimator=Ridge()), "a classifier. Got Ridge"),
        (AdaLoraTableRegressor(final_estimator=LinearSVC()), "a regressor. Got Linear"),
        (
            AdaLoraTableClassifier(final_estimator=LinearSVC()),
            "must have `predict_proba`",
        ),
        (
            AdaLoraTableClassifier(
                final_estimator=KNeighborsClassifier(), class_weight="balanced"
            ),
            "must take `sample_weight`.*Got KNeighborsClassifier",
        ),
        (AdaLoraTableClassifier(final_estimator=Ridge), "scikit-learn's interface"),
        (AdaLoraTableClassifier("bert"), "an AdaLoraEncoder, or None. Got 'bert'"),
        (
            AdaLoraTableClassifier(parts=["tabel"]),
            "some of 'columns', 'vectors', 'text', 'linear'",
        ),
        (AdaLoraTableClassifier(parts="table"), "in a tuple or list. Got 'table'"),
        (AdaLoraTableClassifier(cv=1), "an int of at least 2"),
        (AdaLoraTableClassifier(column_roles={"preis": "text"}), "you mean 'price'"),
    ],
)
def test_a_wrong_parameter_is_an_error_before_the_model_is_loaded(
    estimator, message, nowhere
):
    X, y = films()
    if estimator.encoder is None:
        estimator = clone(estimator).set_params(encoder=nowhere)
    before = attributes(estimator)

    with pytest.raises(ValueError, match=message):
        estimator.fit(X, y)
    assert same_attributes(estimator, before)


@pytest.mark.parametrize(
    ("cls", "final"),
    [
        (AdaLoraTableClassifier, GradientBoostingClassifier()),
        (AdaLoraTableRegressor, GradientBoostingRegressor()),
    ],
)
def test_several_outputs_need_an_estimator_that_has_them(cls, final, nowhere, encoder):
    X, y = films()
    several = np.column_stack([y, 1 - y])

    with pytest.raises(ValueError, match="Wrap it in sklearn"):
        cls(nowhere, final).fit(X, several)
    if cls is AdaLoraTableRegressor:
        final = MultiOutputRegressor(LinearRegression())
        assert cls(encoder, final, cv=2).fit(X, several).predict(X).shape == (60, 2)


# ---- bad input --------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:0], y[:0]), "0 sample"),
        (lambda X, y: (X, None), "requires y to be passed"),
        (lambda X, y: (X, "genre"), r"pass X\['genre'\]"),
        (lambda X, y: (X, y[:9]), "same number of rows. Got 60 and 9"),
        (lambda X, y: (X, y * 0), "at least 2 classes"),
        (lambda X, y: (X, y / 3 + 0.1), "Unknown label type"),
        (lambda X, y: (X[:2], y[:2]), "at most the number of rows. Got 3 for 2"),
        (
            lambda X, y: (X[["nothing"]], y),
            "a column with values. Got none in 'nothing'",
        ),
        (lambda X, y: (X.assign(price=np.inf), y), "'price' must hold finite numbers"),
        (lambda X, y: (X.minutes.fillna(1), y), "one text for each sample"),
        (lambda X, y: (X, y, np.zeros(60)), "non-zero"),
        (
            lambda X, y: (X, y, np.eye(60)[0]),
            r"At least 2 rows .*Got 1 sample\(s\) of 60",
        ),
        (lambda X, y: (X, y, y), "at least 2 classes"),
    ],
)
def test_bad_rows_are_an_error_before_the_model_is_loaded(change, message, nowhere):
    rng = np.random.RandomState(0)
    drawn = rng.get_state()[1].copy()
    clf = AdaLoraTableClassifier(nowhere, random_state=rng)
    before = attributes(clf)

    with pytest.raises(ValueError, match=message):
        clf.fit(*change(*films()))
    assert same_attributes(clf, before)
    if "number of rows. Got 3" not in message:
        np.testing.assert_array_equal(rng.get_state()[1], drawn)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda X: X.astype({"minutes": object}).replace(X.minutes[5], "long"),
            "'long'",
        ),
        (lambda X: X.replace(X.price[5], "free"), "'price'.*'number'.*'free' in row 5"),
        (lambda X: X.replace(X.seen[5], "then"), "'seen'.*'date'.*'then' in row 5"),
        (lambda X: X.drop(columns="price"), "missing:\n- price"),
        (lambda X: X.rename(columns={"price": "cost"}), "unseen at fit time:\n- cost"),
        (lambda X: X[X.columns[::-1]], "same order"),
        (lambda X: X[:0], "0 sample"),
    ],
)
def test_other_columns_are_an_error_before_the_model_is_loaded(change, message, fitted):
    clf = pickle.loads(pickle.dumps(fitted))
    clf.encoder_.model = "/no/such/model"

    with pytest.raises(ValueError, match=message):
        clf.predict(change(films()[0]))


def test_what_is_not_fitted_does_not_predict():
    with pytest.raises(ValueError, match="not fitted yet"):
        AdaLoraTableClassifier().predict(films()[0])


def test_a_missing_skrub_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skrub", None)

    with pytest.raises(ImportError, match=r"pip install 'sk-adalora\[tables\]'"):
        AdaLoraTableClassifier().fit(*films())


# ---- rows, copies, searches -------------------------------------------------


def test_all_kinds_of_tables_predict_alike(fitted):
    X, y = films()
    expected = fitted.predict_proba(X)
    dense = X.astype(object).where(X.notna(), None)
    tables = [
        pl.DataFrame(dense.to_dict("list"), strict=False),
        pa.Table.from_pandas(X),
        datasets.Dataset.from_pandas(X, preserve_index=False),
    ]
    for table in tables:
        np.testing.assert_allclose(fitted.predict_proba(table), expected, atol=1e-6)

    unnamed = clone(fitted).fit(dense.to_numpy(), y)
    assert list(unnamed.column_roles_.values()) == list(ROLES.values())
    assert unnamed.predict(dense.to_numpy().tolist()).shape == (60,)


def test_a_prediction_does_not_depend_on_the_rows_beside(fitted):
    X, _ = films()
    together = fitted.predict_proba(X)
    order = np.random.default_rng(0).permutation(60)
    alone = np.concatenate([fitted.predict_proba(X[i : i + 1]) for i in range(9)])

    np.testing.assert_allclose(alone, together[:9], atol=1e-6)
    np.testing.assert_allclose(
        fitted.predict_proba(X.iloc[order]), together[order], atol=1e-6
    )


def test_the_same_seed_gives_the_same_predictions(fitted):
    X, y = films()
    before = global_states()
    again = clone(fitted).fit(X, y)

    assert global_states() == before
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.weights_ == fitted.weights_


def test_parameters_are_left_as_they_are(encoder):
    X, y = films()
    final = HistGradientBoostingClassifier(max_iter=5)
    clf = AdaLoraTableClassifier(encoder, final, cv=KFold(2), random_state=0)
    before = {name: repr(value) for name, value in clf.get_params().items()}
    clf.fit(X, y)

    assert {name: repr(value) for name, value in clf.get_params().items()} == before
    assert clf.encoder is encoder
    assert clf.final_estimator is final
    assert not hasattr(encoder, "ranks_")
    assert isinstance(clf.encoder_.cv, int)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda fitted: pickle.loads(pickle.dumps(fitted))]
)
def test_a_copy_predicts_the_same(fitted, copied):
    X, _ = films()
    again = copied(fitted)
    clear_backbone_cache()

    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.fit_report_ == fitted.fit_report_
    assert b"sk_adalora.estimators" not in pickle.dumps(fitted)


def test_parameters_of_a_default_can_be_set_by_name():
    clf = AdaLoraTableClassifier()
    clf.set_params(encoder__target_r=4, final_estimator__max_iter=7, cv=2)

    assert AdaLoraTableClassifier().get_params()["encoder__target_r"] == 8
    assert (clf.encoder.target_r, clf.final_estimator.max_iter, clf.cv) == (4, 7, 2)
    with pytest.raises(ValueError, match="Invalid parameter 'target'"):
        AdaLoraTableRegressor().set_params(encoder__target=4)


def test_a_search_sets_parameters_of_both(encoder):
    X, y = films()
    clf = AdaLoraTableClassifier(encoder, cv=2, random_state=0)
    grid = {"encoder__target_r": [1, 2], "final_estimator__max_iter": [3]}
    search = GridSearchCV(clf, grid, cv=2).fit(X, y)

    assert search.best_estimator_.final_estimator.max_iter == 3
    assert search.best_estimator_.encoder_.target_r in (1, 2)


def test_a_search_with_optuna_finds_the_encoder(encoder, quiet_optuna):
    clf = AdaLoraTableClassifier(encoder, cv=2, random_state=0)
    space = AdaLoraSpace(target_r=[1, 2], learning_rate=None)
    search = AdaLoraSearchCV(clf, space, n_trials=1, cv=2, random_state=0)

    assert "encoder__target_r" in search.fit(*films()).best_params_


def test_cross_validation_of_a_regressor_without_text():
    X, y = make_regression(90, 5, random_state=0)
    reg = AdaLoraTableRegressor(final_estimator=Ridge(0.1), random_state=0)
    with pytest.warns(UserWarning, match="no column of text"):
        scores = cross_val_score(reg, X, y, cv=2)

    assert scores.min() > 0.8

"""AdaLoraRegressor: targets, their units, weights, and its documentation."""

import functools
import inspect

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from _toy import QUICK, attributes, make_regressor, same_attributes, toy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import config_context
from sklearn.metrics import r2_score
from test_public_api import section

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora.data.targets import read_number_targets

TEXTS, SIGNS = toy(40)
Y = 100.0 * SIGNS + 7.0  # 7 and 107: neither centred nor of unit spread


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a regressor that is quick to fit."""
    return functools.partial(make_regressor, tiny_model)


@pytest.fixture(scope="module")
def fitted(make):
    """A fitted regressor; do not refit it."""
    return make().fit(TEXTS, Y)


def same_fit(one, other):
    """Whether two fits predict the same to the last bit."""
    return np.array_equal(one.predict(TEXTS), other.predict(TEXTS))


# Shapes and units


def test_it_learns_a_separable_set(make):
    regressor = make(epochs=30, learning_rate=0.03).fit(TEXTS, Y)

    assert regressor.score(TEXTS, Y) > 0.9
    predicted = regressor.predict(TEXTS)
    assert np.abs(predicted[SIGNS == 1] - 107).mean() < 20
    assert np.abs(predicted[SIGNS == 0] - 7).mean() < 20


def test_the_score_is_r2_of_the_targets_own_units(fitted):
    residual = Y - fitted.predict(TEXTS)
    r2 = 1 - (residual**2).sum() / ((Y - Y.mean()) ** 2).sum()

    assert fitted.score(TEXTS, Y) == pytest.approx(r2)


@settings(max_examples=5)
@given(
    scale=st.floats(1e-3, 1e6),
    shift=st.floats(-1e6, 1e6),
)
def test_units_change_predictions_as_they_change_targets(make, fitted, scale, shift):
    """Twice the targets, twice the predictions: training sees no units."""
    other = make().fit(TEXTS, Y * scale + shift)
    expected = fitted.predict(TEXTS) * scale + shift

    tolerance = 1e-3 * np.std(Y * scale)
    np.testing.assert_allclose(other.predict(TEXTS), expected, atol=tolerance)


@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 3)])
def test_predictions_have_the_shape_of_the_targets(make, shape):
    y = np.resize(Y, shape[::-1]).T
    regressor = make(epochs=1).fit(TEXTS, y)

    predicted = regressor.predict(TEXTS[:5])

    assert predicted.shape == (5, *shape[1:])
    assert predicted.dtype == np.float64
    assert np.isfinite(regressor.score(TEXTS, y))


def test_a_constant_column_is_predicted_beside_one_that_is_learned(make):
    y = np.column_stack([np.full(40, 1e-6), Y])
    regressor = make(epochs=30, learning_rate=0.03).fit(TEXTS, y)
    constant, learned = regressor.predict(TEXTS).T

    np.testing.assert_allclose(constant, 1e-6, rtol=1e-12)
    assert r2_score(Y, learned) > 0.8


def standardised(y, weights=None):
    """What a fit makes of targets: mean, spread, and what the head is trained on."""
    targets, values = read_number_targets(y)
    if weights is not None:
        weights = torch.from_numpy(weights)
    fitted, trained = targets.encode(values, weights, None, False)
    return fitted.mean, fitted.scale, trained.numpy()


@pytest.mark.parametrize("n", [39, 100_000])
@pytest.mark.parametrize("value", [0.0, -3.5, 0.1, 1e-8, 1 / 3, 1e12])
@pytest.mark.parametrize("beside", [[0.0, 1.0], [0.0, -1.0], [1 / 3]])
def test_rounding_of_equal_numbers_is_no_spread(n, value, beside):
    """The mean of equal numbers may differ from them in the last bit."""
    mean, scale, _ = standardised(
        np.column_stack([np.resize(beside, n), np.full(n, value)])
    )

    assert (mean[1], scale[1]) == (value, 0)


@pytest.mark.parametrize("factor", [-1.0, 2.0**700, -(2.0**700), 2.0**-700])
def test_mean_and_spread_change_as_the_targets_do(factor):
    """To the last bit, as the factor is a power of 2, and whatever its sign."""
    y = np.column_stack([np.append(0.0, Y), np.resize([0.3, 0.1 + 0.2], 41)])
    mean, scale, _ = standardised(y)
    with np.errstate(all="raise"):
        means, scales, _ = standardised(y * factor)

    assert scale[1] == 0  # numbers that differ by rounding
    np.testing.assert_array_equal(means, mean * factor)
    np.testing.assert_array_equal(scales, scale * abs(factor))


@pytest.mark.parametrize("size", [1e15, 1e20, 1e300])
def test_rounding_of_large_numbers_is_not_trained_on(size):
    """Unscaled, such differences would outweigh the columns beside them."""
    rounded = size + np.spacing(size) * np.resize([-1, 0, 1, 2], 40)
    _, _, trained = standardised(np.column_stack([rounded, Y]))

    assert not trained[:, 0].any()
    assert float(trained[:, 1].std()) == pytest.approx(1, abs=0.02)


def test_a_row_that_has_practically_all_of_the_weight_is_predicted():
    y = 1e12 + np.linspace(-1, 1, 40)
    weights = np.where(np.arange(40) == 3, 1e12, 1.0)

    mean, scale, _ = standardised(y, weights)
    assert (mean, scale) == (y[3], 0)


@given(
    y=hnp.arrays(float, 12, elements=st.floats(-1e3, 1e3)),
    weights=hnp.arrays(int, 12, elements=st.integers(1, 4)),
)
@example(y=np.array([1.0] + [4e-82] * 11), weights=np.ones(12, int))  # was an overflow
@example(y=np.array([0.0, 5e-324] + [0.0] * 10), weights=np.ones(12, int))
def test_a_weight_of_three_standardises_as_three_rows(y, weights):
    mean, scale, _ = standardised(y, weights)
    repeated = np.repeat(y, weights)

    np.testing.assert_allclose(mean, repeated.mean(), atol=1e-9)
    if np.ptp(repeated) > 1e-6:
        np.testing.assert_allclose(scale, repeated.std(), rtol=1e-6)


# Containers and types


@pytest.mark.parametrize(
    "convert",
    [
        list,
        lambda y: y.astype(int),
        lambda y: y.astype(np.float32),
        lambda y: y.astype(object),
        lambda y: y[::-1].copy()[::-1],
        lambda y: np.rec.fromarrays([np.zeros(40, np.int32), y], names="id,y")["y"],
        lambda y: pd.Series(y, index=np.arange(40)[::-1]),
        lambda y: pd.Series(y[::-1].copy())[::-1],
        lambda y: pd.Series(y).astype("Int64"),
        lambda y: pl.Series(y),
        lambda y: y[:, np.newaxis],
    ],
    ids=[
        *("list", "int", "float32", "object", "backwards", "field", "Series"),
        *("backwards Series", "Int64", "polars", "column"),
    ],
)
def test_targets_in_other_containers(make, fitted, convert):
    predicted = make().fit(TEXTS, convert(Y)).predict(TEXTS)

    np.testing.assert_array_equal(predicted.ravel(), fitted.predict(TEXTS))


@pytest.mark.parametrize(
    "convert",
    [
        lambda a, b: pd.DataFrame({"b": b, "a": a})[["a", "b"]],
        lambda a, b: pl.DataFrame({"a": a, "b": b}),
        lambda a, b: np.column_stack([b, a])[:, ::-1],
    ],
    ids=["pandas", "polars", "backwards"],
)
def test_several_targets_in_other_containers(make, convert):
    plain = make(epochs=1).fit(TEXTS, np.column_stack([Y, -Y]))

    assert same_fit(make(epochs=1).fit(TEXTS, convert(Y, -Y)), plain)


@pytest.mark.parametrize("dispatch", [False, True])
def test_targets_in_a_tensor(make, fitted, dispatch, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # scikit-learn asks for it
    y = torch.tensor(Y)
    with config_context(array_api_dispatch=dispatch):
        assert same_fit(make().fit(TEXTS, y), fitted)
        watching = {"epochs": 4, "early_stopping": True}
        stopped = make(**watching).fit(TEXTS, y, X_val=TEXTS, y_val=y)
        with pytest.raises(ValueError, match="y contains NaN"):
            make().fit(TEXTS, torch.where(y > 50, torch.nan, y))

    assert same_fit(stopped, make(**watching).fit(TEXTS, Y, X_val=TEXTS, y_val=Y))


# Refused targets


DAYS = np.datetime64("2024-01-01", "ns") + np.arange(40).astype("m8[D]")
BAD_Y = {
    "NaN": (np.where(Y > 50, np.nan, Y), "contains NaN"),
    "infinity": (np.where(Y > 50, np.inf, Y), "contains inf"),
    "None": ([None, *Y[1:]], "contains NaN"),
    "three dimensions": (np.zeros((40, 1, 1)), "dim 3"),
    "no columns": (np.zeros((40, 0)), r"0 feature\(s\)"),
    "words": (["much"] * 40, "Got text: .*'much'. Use AdaLoraClassifier"),
    "records": ([{"a": 1}] * 40, "a real number, not 'dict'"),
    "complex": (Y * 1j, "Complex data not supported"),
    "short": (Y[:-1], "same number of rows. Got 40 and 39"),
    "sparse": (scipy.sparse.csr_array(Y.reshape(40, 1)), "Sparse data was passed"),
    "dates": (DAYS, "Got datetime64.*Divide durations by"),
    "durations of pandas": (pd.DataFrame({"b": DAYS - DAYS[0]}), "Got timedelta64"),
    "dates of polars": (pl.DataFrame({"a": Y, "b": DAYS}), "Got datetime64"),
    "Arrow": (pa.RecordBatch.from_pydict({"b": DAYS}), "Got datetime64"),
    "a date among others": ([None, *DAYS[1:].astype("M8[D]").tolist()], "Got date"),
}


@pytest.mark.parametrize("name", BAD_Y)
@pytest.mark.parametrize("to_validate", [False, True])
def test_what_is_no_numbers_is_refused_before_a_model_is_loaded(name, to_validate):
    regressor = make_regressor("unused", early_stopping=to_validate)
    y, match = BAD_Y[name]
    before = attributes(regressor)

    bad = {"y": Y, "X_val": TEXTS, "y_val": y} if to_validate else {"y": y}
    with pytest.raises((ValueError, TypeError), match=match):
        regressor.fit(TEXTS, **bad)
    assert same_attributes(regressor, before)


@pytest.mark.parametrize(("n", "n_val"), [(1, 2), (3, 2)])
def test_validation_targets_have_the_columns_of_the_targets(n, n_val):
    early = make_regressor("unused", early_stopping=True)
    y, y_val = (np.tile(Y[:, np.newaxis], k) for k in (n, n_val))
    with pytest.raises(ValueError, match=rf"columns as `y`: {n}\. Got {n_val}\."):
        early.fit(TEXTS, y, X_val=TEXTS, y_val=y_val)


# Weights


@pytest.mark.parametrize("weight", [[0.25] * 40, 2], ids=["list", "number"])
def test_equal_weights_are_no_weights(make, fitted, weight):
    """Nor is a number, which is the weight of each row."""
    assert same_fit(make().fit(TEXTS, Y, sample_weight=weight), fitted)


def test_weights_say_which_rows_are_learned(make):
    """Two labels for the same texts: the heavier one is believed."""
    texts, y = TEXTS * 2, np.concatenate([Y, 114 - Y])
    weights = np.repeat([1.0, 0.0], 40)
    regressor = make(epochs=15, learning_rate=0.03)

    assert regressor.fit(texts, y, sample_weight=weights).score(TEXTS, Y) > 0.8
    weighted = regressor.score(texts, y, sample_weight=weights)
    assert weighted == pytest.approx(regressor.score(TEXTS, Y))
    assert regressor.fit(texts, y, sample_weight=weights[::-1]).score(TEXTS, Y) < 0


# Early stopping, and scikit-learn


@pytest.mark.parametrize("columns", [1, 3])
def test_early_stopping_watches_r2(make, columns):
    y = np.column_stack([Y, -Y, Y])[:, :columns]
    regressor = make(early_stopping=True, epochs=4)
    regressor.fit(TEXTS, y, X_val=TEXTS[:10], y_val=y[:10])
    history = regressor.history_

    assert len(history.score) == regressor.n_iter_ <= 4
    best = history.score[history.best_epoch]
    assert regressor.score(TEXTS[:10], y[:10]) == pytest.approx(best, abs=1e-5)


def test_targets_that_are_held_out_teach_nothing(make):
    held = []

    def watch(estimator, X, y):
        held.extend(y)
        return 0.0

    early = make(early_stopping=True, scoring=watch)
    y = Y + np.arange(40)
    predicted = early.fit(TEXTS, y).predict(TEXTS)
    apart = np.isin(y, held)
    early.fit(TEXTS, y + 1000 * apart)

    assert apart.sum() == 4
    np.testing.assert_array_equal(early.predict(TEXTS), predicted)


def test_a_second_fit_forgets_the_first(make, fitted):
    regressor = make().fit(TEXTS[:20], np.column_stack([Y[:20], Y[:20]]))

    assert same_fit(regressor.fit(TEXTS, Y), fitted)
    assert regressor.predict(TEXTS).shape == (40,)


def test_it_has_what_regressors_have_and_no_more(fitted):
    assert not hasattr(fitted, "predict_proba")
    assert not hasattr(fitted, "classes_")
    assert "class_weight" not in fitted.get_params()
    assert fitted.__sklearn_tags__().target_tags.multi_output


# Documentation


@pytest.mark.parametrize("estimator", [AdaLoraClassifier, AdaLoraRegressor])
def test_fitted_attributes_are_those_of_the_documentation(estimator, tiny_model):
    """And those that editors know."""
    data = pd.DataFrame({"text": TEXTS})
    fitted = estimator(tiny_model, **QUICK).fit(data, SIGNS)
    public = {n for n in vars(fitted) if n.endswith("_")}
    if estimator is AdaLoraClassifier:  # which has them on demand
        public |= {"temperature_", "thresholds_"}
    declared = {n for base in estimator.__mro__ for n in inspect.get_annotations(base)}
    lines = section(estimator.__doc__, "Attributes")

    assert public == {line.split(" : ")[0] for line in lines if line[:1].strip()}
    assert public == {n for n in declared if n.endswith("_")}

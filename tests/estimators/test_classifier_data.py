"""Labels in any container and of any type, and texts that are odd."""

import enum

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from _toy import make, toy
from sklearn.base import clone

# Labels

LABELS = {
    "str": np.array(["no", "yes"]),
    "long str": np.array(["a", "b" * 40]),
    "object": np.array(["no", "yes"], dtype=object),
    "int": np.array([-5, 17]),
    "int8": np.array([-1, 1], dtype=np.int8),
    "uint64": np.array([1, 2**63], dtype=np.uint64),
    "bool": np.array([False, True]),
    "float32": np.array([-1.0, 2.0], dtype=np.float32),
    "unicode": np.array(["été", "冬"]),
    "empty": np.array(["", "x"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_come_back_as_they_were(tiny_model, name):
    X, codes = toy(32)
    labels = LABELS[name]
    fitted = make(tiny_model, epochs=1).fit(X, labels[codes])
    predicted = fitted.predict(X)

    np.testing.assert_array_equal(fitted.classes_, labels)
    assert fitted.classes_.dtype == predicted.dtype == labels.dtype
    np.testing.assert_array_equal(
        predicted, labels[fitted.predict_proba(X).argmax(axis=1)]
    )


class Answer(str, enum.Enum):  # noqa: UP042 - of a StrEnum NumPy takes the values
    NO = "no"
    YES = "yes"


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "series with other index": lambda y: pd.Series(y, index=range(100, 100 + len(y))),
    "unused category": lambda y: pd.Categorical(y, categories=["zzz", "no", "yes"]),
    "categorical series": lambda y: pd.Series(y, dtype="category"),
    "string series": lambda y: pd.Series(y, dtype="string"),
    "object series": lambda y: pd.Series(y, dtype=object),
    "index": pd.Index,
    "polars": pl.Series,
    "polars categorical": lambda y: pl.Series(y, dtype=pl.Categorical),
    "arrow": pa.array,
    "masked array without masks": np.ma.masked_array,
    "dataset column": lambda y: datasets.Dataset.from_dict({"y": y})["y"],
    "list of strings of NumPy's and others": lambda y: [np.str_(y[0]), *y[1:]],
    "list of a StrEnum": lambda y: [*map(enum.StrEnum("A", ["no", "yes"]), y)],
    "array of an Enum": lambda y: np.array([*map(Answer, y)], dtype=object),
}


@pytest.fixture(scope="module", params=["all rows", "early stopping"])
def plain(request, tiny_model):
    """Fitted to `toy(40)`, a list and an array of integers. Do not refit."""
    stops = request.param == "early stopping"
    classifier = make(tiny_model, early_stopping=stops, validation_fraction=0.2)
    return classifier.fit(*toy(40))


@pytest.mark.parametrize("name", CONTAINERS)
def test_labels_in_any_container(plain, name):
    X, codes = toy(40)
    labels = np.array(["no", "yes"])
    fitted = clone(plain).fit(X, CONTAINERS[name](labels[codes].tolist()))

    assert fitted.classes_.tolist() == labels.tolist()
    np.testing.assert_array_equal(fitted.predict_proba(X), plain.predict_proba(X))
    assert fitted.predict(X).tolist() == labels[plain.predict(X)].tolist()


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "category", "int8[pyarrow]"])
def test_types_of_pandas_stay_what_they_are(tiny_model, dtype):
    X, y = toy(16)
    series = pd.Series(y).astype(dtype)
    classes = make(tiny_model, epochs=1).fit(X, series).classes_

    assert classes.tolist() == [0, 1]
    assert classes.dtype.kind == ("b" if dtype == "boolean" else "i")


@pytest.mark.parametrize(
    "convert", [np.asarray, pd.DataFrame, lambda y: pd.DataFrame(y, dtype="Int64")]
)
def test_a_column_of_labels_is_taken_with_a_warning(tiny_model, convert):
    X, y = toy(16)

    with pytest.warns(UserWarning, match="column-vector y was passed"):
        fitted = make(tiny_model, epochs=1).fit(X, convert(y.reshape(-1, 1)))
    assert fitted.classes_.dtype == y.dtype
    assert fitted.predict(X).shape == (16,)


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        np.ndarray.tolist,
        lambda y: y.astype(bool),
        lambda y: pd.DataFrame(y, dtype="Int64"),
        scipy.sparse.csr_matrix,
        lambda y: scipy.sparse.coo_array(y.astype(bool)),
    ],
)
def test_an_indicator_matrix_in_any_container(tiny_model, convert):
    X, y = toy(16)
    indicator = np.array([y, 1 - y, y * 0]).T
    fitted, expected = (
        make(tiny_model, epochs=1, early_stopping=True).fit(X, matrix)
        for matrix in (convert(indicator), indicator)
    )

    assert fitted.classes_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(fitted.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("names", [["1", "2"], [1, 2], [-1.0, 1.0], [False, True]])
def test_weights_of_classes_are_those_of_rows(tiny_model, names):
    X, codes = toy(16)
    y = np.array(names)[codes]
    rows = np.where(codes == 1, 3.0, 1.0)
    by_class, by_row, balanced, scaled = (
        make(tiny_model, epochs=1, class_weight=weight).fit(X, y, sample_weight=of_rows)
        for weight, of_rows in (
            ({names[1]: 3}, None),
            (None, rows),
            ("balanced", rows),
            (None, None),
        )
    )

    def proba(fitted):
        return fitted.predict_proba(X)

    np.testing.assert_allclose(proba(by_class), proba(by_row), atol=1e-6)
    np.testing.assert_allclose(proba(balanced), proba(scaled), atol=1e-6)


def test_many_classes_in_any_order(tiny_model):
    X = [f"{word} film" for word in "abcdefghij"] * 4 + ["zero"]  # a class of one row
    y = [*np.tile(np.array([7, 3, 9, 1, 0, 8, 2, 6, 5, 4]) * 10, 4), 100]
    fitted = make(tiny_model, epochs=1).fit(X, y)

    assert fitted.classes_.tolist() == list(range(0, 101, 10))
    assert fitted.predict_proba(X).shape == (41, 11)


# Texts


def test_missing_and_empty_texts(tiny_model):
    X, y = toy(16)
    X[3], X[5], X[7], X[9] = None, "", float("nan"), "  \n "
    fitted = make(tiny_model).fit(X, y)
    proba = fitted.predict_proba([None, "", float("nan"), pd.NA])

    assert fitted.fit_report_.n_empty == 4
    assert np.isfinite(proba).all()
    assert np.all(proba == proba[0])


def test_nothing_but_empty_texts(tiny_model):
    with pytest.warns(UserWarning, match="must differ. Got 4 rows .* no text in any"):
        fitted = make(tiny_model).fit(["", None, "", None], [0, 1, 0, 1])

    assert fitted.fit_report_.n_empty == 4
    assert fitted.fit_report_.n_distinct == 1
    assert np.isfinite(fitted.predict_proba([""])).all()


ODD = {
    "unicode": "été 冬 🎬 é",
    "control": "\x00\x01\ufeff\u200b\u202e",
    "astral": "\U0001d4b3" * 50,
    "one word": "a" * 100_000,
    "long": "good " * 50_000,
    "special": "[PAD] [CLS] [MASK]",
    "blank": "\n\t\r",
    "braces": "{not} {{a}} template %s",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_texts_are_predicted_and_change_no_others(plain, name):
    texts = ["good film", ODD[name], "bad price"]
    proba = plain.predict_proba(texts)

    assert np.isfinite(proba).all()
    np.testing.assert_allclose(
        proba[[0, 2]], plain.predict_proba(texts[::2]), atol=1e-5
    )


def test_one_row_is_enough_for_a_prediction_and_a_step(tiny_model, plain):
    assert plain.predict(["good film"]).shape == (1,)
    assert plain.predict_proba(["good film"]).shape == (1, 2)
    fitted = make(tiny_model, batch_size=1, epochs=5).fit(["good", "bad"], [1, 0])
    assert fitted.total_step_ == 10


@pytest.mark.parametrize(
    "row_format",
    [
        "auto",
        "title: {title}\nprice: {price}\ncity: {city}",
        lambda row: "\n".join(f"{name}: {cell}" for name, cell in row.items()),
    ],
)
def test_a_table_is_read_as_the_texts_of_its_rows(tiny_model, row_format):
    X, y = toy(32)
    table = pd.DataFrame({"title": X, "price": np.arange(32) / 4, "city": ["the"] * 32})
    written = [
        f"title: {t}\nprice: {p:g}\ncity: the"
        for t, p in zip(X, table.price, strict=True)
    ]
    fitted = make(tiny_model, epochs=1, row_format=row_format).fit(table, y)
    plain = make(tiny_model, epochs=1).fit(written, y)

    assert fitted.feature_names_in_.tolist() == ["title", "price", "city"]
    np.testing.assert_array_equal(
        fitted.predict_proba(table), plain.predict_proba(written)
    )


def test_a_pair_is_two_segments(tiny_model):
    """Which tell the model apart where one text ends: a joined text is another."""
    X, y = toy(32)
    pair = pd.DataFrame({"title": X, "body": X[::-1]})
    fitted = make(tiny_model, epochs=1, row_format="pair").fit(pair, y)
    moved = pair.assign(
        title=pair["title"] + " " + pair["body"].str.split().str[0],
        body=pair["body"].str.split(n=1).str[1],
    )

    assert fitted.n_features_in_ == 2
    assert np.abs(fitted.predict_proba(pair) - fitted.predict_proba(moved)).max() > 0

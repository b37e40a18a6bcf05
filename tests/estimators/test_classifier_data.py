"""Labels in any container and of any type, and texts that are odd."""

import enum

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from _toy import make, make_regressor, toy
from sklearn.base import clone

# Labels

LABELS = {
    "long words": np.array(["a", "b" * 40]),
    "words as objects": np.array(["", "yes"], dtype=object),
    "int8": np.array([-1, 1], dtype=np.int8),
    "uint64": np.array([1, 2**63], dtype=np.uint64),
    "bool": np.array([False, True]),
    "float32": np.array([-1.0, 2.0], dtype=np.float32),
    "days": np.array(["2020-01-31", "2020-02-01"], dtype="datetime64[D]"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_come_back_as_they_were(tiny_model, name):
    X, codes = toy(32)
    labels = LABELS[name]
    weights = {labels.tolist()[0]: 1.0, labels.tolist()[1]: 3.0, "another": 7.0}
    fitted = make(tiny_model, class_weight=weights).fit(X, labels[codes])
    of_rows = make(tiny_model).fit(X, codes, sample_weight=1.0 + 2 * codes)
    predicted = fitted.predict(X)

    np.testing.assert_array_equal(fitted.classes_, labels)
    assert fitted.classes_.dtype == predicted.dtype == labels.dtype
    np.testing.assert_array_equal(predicted, labels[of_rows.predict(X)])
    np.testing.assert_array_equal(fitted.predict_proba(X), of_rows.predict_proba(X))


@pytest.mark.parametrize(
    ("dtype", "labels", "kind"),
    [
        ("Int64", [2**53, 2**53 + 1, 7], "i"),
        ("int64[pyarrow]", [2**53, 2**53 + 1, 7], "i"),
        ("boolean", [True, False], "b"),
        ("category", [True, False], "b"),
        ("category", ["b", "a", "c"], "O"),
    ],
)
@pytest.mark.parametrize("container", [pd.Series, lambda y: pd.DataFrame({"y": y})])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_labels_of_types_of_pandas_come_back_as_they_were(
    tiny_model, dtype, labels, kind, container
):
    X, _ = toy(36)
    y = container(pd.Series(labels * (36 // len(labels))).astype(dtype))
    fitted = make(tiny_model, early_stopping=True).fit(X, y)

    assert fitted.classes_.dtype.kind == kind
    assert fitted.classes_.tolist() == sorted(labels)
    assert 0 <= fitted.score(X, y) <= 1


@pytest.fixture(scope="module")
def plain(tiny_model):
    """Fitted to `toy(40)`, a list and an array of integers. Do not refit."""
    classifier = make(tiny_model, early_stopping=True, validation_fraction=0.2)
    return classifier.fit(*toy(40))


CONTAINERS = {
    "list": list,
    "series with other index": lambda y: pd.Series(y, index=range(100, 100 + len(y))),
    "unused category": lambda y: pd.Categorical(y, categories=["zzz", "no", "yes"]),
    "string series": lambda y: pd.Series(y, dtype="string"),
    "index": pd.Index,
    "polars": pl.Series,
    "polars categorical": lambda y: pl.Series(y, dtype=pl.Categorical),
    "arrow": pa.array,
    "dataset column": lambda y: datasets.Dataset.from_dict({"y": y})["y"],
    "list of strings of NumPy's and others": lambda y: [np.str_(y[0]), *y[1:]],
    "list of a StrEnum": lambda y: [*map(enum.StrEnum("A", ["no", "yes"]), y)],
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_labels_in_any_container(plain, name):
    X, codes = toy(40)
    labels = np.array(["no", "yes"])
    fitted = clone(plain).fit(X, CONTAINERS[name](labels[codes].tolist()))

    assert fitted.classes_.tolist() == labels.tolist()
    np.testing.assert_array_equal(fitted.predict_proba(X), plain.predict_proba(X))
    assert fitted.predict(X).tolist() == labels[plain.predict(X)].tolist()


INDICATORS = {
    "list": np.ndarray.tolist,
    "bool": lambda y: y.astype(bool),
    "float": lambda y: y.astype(float),
    "frame": lambda y: pd.DataFrame(y, dtype="Int64"),
    "sparse matrix": scipy.sparse.csr_matrix,
    "sparse booleans": lambda y: scipy.sparse.coo_array(y.astype(bool)),
    "sparse rows": scipy.sparse.lil_array,
    "sparse diagonals": scipy.sparse.dia_matrix,
    "cells twice": lambda y: scipy.sparse.coo_matrix(
        (np.ones(2 * y.sum(), bool), np.tile(y.nonzero(), 2)), y.shape
    ),
}


@pytest.mark.parametrize("name", INDICATORS)
def test_an_indicator_matrix_in_any_container(tiny_model, name):
    X, y = toy(16)
    indicator = np.array([y, 1 - y, y * 0]).T
    given = INDICATORS[name](indicator)
    early = make(tiny_model, epochs=1, early_stopping=True, scoring="f1_micro")
    fitted, expected = (clone(early).fit(X, matrix) for matrix in (given, indicator))

    assert fitted.classes_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(fitted.predict_proba(X), expected.predict_proba(X))
    assert fitted.history_.score == expected.history_.score
    assert len(early.fit(X, indicator, X_val=X, y_val=given).history_.score) == 1


def test_balanced_classes_undo_weights_of_rows(tiny_model):
    X, y = toy(16)
    balanced = make(tiny_model, class_weight="balanced")
    balanced.fit(X, y, sample_weight=np.where(y == 1, 3.0, 1.0))
    expected = make(tiny_model).fit(X, y).predict_proba(X)

    np.testing.assert_allclose(balanced.predict_proba(X), expected, atol=1e-6)


@pytest.mark.parametrize(
    "convert", [np.asarray, pd.DataFrame, lambda y: pd.DataFrame(y, dtype="Int64")]
)
def test_a_column_of_labels_is_taken_with_a_warning(tiny_model, convert):
    X, y = toy(16)

    with pytest.warns(UserWarning, match="column-vector y was passed"):
        fitted = make(tiny_model, epochs=1).fit(X, convert(y.reshape(-1, 1)))
    assert fitted.classes_.dtype == y.dtype
    assert fitted.predict(X).shape == (16,)


# Texts


def test_nothing_but_empty_texts(tiny_model):
    with pytest.warns(UserWarning, match="must differ. Got 4 rows .* no text in any"):
        fitted = make(tiny_model).fit(["", None, "", None], [0, 1, 0, 1])

    assert fitted.fit_report_.n_empty == 4
    assert np.isfinite(fitted.predict_proba([""])).all()


@pytest.mark.parametrize(
    "odd",
    [
        "été 冬 \U0001d4b3\x00\x01\ufeff\u200b\u202e",
        "a" * 100_000,
        "good " * 50_000,
        "[PAD] [CLS] [MASK]",
        "\n\t\r",
        "{not} {{a}} template %s",
    ],
    ids=["unicode", "one word", "long", "special", "blank", "braces"],
)
def test_odd_texts_are_predicted_and_change_no_others(plain, odd):
    texts = ["good film", odd, "bad price"]
    proba = plain.predict_proba(texts)

    assert np.isfinite(proba).all()
    for row in (0, 2):
        alone = plain.predict_proba(texts[row : row + 1])[0]
        np.testing.assert_allclose(proba[row], alone, atol=1e-5)


def test_missing_and_empty_texts(tiny_model):
    X, y = toy(16)
    X[3], X[5], X[7], X[9] = None, "", float("nan"), "  \n "
    fitted = make(tiny_model).fit(X, y)
    proba = fitted.predict_proba([None, "", float("nan"), pd.NA])

    assert fitted.fit_report_.n_empty == 4
    assert np.isfinite(proba).all()
    assert np.all(proba == proba[0])


@pytest.mark.filterwarnings("ignore:X should hold texts:UserWarning")
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


@pytest.mark.parametrize("make", [make, make_regressor])
def test_numbers_beside_texts_are_warned_of(make, tiny_model):
    X, y = toy(32)
    table = pd.DataFrame({"title": X, "price": np.arange(32) / 4, "new": y == 1})
    estimator = make(tiny_model, epochs=1)
    kind = "Classifier" if hasattr(estimator, "class_weight") else "Regressor"

    match = f"numbers in the column 'price' beside texts. Use `AdaLoraTable{kind}`"
    with pytest.warns(UserWarning, match=match) as caught:
        estimator.fit(table, y)
    assert [warning.filename for warning in caught] == [__file__]
    roles = {"title": "text", "price": "number", "new": "boolean"}
    assert estimator.fit_report_.columns == roles
    lines = str(estimator.fit_report_).splitlines()[-4:]
    assert [line.split() for line in lines] == [
        ["columns", "3"],
        *([role, "1"] for role in roles.values()),
    ]
    with pytest.warns(UserWarning, match="in 2 columns, such as 'price', beside"):
        estimator.fit(table.assign(year=y), y)


@pytest.mark.parametrize(
    ("columns", "row_format"),
    [
        ({"price": 2, "new": True}, "auto"),
        ({"title": "a film", "new": True, "day": pd.Timestamp("2024-01-01")}, "auto"),
        ({"title": "a film", "price": 2}, "{title} for {price}"),
        ({"title": "a film", "price": 2}, "pair"),
    ],
)
def test_other_columns_are_not_warned_of(tiny_model, columns, row_format):
    """Numbers alone, no numbers, and numbers whose words the user asked for."""
    _, y = toy(16)
    table = pd.DataFrame(columns, index=range(16))
    table.iloc[0, 0] = table.iloc[1, 0] * 2  # else all texts would be equal

    make(tiny_model, epochs=1, row_format=row_format).fit(table, y)


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

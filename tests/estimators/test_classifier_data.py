"""Texts and labels in any container, and tables whose columns are named."""

import enum

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from _toy import make, toy
from sklearn.base import clone

# ---- labels -----------------------------------------------------------------

LABELS = {
    "str": np.array(["no", "yes"]),
    "long str": np.array(["a", "b" * 40]),
    "object": np.array(["no", "yes"], dtype=object),
    "int": np.array([3, 17]),
    "negative int": np.array([-5, -1]),
    "int8": np.array([-1, 1], dtype=np.int8),
    "uint64": np.array([1, 2**63], dtype=np.uint64),
    "bool": np.array([False, True]),
    "float": np.array([0.0, 1.0]),
    "float32": np.array([-1.0, 2.0], dtype=np.float32),
    "unicode": np.array(["été", "冬"]),
    "empty": np.array(["", "x"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_come_back_as_they_were(tiny_model, name):
    X, codes = toy(32)
    labels = LABELS[name]
    fitted = make(tiny_model).fit(X, labels[codes])
    predicted = fitted.predict(X)

    np.testing.assert_array_equal(fitted.classes_, labels)
    assert fitted.classes_.dtype == labels.dtype
    assert predicted.dtype == labels.dtype
    assert set(predicted.tolist()) <= set(labels.tolist())
    np.testing.assert_array_equal(
        predicted, labels[fitted.predict_proba(X).argmax(axis=1)]
    )


_ANSWERS = enum.StrEnum("_ANSWERS", {"NO": "no", "YES": "yes"})
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "series": pd.Series,
    "series with other index": lambda y: pd.Series(y, index=range(100, 100 + len(y))),
    "categorical series": lambda y: pd.Series(y, dtype="category"),
    "categorical": pd.Categorical,
    "unused category": lambda y: pd.Series(
        pd.Categorical(y, categories=["zzz", "no", "yes"])
    ),
    "string series": lambda y: pd.Series(y, dtype="string"),
    "object series": lambda y: pd.Series(y, dtype=object),
    "polars": pl.Series,
    "polars categorical": lambda y: pl.Series(y, dtype=pl.Categorical),
    "arrow": pa.array,
    "masked array without masks": np.ma.masked_array,
    "index": pd.Index,
    "dataset column": lambda y: _dataset(y)["text"],
    "list of strings of NumPy's and others": lambda y: [np.str_(y[0]), *y[1:]],
    "list of a StrEnum": lambda y: [_ANSWERS(answer) for answer in y],
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


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame])
def test_a_column_of_labels_is_taken_with_a_warning(tiny_model, kind):
    X, y = toy(16)

    with pytest.warns(UserWarning, match="column-vector y was passed"):
        fitted = make(tiny_model).fit(X, kind(y.reshape(-1, 1)))
    assert fitted.predict(X).shape == (16,)


def test_many_classes_in_any_order(tiny_model):
    X = [f"{word} film" for word in "abcdefghij"] * 4
    y = np.tile(np.array([7, 3, 9, 1, 0, 8, 2, 6, 5, 4]) * 10, 4)
    fitted = make(tiny_model).fit(X, y)

    assert fitted.classes_.tolist() == list(range(0, 100, 10))
    assert fitted.predict_proba(X).shape == (40, 10)


def test_a_class_of_one_row(tiny_model):
    X, y = toy(16)
    fitted = make(tiny_model).fit([*X, "zero"], [*y, 2])

    assert fitted.predict_proba(X).shape == (16, 3)


# ---- inputs -----------------------------------------------------------------


def _dataset(X):
    import datasets

    return datasets.Dataset.from_dict({"text": list(X)})


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


@pytest.mark.parametrize(
    "text",
    [
        "été 冬 🎬 é",
        "\x00\x01\ufeff\u200b\u202e",
        "\U0001d4b3" * 50,
        "a" * 100_000,
        "good " * 50_000,
        "[PAD] [CLS] [MASK]",
        "\n\t\r",
        "{not} {{a}} template %s",
    ],
    ids=[
        "unicode",
        "control",
        "astral",
        "one word",
        "long",
        "special",
        "blank",
        "braces",
    ],
)
def test_odd_texts_are_predicted_and_change_no_others(plain, text):
    texts = ["good film", text, "bad price"]
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


def test_a_table_of_several_columns(tiny_model):
    X, y = toy(32)
    table = pd.DataFrame({"title": X, "price": np.arange(32) / 4, "city": ["the"] * 32})
    written = [
        f"title: {t}\nprice: {p:g}\ncity: the"
        for t, p in zip(X, table.price, strict=True)
    ]
    fitted, plain = make(tiny_model).fit(table, y), make(tiny_model).fit(written, y)

    assert fitted.n_features_in_ == 3
    assert fitted.feature_names_in_.tolist() == ["title", "price", "city"]
    np.testing.assert_array_equal(
        fitted.predict_proba(table), plain.predict_proba(written)
    )


def test_templates_pairs_and_callables(tiny_model):
    X, y = toy(32)
    table = pd.DataFrame({"title": X, "body": X[::-1]})
    template, function = (
        make(tiny_model, row_format=f).fit(table, y)
        for f in ("{title}: {body}", lambda row: f"{row['title']}: {row['body']}")
    )
    pair = make(tiny_model, row_format="pair").fit(table, y)

    np.testing.assert_array_equal(
        template.predict_proba(table), function.predict_proba(table)
    )
    assert np.abs(pair.predict_proba(table) - template.predict_proba(table)).max() > 0


# ---- names and number of columns at predict ---------------------------------


def _with_title(row):
    return f"{row['title']} {row['stars']}"


@pytest.mark.parametrize("row_format", ["auto", "{title}: {stars}", _with_title])
def test_columns_without_names_are_called_as_in_the_fit(tiny_model, row_format):
    """By position, as everywhere in scikit-learn: the texts are those of the fit."""
    X, y = toy(16)
    table = pd.DataFrame({"title": X, "stars": np.arange(16)})
    fitted = make(tiny_model, row_format=row_format).fit(table, y)

    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        nameless = fitted.predict_proba(table.to_numpy(dtype=object))

    np.testing.assert_array_equal(nameless, fitted.predict_proba(table))


def test_columns_with_names_are_numbered_as_in_the_fit(tiny_model):
    X, y = toy(16)
    table = pd.DataFrame({"title": X, "stars": np.arange(16)})
    cells = table.to_numpy(dtype=object)
    fitted = make(tiny_model).fit(cells, y)

    with pytest.warns(UserWarning, match="X has feature names, but"):
        named = fitted.predict_proba(table)

    np.testing.assert_array_equal(named, fitted.predict_proba(cells))

"""Estimators on every kind of table: the same rows, the same predictions."""

import datetime
import functools
import warnings

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from _toy import make as make_classifier
from _toy import make_regressor, toy
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from sk_adalora.data.rows import take_rows
from sk_adalora.data.texts import read_texts

# A table of every kind of cell has numbers.
pytestmark = pytest.mark.filterwarnings("ignore:X should hold texts:UserWarning")

N = 24
TEXTS, LABELS = toy(N)
BODIES, _ = toy(N, seed=1)
DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(N)]
# Every kind of cell, each column with a missing one.
COLUMNS = {
    "title": [None, *TEXTS[1:]],
    "body": [*BODIES[:-1], None],
    "year": [2000 + i for i in range(N - 1)] + [None],
    "price": [None] + [i / 4 for i in range(1, N)],
    "seen": [None] + [i % 3 == 0 for i in range(1, N)],
    "group": ["red", None] + [("red", "green", "blue")[i % 3] for i in range(2, N)],
    "day": [None, *DAYS[1:]],
}


def pandas_frame():
    """As a pandas user has it: missing cells made floats of integers."""
    frame = pd.DataFrame(COLUMNS)
    return frame.assign(group=frame["group"].astype("category"))


def arrow_chunks():
    table = pa.table(COLUMNS)
    return pa.concat_tables([table.slice(0, 5), table.slice(5)])


NAMED = {
    "pandas": pandas_frame,
    "pandas nullable": lambda: pd.DataFrame(COLUMNS).convert_dtypes(),
    "pandas Arrow": lambda: pa.table(COLUMNS).to_pandas(types_mapper=pd.ArrowDtype),
    "polars": lambda: pl.DataFrame(COLUMNS, strict=False),
    "pyarrow chunks": arrow_chunks,
    "pyarrow batch": lambda: pa.record_batch(COLUMNS),
    "datasets": lambda: datasets.Dataset(pa.table(COLUMNS)),
}
ROWS = list(zip(*COLUMNS.values(), strict=True))
NAMELESS = {
    "2-D array": lambda: np.array(ROWS, dtype=object),
    "list of tuples": lambda: ROWS,
    "tuple of arrays": lambda: tuple(np.array(row, dtype=object) for row in ROWS),
    "frame without names": lambda: pd.DataFrame(ROWS),
}
ONE_TEXT = {
    "list": lambda: list(COLUMNS["title"]),
    "tuple": lambda: tuple(COLUMNS["title"]),
    "1-D array": lambda: np.array(COLUMNS["title"], dtype=object),
    "pandas": lambda: pd.Series(COLUMNS["title"]),
    "pandas index": lambda: pd.Index(COLUMNS["title"]),
    "polars": lambda: pl.Series(COLUMNS["title"]),
    "pyarrow": lambda: pa.array(COLUMNS["title"]),
    "pyarrow chunks": lambda: arrow_chunks()["title"],
    "datasets column": lambda: NAMED["datasets"]()["title"],
    "list of rows": lambda: [[text] for text in COLUMNS["title"]],
    "frame": lambda: pd.DataFrame({"any name": COLUMNS["title"]}),
}


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier that is quick to fit."""
    options = {"epochs": 1, "batch_size": 12, "max_length": 128}
    return functools.partial(make_classifier, tiny_model, **options)


@pytest.fixture(scope="module")
def fitted(make):
    """Fitted on the pandas table; do not refit it."""
    return make().fit(pandas_frame(), LABELS)


@pytest.fixture(scope="module")
def fitted_nameless(make):
    """Fitted on a list of rows; do not refit it."""
    return make().fit(ROWS, LABELS)


# The same rows in other containers


@pytest.mark.parametrize("container", NAMED)
def test_named_tables_are_one_table(make, fitted, container):
    X = NAMED[container]()
    other = make().fit(X, LABELS)

    assert other.feature_names_in_.tolist() == list(COLUMNS)
    assert other.feature_names_in_.dtype == object
    assert other.n_features_in_ == len(COLUMNS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to say about names
        proba = other.predict_proba(X)
        np.testing.assert_array_equal(fitted.predict_proba(X), proba)
        np.testing.assert_array_equal(other.predict_proba(pandas_frame()), proba)


@pytest.mark.parametrize("container", NAMELESS)
def test_nameless_tables_are_one_table(fitted_nameless, container):
    X = NAMELESS[container]()

    assert not hasattr(fitted_nameless, "feature_names_in_")
    np.testing.assert_array_equal(
        fitted_nameless.predict_proba(X), fitted_nameless.predict_proba(ROWS)
    )


TABLES = {**NAMED, **NAMELESS, **{f"text, {k}": make for k, make in ONE_TEXT.items()}}


@pytest.mark.parametrize("container", TABLES)
def test_rows_are_taken_out_of_any_container(container):
    X, rows = TABLES[container](), np.array([7, 0, N - 1])
    expected = read_texts(X).take(rows).first.to_pylist()

    assert read_texts(take_rows(X, rows)).first.to_pylist() == expected
    if container.startswith("text"):
        titles = [COLUMNS["title"][row] or "" for row in rows]
        assert expected == titles


@pytest.mark.parametrize("container", TABLES)
def test_cells_tell_what_a_column_holds(container):
    """Whatever is missing in it."""
    roles = [*read_texts(TABLES[container]()).columns.values()]

    group = "category" if container == "pandas" else "text"
    expected = ["text", "text", "number", "number", "boolean", group, "date"]
    if container.startswith("text"):
        expected = ["text"] if container.endswith(("rows", "frame")) else []
    assert roles == expected


def test_an_index_is_not_read(fitted):
    X = pandas_frame()
    moved = X.set_index(np.arange(N)[::-1] * 10)

    np.testing.assert_array_equal(fitted.predict_proba(moved), fitted.predict_proba(X))


# Columns at predict


@pytest.mark.parametrize("convert", [pd.DataFrame, datasets.Dataset.from_pandas])
def test_the_messages_are_those_of_scikit_learn(fitted, convert):
    """Word for word what any estimator of scikit-learn says of the same columns."""
    names = list(COLUMNS)
    numbers = pd.DataFrame(np.eye(N, len(names)), columns=names)
    theirs = DecisionTreeClassifier().fit(numbers, LABELS)
    for columns in (names[::-1], names[1:], [*names, "other"]):
        wrong = pd.DataFrame("red", index=range(3), columns=columns)
        with pytest.raises(ValueError, match="feature names") as ours:
            fitted.predict(convert(wrong))
        with pytest.raises(ValueError, match="feature names") as expected:
            theirs.predict(wrong)
        assert str(ours.value) == str(expected.value)


def test_numbers_of_columns_are_compared(fitted, fitted_nameless):
    fewer = [row[1:] for row in ROWS]
    match = "X has 6 features, but .* is expecting 7 features as input"

    for estimator in (fitted_nameless, fitted):
        with pytest.raises(ValueError, match=match):
            estimator.predict(fewer)


def test_names_that_are_partly_text_are_refused(make):
    X = pandas_frame().rename(columns={"title": 3})

    with pytest.raises(TypeError, match="only supported if all input features have"):
        make().fit(X, LABELS)


@pytest.mark.parametrize("row_format", ["auto", "{title}: {stars}"])
def test_columns_are_called_as_in_the_fit(make, row_format):
    """By position, as everywhere in scikit-learn: the texts are those of the fit."""
    table = pd.DataFrame({"title": TEXTS, "stars": np.arange(N)})
    cells = table.to_numpy(dtype=object)
    named = make(row_format=row_format).fit(table, LABELS)

    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        proba = named.predict_proba(cells)
    np.testing.assert_array_equal(proba, named.predict_proba(table))

    if row_format == "auto":
        numbered = make().fit(cells, LABELS)
        with pytest.warns(UserWarning, match="X has feature names, but"):
            proba = numbered.predict_proba(table)
        np.testing.assert_array_equal(proba, numbered.predict_proba(cells))


# Data sets


def test_folds_of_columns_of_a_dataset_and_of_it_as_a_frame(make):
    """scikit-learn itself cannot take rows of a dataset; its columns it can."""
    dataset = NAMED["datasets"]()
    for X, same in (
        (dataset["body"], COLUMNS["body"]),
        (dataset.to_polars(), pandas_frame()),
    ):
        found, expected = (
            cross_val_predict(make(), rows, LABELS) for rows in (X, same)
        )
        np.testing.assert_array_equal(found, expected)


def shouted(rows):
    return {name: [str(cell).upper() for cell in cells] for name, cells in rows.items()}


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda rows: rows, "text: a\nlabel: yes\nn: 1"),
        (lambda rows: rows["text"], "a"),
        (lambda rows: rows.with_format(columns=["text"]), "a"),
        (lambda rows: rows.with_format("numpy", ["text", "n"]), "text: a\nn: 1"),
        (lambda rows: rows.with_transform(shouted), "text: A\nlabel: YES\nn: 1"),
        (lambda rows: rows.with_transform(shouted, columns=["text"]), "A"),
        (lambda rows: rows.with_transform(lambda rows: {"new": rows["text"]}), "a"),
        (lambda rows: rows.with_transform(shouted)["text"], "A"),
    ],
)
def test_the_format_of_a_dataset_is_followed(choose, expected):
    """The label is not read along, nor a text before what `set_transform` makes."""
    rows = datasets.Dataset.from_dict(
        {"text": ["b", "a"], "label": ["no", "yes"], "n": [0, 1]}
    ).select([1])

    assert read_texts(choose(rows)).first.to_pylist() == [expected]


def test_a_field_of_the_records_of_a_dataset_is_a_column():
    rows = datasets.Dataset.from_dict({"post": [{"text": "a"}, {"text": None}]})

    assert read_texts(rows["post"]["text"]).first.to_pylist() == ["a", ""]


@pytest.mark.parametrize(
    ("cells", "match"),
    [
        (["c", 1], "Got int in row 1"),
        ([["a", "b"], ["c", "d"]], "Got list in row 0"),
        ([["a", "b"], ["c"]], "Got list in row 0"),
        (np.array([["a", "b"]] * 2), "Got ndarray in row 0"),
        (["c", np.nan], None),
        ((text for text in ["c", pd.NA]), None),
    ],
)
def test_columns_of_a_transform_hold_texts_or_none(cells, match):
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]})
    column = rows.with_transform(lambda rows: {"text": cells})["text"]
    if match:
        with pytest.raises(ValueError, match=match):
            read_texts(column)
    else:
        assert read_texts(column).first.to_pylist() == ["c", ""]


@pytest.mark.parametrize("estimator", [make_classifier, make_regressor])
def test_a_column_of_a_dataset_is_read_at_once(tiny_model, estimator, monkeypatch):
    """A row at a time, a hundred thousand labels take eight seconds."""
    column = datasets.Dataset.from_dict({"y": (LABELS + 1).tolist()})["y"]
    asked, get = [], datasets.Column.__getitem__

    def spy(column, key):
        asked.append(key)
        return get(column, key)

    monkeypatch.setattr(datasets.Column, "__getitem__", spy)
    model = estimator(tiny_model, early_stopping=True)
    model.fit(TEXTS, column, sample_weight=column)

    assert len(model.history_.score) == 2
    assert {*map(str, asked)} == {"slice(None, None, None)"}


# Nested cells

TIME, PAUSE = datetime.datetime(2024, 1, 1, 9), datetime.timedelta(minutes=90)
# Given a type, as some versions of Arrow would sort the fields otherwise.
STRUCT = pa.struct([("p", pa.list_(pa.string())), ("n", pa.int64())])
NESTED = {
    "texts": ([["a", "b"], [], None], ["['a', 'b']", "[]", None]),
    "numbers": ([[1, 2], [3, None], [None]], ["[1, 2]", "[3, None]", "[None]"]),
    "floats": ([[0.5], [2.0, None], []], ["[0.5]", "[2, None]", "[]"]),
    "lists": ([[["a"], ["b", "c"]], [[]], None], ["[['a'], ['b', 'c']]", "[[]]", None]),
    "structs": (
        pa.array([{"p": ["q"], "n": 1}, {"p": None, "n": None}, None], STRUCT),
        ["{'p': ['q'], 'n': 1}", "{'p': None, 'n': None}", None],
    ),
    "dates": ([[DAYS[0]], [], None], [f"[{DAYS[0]!r}]", "[]", None]),
    "times": ([[TIME], [None], None], [f"[{TIME!r}]", "[None]", None]),
    "durations": ([[PAUSE], [None], None], [f"[{PAUSE!r}]", "[None]", None]),
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize(
    "build", [lambda table: table, pa.Table.to_pandas, pl.from_arrow, datasets.Dataset]
)
def test_nested_cells_read_alike_in_any_table(name, build):
    """In files of Parquet, say: pandas reads their lists as arrays."""
    cells, expected = NESTED[name]
    table = build(pa.table({"id": ["x", "y", "z"], "nested": cells}))

    lines = [[f"nested: {text}"] if text else [] for text in expected]
    texts = [
        "\n".join([f"id: {i}", *line]) for i, line in zip("xyz", lines, strict=True)
    ]
    assert read_texts(table).first.to_pylist() == texts

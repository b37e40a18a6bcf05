"""Both estimators on every kind of table: the same rows, the same predictions."""

import datetime
import functools
import warnings

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from _toy import make as make_classifier
from _toy import make_regressor, toy
from sklearn.model_selection import cross_val_predict

from sk_adalora.data.rows import take_rows
from sk_adalora.data.texts import read_texts

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


def pandas_frame(columns=COLUMNS):
    """As a pandas user has it: missing cells made floats of integers."""
    frame = pd.DataFrame(columns)
    if "group" in frame:
        frame["group"] = frame["group"].astype("category")
    return frame


def nullable_frame(columns=COLUMNS):
    return pd.DataFrame(columns).convert_dtypes()


def polars_frame(columns=COLUMNS):
    frame = pl.DataFrame(columns, strict=False)
    casts = [pl.col("group").cast(pl.Categorical)] if "group" in columns else []
    return frame.with_columns(casts)


def arrow_chunks(columns=COLUMNS):
    table = pa.table(columns)
    return pa.concat_tables([table.slice(0, 5), table.slice(5)])


NAMED = {
    "pandas": pandas_frame,
    "pandas nullable": nullable_frame,
    "pandas Arrow": lambda c=COLUMNS: pa.table(c).to_pandas(types_mapper=pd.ArrowDtype),
    "polars": polars_frame,
    "pyarrow": lambda c=COLUMNS: pa.table(c),
    "pyarrow chunks": arrow_chunks,
    "pyarrow batch": lambda c=COLUMNS: pa.record_batch(c),
    "datasets": lambda c=COLUMNS: datasets.Dataset(pa.table(c)),
}
ROWS = list(zip(*COLUMNS.values(), strict=True))
NAMELESS = {
    "2-D array": lambda: np.array(ROWS, dtype=object),
    "list of lists": lambda: [list(row) for row in ROWS],
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
    "column vector": lambda: np.array(COLUMNS["title"], dtype=object)[:, np.newaxis],
    "list of rows": lambda: [[text] for text in COLUMNS["title"]],
    "frame": lambda: pd.DataFrame({"any name": COLUMNS["title"]}),
}
ONE_EPOCH = {"epochs": 1, "batch_size": 12, "max_length": 128}


@pytest.fixture(
    scope="module",
    params=[make_classifier, make_regressor],
    ids=["classifier", "regressor"],
)
def make(request, tiny_model):
    """Function: changed parameters -> an estimator that is quick to fit."""
    return functools.partial(request.param, tiny_model, **ONE_EPOCH)


def outputs(estimator, X):
    """What an estimator computes of each row, as exactly as it tells."""
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(X)
    return estimator.predict(X)


@pytest.fixture(scope="module")
def fitted(make):
    """Fitted on the pandas table; do not refit it."""
    return make().fit(pandas_frame(), LABELS)


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
        np.testing.assert_array_equal(outputs(fitted, X), outputs(other, X))
        np.testing.assert_array_equal(
            outputs(other, pandas_frame()), outputs(fitted, pandas_frame())
        )


@pytest.fixture(scope="module")
def fitted_nameless(make):
    """Fitted on a list of rows; do not refit it."""
    return make().fit(ROWS, LABELS)


@pytest.mark.parametrize("container", NAMELESS)
def test_nameless_tables_are_one_table(make, fitted_nameless, container):
    X = NAMELESS[container]()
    other = make().fit(X, LABELS)

    assert not hasattr(other, "feature_names_in_")
    assert other.n_features_in_ == len(COLUMNS)
    np.testing.assert_array_equal(
        outputs(other, ROWS), outputs(fitted_nameless, ROWS), strict=True
    )
    np.testing.assert_array_equal(
        outputs(fitted_nameless, X), outputs(other, X), strict=True
    )


@pytest.fixture(scope="module")
def fitted_column(make):
    """Fitted on a list of texts; do not refit it."""
    return make().fit(COLUMNS["title"], LABELS)


@pytest.mark.parametrize("container", ONE_TEXT)
def test_columns_of_texts_are_one_column(make, fitted_column, container):
    X = ONE_TEXT[container]()
    other = make().fit(X, LABELS)

    assert other.n_features_in_ == 1
    assert hasattr(other, "feature_names_in_") is (container == "frame")
    assert other.fit_report_.n_empty == 1
    np.testing.assert_array_equal(
        outputs(other, X), outputs(fitted_column, COLUMNS["title"])
    )


# Cells


def test_an_index_is_not_read(fitted):
    X = pandas_frame()
    moved = X.set_index(np.arange(N)[::-1] * 10)

    np.testing.assert_array_equal(outputs(fitted, moved), outputs(fitted, X))


# row_format


def test_a_pair_is_two_segments(make, monkeypatch):
    """Both texts in one input, told apart by their token types."""
    X = pd.DataFrame({"first": TEXTS, "second": BODIES})
    fitted = make(row_format="pair").fit(X, LABELS)
    seen = []
    network = type(fitted._predictor.network)
    forward = network.forward
    monkeypatch.setattr(
        network,
        "forward",
        lambda self, batch: seen.append(batch) or forward(self, batch),
    )
    tokenizer = fitted._predictor.backbone.tokenizer

    outputs(fitted, X)

    (batch,) = seen
    pairs = [tokenizer(*pair) for pair in zip(TEXTS, BODIES, strict=True)]
    pairs.sort(key=lambda pair: -len(pair["input_ids"]))  # as they are predicted
    for row, expected in enumerate(pairs):
        length = len(expected["input_ids"])
        assert batch.input_ids[row, :length].tolist() == expected["input_ids"]
        types = batch.token_type_ids[row, :length].tolist()
        assert types == expected["token_type_ids"]
        assert set(types) == {0, 1}


def write_row(row):
    return f"{row['title']} in {row['year']}"


@pytest.mark.parametrize("container", NAMED)
def test_a_callable_writes_the_rows_of_any_table(container):
    X = NAMED[container]({"title": TEXTS, "year": list(range(N))})

    assert read_texts(X, write_row).first == read_texts(X, "{title} in {year}").first


# Columns at predict


@pytest.mark.parametrize("convert", [pd.DataFrame, datasets.Dataset.from_pandas])
def test_the_messages_are_those_of_scikit_learn(fitted, convert):
    """Word for word what any estimator of scikit-learn says of the same columns."""
    from sklearn.tree import DecisionTreeClassifier

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


def test_numbers_of_columns_are_compared_without_names(fitted_nameless):
    name = type(fitted_nameless).__name__
    match = f"X has 6 features, but {name} is expecting 7 features as input"

    with pytest.raises(ValueError, match=match):
        fitted_nameless.predict([row[1:] for row in ROWS])


def test_numbers_of_columns_are_compared_with_names_in_the_fit_only(fitted):
    with (
        pytest.warns(UserWarning, match="X does not have valid feature names"),
        pytest.raises(ValueError, match=r"X has 6 features, but .* is expecting 7"),
    ):
        fitted.predict([row[1:] for row in ROWS])


def test_names_on_one_side_only_are_warned_about(fitted, fitted_nameless):
    name = type(fitted).__name__

    with pytest.warns(UserWarning, match=f"but {name} was fitted without feature"):
        fitted_nameless.predict(pandas_frame())
    with pytest.warns(UserWarning, match=f"but {name} was fitted with feature names"):
        fitted.predict(ROWS)


def test_names_that_are_partly_text_are_refused(make):
    X = pandas_frame().rename(columns={"title": 3})

    with pytest.raises(TypeError, match="only supported if all input features have"):
        make().fit(X, LABELS)


# Rows of every container


TABLES = {**NAMED, **NAMELESS}


@pytest.mark.parametrize(
    "build",
    [*TABLES.values(), *ONE_TEXT.values()],
    ids=[*TABLES, *(f"text, {name}" for name in ONE_TEXT)],
)
def test_rows_are_taken_out_of_any_container(build):
    rows = np.array([7, 0, N - 1])
    X = build()

    taken = read_texts(take_rows(X, rows)).first.to_pylist()

    assert taken == read_texts(X).take(rows).first.to_pylist()


@pytest.mark.parametrize(
    "to_frame",
    [
        datasets.Dataset.to_pandas,
        datasets.Dataset.to_polars,
        lambda dataset: dataset.with_format("arrow")[:],
    ],
    ids=["to_pandas", "to_polars", "Arrow"],
)
def test_folds_of_a_dataset_made_a_frame(make, to_frame):
    """scikit-learn itself cannot take rows of a dataset; its columns it can."""
    dataset = NAMED["datasets"]()
    ours = cross_val_predict(make(), to_frame(dataset), LABELS, cv=2)
    expected = cross_val_predict(make(), pandas_frame(), LABELS, cv=2)
    np.testing.assert_array_equal(ours, expected)

    ours = cross_val_predict(make(), dataset["body"], LABELS, cv=2)
    expected = cross_val_predict(make(), COLUMNS["body"], LABELS, cv=2)
    np.testing.assert_array_equal(ours, expected)


def shouted(rows):
    return {name: [str(cell).upper() for cell in cells] for name, cells in rows.items()}


def labelled(rows):
    return {"text": list(map("{}: {}".format, rows["label"], rows["text"]))}


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda rows: rows.with_format(columns=["text"]), "a"),
        (lambda rows: rows.with_format("numpy", ["text", "n"]), "text: a\nn: 1"),
        (
            lambda rows: rows.with_format("numpy", ["text"], output_all_columns=True),
            "text: a\nlabel: yes\nn: 1",
        ),
        (lambda rows: rows.with_transform(shouted), "text: A\nlabel: YES\nn: 1"),
        (lambda rows: rows.with_transform(shouted, columns=["text"]), "A"),
        (lambda rows: rows.with_transform(lambda rows: {"new": rows["text"]}), "a"),
        (lambda rows: rows.with_transform(shouted)["text"], "A"),
        (lambda rows: rows.with_transform(labelled)["text"], "yes: a"),
        (lambda rows: rows.with_format(columns=["n"])["text"], "a"),
    ],
    ids=[
        "a column",
        "two columns",
        "all columns",
        "a transform",
        "a transform of a column",
        "a transform to another column",
        "a column of a transform",
        "a column of a transform of whole rows",
        "a column that is named",
    ],
)
def test_the_format_of_a_dataset_is_followed(choose, expected):
    """The label is not read along, nor a text before what `set_transform` makes."""
    rows = datasets.Dataset.from_dict({"text": ["a"], "label": ["yes"], "n": [1]})

    assert read_texts(choose(rows)).first.to_pylist() == [expected]


def test_a_field_of_the_records_of_a_dataset_is_a_column():
    rows = datasets.Dataset.from_dict({"post": [{"text": "a"}, {"text": None}]})

    assert read_texts(rows["post"]["text"]).first.to_pylist() == ["a", ""]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("build", [list, pd.Series, lambda cells: (c for c in cells)])
def test_a_column_of_a_transform_may_lack_texts(build, missing):
    """Arrow alone takes no NaN among texts."""
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]})
    rows = rows.with_transform(lambda rows: {"text": build(["c", missing])})

    assert read_texts(rows["text"]).first.to_pylist() == ["c", ""]


def test_a_column_of_a_transform_that_holds_no_texts_is_refused_by_its_row():
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]})
    rows = rows.with_transform(lambda rows: {"text": ["c", 1]})

    with pytest.raises(ValueError, match="Got int in row 1"):
        read_texts(rows["text"])


@pytest.mark.parametrize("last", [["c", "d"], ["c"]], ids=["alike", "of two lengths"])
@pytest.mark.parametrize(
    "choose",
    [
        lambda rows: rows["tags"],
        lambda rows: rows["post"]["tags"],
        lambda rows: rows.with_transform(lambda rows: rows)["tags"],
    ],
    ids=["column", "field", "transform"],
)
def test_lists_in_a_column_of_a_dataset_are_no_rows_of_a_table(choose, last):
    tags = [["a", "b"], last]
    post = [{"tags": cell} for cell in tags]
    rows = datasets.Dataset.from_dict({"tags": tags, "post": post})

    with pytest.raises(ValueError, match="Got list in row 0"):
        read_texts(choose(rows))


def test_arrays_in_a_column_of_a_transform_are_no_rows_of_a_table():
    rows = datasets.Dataset.from_dict({"text": ["a b", "c d"]})
    rows = rows.with_transform(lambda rows: {"text": np.array([["a", "b"]] * 2)})

    with pytest.raises(ValueError, match="Got ndarray in row 0"):
        read_texts(rows["text"])


@pytest.mark.parametrize("estimator", [make_classifier, make_regressor])
@pytest.mark.parametrize("given", [False, True])
def test_a_column_of_a_dataset_is_read_at_once(
    tiny_model, estimator, given, monkeypatch
):
    """A row at a time, a hundred thousand labels take eight seconds."""
    texts, y = toy(24)
    column = datasets.Dataset.from_dict({"y": (y + 1).tolist()})["y"]
    asked, get = [], datasets.Column.__getitem__

    def spy(column, key):
        asked.append(key)
        return get(column, key)

    monkeypatch.setattr(datasets.Column, "__getitem__", spy)
    validation = {"X_val": texts, "y_val": column} if given else {}
    model = estimator(tiny_model, early_stopping=True)
    model.fit(texts, column, sample_weight=column, **validation)
    assert len(model.history_.score) == 2
    assert asked == [slice(None)] * (5 if given else 3)


@pytest.mark.parametrize(
    "build",
    [
        lambda texts: pa.array(texts, pa.string_view()),
        lambda texts: pa.chunked_array([texts[:5], texts[5:]], pa.string_view()),
        lambda texts: pc.run_end_encode(pa.array(texts)),
        lambda texts: pa.table(pl.DataFrame({"text": texts})),
        lambda texts: pa.record_batch({"text": pa.array(texts, pa.string_view())}),
    ],
    ids=["views", "chunks of views", "runs", "table of polars", "batch of views"],
)
def test_views_and_runs_of_texts_can_be_split(build):
    texts, _ = toy(24)

    taken = read_texts(take_rows(build(texts), np.array([2, 0]))).first

    assert taken.to_pylist() == [texts[2], texts[0]]


TIME, PAUSE = datetime.datetime(2024, 1, 1, 9), datetime.timedelta(minutes=90)
# Given a type, as some versions of Arrow would sort the fields otherwise.
STRUCT = pa.struct([("p", pa.list_(pa.string())), ("n", pa.int64())])

NESTED = {
    "texts": ([["a", "b"], [], None], ["['a', 'b']", "[]", None]),
    "numbers": ([[1, 2], [3, None], [None]], ["[1, 2]", "[3, None]", "[None]"]),
    "floats": ([[0.5], [2.0, None], []], ["[0.5]", "[2, None]", "[]"]),
    "booleans": ([[True], [None], []], ["[True]", "[None]", "[]"]),
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


def test_long_arrays_in_cells_are_written_whole():
    frame = pd.DataFrame({"a": ["x"], "b": [np.arange(2000)]})

    assert read_texts(frame).first.to_pylist() == [f"a: x\nb: {[*range(2000)]}"]


def test_wide_floats_of_a_frame_are_written_as_floats():
    frame = pd.DataFrame({"a": np.array([1.5, 2.0], dtype=np.longdouble), "b": "x"})

    assert read_texts(frame).first.to_pylist() == ["a: 1.5\nb: x", "a: 2\nb: x"]


def test_a_function_gets_none_for_any_cell_that_is_missing():
    """Also in a column of several types, which Arrow cannot hold."""
    cells = [1, "b", float("nan"), None, pd.NA, pd.NaT, 2.0]
    seen = []

    def row(cells):
        seen.append(cells["a"])
        return "a text"

    read_texts(pd.DataFrame({"a": cells, "b": list("tuvwxyz")}), row)
    assert seen == [1, "b", None, None, None, None, 2]


def arrow_with_codes(columns):
    codes = pa.array(columns["a"]).dictionary_encode()
    return pa.table({**columns, "a": codes})


@pytest.mark.parametrize("table", [pl.DataFrame, pa.table, arrow_with_codes])
def test_a_function_gets_none_for_nan_in_a_table_that_tells_it_from_null(table):
    seen = []

    def row(cells):
        seen.append(cells["a"])
        return "a text"

    read_texts(table({"a": [0.5, float("nan"), None], "b": list("xyz")}), row)
    assert seen == [0.5, None, None]

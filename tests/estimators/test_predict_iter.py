"""Rows that are predicted part by part."""

import threading

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from _toy import make, topics
from sklearn.exceptions import NotFittedError

from sk_adalora import (
    AdaLoraClassifier,
    AdaLoraEncoder,
    AdaLoraRegressor,
    AdaLoraTableClassifier,
)
from sk_adalora.estimators import predicting

X, Y = topics(40)
TABLE = pa.table({"id": range(40), "title": X, "note": X[::-1]})
SIZE = 16  # of a part


@pytest.fixture(scope="module")
def of_list(tiny_model):
    return make(tiny_model, epochs=1).fit(X, Y)


@pytest.fixture(scope="module")
def of_table(tiny_model):
    return make(tiny_model, epochs=1).fit(TABLE.select(["title", "note"]), Y)


def files(folder):
    """Two files, the rows in order, in groups that are no parts."""
    pq.write_table(TABLE[:25], folder / "a.parquet", row_group_size=7)
    pq.write_table(TABLE[25:], folder / "b.parquet", row_group_size=7)
    return folder


SOURCES = {
    "Arrow data set": lambda folder: pyarrow.dataset.dataset(files(folder)),
    "reader": lambda _: TABLE.to_reader(max_chunksize=9),
    "data set": lambda _: datasets.Dataset(TABLE),
    "stream": lambda _: datasets.Dataset(TABLE).to_iterable_dataset(),
    "frame": lambda _: TABLE.select(["title", "note"]).to_pandas(),
    "frames": lambda _: (
        TABLE[i : i + 20].to_pandas()[["title", "note"]] for i in (0, 20)
    ),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources(of_table, tmp_path, kind):
    parts = [*of_table.predict_iter(SOURCES[kind](tmp_path), batch_rows=SIZE)]
    whole = of_table.predict(TABLE.select(["title", "note"]))
    assert max(map(len, parts)) <= SIZE
    assert len(parts) > 1
    done = np.concatenate(parts)
    np.testing.assert_array_equal(done, whole)


def test_methods(of_list, tiny_model):
    for method in ("predict_proba", "decision_function", "transform"):
        parts = of_list.predict_iter(X, method, batch_rows=SIZE)
        whole = getattr(of_list, method)(X)
        np.testing.assert_allclose(np.concatenate([*parts]), whole, atol=1e-6)
    made = {"model": tiny_model, "max_length": 16, "epochs": 1, "random_state": 0}
    numbers = np.arange(40.0)
    regressor = AdaLoraRegressor(**made).fit(X, numbers)
    parts = [*regressor.predict_iter(iter([X[:10], X[10:]]))]
    assert [len(part) for part in parts] == [10, 30]
    np.testing.assert_allclose(np.concatenate(parts), regressor.predict(X), rtol=1e-5)
    encoder = AdaLoraEncoder(**made, tune=False).fit(X)
    encoder.set_output(transform="pandas")
    frames = [*encoder.predict_iter(X, "transform", batch_rows=SIZE)]
    assert all(isinstance(frame, pd.DataFrame) for frame in frames)
    np.testing.assert_allclose(pd.concat(frames), encoder.transform(X), atol=1e-6)


def test_a_table_with_numbers(tiny_model):
    encoder = AdaLoraEncoder(tiny_model, max_length=64, epochs=1)
    table = AdaLoraTableClassifier(encoder, cv=2, random_state=0).fit(TABLE, Y)
    parts = table.predict_iter(
        datasets.Dataset(TABLE), "predict_proba", batch_rows=SIZE
    )
    whole = table.predict_proba(TABLE)
    np.testing.assert_allclose(np.concatenate([*parts]), whole, atol=1e-6)


def test_what_is_empty_yields_nothing(of_list):
    assert [*of_list.predict_iter([])] == []
    assert [*map(len, of_list.predict_iter(iter([[], X[:2], []])))] == [2]


def test_wrong_arguments_are_refused_at_the_call(of_list, of_table):
    with pytest.raises(NotFittedError):
        AdaLoraClassifier().predict_iter(X)
    with pytest.raises(ValueError, match=r"`method` must be one of 'predict'.*'score'"):
        of_list.predict_iter(X, "score")
    with pytest.raises(ValueError, match="`batch_rows` must be an int above 0"):
        of_list.predict_iter(X, batch_rows=0)
    with pytest.raises(TypeError, match=r"`source` must be a table.* Got int\."):
        of_list.predict_iter(3)
    with pytest.raises(TypeError, match=r"pyarrow\.dataset\.dataset\(path\)"):
        of_list.predict_iter("reviews.parquet")
    with pytest.raises(ValueError, match=r"must include those of the fit.*\['note'\]"):
        of_table.predict_iter(pyarrow.dataset.dataset(TABLE.drop_columns("note")))


def test_an_error_says_after_how_many_rows(of_list):
    parts = of_list.predict_iter(iter([X, [["two", "columns"]]]))
    assert len(next(parts)) == 40
    with pytest.raises(ValueError, match="2 features") as caught:
        next(parts)
    assert caught.value.__notes__[-1] == "It was raised after 40 rows of `source`."


def test_two_at_once_and_one_that_is_given_up(of_list):
    before = set(threading.enumerate())
    one, other = (of_list.predict_iter(X, batch_rows=SIZE) for _ in range(2))
    pairs = [(next(one), next(other)) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in pairs)
    one.close()
    del other
    assert set(threading.enumerate()) == before


def test_predict_cuts_large_tables(of_list, monkeypatch, capsys):
    texts = [f"{text} {i % 30}" for i, text in enumerate(X * 3)]
    whole = of_list.predict_proba(texts)
    monkeypatch.setattr(predicting, "PART_ROWS", 50)
    of_list.set_params(verbose=1)
    np.testing.assert_allclose(of_list.predict_proba(texts), whole, atol=1e-6)
    assert "predict: 100%" in capsys.readouterr().err
    of_list.set_params(verbose=0)

"""Explanations against their definition: leave out a word, and predict by hand."""

import numpy as np
import pandas as pd
import pytest
from _toy import make, make_regressor, topics, toy
from sklearn.exceptions import NotFittedError

from sk_adalora import AdaLoraClassifier


@pytest.fixture(scope="module")
def fitted(tiny_model):
    """A classifier of three classes: do not refit."""
    return make(tiny_model).fit(*topics())


@pytest.fixture(scope="module")
def binary(tiny_model):
    """A classifier of two classes: do not refit."""
    return make(tiny_model).fit(*toy())


def log_odds(classifier, X, column):
    logs = classifier.predict_log_proba(X)
    others = np.delete(logs, column, axis=1)
    return logs[:, column] - np.logaddexp.reduce(others, axis=1)


def without_each(text, words):
    """A text of words and single spaces, without each of its words."""
    assert text.split(" ") == words
    return [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]


@pytest.mark.parametrize(
    "text",
    [
        "team market film film",  # each occurrence is a word
        "music",
        "price 👩‍👩‍👧 game",  # an emoji of five characters
        "שלום team עולם",
        "qwxyz market",  # unknown to the tokenizer
        "cafe\u0301 film don't",
    ],
)
@pytest.mark.parametrize("target", [None, "sport"])
def test_a_word_is_worth_what_its_absence_changes(fitted, text, target):
    explained = fitted.explain([text], target=target)[0]

    shown = fitted.predict([text])[0] if target is None else target
    column = fitted.classes_.tolist().index(shown)
    whole = log_odds(fitted, [text], column)
    without = log_odds(fitted, without_each(text, explained.words), column)
    assert explained.target == shown
    assert explained.output == pytest.approx(whole[0], abs=1e-5)
    np.testing.assert_allclose(explained.values, whole - without, atol=1e-5)
    assert [text[a:b] for a, b in explained.spans] == explained.words
    nothing = whole - log_odds(fitted, [""], column)
    assert explained.column_values["X"] == pytest.approx(nothing[0], abs=1e-5)


def test_rows_are_explained_as_if_alone(binary):
    texts = ["good film", "", "bad bad price", "great"]
    together = binary.explain(texts)

    assert [row.target for row in together] == [1] * 4
    assert together[1].words == []
    for text, row in zip(texts, together, strict=True):
        alone = binary.explain([text])[0]
        np.testing.assert_allclose(row.values, alone.values, atol=1e-5)
    assert [row.output for row in together] == pytest.approx(
        binary.decision_function(texts), abs=1e-5
    )


def test_words_that_the_model_never_sees_are_worth_nothing(tiny_model):
    clf = make(tiny_model, max_length=8).fit(*toy())
    values = clf.explain(["good bad film red best win loss price"])[0].values

    assert (values[6:] == 0).all()
    assert (values[:6] != 0).all()


def test_windows_are_all_read(tiny_model):
    clf = make(tiny_model, max_length=8, long_text="windows").fit(*toy())
    text = "good bad film red best win loss price good great"
    explained = clf.explain([text])[0]

    without = clf.decision_function(without_each(text, explained.words))
    expected = clf.decision_function([text]) - without
    np.testing.assert_allclose(explained.values, expected, atol=1e-5)


@pytest.mark.parametrize("row_format", ["auto", "pair", "{a} or {b}"])
@pytest.mark.parametrize("dtype", [object, "category"])
def test_words_of_a_table_are_of_their_columns(tiny_model, row_format, dtype):
    X, y = toy()
    table = pd.DataFrame({"a": X, "b": X[::-1]}).astype(dtype)
    clf = make(tiny_model, row_format=row_format).fit(table, y)
    row = pd.DataFrame({"a": ["good film"], "b": ["bad price red"]})
    explained = clf.explain(row.astype(dtype))[0]

    whole = clf.decision_function(row.astype(dtype))
    no_cell = row.assign(b=pd.Series([None], dtype=object)).astype(dtype)
    missing = whole - clf.decision_function(no_cell)
    assert explained.column_values["b"] == pytest.approx(missing[0], abs=1e-5)
    if dtype == "category" and row_format != "pair":
        assert explained.words == []
        assert explained.cells == {"a": "good film", "b": "bad price red"}
        return
    assert explained.columns == ["a", "a", "b", "b", "b"]
    changed = clf.decision_function(row.assign(b="bad red").astype(dtype))
    assert explained.values[3] == pytest.approx((whole - changed)[0], abs=1e-5)


def test_several_labels_and_numbers(tiny_model):
    X, y = toy()
    labels = np.column_stack([y, 1 - y, y])
    clf = make(tiny_model).fit(X, labels)
    for target in (None, 1):
        row = clf.explain(["good film"], target=target)[0]
        odds = clf.decision_function(["good film", "film"])
        column = odds[0].argmax() if target is None else target
        assert row.values[0] == pytest.approx(
            odds[0, column] - odds[1, column], abs=1e-5
        )
    reg = make_regressor(tiny_model).fit(X, 100.0 * y + 7)
    row = reg.explain(["good film"])[0]
    whole, without = reg.predict(["good film", "film"])
    assert row.unit == "prediction"
    assert row.values[0] == pytest.approx(whole - without, abs=1e-3)


@pytest.mark.parametrize("regressor", [False, True])
def test_mixed_tables_are_explained_through_all_parts(tiny_model, regressor):
    pytest.importorskip("skrub", reason="needs the extra `tables`")
    from sk_adalora import (
        AdaLoraEncoder,
        AdaLoraTableClassifier,
        AdaLoraTableRegressor,
    )

    texts, y = toy(60)
    minutes = np.arange(60.0) % 7 + 5 * y
    table = pd.DataFrame({"text": texts, "minutes": minutes})
    cls = AdaLoraTableRegressor if regressor else AdaLoraTableClassifier
    encoder = AdaLoraEncoder(tiny_model, target_r=2, epochs=1, device="cpu")
    roles = {"text": "text", "minutes": "number"}
    parts = ["linear", "text"]
    est = cls(encoder, cv=2, parts=parts, column_roles=roles, random_state=0)
    est.fit(table, y * 1.0 if regressor else y)
    row = pd.DataFrame({"text": ["good bad film"], "minutes": [4.0]})
    explained = est.explain(row)[0]

    def measure(X):
        if regressor:
            return est.predict(X)[0]
        p = est.predict_proba(X)[0, 1]
        return np.log(p / (1 - p))

    expected = measure(row) - measure(row.assign(text="bad film"))
    assert explained.values[0] == pytest.approx(expected, abs=1e-5)
    expected = measure(row) - measure(row.assign(minutes=np.nan))
    assert explained.column_values["minutes"] == pytest.approx(expected, abs=1e-5)
    assert explained.cells == {"minutes": 4}
    assert explained.output == pytest.approx(measure(row), abs=1e-5)


def test_html_is_the_text_escaped_and_tinted(binary):
    html = binary.explain(["good <b> & film", "שלום", "bad"])._repr_html_()

    assert "<b>good" not in html
    assert "&lt;" in html
    assert "&amp;" in html
    assert 'dir="auto"' in html
    assert "שלום" in html
    assert "rgba(230, 97, 0" in html
    assert "rgba(0, 114, 178" in html
    assert "raises" in html
    assert "log-odds of 1" in html


def test_the_text_form_lists_the_strongest_words_first(binary):
    explained = binary.explain(["good film bad"])[0]
    lines = repr(explained).splitlines()

    strongest = explained.words[np.abs(explained.values).argmax()]
    assert lines[0].startswith("log-odds of 1: ")
    assert lines[1].split()[1] == strongest


def test_what_cannot_be_explained_is_refused(binary):
    with pytest.raises(NotFittedError):
        AdaLoraClassifier().explain(["a"])
    with pytest.raises(ValueError, match=r"`target` must be .*: 0, 1\. Got 'art'"):
        binary.explain(["a"], target="art")
    with pytest.raises(ValueError, match=r"Pass \[X\]"):
        binary.explain("a text")

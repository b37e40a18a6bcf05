"""What users are told: what must be, what was got, and what to do.

`pytest tests -k messages -s` shows the messages.
"""

import pickle
import sys
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from _tiny import no_warning
from _toy import make, make_regressor, toy

from sk_adalora import AdaLoraEncoder, AdaLoraRegressor, AdaLoraTableClassifier

X, Y = toy(24)
TOKENS = [text.split() for text in X]
ENDLESS: list = []
ENDLESS.append(ENDLESS)
TEXT = np.array(X, dtype=object)
LABELS = np.array(["no", "yes"], dtype=object)[Y]
NOT_UTF8 = pa.array([b"\xff\xfe"] * 24, pa.binary()).view(pa.utf8())
ONE_HOT = np.eye(2, dtype=int)[Y]
WITH_Y = pd.DataFrame({"text": X, "label": LABELS})
LONG = [f"a long text with the number {i}" for i in range(24)]


def fit(x=X, y=Y, make=make, **weights):
    """Rows are refused before the model is found that is not there."""
    return lambda: make("unused").fit(x, y, **weights)


def fit_regressor(y):
    return fit(y=y, make=make_regressor)


def show(situation, message):
    """Check the parts of a message, print it, and return what to do."""
    sys.stdout.write(f"\n{situation}\n    {message}\n")
    what, got, rest = message.partition("Got ")
    assert "must" in what or "should" in what or "not supported" in what
    assert got
    _, end, do = rest.partition(". ")
    assert end
    assert do[0].isupper()
    return do


# situation: call, what must be, what to do
REFUSED = {
    "rows of tokens": (fit(TOKENS), "rows of X", '" ".join(row)'),
    "a column of tokens": (fit(pd.Series(TOKENS)), "X must", '" ".join(row)'),
    "text that is not UTF-8": (fit(NOT_UTF8), "X must hold valid", "decode"),
    "a list in itself": (fit(ENDLESS), "cells of X", "Pass a text"),
    "huge numbers": (fit_regressor([10**400] * 24), "`y` of a reg", "scale"),
    "objects": (fit_regressor([{}] * 24), "`y` of a regressor", "Convert"),
    "words": (fit_regressor(["a"] * 24), "`y` of a regressor", "AdaLoraClassifier"),
    "huge weights": (fit(sample_weight=[10**400] * 24), "`sample_weight` must", "Pass"),
    "words as weights": (fit(sample_weight=["a"] * 24), "`sample_weight` must", "Pass"),
}


@pytest.mark.parametrize("situation", REFUSED)
def test_messages_of_refused_rows(situation):
    call, what, do = REFUSED[situation]
    with pytest.raises(ValueError, match=what) as raised:
        call()

    message = str(raised.value)
    assert what in message.partition("Got ")[0]
    assert do in show(situation, message)
    assert len(message) < 400  # and not all that was passed


def test_messages_of_a_model_that_is_not_there():
    with pytest.raises(OSError, match="nobody/none") as raised:
        make("nobody/none").fit(X, Y)

    assert "HF_HUB_OFFLINE=1" in show("an unknown model, offline", str(raised.value))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_messages_of_a_pickle_as_weights(own_model):
    (own_model / "model.safetensors").unlink()
    with (own_model / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"weights": print}, file)
    with pytest.raises(ValueError, match="one that transformers can read") as raised:
        make(own_model).fit(X, Y)

    assert "safetensors" in show("a pickle as weights", str(raised.value))
    assert "weights_only" not in str(raised.value)


# situation: X, y, what must be, what to do
WARNED = {
    "a column equal to y": (WITH_Y, LABELS, "X must not hold the targets", "'label'"),
}


def warned_of(call, what):
    """Return the only message that says what must be."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    (found,) = [w for w in caught if what in str(w.message)]
    assert found.filename == __file__
    return str(found.message)


@pytest.mark.parametrize("situation", WARNED)
def test_messages_of_what_looks_mistaken(tiny_model, situation):
    given, y, what, do = WARNED[situation]
    message = warned_of(lambda: make(tiny_model, epochs=1).fit(given, y), what)

    show(situation, message)
    assert do in message


def test_messages_are_not_repeated_by_fits_of_folds(tiny_model, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    slow = {"learning_rate": 2e-5, "epochs": 1, "device": "cpu"}
    encoder = AdaLoraEncoder(tiny_model, **slow, target_type="multiclass", cv=2)
    table = AdaLoraTableClassifier(encoder=encoder, cv=2, parts=("text",))
    frame = pd.DataFrame({"text": LONG, "n": np.arange(24), "label": LABELS})
    for what in ("process group", "much larger than for full fine", "hold the targets"):
        show(what, warned_of(lambda: table.fit(frame, LABELS), what))
        show(what, warned_of(lambda: encoder.fit_transform(frame, LABELS), what))


@pytest.mark.parametrize("rate", [1e-3, 1e-9])
def test_rates_that_train_or_are_meant_not_to_are_not_warned_of(tiny_model, rate):
    regressor = AdaLoraRegressor(tiny_model, learning_rate=rate, epochs=1)
    with no_warning():
        regressor.fit(X, np.arange(24.0))


def test_a_table_model_that_is_given_a_column_says_one_thing(tiny_model):
    encoder = AdaLoraEncoder(tiny_model, tune=False)
    table = AdaLoraTableClassifier(encoder=encoder, parts=("vectors",), cv=2)
    frame = pd.DataFrame({"text": LONG, "n": np.arange(24)})
    table.fit(frame, LABELS)
    with no_warning(), pytest.raises(ValueError, match=r"X has 1 f.* is expecting 2"):
        table.predict(frame["text"])

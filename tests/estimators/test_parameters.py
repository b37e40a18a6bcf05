"""Every parameter has a rule, and a message that says what, got and do."""

import copy
import inspect
import os
import re
from collections import UserDict
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from _toy import attributes, make, same_attributes, toy
from numpy.testing import assert_array_equal

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora.estimators.parameters import CLASSIFIER_RULES, SHARED_RULES
from sk_adalora.runtime.rules import check_parameters

NAN, INF = float("nan"), float("inf")
ALWAYS_WRONG = [object(), 1j, b"bytes"]
NOT_INTEGERS = [NAN, INF, 1.5, True, "3", None, []]
NOT_NUMBERS = [NAN, INF, -INF, True, "0.5", [], np.array([0.5])]
NOT_WORDS = ["", "nonsense", 1, True, NAN, None]
NOT_FLAGS = [0, 1, "yes", None, NAN]

# Beside ALWAYS_WRONG: values that each parameter must refuse.
WRONG = {
    "model": ["", 1, True, None, NAN, ["bert"]],
    "target_r": [0, -1, 0.0, 1.0, -0.5, 8.0, *NOT_NUMBERS, None],
    "init_r": [0, -1, *(v for v in NOT_INTEGERS if v is not None)],
    "tinit": [-1, 1.0, -0.1, *NOT_NUMBERS, None],
    "tfinal": [-1, 1.0, -0.1, *NOT_NUMBERS, None],
    "deltaT": [0, -1, 0.0, 1.0, "", "Auto", *NOT_NUMBERS, None],
    "beta1": [0, 1, 0.0, 1.0, -0.1, *NOT_NUMBERS, None],
    "beta2": [0, 1, 0.0, 1.0, -0.1, *NOT_NUMBERS, None],
    "orth_reg_weight": [-0.1, *NOT_NUMBERS, None],
    "lora_alpha": [0, -1.0, *NOT_NUMBERS],
    "lora_dropout": [-0.1, 1.0, 1, *NOT_NUMBERS, None],
    "target_modules": ["", [], (), [1], ["query", None], {"query": 1}, 1, True, None],
    "epochs": [0, -1, *NOT_INTEGERS, "many"],
    "max_steps": [0, -1, *(v for v in NOT_INTEGERS if v is not None)],
    "timeout": [0, -1.0, *NOT_NUMBERS],
    "batch_size": [0, -1, *NOT_INTEGERS],
    "learning_rate": [0, -0.1, *NOT_NUMBERS, None],
    "warmup_ratio": [-0.1, 1.1, *NOT_NUMBERS, None],
    "class_weight": ["", "nonsense", 1, True, NAN, {"a"}, [1.0, 2.0]],
    "early_stopping": NOT_FLAGS,
    "validation_fraction": [0, 1, 0.0, 1.0, -0.1, *NOT_NUMBERS, None],
    "n_iter_no_change": [0, -1, *NOT_INTEGERS],
    "scoring": ["", "acuracy", 1, True, NAN, ["accuracy"], {"a": "accuracy"}],
    "row_format": ["", 1, True, NAN, None, ["auto"]],
    "max_length": [0, 1, -1, *NOT_INTEGERS],
    "long_text": NOT_WORDS,
    "pooling": NOT_WORDS,
    "device": ["", 1, True, None, NAN],
    "precision": [*NOT_WORDS, "float64"],
    "model_kwargs": ["", 1, True, NAN, ["revision"]],
    "random_state": [-1, 2**32, 1.5, "0", True, NAN, INF, np.random.default_rng()],
    "verbose": [-1, 1.5, "yes", None, NAN],
}
RIGHT = {
    "model": ["bert-base-uncased", Path("folder"), os.curdir],
    "target_r": [1, 8, 0.5, 1e-9, np.int64(3), np.float32(0.5)],
    "init_r": [1, None, np.int32(12)],
    "tinit": [0, 0.0, 0.99, 10**6, np.int8(3)],
    "tfinal": [0, 0.0, 0.99, 10**6],
    "deltaT": ["auto", 1, 0.5, np.float64(0.1)],
    "beta1": [0.5, 1e-9],
    "beta2": [0.5, 1e-9],
    "orth_reg_weight": [0, 0.0, 5],
    "lora_alpha": [None, 1, 0.1, np.float32(2)],
    "lora_dropout": [0, 0.0, 0.9],
    "target_modules": ["all-linear", ".*query", ["query"], ("query", "key"), {"value"}],
    "epochs": [1, np.int64(5), "auto"],
    "max_steps": [None, 1, np.int64(5)],
    "timeout": [None, 1, 0.5],
    "batch_size": [1, 10**6],
    "learning_rate": [1e-9, 1, np.float32(0.1)],
    "warmup_ratio": [0, 1, 0.5],
    "class_weight": [None, "balanced", {"a": 2.0}, UserDict(a=2.0)],
    "early_stopping": [True, np.False_],
    "validation_fraction": [0.5],
    "n_iter_no_change": [1],
    "scoring": [None, "accuracy", len],
    "row_format": ["auto", "pair", "{title}", str],
    "max_length": [2, 512],
    "long_text": ["truncate", "head_tail", "windows"],
    "pooling": ["mean", "cls", "last", "max", "model"],
    "device": ["auto", "cpu", "cuda:1"],
    "precision": ["auto", "float32", "bfloat16", "float16"],
    "model_kwargs": [None, {}, {"revision": "main"}],
    "random_state": [None, 0, 2**32 - 1, np.int64(7), np.random.RandomState(0)],
    "verbose": [0, 1, True, False],
}
PARAMETERS = sorted(inspect.signature(AdaLoraClassifier).parameters)


def shown(value):
    """Return a value as text, without its address: the same in every process."""
    return re.sub(" at 0x[0-9A-Fa-f]+", "", repr(value))


def cases(table, extra=()):
    return [
        pytest.param(name, value, id=f"{name}={shown(value)}")
        for name, values in table.items()
        for value in [*values, *extra]
    ]


def expect(name, value):
    message = (
        rf"`{name}` of AdaLoraClassifier must be .+\. Got {re.escape(repr(value))}"
    )
    return pytest.raises(ValueError, match=message)


def test_every_parameter_has_a_rule_and_a_row_in_the_tables_here():
    # Parameters that have tests of their own elsewhere need no row here.
    assert sorted(CLASSIFIER_RULES) == PARAMETERS
    assert set(SHARED_RULES) < set(CLASSIFIER_RULES)
    assert WRONG.keys() == RIGHT.keys()
    assert WRONG.keys() <= set(PARAMETERS)


@pytest.mark.parametrize(("name", "value"), cases(WRONG, ALWAYS_WRONG))
def test_wrong_values_are_refused(name, value):
    classifier = AdaLoraClassifier(**{name: value})

    with expect(name, value) as raised:
        check_parameters(classifier, CLASSIFIER_RULES)
    assert f"set_params({name}=...)" in str(raised.value)


@pytest.mark.parametrize(("name", "value"), cases(RIGHT))
def test_right_values_pass(name, value):
    check_parameters(AdaLoraClassifier(**{name: value}), CLASSIFIER_RULES)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lora_dropout", 1.5, r"must be a number in \[0, 1\)\. Got 1\.5\."),
        ("scoring", "acuracy", "Got 'acuracy'. Did you mean 'accuracy'"),
        ("pooling", "median", "one of 'mean', 'cls', 'last', 'max', "),
        ("learning_rate", 10**400, "must be a number in .* Got 1000"),
        ("model", torch.nn.Linear(2, 2), "model id or a folder. Got "),
    ],
)
def test_the_message_says_what_would_be_right(name, value, said):
    with pytest.raises(ValueError, match=said):
        check_parameters(AdaLoraClassifier(**{name: value}), CLASSIFIER_RULES)


@pytest.mark.parametrize("name", PARAMETERS)
def test_fit_checks_before_it_loads_anything(name):
    classifier = AdaLoraClassifier(**{"model": "unused", name: (value := object())})
    before = attributes(classifier)

    with expect(name, value):
        classifier.fit(*toy(8))
    assert same_attributes(classifier, before)


@pytest.mark.parametrize(
    "name",
    [
        *("model", "model_kwargs", "row_format", "max_length", "long_text"),
        *("device", "precision"),
    ],
)
def test_predictions_check_what_they_use(fitted, name):
    changed = copy.copy(fitted).set_params(**{name: (value := object())})

    with expect(name, value):
        changed.predict(["good film"])


def test_model_kwargs_do_not_repeat_parameters(tiny_model):
    estimator = make(tiny_model, model_kwargs={"dtype": "bfloat16"})
    with pytest.raises(ValueError, match=r"must not hold 'dtype'.*`precision`"):
        estimator.fit(*toy(8))


@pytest.mark.parametrize("estimator", [AdaLoraClassifier, AdaLoraRegressor])
def test_an_annotation_tells_counts_from_shares(estimator):
    # Programs that convert a command line or a YAML file by the annotations, as
    # jsonargparse and hydra do, make 2.0 of a 2 for a parameter annotated as `float`.
    hints = get_type_hints(estimator.__init__)
    for name in inspect.signature(estimator).parameters:
        accepts = CLASSIFIER_RULES[name].accepts
        if name != "random_state" and accepts(2) and not accepts(2.0):
            assert int in (hints[name], *get_args(hints[name])), name


def test_the_constructor_checks_nothing_and_keeps_what_it_gets():
    weird = object()
    for name in PARAMETERS:
        assert getattr(AdaLoraClassifier(**{name: weird}), name) is weird


def test_a_subclass_may_have_a_parameter_of_its_own(tiny_model):
    class Extended(AdaLoraClassifier):
        def __init__(self, model, *, extra=None, epochs=1):
            super().__init__(model, epochs=epochs, device="cpu")
            self.extra = extra

    X, y = toy(24)

    assert Extended(tiny_model, extra=object()).fit(X, y).predict(X).shape == (24,)


def test_numbers_of_numpy_do_the_same(tiny_model):
    X, y = toy(48)
    counts = {"init_r": 6, "epochs": 2, "batch_size": 8, "n_iter_no_change": 2}
    counts |= {"lora_alpha": 4, "max_length": 16}
    shares = {"target_r": 0.5, "tinit": 0.25, "tfinal": 0.25, "deltaT": 0.125}
    shares |= {"warmup_ratio": 0.125, "validation_fraction": 0.25, "beta1": 0.5}
    shares |= {"learning_rate": 2**-8}
    # These count modulo 256, and hold no large number.
    narrow = {name: np.uint8(value) for name, value in counts.items()}
    narrow |= {name: np.float16(value) for name, value in shares.items()}

    wide = make(tiny_model, **counts, **shares, early_stopping=True).fit(X, y)
    same = make(tiny_model, **narrow, early_stopping=True).fit(X, y)

    assert_array_equal(same.predict_proba(X), wide.predict_proba(X))

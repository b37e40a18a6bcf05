"""What is kept of a training: a point between its start and its end."""

import functools

import numpy as np
import pytest
from _toy import make as make_classifier
from _toy import make_regressor, numbers, topics

from sk_adalora.estimators import fitting as _fitting

X, Y = topics(36)
X_VAL, Y_VAL = topics(24, seed=1)
# Training that changes nothing leaves the head where it started.
STILL = {"learning_rate": 1e-12, "head_learning_rate": 1e-12, "epochs": 1}
DEFAULT = 0.85


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier that is quick to fit."""
    return functools.partial(make_classifier, tiny_model, epochs=4)


def is_head(name):
    return name.startswith("head.")


def is_value(name):
    return name.endswith("lora_E")


# The point between


def test_updates_and_head_go_back_together(make):
    """The other numbers of an update, its directions, stay."""
    share = 0.25
    start = numbers(make(interpolation=1.0, **STILL).fit(X, Y))
    end = numbers(make(interpolation=1).fit(X, Y))
    kept = numbers(make(interpolation=share).fit(X, Y))

    assert kept.keys() == end.keys()
    assert sum(map(is_head, kept)) == 2
    for name, value in kept.items():
        expected = end[name]
        if is_value(name):
            expected = share * end[name]
        elif is_head(name):
            expected = (1 - share) * start[name] + share * end[name]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert any(np.abs(v).max() > 1e-3 for n, v in end.items() if is_value(n))


def test_at_zero_the_linear_probe_is_left(make):
    probe = make(**STILL).fit(X, Y)
    trained = make(interpolation=1).fit(X, Y)
    back = make(interpolation=0).fit(X, Y)

    np.testing.assert_allclose(back.predict_proba(X), probe.predict_proba(X), atol=1e-5)
    assert not np.allclose(back.predict_proba(X), trained.predict_proba(X), atol=1e-3)
    assert back.history_.loss == trained.history_.loss


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_random_head_goes_back_to_where_it_started(make, pooling):
    options = {"head_init": "random", "pooling": pooling}
    start = make(**options, **STILL).fit(X, Y).predict_proba(X)
    back = make(**options, interpolation=0).fit(X, Y).predict_proba(X)

    np.testing.assert_allclose(back, start, atol=1e-5)


# What "auto" is


@pytest.mark.parametrize(
    ("kind", "options", "share"),
    [
        (make_classifier, {}, DEFAULT),
        (make_classifier, {"epochs": 3}, 1),
        (make_classifier, {"epochs": "auto"}, DEFAULT),  # ten, of so few rows
        (make_classifier, {"head_init": "random"}, 1),
        (make_classifier, {"pooling": "model", "head_init": "linear_probe"}, 1),
        (make_regressor, {}, DEFAULT),
        (make_regressor, {"epochs": 3}, 1),
        (make_regressor, {"head_init": "linear_probe"}, DEFAULT),
        (make_regressor, {"pooling": "model"}, 1),
    ],
)
def test_auto(tiny_model, kind, options, share):
    y = Y if kind is make_classifier else np.array([len(text) for text in X], float)
    options = {"epochs": 4, **options}
    fits = [
        kind(tiny_model, interpolation=each, **options).fit(X, y)
        for each in ("auto", share, 0.5)
    ]
    auto, named, other = (fit._predict_outputs(X) for fit in fits)

    np.testing.assert_array_equal(auto, named)
    assert not np.allclose(auto, other, rtol=1e-4)


def test_auto_keeps_all_of_a_training_on_many_rows(make, monkeypatch):
    assert _fitting._FEW_ROWS == 1000  # as the docstring says
    monkeypatch.setattr(_fitting, "_FEW_ROWS", len(X) - 1)
    auto = make().fit(X, Y)
    named = make(interpolation=1).fit(X, Y)

    np.testing.assert_array_equal(auto.predict_proba(X), named.predict_proba(X))


@pytest.mark.parametrize("n_columns", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_regressor_that_keeps_nothing_predicts_the_mean(
    tiny_model, n_columns, weighted
):
    """Whatever features the texts have in common: a drawn head is put around it."""
    texts = X[:12] + X[:4] * 3  # some texts are of several rows
    y = np.column_stack([np.arange(24.0), 100 - np.arange(24.0) ** 2])[:, :n_columns]
    weight = np.linspace(0.1, 3, 24) if weighted else None
    start = make_regressor(tiny_model, interpolation=0, epochs=4)
    start.fit(texts, y, sample_weight=weight)

    error = start.predict(texts).reshape(y.shape) - y
    error = np.average(error, axis=0, weights=weight)
    np.testing.assert_allclose(error / y.std(axis=0), 0, atol=1e-5)


def test_a_fit_that_continues_keeps_all(make):
    fitted = make().fit(X, Y)
    expected = fitted.predict_proba(X)
    fitted.set_params(warm_start=True, interpolation=0, **STILL).fit(X, Y)

    np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=1e-4)


# While the training goes on


class Watch:
    """A callback that keeps what the estimator of each epoch predicts."""

    def __init__(self):
        self.found = []

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.found.append(fitted_estimator.predict_proba(X))


def test_callbacks_see_what_would_be_kept(make):
    watch = Watch()
    fitted = make(interpolation=0.5).set_callbacks(watch).fit(X, Y)
    last, end = watch.found[-2:]

    np.testing.assert_allclose(last, fitted.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(end, fitted.predict_proba(X), atol=1e-5)


def test_a_look_at_an_epoch_leaves_no_trace(make):
    options = {"interpolation": 0.5, "lora_dropout": 0.1}
    alone = make(**options).fit(X, Y)
    watched = make(**options).set_callbacks(Watch()).fit(X, Y)
    trained = make(lora_dropout=0.1, interpolation=1).fit(X, Y)  # nothing to see in it

    assert watched.history_.loss == alone.history_.loss == trained.history_.loss
    for name, value in numbers(alone).items():
        np.testing.assert_array_equal(numbers(watched)[name], value)


def test_the_state_that_is_scored_is_kept(make):
    def confidence(estimator, rows, labels):
        return estimator.predict_proba(rows).max(axis=1).mean()

    fitted = make(
        interpolation=0.5, early_stopping=True, scoring=confidence, epochs=6
    ).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    history = fitted.history_

    assert history.best_epoch is not None
    assert confidence(fitted, X_VAL, Y_VAL) == pytest.approx(
        history.score[history.best_epoch], abs=1e-5
    )


def test_what_is_scored_is_what_callbacks_see(make):
    """Also between two allocations, when what was pruned trains on."""
    scored, watch = [], Watch()

    def note(estimator, rows, labels):
        scored.append(estimator.predict_proba(X))
        return len(scored)

    options = {"deltaT": 7, "tfinal": 0.1, "learning_rate": 0.05, "epochs": 6}
    early = {"early_stopping": True, "scoring": note, "n_iter_no_change": 9}
    classifier = make(interpolation=0.5, **options, **early).set_callbacks(watch)
    classifier.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)

    assert len(scored) == 6
    for seen, shares in zip(watch.found, scored, strict=False):
        np.testing.assert_allclose(seen, shares, atol=2e-5)


def test_a_scorer_that_fails_leaves_the_estimator(make):
    def fail(estimator, rows, labels):
        raise RuntimeError("no score today")

    fitted = make().fit(X, Y)
    expected = fitted.predict_proba(X)
    with pytest.raises(RuntimeError, match="no score today"):
        fitted.set_params(early_stopping=True, scoring=fail).fit(X, Y)

    np.testing.assert_array_equal(fitted.predict_proba(X), expected)

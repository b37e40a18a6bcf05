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
STILL = {"learning_rate": 1e-12, "epochs": 1}


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier that is quick to fit."""
    return functools.partial(make_classifier, tiny_model, epochs=4)


@pytest.fixture
def keep(monkeypatch):
    """Function: the share to keep of a training on few rows, in place of 0.85."""
    return functools.partial(monkeypatch.setattr, _fitting, "_INTERPOLATION")


def is_head(name):
    return name.startswith("head.")


def is_value(name):
    return name.endswith("lora_E")


# The point between


def test_updates_and_head_go_back_together(make, keep):
    """The other numbers of an update, its directions, stay."""
    start = numbers(make(**STILL).fit(X, Y))
    found = {}
    for share in (1.0, 0.25):
        keep(share)
        found[share] = numbers(make().fit(X, Y))
    end, kept = found[1.0], found[0.25]

    assert kept.keys() == end.keys()
    assert sum(map(is_head, kept)) == 2
    for name, value in kept.items():
        expected = end[name]
        if is_value(name):
            expected = 0.25 * end[name]
        elif is_head(name):
            expected = 0.75 * start[name] + 0.25 * end[name]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert any(np.abs(v).max() > 1e-3 for n, v in end.items() if is_value(n))


@pytest.mark.parametrize(
    ("kind", "options", "takes_back"),
    [
        (make_classifier, {}, True),
        (make_classifier, {"epochs": 3}, False),
        (make_classifier, {"epochs": "auto"}, True),  # ten, of so few rows
        (make_classifier, {"pooling": "model"}, False),
        (make_regressor, {}, True),
        (make_regressor, {"epochs": 3}, False),
        (make_regressor, {"pooling": "model"}, False),
    ],
)
def test_part_of_a_long_training_is_taken_back(
    tiny_model, keep, kind, options, takes_back
):
    y = Y if kind is make_classifier else np.array([len(text) for text in X], float)
    options = {"epochs": 4, **options}
    usual = kind(tiny_model, **options).fit(X, y)._predict_outputs(X)
    keep(1.0)
    whole = kind(tiny_model, **options).fit(X, y)._predict_outputs(X)

    assert np.array_equal(usual, whole) != takes_back


def test_all_of_a_training_on_many_rows_is_kept(make, keep, monkeypatch):
    monkeypatch.setattr(_fitting, "_FEW_ROWS", len(X) - 1)
    usual = make().fit(X, Y)
    keep(1.0)

    np.testing.assert_array_equal(
        usual.predict_proba(X), make().fit(X, Y).predict_proba(X)
    )


@pytest.mark.parametrize("n_columns", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_regressor_that_keeps_nothing_predicts_the_mean(
    tiny_model, keep, n_columns, weighted
):
    """Whatever features the texts have in common: a drawn head is put around it."""
    texts = X[:12] + X[:4] * 3  # some texts are of several rows
    y = np.column_stack([np.arange(24.0), 100 - np.arange(24.0) ** 2])[:, :n_columns]
    weight = np.linspace(0.1, 3, 24) if weighted else None
    keep(0.0)
    start = make_regressor(tiny_model, epochs=4).fit(texts, y, sample_weight=weight)

    error = start.predict(texts).reshape(y.shape) - y
    error = np.average(error, axis=0, weights=weight)
    np.testing.assert_allclose(error / y.std(axis=0), 0, atol=1e-5)


def test_a_fit_that_continues_keeps_all(make, keep):
    fitted = make().fit(X, Y)
    expected = fitted.predict_proba(X)
    keep(0.0)
    fitted.set_params(warm_start=True, learning_rate=1e-12).fit(X, Y)

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


def test_callbacks_see_what_would_be_kept(make, keep):
    keep(0.5)
    watch = Watch()
    fitted = make().set_callbacks(watch).fit(X, Y)
    last, end = watch.found[-2:]

    np.testing.assert_allclose(last, fitted.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(end, fitted.predict_proba(X), atol=1e-5)


def test_a_look_at_an_epoch_leaves_no_trace(make, keep):
    keep(0.5)
    alone = make(lora_dropout=0.1).fit(X, Y)
    watched = make(lora_dropout=0.1).set_callbacks(Watch()).fit(X, Y)

    assert watched.history_.loss == alone.history_.loss
    for name, value in numbers(alone).items():
        np.testing.assert_array_equal(numbers(watched)[name], value)


def test_the_state_that_is_scored_is_kept(make, keep):
    keep(0.5)

    def confidence(estimator, rows, labels):
        return estimator.predict_proba(rows).max(axis=1).mean()

    fitted = make(early_stopping=True, scoring=confidence, epochs=6).fit(
        X, Y, X_val=X_VAL, y_val=Y_VAL
    )
    history = fitted.history_

    assert history.best_epoch is not None
    assert confidence(fitted, X_VAL, Y_VAL) == pytest.approx(
        history.score[history.best_epoch], abs=1e-5
    )


def test_what_is_scored_is_what_callbacks_see(make, keep):
    """Also between two allocations, when what was pruned trains on."""
    keep(0.5)
    scored, watch = [], Watch()

    def note(estimator, rows, labels):
        scored.append(estimator.predict_proba(X))
        return len(scored)

    options = {"deltaT": 7, "tfinal": 0.1, "learning_rate": 0.05, "epochs": 6}
    early = {"early_stopping": True, "scoring": note, "n_iter_no_change": 9}
    classifier = make(**options, **early).set_callbacks(watch)
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

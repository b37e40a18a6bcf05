"""The head starts at a linear model of the pretrained model's features."""

import functools

import numpy as np
import pytest
import torch
from _toy import make as make_classifier
from _toy import make_regressor, topics
from sklearn.linear_model import LogisticRegression, Ridge

from sk_adalora.data.targets import Classes, Labels, Numbers
from sk_adalora.data.texts import read_texts
from sk_adalora.network.head import mean_and_distance
from sk_adalora.tokens.tokenize import encode
from sk_adalora.training import start_head as _start_head
from sk_adalora.training.start_head import (
    fit_linear,
    frozen_features,
    penalties_of,
)

X, Y = topics(36)
PENALTY = _start_head._PENALTY
# Training that changes nothing leaves the head where it started.
STILL = {"learning_rate": 1e-12, "epochs": 1}


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier that is quick to fit."""
    return functools.partial(make_classifier, tiny_model)


def draw(n=60, width=8, outputs=3):
    """Features far from the origin, and what depends on them."""
    rng = np.random.default_rng(0)
    features = 5 + 3 * rng.normal(size=(n, width))
    scores = features @ rng.normal(size=(width, outputs)) + rng.normal(
        size=(n, outputs)
    )
    weights = rng.uniform(0.1, 2, size=n)
    return features.astype(np.float32), scores - scores.mean(0), weights


def fit(features, targets, weights, loss, k, penalties=PENALTY):
    """Fit to standardised features; return weight and bias for those as they are."""
    weights = None if weights is None else torch.from_numpy(weights)
    centre, length = mean_and_distance(
        torch.from_numpy(features), weights, torch.float32
    )
    weight, bias = fit_linear(
        (torch.from_numpy(features).double() - centre) / length,
        torch.as_tensor(targets),
        weights,
        loss,
        torch.ones(k, dtype=torch.float64) * penalties,
    )
    weight = weight / length
    return [weight.numpy(), (bias - weight @ centre).numpy()]


def scaled(features, weights=None):
    """Features of length 1 on average around their centre."""
    centred = features - np.average(features, axis=0, weights=weights)
    return centred / np.sqrt(
        np.average(np.square(centred).sum(1), axis=0, weights=weights)
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_of_classes_it_is_logistic_regression(weighted):
    features, scores, weights = draw()
    classes, weights = scores.argmax(1), weights if weighted else None
    weight, bias = fit(features, classes, weights, Classes.loss, 3)
    inputs = scaled(features, weights)
    total = 60 if weights is None else weights.sum()
    expected = LogisticRegression(C=1 / (PENALTY * total), tol=1e-8, max_iter=1000).fit(
        inputs, classes, sample_weight=weights
    )

    outputs = torch.from_numpy(features @ weight.T + bias)
    np.testing.assert_allclose(
        outputs.softmax(1), expected.predict_proba(inputs), atol=1e-3
    )


def test_of_indicators_it_is_one_logistic_regression_each():
    features, scores, _ = draw()
    indicator = (scores > 0).astype(np.float32)
    weight, bias = fit(features, indicator, None, Labels.loss, 3)
    inputs = scaled(features)

    # Its penalty does not depend on how many others there are.
    for column in range(3):
        expected = LogisticRegression(
            C=1 / (PENALTY * 60), tol=1e-8, max_iter=1000
        ).fit(inputs, indicator[:, column])
        np.testing.assert_allclose(
            features @ weight[column] + bias[column],
            expected.decision_function(inputs),
            atol=5e-3,
        )


def test_each_output_has_its_own_penalty():
    features, scores, _ = draw()
    indicator = (scores > 0).astype(np.float32)
    penalties = torch.tensor([0.01, 0.001, 0.1])
    several = fit(features, indicator, None, Labels.loss, 3, penalties)

    for column, penalty in enumerate(penalties.tolist()):
        alone = fit(features, indicator[:, [column]], None, Labels.loss, 1, penalty)
        for one, all_ in zip(alone, several, strict=True):
            np.testing.assert_allclose(one[0], all_[column], atol=1e-3, rtol=1e-3)


def classes(*counts):
    """As many rows of the first class as the first count says, and so on."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (classes(1, 1), 0.01),
        (classes(*[3] * 20), 0.01),
        (classes(*[3] * 40), 4 / 40**2),
        (classes(*[1] * 1000), 1e-4),
        # A class that is rare counts as a label does.
        (classes(500, 460, 40), [0.01, 0.01, 0.0064]),
        # Fifty of them are not as many as two frequent ones.
        (classes(500, 450, *[1] * 50), [0.01, 0.01, *[1e-4] * 50]),
        # One frequent class leaves many that are not: as many as 32 equal ones.
        (classes(16, *[1] * 48), [4 / 32**2, *[4 / 64**2] * 48]),
        (torch.linspace(-2, 2, 300).reshape(100, 3), 0.01),
        # Numbers, though some of them are 0 and 1.
        (torch.arange(-3.0, 4).reshape(7, 1).repeat(1, 3), 0.01),
    ],
)
def test_the_penalty_of_classes_and_numbers(targets, expected):
    k = 3 if targets.is_floating_point() else int(targets.max()) + 1

    penalties = penalties_of(targets, None, k)

    np.testing.assert_allclose(penalties, np.zeros(k) + expected, rtol=1e-6)


def test_the_penalty_of_labels_is_that_of_classes_of_their_shares():
    labels = torch.zeros(100, 5)
    for column, n_rows in enumerate([50, 4, 96, 1, 0]):
        labels[:n_rows, column] = 1

    penalties = penalties_of(labels, None, 5)

    np.testing.assert_allclose(penalties, [0.01, 0.0064, 0.0064, 4e-4, 1e-4])


def test_rows_count_in_the_penalty_as_their_weights_do():
    targets = classes(*[3] * 40, 500)
    weights = torch.cat([torch.ones(120), torch.zeros(500)])
    labels = torch.nn.functional.one_hot(targets).float()

    of_classes = penalties_of(targets, weights, 41)
    of_labels = penalties_of(labels, weights, 41)

    np.testing.assert_allclose(of_classes[:-1], np.full(40, 0.0025))
    np.testing.assert_allclose(of_labels[:-1], np.full(40, 0.0025))


def test_of_numbers_it_is_ridge_regression():
    features, scores, weights = draw(outputs=2)
    weight, bias = fit(features, scores.astype(np.float32), weights, Numbers.loss, 2)
    inputs = scaled(features, weights)
    # Half a squared weight beside each column's squared error.
    expected = Ridge(alpha=PENALTY / 2 * weights.sum()).fit(
        inputs, scores, sample_weight=weights
    )

    np.testing.assert_allclose(
        features @ weight.T + bias, expected.predict(inputs), atol=1e-2
    )


@pytest.mark.parametrize("loss", [Classes.loss, Labels.loss, Numbers.loss])
def test_rounding_of_features_that_do_not_vary_is_no_signal(loss):
    n = 60
    rng = np.random.default_rng(0)
    features = np.tile(rng.normal(size=32).astype(np.float32), (n, 1))
    second = np.arange(n) < n // 4
    targets = second.astype(int)
    if loss is not Classes.loss:
        targets = np.column_stack([~second, second]).astype(np.float32)
    weight, bias = fit(features, targets, None, loss, 2)

    assert not weight.any()
    assert np.abs(bias).max() < 5


@pytest.mark.parametrize(
    ("limit", "value"), [("_MOST_NUMBERS", 1), ("_MOST_OUTPUTS", 3 * 7)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_bounds_on_memory_do_not_change_the_solution(
    monkeypatch, weighted, limit, value
):
    """With few steps in L-BFGS's memory, and outputs computed in parts."""
    features, targets, weights = draw()
    weights = weights if weighted else None
    whole = fit(features, targets.argmax(1), weights, Classes.loss, 3)
    monkeypatch.setattr(_start_head, limit, value)
    bounded = fit(features, targets.argmax(1), weights, Classes.loss, 3)

    for one, other in zip(bounded, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


# In the estimators


def test_one_row_is_not_warned_of(tiny_model):
    regressor = make_regressor(tiny_model, epochs=1)
    with pytest.warns(UserWarning, match="no gradient") as caught:
        regressor.fit(["good film"], [1.0])

    assert not [w for w in caught if "must differ" in str(w.message)]


def test_of_equal_texts_the_shares_of_the_classes_are_learned(make):
    with pytest.warns(UserWarning, match="must differ. Got 60 rows .* the same text"):
        fitted = make().fit(["same"] * 60, [0] * 45 + [1] * 15)

    np.testing.assert_allclose(
        fitted.predict_proba(["same"]), [[0.75, 0.25]], atol=0.05
    )


@pytest.mark.filterwarnings("ignore:The rows of X must differ")
@pytest.mark.parametrize("weighted", [False, True])
def test_of_equal_texts_the_shares_of_rare_labels_are_learned(make, weighted):
    """Though the probe is fitted to more rows of them than that."""
    labels = np.zeros((2000, 4), dtype=int)
    for column, count in enumerate([0, 6, 20, 900]):
        labels[np.arange(count) * 2, column] = 1
    weights = np.where(labels[:, 2] == 1, 3.0, 1.0) if weighted else None
    fitted = make(**STILL).fit(["same"] * 2000, labels, sample_weight=weights)

    expected = np.average(labels, axis=0, weights=weights)
    found = fitted.predict_proba(["same"])[0]
    np.testing.assert_allclose(found[1:], expected[1:], rtol=0.02)
    assert found[0] < 1e-4


def test_a_classifier_starts_as_the_probe(make):
    fitted = make(**STILL).fit(X, Y)
    features = pretrained_features(fitted)
    inputs = scaled(features)
    expected = LogisticRegression(
        C=1 / (PENALTY * len(X)), tol=1e-8, max_iter=1000
    ).fit(inputs, Y)

    np.testing.assert_allclose(
        fitted.predict_proba(X), expected.predict_proba(inputs), atol=2e-3
    )


def pretrained_features(fitted):
    """What the head of a fitted estimator would get without the adapter."""
    network, backbone = fitted._exact_network()
    tokens = encode(read_texts(X, "auto"), backbone.tokenizer, 64)
    return frozen_features(network, tokens, backbone.compute, 16).numpy()


def test_the_probe_learns_from_the_pretrained_model_alone(make):
    """Also in a fit that continues, whose updates are not 0."""
    trained = make(learning_rate=0.05).fit(X, Y)
    expected = pretrained_features(make(**STILL).fit(X, Y))

    np.testing.assert_allclose(pretrained_features(trained), expected, atol=1e-6)

"""The head starts at a linear model of the pretrained model's features."""

import functools

import numpy as np
import pytest
import torch
from _toy import make as make_classifier
from _toy import make_regressor, topics
from sklearn.linear_model import LogisticRegression, Ridge

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora.data.targets import Classes, Labels, Numbers
from sk_adalora.data.texts import read_texts
from sk_adalora.network.head import mean_and_distance
from sk_adalora.tokens.tokenize import encode
from sk_adalora.training import start_head as _start_head
from sk_adalora.training.loop import Examples
from sk_adalora.training.start_head import (
    bias_shift,
    choose_rows,
    fit_linear,
    frozen_features,
    penalties_of,
    weights_of,
)

X, Y = topics(36)
PENALTY = _start_head._PENALTY
# Training that changes nothing leaves the head where it started.
STILL = {"learning_rate": 1e-12, "head_learning_rate": 1e-12, "epochs": 1}


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
        fitted = make(head_init="linear_probe").fit(["same"] * 60, [0] * 45 + [1] * 15)

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


def test_a_regressor_may_start_as_the_probe(tiny_model):
    y = np.array([len(text) for text in X], float)
    probe, drawn = (
        make_regressor(tiny_model, head_init=start, **STILL).fit(X, y)
        for start in ("linear_probe", "random")
    )

    assert probe.score(X, y) > 0.2 > drawn.score(X, y)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [(AdaLoraClassifier, "linear_probe"), (AdaLoraRegressor, "random")],
)
def test_auto_starts_labels_at_the_probe_and_numbers_at_random(
    tiny_model, estimator, expected
):
    y = np.array([len(text) % 2 for text in X])
    options = {"model": tiny_model, "random_state": 0, "device": "cpu", "epochs": 1}
    auto = estimator(**options).fit(X, y)
    named = estimator(head_init=expected, **options).fit(X, y)

    assert auto.head_init == "auto"
    assert auto.history_.loss == named.history_.loss
    np.testing.assert_array_equal(auto.predict(X), named.predict(X))


def draw_rows(targets, seed=0):
    return choose_rows(targets, torch.Generator().manual_seed(seed))


def test_rows_without_a_label_are_drawn_as_those_with_it():
    """Else a label that nearly all rows have would be taken for certain."""
    labels = torch.ones(20_000, 2)
    labels[::2, 0] = 0
    labels[7000:7003, 1] = 0
    for seed in range(3):
        rows = draw_rows(labels, seed)
        assert len(rows) == 1000
        assert (labels[rows, 1] == 0).sum() == 3
        rows = draw_rows(1 - labels, seed)
        assert (labels[rows, 1] == 0).sum() == 3


def test_classes_of_millions_of_weighted_rows_count_as_they_do_in_all():
    """Sums of so many numbers need more digits than those of float32."""
    targets = torch.arange(2**22) % 2
    given = torch.where(targets == 0, 0.3, 0.1)
    examples = Examples(None, targets, given, None)
    rows = torch.arange(1000)

    of_drawn = torch.bincount(targets[rows], weights_of(rows, examples))
    assert float(of_drawn[0] / of_drawn.sum()) == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize("given", [None, torch.logspace(-6, 0, 4000).flip(0)])
def test_classes_count_in_the_probe_as_they_do_in_all_rows(given):
    """Though five rows of each are drawn, of however few."""
    targets = torch.cat([torch.arange(190).repeat_interleave(6), torch.zeros(2860)])
    examples = Examples(None, targets.long(), given, None)
    rows = draw_rows(examples.targets)
    of_drawn = torch.bincount(examples.targets[rows], weights_of(rows, examples))

    assert len(rows) == 1000
    assert torch.bincount(examples.targets[rows])[1:].max() <= 6
    of_all = torch.bincount(examples.targets, given)
    expected = of_all / of_all.sum()
    torch.testing.assert_close(of_drawn / of_drawn.sum(), expected.to(of_drawn))


def test_what_the_bias_lacks_is_of_labels_and_of_drawn_rows_only():
    labels = torch.zeros(4000, 3)
    labels[:6, 0], labels[:, 1] = 1, 1
    rows = torch.cat([torch.arange(6), torch.arange(3006, 4000)])

    def shift(targets, rows=rows, weights=None):
        return bias_shift(rows, Examples(None, targets, weights, None))

    expected = [np.log(6 / 3994) - np.log(6 / 994), 0, 0]
    np.testing.assert_allclose(shift(labels), expected, rtol=1e-5)
    weights = torch.full((4000,), 0.5, dtype=torch.float64)
    np.testing.assert_allclose(shift(labels, weights=weights), expected, rtol=1e-5)
    for other in (labels[:, 0].long(), labels - 0.5):
        assert not shift(other).any()
    assert not shift(labels, torch.arange(4000)).any()


def test_few_rows_are_all_taken_in_order():
    targets = torch.arange(1000) % 3

    assert torch.equal(draw_rows(targets), torch.arange(1000))


@pytest.mark.parametrize("form", ["classes", "indicators"])
def test_of_many_rows_some_of_the_rarest_class_are_taken(form):
    targets = torch.zeros(20_000, dtype=torch.long)
    targets[7000:7006], targets[19_999] = 1, 2  # a random draw would miss them
    if form == "indicators":
        targets = torch.nn.functional.one_hot(targets).float()
    rows = draw_rows(targets)

    assert len(rows) == len(rows.unique()) == 1000
    taken = targets[rows] if form == "classes" else targets[rows].argmax(1)
    assert torch.bincount(taken).tolist() == [994, 5, 1]
    assert not torch.equal(rows, draw_rows(targets, seed=1))


def test_of_many_classes_more_rows_are_taken():
    assert len(draw_rows(torch.arange(3000) % 400)) == 2000


def test_of_numbers_any_rows_are_taken():
    numbers = torch.linspace(-1, 1, 5000)

    assert len(draw_rows(numbers).unique()) == 1000
    assert len(draw_rows(numbers.reshape(2500, 2)).unique()) == 1000

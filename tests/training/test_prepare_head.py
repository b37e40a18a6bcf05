"""The head starts at a linear model of the pretrained model's features."""

import functools

import numpy as np
import pytest
import torch
from _toy import make as make_classifier
from _toy import topics
from sklearn.linear_model import LogisticRegression, Ridge
from torch.utils._python_dispatch import TorchDispatchMode

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora.estimators.classifier import multiclass_loss, multilabel_loss
from sk_adalora.estimators.regressor import squared_error
from sk_adalora.network.head import spread
from sk_adalora.runtime import devices as _devices
from sk_adalora.training import linear_probe as _linear_probe
from sk_adalora.training import start_head as _prepare_head
from sk_adalora.training.linear_probe import fit_linear, penalties_of
from sk_adalora.training.loop import Examples
from sk_adalora.training.start_head import bias_shift, choose_rows, weights_of

X, Y = topics(36)
PENALTY = _linear_probe._PENALTY
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
    centre, length = spread(torch.from_numpy(features), weights, torch.float32)
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
    weight, bias = fit(features, classes, weights, multiclass_loss, 3)
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
    weight, bias = fit(features, indicator, None, multilabel_loss, 3)
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
    several = fit(features, indicator, None, multilabel_loss, 3, penalties)

    for column, penalty in enumerate(penalties.tolist()):
        alone = fit(features, indicator[:, [column]], None, multilabel_loss, 1, penalty)
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


@pytest.mark.parametrize("form", ["classes", "tags"])
def test_many_classes_are_told_apart_from_the_start(form):
    """With the penalty of few, the head would call none of them likely."""
    rng = np.random.default_rng(0)
    names = np.arange(240) % 60
    features = rng.normal(size=(60, 96))[names] + 0.5 * rng.normal(size=(240, 96))
    targets, loss = names, multiclass_loss
    if form == "tags":
        targets, loss = np.eye(60, dtype=np.float32)[names], multilabel_loss

    def shares(penalties):
        features_ = features.astype(np.float32)
        weight, bias = fit(features_, targets, None, loss, 60, penalties)
        outputs = torch.from_numpy(features @ weight.T + bias)
        outputs = outputs.sigmoid() if form == "tags" else outputs.softmax(1)
        return outputs[torch.arange(240), names]

    ours = shares(penalties_of(torch.as_tensor(targets), None, 60))

    assert shares(PENALTY).median() < 0.2
    assert ours.median() > 0.5


def test_of_numbers_it_is_ridge_regression():
    features, scores, weights = draw(outputs=2)
    weight, bias = fit(features, scores.astype(np.float32), weights, squared_error, 2)
    inputs = scaled(features, weights)
    # Half a squared weight beside each column's squared error.
    expected = Ridge(alpha=PENALTY / 2 * weights.sum()).fit(
        inputs, scores, sample_weight=weights
    )

    np.testing.assert_allclose(
        features @ weight.T + bias, expected.predict(inputs), atol=1e-2
    )


def test_a_target_that_falls_is_learned_as_one_that_rises():
    features, scores, _ = draw(width=1, outputs=1)
    scores = scores.astype(np.float32)
    rises, falls = (fit(features, y, None, squared_error, 1) for y in (scores, -scores))

    assert abs(rises[0]) > 0.1
    np.testing.assert_allclose(falls[0], -rises[0], rtol=1e-4)


def test_a_row_of_weight_zero_counts_nowhere():
    features, scores, weights = draw()
    classes = scores.argmax(1)
    weights[::3] = 0
    kept = weights > 0
    far = np.where(kept[:, None], features, 100 * features)

    got = fit(far, classes, weights, multiclass_loss, 3)
    expected = fit(features[kept], classes[kept], weights[kept], multiclass_loss, 3)

    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("size", [1e-16, 1e-30])
def test_only_the_ratios_of_weights_matter(size):
    """Where a far heavier row is not among those that are measured."""
    features, scores, weights = draw()

    got = fit(features, scores.argmax(1), weights * size, multiclass_loss, 3)
    expected = fit(features, scores.argmax(1), weights, multiclass_loss, 3)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_features_that_do_not_vary_predict_the_shares_of_the_classes():
    features = np.ones((10, 4), np.float32)
    weight, bias = fit(features, np.arange(10) % 5 // 3, None, multiclass_loss, 2)

    outputs = torch.from_numpy(features @ weight.T + bias).softmax(1)
    np.testing.assert_allclose(outputs, [[0.6, 0.4]] * 10, atol=1e-3)


@pytest.mark.parametrize("n", [7, 60, 1000])
@pytest.mark.parametrize("loss", [multiclass_loss, multilabel_loss, squared_error])
def test_rounding_of_features_that_do_not_vary_is_no_signal(n, loss):
    rng = np.random.default_rng(0)
    features = np.tile(rng.normal(size=32).astype(np.float32), (n, 1))
    second = np.arange(n) < n // 4
    targets = second.astype(int)
    if loss is not multiclass_loss:
        targets = np.column_stack([~second, second]).astype(np.float32)
    weight, bias = fit(features, targets, None, loss, 2)

    assert not weight.any()
    assert np.abs(bias).max() < 5


@pytest.fixture
def steps_kept(monkeypatch):
    """List of how many steps each solver holds at its end."""
    kept = []
    step = torch.optim.LBFGS.step

    def watched(self, closure):
        result = step(self, closure)
        kept.append(len(self.state[self._params[0]]["old_dirs"]))
        return result

    monkeypatch.setattr(torch.optim.LBFGS, "step", watched)
    return kept


@pytest.mark.parametrize("form", ["classes", "tags"])
def test_of_many_classes_few_steps_in_memory_solve_as_well(
    monkeypatch, steps_kept, form
):
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 40
    features = rng.normal(size=(40, 24))[classes] + rng.normal(size=(400, 24))
    features = features.astype(np.float32) * np.logspace(0, -2, 24, dtype=np.float32)
    loss, targets = multiclass_loss, classes
    if form == "tags":
        loss = multilabel_loss
        targets = np.eye(40, dtype=np.float32)[classes]
    solved = []
    for numbers in (_linear_probe._MOST_NUMBERS, 1):
        monkeypatch.setattr(_linear_probe, "_MOST_NUMBERS", numbers)
        weight, bias = fit(features, targets, None, loss, 40)
        outputs = torch.from_numpy(features @ weight.T + bias)
        solved.append((float(loss(outputs, torch.as_tensor(targets)).mean()), outputs))

    assert steps_kept[0] > steps_kept[1] == 5
    assert solved[1][0] == pytest.approx(solved[0][0], rel=1e-5)
    torch.testing.assert_close(solved[1][1], solved[0][1], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "n_numbers", [1, 3 * 384, 437 * 768, 1_000 * 1_024, 10_000 * 768, 10**8]
)
def test_steps_in_memory_are_bounded(n_numbers):
    steps = _linear_probe._steps_kept(n_numbers)

    assert 5 <= steps <= _linear_probe._MAX_ITERATIONS
    # Two vectors each, in float64: as many as fit into half a GB.
    fit_in = 2**29 // (2 * 8 * n_numbers)
    assert steps == min(max(fit_in, 5), _linear_probe._MAX_ITERATIONS)


@pytest.mark.parametrize("loss", [multiclass_loss, multilabel_loss, squared_error])
@pytest.mark.parametrize("weighted", [False, True])
def test_outputs_that_do_not_fit_into_memory_are_computed_in_parts(
    monkeypatch, loss, weighted
):
    features, targets, weights = draw()
    weights = weights if weighted else None
    if loss is multiclass_loss:
        targets = targets.argmax(1)
    elif loss is multilabel_loss:
        targets = (targets > 0).astype(np.float32)
    whole = fit(features, targets, weights, loss, 3)
    rows = []

    def counting(outputs, targets):
        rows.append(len(outputs))
        return loss(outputs, targets)

    monkeypatch.setattr(_linear_probe, "_MOST_OUTPUTS", 3 * 7)
    parts = fit(features, targets, weights, counting, 3)

    assert set(rows) == {7, 60 % 7}
    for one, other in zip(parts, whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


# In the estimators


def test_one_row_is_not_warned_of(tiny_model):
    regressor = AdaLoraRegressor(tiny_model, epochs=1, device="cpu")
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
    from sk_adalora.tokens.long_texts import encode_for_training
    from sk_adalora.training.start_head import frozen_features

    live = fitted._ready()
    texts = fitted._read_texts(X, reset=False)
    most = fitted._most_tokens(live.backbone)
    tokens = encode_for_training(texts, live.backbone.tokenizer, most, "truncate")
    return frozen_features(live.network, tokens, live.compute, 16).numpy()


def test_the_probe_learns_from_the_pretrained_model_alone(make):
    """Also in a fit that continues, whose updates are not 0."""
    trained = make(learning_rate=0.05).fit(X, Y)
    expected = pretrained_features(make(**STILL).fit(X, Y))

    np.testing.assert_allclose(pretrained_features(trained), expected, atol=1e-6)


def test_a_regressor_may_start_as_the_probe(tiny_model):
    y = np.array([len(text) for text in X], float)
    options = {"model": tiny_model, "random_state": 0, "device": "cpu"}
    probe = AdaLoraRegressor(head_init="linear_probe", **options, **STILL).fit(X, y)
    drawn = AdaLoraRegressor(head_init="random", **options, **STILL).fit(X, y)

    assert probe.score(X, y) > 0 > drawn.score(X, y)


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


def test_a_head_may_start_at_random(make):
    one = make(head_init="random", **STILL).fit(X, Y)
    other = make(head_init="random", **STILL, random_state=1).fit(X, Y)
    probe = make(**STILL).fit(X, Y)

    outputs = [e.decision_function(X) for e in (one, other, probe)]
    assert not np.allclose(outputs[0], outputs[1], atol=1e-3)
    assert not np.allclose(outputs[0], outputs[2], atol=1e-3)


def test_of_many_rows_it_takes_some(make, monkeypatch):
    seen = []
    fit_linear = _prepare_head.fit_linear
    monkeypatch.setattr(_prepare_head, "_ENOUGH_ROWS", 20)
    monkeypatch.setattr(
        _prepare_head,
        "fit_linear",
        lambda features, *args: seen.append(features) or fit_linear(features, *args),
    )
    make(**STILL).fit(X, Y)
    make(**STILL).fit(X, Y)

    assert [len(features) for features in seen] == [20, 20]
    assert torch.equal(*seen)


def test_features_targets_and_weights_are_of_the_same_rows(make, monkeypatch):
    features, seen = [], []
    frozen_features, fit_linear = (
        _prepare_head.frozen_features,
        _prepare_head.fit_linear,
    )

    def noting(*args):
        features.append(frozen_features(*args))
        return features[-1]

    def watching(inputs, targets, weights, *others):
        seen.append((features[-1], targets, weights))
        return fit_linear(inputs, targets, weights, *others)

    monkeypatch.setattr(_prepare_head, "frozen_features", noting)
    monkeypatch.setattr(_prepare_head, "fit_linear", watching)
    own = np.linspace(0.5, 1, len(X))  # tells the rows apart
    make(**STILL).fit(X, Y, sample_weight=own)
    monkeypatch.setattr(_prepare_head, "_ENOUGH_ROWS", 20)
    # Without the shares of the classes, which the next test is for.
    monkeypatch.setattr(
        _prepare_head, "weights_of", lambda rows, all_: all_.weights.double()[rows]
    )
    make(**STILL).fit(X, Y, sample_weight=own)
    whole, some = seen
    rows = torch.searchsorted(whole[2], some[2] - 1e-5)

    assert len(rows.unique()) == 20
    for of_all, taken in zip(whole, some, strict=True):
        torch.testing.assert_close(taken, of_all[rows])


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


def test_labels_of_millions_of_weighted_rows_count_as_they_do_in_all():
    labels = torch.ones(2**22, 2)
    labels[::1000] = 0
    weights, rows = torch.linspace(0.1, 1, len(labels)), torch.arange(1000)
    shift = bias_shift(rows, Examples(None, labels, weights, None))

    odds, exact = [], weights.double()
    for some in (exact, exact[rows]):
        without = some[::1000].sum()
        odds.append(float(torch.log((some.sum() - without) / without)))
    np.testing.assert_allclose(shift, odds[0] - odds[1], atol=1e-6)


@pytest.mark.parametrize(
    "given",
    [None, torch.linspace(0.5, 2, 4000), torch.logspace(-6, 0, 4000).flip(0)],
)
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


class Sizes(TorchDispatchMode):
    """Notes the number of elements of what is made, views of `source` left out."""

    def __init__(self, source):
        super().__init__()
        self.source, self.seen = source.untyped_storage().data_ptr(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if (
            isinstance(made, torch.Tensor)
            and made.untyped_storage().data_ptr() != self.source
        ):
            self.seen.append(made.numel())
        return made


def test_of_many_labels_one_is_looked_at_at_a_time():
    labels = torch.zeros(2000, 50)
    labels[torch.arange(2000), torch.arange(2000) % 50] = 1
    with Sizes(labels) as sizes:
        draw_rows(labels)

    assert max(sizes.seen) == len(labels)


def test_of_numbers_any_rows_are_taken():
    numbers = torch.linspace(-1, 1, 5000)

    assert len(draw_rows(numbers).unique()) == 1000
    assert len(draw_rows(numbers.reshape(2500, 2)).unique()) == 1000


@pytest.mark.parametrize("options", [{"pooling": "model"}, {"head_init": "random"}])
def test_these_heads_are_not_probed(make, monkeypatch, options):
    monkeypatch.setattr(_prepare_head, "fit_linear", None)

    make(**options, **STILL).fit(X, Y)


def test_a_warm_start_keeps_its_head(make):
    fitted = make(epochs=3).fit(X, Y)
    expected = fitted.predict_proba(X)
    fitted.set_params(warm_start=True, **STILL).fit(X, Y)

    np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "mkl_is_slow", "most"),
    [("bfloat16", False, 4), ("float32", False, 36), ("float32", True, 4)],
)
def test_compiled_kernels_serve_the_probe_and_the_training(
    tiny_model, monkeypatch, precision, mkl_is_slow, most
):
    monkeypatch.setattr(_devices, "MKL_IS_SLOW", mkl_is_slow)
    sizes = []
    pad = _prepare_head.pad
    monkeypatch.setattr(
        _prepare_head, "pad", lambda *args: sizes.append(len(args[1])) or pad(*args)
    )
    make_classifier(
        tiny_model,
        device="cpu",
        precision=precision,
        batch_size=4,
        head_init="linear_probe",
        epochs=1,
    ).fit(X, Y)

    assert max(sizes) <= most
    assert (len(sizes) > 1) == (most == 4)

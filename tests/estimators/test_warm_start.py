"""A fit that continues from the fit before."""

import functools
import pickle
import shutil

import _toy
import numpy as np
import pytest
import torch
import transformers
from _tiny import build
from _tiny_model import write_model
from _toy import numbers, topics, toy
from safetensors.torch import load_file, save_file
from sklearn.metrics import r2_score

from sk_adalora.data.rows import split_rows
from sk_adalora.files.state import continue_from
from sk_adalora.network.head import LinearHead
from sk_adalora.runtime.devices import resolve_compute
from sk_adalora.training.start_head import _have_learned_nothing

X, Y = topics(36)
INDICATORS = (Y[:, None] == np.unique(Y)).astype(int)
# So slow that nothing is learned: what is left of a fit is where it started.
STILL = {"learning_rate": 1e-9, "head_learning_rate": 1e-9}
CONTINUED = {"warm_start": True, "init_r": 4, "epochs": 4}


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier that continues its fits."""
    return functools.partial(_toy.make, tiny_model, **CONTINUED)


@pytest.fixture(scope="module")
def fitted(make):
    """A fitted classifier; do not refit it."""
    return make().fit(X, Y)


def copy(estimator, **changed):
    return pickle.loads(pickle.dumps(estimator)).set_params(**changed)


def new_network(estimator, **changed):
    """The network that the next fit would start from, before it looks back."""
    other = copy(estimator, **changed, warm_start=False)
    compute = resolve_compute(other.device, other.precision)
    backbone = other._load_backbone(compute)
    generator = torch.Generator().manual_seed(7)
    return other._adapt(backbone, other._resolve_schedule(36), generator), backbone


def outputs(network, estimator):
    """What a network computes of the rows."""
    from sk_adalora.data.texts import read_texts
    from sk_adalora.tokens.batches import pad
    from sk_adalora.tokens.tokenize import encode

    tokenizer = estimator._ready().backbone.tokenizer
    tokens = encode(read_texts(X), tokenizer, 64)
    with torch.no_grad():
        return network.eval()(pad(tokens, np.arange(36))).numpy()


# Where it starts


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"init_r": 9},
        {"lora_alpha": 32.0},
        {"lora_alpha": 0.5, "init_r": 7},
        {"target_r": 1},
        {"epochs": 2, "lora_dropout": 0.2},
    ],
    ids=str,
)
def test_a_continued_network_computes_what_the_old_one_did(fitted, changed):
    """Before any step, whatever the new rank and scale."""
    network, backbone = new_network(fitted, **changed)
    expected = outputs(fitted._ready().network, fitted)
    assert not np.allclose(outputs(network, fitted), expected, atol=1e-3)

    continue_from(fitted._adapter, network, backbone)

    np.testing.assert_allclose(outputs(network, fitted), expected, atol=1e-5)


def test_all_ranks_are_there_to_be_moved_again(fitted):
    """A layer that was left with nothing gets fresh triplets, which do nothing yet."""
    network, backbone = new_network(fitted, init_r=6)
    continue_from(fitted._adapter, network, backbone)
    assert 0 < min(network.encoder.ranks.values())

    for path, rank in fitted.ranks_.items():
        values = network.encoder.state_dict()[f"{_name(network, path)}.lora_E"]
        assert len(values) == 6
        assert (values[:rank] != 0).all()
        assert (values[rank:] == 0).all()
        left = network.encoder.state_dict()[f"{_name(network, path)}.lora_B"]
        assert (left[:, rank:] != 0).any()  # not dead: gradients reach the value


def _name(network, path):
    """The name that a layer's triplets have in the state of the network."""
    (name,) = {
        name.removesuffix(".lora_E")
        for name in network.encoder.state_dict()
        if name.endswith(f"{path}.lora_E")
    }
    return name


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize("y", [Y, INDICATORS], ids=["one label", "several labels"])
def test_a_fit_that_learns_nothing_predicts_as_before(make, pooling, y):
    """The triplets with value 0 are the least important: pruned, they change little."""
    estimator = make(pooling=pooling, epochs=2).fit(X, y)
    still = copy(estimator, **STILL).fit(X, y)

    np.testing.assert_allclose(
        still.predict_proba(X), estimator.predict_proba(X), atol=1e-3
    )


def test_the_loss_goes_on_from_where_it_was(make):
    """From a random head: a probe would start low, and leave little to tell apart."""
    start = make(head_init="random").fit(X, Y)
    continued = copy(start).fit(X, Y)

    fresh = np.mean(start.history_.loss[:3])
    last = np.mean(start.history_.loss[-3:])
    first = np.mean(continued.history_.loss[:3])
    assert first < fresh - 0.05
    assert first == pytest.approx(last, abs=0.15)
    assert np.mean(continued.history_.loss[-3:]) < last


def test_many_short_fits_learn(make):
    classifier = make(epochs=1, learning_rate=0.03, head_init="random")
    scores = [classifier.fit(X, Y).score(X, Y) for _ in range(12)]

    assert max(scores[-3:]) > 0.9
    assert max(scores[-3:]) > scores[0]


# A new schedule


def test_the_schedule_is_a_new_one(fitted):
    continued = copy(fitted, target_r=1, epochs=2).fit(X, Y)

    assert continued.n_iter_ == 2
    assert continued.total_step_ == 2 * 3
    assert continued.schedule_.target_r == 1
    assert len(continued.history_.loss) == 6
    assert sum(continued.ranks_.values()) == len(continued.ranks_)
    assert continued.history_.budget[0] > sum(fitted.ranks_.values())


def test_early_stopping_of_a_continued_fit(fitted):
    continued = copy(fitted, early_stopping=True, epochs=3)
    continued.fit(X, Y, X_val=X[:12], y_val=Y[:12])

    assert len(continued.history_.score) == continued.n_iter_


@pytest.mark.parametrize("kept", ["object", "pickle", "folder"])
def test_a_continued_fit_sets_the_same_rows_apart(make, monkeypatch, tmp_path, kept):
    """Others would have been learned from before: a score of what is known by heart."""
    held = []

    def split(*args):
        parts = split_rows(*args)
        held.append(parts[1].tolist())
        return parts

    monkeypatch.setattr("sk_adalora.estimators.fitting.split_rows", split)
    estimator = make(early_stopping=True, epochs=1, random_state=None).fit(X, Y)
    if kept == "pickle":
        estimator = pickle.loads(pickle.dumps(estimator))
    if kept == "folder":
        estimator.save_pretrained(tmp_path / "saved")
        estimator = type(estimator).from_pretrained(tmp_path / "saved")

    estimator.set_params(warm_start=True).fit(X, Y)
    assert held[0] == held[1]
    estimator.set_params(warm_start=False).fit(X, Y)
    assert held[2] != held[1]


def test_it_continues_after_a_pickle(make, fitted):
    one, other = copy(fitted), make().fit(X, Y)
    one.fit(X, Y)
    other.fit(X, Y)

    for name, array in numbers(one).items():
        np.testing.assert_array_equal(array, numbers(other)[name])


def test_rows_may_be_others(fitted):
    """Fewer texts, new texts: only the classes must be the same."""
    texts, labels = topics(24, seed=5)
    continued = copy(fitted).fit(texts, labels)

    assert continued.fit_report_.n_rows == 24


@pytest.mark.parametrize("first", [INDICATORS * [0, 1, 1], INDICATORS | [1, 0, 0]])
def test_a_label_that_no_row_or_all_rows_had_is_learned_later(make, first):
    """A probe gives it a bias of 21 against all rows, or for them."""
    classifier = make(epochs=10).fit(X, first)
    assert len({*classifier.predict(X)[:, 0]}) == 1
    learned = classifier.predict(X)[:, 1:]
    classifier.fit(X, INDICATORS)

    np.testing.assert_array_equal(classifier.predict(X)[:, 0], INDICATORS[:, 0])
    assert (classifier.predict(X)[:, 1:] == learned).mean() > 0.9


@pytest.mark.parametrize("missing", [["art"], ["art", "sport"]])
def test_classes_that_had_no_row_are_learned_later(make, missing):
    classifier = make(epochs=2).fit(X, Y, sample_weight=1.0 - np.isin(Y, missing))
    assert not {*missing} & {*classifier.predict(X)}

    assert classifier.fit(X, Y).score(X, Y) == 1


def test_one_of_two_classes_that_had_no_row_is_learned_later(make):
    texts, signs = toy(36)
    classifier = make(epochs=2).fit(texts, signs, sample_weight=signs)

    assert classifier.fit(texts, signs).score(texts, signs) == 1


def test_what_starts_anew_leaves_the_others_as_they_were(make):
    labels = make().fit(X, INDICATORS * [0, 1, 1])
    classes = make().fit(X, Y, sample_weight=1.0 * (Y != "art"))
    of_labels, of_classes = labels.predict_proba(X), classes.predict_log_proba(X)
    length = classes._adapter.feature_length
    labels.set_params(**STILL).fit(X, INDICATORS)
    classes.set_params(**STILL).fit(X, Y)

    np.testing.assert_allclose(labels.predict_proba(X)[:, 1:], of_labels[:, 1:], 1e-3)
    odds = np.diff(classes.predict_log_proba(X)[:, 1:])
    np.testing.assert_allclose(odds, np.diff(of_classes[:, 1:]), atol=1e-3)
    assert classes._adapter.feature_length == length


def test_a_label_starts_anew_whatever_the_others_are(make):
    """Only classes share their odds."""
    first = make().fit(X, INDICATORS * [0, 1, 1])
    starts = [
        copy(first, **STILL).fit(X, labels).predict_proba(X)[:, 0]
        for labels in (INDICATORS, INDICATORS ^ [0, 1, 1])
    ]

    np.testing.assert_allclose(*starts, atol=1e-3)


def test_a_label_that_is_rare_but_learned_does_not_start_anew():
    head = LinearHead(4, 2)
    with torch.no_grad():
        head.bias.fill_(-12)
        head.weight.copy_(torch.tensor([[0.1] * 4, [4.0] * 4]))
    unlearned = _have_learned_nothing(head, torch.eye(2))

    assert unlearned.tolist() == [True, False]


def test_what_was_learned_is_not_started_anew(make, monkeypatch):
    classifier = make().fit(X, Y)
    monkeypatch.setattr(
        "sk_adalora.training.start_head.fit_linear", None
    )  # not called again
    classifier.fit(X, Y)

    assert classifier.n_iter_ == 4


# What must fit


@pytest.mark.parametrize(
    ("changed", "y", "match"),
    [
        ({}, np.where(Y == "art", "arts", Y), r"missing \['art'\], new \['arts'\]\."),
        (
            {},
            np.where(Y == "art", "sport", Y),
            r"missing \['art'\], new \[\]\..* a row of weight 0, .* for each\.$",
        ),
        ({"init_r": 2}, Y, r"`init_r` must be at least the largest rank.*init_r=2"),
        ({"target_modules": ["query"]}, Y, "the adapted layers and the number of"),
        ({"target_modules": ["query", "key", "value"]}, Y, "set warm_start=False"),
    ],
    ids=["classes", "fewer classes", "init_r", "fewer layers", "other layers"],
)
def test_what_does_not_fit_is_refused(fitted, changed, y, match):
    estimator = copy(fitted, **changed)
    predicted = estimator.predict_proba(X)
    before = dict(vars(estimator))

    with pytest.raises(ValueError, match=match):
        estimator.fit(X, y)

    assert vars(estimator) == before
    np.testing.assert_array_equal(estimator.predict_proba(X), predicted)


def changed_weights(folder):
    path = folder / "model.safetensors"
    save_file({name: 2 * weight for name, weight in load_file(path).items()}, path)


def changed_entry(file, was, now):
    def change(folder):
        text = (folder / file).read_text()
        assert was in text
        (folder / file).write_text(text.replace(was, now))

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (changed_weights, "pretrained model must be the one that the estimator was"),
        (changed_entry("config.json", 'heads": 2', 'heads": 4'), "config.json of the"),
        (changed_entry("tokenizer.json", '"[CLS]"', '"[SEP]"'), "tokenizer must make"),
    ],
    ids=["weights", "config", "tokenizer"],
)
def test_another_pretrained_model_is_refused(fitted, tmp_path, change, what):
    """What the messages advise helps: a fit is not told to "fit again"."""
    shutil.copytree(fitted.model, folder := tmp_path / "other")
    change(folder)
    estimator = copy(fitted, model=str(folder))

    with pytest.raises(
        ValueError, match=f"^The {what}.*, or set warm_start=False to start anew\\.$"
    ):
        estimator.fit(X, Y)
    with pytest.raises(ValueError, match=f"^The {what}.*, or fit again\\.$"):
        estimator.predict(X)
    estimator.set_params(warm_start=False).fit(X, Y).predict(X)


def test_one_label_a_row_and_several_are_not_mixed(make):
    indicator = np.eye(3, dtype=int)[np.arange(36) % 3]
    estimator = make(epochs=1).fit(X, np.arange(36) % 3)

    with pytest.raises(ValueError, match=r": one label a row\. Got an indicator"):
        estimator.fit(X, indicator)


@pytest.mark.parametrize(
    ("n_columns", "match"),
    [
        (2, r"3 .* Got 2: missing \[2\], new \[\]\..* column of 0, for each\.$"),
        (4, r"3 .* Got 4: missing \[\], new \[3\]\."),
    ],
)
def test_several_labels_a_row_keep_their_number_of_columns(make, n_columns, match):
    indicator = np.eye(4, dtype=int)[np.arange(36) % 2]
    estimator = make(epochs=1).fit(X, indicator[:, :3])

    with pytest.raises(ValueError, match=match):
        estimator.fit(X, indicator[:, :n_columns])


# Fresh fits


def test_a_first_fit_and_one_without_warm_start_are_fresh_fits(make, fitted):
    refit = copy(fitted, warm_start=False).fit(X, Y)
    fresh = make(warm_start=False).fit(X, Y)

    for other in (fitted, refit):
        for name, array in numbers(fresh).items():
            np.testing.assert_array_equal(array, numbers(other)[name])


def test_a_fresh_fit_forgets_which_rows_were_set_apart(make):
    """Else a fit that continues it would set those of an unrelated one apart."""
    older = make(early_stopping=True).fit(X, Y)
    older.set_params(early_stopping=False, warm_start=False, random_state=7).fit(X, Y)
    fresh = make(warm_start=False, random_state=7).fit(X, Y)
    for estimator in (older, fresh):
        estimator.set_params(warm_start=True, early_stopping=True).fit(X, Y)

    for name, array in numbers(fresh).items():
        np.testing.assert_array_equal(array, numbers(older)[name])


def test_a_failed_first_fit_leaves_nothing_to_continue(make):
    estimator = make()
    with pytest.raises(ValueError, match="2 classes"):
        estimator.fit(X, ["one"] * 36)

    fresh = make().fit(X, Y)
    np.testing.assert_array_equal(
        estimator.fit(X, Y).predict_proba(X), fresh.predict_proba(X)
    )


# The model's own head


def test_an_own_head_with_a_tensor_without_dimensions_continues(own_model, monkeypatch):
    class Scaled(torch.nn.Linear):
        def __init__(self, n_in, n_out):
            super().__init__(n_in, n_out)
            self.factor = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return super().forward(x) * self.factor

    kind = transformers.BertForSequenceClassification
    real = kind.__init__

    def with_factor(self, config, *args, **options):
        real(self, config, *args, **options)
        self.classifier = Scaled(config.hidden_size, config.num_labels)

    monkeypatch.setattr(kind, "__init__", with_factor)
    config = transformers.AutoConfig.from_pretrained(own_model, num_labels=3)
    write_model(own_model, build(lambda: kind(config)))
    options = {"pooling": "model", **CONTINUED, **STILL}
    fitted = _toy.make(own_model, **options).fit(X, Y)
    before = fitted.predict_proba(X)
    np.testing.assert_allclose(fitted.fit(X, Y).predict_proba(X), before, atol=1e-5)


# Regressors


@pytest.fixture(scope="module")
def make_regressor(tiny_model):
    """Function: changed parameters -> a regressor that continues its fits."""
    return functools.partial(_toy.make_regressor, tiny_model, **CONTINUED)


TEXTS, SIGNS = toy(36)


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize("spread", [1e4, 10, 1e-4])
def test_a_regressor_starts_with_the_old_predictions(make_regressor, spread, pooling):
    """Rows of another mean and spread do not move what was learned."""
    regressor = make_regressor(epochs=10, pooling=pooling).fit(TEXTS, SIGNS * 100.0)
    before = regressor.predict(TEXTS)

    still = copy(regressor, **STILL).fit(TEXTS[:10], 5 + SIGNS[:10] * spread)

    np.testing.assert_allclose(still.predict(TEXTS), before, atol=0.5)


@pytest.mark.parametrize("mean", [0, 5])
def test_targets_may_spread_wider_later(make_regressor, mean):
    """In the units of the first fit, they would be out of the reach of its rates."""
    regressor = make_regressor(epochs=3).fit(TEXTS, mean + 0.01 * SIGNS)
    regressor.set_params(epochs=30).fit(TEXTS, SIGNS)

    assert r2_score(SIGNS, regressor.predict(TEXTS)) > 0.5


def test_targets_that_spread_less_keep_the_scale(make_regressor):
    regressor = make_regressor(epochs=3).fit(TEXTS, SIGNS)
    before = regressor._target_mean[0], regressor._target_scale[0]
    regressor.fit(TEXTS, 0.1 * SIGNS)

    assert (regressor._target_mean[0], regressor._target_scale[0]) == before


def test_a_target_that_was_constant_may_vary_later(make_regressor):
    y = np.column_stack([np.full(36, 7.0), SIGNS])
    regressor = make_regressor(epochs=10).fit(TEXTS, y)
    before = regressor._target_mean[1], regressor._target_scale[1]

    regressor.set_params(epochs=30, learning_rate=0.03)
    regressor.fit(TEXTS, np.column_stack([SIGNS * 100.0, SIGNS]))

    assert (regressor._target_mean[1], regressor._target_scale[1]) == before
    assert r2_score(SIGNS * 100.0, regressor.predict(TEXTS)[:, 0]) > 0.8


def test_each_target_is_rescaled_by_itself(make_regressor):
    """One that is as before, one that spreads wider, and one that was constant."""
    y = np.column_stack([SIGNS * 100.0, SIGNS, np.full(36, 7.0)])
    regressor = make_regressor(epochs=10).fit(TEXTS, y)
    before, mean = regressor.predict(TEXTS), regressor._target_mean
    y[:, 1:] = np.column_stack([50 * SIGNS - 9, SIGNS])
    still = copy(regressor, **STILL).fit(TEXTS, y)

    predicted = still.predict(TEXTS)
    np.testing.assert_allclose(predicted[:, :2], before[:, :2], atol=0.01)
    np.testing.assert_allclose(still._target_mean, [*mean[:2], SIGNS.mean()])
    distance = np.sqrt(((y - still._target_mean) ** 2).mean(axis=0))
    np.testing.assert_allclose(still._target_scale, distance)


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_regressor_of_other_targets_is_refused(make_regressor, pooling):
    y = np.column_stack([SIGNS, 1 - SIGNS, SIGNS])
    regressor = make_regressor(epochs=1, pooling=pooling).fit(TEXTS, y)

    with pytest.raises(ValueError, match=r"targets of the fit before: 3\. Got 2\. Set"):
        regressor.fit(TEXTS, y[:, :2])


def test_another_pooling_is_refused(make):
    estimator = make(warm_start=True).fit(X, Y)

    with pytest.raises(ValueError, match=r"of the fit before: 'mean'. Got 'cls'"):
        estimator.set_params(pooling="cls").fit(X, Y)

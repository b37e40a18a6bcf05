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

from sk_adalora.data.targets import read_number_targets

X, Y = topics(36)
INDICATORS = (Y[:, None] == np.unique(Y)).astype(int)
# So slow that nothing is learned: what is left of a fit is where it started.
STILL = {"learning_rate": 1e-9}
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


# Where it starts


@pytest.mark.parametrize(
    ("first", "changed", "y"),
    [
        ({}, {}, Y),
        ({}, {"init_r": 9}, Y),
        ({}, {"lora_alpha": 0.5, "init_r": 7, "lora_dropout": 0.2}, Y),
        ({}, {"lora_alpha": 32.0}, INDICATORS),
        ({"pooling": "model"}, {}, Y),
        ({"pooling": "model"}, {"init_r": 6}, INDICATORS),
    ],
)
def test_a_fit_that_learns_nothing_predicts_as_before(make, first, changed, y):
    """Whatever the new rank and scale. The triplets with value 0 are the least
    important: pruned, they change little."""
    estimator = make(**first, epochs=2).fit(X, y)
    still = copy(estimator, **STILL, **changed).fit(X, y)

    np.testing.assert_allclose(
        still.predict_proba(X), estimator.predict_proba(X), atol=1e-3
    )


# A new schedule


@pytest.mark.parametrize("kept", ["object", "pickle", "folder"])
def test_a_continued_fit_sets_the_same_rows_apart(make, tmp_path, kept):
    """Others would have been learned from before: a score of what is known by heart."""
    held = []

    def watch(estimator, X, y):
        held.append([*X])
        return 0.0

    texts = [f"{text} {number}" for number, text in enumerate(X)]
    options = {"early_stopping": True, "epochs": 1, "random_state": None}
    estimator = make(**options, scoring=watch).fit(texts, Y).set_params(scoring=None)
    if kept == "pickle":
        estimator = copy(estimator)
    if kept == "folder":
        estimator.save_pretrained(tmp_path / "saved")
        estimator = type(estimator).from_pretrained(tmp_path / "saved")

    estimator.set_params(warm_start=True, scoring=watch).fit(texts, Y)
    assert held[0] == held[1]
    estimator.set_params(warm_start=False).fit(texts, Y)
    assert held[2] != held[1]


def test_it_continues_after_a_pickle_on_other_rows(make):
    one = make().fit(X, Y)
    other = copy(one)
    texts, labels = topics(24, seed=5)

    np.testing.assert_array_equal(
        one.fit(texts, labels).predict_proba(X),
        other.fit(texts, labels).predict_proba(X),
    )
    assert one.fit_report_.n_rows == 24


def test_the_schedule_is_a_new_one(fitted):
    continued = copy(fitted, target_r=1, epochs=2).fit(X, Y)

    assert continued.n_iter_ == 2
    assert continued.total_step_ == 2 * 3
    assert continued.schedule_.target_r == 1
    assert len(continued.history_.loss) == 6
    assert sum(continued.ranks_.values()) == len(continued.ranks_)
    assert continued.history_.budget[0] > sum(fitted.ranks_.values())


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


# What must fit

REFUSED = {
    "classes": ({}, np.where(Y == "art", "arts", Y), r"missing \['art'\], new \['arts"),
    "fewer classes": (
        {},
        np.where(Y == "art", "sport", Y),
        r"missing \['art'\], new \[",
    ),
    "several labels": ({}, INDICATORS, r": one label a row\. Got an indicator"),
    "init_r": (
        {"init_r": 2},
        Y,
        "`init_r` must be at least the largest rank.*init_r=2",
    ),
    "fewer layers": (
        {"target_modules": ["query"]},
        Y,
        "adapted layers.*warm_start=Fal",
    ),
    "pooling": ({"pooling": "cls"}, Y, r"of the fit before: 'mean'. Got 'cls'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(fitted, name):
    changed, y, match = REFUSED[name]
    estimator = copy(fitted, **changed)
    predicted = estimator.predict_proba(X)
    before = dict(vars(estimator))

    with pytest.raises(ValueError, match=match):
        estimator.fit(X, y)

    assert vars(estimator) == before
    np.testing.assert_array_equal(estimator.predict_proba(X), predicted)


@pytest.mark.parametrize("kind", [_toy.make, _toy.make_regressor])
def test_columns_must_be_as_many_as_before(tiny_model, kind):
    estimator = kind(tiny_model, **CONTINUED).fit(X, INDICATORS)

    with pytest.raises(ValueError, match=r"of the fit before.* 3|3 .*fit before"):
        estimator.fit(X, INDICATORS[:, :2])


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


def units(y, before=None, own=False):
    """The targets that standardise `y`, after those of the fit before."""
    targets, values = read_number_targets(y)
    return targets.encode(values, None, before, own)[0]


def test_each_target_is_rescaled_by_itself():
    """One spreads less, one wider, and one was constant."""
    y = np.column_stack([SIGNS * 100.0, SIGNS, np.full(36, 7.0)])
    later = np.column_stack([SIGNS, 50 * SIGNS - 9, SIGNS])
    before = units(y)
    now, own = units(later, before), units(later, before, own=True)

    np.testing.assert_allclose(now.mean, [50, 0.5, 0.5])
    wider = np.sqrt(((later[:, 1] - 0.5) ** 2).mean())
    np.testing.assert_allclose(now.scale, [50, wider, 0.5])
    # The head's outputs shrink as their scale grows: predictions stay.
    np.testing.assert_allclose(now.output_factors(before), [1, 0.5 / wider, 1])
    np.testing.assert_allclose(own.scale, [50, 0.5, 0.5])
    assert units(y * 0.1, before).output_factors(before) is None


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

"""AdaLoraClassifier as its users see it."""

from copy import copy

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from _toy import global_states, make, numbers, topics, toy
from sklearn.base import clone
from sklearn.metrics import accuracy_score, log_loss
from sklearn.utils import compute_class_weight

from sk_adalora import AdaLoraClassifier
from sk_adalora.data.labels import class_weights
from sk_adalora.estimators import fitting as _fitting
from sk_adalora.estimators.classifier import multilabel_loss


@pytest.fixture(scope="module")
def binary(tiny_model):
    """Fitted on `toy(64)`. Do not refit."""
    return make(tiny_model, epochs=6).fit(*toy(64))


@pytest.fixture(scope="module")
def multiclass(tiny_model):
    """Fitted on `topics(60)`. Do not refit."""
    return make(tiny_model, epochs=6).fit(*topics(60))


def indicator(n_rows):
    """Texts of good words, bad words, both or none; which of the two they hold."""
    good, bad = toy(n_rows, seed=3)[0][1::2], toy(n_rows, seed=4)[0][::2]
    k = len(good)
    X = [
        *good,
        *bad,
        *(f"{a} {b}" for a, b in zip(good, bad, strict=True)),
        *["the"] * k,
    ]
    return X, np.repeat([[1, 0], [0, 1], [1, 1], [0, 0]], k, axis=0)


@pytest.fixture(scope="module")
def multilabel(tiny_model):
    """Fitted on `indicator(32)`. Do not refit."""
    return make(tiny_model, epochs=8, batch_size=8).fit(*indicator(32))


# ---- outputs ----------------------------------------------------------------


def test_probabilities_of_two_classes(binary):
    X, _ = toy(20, seed=1)
    proba, scores = binary.predict_proba(X), binary.decision_function(X)

    assert proba.shape == (20, 2)
    assert scores.shape == (20,)
    assert proba.dtype == scores.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(proba[:, 1], 1 / (1 + np.exp(-scores)), atol=1e-6)
    np.testing.assert_array_equal(binary.predict(X), (scores > 0).astype(int))
    np.testing.assert_allclose(np.log(proba), binary.predict_log_proba(X))


def test_probabilities_of_three_classes(multiclass):
    X, _ = topics(20, seed=1)
    proba, scores = multiclass.predict_proba(X), multiclass.decision_function(X)

    assert proba.shape == scores.shape == (20, 3)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(
        multiclass.predict(X), multiclass.classes_[scores.argmax(axis=1)]
    )
    np.testing.assert_allclose(np.log(proba), multiclass.predict_log_proba(X))


def test_probabilities_of_several_labels(multilabel):
    X, y = indicator(8)
    proba, scores = multilabel.predict_proba(X), multilabel.decision_function(X)
    predicted = multilabel.predict(X)

    assert multilabel.classes_.tolist() == [0, 1]
    assert proba.shape == scores.shape == predicted.shape == y.shape
    assert predicted.dtype.kind == "i"
    np.testing.assert_allclose(proba, 1 / (1 + np.exp(-scores)), atol=1e-6)
    np.testing.assert_array_equal(predicted, proba > 0.5)
    np.testing.assert_allclose(np.log(proba), multilabel.predict_log_proba(X))


def test_a_label_is_predicted_where_it_is_likelier_than_not(multilabel):
    nearly = copy(multilabel)
    nearly._predict_outputs = lambda X: np.array([[0.01, -0.01]], np.float32)

    assert nearly.predict(["the"]).tolist() == [[1, 0]]
    assert (nearly.predict_proba(["the"]) > 0.5).tolist() == [[True, False]]


def test_the_loss_of_several_labels_is_their_mean():
    """A label that is there twice leaves it as it was."""
    outputs = torch.tensor([[2.0, -3.0, 0.0], [0.5, 1.0, -40.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    losses = multilabel_loss(outputs, targets)
    of_one = [multilabel_loss(outputs[:, [k]], targets[:, [k]]) for k in range(3)]

    assert losses.shape == (2,)  # one a row, which its weight multiplies
    torch.testing.assert_close(losses, sum(of_one) / 3)
    twice = [torch.cat([one, one], dim=1) for one in (outputs, targets)]
    torch.testing.assert_close(multilabel_loss(*twice), losses)


def test_several_labels_are_learned(multilabel):
    X, y = indicator(32)

    assert (multilabel.predict(X) == y).mean() > 0.8
    assert multilabel.score(X, y) == accuracy_score(y, multilabel.predict(X))


def test_scikit_learn_is_told_of_several_labels():
    assert AdaLoraClassifier().__sklearn_tags__().classifier_tags.multi_label


@pytest.mark.parametrize(
    "kind",
    ["list", "sparse", "sparse array", "rows", "cells twice", "frame", "bool", "float"],
)
def test_indicators_in_any_form(tiny_model, kind):
    import scipy.sparse

    X, y = indicator(16)
    given = {
        "list": y.tolist(),
        "sparse": scipy.sparse.csr_matrix(y),
        "sparse array": scipy.sparse.coo_array(y.astype(bool)),
        "rows": scipy.sparse.lil_matrix(y),
        "cells twice": scipy.sparse.coo_matrix(
            (np.ones(2 * y.sum(), bool), np.tile(y.nonzero(), 2)), y.shape
        ),
        "frame": pd.DataFrame(y, columns=["good", "bad"]),
        "bool": y.astype(bool),
        "float": y.astype(float),
    }[kind]
    fitted, plain = make(tiny_model).fit(X, given), make(tiny_model).fit(X, y)

    np.testing.assert_array_equal(fitted.predict_proba(X), plain.predict_proba(X))
    np.testing.assert_array_equal(fitted.predict(X), plain.predict(X))


@pytest.mark.parametrize("kind", ["array", "Int64", "boolean"])
@pytest.mark.parametrize("scoring", [None, "f1_micro"])
def test_early_stopping_with_several_labels(tiny_model, kind, scoring):
    X, y = indicator(32)
    options = {"validation_fraction": 0.25, "scoring": scoring}
    stopping = make(tiny_model, early_stopping=True, **options)
    given = y if kind == "array" else pd.DataFrame(y).astype(kind)
    plain = clone(stopping).fit(X, y).history_.score

    assert len(plain) == 2
    assert stopping.fit(X, given).history_.score == plain
    assert len(stopping.fit(X, y, X_val=X[:8], y_val=given[:8]).history_.score) == 2


@pytest.fixture(scope="module")
def stopped(tiny_model):
    """Fitted to `indicator(16)`, with early stopping. Do not refit."""
    stopping = make(tiny_model, early_stopping=True, validation_fraction=0.25)
    return stopping.fit(*indicator(16))


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("form", ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"])
def test_early_stopping_with_a_sparse_indicator(stopped, form, kind):
    import scipy.sparse

    X, y = indicator(16)
    fitted = clone(stopped).fit(X, getattr(scipy.sparse, f"{form}_{kind}")(y))

    assert fitted.history_.score == stopped.history_.score
    np.testing.assert_array_equal(fitted.predict_proba(X), stopped.predict_proba(X))


def test_a_series_of_arrays_is_an_indicator_to_validate_with(tiny_model):
    X, y = indicator(16)
    stopping = make(tiny_model, early_stopping=True)
    plain = clone(stopping).fit(X, y, X_val=X, y_val=y).history_.score
    arrays = pl.Series(y.tolist(), dtype=pl.Array(pl.Int64, 2))

    assert stopping.fit(X, arrays, X_val=X, y_val=arrays).history_.score == plain
    with pytest.raises(ValueError, match="`y_val` must be of the form of `y`"):
        stopping.fit(X, np.eye(32, 3), X_val=X, y_val=arrays)


class Given(AdaLoraClassifier):
    """A classifier whose network gives what is passed as texts."""

    def _predict_outputs(self, X):
        return X


@pytest.mark.parametrize("multilabel", [False, True])
def test_no_digit_is_lost_where_the_model_is_sure(multilabel):
    sure = Given()
    sure._multilabel, sure.classes_ = multilabel, np.array([0, 1])
    outputs = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    outputs *= np.logspace(-3, 3, 3000, dtype=np.float32)[:, np.newaxis]
    exact = outputs.astype(np.float64)
    others = 0 if multilabel else exact[:, ::-1]

    log, proba = sure.predict_log_proba(outputs), sure.predict_proba(outputs)
    np.testing.assert_allclose(log, -np.logaddexp(0, others - exact), 1e-9, 1e-15)
    np.testing.assert_allclose(proba, np.exp(log))
    assert log.min() < -800
    assert sure.decision_function(outputs).dtype == np.float64
    if not multilabel:
        assert np.isfinite(log_loss(outputs.argmin(axis=1), proba))


# ---- rows are independent ---------------------------------------------------


def test_permuted_rows_permute_predictions(binary):
    X, _ = toy(50, seed=1)
    order = np.random.default_rng(0).permutation(50)
    proba = binary.predict_proba(X)

    np.testing.assert_allclose(
        binary.predict_proba([X[i] for i in order]), proba[order], atol=1e-5
    )


def test_equal_texts_get_equal_predictions(binary):
    X, _ = toy(10, seed=1)
    proba = binary.predict_proba(X * 3 + X[:4])

    np.testing.assert_array_equal(proba[:10], proba[10:20])
    np.testing.assert_array_equal(proba[:4], proba[30:])
    np.testing.assert_allclose(proba[:10], binary.predict_proba(X), atol=1e-6)


def test_a_row_does_not_depend_on_the_others(binary):
    X, _ = toy(12, seed=1)
    alone = np.concatenate([binary.predict_proba([text]) for text in X])
    among = binary.predict_proba([*X, "good film " * 100])[:12]

    np.testing.assert_allclose(alone, among, atol=1e-5)


def test_predictions_drop_nothing(tiny_model):
    X, y = toy(16)
    fitted = make(tiny_model, lora_dropout=0.5).fit(X, y)

    np.testing.assert_array_equal(fitted.predict_proba(X), fitted.predict_proba(X))


# ---- seeds ------------------------------------------------------------------


def test_the_same_seed_gives_the_same_and_another_another(tiny_model):
    X, y = toy(48)

    def fit(seed):
        return make(tiny_model, random_state=seed, lora_dropout=0.1).fit(X, y)

    first, second, other = fit(3), fit(3), fit(4)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert first.ranks_ == second.ranks_
    assert first.history_.loss == second.history_.loss
    assert np.abs(first.predict_proba(X) - other.predict_proba(X)).max() > 1e-4
    assert first.ranks_ != other.ranks_


def test_without_a_seed_fits_differ(tiny_model):
    X, y = toy(16)
    first, second = (make(tiny_model, random_state=None).fit(X, y) for _ in range(2))

    assert np.abs(first.predict_proba(X) - second.predict_proba(X)).max() > 1e-6


@pytest.mark.parametrize("kind", ["NumPy's own", "RandomState"])
def test_rows_that_are_refused_draw_nothing(tiny_model, kind):
    X, y = toy(16)
    probabilities = []
    for fails_first in (False, True):
        np.random.seed(0)  # noqa: NPY002
        state = None if kind == "NumPy's own" else np.random.RandomState(0)
        classifier = make(tiny_model, random_state=state)
        if fails_first:
            with pytest.raises(ValueError, match="same number"):
                classifier.fit(X, y[:-1])
            with pytest.raises(ValueError, match="early stopping only"):
                classifier.fit(X, y, X_val=X, y_val=y)
        probabilities.append(classifier.fit(X, y).predict_proba(X))

    np.testing.assert_array_equal(*probabilities)


def test_a_random_state_moves_on(tiny_model):
    X, y = toy(16)
    state = np.random.RandomState(0)
    first, second = (make(tiny_model, random_state=state).fit(X, y) for _ in range(2))
    again = make(tiny_model, random_state=np.random.RandomState(0)).fit(X, y)

    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert np.abs(first.predict_proba(X) - second.predict_proba(X)).max() > 1e-6


def test_the_global_generators_are_left_alone(tiny_model):
    X, y = toy(48)
    before = global_states()
    make(tiny_model, early_stopping=True, lora_dropout=0.1).fit(X, y).predict_proba(X)

    assert global_states() == before


def test_the_global_generators_have_no_influence(tiny_model):
    X, y = toy(32)
    proba = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            proba.append(make(tiny_model, lora_dropout=0.1).fit(X, y).predict_proba(X))

    np.testing.assert_array_equal(*proba)


# ---- scikit-learn's contract ------------------------------------------------


def test_a_second_fit_is_a_fresh_one(tiny_model):
    X, y = topics(48)
    classifier = make(tiny_model).fit(pd.DataFrame({"a": X, "b": X}), y == "art")
    classifier.fit(X, y)
    fresh = make(tiny_model).fit(X, y)

    np.testing.assert_array_equal(classifier.predict_proba(X), fresh.predict_proba(X))
    assert vars(classifier).keys() - {"feature_names_in_"} == vars(fresh).keys() - {
        "feature_names_in_"
    }
    assert not hasattr(classifier, "feature_names_in_")
    first, second = numbers(classifier), numbers(fresh)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_fit_changes_no_parameter(tiny_model):
    params = {
        "target_modules": ["query", "value"],
        "class_weight": {0: 1.0, 1: 2.0},
        "random_state": 7,
        "target_r": 0.5,
        "init_r": np.int64(4),
    }
    classifier = make(tiny_model, **params)
    before = classifier.get_params()
    classifier.fit(*toy(32))
    after = classifier.get_params()

    assert all(after[name] is value for name, value in before.items())
    assert classifier.target_modules == ["query", "value"]


def test_a_clone_is_unfitted_and_fits_the_same(binary):
    X, y = toy(64)
    cloned = clone(binary)

    assert cloned.get_params() == binary.get_params()
    assert not [name for name in vars(cloned) if name.endswith("_")]
    np.testing.assert_array_equal(
        cloned.fit(X, y).predict_proba(X), binary.predict_proba(X)
    )


def test_public_attributes_are_cheap_and_free_of_torch(binary):
    def walk(value, depth=0):
        yield value
        if depth < 4:
            if isinstance(value, dict):
                value = value.values()
            elif hasattr(value, "__dataclass_fields__"):
                value = vars(value).values()
            elif not isinstance(value, list | tuple):
                return
            for item in value:
                yield from walk(item, depth + 1)

    public = {n: v for n, v in vars(binary).items() if n.endswith("_")}
    assert {"classes_", "ranks_", "history_", "fit_report_", "schedule_"} <= set(public)
    for name, value in public.items():
        for item in walk(value):
            assert not type(item).__module__.startswith("torch"), name
    assert len(binary._repr_html_()) < 500_000


# ---- what is written, printed and reported ----------------------------------


def test_nothing_is_printed(tiny_model, capfd):
    X, y = toy(48)
    capfd.readouterr()
    make(tiny_model, early_stopping=True).fit(X, y).predict(X)

    assert tuple(capfd.readouterr()) == ("", "")


def test_nothing_is_written_to_disk(tiny_model, tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("work", "temp", "home")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.chdir(folders["work"])
    monkeypatch.setenv("HOME", str(folders["home"]))
    monkeypatch.setattr("tempfile.tempdir", str(folders["temp"]))
    X, y = toy(48)
    make(tiny_model, early_stopping=True).fit(X, y).predict(X)

    assert set(tmp_path.rglob("*")) == set(folders.values())


def test_the_report_counts_rows_and_tokens(tiny_model):
    X, y = toy(20)
    X = [*X, *X[:5], "", None, "the good film " * 40]
    y = [*y, *y[:5], 0, 1, 1]
    fitted = make(tiny_model, max_length=64).fit(X, y)
    report = fitted.fit_report_
    lengths = [len(t.split()) + 2 for t in [*X[:25], "", ""]] + [64]

    assert report.n_rows == 28
    assert report.n_distinct == len({text or "" for text in X})
    assert report.n_empty == 2
    assert report.tokens_max == 64
    assert report.tokens_median == int(np.median(lengths))
    assert report.tokens_p90 == sorted(lengths)[25]  # 26 of 28 rows, 25 are too few
    assert report.truncated_share == 1 / 28
    assert report.max_length == 64
    assert (report.device, report.precision) == ("cpu", "float32")
    assert report.n_threads == torch.get_num_threads()
    assert report.trainable_parameters < report.total_parameters / 10
    assert 0 < report.seconds < 60
    assert [line.split()[0] for line in str(report).splitlines()] == list(vars(report))

    # Eight tokens, a number between the lengths of two rows, would be too few for one
    # of the five.
    texts = ["film"] * 4 + ["film " * 10]
    report = make(tiny_model).fit(texts, [0, 1, 0, 1, 0]).fit_report_
    assert (report.tokens_median, report.tokens_p90) == (3, 12)


def test_more_rank_than_the_layers_can_have_is_warned_of(tiny_model):
    texts, y = toy(16)
    full = make(tiny_model, target_r=32, init_r=40).fit(texts, y)  # layers 32 wide

    match = r"^`target_r` must be at most 32, which .* Got 33, which .*\. Lower it\.$"
    with pytest.warns(UserWarning, match=match):
        wide = make(tiny_model, target_r=33).fit(texts, y)
    for fitted in (full, wide):  # which is what the ranks sum to, all the same
        assert np.mean(list(fitted.ranks_.values())) == fitted.target_r


def test_much_that_was_cut_is_warned_about(tiny_model):
    X, y = toy(40)
    cut = make(tiny_model, max_length=16)
    X[:5] = ["the good film " * 20] * 5  # 12.5%

    with pytest.warns(
        UserWarning, match=r"^12% of the texts are longer than max_length=16"
    ):
        cut.fit(X, y)
    assert cut.fit_report_.truncated_share == 0.125
    X[:1] = ["good"]  # 10%: a test fails at a warning it does not expect
    assert cut.fit(X, y).fit_report_.truncated_share == 0.1


def test_cuts_are_warned_about_before_the_training(tiny_model, monkeypatch):
    X, y = toy(40)
    monkeypatch.setattr(_fitting, "train", lambda *_: pytest.fail("it was trained"))

    with pytest.raises(UserWarning, match=r"^100% of the texts"):
        make(tiny_model, max_length=3).fit(X, y)


def test_the_longest_text_is_what_the_model_takes(tiny_model):
    X, y = toy(16)
    fitted = make(tiny_model, max_length=10_000).fit(["good " * 5000, *X[1:]], y)

    assert fitted.fit_report_.max_length == 512
    assert fitted.fit_report_.tokens_max == 512


@pytest.mark.parametrize(
    "modules",
    [
        "all-linear",
        ["query"],
        ("query", "value"),
        {"query"},
        {"query": 0}.keys(),
        r".*query|.*key",
    ],
)
def test_target_modules_choose_what_is_adapted(tiny_model, modules):
    fitted = make(tiny_model, target_modules=modules).fit(*toy(32))
    endings = {path.rpartition(".")[2] for path in fitted.ranks_}

    expected = {
        "all-linear": {"query", "key", "value", "dense"},
        "('query', 'value')": {"query", "value"},
        ".*query|.*key": {"query", "key"},
    }
    assert endings == expected.get(str(modules), {"query"})
    assert sum(fitted.ranks_.values()) == 2 * len(fitted.ranks_)


def test_by_default_updates_are_not_scaled(tiny_model):
    X, y = toy(32)
    default, own, other = (
        make(tiny_model, init_r=5, lora_alpha=alpha).fit(X, y).predict_proba(X)
        for alpha in (None, 5, 8)
    )

    np.testing.assert_array_equal(default, own)
    assert not np.array_equal(default, other)


# ---- parameters that change after the fit ------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": ""}, "a Hugging Face model id or a folder"),
        ({"revision": ""}, "a str"),
        ({"local_files_only": "yes"}, "True or False"),
        ({"trust_remote_code": 1}, "True or False"),
        ({"row_format": None}, "a str"),
        ({"max_length": None}, "an int"),
        ({"long_text": "widnows"}, "one of"),
        ({"device": None}, "'auto'"),
        ({"precision": "foo"}, "one of"),
    ],
    ids=str,
)
def test_parameters_are_checked_before_a_prediction(binary, changed, message):
    fitted = copy(binary).set_params(**changed)

    (name,) = changed
    match = f"`{name}` of AdaLoraClassifier must be {message}"
    with pytest.raises(ValueError, match=match):
        fitted.predict(["good film"])


def test_balanced_classes_do_not_count_rows_of_weight_zero(tiny_model):
    texts, _ = toy(32)
    y = np.array(["a"] * 24 + ["b"] * 8)
    weight = np.repeat([0.0, 1.0], 16)
    whole = make(tiny_model, class_weight="balanced").fit(
        texts, y, sample_weight=weight
    )
    rest = make(tiny_model, class_weight="balanced").fit(texts[16:], y[16:])

    np.testing.assert_array_equal(whole.predict_proba(texts), rest.predict_proba(texts))


@pytest.mark.parametrize("own", [None, np.linspace(0.5, 3, 9)])
def test_balanced_weights_are_those_of_scikit_learn(own):
    classes, codes = np.array(["a", "b", "c"]), np.array([0] * 6 + [2] + [1] * 2)
    weights = class_weights("balanced", classes, codes, own)
    y = classes[codes]

    np.testing.assert_allclose(
        weights,
        compute_class_weight("balanced", classes=classes, y=y, sample_weight=own),
        rtol=1e-15,
    )


def test_balanced_weights_count_no_class_without_weight():
    codes = np.array([0, 0, 0, 1, 2])
    own = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    weights = class_weights("balanced", np.array(["a", "b", "c"]), codes, own)

    np.testing.assert_allclose(weights[:2], [4 / (2 * 3), 4 / (2 * 1)])


DAYS = np.array(["2020-01-31", "2020-02-01"], dtype="datetime64[D]")


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        (np.array(["1", "2"]), ["1", "2"]),  # which `int` takes for numbers
        (np.array(["1", "a"], dtype=object), ["1", "a"]),
        (DAYS, [*DAYS]),
        (DAYS.astype("datetime64[us]"), [*map(pd.Timestamp, DAYS)]),
        (np.array([False, True]), [0, 1]),
    ],
)
def test_weights_of_labels_of_any_type(tiny_model, labels, keys):
    texts, y = toy(24)
    weights = {keys[0]: 1.0, keys[1]: 3.0, "another": 7.0}
    fitted = make(tiny_model, class_weight=weights).fit(texts, labels[y])
    expected = make(tiny_model).fit(texts, labels[y], sample_weight=1.0 + 2 * y)

    np.testing.assert_array_equal(
        fitted.predict_proba(texts), expected.predict_proba(texts)
    )


@pytest.mark.parametrize("unit", ["s", "ns"])
@pytest.mark.parametrize("labels", [DAYS, DAYS - DAYS[0]], ids=["dates", "durations"])
def test_dates_are_the_same_labels_in_every_unit(tiny_model, labels, unit):
    texts, y = toy(24)
    days, times = labels[y], labels[y].astype(f"{labels.dtype.kind}8[{unit}]")
    fitted = make(tiny_model, early_stopping=True, warm_start=True)

    fitted.fit(texts, days, X_val=texts, y_val=times)
    fitted.fit(texts, times, X_val=texts, y_val=days)
    assert (fitted.classes_ == labels).all()
    match = r"`y_val` must hold classes of `y`. Got \[datetime"
    with pytest.raises(ValueError, match=match):
        fitted.fit(texts, times, X_val=texts, y_val=days + 1)


def test_dates_that_differ_by_nanoseconds_are_other_labels(tiny_model):
    texts, y = toy(24)
    times = np.array([100, 200], "datetime64[ns]")
    fitted = make(tiny_model, early_stopping=True, warm_start=True)

    fitted.fit(texts, times[y], X_val=texts, y_val=times[y])
    with pytest.raises(ValueError, match=r"`y_val` must hold classes.*Got \[201\]"):
        fitted.fit(texts, times[y], X_val=texts, y_val=times[y] + y)
    with pytest.raises(ValueError, match=r"missing \[200\], new \[201\]"):
        fitted.fit(texts, times[y] + y)


def test_a_whole_microsecond_is_the_same_label_beside_nanoseconds(tiny_model):
    texts, y = toy(24)
    times = np.array([1000, 2001], "datetime64[ns]")
    whole = times[:1].astype("datetime64[us]").repeat(24)
    fitted = make(tiny_model, early_stopping=True)

    fitted.fit(texts, times[y], X_val=texts, y_val=whole)
    match = r"`y_val` must hold classes.*Got \[datetime.*\), 2002\]"
    with pytest.raises(ValueError, match=match):  # of two types
        fitted.fit(texts, times[y], X_val=texts, y_val=times[y] + 1000 ** (1 - y))


def test_a_class_for_which_no_weight_is_given_has_a_weight_of_1():
    classes = np.array(["a", "b", "c"])

    assert class_weights({"b": 3.0}, classes, classes, None).tolist() == [1, 3, 1]


@pytest.mark.parametrize("container", [pd.Series, lambda y: pd.DataFrame({"y": y})])
@pytest.mark.parametrize(
    ("dtype", "labels", "kind"),
    [
        ("Int64", [2**53, 2**53 + 1, 7], "i"),
        ("boolean", [True, False], "b"),
        (pd.ArrowDtype(pa.int64()), [2**53, 2**53 + 1, 7], "i"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_labels_of_types_of_pandas_come_back_as_they_were(
    tiny_model, dtype, labels, kind, container
):
    texts, _ = toy(36)
    y = container(pd.Series(labels * (36 // len(labels)), dtype=dtype))
    fitted = make(tiny_model, class_weight="balanced").fit(texts, y)

    assert fitted.classes_.dtype.kind == kind
    assert fitted.classes_.tolist() == sorted(labels)
    assert set(fitted.predict(texts).tolist()) <= set(labels)
    assert 0 <= fitted.score(texts, y) <= 1


@pytest.mark.parametrize("dtype", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("container", [pd.Series, lambda y: pd.DataFrame({"y": y})])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_a_nul_at_the_end_of_a_label_of_arrow_tells_it_apart(
    tiny_model, dtype, container
):
    texts, _ = toy(36)
    labels = ["a", "a\0", "b"] * 12
    y = container(pd.Series(labels, dtype=pd.ArrowDtype(dtype)))
    fitted = make(tiny_model, early_stopping=True).fit(texts, y, X_val=texts, y_val=y)

    assert fitted.classes_.dtype == object
    assert fitted.classes_.tolist() == ["a", "a\0", "b"]
    assert fitted.score(texts, np.array(labels, object)) == fitted.score(texts, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize(
    "convert",
    [
        lambda y: pd.Series(y, dtype="category"),
        pd.Categorical,
        lambda y: pd.DataFrame({"y": y}),
        lambda y: pd.DataFrame({"y": pd.array(y, dtype="boolean")}),
        lambda y: pd.DataFrame({"y": pd.Categorical(y)}),
    ],
)
def test_booleans_of_pandas_stay_booleans(tiny_model, convert):
    texts, y = toy(24)
    labels = convert(y == 1)
    fitted = make(tiny_model, early_stopping=True).fit(texts, labels)

    assert fitted.classes_.tolist() == [False, True]
    assert fitted.classes_.dtype == bool
    assert fitted.score(texts, labels) == fitted.score(texts, y == 1)


def test_labels_to_validate_with_are_read_as_those_to_learn_from(tiny_model):
    texts, _ = toy(36)
    y = pd.Series([2**53, 2**53 + 1, 7] * 12, dtype="Int64")
    fitted = make(tiny_model, early_stopping=True)

    with pytest.raises(ValueError, match=f"Got .{2**53 + 3}., which `y` does not"):
        fitted.fit(texts, y, X_val=texts[:2], y_val=y[:2].replace(2**53, 2**53 + 3))
    assert fitted.fit(texts, y, X_val=texts, y_val=y).history_.score

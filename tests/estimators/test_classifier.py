"""AdaLoraClassifier as its users see it."""

import numpy as np
import pandas as pd
import pytest
import torch
from _toy import global_states, make, numbers, topics, toy
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score

from sk_adalora.data.targets import Classes, Labels


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


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_the_methods_that_predict_agree(kind, request):
    fitted = request.getfixturevalue(kind)
    X, _ = toy(20, seed=1)
    proba, scores = fitted.predict_proba(X), fitted.decision_function(X)
    predicted = fitted.predict(X)

    assert proba.dtype == scores.dtype == np.float64
    assert proba.shape == (20, len(fitted.classes_))
    np.testing.assert_allclose(np.log(proba), fitted.predict_log_proba(X))
    if kind == "multilabel":
        np.testing.assert_allclose(proba, expit(scores), atol=1e-6)
        np.testing.assert_array_equal(predicted, proba > 0.5)
        assert predicted.dtype.kind == "i"
        return
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(predicted, fitted.classes_[proba.argmax(axis=1)])
    expected = expit(scores) if kind == "binary" else softmax(scores, axis=1)[:, 1]
    np.testing.assert_allclose(proba[:, 1], expected, atol=1e-6)


def test_a_label_is_predicted_where_it_is_likelier_than_not():
    outputs = np.array([[0.01, -0.01]], np.float32)
    assert Labels(np.arange(2)).decode(outputs).tolist() == [[1, 0]]


@pytest.mark.parametrize("kind", [Classes, Labels])
def test_no_digit_is_lost_where_the_model_is_sure(kind):
    outputs = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    outputs *= np.logspace(-3, 3, 3000, dtype=np.float32)[:, np.newaxis]
    exact = outputs.astype(np.float64)
    others = 0 if kind is Labels else exact[:, ::-1]

    log = kind(np.arange(2)).log_probabilities(outputs)
    np.testing.assert_allclose(log, -np.logaddexp(0, others - exact), 1e-9, 1e-15)
    assert log.min() < -800


def test_the_loss_of_several_labels_is_their_mean():
    """A label that is there twice leaves it as it was."""
    outputs = torch.tensor([[2.0, -3.0, 0.0], [0.5, 1.0, -40.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    losses = Labels.loss(outputs, targets)
    of_one = [Labels.loss(outputs[:, [k]], targets[:, [k]]) for k in range(3)]

    torch.testing.assert_close(losses, sum(of_one) / 3)
    twice = [torch.cat([one, one], dim=1) for one in (outputs, targets)]
    torch.testing.assert_close(Labels.loss(*twice), losses)


def test_several_labels_are_learned(multilabel):
    X, y = indicator(32)

    assert (multilabel.predict(X) == y).mean() > 0.8
    assert multilabel.score(X, y) == accuracy_score(y, multilabel.predict(X))


# ---- rows are independent ---------------------------------------------------


def test_permuted_rows_permute_predictions(binary):
    X, _ = toy(50, seed=1)
    order = np.random.default_rng(0).permutation(50)
    proba = binary.predict_proba(X)

    np.testing.assert_allclose(
        binary.predict_proba([X[i] for i in order]), proba[order], atol=1e-5
    )


def test_a_row_does_not_depend_on_the_others(binary):
    X, _ = toy(12, seed=1)
    alone = np.concatenate([binary.predict_proba([text]) for text in X])
    among = binary.predict_proba([*X, "good film " * 100])[:12]

    np.testing.assert_allclose(alone, among, atol=1e-5)


# ---- seeds ------------------------------------------------------------------


def test_a_seed_alone_decides(tiny_model):
    """Not the global generators, which are left alone."""
    X, y = toy(48)
    options = {"lora_dropout": 0.1}

    def fit(seed):
        torch.rand(1)  # moves the global generator on
        before = global_states()
        fitted = make(tiny_model, random_state=seed, **options).fit(X, y)
        predicted = fitted.predict_proba(X)
        assert global_states() == before
        return fitted, predicted

    (first, proba), (second, same), (other, another) = fit(3), fit(3), fit(4)
    np.testing.assert_array_equal(proba, same)
    assert first.ranks_ == second.ranks_
    assert first.history_.loss == second.history_.loss
    assert np.abs(proba - another).max() > 1e-4
    assert first.ranks_ != other.ranks_
    drawn = [make(tiny_model, random_state=None).fit(X, y) for _ in range(2)]
    assert not np.array_equal(*(fitted.predict_proba(X) for fitted in drawn))


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


# ---- what is written, printed and reported ----------------------------------


def test_nothing_is_printed_or_written(tiny_model, tmp_path, monkeypatch, capfd):
    folders = {name: tmp_path / name for name in ("work", "temp", "home")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.chdir(folders["work"])
    monkeypatch.setenv("HOME", str(folders["home"]))
    monkeypatch.setattr("tempfile.tempdir", str(folders["temp"]))
    X, y = toy(48)
    capfd.readouterr()
    make(tiny_model, early_stopping=True).fit(X, y).predict(X)

    assert tuple(capfd.readouterr()) == ("", "")
    assert set(tmp_path.rglob("*")) == set(folders.values())


def test_verbose_shows_the_ranks(tiny_model, capfd):
    make(tiny_model, verbose=1).fit(*toy(32))

    assert "query" in "".join(capfd.readouterr())


def test_the_report_counts_rows_and_tokens(tiny_model):
    X, y = toy(20)
    X = [*X, *X[:5], "", None, "the good film " * 400]
    y = [*y, *y[:5], 0, 1, 1]
    report = make(tiny_model, max_length=10_000).fit(X, y).fit_report_
    lengths = [len(t.split()) + 2 for t in [*X[:25], "", ""]] + [512]

    assert report.n_rows == 28
    assert report.n_distinct == len({text or "" for text in X})
    assert report.n_empty == 2
    assert report.tokens_max == report.max_length == 512  # what the model takes
    assert report.tokens_median == int(np.median(lengths))
    assert report.tokens_p90 == sorted(lengths)[25]  # 26 of 28 rows, 25 are too few
    assert report.truncated_share == 1 / 28
    assert (report.device, report.precision) == ("cpu", "float32")
    assert report.n_threads == torch.get_num_threads()
    assert report.trainable_parameters < report.total_parameters / 10
    assert 0 < report.seconds < 60


@pytest.mark.parametrize(
    ("modules", "endings"),
    [
        ("all-linear", {"query", "key", "value", "dense"}),
        (["query"], {"query"}),
        ({"query": 0}.keys(), {"query"}),
        (r".*query|.*key", {"query", "key"}),
    ],
)
def test_target_modules_choose_what_is_adapted(tiny_model, modules, endings):
    fitted = make(tiny_model, target_modules=modules).fit(*toy(32))

    assert {path.rpartition(".")[2] for path in fitted.ranks_} == endings
    assert sum(fitted.ranks_.values()) == 2 * len(fitted.ranks_)


def test_the_layers_may_have_all_their_rank(tiny_model):
    full = make(tiny_model, target_r=32, init_r=40).fit(*toy(16))  # layers 32 wide

    assert np.mean(list(full.ranks_.values())) == 32


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

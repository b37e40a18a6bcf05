"""AdaLoraEncoder: vectors that know the target, out of fold on the rows of the fit."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from _toy import QUICK, make, make_regressor, topics, toy
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from sk_adalora import AdaLoraClassifier, AdaLoraEncoder, RankAllocationDisplay

X, Y = toy(48)
X3, Y3 = topics(48)
NUMBERS = np.linspace(0.5, 9.5, 48)
TARGETS = {
    "two classes": (Y, ["prediction_1"]),
    "three classes": (
        Y3,
        ["prediction_art", "prediction_business", "prediction_sport"],
    ),
    "labels": (np.stack([Y, 1 - Y, Y], 1), [f"prediction_{i}" for i in range(3)]),
    "numbers": (NUMBERS, ["prediction_target_0"]),
    "two numbers": (
        np.stack([NUMBERS, -NUMBERS], 1),
        ["prediction_target_0", "prediction_target_1"],
    ),
}


def encoder(model, **changed):
    return AdaLoraEncoder(model, **{**QUICK, "n_components": 4, **changed})


@pytest.fixture(scope="module")
def fitted(tiny_model):
    """Fitted on `X3`. Do not refit."""
    return encoder(tiny_model, output="both").fit(X3, Y3)


# ---- out of fold ------------------------------------------------------------


def test_what_is_only_memorised_does_not_show_in_the_rows_of_the_fit(tiny_model):
    """Labels without any relation to the texts: only the tuned rows can know them."""
    rng = np.random.default_rng(0)
    words = "good bad great poor best worst news sport music film game market".split()
    texts = [" ".join(rng.permutation(words)[:6]) for _ in range(96)]
    labels = rng.permutation(np.arange(96) % 2)
    memorising = encoder(tiny_model, output="predictions", epochs=60, target_r=8, cv=2)
    out_of_fold = memorising.fit_transform(texts, labels)
    of_the_fit = memorising.transform(texts)
    assert roc_auc_score(labels, of_the_fit) > 0.95
    assert roc_auc_score(labels, out_of_fold) < 0.7


def test_a_row_does_not_change_with_its_own_target(tiny_model):
    """The other fold trains on it, so only its own fold is compared."""
    folds = list(KFold(2).split(X3))
    one = encoder(tiny_model, cv=folds, output="predictions")
    before = one.fit_transform(X3, Y3)
    changed = Y3.copy()
    changed[folds[0][1]] = np.roll(changed[folds[0][1]], 1)
    after = one.fit_transform(X3, changed)
    np.testing.assert_array_equal(before[folds[0][1]], after[folds[0][1]])
    assert not np.allclose(before[folds[1][1]], after[folds[1][1]])


def test_the_same_seed_gives_the_same_features(tiny_model):
    first, second = (encoder(tiny_model).fit_transform(X3, Y3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("long_text", "max_length"), [("truncate", 32), ("windows", 6)]
)
def test_texts_are_tokenised_once_and_encoded_frozen_once(
    tiny_model, monkeypatch, long_text, max_length
):
    from sk_adalora.tokens import long_texts
    from sk_adalora.training import start_head

    cut, frozen = [], []
    real_cut, real_frozen = long_texts.encode, start_head.frozen_features

    def encode(texts, *args):
        cut.append(len(texts))
        return real_cut(texts, *args)

    def frozen_features(network, tokens, *args):
        frozen.extend(tokens.starts.tolist())
        return real_frozen(network, tokens, *args)

    monkeypatch.setattr(long_texts, "encode", encode)
    monkeypatch.setattr(start_head, "frozen_features", frozen_features)
    one = encoder(tiny_model, long_text=long_text, max_length=max_length)
    one.fit_transform(X, Y)
    assert cut == [len(X)]
    assert len(frozen) == len(set(frozen)) == len(set(X))


# ---- what it gives ----------------------------------------------------------


def test_it_tunes_as_the_classifier_does(tiny_model):
    alone = make(tiny_model).fit(X3, Y3)
    one = encoder(tiny_model, n_components=None).fit(X3, Y3)
    assert one.ranks_ == alone.ranks_
    np.testing.assert_array_equal(one.transform(X3), alone.transform(X3))


def test_it_tunes_as_the_regressor_does(tiny_model):
    alone = make_regressor(tiny_model).fit(X, NUMBERS)
    one = encoder(tiny_model, output="predictions").fit(X, NUMBERS)
    np.testing.assert_allclose(one.transform(X).ravel(), alone.predict(X), rtol=1e-6)


@pytest.mark.parametrize("name", TARGETS)
def test_predictions_come_first(tiny_model, name):
    y, names = TARGETS[name]
    both = encoder(tiny_model, output="both")
    columns = both.fit_transform(X, y)
    assert columns.dtype == np.float32
    assert columns.shape == both.transform(X).shape == (48, len(names) + 4)
    vectors = [f"adaloraencoder{i}" for i in range(4)]
    assert [*both.get_feature_names_out()] == names + vectors
    for output, part in (
        ("predictions", columns[:, : len(names)]),
        ("vectors", columns[:, len(names) :]),
    ):
        again = encoder(tiny_model, output=output).fit_transform(X, y)
        np.testing.assert_array_equal(again, part)


def test_a_target_of_whole_numbers_can_be_taken_as_numbers(tiny_model):
    counts = np.arange(48)
    one = encoder(tiny_model, output="both", target_type="continuous").fit(X, counts)
    assert one.transform(X).shape == (48, 1 + 4)
    assert not hasattr(one, "classes_")


def test_without_a_target_it_gives_the_vectors_of_the_pretrained_model(tiny_model):
    frozen = encoder(tiny_model, n_components=None)
    vectors = frozen.fit_transform(X)
    np.testing.assert_array_equal(vectors, frozen.transform(X))
    untuned = encoder(tiny_model, n_components=None, tune=False)
    np.testing.assert_array_equal(vectors, untuned.fit(X, Y).transform(X))
    assert set(untuned.ranks_.values()) == {0}
    assert untuned.fit_report_.trainable_parameters == 0
    tuned = encoder(tiny_model, n_components=None).fit(X, Y)
    assert np.abs(tuned.transform(X) - vectors).max() > 1e-4


def test_a_vector_does_not_depend_on_the_rows_beside_it(fitted):
    together = fitted.transform(X3)
    alone = np.vstack([fitted.transform([text]) for text in X3[:5]])
    np.testing.assert_allclose(alone, together[:5], atol=2e-5)
    np.testing.assert_array_equal(fitted.transform(X3[::-1]), together[::-1])


def test_rows_of_weight_0_do_not_count_and_get_vectors(tiny_model):
    kept = np.arange(48) % 4 > 0
    weighted, short = encoder(tiny_model), encoder(tiny_model)
    assert weighted.fit_transform(X3, Y3, kept.astype(float)).shape == (48, 4)
    short.fit(np.array(X3)[kept], Y3[kept])
    np.testing.assert_allclose(
        weighted.transform(X3), short.transform(X3), rtol=1e-4, atol=1e-4
    )


def test_a_class_of_fewer_rows_than_folds_is_spread(tiny_model):
    rare = Y3.astype(object)
    rare[7] = "once"
    assert encoder(tiny_model).fit_transform(X3, rare).shape == (48, 4)


def test_fewer_rows_give_fewer_columns(tiny_model):
    few = encoder(tiny_model, n_components=30, cv=2).fit(X3[:9], Y3[:9])
    assert few.n_components_ == few.transform(X3).shape[1] == 9


def test_a_single_text_has_a_vector(tiny_model):
    alone = encoder(tiny_model, tune=False).fit(X[:1])
    assert np.isfinite(alone.transform(X)).all()


# ---- beside others ----------------------------------------------------------


def test_tables_come_out_as_asked_for(tiny_model):
    table = pd.DataFrame({"title": X3, "body": X3[::-1]})
    one = encoder(tiny_model).set_output(transform="pandas")
    out = one.fit_transform(table, Y3)
    assert [*out.columns] == [f"adaloraencoder{i}" for i in range(4)]
    assert set(out.dtypes) == {np.dtype("float32")}
    assert isinstance(one.transform(table), pd.DataFrame)
    one.set_output(transform="polars")
    assert isinstance(one.transform(pl.from_pandas(table)), pl.DataFrame)


def test_it_is_a_step_beside_other_columns(tiny_model):
    table = pd.DataFrame({"title": X3, "size": np.arange(48.0)})
    columns = make_column_transformer(
        (encoder(tiny_model), ["title"]), ("passthrough", ["size"])
    )
    model = make_pipeline(columns, HistGradientBoostingClassifier(min_samples_leaf=5))
    grid = {"columntransformer__adaloraencoder__target_r": [1, 2]}
    search = GridSearchCV(model, grid, cv=2).fit(table, Y3)
    assert search.best_score_ > 0.5
    assert search.predict(table).shape == (48,)


def test_it_is_a_step_of_skrub(tiny_model):
    skrub = pytest.importorskip("skrub")
    table = pd.DataFrame({"title": X3, "size": np.arange(48.0)})
    text = encoder(tiny_model)
    for step in (
        skrub.TableVectorizer(high_cardinality=text, cardinality_threshold=5),
        skrub.ApplyToCols(text, cols=["title"]),
    ):
        out = step.fit_transform(table, Y3)
        assert out.shape == (48, 4 + 1)
        assert step.transform(table).shape == (48, 4 + 1)


# ---- kept -------------------------------------------------------------------


@pytest.mark.parametrize("tune", [True, False], ids=["tuned", "frozen"])
def test_it_comes_back_from_files(tiny_model, tmp_path, tune):
    output = "both" if tune else "vectors"
    one = encoder(tiny_model, tune=tune, output=output).fit(X3, Y3)
    expected = one.transform(X3)
    one.save_pretrained(tmp_path / "folder")
    packed = skops.io.dumps(one)
    trusted = skops.io.get_untrusted_types(data=packed)
    assert [*trusted] == ["sk_adalora.AdaLoraEncoder"]
    for again in (
        pickle.loads(pickle.dumps(one)),
        AdaLoraEncoder.from_pretrained(tmp_path / "folder"),
        skops.io.loads(packed, trusted=trusted),
    ):
        np.testing.assert_array_equal(again.transform(X3), expected)
        assert [*again.get_feature_names_out()] == [*one.get_feature_names_out()]
    with pytest.raises(ValueError, match="AdaLoraEncoder"):
        AdaLoraClassifier.from_pretrained(tmp_path / "folder")


def test_its_ranks_are_drawn(fitted):
    display = RankAllocationDisplay.from_estimator(fitted)
    assert np.nansum(display.ranks) == sum(fitted.ranks_.values())


# ---- wrong input ------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "y", "match"),
    [
        ({"cv": 60}, Y, "at most the number of rows"),
        ({"cv": [(np.arange(9), np.arange(9))]}, Y, "hold out each row once"),
        ({"output": "both", "tune": False}, Y, "nothing is tuned"),
        ({"output": "predictions"}, None, "nothing is tuned"),
        ({"output": "vector"}, Y, "Did you mean 'vectors'"),
        ({"pooling": "model"}, Y, "`pooling`"),
        ({"n_components": 0}, Y, "`n_components`"),
        ({}, Y[:9], "same number of rows"),
        ({}, np.zeros(48, int), "at least 2 classes"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(changed, y, match):
    one = encoder("no/such-model", model_kwargs={"local_files_only": True}, **changed)
    with pytest.raises(ValueError, match=match):
        one.fit_transform(X, y)
    with pytest.raises(NotFittedError):
        one.transform(X)


def test_vectors_serve_another_model(tiny_model):
    strong = encoder(tiny_model, epochs=8, cv=2)
    vectors = strong.fit_transform(X3, Y3)
    model = LogisticRegression(C=100, max_iter=1000).fit(vectors, Y3)
    unseen, labels = topics(30, seed=1)
    assert model.score(strong.transform(unseen), labels) > 0.8

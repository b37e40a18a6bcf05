"""Validation rows: what is scored, when a fit ends, and which state is kept."""

import re
import warnings

import numpy as np
import pytest
import torch
import transformers
from _spy import LAYERS, Spy
from _toy import make, make_regressor, numbers, topics, toy
from sklearn.utils import shuffle


def scores(*values):
    """A scorer that gives these values, one an epoch."""
    given = iter(values)

    def score(estimator, X, y):
        estimator.predict(X)
        return next(given)

    return score


def stopping(tiny_model, **changed):
    return make(tiny_model, early_stopping=True, epochs=8, **changed)


# 8 epochs of 4 steps; the final phase begins in the fourth epoch.
@pytest.mark.parametrize(
    ("given", "patience", "n_epochs", "best"),
    [
        # Neither the model that is still too large, nor an equal score.
        ((0.9, 0.1, 0.2, 0.5, 0.6, 0.6, 0.3, 0.9), 2, 7, 4),
        # Patience begins anew with a better score.
        ((0, 0, 0, 0.5, 0.4, 0.6, 0.3, 0.2), 2, 8, 5),
        # NaN is never the best, though it is the first of the final phase.
        ((0, 0, 0, np.nan, 0.2, np.nan, 0.3, 0.1), 9, 8, 6),
        ((0, 0, 0, 0.1, np.inf, 0.2, 0.3, 0.4), 9, 8, 4),
    ],
)
def test_training_stops_when_the_score_no_longer_rises(
    tiny_model, given, patience, n_epochs, best
):
    fitted = stopping(
        tiny_model,
        scoring=scores(*given),
        n_iter_no_change=patience,
        tinit=4,
        tfinal=18,
    ).fit(*toy(64))
    history = fitted.history_

    np.testing.assert_array_equal(history.score, given[:n_epochs])
    assert history.best_epoch == best
    assert fitted.n_iter_ == history.epochs == n_epochs
    assert len(history.loss) == n_epochs * fitted.schedule_.steps_per_epoch
    assert fitted.total_step_ == 8 * fitted.schedule_.steps_per_epoch


def test_the_best_state_is_kept(tiny_model):
    seen = []

    def scorer(estimator, X, y):
        seen.append(estimator.predict_proba(texts))
        return [0, 0, 0, 0.1, 0.8, 0.2, 0.3, 0.4][len(seen) - 1]

    X, y = toy(64)
    texts, _ = toy(16, seed=5)
    fitted = stopping(
        tiny_model, scoring=scorer, n_iter_no_change=9, tinit=4, tfinal=18
    ).fit(X, y)

    assert fitted.history_.best_epoch == 4
    assert len(seen) == 8
    np.testing.assert_allclose(fitted.predict_proba(texts), seen[4], atol=1e-6)
    assert np.abs(seen[7] - seen[4]).max() > 1e-4


def test_what_is_scored_drops_nothing(tiny_model):
    def score(estimator, X, y):
        first, second = estimator.predict_proba(X), estimator.predict_proba(X)
        return float(np.array_equal(first, second))

    fitted = stopping(tiny_model, scoring=score, lora_dropout=0.5).fit(*toy(64))
    assert set(fitted.history_.score) == {1.0}


def test_a_model_may_keep_tables_from_one_pass_to_the_next(tiny_model, monkeypatch):
    """As code of a model's own does with rotary embeddings: until a text is longer."""
    real = transformers.BertModel.forward

    def with_table(self, *args, **options):
        out = real(self, *args, **options)
        n_tokens = out.last_hidden_state.shape[1]
        if len(vars(self).get("table", ())) < n_tokens:
            self.table = 1 + torch.arange(n_tokens) / 100
        out.last_hidden_state = out.last_hidden_state * self.table[:n_tokens, None]
        return out

    monkeypatch.setattr(transformers.BertModel, "forward", with_table)
    X, y = toy(16)
    longer = ["good " * 30, "bad " * 20]
    fitted = make(tiny_model, early_stopping=True)
    fitted.fit(X, y, X_val=longer, y_val=[1, 0])

    assert len(fitted.history_.score) == fitted.n_iter_ == 2


def test_without_any_score_the_last_state_is_kept(tiny_model):
    params = {"scoring": scores(*[np.nan] * 8), "n_iter_no_change": 2}
    with pytest.warns(UserWarning, match="not a finite number in any epoch") as caught:
        fitted = stopping(tiny_model, **params).fit(*toy(64))

    assert fitted.n_iter_ == fitted.epochs
    assert fitted.history_.best_epoch == fitted.epochs - 1
    assert [warning.filename for warning in caught] == [__file__]


def test_a_scorer_sees_nothing_of_the_fit_before(tiny_model):
    X, y = toy(64)
    estimator = stopping(tiny_model).fit(X, y)
    of_the_data = {"classes_", "n_features_in_", "feature_names_in_"}
    told = {name for name in vars(estimator) if name.endswith("_")} - of_the_data
    told |= {"_adapter"}
    assert {"fit_report_", "history_", "ranks_", "schedule_"} <= told
    seen = []

    def scoring(fitted, X, y):
        seen.append(told & vars(fitted).keys())
        return fitted.score(X, y)

    estimator.set_params(scoring=scoring).fit(X, y)

    assert seen == [set()] * estimator.n_iter_
    assert told <= vars(estimator).keys()


# In half precision rows are padded: what that takes is made when it is first needed,
# here while an epoch is scored, and training goes on with it.
def test_early_stopping_in_half_precision(tiny_model):
    fitted = stopping(
        tiny_model, precision="bfloat16", tinit=2, tfinal=16, n_iter_no_change=9
    ).fit(*toy(64))

    assert len(fitted.history_.score) == 8
    assert sum(fitted.ranks_.values()) == 2 * LAYERS


@pytest.mark.parametrize(("patience", "tfinal"), [(1, 0), (2, 18), (5, 26)])
def test_the_ranks_are_final_whatever_the_epoch_of_the_stop(
    tiny_model, patience, tfinal
):
    fitted = stopping(
        tiny_model,
        scoring=scores(*np.linspace(1, 0, 8)),
        n_iter_no_change=patience,
        tinit=2,
        tfinal=tfinal,
    ).fit(*toy(64))

    assert sum(fitted.ranks_.values()) == 2 * LAYERS
    assert sum(map(sum, fitted.rank_pattern_.values())) == 2 * LAYERS
    assert np.isfinite(fitted.predict_proba(["good film"])).all()


def test_validation_rows_are_set_apart_by_class(tiny_model):
    X, y = shuffle(*topics(60), random_state=0)
    X, y = [*X[:7], *X], [*y[:7], *y]
    counted = np.r_[np.zeros(7), np.ones(60)]
    scored = []

    def scorer(estimator, X, y):
        scored.append((list(X), list(y)))
        return estimator.score(X, y)

    options = {"validation_fraction": 0.2, "batch_size": 8, "scoring": scorer}
    classifier = make(tiny_model, early_stopping=True, **options)
    fitted = classifier.fit(X, y, sample_weight=counted)
    (held, labels), *others = scored

    assert fitted.fit_report_.n_rows == 48
    assert fitted.total_step_ == 2 * 6
    assert sorted(labels) == ["art"] * 4 + ["business"] * 4 + ["sport"] * 4
    assert all(rows == (held, labels) for rows in others)


def test_validation_rows_that_are_passed_are_used(tiny_model):
    X, y = toy(48)
    X_val, y_val = toy(20, seed=9)
    scored = []

    def scorer(estimator, X, y):
        scored.append((X, y))
        return 0.5

    fitted = stopping(tiny_model, scoring=scorer).fit(X, y, X_val=X_val, y_val=y_val)

    assert fitted.fit_report_.n_rows == 48
    assert len(scored) == fitted.n_iter_
    assert all(a is X_val and b is y_val for a, b in scored)


class HeldElsewhere:
    """Rows of which only an array can be made, as of a data set of HDF5."""

    def __init__(self, rows):
        self.rows = np.array(rows)
        self.shape = self.rows.shape

    def __len__(self):
        return len(self.rows)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, dtype)


def test_rows_of_any_array_can_be_set_apart(tiny_model):
    X, y = toy(32)
    plain = make(tiny_model, early_stopping=True, epochs=4).fit(X, y)
    held = make(tiny_model, early_stopping=True, epochs=4)
    held.fit(HeldElsewhere(X), HeldElsewhere(y))

    assert held.history_.score == plain.history_.score


def test_the_seed_chooses_the_rows_that_are_set_apart(tiny_model):
    X, y = toy(32)
    held = []

    def scorer(estimator, X, y):
        held.append(sorted(X))
        return estimator.score(X, y)

    options = {"early_stopping": True, "epochs": 1, "scoring": scorer}
    for seed in (0, 0, 1):
        make(tiny_model, **options, random_state=seed).fit(X, y)

    assert held[0] == held[1] != held[2]


@pytest.mark.parametrize("score", [{"accuracy": 1.0, "f1": 0.5}, None])
def test_a_score_that_is_no_number(tiny_model, score):
    classifier = stopping(tiny_model, scoring=scores(score))

    message = rf"`scoring` must return one number\. Got {re.escape(repr(score))}\. Ret"
    with pytest.raises(TypeError, match=message):
        classifier.fit(*toy(32))
    assert not hasattr(classifier, "history_")


@pytest.mark.parametrize("scoring", [None, "neg_log_loss"])
def test_scores_by_name(tiny_model, scoring):
    X, y = toy(48)
    fitted = make(tiny_model, early_stopping=True, scoring=scoring).fit(
        X, y, X_val=X, y_val=y
    )
    history = fitted.history_
    sign = -1 if scoring == "neg_log_loss" else 1

    assert len(history.score) == 2
    assert all(sign * score >= 0 for score in history.score)
    if scoring is None:
        assert history.score[history.best_epoch] == fitted.score(X, y)


def test_a_score_is_tried_on_outputs_that_are_right(tiny_model):
    """Where nothing is told to be of class 1, "precision" would warn."""
    X, y = toy(48)
    classifier = make(tiny_model, early_stopping=True, scoring="precision")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier.fit(X, y, X_val=X, y_val=y)

    assert classifier.history_.score[-1] > 0.9


@pytest.mark.parametrize(
    ("scoring", "advice"),
    [
        ("roc_auc", r"decision_function, predict_proba\. Choose another score\.$"),
        (
            "f1",
            r"Choose another score, or pass `X_val` and `y_val` on which it works\.$",
        ),
    ],
)
def test_other_rows_are_advised_only_where_they_may_help(tiny_model, scoring, advice):
    regressor = make_regressor(tiny_model, early_stopping=True, scoring=scoring)
    with pytest.raises(ValueError, match=advice):
        regressor.fit(toy(32)[0], np.arange(32) / 3)


def test_dropout_is_drawn_from_the_seed(tiny_model):
    X, y = toy(32)
    first, second, other = (
        numbers(make(tiny_model, lora_dropout=0.5, random_state=s).fit(X, y))
        for s in (0, 0, 1)
    )
    without = numbers(make(tiny_model).fit(X, y))

    assert all(np.array_equal(first[n], second[n]) for n in first)
    assert not np.array_equal(first["head.weight"], other["head.weight"])
    assert not np.array_equal(first["head.weight"], without["head.weight"])


def test_dropout_leaves_the_order_of_the_rows_alone(tiny_model, monkeypatch):
    orders = []
    for dropout in (0.0, 0.5):
        with monkeypatch.context() as patch:
            spy = Spy(patch)
            make(tiny_model, lora_dropout=dropout).fit(*toy(32))
        orders.append([rows.tolist() for rows in spy.batches])

    assert len(orders[0]) == 4
    assert orders[0] == orders[1]

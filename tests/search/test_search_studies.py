"""Going on with a study, with the rows, space and estimator that it began with."""

import datetime
import json
import re
from decimal import Decimal
from functools import partial, wraps
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
import pytest
import torch
import transformers
from _process import run_python
from _search_worker import FLOAT, SPACE, Peak, rows, search, two_scores, values
from _toy import make, topics
from optuna.trial import TrialState
from sklearn import config_context
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
)
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_adalora import AdaLoraClassifier, AdaLoraSpace
from sk_adalora.search import study as _search_study
from sk_adalora.search.digest import digest
from sk_adalora.search.fingerprint import check_same, fingerprint
from sk_adalora.search.space import read_space
from sk_adalora.search.study import FINGERPRINT, open_study

X, Y = rows()


def test_a_study_goes_on_under_its_name(kept):
    first = search(n_trials=4, **kept).fit(X, Y)
    second = search(n_trials=7, **kept).fit(X, Y)

    assert values(second)[:4] == values(first)
    assert len(set(values(second))) == 7
    assert len(second.cv_results_["params"]) == 7
    np.testing.assert_array_equal(
        second.cv_results_["split1_test_score"][:4],
        first.cv_results_["split1_test_score"],
    )


class Seeded(Peak):
    def __init__(self, a=0.5, b=0.5, random_state=None):
        super().__init__(a, b)
        self.random_state = random_state


@pytest.mark.parametrize("kind", [np.random.RandomState, np.random.default_rng])
def test_a_study_goes_on_with_an_equal_random_state_only(kept, kind):
    """Its repr does not tell one state from another."""

    def go_on(seed, n_trials):
        estimator = Seeded(random_state=kind(seed))
        return search(estimator, n_trials=n_trials, **kept).fit(X, Y)

    go_on(0, 1)
    assert len(go_on(0, 2).trials_) == 2
    with pytest.raises(ValueError, match="not searched: random_state"):
        go_on(7, 3)


def test_a_study_does_not_draw_again_what_a_seed_drew_before(kept):
    sampler = optuna.samplers.RandomSampler(seed=0)
    options = {"sampler": sampler, "refit": False, **kept}
    first = search(n_trials=4, **options).fit(X, Y)
    second = search(n_trials=8, **options).fit(X, Y)

    assert values(second)[:4] == values(first)
    assert len(set(values(second))) == 8


def test_the_study_of_a_search_can_be_stopped_in_optunas_own_loop():
    study = search(n_trials=2, refit=False).fit(X, Y).study_
    study.optimize(
        lambda trial: trial.suggest_float("a", 0, 1),
        n_trials=5,
        callbacks=[lambda study, trial: study.stop()],
    )

    assert len(study.trials) == 3


@pytest.mark.parametrize(
    "options",
    [{}, {"pruner": "auto"}, {"scoring": two_scores, "refit": "high"}],
)
def test_a_study_that_is_done_is_read_and_refitted(kept, options):
    first = search(**kept, **options).fit(X, Y)
    before = Peak.fits
    second = search(**kept, **options).fit(X, Y)

    assert Peak.fits == before + 1  # the refit
    assert first.cv_results_.keys() == second.cv_results_.keys()
    for name, column in first.cv_results_.items():
        np.testing.assert_array_equal(column, second.cv_results_[name], err_msg=name)
    assert second.best_params_ == first.best_params_
    assert second.best_score_ == first.best_score_
    assert second.best_estimator_.a == first.best_estimator_.a
    assert second.multimetric_ == first.multimetric_
    assert second.score(X, Y) == first.score(X, Y)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"X": X + 1}, r"the rows \(X, y, weights\)"),
        ({"cv": 4}, "the folds"),
        ({"space": {**SPACE, "a": FLOAT(0, 2)}}, "the space"),
        ({"scoring": "accuracy"}, "`scoring`"),
        ({"estimator": Peak(fail_above=3.0)}, "parameters of the estimator"),
        ({"fit": {"sample_weight": np.ones(len(X))}}, "the rows"),
    ],
)
def test_a_study_does_not_go_on_with_something_else(kept, change, part):
    search(n_trials=2, **kept).fit(X, Y)
    rows_, fit = change.pop("X", X), change.pop("fit", {})

    with pytest.raises(
        ValueError,
        match=f"Got other values of: {part}[^;]*(; a shuffled[^;]*)?Pass the same",
    ):
        search(**{"n_trials": 4, **kept, **change}).fit(rows_, Y, **fit)


def test_a_study_does_not_go_on_with_another_score_to_maximise(kept):
    options = {**kept, "scoring": ["accuracy", "balanced_accuracy"]}
    search(n_trials=2, refit="accuracy", **options).fit(X, Y)

    with pytest.raises(ValueError, match="Got other values of: `scoring`"):
        search(n_trials=4, refit="balanced_accuracy", **options).fit(X, Y)


def change_weights(folder):
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    model.save_pretrained(folder)


@pytest.mark.parametrize("several", [False, True])
def test_a_study_keeps_to_the_weights_of_models_that_the_space_names(
    kept, own_model, tiny_model, several
):
    space = {"model": [own_model], "learning_rate": FLOAT(1e-4, 1e-3)}
    if several:
        space["model"].append(Path(tiny_model))
    for n_trials in (1, 2):
        search(make(tiny_model), space, n_trials=n_trials, **kept).fit(*topics(24))
    (own_model / "notes.txt").write_text("It is read from the other files.")
    search(make(tiny_model), space, n_trials=2, **kept).fit(*topics(24))
    change_weights(own_model)

    match = "values of: the weights of the pretrained model: model"
    with pytest.raises(ValueError, match=match):
        search(make(tiny_model), space, n_trials=3, **kept).fit(*topics(24))


LINEAR = [LogisticRegression(C=1.0), LogisticRegression(C=10.0)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # A step that is set, and not searched.
        ({"clf": LINEAR[0]}, {"clf": LINEAR[1]}),
        ({"clf": LINEAR[:1]}, {"clf": LINEAR[1:]}),
    ],
)
def test_a_study_keeps_to_the_parameters_of_steps_that_the_space_sets(
    kept, first, second
):
    pipeline = Pipeline([("scale", StandardScaler()), ("clf", LogisticRegression())])
    more = {"scale__with_mean": [True, False]}
    search(pipeline, {**first, **more}, n_trials=1, **kept).fit(X, Y)
    search(pipeline, {**first, **more}, n_trials=2, **kept).fit(X, Y)

    with pytest.raises(ValueError, match="Got other values of: the space"):
        search(pipeline, {**second, **more}, n_trials=2, **kept).fit(X, Y)


@pytest.mark.parametrize(("beta1", "same"), [(None, False), ((0.6, 0.98), True)])
def test_beta2_is_compared_where_beta1_is_left_alone(beta1, same):
    """Tied to `beta1`, it has no value of the space's then."""
    space = read_space(AdaLoraSpace(beta1=beta1))
    first, second = (
        fingerprint([X], [], space, None, AdaLoraClassifier(beta2=beta2))
        for beta2 in (0.5, 0.9)
    )
    assert (first == second) is same


def test_steps_in_lists_are_compared_with_their_parameters():
    found = [
        fingerprint([X], [], read_space({"a": [[("l", step)]]}, ""), None, Peak())
        for step in (LINEAR[0], clone(LINEAR[0]), LINEAR[1])
    ]

    assert found[0] == found[1]
    assert found[0]["space"] != found[2]["space"]


@pytest.mark.parametrize("model", [3, "a\0b"])
def test_what_is_no_name_of_a_model_has_no_weights_to_compare(model):
    space = read_space({"beta1": FLOAT}, "")

    assert fingerprint([X], [], space, None, AdaLoraClassifier(model))["models"] == {}


def test_folds_are_the_same_in_integers_of_any_size():
    kept, held = np.arange(20), np.arange(20, 24)
    one, other, another = (
        fingerprint([X], [pair], read_space({**SPACE}, ""), None, Peak())["cv"]
        for pair in (
            (kept, held),
            (kept.astype(np.int32), held.astype(np.int32)),
            (held, kept),
        )
    )

    assert one == other != another


def test_long_choices_are_compared_whole():
    """Their texts, which a study stores, are shortened."""
    long = np.zeros(3000)
    other = long.copy()
    other[1500] = 1.0
    first, second, again = (
        fingerprint([X], [], read_space({"a": [array, 0.5]}, ""), None, Peak())
        for array in (long, other, long.copy())
    )

    assert first["space"] == again["space"] != second["space"]


@pytest.mark.parametrize("routed", [False, True])
def test_no_weights_are_the_same_as_none(kept, routed):
    with config_context(enable_metadata_routing=routed):
        asking = Peak().set_score_request(sample_weight=False) if routed else Peak()
        search(asking, n_trials=1, **kept).fit(X, Y)
        fitted = search(asking, n_trials=2, **kept).fit(X, Y, sample_weight=None)

    assert len(fitted.trials_) == 2


@config_context(enable_metadata_routing=True)
def test_groups_that_a_scorer_asks_for_are_compared(kept):
    def by_group(y, predicted, groups):
        return float(np.mean(groups))

    scorer = make_scorer(by_group).set_score_request(groups=True)
    groups = np.arange(len(X)) % 4
    search(scoring=scorer, n_trials=1, **kept).fit(X, Y, groups=groups)

    with pytest.raises(ValueError, match="Got other values of: the rows"):
        search(scoring=scorer, n_trials=2, **kept).fit(X, Y, groups=100 * groups)


def test_a_folder_whose_name_begins_with_a_tilde(kept, own_model, monkeypatch):
    """It is no home of a user, so it is the folder."""
    monkeypatch.chdir(own_model.parent)
    own_model.rename("~own")
    space = {"learning_rate": FLOAT(1e-4, 1e-3)}
    fitted = search(make("~own"), space, n_trials=1, **kept).fit(*topics(24))

    assert len(fitted.trials_) == 1


def test_weights_in_the_home_directory_are_compared(own_model, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(own_model.parent))
    estimator = make(f"~/{own_model.name}")
    space = read_space({"learning_rate": FLOAT(1e-4, 1e-3)}, "")

    assert [*fingerprint([X], [], space, None, estimator)["models"]] == ["model"]


def test_a_study_keeps_to_the_weights_of_the_pretrained_model(kept, own_model):
    pipeline = Pipeline([("as it is", "passthrough"), ("clf", make(str(own_model)))])
    space = {"clf__learning_rate": FLOAT(1e-4, 1e-3)}
    texts, labels = topics(24)
    for n_trials in (1, 2):
        fitted = search(pipeline, space, n_trials=n_trials, **kept).fit(texts, labels)
        assert len(fitted.trials_) == n_trials
    change_weights(own_model)

    match = "values of: the weights of the pretrained model: clf__model. Pass"
    with pytest.raises(ValueError, match=match):
        search(pipeline, space, n_trials=3, **kept).fit(texts, labels)


def test_parameters_that_differ_are_named(kept, tmp_path):
    search(Peak(fail_above=3.0), n_trials=1, **kept).fit(X, Y)
    other = Peak(fail_above=2.0, log=str(tmp_path / "log"))
    with pytest.raises(ValueError, match=r"not searched: fail_above, log\. Pass"):
        search(other, n_trials=2, **kept).fit(X, Y)

    class Many(Peak):
        def get_params(self, deep=True):
            return {f"p{i}": self.a for i in range(9)}

    space = read_space({**SPACE}, "")
    low, high, peak = (
        fingerprint([X], [], space, len, e) for e in (Many(1), Many(2), Peak())
    )
    with pytest.raises(ValueError, match=r"not searched: p0, .*, p7, \.\.\.\. Pass"):
        check_same(low, high, "s")
    for part, of_part in (("data", "the rows"), ("parameters", "parameters of the")):
        broken = {name: value for name, value in peak.items() if name != part}
        with pytest.raises(ValueError, match=f"Got other values of: {of_part}"):
            check_same(broken, peak, "s")


def test_a_path_and_its_text_are_the_same_model(kept, tmp_path):
    path = tmp_path / "log"
    for n_trials, log in enumerate([path, str(path), path], start=1):
        fitted = search(Peak(log=log), n_trials=n_trials, **kept).fit(X, Y)

    assert len(fitted.trials_) == 3


def test_a_matrix_of_targets_is_the_same_in_other_forms():
    from scipy.sparse import csr_array

    def made(y, X=X):
        return fingerprint([X, y, {}], [], read_space({**SPACE}, ""), len, Peak())

    indicator = np.eye(3, dtype=int)[np.arange(len(X)) % 3]
    first = made(indicator)
    types = [indicator.astype(kind) for kind in (np.int8, np.float64, bool)]
    types.append(indicator.astype(object))
    containers = [indicator.tolist(), pd.DataFrame(indicator), csr_array(indicator)]
    for y in types + containers:
        check_same(first, made(y), "s")
        check_same(made(y), first, "s")
    others = (1 - indicator, indicator.T, indicator[:, 0], [[1], [1, 0]], indicator > 2)
    for other in (*map(made, others), made(indicator, X + 1)):
        with pytest.raises(ValueError, match="Got other values of: the rows"):
            check_same(first, other, "s")


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_missing_cells_are_the_same_whatever_stands_for_them(missing):
    """It depends on the version of pandas."""
    column = pd.Series(["a", missing], dtype=object)
    expected = digest(pd.Series(["a", None], dtype=object))
    assert digest(column) == expected
    assert digest(column.to_frame("x")) == digest(pa.table({"x": ["a", None]}))
    assert digest(np.array(["a", missing], dtype=object)) == expected
    assert digest(["a", missing]) == expected
    assert digest(pd.Series(["a", "None"])) != expected


@pytest.mark.parametrize(
    "hold",
    [tuple, np.array, torch.tensor, pa.array, pd.Series, pd.Index, pd.array],
    ids=lambda hold: f"{hold.__module__}.{hold.__qualname__}",
)
def test_values_are_the_same_data_whatever_holds_them(hold):
    values = [1.0, 2.5] * 12
    held = hold(values)
    first = digest(held)
    np.asarray(held)  # some keep what they compute in themselves

    assert first == digest(held) == digest(hold(values)) == digest(values)
    assert first != digest(hold([2.5, 1.0] * 12))


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.ones(2, np.longdouble),
        lambda: np.longdouble(3),
        lambda: torch.eye(3, dtype=torch.bfloat16),
        lambda: np.zeros((2, 2), dtype=[("a", object)]),
    ],
)
def test_values_that_python_has_no_numbers_for_are_hashed(make):
    assert digest(make()) == digest(make()) != digest([0.0])
    assert digest(torch.eye(3).to_sparse())


def test_a_table_in_a_tensor_is_hashed_as_an_array():
    table = torch.rand(3, 4)

    assert digest(table) == digest(table.numpy()) != digest(table.tolist())


def plus(number):
    return lambda estimator, X, y: estimator.score(X, y) + number


def one(estimator, X, y):
    return estimator.score(X, y)


def one_edited(estimator, X, y):
    return 1 - estimator.score(X, y)


one_edited.__qualname__ = "one"


def partly(a, estimator, X, y):
    return a


def keyword(number):
    def score(estimator, X, y, *, more=number):
        return estimator.score(X, y) + more

    return score


@pytest.mark.parametrize(
    ("option", "first", "second"),
    [
        ("scoring", one, one_edited),
        ("scoring", plus(1), plus(2)),
        ("scoring", keyword(1), keyword(2)),
        ("scoring", partial(partly, 1), partial(partly, 2)),
        ("scoring", {"x": one}, {"x": one_edited}),
        ("scoring", make_scorer(lambda y, p: 1.0), make_scorer(lambda y, p: 2.0)),
        (
            "space",
            lambda t: {"a": t.suggest_float("a", 0, 1)},
            lambda t: {"a": -t.suggest_float("a", 0, 1)},
        ),
    ],
)
def test_a_study_does_not_go_on_with_another_function(kept, option, first, second):
    more = {"refit": False, "n_trials": 1, **kept}
    search(**more, **{option: first}).fit(X, Y)

    search(**{**more, "n_trials": 2}, **{option: first}).fit(X, Y)
    with pytest.raises(ValueError, match=r"Got other values of: .*(space|scoring)"):
        search(**{**more, "n_trials": 3}, **{option: second}).fit(X, Y)


def counting():
    log, n = [], 0

    def score(estimator, X, y):
        nonlocal n
        n += 1
        log.append(n)
        return estimator.score(X, y)

    return score


def filling(estimator, X, y, cache={}):  # noqa: B006
    """Score."""
    cache[len(cache)] = 1
    return estimator.score(X, y)


def documented(estimator, X, y, cache={}):  # noqa: B006
    """Score, as it says here."""
    cache[len(cache)] = 1
    return estimator.score(X, y)


documented.__qualname__ = "filling"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (counting(), None),
        (filling, documented),
        ({"x": one, "y": plus(1)}, {"y": plus(1), "x": one}),
        (mock.Mock(return_value=0.5), None),
    ],
)
def test_a_study_goes_on_with_what_is_the_same(kept, first, second):
    options = {"refit": False, "n_trials": 1, **kept}
    if isinstance(first, dict):
        options["refit"] = "x"
    search(scoring=first, **options).fit(X, Y)
    options["n_trials"] = 2
    fitted = search(scoring=first if second is None else second, **options).fit(X, Y)

    assert len(fitted.trials_) == 2


def test_what_a_wrapper_wraps_is_compared_too(kept):
    def wrap(function):
        @wraps(function)
        def inner(*args):
            return function(*args)

        return inner

    search(scoring=wrap(one), n_trials=1, **kept).fit(X, Y)
    with pytest.raises(ValueError, match="the code of functions"):
        search(scoring=wrap(one_edited), n_trials=2, **kept).fit(X, Y)


def fingerprint_of(scoring):
    return fingerprint([X], [], read_space({**SPACE}, ""), scoring, Peak())


def in_closure(value):
    return lambda estimator, X, y: value


def as_default(value):
    def score(estimator, X, y, held=value):
        return held

    return score


def as_keyword(value):
    def score(estimator, X, y, *, held=value):
        return held

    return score


@pytest.mark.parametrize("hold", [in_closure, as_default, as_keyword])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.float32(1), np.float32(2)),
        (np.int64(1), np.int64(2)),
        (1j, 2j),
        (datetime.timedelta(1), datetime.timedelta(2)),
        (range(3), range(4)),
        (TrialState.FAIL, TrialState.PRUNED),
        (frozenset({1, 2}), frozenset({1, 3})),
        ((1, (2, 3)), (1, (2, 4))),
        (np.mean, np.median),
        (Peak, LogisticRegression),
    ],
)
def test_what_a_function_holds_is_compared(hold, first, second):
    assert fingerprint_of(hold(first)) == fingerprint_of(hold(first))
    assert fingerprint_of(hold(first)) != fingerprint_of(hold(second))


def test_which_parameter_has_a_default_is_compared():
    def score(estimator, X, y, low=None, high=4):
        return low, high

    before = fingerprint_of(score)
    score.__defaults__ = (4, None)

    assert fingerprint_of(score) != before


def test_a_function_that_wraps_a_scorer_is_no_scorer():
    """It has the attributes of one, and code of its own."""
    scorer = make_scorer(one)

    @wraps(scorer)
    def score(estimator, X, y):
        return scorer(estimator, X, y)

    @wraps(scorer)
    def edited(estimator, X, y):
        return -scorer(estimator, X, y)

    edited.__qualname__ = score.__qualname__ = "score"
    assert fingerprint_of(score) != fingerprint_of(edited)


def test_functions_in_the_options_of_a_scorer_are_compared():
    scorers = [make_scorer(one, key=plus(amount)) for amount in (1, 1, 2)]
    first, same, other = map(fingerprint_of, scorers)

    assert first == same != other


@pytest.mark.parametrize("hold", [in_closure, as_default, as_keyword])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([], [1]),
        ({}, {1: 2}),
        (set(), {1}),
        (Peak(), Peak(a=0.1)),
        ((1, []), (1, [1])),
    ],
)
def test_what_a_function_may_change_itself_is_not_compared(hold, first, second):
    assert fingerprint_of(hold(first)) == fingerprint_of(hold(second))


def tries_both(estimator, X, y):
    try:
        estimator.fit(X, y)
        estimator.score(X, y)
    except ValueError:
        pass


def tries_one(estimator, X, y):
    try:
        estimator.fit(X, y)
    except ValueError:
        pass
    else:
        estimator.score(X, y)


tries_one.__qualname__ = "tries_both"


def test_what_is_tried_is_compared():
    """The two have the same byte code."""
    assert fingerprint_of(tries_both) == fingerprint_of(tries_both)
    assert fingerprint_of(tries_both) != fingerprint_of(tries_one)


def test_the_main_module_of_a_spawned_process_is_the_same(monkeypatch):
    made = []
    for module in ("__main__", "__mp_main__", "another"):
        monkeypatch.setattr(one, "__module__", module)
        made.append(fingerprint_of(one))

    assert made[0] == made[1] != made[2]


def test_spaces_that_differ_by_what_is_tied_are_different():
    made = [
        fingerprint([X], [], read_space(AdaLoraSpace(beta2=beta2), ""), len, Peak())
        for beta2 in ("beta1", "beta1", None)
    ]
    assert made[0] == made[1] != made[2]


def test_workers_may_compute_in_different_places_in_a_pipeline_too():
    def made(memory=None, n_jobs=None, **changed):
        same = FeatureUnion([("texts", "passthrough")], n_jobs=n_jobs)
        steps = [("same", same), ("clf", AdaLoraClassifier("model"))]
        pipeline = Pipeline(steps, memory=memory)
        pipeline.set_params(**{f"clf__{name}": changed[name] for name in changed})
        return fingerprint([X], [], read_space({"clf__beta1": FLOAT}), None, pipeline)

    assert made(device="cpu", verbose=1, local_files_only=True) == made()
    assert made(memory="a folder") == made(n_jobs=2) == made()
    assert made(epochs=3) != made()
    assert made(random_state=3) != made()


def test_estimators_in_a_list_are_compared_with_their_parameters():
    """They have no names of their own, unlike the steps of a pipeline."""

    def made(verbose=0, **changed):
        inner = make_pipeline(TfidfVectorizer(**changed), verbose=verbose)
        pipeline = Pipeline([("peak", Peak(log=[("words", inner)]))])
        return fingerprint([X], [], read_space({"peak__a": [0, 1]}), None, pipeline)

    assert made() == made(verbose=1) != made(ngram_range=(1, 2))


def test_what_a_space_sets_is_not_compared_in_the_list_of_steps_either():
    """Even of a step whose name is that of a parameter which is not compared."""
    space = read_space({"memory__a": [0, 1]})
    made = [
        fingerprint([X], [], space, None, Pipeline([("memory", own)]))
        for own in (Peak(a=0.1), Peak(a=0.2), Peak(b=0.2))
    ]
    assert made[0] == made[1] != made[2]


def test_a_long_pattern_is_compared_to_its_end():
    """Its repr shows the first 200 characters."""
    own = [re.compile(f"{'a' * 300}{end}") for end in "bbc"]
    own.append(re.compile(own[0].pattern, re.IGNORECASE))
    first, same, *others = (
        fingerprint([X], [], read_space({}), None, Peak(log=log)) for log in own
    )
    assert first == same
    assert first not in others


def test_a_study_that_goes_on_has_the_pruner_of_the_search():
    storage = optuna.storages.InMemoryStorage()
    for pruner in (optuna.pruners.NopPruner(), optuna.pruners.HyperbandPruner()):
        study = open_study(storage, "name", pruner, [], load_if_exists=True)
        assert study.pruner is pruner


def test_estimators_of_two_classes_do_not_share_a_study():
    class Other(Peak):
        pass

    space = read_space({**SPACE}, "")
    one, other = (fingerprint([X], [], space, len, e) for e in (Peak(), Other()))
    with pytest.raises(ValueError, match=r"of: parameters of the [^;]*\. Pass"):
        check_same(one, other, "s")


def test_anything_may_stand_in_a_function():
    cyclic = {}
    cyclic["itself"] = cyclic
    generator, strip, fake = (i for i in range(3)), str.strip, mock.Mock()

    def score(estimator, X, y):
        return cyclic, generator, strip, fake

    space = read_space({**SPACE}, "")
    peak = Peak(log=str.split)  # as the tokenizer of a TfidfVectorizer may be
    assert fingerprint([X], [], space, score, peak) == fingerprint(
        [X], [], space, score, peak
    )


def test_any_class_and_object_is_described():
    class Meta(type):
        def __getattr__(cls, name):
            return cls

    class Holder(metaclass=Meta):
        pass

    class Pair(NamedTuple):
        a: int = 1

    for value in (Holder, Holder(), Pair(), Pair, TrialState.FAIL, mock.call):
        one, same, other = (
            fingerprint([X], [], read_space({"a": [held]}, ""), held, Peak(log=[held]))
            for held in (value, value, [value])
        )
        assert json.loads(json.dumps(one)) == same != other


def test_code_is_compared_within_a_version_of_python(kept):
    made = fingerprint([X], [], read_space({**SPACE}, ""), one, Peak())
    (code,) = (part for part in made if part.startswith("code"))
    older = {("code, Python 3.10" if n == code else n): v for n, v in made.items()}

    check_same(older, made, "s")
    with pytest.raises(ValueError, match="the code of functions"):
        check_same({**made, code: "0"}, made, "s")


PROGRAM = """
from _search_worker import SPACE, Peak
from numpy import array, float32
from pandas import DataFrame
from sklearn.metrics import fbeta_score, get_scorer, get_scorer_names, make_scorer
from sk_adalora.search.fingerprint import fingerprint
from sk_adalora.search.space import read_space

def own(estimator, X, y):
    return len({"query", "value", "key"}) if y in {"a", "b", "c"} else 0

def holding(*values):
    return lambda estimator, X, y: values

scores = {name: get_scorer(name) for name in get_scorer_names()}
scores["held"] = holding(own, frozenset({own, max, holding}), float32(1))
scores |= {"f": make_scorer(fbeta_score, beta=2, labels={"a", "b", "c"}), "own": own}
space = read_space({**SPACE}, "")
words = frozenset({"a", "b", "c", None, frozenset({"query", "value"})})
frame = DataFrame({"a": [words, {words, "a"}]})
data = [frame, array([words, 1], object), {"more": [words]}]
for log in ({"query", "value", own, holding}, frame):
    print(fingerprint(data, [], space, scores, Peak(log=log)))
"""


def test_a_study_is_described_alike_in_every_process():
    printed = {
        run_python(PROGRAM, PYTHONHASHSEED=seed, PYTHONMALLOC=malloc).stdout
        # Sets of names have another order by the one, sets of functions by the other.
        for seed, malloc in (("0", "pymalloc"), ("4", "malloc"))
    }
    assert len(printed) == 1


def test_lists_are_hashed_by_how_they_nest():
    nested = [[1, 2, 3], [[1, 2, 3]], [1, [2, 3]], [[1], 2, 3], [[1, 2], 3]]

    assert len(set(map(digest, nested))) == len(nested)


def test_sets_are_hashed_by_their_members():
    assert digest([{"a", 1}]) == digest([frozenset([1, "a"])]) != digest([["a", 1]])
    others = [set(), {"a"}, {"a", "b"}, {frozenset("ab")}, {"a", frozenset("b")}]
    assert len({digest(other) for other in others}) == len(others)


def test_times_of_rows_are_hashed_by_what_they_are():
    day = datetime.datetime(2024, 1, 5, 12, tzinfo=datetime.UTC)
    texts = {digest([day]), digest([day.date()]), digest([str(day)])}
    assert len(texts) == 3
    assert digest([day]) == digest([datetime.datetime.fromisoformat(str(day))])


_TIMES = [datetime.date(2024, 1, 5), datetime.time(12)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["text", "a\ud800", b"bytes", None, True, 1, 1.5], "b74a8fee9e07fba8"),
        ([*_TIMES, Decimal("1.50")], "343340574f8a96b6"),
        ([{"a", 1}, frozenset(), {"b": (2,), "a": [1]}], "d9d8f3ff2df0647c"),
        (np.arange(6, dtype=np.int16).reshape(2, 3), "41ccd40cef9ef8e6"),
    ],
)
def test_hashes_are_those_that_studies_have_kept(value, expected):
    """With others, no study of an older version could go on."""
    assert digest(value) == expected


def test_folds_that_differ_each_time_are_told_from_data_that_differ(kept):
    options = {"cv": KFold(3, shuffle=True), **kept}
    search(n_trials=1, **options).fit(X, Y)

    with pytest.raises(ValueError, match="a shuffled `cv` needs a `random_state`"):
        search(n_trials=2, **options).fit(X, Y)


def test_groups_count_by_the_folds_that_they_make(kept):
    options = {"cv": GroupKFold(2), **kept}
    groups = np.arange(len(X)) % 4
    search(n_trials=1, **options).fit(X, Y, groups=groups)

    again = search(n_trials=2, **options).fit(X, Y, groups=[*map(str, groups + 3)])
    assert len(again.trials_) == 2
    with pytest.raises(ValueError, match=r"Got other values of: the folds; [^;]*$"):
        search(n_trials=3, **options).fit(X, Y, groups=np.sort(groups))


def test_a_searched_parameter_of_the_estimator_may_differ(kept):
    search(n_trials=1, **kept).fit(X, Y)

    assert len(search(Peak(a=0.9), n_trials=2, **kept).fit(X, Y).trials_) == 2


def test_trials_without_the_training_scores_that_are_asked_for_have_nan(kept):
    search(n_trials=2, **kept).fit(X, Y)

    late = search(n_trials=3, return_train_score=True, **kept).fit(X, Y)
    has = np.isfinite(late.cv_results_["mean_train_score"])
    assert has.tolist() == [False, False, True]


def test_a_study_may_be_refused(kept):
    search(n_trials=1, **kept).fit(X, Y)

    with pytest.raises(ValueError, match="`study_name` must be new"):
        search(load_if_exists=False, **kept).fit(X, Y)


@pytest.mark.parametrize("queued", [[], [{"a": 0.9}]])
def test_a_study_that_the_user_created_keeps_its_queue(kept, queued):
    study = optuna.create_study(**kept, direction="maximize")
    for point in queued:
        study.enqueue_trial(point)
    point = {"a": 0.1, "b": 0.7}
    fitted = search(n_trials=2, enqueue=point, refit=False, **kept).fit(X, Y)

    assert values(fitted)[: len(queued)] == [point["a"] for point in queued]
    assert point not in [trial.params for trial in fitted.trials_]


def test_a_study_of_something_else_is_refused(kept):
    optuna.create_study(
        storage=kept["storage"], study_name="s", direction="maximize"
    ).optimize(lambda trial: trial.suggest_float("a", 0, 1), n_trials=1)

    with pytest.raises(ValueError, match="one that another program made"):
        search(**kept).fit(X, Y)


def test_a_study_to_which_another_program_added_a_trial_is_refused(kept):
    study = search(n_trials=1, refit=False, **kept).fit(X, Y).study_
    study.add_trial(optuna.trial.create_trial(value=0.9))

    with pytest.raises(ValueError, match=r"were added\. .* choose .* as `enqueue`"):
        search(n_trials=2, **kept).fit(X, Y)


def test_a_study_to_which_trials_of_another_search_were_added_is_refused(kept):
    """They may be of other rows and folds, or of another space."""
    other = search(n_trials=2, cv=4, refit=False).fit(X[:20], Y[:20]).study_
    study = optuna.create_study(**kept, direction="maximize")
    study.add_trials(other.trials)

    with pytest.raises(ValueError, match=r"were added\. .* choose .* as `enqueue`"):
        search(**kept).fit(X, Y)
    assert FINGERPRINT not in study.user_attrs


def test_what_a_worker_beside_it_has_just_evaluated_is_no_reason_to_refuse():
    storage = optuna.storages.InMemoryStorage()
    options = {"storage": storage, "study_name": "s", "refit": False}
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    beside = []

    class Late(optuna.Study):
        def get_trials(self, *args, **kwargs):
            trials = super().get_trials(*args, **kwargs)
            if not beside:
                beside.append(True)
                search(n_trials=2, **options).fit(X, Y)
            return trials

    made_with = search(n_trials=2, refit=False).fit(X, Y).study_.user_attrs
    _search_study.bind(Late("s", storage), made_with[FINGERPRINT])

    assert len(study.trials) == 2


def test_a_study_that_minimises_is_refused(kept):
    optuna.create_study(storage=kept["storage"], study_name="s")

    with pytest.raises(ValueError, match=r"maximize a single value.*\['minimize'\]"):
        search(**kept).fit(X, Y)


@pytest.mark.parametrize(
    "kind", ["list", "array", "series", "frame", "table", "sparse"]
)
def test_the_hash_of_rows_is_of_their_content(kind):
    import polars as pl
    from scipy.sparse import csr_array

    build = {
        "list": list,
        "array": np.array,
        "series": pd.Series,
        "frame": lambda texts: pd.DataFrame({"t": texts}),
        "table": lambda texts: pl.DataFrame({"t": texts}),
        "sparse": lambda texts: csr_array(np.array([[len(t)] for t in texts])),
    }[kind]

    texts, others = ["a", "bcd", ""], ["a", "bc", "d"]
    assert digest(build(texts)) == digest(build(["".join(t) for t in texts]))
    assert digest(build(texts)) != digest(build(others))
    assert digest(build(texts)) != digest(build(texts[::-1]))


@pytest.mark.parametrize("kind", ["frame", "table"])
def test_columns_may_share_a_name(kind):
    """As they may in a grid search, whose pipeline chooses among them."""
    names = ["t", "t"]
    build = {
        "frame": lambda *columns: pd.DataFrame(np.transpose(columns), columns=names),
        "table": lambda *columns: pa.table([*columns], names=names),
    }[kind]
    one, other = ["a", "bcd"], ["ab", "cd"]
    made = digest(build(one, other))

    assert made == digest(build(["".join(t) for t in one], [*other]))
    assert len({made, digest(build(other, one)), digest(build(one, one))}) == 3


def test_a_search_takes_columns_that_share_a_name():
    twice = pd.DataFrame(np.c_[np.arange(len(Y)), Y], columns=["t", "t"])

    assert len(search(n_trials=1).fit(twice, Y).trials_) == 1

"""Studies: going on with them, pickles, pictures, and who works on them."""

import datetime
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from functools import partial, wraps
from pathlib import Path
from unittest import mock

import joblib
import numpy as np
import optuna
import pytest
from _search_worker import FLOAT, SPACE, Peak, rows, search, two_scores, values
from optuna.trial import TrialState
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    KFold,
    cross_val_score,
)
from sklearn.pipeline import Pipeline

from sk_adalora import (
    AdaLoraClassifier,
    AdaLoraSearchCV,
    _search_sampling,
    _search_study,
    _search_workers,
    suggest_params,
)
from sk_adalora._search_sampling import with_estimates

X, Y = rows()


# ---- resuming ------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path):
    """Options of a search that is kept in a file."""
    return {"storage": f"sqlite:///{tmp_path / 'study.db'}", "study_name": "s"}


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


def test_parameters_that_differ_are_named(kept, tmp_path):
    from sk_adalora._search_fingerprint import check_same, fingerprint
    from sk_adalora._space import read_space

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
    del peak["parameters"]  # as older versions left it
    with pytest.raises(ValueError, match=r"not searched\. Pass"):
        check_same(peak, high, "s")


def test_a_path_and_its_text_are_the_same_model(kept, tmp_path):
    path = tmp_path / "log"
    for n_trials, log in enumerate([path, str(path), path], start=1):
        fitted = search(Peak(log=log), n_trials=n_trials, **kept).fit(X, Y)

    assert len(fitted.trials_) == 3


def test_a_matrix_of_targets_is_the_same_in_other_forms():
    import pandas as pd
    from scipy.sparse import csr_array

    from sk_adalora._search_fingerprint import check_same, fingerprint
    from sk_adalora._space import read_space

    def made(y, X=X):
        return fingerprint([X, y, {}], [], read_space({**SPACE}, ""), len, Peak())

    indicator = np.eye(3, dtype=int)[np.arange(len(X)) % 3]
    first = made(indicator)
    types = [indicator.astype(kind) for kind in (np.int8, np.float64, bool)]
    containers = [indicator.tolist(), pd.DataFrame(indicator), csr_array(indicator)]
    for y in types + containers:
        check_same(first, made(y), "s")
        check_same(made(y), first, "s")
    others = (1 - indicator, indicator.T, indicator[:, 0], [[1], [1, 0]], indicator > 2)
    for other in (*map(made, others), made(indicator, X + 1)):
        with pytest.raises(ValueError, match="Got other values of: the rows"):
            check_same(first, other, "s")
    older = {part: first[part] for part in first if part != "values"}
    check_same(older, first, "s")


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
    from sk_adalora._search_fingerprint import fingerprint
    from sk_adalora._space import read_space

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
        ((1, (2, plus(1))), (1, (2, plus(2)))),
        (lambda a: 1, lambda a: 2),
        (plus(1), plus(2)),
        (one, one_edited),
        (np.mean, np.median),
        (Peak, LogisticRegression),
        (partial(round, ndigits=1), partial(round, ndigits=2)),
        (partial(one), partial(one_edited)),
        (make_scorer(one), make_scorer(one_edited)),
        (make_scorer(one), make_scorer(one, greater_is_better=False)),
    ],
)
def test_what_a_function_holds_is_compared(hold, first, second):
    assert fingerprint_of(hold(first)) == fingerprint_of(hold(first))
    assert fingerprint_of(hold(first)) != fingerprint_of(hold(second))


def test_functions_in_the_options_of_a_scorer_are_compared():
    scorers = [make_scorer(one, key=plus(amount)) for amount in (1, 1, 2)]
    first, same, other = map(fingerprint_of, scorers)

    assert first == same != other


def test_the_order_of_functions_in_a_set_does_not_count():
    """It is that of their addresses."""
    found = set()
    for _ in range(20):
        shared = plus(1)
        both = frozenset({in_closure(shared), as_default(shared), as_keyword(shared)})
        found.add(json.dumps(fingerprint_of(in_closure(both)), sort_keys=True))

    assert len(found) == 1


def test_functions_that_share_functions_take_no_time():
    """Each held twice by the next: described anew each time, there would be 2 ** 40."""
    score = one
    for _ in range(40):
        score = in_closure((score, score))

    assert fingerprint_of(score) == fingerprint_of(score)


@pytest.mark.parametrize("hold", [in_closure, as_default, as_keyword])
@pytest.mark.parametrize(
    ("first", "second"), [([], [1]), ({}, {1: 2}), (set(), {1}), (Peak(), Peak(a=0.1))]
)
def test_what_a_function_may_change_itself_is_not_compared(hold, first, second):
    assert fingerprint_of(hold(first)) == fingerprint_of(hold(second))


def test_functions_may_hold_each_other():
    def pair(number):
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - number)

        return even

    assert fingerprint_of(pair(1)) == fingerprint_of(pair(1))
    assert fingerprint_of(pair(1)) != fingerprint_of(pair(2))


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
    from sk_adalora import AdaLoraSpace
    from sk_adalora._search_fingerprint import fingerprint
    from sk_adalora._space import read_space

    made = [
        fingerprint([X], [], read_space(AdaLoraSpace(beta2=beta2), ""), len, Peak())
        for beta2 in ("beta1", "beta1", None)
    ]
    assert made[0] == made[1] != made[2]


def test_workers_may_compute_in_different_places_in_a_pipeline_too():
    from sk_adalora._search_fingerprint import fingerprint
    from sk_adalora._space import read_space

    def made(**changed):
        pipeline = Pipeline([("clf", AdaLoraClassifier("model"))])
        pipeline.set_params(**{f"clf__{name}": changed[name] for name in changed})
        return fingerprint([X], [], read_space({"clf__beta1": FLOAT}), None, pipeline)

    assert made(device="cpu", verbose=1, local_files_only=True) == made()
    assert made(epochs=3) != made()
    assert made(random_state=3) != made()


def test_a_study_that_goes_on_has_the_pruner_of_the_search():
    from sk_adalora._search_study import open_study

    storage = optuna.storages.InMemoryStorage()
    for pruner in (optuna.pruners.NopPruner(), optuna.pruners.HyperbandPruner()):
        study, _ = open_study(storage, "name", pruner, load_if_exists=True)
        assert study.pruner is pruner


def test_the_number_of_folds_is_that_of_all_after_a_race():
    """In which folds are evaluated one at a time."""
    fitted = search(n_trials=3, cv=4, pruner="auto").fit(X, Y)

    assert fitted.n_splits_ == 4


def test_estimators_of_two_classes_do_not_share_a_study():
    from sk_adalora._search_fingerprint import fingerprint
    from sk_adalora._space import read_space

    class Other(Peak):
        pass

    space = read_space({**SPACE}, "")
    one, other = (fingerprint([X], [], space, len, e) for e in (Peak(), Other()))
    differing = {name for name in one if one[name] != other[name]}
    assert differing == {"estimator", "parameters"}


def test_anything_may_stand_in_a_function():
    from sk_adalora._search_fingerprint import fingerprint
    from sk_adalora._space import read_space

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


def test_code_is_compared_within_a_version_of_python(kept):
    from sk_adalora._search_fingerprint import check_same, fingerprint
    from sk_adalora._space import read_space

    made = fingerprint([X], [], read_space({**SPACE}, ""), one, Peak())
    (code,) = (part for part in made if part.startswith("code"))
    older = {("code, Python 3.10" if n == code else n): v for n, v in made.items()}

    check_same(older, made, "s")
    with pytest.raises(ValueError, match="the code of functions"):
        check_same({**made, code: "0"}, made, "s")


PROGRAM = """
from _search_worker import SPACE, Peak
from numpy import float32
from sklearn.metrics import fbeta_score, get_scorer, get_scorer_names, make_scorer
from sk_adalora._search_fingerprint import fingerprint
from sk_adalora._space import read_space

def own(estimator, X, y):
    return len({"query", "value", "key"}) if y in {"a", "b", "c"} else 0

def holding(*values):
    return lambda estimator, X, y: values

scores = {name: get_scorer(name) for name in get_scorer_names()}
scores["held"] = holding(own, frozenset({own, max, holding}), float32(1))
scores |= {"f": make_scorer(fbeta_score, beta=2, labels={"a", "b", "c"}), "own": own}
space = read_space({**SPACE}, "")
print(fingerprint([1], [], space, scores, Peak(log={"query", "value", own, holding})))
"""


def test_a_study_is_described_alike_in_every_process():
    printed = {
        subprocess.check_output(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent,
        )
        for seed in ("1", "2", "4")
    }
    assert len(printed) == 1


def test_times_of_rows_are_hashed_by_what_they_are():
    from sk_adalora._search_fingerprint import digest

    day = datetime.datetime(2024, 1, 5, 12, tzinfo=datetime.UTC)
    texts = {digest([day]), digest([day.date()]), digest([str(day)])}
    assert len(texts) == 3
    assert digest([day]) == digest([datetime.datetime.fromisoformat(str(day))])


def test_folds_that_differ_each_time_are_told_from_data_that_differ(kept):
    options = {"cv": KFold(3, shuffle=True), **kept}
    search(n_trials=1, **options).fit(X, Y)

    with pytest.raises(ValueError, match="a shuffled `cv` needs a `random_state`"):
        search(n_trials=2, **options).fit(X, Y)


def test_a_searched_parameter_of_the_estimator_may_differ(kept):
    search(n_trials=1, **kept).fit(X, Y)

    assert len(search(Peak(a=0.9), n_trials=2, **kept).fit(X, Y).trials_) == 2


def test_trials_without_the_training_scores_that_are_asked_for_are_told(kept):
    search(n_trials=2, **kept).fit(X, Y)

    late = search(n_trials=3, return_train_score=True, **kept)
    with pytest.warns(UserWarning, match=r"Got 2 of 3 trials.*Choose another `study"):
        late.fit(X, Y)
    has = np.isfinite(late.cv_results_["mean_train_score"])
    assert has.tolist() == [False, False, True]


def test_a_study_with_training_scores_goes_on_without_a_warning(kept):
    for n_trials in (2, 3):
        fitted = search(n_trials=n_trials, return_train_score=True, **kept).fit(X, Y)
    assert np.isfinite(fitted.cv_results_["mean_train_score"]).all()


def test_a_study_may_be_refused(kept):
    search(n_trials=1, **kept).fit(X, Y)

    with pytest.raises(ValueError, match="`study_name` must be new"):
        search(load_if_exists=False, **kept).fit(X, Y)


FIRST_TWO = [{"a": 0.1, "b": 0.7}, {"a": 0.2, "b": 0.7}]


@pytest.mark.parametrize("n_queued", [0, 1, 2])
def test_what_a_process_that_died_at_once_did_not_queue_is_queued(kept, n_queued):
    """After it had created the study, and before it tied the study to anything."""
    study = optuna.create_study(**kept, direction="maximize")
    _search_study.queue(study, FIRST_TWO[:n_queued])
    fitted = search(n_trials=3, enqueue=FIRST_TWO, refit=False, **kept).fit(X, Y)

    assert [trial.params for trial in fitted.trials_[:2]] == FIRST_TWO
    assert len(fitted.trials_) == 3
    later = search(n_trials=4, enqueue=FIRST_TWO, refit=False, **kept).fit(X, Y)
    assert values(later)[:3] == values(fitted)
    assert later.trials_[3].params not in FIRST_TWO


def test_workers_that_queue_the_same_at_once_try_it_once(kept, monkeypatch):
    study = optuna.create_study(**kept, direction="maximize")
    with monkeypatch.context() as unseen:
        unseen.setattr(optuna.Study, "get_trials", lambda *args, **kwargs: [])
        for _ in range(2):
            _search_study.queue(study, FIRST_TWO)
    fitted = search(n_trials=3, enqueue=FIRST_TWO, refit=False, **kept).fit(X, Y)

    assert fitted.cv_results_["params"][:2] == FIRST_TWO
    assert fitted.cv_results_["trial_number"].tolist() == [0, 1, 4]
    assert fitted.cv_results_["params"][2] not in FIRST_TWO


def test_a_study_with_a_queue_of_the_users_keeps_it(kept):
    optuna.create_study(**kept, direction="maximize").enqueue_trial({"a": 0.9})
    fitted = search(n_trials=2, enqueue=FIRST_TWO, refit=False, **kept).fit(X, Y)

    assert values(fitted)[0] == 0.9
    assert fitted.trials_[1].params not in FIRST_TWO


def test_a_study_of_something_else_is_refused(kept):
    optuna.create_study(
        storage=kept["storage"], study_name="s", direction="maximize"
    ).optimize(lambda trial: trial.suggest_float("a", 0, 1), n_trials=1)

    with pytest.raises(ValueError, match="something else has scored"):
        search(**kept).fit(X, Y)


def test_a_study_to_which_trials_of_another_search_were_added_is_refused(kept):
    """They may be of other rows and folds, or of another space."""
    other = search(n_trials=2, cv=4, refit=False).fit(X[:20], Y[:20]).study_
    study = optuna.create_study(**kept, direction="maximize")
    study.add_trials(other.trials)

    with pytest.raises(ValueError, match=r"added to it\. Choose .* as `enqueue`"):
        search(**kept).fit(X, Y)
    assert _search_study.FINGERPRINT not in study.user_attrs


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
    _search_study.bind(Late("s", storage), made_with[_search_study.FINGERPRINT])

    assert len(study.trials) == 2


def test_a_study_that_minimises_is_refused(kept):
    optuna.create_study(storage=kept["storage"], study_name="s")

    with pytest.raises(ValueError, match=r"of which more is better.*\['minimize'\]"):
        search(**kept).fit(X, Y)


@pytest.mark.parametrize(
    "kind", ["list", "array", "series", "frame", "table", "sparse"]
)
def test_the_hash_of_rows_is_of_their_content(kind):
    import pandas as pd
    import polars as pl
    from scipy.sparse import csr_array

    from sk_adalora._search_fingerprint import digest

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
    import pandas as pd
    import pyarrow as pa

    from sk_adalora._search_fingerprint import digest

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
    import pandas as pd

    twice = pd.DataFrame(np.c_[np.arange(len(Y)), Y], columns=["t", "t"])

    assert len(search(n_trials=1).fit(twice, Y).trials_) == 1


# ---- pickles -------------------------------------------------------------------


def test_a_pickle_holds_the_study_and_no_storage(tmp_path):
    folder = tmp_path / "hush-hush"
    folder.mkdir()
    options = {"storage": f"sqlite:///{folder / 'study.db'}", "study_name": "s"}
    fitted = search(**options).fit(X, Y)

    pickled = pickle.dumps(fitted)
    loaded = pickle.loads(pickled)

    assert b"hush-hush" not in pickled
    assert any(
        name.startswith(_search_workers.WORKER) for name in fitted.study_.user_attrs
    )
    assert _search_workers.WORKER.encode() not in pickled
    assert len(pickled) < 50_000
    assert loaded.storage is None
    assert loaded.study_.best_value == fitted.study_.best_value
    assert loaded.study_.study_name == "s"
    assert [t.number for t in loaded.study_.trials] == list(range(6))
    assert loaded.predict(X).tolist() == fitted.predict(X).tolist()
    assert fitted.storage == options["storage"]


def test_a_storage_object_is_not_pickled_either(tmp_path):
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'hush-hush.db'}")
    fitted = search(storage=storage, n_trials=2).fit(X, Y)

    assert b"hush-hush" not in pickle.dumps(fitted)


def test_an_unfitted_search_keeps_its_storage_for_workers():
    given = search(storage="sqlite:///some.db")

    assert pickle.loads(pickle.dumps(given)).storage == "sqlite:///some.db"


def test_an_unpickled_search_can_be_saved_again(tmp_path):
    fitted = search(n_trials=2).fit(X, Y)
    joblib.dump(fitted, tmp_path / "a.joblib")
    joblib.dump(joblib.load(tmp_path / "a.joblib"), tmp_path / "b.joblib")

    assert joblib.load(tmp_path / "b.joblib").study_.best_params == fitted.best_params_


# ---- from a study --------------------------------------------------------------


def test_the_best_trial_of_workers_is_refitted_by_name(kept):
    worker = search(refit=False, **kept).fit(X, Y)
    before = Peak.fits

    fitted = AdaLoraSearchCV.from_study(
        "s", Peak(), X, Y, space=SPACE, storage=kept["storage"], cv=3
    )

    assert Peak.fits == before + 1
    assert fitted.best_params_ == worker.best_params_
    assert fitted.best_estimator_.a == worker.best_params_["a"]
    np.testing.assert_array_equal(
        fitted.cv_results_["split2_test_score"],
        worker.cv_results_["split2_test_score"],
    )


def test_a_study_of_an_objective_of_ones_own_is_refitted():
    def objective(trial):
        params = suggest_params(trial, SPACE)
        return cross_val_score(Peak(**params), X, Y, cv=3).mean()

    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=5)

    fitted = AdaLoraSearchCV.from_study(study, Peak(), X, Y, space=SPACE)

    assert fitted.best_params_ == study.best_params
    assert fitted.best_score_ == study.best_value
    assert fitted.cv_results_["rank_test_score"][study.best_trial.number] == 1
    assert fitted.best_estimator_.a == study.best_params["a"]


def test_trials_of_an_objective_of_ones_own_that_did_not_complete():
    def objective(trial):
        params = suggest_params(trial, SPACE)
        for epoch in range(8):
            trial.report(params["a"], epoch)
        if trial.number == 1:
            raise optuna.TrialPruned
        return float("nan") if trial.number == 2 else params["a"]

    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=4)
    with pytest.warns(FitFailedWarning, match=r"1 of 4 trials failed .* out\.$"):
        read = AdaLoraSearchCV.from_study(study, Peak(), X, Y, space=SPACE, cv=3)
    table = read.cv_results_

    assert table["state"].tolist() == ["complete", "pruned", "failed", "complete"]
    assert table["pruned_at_fold"].tolist() == [-1] * 4  # epoch 7 is no fold
    assert table["param_a"].tolist() == values(read)
    assert np.isnan(table["mean_test_score"]).tolist() == [False, True, True, False]
    assert read.best_params_ == study.best_params


def test_workers_of_several_scores_leave_the_refit_to_another(kept):
    scores = {"scoring": ["accuracy", "f1"], "n_trials": 2}
    search(refit=False, **scores, **kept).fit(X, Y)
    fitted = AdaLoraSearchCV.from_study(
        "s",
        Peak(),
        X,
        Y,
        space={**SPACE},
        storage=kept["storage"],
        cv=3,
        scoring=["accuracy", "f1"],
        refit="accuracy",
    )
    assert fitted.best_score_ == fitted.cv_results_["mean_test_accuracy"].max()
    with pytest.raises(ValueError, match="or the metric that `refit` names"):
        search(refit="f1", **scores, **kept).fit(X, Y)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scoring": ["accuracy", "f1"], "refit": "f1"},
        {"refit": False},
        {"scoring": ["accuracy", "f1"], "refit": False},
        {"refit": lambda table: 0},
    ],
)
def test_a_study_that_is_read_ends_as_scikit_learn_ends_a_fit(options):
    """`_take_over` does by hand what `BaseSearchCV.fit` does."""
    fitted = search(n_trials=3, **options).fit(X, Y)
    read = AdaLoraSearchCV.from_study(
        fitted.study_, Peak(), X, Y, space={**SPACE}, cv=3, **options
    )

    assert vars(read).keys() == vars(fitted).keys()
    for name in ("best_index_", "best_score_", "best_params_", "multimetric_"):
        assert getattr(read, name, None) == getattr(fitted, name, None), name
    assert type(read.scorer_) is type(fitted.scorer_)
    for name, column in fitted.cv_results_.items():
        np.testing.assert_array_equal(read.cv_results_[name], column, err_msg=name)


def objective_of_one(trial):
    return 1 - (trial.suggest_float("a", 0, 1) - 0.3) ** 2


def test_a_study_is_not_read_by_another_space():
    study = optuna.create_study(direction="maximize")
    study.optimize(objective_of_one, n_trials=1)

    with pytest.raises(ValueError, match=r"searches \['b'\], which trial 0 has no"):
        AdaLoraSearchCV.from_study(study, Peak(), X, Y, space={**SPACE})
    space = {"a": FLOAT(0, 1)}
    scores = {"scoring": ["accuracy", "f1"], "refit": "f1"}
    read = AdaLoraSearchCV.from_study(study, Peak(), X, Y, space=space, **scores)
    assert 0 <= read.score(X, Y) <= 1


def test_a_trial_that_ended_before_it_had_drawn_all_is_read_by_a_function():
    def space(trial):
        return {"a": trial.suggest_float("a", 0, 1), "b": 0.7}

    def objective(trial):
        if trial.suggest_categorical("skip", [True, False]):
            raise optuna.TrialPruned
        return suggest_params(trial, space)["a"]

    study = optuna.create_study(direction="maximize")
    for skip in (True, False):
        study.enqueue_trial({"skip": skip})
    study.optimize(objective, n_trials=2)
    read = AdaLoraSearchCV.from_study(study, Peak(), X, Y, space=space)
    first, second = read.cv_results_["params"]

    assert read.best_params_["a"] == study.best_value
    assert first == {"skip": True}
    assert second == {"a": study.trials[1].params["a"], "b": 0.7}

    def another(trial):
        return {"a": trial.suggest_float("c", 0, 1)}

    with pytest.raises(ValueError, match="'c' is not found"):
        AdaLoraSearchCV.from_study(study, Peak(), X, Y, space=another)


def test_a_study_of_other_data_is_not_refitted(kept):
    search(refit=False, **kept).fit(X, Y)

    with pytest.raises(ValueError, match="Got other values of: the rows"):
        AdaLoraSearchCV.from_study(
            "s", Peak(), X + 1, Y, space=SPACE, storage=kept["storage"], cv=3
        )


def test_an_unknown_study_is_named(kept):
    search(n_trials=1, **kept).fit(X, Y)

    with pytest.raises(ValueError, match=r"Got 't', and the storage has \['s'\]"):
        AdaLoraSearchCV.from_study(
            "t", Peak(), X, Y, space=SPACE, storage=kept["storage"]
        )


def test_a_study_that_minimises_is_not_refitted():
    with pytest.raises(ValueError, match=r"more is better.*\['minimize'\]"):
        AdaLoraSearchCV.from_study(optuna.create_study(), Peak(), X, Y, space=SPACE)


# ---- workers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({}, True),
        ({"ended": True}, False),
        ({"pid": 2**22 + 1}, False),
        ({"started": "1"}, False),
        ({"machine": "elsewhere"}, True),
        ({"machine": "elsewhere", "beat": -601.0}, False),
    ],
)
def test_who_is_alive(change, alive):
    pid = os.getppid()  # of this process, the module knows all runs
    record = {
        "machine": _search_workers.machine(),
        "pid": pid,
        "started": _search_workers._started(pid),
        "beat": 0.0,
        "ended": False,
    } | change
    record["beat"] += time.time()
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(f"{_search_workers.WORKER}r", record)

    assert _search_workers.living_runs(study) == ({"r"} if alive else set())


@pytest.mark.parametrize("name", ["python3", "a ) b", "\u043f" * 9])
def test_when_a_process_of_any_name_began(monkeypatch, tmp_path, name):
    """Linux keeps 15 bytes of a name, which may be half a character at the end."""
    comm = name.encode()[:15]
    (tmp_path / "7").mkdir()
    fields = b"S " + b"0 " * 18 + b"42 0"
    (tmp_path / "7" / "stat").write_bytes(b"7 (%s) %s" % (comm, fields))
    monkeypatch.setattr(_search_workers, "_PROC", tmp_path)

    assert _search_workers._started(7) == "42"


ADDRESS, DRAWN = 0x001122334455, 0x010000000000  # by Python, where no card is found


@pytest.mark.parametrize("signal_tells", [True, False])  # not on Windows
@pytest.mark.parametrize(
    ("node", "exists", "beat", "alive"),
    [
        (ADDRESS, True, 0.0, True),
        (ADDRESS, True, -601.0, False),  # a number that another process has by now
        (ADDRESS, False, 0.0, False),
        (DRAWN, True, 0.0, True),
        (DRAWN, True, -601.0, False),
        (DRAWN, False, 0.0, True),  # may be on another machine of the same name
        (DRAWN, False, -601.0, False),
    ],
)
def test_who_is_alive_without_proc(
    monkeypatch, no_proc, node, exists, beat, alive, signal_tells
):
    monkeypatch.setattr(_search_workers, "_SIGNAL_TELLS", signal_tells)
    monkeypatch.setattr(_search_workers.uuid, "getnode", lambda: node)
    record = {
        "machine": _search_workers.machine(),
        "pid": os.getppid() if exists else 2**22 + 1,
        "started": _search_workers._started(os.getppid()),
        "beat": time.time() + beat,
        "ended": False,
    }
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(f"{_search_workers.WORKER}r", record)

    assert record["started"] is None
    alive = alive or (not signal_tells and beat == 0)
    assert _search_workers.living_runs(study) == ({"r"} if alive else set())


@pytest.fixture
def no_proc(monkeypatch):
    """As on macOS and on Windows."""
    monkeypatch.setattr(_search_workers, "_PROC", Path("nowhere"))
    _search_workers.machine.cache_clear()
    yield
    _search_workers.machine.cache_clear()


@pytest.mark.parametrize(("node", "told"), [(ADDRESS, True), (DRAWN, False)])
def test_two_machines_of_one_name(monkeypatch, no_proc, node, told):
    monkeypatch.setattr(_search_workers.uuid, "getnode", lambda: node)
    one = _search_workers.machine()
    monkeypatch.setattr(_search_workers.uuid, "getnode", lambda: node + 1)
    _search_workers.machine.cache_clear()

    assert (one != _search_workers.machine()) == told


def test_a_point_whose_run_ended_at_once_is_tried_again():
    def space(trial):
        if not given.allowed:
            raise ArithmeticError
        return {"a": trial.suggest_float("a", 0, 1)}

    kept = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}
    given = search(space=space, n_trials=1, enqueue=[{"a": 0.123}], **kept)
    given.allowed = True
    study = optuna.create_study(**kept, direction="maximize")
    study.enqueue_trial({"a": 0.123})
    given.allowed = False
    with pytest.raises(ArithmeticError):
        given.set_params(enqueue=None).fit(X, Y)
    given.allowed = True

    assert given.fit(X, Y).trials_[-1].params == {"a": 0.123}


def test_what_kills_each_process_is_given_up():
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"a": 0.9})
    for deaths in (1, 2, 3):
        trial = study.ask()
        trial.suggest_float("a", 0, 1)
        trial.set_user_attr(_search_workers.RUN, "of a dead process")
        assert not _search_workers.counts(study.trials[-1])
        _search_workers.take_back(study)
        waiting = [t for t in study.trials if t.state is TrialState.WAITING]
        assert [t.user_attrs.get(_search_workers.DEATHS) for t in waiting] == [deaths][
            : deaths < 3
        ]

    last = study.trials[-1]
    assert _search_workers.counts(last)
    assert last.user_attrs[_search_workers.ERROR].startswith("3 processes died while")


def failed(study, point=None, **attributes):
    """Add a trial that a run of ours has failed, and return its number."""
    if point:
        study.enqueue_trial(point)
    trial = study.ask()
    for name, value in {"run": "of a dead process", **attributes}.items():
        trial.set_user_attr(f"sk_adalora:{name}", value)
    study.tell(trial, state=TrialState.FAIL)
    return trial.number


def test_what_a_worker_failed_and_did_not_queue_again_is_queued():
    """It died between the two."""
    study = optuna.create_study(direction="maximize")
    lost = [failed(study, {"a": 0.9}), failed(study, {"a": 0.8}, deaths=1)]
    failed(study, {"a": 0.7}, error="of its own")
    failed(study)  # one too many, which had drawn nothing
    again = failed(study, {"a": 0.6})
    study.enqueue_trial({"a": 0.6}, user_attrs={_search_workers.AGAIN: again})
    n_trials = len(study.trials)
    for _ in range(2):
        _search_workers.take_back(study)
    queued = study.trials[n_trials:]

    assert [t.system_attrs["fixed_params"]["a"] for t in queued] == [0.9, 0.8]
    assert [t.user_attrs[_search_workers.AGAIN] for t in queued] == lost
    deaths = [t.user_attrs.get(_search_workers.DEATHS) for t in queued]
    assert deaths == [None, 1]


def test_what_two_workers_queue_again_at_once_is_tried_once():
    kept = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}
    study = optuna.create_study(**kept, direction="maximize")
    point = {"a": 0.9, "b": 0.7}
    lost = failed(study, point)
    study.set_user_attr(_search_study.FINGERPRINT, {})
    for _ in range(2):
        study.enqueue_trial(point, user_attrs={_search_workers.AGAIN: lost})
    fitted = search(n_trials=2, refit=False, **kept).fit(X, Y)

    assert fitted.cv_results_["trial_number"].tolist() == [1, 3]
    assert fitted.cv_results_["params"][0] == point != fitted.cv_results_["params"][1]
    assert [t.state for t in fitted.trials_].count(TrialState.WAITING) == 0


def test_a_trial_that_was_just_asked_for_is_left_alone():
    """Whoever did has not signed it yet."""
    study = optuna.create_study(direction="maximize")
    study.ask()
    _search_workers.take_back(study)

    assert study.trials[0].state is TrialState.RUNNING


class TerminatedWorkerError(Exception):
    """Named as joblib's."""


def test_only_what_kills_is_given_up():
    class Killer(Peak):
        def fit(self, X, y):
            if self.a == 0.9:
                raise TerminatedWorkerError
            return super().fit(X, y)

    points = [{"a": a, "b": 0.7} for a in (0.1, 0.9, 0.2, 0.3)]
    options = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}
    given = search(
        Killer(), n_trials=4, n_jobs=4, enqueue=points, error_score="raise", **options
    )
    with joblib.parallel_config("threading"):
        for _ in range(3):
            with pytest.raises(TerminatedWorkerError):
                given.fit(X, Y)
        with pytest.warns(FitFailedWarning, match="3 processes died while they"):
            given.fit(X, Y)
    table = given.cv_results_
    complete = table["state"] == "complete"

    assert sorted(table["param_a"][complete]) == [0.1, 0.2, 0.3]
    assert table["param_a"][~complete].tolist() == [0.9]


@pytest.mark.parametrize("order", [(0.1, 0.9), (0.9, 0.1)])
def test_what_may_kill_is_evaluated_alone(order):
    class Killer(Peak):
        def fit(self, X, y):
            if self.a == 0.9:
                raise TerminatedWorkerError
            return super().fit(X, y)

    kept = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}
    study = optuna.create_study(**kept, direction="maximize")
    for a in order:
        deaths = {_search_workers.DEATHS: 1} if a == 0.9 else None
        study.enqueue_trial({"a": a, "b": 0.7}, user_attrs=deaths)
    given = search(Killer(), n_trials=2, n_jobs=2, error_score="raise", **kept)
    with joblib.parallel_config("threading"), pytest.raises(TerminatedWorkerError):
        given.fit(X, Y)
    blamed = [t for t in study.trials if _search_workers.DEATHS in t.user_attrs]

    assert {t.system_attrs["fixed_params"]["a"] for t in blamed} == {0.9}


def test_an_interruption_is_no_death():
    class Stopped(Peak):
        def fit(self, X, y):
            raise KeyboardInterrupt

    kept = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}
    with pytest.raises(KeyboardInterrupt):
        search(Stopped(), n_trials=2, **kept).fit(X, Y)
    *_, again = optuna.load_study(**kept).trials

    assert again.state is TrialState.WAITING
    assert _search_workers.DEATHS not in again.user_attrs


def test_an_error_of_the_storage_is_the_one_to_see(monkeypatch):
    def report(self, value, step):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(optuna.Trial, "report", report)
    with pytest.raises(RuntimeError, match="the disk is full"):
        search(n_trials=1, timeout=2).fit(X, Y)


def test_a_trial_that_was_taken_away_in_the_end_is_not_shown(monkeypatch):
    kept = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}
    report = optuna.Trial.report

    def report_and_steal(self, value, step):
        report(self, value, step)
        if self.number == 0 and step == 2:
            optuna.load_study(**kept).tell(0, state=TrialState.FAIL)

    monkeypatch.setattr(optuna.Trial, "report", report_and_steal)
    shown = []
    callbacks = [lambda study, trial: shown.append(trial.number)]
    fitted = search(n_trials=3, callbacks=callbacks, **kept).fit(X, Y)

    assert shown == fitted.cv_results_["trial_number"].tolist() == [1, 2, 3]


def test_a_trial_that_was_taken_away_is_not_told():
    """As when a machine sleeps for longer than others wait for its heartbeat."""

    class Thief(Peak):
        def fit(self, X, y):
            if not stolen:
                number = len(studies[0].trials) - 1
                studies[0].tell(number, state=TrialState.FAIL)
                stolen.append(number)
            return super().fit(X, y)

    stolen, studies = [], []
    storage = optuna.storages.InMemoryStorage()
    given = search(Thief(), n_trials=3, storage=storage, study_name="s")
    optuna.create_study(storage=storage, study_name="s", direction="maximize")
    studies.append(optuna.load_study(storage=storage, study_name="s"))

    fitted = given.fit(X, Y)

    assert fitted.cv_results_["trial_number"].tolist() == [1, 2, 3]
    assert stolen == [0]


def test_accuracy_is_what_scores_when_asked():
    fitted = search(n_trials=1, scoring="accuracy").fit(X, Y)

    assert fitted.score(X, Y) == accuracy_score(Y, fitted.predict(X))


def test_another_estimator_is_searched_too():
    space = {"C": FLOAT(1e-3, 1e2, log=True)}
    fitted = AdaLoraSearchCV(LogisticRegression(), space, n_trials=3, cv=2).fit(X, Y)

    assert fitted.trials_[0].params == {"C": 1.0}


def test_a_slow_heartbeat_does_not_have_the_last_word(monkeypatch):
    study = optuna.create_study()
    write, under_way = study.set_user_attr, threading.Event()

    def slow(name, record):
        if threading.current_thread() is not threading.main_thread():
            under_way.set()
            time.sleep(0.3)
        write(name, record)

    monkeypatch.setattr(_search_workers, "_BEAT", 0.01)
    monkeypatch.setattr(study, "set_user_attr", slow)
    with _search_workers.Worker(study, beats=True):
        monkeypatch.setattr(_search_workers, "_BEAT", 5.0)  # the wait at the end
        assert under_way.wait(10)
    time.sleep(0.5)

    assert [record["ended"] for record in study.user_attrs.values()] == [True]


def test_the_process_learns_from_pruned_trials(monkeypatch):
    learned = []

    def spy(trials):
        learned.append([t for t in trials if t.state is TrialState.PRUNED])
        return with_estimates(trials)

    monkeypatch.setattr(_search_sampling, "with_estimates", spy)
    search(n_trials=14, pruner="auto", random_state=0).fit(X, Y)

    assert learned  # Optuna asked what has become of the trials
    assert any(learned)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_has_the_trials_with_it(error):
    class Fails(Peak):
        def fit(self, X, y):
            if len(X) == len(Y):  # the refit
                raise error
            return super().fit(X, y)

    with pytest.raises(error) as caught:
        search(Fails(), n_trials=3).fit(X, Y)
    (note,) = caught.value.__notes__
    read = AdaLoraSearchCV.from_study(
        caught.value.study, Fails(), X, Y, space={**SPACE}, cv=3, refit=False
    )

    assert note.startswith("3 complete trials are in `study` of this error")
    assert len(read.trials_) == 3


def test_an_error_before_any_trial_has_no_study():
    with pytest.raises(ValueError, match="`space` must name parameters") as caught:
        search(space={"c": FLOAT(0, 1)}).fit(X, Y)

    assert not hasattr(caught.value, "study")
    assert not hasattr(caught.value, "__notes__")

"""Going on with a study, with the rows, space and estimator that it began with."""

from pathlib import Path

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
from sk_adalora.search.fingerprint import check_same, digest, fingerprint
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


def one(estimator, X, y):
    return estimator.score(X, y)


def one_edited(estimator, X, y):
    return 1 - estimator.score(X, y)


one_edited.__qualname__ = "one"


def filling(estimator, X, y, cache={}):  # noqa: B006
    """Score."""
    cache[len(cache)] = 1
    return estimator.score(X, y)


def documented(estimator, X, y, cache={}):  # noqa: B006
    """Score, as it says here."""
    cache[len(cache)] = 1
    return estimator.score(X, y)


documented.__qualname__ = "filling"


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


def test_workers_may_compute_in_different_places_in_a_pipeline_too():
    def made(memory=None, n_jobs=None, **changed):
        same = FeatureUnion([("texts", "passthrough")], n_jobs=n_jobs)
        steps = [("same", same), ("clf", AdaLoraClassifier("model"))]
        pipeline = Pipeline(steps, memory=memory)
        pipeline.set_params(**{f"clf__{name}": changed[name] for name in changed})
        return fingerprint([X], [], read_space({"clf__beta1": FLOAT}), None, pipeline)

    assert made(device="cpu", verbose=1) == made()
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


def other(estimator, X, y):
    return 1 - estimator.score(X, y)


@pytest.mark.parametrize("wrap", [lambda f: f, make_scorer, lambda f: {"x": f}])
def test_functions_are_compared_by_their_names(wrap):
    found = [
        fingerprint([X], [], read_space({**SPACE}), wrap(f), Peak())["scoring"]
        for f in (one, one, other)
    ]

    assert found[0] == found[1] != found[2]


PROGRAM = """
from _search_worker import SPACE, Peak
from pandas import DataFrame
from sklearn.metrics import fbeta_score, get_scorer, get_scorer_names, make_scorer
from sk_adalora.search.fingerprint import fingerprint
from sk_adalora.search.space import read_space

scores = {name: get_scorer(name) for name in get_scorer_names()}
scores |= {"f": make_scorer(fbeta_score, beta=2, labels={"a", "b", "c"})}
data = [DataFrame({"a": ["x", None]}), ["p", "q"], {"more": [{"a", "b", "c"}]}]
log = frozenset({"a", "b", "c", None, frozenset({"query", "value"})})
print(fingerprint(data, [], read_space({**SPACE}), scores, Peak(log=log)))
"""


def test_a_study_is_described_alike_in_every_process():
    seeds = ("0", "4")  # sets of words have another order by them
    printed = {run_python(PROGRAM, PYTHONHASHSEED=seed).stdout for seed in seeds}

    assert len(printed) == 1


@pytest.mark.parametrize("hold", [tuple, np.array, pd.Series, pa.array, torch.tensor])
def test_values_are_the_same_data_whatever_holds_them(hold):
    values = [1.0, 2.5] * 12

    assert digest(hold(values)) == digest(values) != digest(hold(values[::-1]))

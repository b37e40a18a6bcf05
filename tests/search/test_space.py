"""Spaces: every point is valid, and every kind of search reads them."""

import dataclasses
import json
import pickle
import warnings

import numpy as np
import optuna
import pytest
from _toy import make as make_classifier
from _toy import topics
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.search_space import intersection_search_space
from scipy import stats
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    ParameterGrid,
    ParameterSampler,
    RandomizedSearchCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_adalora import AdaLoraClassifier, AdaLoraSpace, BudgetSchedule, suggest_params
from sk_adalora.estimators.parameters import SHARED_RULES
from sk_adalora.search.dimensions import LogIntegers
from sk_adalora.search.space import read_space
from sk_adalora.training.schedule_steps import resolve_schedule

pytestmark = pytest.mark.usefixtures("quiet_optuna")

N_LAYERS = 7
DEFAULT = {
    "init_r": IntDistribution(4, 32, log=True),
    "target_r": FloatDistribution(0.2, 0.9),
    "tinit": FloatDistribution(0.0, 0.3),
    "tfinal": FloatDistribution(0.1, 0.65),
    "beta1": FloatDistribution(0.6, 0.98),
    "orth_reg_weight": FloatDistribution(0.01, 1.0, log=True),
    "learning_rate": FloatDistribution(0.001, 0.03, log=True),
}


class DrawnTrial:
    """Draws as a study does, the ends often; notes each distribution."""

    def __init__(self, rng, seen):
        self.rng, self.seen = rng, seen

    def _number(self, kind, name, low, high, *, step=None, log=False):
        step = 1 if kind is IntDistribution else step
        distribution = kind(low, high, log=log, step=step)
        assert self.seen.setdefault(name, distribution) == distribution
        if self.rng.random() < 0.2:
            return [low, high][self.rng.integers(2)]
        share = self.rng.random()
        value = low * (high / low) ** share if log else low + share * (high - low)
        return round(value) if kind is IntDistribution else value

    def suggest_int(self, name, low, high, **options):
        return self._number(IntDistribution, name, low, high, **options)

    def suggest_float(self, name, low, high, **options):
        return self._number(FloatDistribution, name, low, high, **options)

    def suggest_categorical(self, name, choices):
        distribution = CategoricalDistribution(choices)
        assert self.seen.setdefault(name, distribution) == distribution
        return choices[self.rng.integers(len(choices))]


def assert_valid(params, rng):
    """Whatever the number of rows: a schedule that ends exactly on its budget."""
    assert [n for n, v in params.items() if not SHARED_RULES[n].accepts(v)] == []
    n_samples = int(np.exp(rng.uniform(0, np.log(1e6))))
    sizes = {
        "epochs": int(rng.integers(1, 21)),
        "batch_size": int(2 ** rng.integers(0, 10)),
    }
    names = ("init_r", "target_r", "tinit", "tfinal", "deltaT", *sizes)
    found = {name: params[name] for name in names if name in params}
    resolved = resolve_schedule(n_samples, **{**sizes, **found})
    config = resolved.config(beta1=params["beta1"], beta2=params["beta2"])
    planned = BudgetSchedule(
        initial=config.init_r * N_LAYERS,
        target=config.target_r * N_LAYERS,
        tinit=config.tinit,
        tfinal=config.tfinal,
        deltaT=config.deltaT,
        total_step=config.total_step,
    )
    last = config.total_step - 1
    assert 1 <= config.target_r <= config.init_r
    assert planned.budget(last) == planned.held_budget(last) == planned.target
    assert planned.held_budget(planned.final_step) == planned.target


def one_of(rng, *makers):
    return makers[rng.integers(len(makers))]()


def random_range(rng, low, high):
    ends = sorted(rng.uniform(low, high, size=2).tolist())
    return (ends[0], max(ends[1], ends[0] + 1e-9))


def random_space(rng):
    """Sub-ranges, choices and fixed values, anything that the space admits."""
    low = int(rng.integers(1, 17))
    room = rng.uniform(0.01, 0.98)
    beta = random_range(rng, 0.01, 0.99)
    return AdaLoraSpace(
        init_r=one_of(
            rng,
            lambda: (low, low + int(rng.integers(1, 49))),
            lambda: [low, low + 3, 2 * low + 7],
            lambda: low,
        ),
        target_r=one_of(
            rng,
            lambda: random_range(rng, 0.001, 0.99),
            lambda: [0.25, 0.5, 1],
            lambda: low,
            lambda: (1, low),
        )
        if low > 1
        else random_range(rng, 0.001, 0.99),
        tinit=one_of(
            rng,
            lambda: (0.0, room),
            lambda: (0, room),
            lambda: [0, room / 2, room],
            lambda: room,
        ),
        tfinal=random_range(rng, 0.0, (1 - room) * 0.999),
        deltaT=one_of(
            rng,
            lambda: None,
            lambda: "auto",
            lambda: (1, 1000),
            lambda: (0.001, 0.5),
            lambda: ["auto", 1, 50, 0.1],
        ),
        beta1=beta,
        beta2=one_of(rng, lambda: "beta1", lambda: beta, lambda: 0.5),
        epochs=one_of(rng, lambda: None, lambda: (1, 8), lambda: [1, 3]),
        batch_size=one_of(rng, lambda: None, lambda: (1, 512), lambda: [8, 32]),
        target_modules=one_of(
            rng, lambda: None, lambda: ["all-linear", ["query", "value"], ["query"]]
        ),
        lora_dropout=one_of(rng, lambda: None, lambda: (0, 0.5)),
        lora_alpha=one_of(rng, lambda: None, lambda: (1, 64), lambda: [None, 16]),
    )


# ---- every point is valid ---------------------------------------------------


def test_ten_thousand_trials_of_random_spaces_are_valid():
    rng = np.random.default_rng(0)
    for _ in range(250):
        space, seen = random_space(rng), {}
        for _ in range(40):
            params = suggest_params(DrawnTrial(rng, seen), space)
            assert_valid(params, rng)
        assert seen == space.distributions()


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_space_has_valid_ends_and_middles(seed):
    rng = np.random.default_rng(seed)
    space, seen = random_space(rng), {}
    params = suggest_params(DrawnTrial(rng, seen), space, fixed={"epochs": 2})

    assert_valid(params, rng)
    assert params["epochs"] == 2
    assert "epochs" not in seen


def test_random_and_grid_are_valid_too():
    rng = np.random.default_rng(0)
    drawn = ParameterSampler(AdaLoraSpace().random(), 300, random_state=0)
    grid = ParameterGrid(AdaLoraSpace(beta1=0.8).grid(n=3))

    assert len(grid) == 729
    for params in [*drawn, *grid]:
        assert_valid(params, rng)


def test_one_distribution_a_name_over_a_study():
    """So a sampler models all of them together."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        suggest_params(trial, prefix="clf__")
        study.tell(trial, 0.0)

    expected = AdaLoraSpace().distributions("clf__")
    assert all(trial.distributions == expected for trial in study.trials)
    assert intersection_search_space(study.trials) == expected


# ---- the three forms --------------------------------------------------------


def test_the_default_space():
    assert AdaLoraSpace().distributions() == DEFAULT
    named = AdaLoraSpace().distributions("clf__")
    assert named == {f"clf__{name}": d for name, d in DEFAULT.items()}
    assert AdaLoraSpace().fixed() == {}


def test_a_tuple_is_a_range_a_list_is_choices_and_the_rest_is_fixed():
    space = AdaLoraSpace(
        init_r=[8, 16],
        target_r=(1, 8),
        tinit=0,
        tfinal=np.float64(0.5),
        deltaT=["auto", 10],
        beta1=None,
        orth_reg_weight=None,
        learning_rate=np.float32(0.5),
        lora_alpha=(1, 8),
        epochs=(2, 4),
        lora_dropout=[0.1],
    )

    assert space.distributions() == {
        "init_r": CategoricalDistribution([8, 16]),
        "target_r": IntDistribution(1, 8),
        "deltaT": CategoricalDistribution(["auto", 10]),
        "lora_alpha": FloatDistribution(1.0, 8.0, log=True),
        "epochs": IntDistribution(2, 4),
    }
    fixed = {"tinit": 0, "tfinal": 0.5, "learning_rate": 0.5, "lora_dropout": 0.1}
    assert space.fixed() == fixed
    assert {type(v) for v in fixed.values()} == {int, float}
    assert space.complete({}) == fixed  # and no beta2: nobody says what beta1 is
    assert space.fixed("a__") == {f"a__{name}": v for name, v in fixed.items()}


def test_what_is_of_another_magnitude_is_on_a_logarithmic_scale():
    ranges = {
        **dict.fromkeys(["init_r", "batch_size", "epochs"], (2, 64)),
        "learning_rate": (1e-4, 1e-2),
        **dict.fromkeys(["orth_reg_weight", "lora_alpha"], (0.1, 10.0)),
        **dict.fromkeys(["lora_dropout", "beta1"], (0.1, 0.9)),
    }
    found = AdaLoraSpace(**ranges).distributions()
    linear = {"epochs", "lora_dropout", "beta1", "target_r"}
    linear |= {"tinit", "tfinal"}

    assert {name for name, d in found.items() if not d.log} == linear
    assert found.keys() == ranges.keys() | linear


def test_beta2_is_tied_to_beta1():
    assert AdaLoraSpace().complete({"beta1": 0.7}) == {"beta1": 0.7, "beta2": 0.7}
    assert AdaLoraSpace(beta1=0.9).complete({}) == {"beta1": 0.9, "beta2": 0.9}
    assert AdaLoraSpace().complete({"a__beta1": 0.7}, "a__")["a__beta2"] == 0.7

    untied = AdaLoraSpace(beta2=(0.5, 0.6))
    assert untied.distributions()["beta2"] == FloatDistribution(0.5, 0.6)
    values = {"beta1": 0.7, "beta2": 0.55}
    assert untied.complete(values) == values


def test_what_is_named_in_full_counts_more_than_the_space_of_its_step():
    given = {"clf__beta2": 0.99, "clf__epochs": 7}
    for space in (
        {"clf": AdaLoraSpace()},
        {**given, "clf": AdaLoraSpace(epochs=[3, 5])},
    ):
        params = suggest_params(optuna.create_study().ask(), space, fixed=given)

        assert params["clf__beta2"] == 0.99 != params["clf__beta1"]
        assert params["clf__epochs"] == 7


MODULES = ["all-linear", ["query", "value"], ["query"]]


def test_lists_are_choices_too_and_a_study_keeps_their_labels(tmp_path):
    space = AdaLoraSpace(target_modules=MODULES)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna's, about choices that are no JSON
        study = optuna.create_study(
            study_name="s",
            storage=storage,
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        given = []
        for value in range(12):
            trial = study.ask()
            given.append(suggest_params(trial, space)["target_modules"])
            study.tell(trial, value)
    loaded = optuna.load_study(study_name="s", storage=storage)

    assert {json.dumps(modules) for modules in given} == set(map(json.dumps, MODULES))
    read = [space.complete(t.params)["target_modules"] for t in loaded.trials]
    assert read == given
    assert [suggest_params(t, space)["target_modules"] for t in loaded.trials] == given


@pytest.mark.parametrize("value", [("a",), (), [("a", 1)], {"a": ("b",)}])
def test_a_study_keeps_the_repr_of_a_choice(value):
    (distribution,) = read_space({"a": [value, None]}).distributions().values()

    assert distribution.choices == (repr(value), None)


def test_a_space_can_be_pickled_and_compared():
    space = AdaLoraSpace(target_modules=MODULES)

    assert pickle.loads(pickle.dumps(space)) == space
    assert dataclasses.replace(space, init_r=8) != space
    with pytest.raises(dataclasses.FrozenInstanceError):
        space.init_r = 3
    with pytest.raises(TypeError, match="learning_rat"):
        AdaLoraSpace(learning_rat=0.1)


def test_the_fields_are_parameters_of_the_estimator():
    names = {field.name for field in dataclasses.fields(AdaLoraSpace)}

    assert names <= AdaLoraClassifier().get_params().keys()


# ---- scikit-learn's searches ------------------------------------------------


def test_a_random_search_draws_from_the_whole_space():
    space = AdaLoraSpace(target_modules=MODULES, epochs=(1, 3), deltaT="auto")
    random = space.random("clf__")
    drawn = [*ParameterSampler(random, 400, random_state=0)]

    assert random["clf__deltaT"] == ["auto"]
    assert {p["clf__epochs"] for p in drawn} == {1, 2, 3}
    assert {str(p["clf__target_modules"]) for p in drawn} == set(map(str, MODULES))
    ranks = [p["clf__init_r"] for p in drawn]
    assert (min(ranks), max(ranks)) == (4, 32)
    rates = [p["clf__learning_rate"] for p in drawn]
    assert 0.4 < np.mean(np.array(rates) < np.sqrt(1e-3 * 3e-2)) < 0.6
    betas = np.array([[p["clf__beta1"], p["clf__beta2"]] for p in drawn])
    assert betas.min() >= 0.6
    assert betas.max() <= 0.98
    assert abs(np.corrcoef(betas.T)[0, 1]) < 0.2  # it knows no ties


def test_integers_are_even_on_a_logarithmic_scale():
    drawn = LogIntegers(1, 8).rvs(20_000, random_state=0)
    expected = np.diff(np.log(np.arange(0.5, 9))) / np.log(17)

    assert stats.chisquare(np.bincount(drawn)[1:], expected * 20_000).pvalue > 1e-3
    one = LogIntegers(2, 2000).rvs(random_state=np.random.default_rng(0))
    assert type(one) is int
    assert one == LogIntegers(2, 2000).rvs(random_state=np.random.default_rng(0))


def test_a_grid_holds_n_values_of_each_range():
    space = AdaLoraSpace(
        target_r=[0.25, 0.5],
        tinit=0.1,
        tfinal=None,
        beta1=0.9,
        orth_reg_weight=None,
        epochs=(1, 2),
        target_modules=MODULES,
    )

    assert space.grid("a__", n=4) == {
        "a__init_r": [4, 8, 16, 32],
        "a__target_r": [0.25, 0.5],
        "a__tinit": [0.1],
        "a__beta1": [0.9],
        "a__beta2": [0.9],
        "a__learning_rate": pytest.approx(
            [0.001, 0.0031072, 0.0096549, 0.03], rel=1e-4
        ),
        "a__epochs": [1, 2],
        "a__target_modules": MODULES,
    }
    assert "beta2" not in AdaLoraSpace().grid()
    assert AdaLoraSpace().grid(n=2)["tfinal"] == [0.1, 0.65]
    with pytest.raises(ValueError, match=r"`n` must be at least 2.*Got 1"):
        space.grid(n=1)


def same(X):
    return X


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    classifier = make_classifier(tiny_model, epochs=1)
    return make_pipeline(FunctionTransformer(same), classifier)


SMALL = AdaLoraSpace(
    init_r=[2, 4],
    target_r=0.5,
    tinit=(0.0, 0.3),
    tfinal=0.5,
    beta1=None,
    orth_reg_weight=None,
    learning_rate=None,
    target_modules=["all-linear", ["query", "value"]],
)
PREFIX = "adaloraclassifier__"
X, Y = topics(36)


@pytest.mark.parametrize(
    ("make", "candidates"),
    [
        (lambda e: GridSearchCV(e, SMALL.grid(PREFIX, n=2), cv=2), 8),
        (
            lambda e: RandomizedSearchCV(
                e, SMALL.random(PREFIX), n_iter=4, cv=2, random_state=0
            ),
            4,
        ),
        (lambda e: HalvingGridSearchCV(e, SMALL.grid(PREFIX, n=2), cv=2), 8 + 3),
        (
            lambda e: HalvingRandomSearchCV(
                e, SMALL.random(PREFIX), n_candidates=3, cv=2, random_state=0
            ),
            3 + 1,
        ),
    ],
)
def test_searches_of_scikit_learn(pipeline, make, candidates):
    search = make(pipeline).set_params(error_score="raise", refit=False).fit(X, Y)
    found = search.cv_results_

    assert len(found["params"]) == candidates
    assert np.isfinite(found["mean_test_score"]).all()
    modules = {str(p[f"{PREFIX}target_modules"]) for p in found["params"]}
    assert modules <= {"all-linear", "['query', 'value']"}


# ---- spaces of other kinds --------------------------------------------------


def test_a_dict_of_anything():
    space = {
        "clf": AdaLoraSpace(init_r=8, target_modules=MODULES),
        "tfidf__ngram_range": [(1, 1), (1, 2)],
        "tfidf__min_df": (1, 5),
        "tfidf__max_df": (0.5, 1),
        "tfidf__norm": "l2",
        "tfidf__lowercase": [None],
        "svc__C": FloatDistribution(0.1, 10, log=True),
    }
    read = read_space(space, prefix="clf__")
    own = {n: d for n, d in read.distributions().items() if not n.startswith("clf__")}

    assert own == {
        "tfidf__ngram_range": CategoricalDistribution(["(1, 1)", "(1, 2)"]),
        "tfidf__min_df": IntDistribution(1, 5),
        "tfidf__max_df": FloatDistribution(0.5, 1.0),
        "svc__C": FloatDistribution(0.1, 10, log=True),
    }
    assert "clf__init_r" not in read.distributions()
    params = read.complete({"tfidf__ngram_range": "(1, 2)", "clf__beta1": 0.7})
    assert params["tfidf__ngram_range"] == (1, 2)
    assert params["clf__beta2"] == 0.7
    assert params["clf__init_r"] == 8
    assert params["tfidf__norm"] == "l2"
    assert params["tfidf__lowercase"] is None


@pytest.mark.parametrize(
    ("given", "choices"),
    [
        (np.array([16, 32]), [16, 32]),
        (np.array([0.001, 0.01, 0.1]), [0.001, 0.01, 0.1]),
        (np.array(["l1", "l2"]), ["l1", "l2"]),
        (np.array([None, 2], dtype=object), [None, 2]),
        (range(2, 9, 3), [2, 5, 8]),
    ],
)
def test_arrays_and_ranges_are_choices_of_plain_values(given, choices):
    read = read_space({"a": given})

    assert read.distributions() == {"a": CategoricalDistribution(choices)}
    assert [type(v) for v in read.parts["a"].values] == [type(v) for v in choices]
    assert read_space({"a": given[:1]}).fixed() == {"a": choices[0]}
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    assert suggest_params(trial, {"a": given})["a"] in choices


def test_arrays_and_ranges_are_choices_of_a_field_too():
    space = AdaLoraSpace(init_r=range(8, 10), beta1=np.array([0.5, 0.75]))

    assert space.distributions()["init_r"] == CategoricalDistribution([8, 9])
    assert space.grid()["beta1"] == space.random()["beta1"] == [0.5, 0.75]


@pytest.mark.parametrize("order", [1, -1])
def test_a_full_name_takes_precedence_over_a_space_and_a_tie(order):
    items = [("clf", AdaLoraSpace()), ("clf__beta1", 0.9), ("clf__beta2", 0.5)]
    read = read_space(dict(items[::order]))
    params = read.suggest(optuna.create_study().ask())

    assert (params["clf__beta1"], params["clf__beta2"]) == (0.9, 0.5)


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        ([{"b": 3}, {}], "Got 3 and then nothing for 'b'"),
        ([{}, {"b": 3}], "Got nothing and then 3 for 'b'"),
        ([{"b": None}, {}], "Got None and then nothing for 'b'"),
        ([{"b": None}, {"b": 3}], "Got None and then 3 for 'b'"),
    ],
)
def test_a_function_that_returns_more_or_less_again_is_refused(returned, match):
    left = [*returned]

    def space(trial):
        return {"a": trial.suggest_float("a", 0, 1), **left.pop(0)}

    with pytest.raises(ValueError, match=match):
        suggest_params(optuna.create_study().ask(), space)


def ask(trial):
    width = trial.suggest_int("width", 1, 4)
    return {"clf__init_r": 2 * width, "clf__target_r": width}


def test_a_callable_space():
    read = read_space(ask)
    trial = optuna.create_study().ask()
    params = read.suggest(trial)

    assert read.distributions() == {}
    assert params == {
        "clf__init_r": 2 * trial.params["width"],
        "clf__target_r": trial.params["width"],
    }
    assert read.complete(trial.params) == params
    with pytest.raises(TypeError, match=r"must return a dict.*Got None"):
        suggest_params(trial, lambda trial: None)


@pytest.mark.parametrize("space", [None, AdaLoraSpace(), {"a": (1, 5)}, ask])
def test_what_a_trial_held_gives_the_same_parameters_again(space):
    study = optuna.create_study()
    trial = study.ask()
    params = suggest_params(trial, space, fixed={"lora_dropout": 0.5})
    study.tell(trial, 1.0)
    again = suggest_params(study.best_trial, space, fixed={"lora_dropout": 0.5})

    assert params == again
    assert params["lora_dropout"] == 0.5


def test_fixed_values_are_named_as_in_the_space():
    trial = optuna.create_study().ask()
    fixed = {"epochs": 7, "max_length": 64, "target_modules": ["query"], "beta1": 0.5}
    params = suggest_params(trial, prefix="clf__", fixed=fixed)

    assert params["clf__epochs"] == 7
    assert params["clf__max_length"] == 64
    assert params["clf__target_modules"] == ["query"]
    assert params["clf__beta1"] == params["clf__beta2"] == 0.5
    assert "clf__beta1" not in trial.params
    with_dict = suggest_params(trial, {"a": (1, 5), "b": (1, 5)}, fixed={"a": 9})
    assert with_dict == {"a": 9, "b": trial.params["b"]}
    assert "a" not in trial.params
    called = suggest_params(trial, lambda trial: {"a": 1, "b": 2}, fixed={"a": 9})
    assert called == {"a": 9, "b": 2}
    with pytest.raises(ValueError, match="`tinit` of AdaLoraSpace must be"):
        suggest_params(trial, fixed={"tinit": -1})


# ---- errors -----------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda prefix: AdaLoraSpace().distributions(prefix),
        lambda prefix: AdaLoraSpace().fixed(prefix),
        lambda prefix: AdaLoraSpace().complete({}, prefix),
        lambda prefix: AdaLoraSpace().random(prefix),
        lambda prefix: AdaLoraSpace().grid(prefix),
        lambda prefix: suggest_params(optuna.create_study().ask(), prefix=prefix),
    ],
    ids=["distributions", "fixed", "complete", "random", "grid", "suggest_params"],
)
def test_a_prefix_is_the_name_of_a_step_and_two_underscores(use):
    with pytest.raises(TypeError, match=r"`prefix` must be a str.*Got 2\. Pass"):
        use(2)
    for wrong in ("clf", "clf_"):
        with pytest.raises(ValueError, match=f"Got '{wrong}'. Pass 'clf__'."):
            use(wrong)
    with pytest.raises(ValueError, match=r"Got '_'\. Pass ''\."):
        use("_")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init_r": (0, 8)}, r"`init_r` .*logarithmic.*Got \(0, 8\)"),
        ({"init_r": [4, 0]}, r"`init_r` .*int of at least 1.*Got 0 in \[4, 0\]"),
        ({"init_r": (4, 8.5)}, "`init_r` .*at least 1"),
        ({"init_r": (8, 4)}, r"`init_r` must be two .*low < high. Got \(8, 4\)"),
        ({"init_r": (4, 4)}, "a fixed value without brackets"),
        ({"init_r": (4, 8, 16)}, "Give choices as a list"),
        ({"tinit": (0.0, float("nan"))}, "finite numbers"),
        ({"tinit": (False, 0.5)}, "finite numbers"),
        ({"beta1": (0, 0.5)}, r"`beta1` .*number in \(0, 1\). Got 0.0"),
        ({"beta2": "beta"}, "`beta2` .*Got 'beta'"),
        ({"orth_reg_weight": (0, 1)}, "`orth_reg_weight` is on a logarithmic"),
        ({"deltaT": ["auto", "often"]}, r"`deltaT` .*Got 'often' in \['auto'"),
        ({"target_modules": ("query", "value")}, "Give choices as a list"),
        ({"target_modules": (1, 2)}, "`target_modules` .*choices, as a list"),
        ({"epochs": []}, "`epochs` must hold values that differ"),
        ({"epochs": [1, 2, 1]}, r"Got \[1, 2, 1\]\. Leave out duplicates"),
        ({"lora_dropout": [0, False]}, "values that differ"),
        ({"init_r": IntDistribution(1, 2)}, "distributions of Optuna's, pass a dict"),
        ({"beta1": stats.uniform(0.5, 0.4)}, "`beta1` of AdaLoraSpace must be a tuple"),
        ({"epochs": np.array([1, 1])}, r"values that differ.*Got \[1, 1\]"),
        ({"target_r": None}, r"`target_r` .*given when `init_r` is"),
        ({"target_r": (2, 6)}, r"at most the lowest `init_r`. Got target_r=\(2, 6\)"),
        ({"target_r": 5}, "at most the lowest `init_r`"),
        ({"target_r": (0.2, 1.0)}, r"`target_r` .*Got 1.0"),
        ({"init_r": [None, 8]}, "share of an `init_r` that is a number"),
        ({"tinit": (0.0, 0.5), "tfinal": (0.1, 0.5)}, "sum to less than 1"),
        ({"tinit": [10, 0.6], "tfinal": 0.4}, r"tinit=\[10, 0.6\] and tfinal=0.4"),
    ],
)
def test_a_space_with_an_invalid_point_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        AdaLoraSpace(**given)


def test_steps_are_allowed_but_then_nobody_can_check_them():
    space = AdaLoraSpace(
        tinit=(10, 50), tfinal=[20, 0.65], target_r=4, init_r=[None, 4]
    )

    assert space.distributions()["tinit"] == IntDistribution(10, 50)


@pytest.mark.parametrize("space", [3, "init_r", AdaLoraSpace, [("a", (1, 2))]])
def test_what_is_no_space_is_refused(space):
    with pytest.raises(TypeError, match="`space` must be an AdaLoraSpace, a dict"):
        read_space(space)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"Got None.*\[None\]"),
        ((1, 1), "low < high"),
        ([print, lambda x: x], "For functions, .* use a function as `space`"),
        ([[1], [1]], "values that differ"),
        (np.array([]), r"values that differ.*Got \[\]"),
        (np.ones((2, 3)), r"one dimension. Got an array of shape \(2, 3\).*\[array\]"),
        (np.array(8), r"one dimension. Got an array of shape \(\)"),
        (stats.loguniform(1e-3, 1e-2), "`clf__init_r` .*FloatDistribution"),
        (stats.randint(2, 9), "distribution of Optuna's, a tuple.*Got <scipy.stats"),
        (LogIntegers(2, 8), r"Got LogIntegers\(low=2, high=8\), which has .* `rvs`"),
    ],
)
def test_what_a_dict_cannot_hold(value, message):
    with pytest.raises(ValueError, match=message):
        read_space({"clf__init_r": value})


def test_distributions_of_an_unknown_kind_are_refused():
    class Odd(optuna.distributions.BaseDistribution):
        def to_external_repr(self, value): ...
        def to_internal_repr(self, value): ...
        def single(self): ...
        def _contains(self, value): ...

    with pytest.raises(TypeError, match="`a` of the space must be a FloatDistribution"):
        suggest_params(optuna.create_study().ask(), {"a": Odd()})

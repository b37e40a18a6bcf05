"""The training loop: loss, budget, weights, stopping, interruption."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from _process import run_python
from _spy import LAYERS, Spy
from _toy import (
    attributes,
    make,
    make_regressor,
    same_attributes,
    topics,
    toy,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch import nn
from torch.nn import functional as F

from sk_adalora.data.targets import Classes
from sk_adalora.data.texts import read_texts
from sk_adalora.network.network import build_network
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.runtime.devices import Compute, resolve_compute
from sk_adalora.tokens.batches import pad
from sk_adalora.tokens.tokenize import encode
from sk_adalora.training.loop import (
    Examples,
    Recipe,
    TrainingRun,
    rate_share,
    train_step,
)
from sk_adalora.training.schedule_steps import resolve_schedule

CPU = resolve_compute("cpu", "float32")


# ---- it learns --------------------------------------------------------------


def test_a_separable_task_is_learned_to_the_last_row(tiny_model):
    X, y = toy(96)
    fitted = make(tiny_model, epochs=12, batch_size=8).fit(X, y)
    loss = fitted.history_.loss

    assert fitted.score(X, y) == 1.0
    assert np.mean(loss[-8:]) < 0.1 * np.mean(loss[:8])
    unseen, labels = toy(64, seed=1)
    assert fitted.score(unseen, labels) > 0.9


# ---- steps and budget -------------------------------------------------------


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "epochs"), [(50, 16, 2), (33, 8, 2), (5, 16, 6)]
)
def test_as_many_steps_as_the_schedule_says(
    tiny_model, monkeypatch, n_rows, batch_size, epochs
):
    spy = Spy(monkeypatch)
    X, y = toy(n_rows)
    fitted = make(tiny_model, batch_size=batch_size, epochs=epochs).fit(X, y)
    history = fitted.history_
    per_epoch = fitted.schedule_.steps_per_epoch

    assert fitted.total_step_ == epochs * per_epoch == len(spy.batches)
    for series in (history.loss, history.budget, history.learning_rate):
        assert len(series) == fitted.total_step_
    assert history.epochs == fitted.n_iter_ == epochs
    for first in range(0, len(spy.batches), per_epoch):
        epoch = spy.batches[first : first + per_epoch]
        assert np.ptp([len(rows) for rows in epoch]) <= 1
        rows = np.concatenate(epoch)
        assert sorted(rows) == list(range(n_rows))


@pytest.mark.parametrize(
    ("pooling", "task"), [("mean", "FEATURE_EXTRACTION"), ("model", "SEQ_CLS")]
)
def test_the_adapter_is_configured_as_it_was_asked_for(tiny_model, pooling, task):
    asked = {
        "init_r": 5,
        "target_r": 3,
        "tinit": 2,
        "tfinal": 1,
        "deltaT": 3,
        "beta1": 0.7,
        "beta2": 0.6,
        "orth_reg_weight": 0.3,
        "lora_alpha": 12.0,
        "lora_dropout": 0.2,
        "target_modules": ["query"],
    }
    fitted = make(tiny_model, pooling=pooling, epochs=3, **asked).fit(*toy(48))
    config = fitted._adapter.config

    assert {name: config[name] for name in asked} == asked
    assert config["task_type"] == task


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"deltaT": 3},
        {"tinit": 5, "tfinal": 2, "deltaT": 4},
        {"init_r": 6, "target_r": 1},
        {"target_r": 0.5, "init_r": 4},
    ],
)
def test_the_budget_is_that_of_the_schedule_at_every_step(tiny_model, changed):
    X, y = toy(64)
    fitted = make(tiny_model, batch_size=8, epochs=3, **changed).fit(X, y)
    plan = fitted.schedule_
    budget = plan.config().schedule(LAYERS)
    expected = [budget.held_budget(step) for step in range(plan.total_step)]

    assert fitted.history_.budget == expected
    rows, steps = fitted.history_.ranks, fitted.history_.rank_steps
    for row, steps_taken in zip(rows[1:], steps[1:], strict=True):
        assert sum(row) == expected[steps_taken - 1]
    assert steps[0] == 0
    assert rows[0] == [plan.init_r] * LAYERS
    assert rows[-1] == [*fitted.ranks_.values()]
    assert {sum(row) for row in rows} == {sum(rows[0]), *expected}
    assert expected[-1] == plan.target_r * LAYERS
    assert len(fitted.ranks_) == LAYERS
    assert sum(fitted.ranks_.values()) == plan.target_r * LAYERS
    assert max(fitted.ranks_.values()) <= plan.init_r


def test_what_was_pruned_is_deleted_as_soon_as_the_budget_is_final(
    tiny_model, monkeypatch
):
    spy = Spy(monkeypatch)
    X, y = toy(64)
    fitted = make(tiny_model, batch_size=8, init_r=6, target_r=2).fit(X, y)
    final = fitted.total_step_ - fitted.schedule_.tfinal
    head = 2 * 32 + 2

    assert set(spy.sizes[: final - 1]) == {spy.sizes[0]}
    assert set(spy.sizes[final:]) == {spy.sizes[-1]}
    assert spy.sizes[-1] < spy.sizes[0]
    assert fitted.fit_report_.trainable_parameters == spy.sizes[-1]
    held = {n: a.size for n, a in fitted._adapter.arrays.items()}
    assert sum(held.values()) == spy.sizes[-1]
    assert held["head.weight"] + held["head.bias"] == head
    # The optimizer shrank with the parameters.
    (optimizer,) = {id(run.optimizer): run.optimizer for run in spy.runs}.values()
    for parameter, state in optimizer.state.items():
        assert state["exp_avg"].shape == parameter.shape


def test_ranks_patterns_and_arrays_agree(tiny_model):
    X, y = toy(64)
    fitted = make(tiny_model, batch_size=8).fit(X, y)

    for path, rank in fitted.ranks_.items():
        pattern = fitted.rank_pattern_[f"{path}.lora_E"]
        assert len(pattern) == fitted.schedule_.init_r
        assert sum(pattern) == rank
        start = f"base_model.model.{path}.lora_"
        assert fitted._adapter.arrays[start + "A"].shape[0] == rank
        assert fitted._adapter.arrays[start + "B"].shape[1] == rank


@pytest.mark.parametrize(
    ("kind", "n_classes", "epochs"),
    # Of 5 steps: 96 steps and the rest of an epoch, 8 steps a class, or 32 steps.
    [(make, 2, 20), (make, 20, 32), (make_regressor, 40, 7)],
)
def test_auto_counts_the_classes(tiny_model, kind, n_classes, epochs):
    X = [f"good {i} film" for i in range(40)]
    fitted = kind(tiny_model, epochs="auto", batch_size=8)

    assert fitted.fit(X, np.arange(40) % n_classes).n_iter_ == epochs


# ---- the step itself --------------------------------------------------------


def run_of(model, weights=None, compute=CPU, **changed):
    """A training on the rows of `toy(16)` that has not begun."""
    X, y = toy(16)
    backbone = load_backbone(model, CPU)
    tokens = encode(read_texts(X), backbone.tokenizer, 64)
    schedule = resolve_schedule(16, batch_size=16, epochs=2, target_r=2)
    config = schedule.config(target_modules="all-linear", lora_alpha=schedule.init_r)
    generator = torch.Generator().manual_seed(0)
    network = build_network(backbone, config, 2, "mean", generator)
    settings = {
        "epochs": 2,
        "batch_size": 16,
        "total_step": schedule.total_step,
        "learning_rate": 0.02,
        "head_learning_rate": 0.02,
        "warmup_ratio": 0.06,
    }
    examples = Examples(tokens, torch.from_numpy(y), weights, Classes.loss)
    run = TrainingRun(network, examples, Recipe(**{**settings, **changed}), compute)
    network.train()
    return run


def gradients(run, rows):
    """The gradients that a step sees before the optimizer takes them."""
    seen = {}

    def take(*args, **kwargs):
        for name, parameter in run.network.named_parameters():
            if parameter.requires_grad:
                seen[name] = parameter.grad.clone()

    run.optimizer.register_step_pre_hook(take)
    loss, _ = train_step(run, rows)
    return loss, seen


def rows_of(*values):
    return np.array(values)


def test_the_loss_is_the_mean_over_the_rows(tiny_model):
    run = run_of(tiny_model)
    rows = np.arange(10)
    with torch.no_grad():
        outputs = run.network(pad(run.examples.tokens, rows))
    expected = F.cross_entropy(outputs, run.examples.targets[:10])
    loss, _ = train_step(run, rows)

    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("weights", "same"),
    [([1.0, 1, 1, 0, 0, 1, 1, 1], [0, 1, 2, 5, 6, 7]), ([1.0, 2, 1], [0, 1, 1, 2])],
)
def test_a_row_is_there_as_often_as_its_weight_says(tiny_model, weights, same):
    # The others weigh what the rows of the step do on average.
    own = torch.full((16,), sum(weights) / len(weights))
    own[: len(weights)] = torch.tensor(weights)
    weighted = gradients(run_of(tiny_model, own), rows_of(*range(len(weights))))
    repeated = gradients(run_of(tiny_model), rows_of(*same))

    torch.testing.assert_close(weighted[0], repeated[0])
    for name, value in repeated[1].items():
        torch.testing.assert_close(weighted[1][name], value, atol=1e-5, rtol=1e-4)


def test_a_step_of_rows_of_weight_0_changes_no_loss(tiny_model):
    run = run_of(tiny_model, torch.cat([torch.zeros(4), torch.ones(12)]))
    with pytest.warns(UserWarning, match="got no gradient"):
        loss, _ = train_step(run, rows_of(0, 1, 2, 3))

    assert loss == 0
    assert all(torch.isfinite(p).all() for p in run.parameters)


def test_a_batch_of_light_rows_counts_less_than_one_of_heavy_rows(tiny_model):
    """Over an epoch, the loss is that of all rows, each with its weight."""
    X, y = toy(48)
    weight = np.where(y == 1, 10.0, 0.1) * np.linspace(0.5, 2, 48)
    still = {"learning_rate": 1e-12, "epochs": 1}
    fitted = make(tiny_model, batch_size=4, **still).fit(X, y, sample_weight=weight)
    losses = -np.log(fitted.predict_proba(X)[np.arange(48), y])

    expected = np.average(losses, weights=weight)
    assert np.mean(fitted.history_.loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weights", [None, torch.linspace(0.2, 2, 16)])
def test_the_parts_of_a_batch_are_one_large_batch(tiny_model, monkeypatch, weights):
    rows = np.arange(13)
    whole = gradients(run_of(tiny_model, weights), rows)
    monkeypatch.setattr(Compute, "tokens_to_train", 20)
    parts = gradients(run_of(tiny_model, weights), rows)

    torch.testing.assert_close(parts[0], whole[0])
    for name, value in whole[1].items():
        torch.testing.assert_close(parts[1][name], value, atol=1e-5, rtol=1e-4)


def test_the_gradient_is_clipped(tiny_model):
    run = run_of(tiny_model, 100 * torch.ones(16))
    run.examples = replace(run.examples, loss=lambda *of: 100 * Classes.loss(*of))
    _, seen = gradients(run, rows_of(0, 1, 2))
    norm = torch.cat([gradient.flatten() for gradient in seen.values()]).norm()

    assert norm == pytest.approx(1, rel=1e-3)


def test_importance_is_that_of_the_weights_after_the_step(tiny_model):
    """And of the gradients of the step: before it, all singular values are 0."""
    run = run_of(tiny_model, warmup_ratio=0.0)
    _, seen = gradients(run, rows_of(*range(8)))
    (gradient,) = (seen[name] for name in seen if name.endswith("singular_values"))
    values, beta = run.network.encoder.triplets.singular_values, run.allocator.beta1

    sensitivity = run.allocator.averages[0].sensitivity
    torch.testing.assert_close(sensitivity, (1 - beta) * (values * gradient).abs())
    assert sensitivity.any()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_gradients_are_scaled_where_they_would_underflow(tiny_model, precision):
    run = run_of(tiny_model, compute=Compute(torch.device("cpu"), precision))

    assert run.scaler.is_enabled() == (precision == "float16")


# ---- learning rates ---------------------------------------------------------


@pytest.mark.parametrize(("kind", "share"), [(make, 1 / 8), (make_regressor, 1)])
def test_a_head_that_starts_at_a_probe_learns_slowly(
    tiny_model, monkeypatch, kind, share
):
    spy = Spy(monkeypatch)
    X, y = toy(16)
    kind(tiny_model, learning_rate=0.01, epochs=3).fit(X, y)
    triplets, own = spy.runs[0].optimizer.param_groups

    assert (triplets["initial_lr"], own["initial_lr"]) == (0.01, share * 0.01)
    assert {p.ndim for p in own["params"]} == {1, 2}
    assert len(own["params"]) == 2


@pytest.mark.parametrize(("share", "total"), [(0.07, 100), (0.14, 50), (0.28, 25)])
def test_a_whole_number_of_warm_up_steps_is_not_rounded_up(tiny_model, share, total):
    """0.07 * 100 is 7.000000000000001."""
    run = run_of(tiny_model, warmup_ratio=share, total_step=total)

    assert run.recipe.warmup_steps == 7


@pytest.mark.parametrize("total_step", [1, 17])
@pytest.mark.parametrize("warmup", [0, 0.5, 1])
def test_learning_rates_are_those_of_transformers(total_step, warmup):
    from transformers import get_scheduler

    warmup_steps = round(warmup * total_step)
    theirs = get_scheduler(
        "linear",
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0),
        num_warmup_steps=warmup_steps,
        num_training_steps=total_step,
    )
    expected = theirs.lr_lambdas[0]
    steps = range(total_step + 2)
    rates = [
        rate_share(s, warmup_steps=warmup_steps, total_step=total_step) for s in steps
    ]

    assert rates == [expected(step) for step in steps]


BESIDE_ANOTHER_PEFT = """
import sys
sys.path.insert(0, sys.argv[3])
from sk_adalora import AdaLoraClassifier
texts, labels = ["a", "b"] * 8, [0, 1] * 8
fitted = AdaLoraClassifier(sys.argv[1], epochs=1, random_state=0).fit(texts, labels)
fitted.save_pretrained(sys.argv[2])
loaded = AdaLoraClassifier.from_pretrained(sys.argv[2])
print((loaded.predict(texts) == fitted.predict(texts)).all())
"""


def test_a_version_of_peft_that_does_not_go_with_transformers_is_no_matter(
    tiny_model, tmp_path
):
    # transformers 5 and PEFT 0.17, say, which Trainer's modules import.
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "__init__.py").write_text("raise ImportError('HybridCache')")
    done = run_python(BESIDE_ANOTHER_PEFT, tiny_model, tmp_path / "saved", tmp_path)

    assert done.stdout.split() == ["True"]


# ---- weights of rows and classes --------------------------------------------


def test_equal_weights_are_no_weights_to_the_last_bit(tiny_model):
    X, y = toy(40)
    without = make(tiny_model).fit(X, y)
    weighted = make(tiny_model).fit(X, y, sample_weight=np.full(40, 7.0))

    np.testing.assert_array_equal(weighted.predict_proba(X), without.predict_proba(X))
    assert weighted.history_.loss == without.history_.loss


@pytest.mark.parametrize("options", [{}, {"early_stopping": True, "epochs": 4}])
def test_rows_of_weight_0_are_rows_that_are_not_there(tiny_model, options):
    X, y = toy(64)
    weight = np.tile([2.0, 2.0, 0.0, 0.0], 16)
    weighted = make(tiny_model, **options).fit(X, y, sample_weight=weight)
    kept = np.flatnonzero(weight)
    without = make(tiny_model, **options).fit([X[i] for i in kept], y[kept])

    assert weighted.total_step_ == without.total_step_
    assert weighted.fit_report_.n_rows == without.fit_report_.n_rows
    np.testing.assert_array_equal(weighted.predict_proba(X), without.predict_proba(X))


def test_rows_that_all_count_nothing(tiny_model):
    X, y = toy(64)
    classifier = make(tiny_model, class_weight={0: 0.0, 1: 1.0})
    with pytest.raises(ValueError, match="Got 0 for all 64 rows, from `sample_weight`"):
        classifier.fit(X, y, sample_weight=1 - y)


def test_weights_of_rows_and_classes_multiply(tiny_model):
    X, y = topics(36)
    own = np.random.default_rng(0).uniform(0.5, 2, len(y))
    both = make(tiny_model, class_weight={"art": 3.0}).fit(X, y, sample_weight=own)
    product = make(tiny_model).fit(
        X, y, sample_weight=own * np.where(y == "art", 3.0, 1.0)
    )

    np.testing.assert_allclose(
        both.predict_proba(X), product.predict_proba(X), rtol=1e-4
    )


# ---- what goes wrong --------------------------------------------------------


def test_a_diverging_run_says_so_and_leaves_nothing(tiny_model):
    X, y = toy(32)
    classifier = make(tiny_model, learning_rate=1e20, epochs=4)
    before = attributes(classifier)

    match = (
        r"stay finite\. Got NaN or infinity in epoch \d of 4\. Lower `learning_rate`"
    )
    with pytest.raises(FloatingPointError, match=match):
        classifier.fit(X, y)
    assert same_attributes(classifier, before)
    with pytest.raises(NotFittedError):
        classifier.predict(X)


def test_a_run_that_unlearns_says_so(tiny_model):
    X, y = toy(32)
    make(tiny_model, epochs=4).fit(X, y)  # no warning, which would be an error
    classifier, kept = (make(tiny_model, epochs=4, learning_rate=3.0) for _ in "ab")
    match = (
        r"^The training loss must fall\. Got [\d.]+ in the first epoch and [\d.]+ in "
        r"the last\. Lower `learning_rate`\.$"
    )
    with pytest.warns(ConvergenceWarning, match=match):
        classifier.fit(X, y)
    with pytest.raises(ConvergenceWarning):  # warnings are errors in these tests
        kept.fit(X, y)
    np.testing.assert_array_equal(kept.predict(X), classifier.predict(X))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("fitted_before", [False, True])
def test_an_interrupted_fit_leaves_the_estimator_as_it_was(
    tiny_model, monkeypatch, error, fitted_before
):
    def interrupt(run, rows):
        if run.step == 2:
            raise error

    X, y = toy(64)
    classifier = make(tiny_model)
    expected = classifier.fit(X, y).predict_proba(X) if fitted_before else None
    before = attributes(classifier)
    Spy(monkeypatch, before=interrupt)

    with pytest.raises(error):
        classifier.fit(*topics(60, seed=3))
    assert same_attributes(classifier, before)
    if fitted_before:
        np.testing.assert_array_equal(classifier.predict_proba(X), expected)
    else:
        with pytest.raises(NotFittedError):
            classifier.predict(X)


# ---- few steps, small weights, a bad last step ------------------------------------


@pytest.mark.parametrize("options", [{}, {"pooling": "model"}])
def test_a_fit_of_one_step_learns(tiny_model, options):
    X, y = toy(32)
    fits = [
        make(tiny_model, epochs=1, batch_size=64, **options).fit(X, labels)
        for labels in (y, 1 - y)
    ]

    assert fits[0].history_.learning_rate == [0.02]
    assert not np.allclose(fits[0].predict_proba(X), fits[1].predict_proba(X))


@pytest.mark.parametrize("scale", [1e-50, 1e300])
def test_only_ratios_of_weights_matter(tiny_model, scale):
    X, y = toy(32)
    weight = np.tile([1.0, 2.0], 16)
    fits = [
        make(tiny_model).fit(X, y, sample_weight=weight * factor)
        for factor in (1.0, scale)
    ]

    np.testing.assert_allclose(
        fits[0].predict_proba(X), fits[1].predict_proba(X), atol=1e-5
    )


@pytest.mark.parametrize(
    ("precision", "remedy"),
    [
        ("float32", r"Lower `learning_rate`\.$"),
        ("bfloat16", r"Lower `learning_rate`, or set precision='float32'\.$"),
    ],
)
@pytest.mark.filterwarnings("ignore:`precision` 'bfloat16' needs a processor")
def test_on_a_cpu_a_diverging_run_ends_within_the_epoch(
    tiny_model, monkeypatch, precision, remedy
):
    steps = []
    Spy(monkeypatch, before=lambda run, rows: steps.append(rows))
    wild = {"learning_rate": 1e30, "warmup_ratio": 0.0}
    classifier = make(tiny_model, batch_size=2, precision=precision, epochs=1, **wild)
    with pytest.raises(FloatingPointError, match=remedy):
        classifier.fit(*toy(64))

    assert len(steps) < 5  # of 32


def test_a_last_step_that_diverges_is_noticed(tiny_model, monkeypatch):
    def diverge(run, rows):
        if run.step == run.recipe.total_step - 1:
            head = run.network.head.weight
            head.register_hook(lambda gradient: torch.full_like(gradient, torch.nan))

    Spy(monkeypatch, before=diverge)
    classifier = make(tiny_model)
    with pytest.raises(FloatingPointError, match="infinity after the last step"):
        classifier.fit(*toy(32))
    assert not hasattr(classifier, "classes_")


def test_a_fit_that_could_not_predict_is_none(tiny_model):
    """Numbers of 1e10 are finite, and what the network makes of them is not."""
    wild = {"learning_rate": 1e10, "warmup_ratio": 0.0}
    classifier = make(tiny_model, epochs=1, batch_size=48, **wild)
    with pytest.raises(
        FloatingPointError, match="outputs of the network must be finite"
    ):
        classifier.fit(*toy(48))
    assert not hasattr(classifier, "classes_")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_no_numbers_are_not_the_first_class(tiny_model, value):
    """What the last step made may be finite, and what is computed with it not."""
    X, y = toy(32)
    classifier = make(tiny_model).fit(X, y)
    classifier._predictor.network.encoder.triplets.singular_values.data.fill_(value)

    match = r"outputs of the network must be finite\. Got .*lower `learning_rate`\.$"
    for method in (classifier.predict, classifier.transform):
        with pytest.raises(FloatingPointError, match=match):
            method(X)


def test_the_penalty_keeps_triplets_orthonormal(tiny_model):
    X, y = toy(64)

    def distance(weight):
        fitted = make(tiny_model, epochs=6, orth_reg_weight=weight).fit(X, y)
        arrays = fitted._adapter.arrays
        lefts = [arrays[name] for name in arrays if "lora_A" in name]
        return sum(np.linalg.norm(a @ a.T - np.eye(len(a))) for a in lefts)

    assert distance(1.0) < 0.9 * distance(0.0)


# ---- in half precision ------


def test_the_own_head_of_a_model_computes_in_float32(tiny_model):
    X, y = toy(64)
    fitted = make(tiny_model, pooling="model", precision="bfloat16").fit(X, y)

    head = fitted._predictor.network.encoder.model.classifier
    assert {p.dtype for p in head.parameters()} == {torch.float32}
    outputs = fitted.decision_function(X).astype(np.float32)
    rounded = torch.from_numpy(outputs).bfloat16().float().numpy()
    assert not np.array_equal(outputs, rounded)

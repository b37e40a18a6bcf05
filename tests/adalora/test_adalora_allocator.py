"""Importance, exact budgets under any order of steps, resuming, and what it costs."""

import itertools

import pytest
import torch
from _tiny import (
    adamw,
    adapt,
    alive,
    build,
    encoder_loss,
    give_gradients,
    hidden,
    one_step,
    small_adapted,
    tiny_bert,
    train,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sk_adalora.adalora import BudgetSchedule

# ---- importance -------------------------------------------------------------


def test_scores_are_the_formula():
    model = small_adapted(target_r=1, tinit=0, total_step=50, beta1=0.8, beta2=0.6)
    allocator = model.allocator
    parameters = [model.triplets.singular_values]
    parameters += [bank.rows for bank in model.triplets.banks]
    sensitivity = [torch.zeros_like(p) for p in parameters]
    uncertainty = [torch.zeros_like(p) for p in parameters]
    for step in range(5):
        give_gradients(model, step)
        for i, p in enumerate(parameters):
            current = (p * p.grad).abs().detach()
            sensitivity[i] = 0.8 * sensitivity[i] + 0.2 * current
            deviation = (current - sensitivity[i]).abs()
            uncertainty[i] = 0.6 * uncertainty[i] + 0.4 * deviation
        allocator.update_and_allocate(step)

    products = [s * u for s, u in zip(sensitivity, uncertainty, strict=True)]
    expected = products[0].clone()
    for bank, product in zip(model.triplets.banks, products[1:], strict=True):
        for row, triplet in enumerate(bank.triplet_of.tolist()):
            expected[triplet] += product[row].mean()

    for average, *reference in zip(
        allocator.averages, sensitivity, uncertainty, strict=True
    ):
        torch.testing.assert_close(
            [average.sensitivity, average.uncertainty], reference
        )
    torch.testing.assert_close(allocator.scores(), expected)


class HalfUsed(nn.Module):
    """Runs the first half of its layers only."""

    def __init__(self, depth=2, width=8):
        super().__init__()
        self.used = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.never = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        for layer in self.used:
            x = torch.tanh(layer(x))
        return x


def half_used_loss(model, step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 8, generator=generator)
    return (model(x) - x.roll(1, 1)).square().mean()


def half_used(**options):
    options = {"init_r": 6, "target_r": 3, "total_step": 40, **options}
    return adapt(build(HalfUsed), **options)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("broken", [False, True])
def test_layers_that_never_run_get_no_rank(weight, broken):
    model = half_used(orth_reg_weight=weight)
    optimizer = adamw(model)
    with pytest.warns(UserWarning, match="2 adapted layers got no gradient"):
        one_step(model, optimizer, 0, half_used_loss)
    if broken:  # clipping spreads NaN to all gradients
        for parameter in model.triplets.parameters():
            parameter.grad = torch.full_like(parameter, torch.nan)
        model.update_and_allocate(1)
    train(model, range(2, 40), optimizer, half_used_loss)

    assert list(model.ranks.values()) == [6, 6, 0, 0]


def test_a_layer_that_ran_once_keeps_its_score():
    model = half_used(tinit=30)
    give_gradients(model)
    model.triplets.singular_values.grad[6:] = 0
    model.triplets.singular_values.grad[11] = 1e-30  # one triplet of the second layer
    model.allocator.update_and_allocate(0)
    # All of them pruned, and no gradient but that of the penalty.
    model.triplets.singular_values.detach().zero_()
    model.triplets.singular_values.grad.zero_()
    model.allocator.update_and_allocate(1)
    model.triplets.singular_values.grad = None
    for step in range(2, 30):
        model.allocator.update_and_allocate(step)

    positive = model.allocator.scores() > 0
    assert positive.tolist() == [True] * 12 + [False] * 12


def test_an_update_after_the_gradients_are_cleared_is_refused():
    model = adapt(tiny_bert())
    optimizer = adamw(model)
    for _ in range(2):
        (encoder_loss(model, 0) + model.orthogonality_loss()).backward()
        optimizer.step()
        optimizer.zero_grad()
        with pytest.raises(
            RuntimeError, match=r"before `zero_grad`.*`AdaLoraCallback`"
        ):
            model.update_and_allocate(0)
    train(model, range(3), optimizer)
    optimizer.zero_grad()
    model.update_and_allocate(3)  # a step that does not train the adapter


def test_a_loss_that_depends_on_no_layer_is_warned_of():
    model = adapt(tiny_bert())
    model.orthogonality_loss().backward()
    with pytest.warns(UserWarning, match="12 adapted layers got no gradient"):
        model.update_and_allocate(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_triplets_of_another_precision_are_allocated(dtype):
    model = small_adapted().to(dtype)
    model.triplets.left.requires_grad_(False)
    train(model, range(8), loss=lambda m, _: m(torch.ones(2, 6, dtype=dtype)).sum())

    assert all(a.score().dtype == torch.float32 for a in model.allocator.averages)
    assert alive(model) == model.allocator.budget < 8


# ---- exact counts -----------------------------------------------------------


def allocate(model, scores, budget):
    """Let `model` keep the best `budget` triplets by the given scores."""
    allocator = model.allocator
    allocator.schedule = BudgetSchedule(len(scores), budget, 0, 1, 1, 10)
    allocator.averages = allocator._new_averages()  # as after a step
    allocator.scores = lambda: torch.tensor(scores, dtype=torch.float32)
    allocator.finish()
    return allocator.kept.tolist()


@pytest.mark.parametrize(
    ("scores", "budget", "kept"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], 2, [6, 7]),
        ([0, 0, 0, 0, 0, 0, 0, 0], 3, [0, 1, 2]),
        ([5, 1, 5, 5, 0, 5, 1, 1], 3, [0, 2, 3]),
        ([5, 1, 5, 5, 0, 5, 1, 1], 6, [0, 1, 2, 3, 5, 6]),
        ([torch.nan, 1, torch.nan, 0, 2, 3, 4, 5], 6, [1, 3, 4, 5, 6, 7]),
        ([torch.nan, 1, torch.inf, 0, 2, 3, 4, 5], 7, [0, 1, 3, 4, 5, 6, 7]),
        ([torch.nan] * 8, 2, [0, 1]),
        ([1, 2, 3, 4, 5, 6, 7, 8], 0, []),
        ([1, 2, 3, 4, 5, 6, 7, 8], 8, list(range(8))),
    ],
)
def test_the_count_is_exact_with_ties_and_broken_scores(scores, budget, kept):
    model = small_adapted()
    flags = allocate(model, scores, budget)

    assert [i for i, flag in enumerate(flags) if flag] == kept
    assert model.triplets.singular_values.ne(0).tolist() == flags
    assert model.allocator.budget == budget


@st.composite
def plans(draw):
    total = draw(st.integers(1, 20))
    tfinal = draw(st.integers(0, total - 1))
    return {
        "init_r": (init_r := draw(st.integers(1, 5))),
        "target_r": draw(st.integers(0, init_r)),
        "total_step": total,
        "tfinal": tfinal,
        "tinit": draw(st.integers(0, total - tfinal - 1)),
        "deltaT": draw(st.integers(1, 8)),
    }


@given(plans(), st.lists(st.integers(0, 25), max_size=25))
@settings(max_examples=60)
def test_any_order_of_steps_never_raises_the_budget(plan, steps):
    model = small_adapted(**plan)
    allocator, schedule = model.allocator, model.allocator.schedule
    budgets, reached = [schedule.initial], -1
    for i, step in enumerate(steps):
        give_gradients(model, i)
        budgets.append(allocator.update_and_allocate(step))
        reached = max(reached, step)
        # The steps that were skipped are caught up, those that come again ignored.
        assert budgets[-1] == schedule.held_budget(reached)
        assert int(allocator.kept.sum()) == budgets[-1]
        randomise_pruned(model)  # an optimizer moves pruned values too

    assert budgets == sorted(budgets, reverse=True)
    give_gradients(model, 99)
    assert allocator.update_and_allocate(plan["total_step"]) == schedule.target
    assert alive(model) == schedule.target == allocator.budget
    assert allocator.finished


def randomise_pruned(model):
    with torch.no_grad():
        values = model.triplets.singular_values
        values[values == 0] = 0.1


@pytest.mark.parametrize("compact", [False, True])
def test_the_last_allocation_drops_the_scores(compact):
    model = adapt(tiny_bert())
    optimizer = adamw(model)
    train(model, range(11), optimizer)
    if compact:
        model.compact(optimizer)
    assert model.allocator.averages is None
    state = model.allocator.state_dict()
    assert state["averages"] is None
    assert len(state["kept"]) == len(state["reached"]) == len(model.allocator.kept)
    assert not model.allocator.scores().any()


def test_without_importance_the_largest_singular_values_live():
    """As of an adapter that is loaded without the state of its allocator."""
    model, other = adapt(tiny_bert()), adapt(tiny_bert(), seed=1)
    train(model, range(12))
    other.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match=r"Call `finish`.*load the state of its"):
        other.compact()
    other.allocator.finish()
    other.compact()

    assert other.ranks == model.ranks
    torch.testing.assert_close(hidden(other), hidden(model))


def test_between_allocations_pruned_triplets_train_and_may_come_back():
    model = small_adapted(
        tinit=0, tfinal=2, total_step=30, deltaT=4, beta1=0.1, beta2=0.1
    )
    masks = []
    for step in range(30):
        give_gradients(model, step)
        model.triplets.singular_values.grad.pow_(9)  # another favourite every step
        randomise_pruned(model)
        model.update_and_allocate(step)
        masks.append(model.allocator.kept.clone())
        if step == 5:  # between two allocations
            assert alive(model) == 8
    revived = [(new & ~old).any() for old, new in itertools.pairwise(masks)]

    assert any(revived)
    assert not any(revived[28:])  # never after the last allocation
    assert alive(model) == 4


@pytest.mark.parametrize("step", [None, 0, 3, 9, 11])
def test_finishing_early_makes_the_ranks_final(step):
    model = small_adapted()
    for i in range((step if step is not None else -1) + 1):
        give_gradients(model, i)
        model.update_and_allocate(i)
    model.allocator.finish()
    kept = model.allocator.kept.clone()

    assert model.allocator.finished
    assert model.allocator.budget == alive(model) == 4
    randomise_pruned(model)
    give_gradients(model, 7)
    for later in ((step or 0) + 1, 99):
        assert model.update_and_allocate(later) == 4
    model.allocator.finish()
    assert torch.equal(model.allocator.kept, kept)
    assert torch.equal(model.triplets.singular_values != 0, kept)


# ---- resuming ---------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 1, 4, 8, 9, 10])
@pytest.mark.parametrize("compact", [False, True])
def test_a_resumed_run_is_bit_identical(tmp_path, stop, compact):
    def run(model, optimizer, steps):
        budgets = []
        for step in steps:
            budgets.append(one_step(model, optimizer, step))
            if compact and step == 9:
                model.compact(optimizer)
        return budgets

    straight = adapt(tiny_bert())
    optimizer = adamw(straight)
    run(straight, optimizer, range(stop + 1))
    torch.save(
        {
            "adapter": straight.state_dict(),
            "allocator": straight.allocator.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        tmp_path / "checkpoint",
    )
    budgets = run(straight, optimizer, range(stop + 1, 14))

    state = torch.load(tmp_path / "checkpoint", weights_only=True)
    resumed = adapt(tiny_bert(), seed=7)
    resumed.load_state_dict(state["adapter"])
    resumed.allocator.load_state_dict(state["allocator"])
    optimizer = adamw(resumed)
    optimizer.load_state_dict(state["optimizer"])

    assert run(resumed, optimizer, range(stop + 1, 14)) == budgets
    expected = straight.state_dict()
    assert all(torch.equal(v, expected[n]) for n, v in resumed.state_dict().items())
    assert resumed.ranks == straight.ranks


@pytest.mark.parametrize(
    "options",
    [{"init_r": 5}, {"widths": ((6, 6), (6, 6))}, {"widths": ((6, 7), (7, 6))}],
)
def test_a_state_of_other_triplets_is_refused(options):
    """Else the next step would fail, or the state be half loaded."""
    model, other = small_adapted(), small_adapted(**options)
    give_gradients(other)
    other.update_and_allocate(0)
    with pytest.raises(ValueError, match=r"of shapes \[\(8,\), .* adapter of the same"):
        model.allocator.load_state_dict(other.allocator.state_dict())

    assert model.allocator.last_step == -1


# ---- cost -------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Count the operations that run inside."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


# What makes the host wait for the device, or copies from one to the other.
WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "item", "masked_select")


def operations(model, steps, optimizer):
    for step in steps:
        loss = encoder_loss(model, step) + model.orthogonality_loss()
        loss.backward()
        optimizer.step()
        with Operations() as counted:
            model.update_and_allocate(step)
        optimizer.zero_grad()
        yield counted.names


def test_the_host_never_waits_for_the_device():
    model = adapt(tiny_bert(), deltaT=2)
    optimizer = adamw(model)
    first, *later = operations(model, range(12), optimizer)

    assert any("_to_copy" in n for n in first) or first  # names layers without gradient
    for names in later:
        assert not [n for n in names if any(w in n for w in WAITING)]
        # A `detach` launches nothing, and not every torch records as many.
        assert len([n for n in names if "detach" not in n]) < 100


def test_forward_and_penalty_do_not_wait_either():
    model = adapt(tiny_bert())
    for pruned in (False, True):
        model.orthogonality_loss()  # lays out the stack once
        with Operations() as counted:
            model.triplets.hand_out()
            model.orthogonality_loss().backward()
        assert not [n for n in counted.names if any(w in n for w in WAITING)]
        if not pruned:
            model.allocator.finish()
            model.compact()

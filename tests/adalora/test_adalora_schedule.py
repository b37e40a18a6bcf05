"""The budget of each step, against worked examples and PEFT's own schedule."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.adalora.layer import RankAllocator

from sk_adalora.adalora import BudgetSchedule


@st.composite
def schedules(draw):
    total = draw(st.integers(1, 60))
    tfinal = draw(st.integers(0, total - 1))
    layers = draw(st.integers(1, 12))
    target_r = draw(st.integers(0, 8))
    return BudgetSchedule(
        initial=layers * (target_r + draw(st.integers(0, 8))),
        target=layers * target_r,
        tinit=draw(st.integers(0, total - tfinal - 1)),
        tfinal=tfinal,
        deltaT=draw(st.integers(1, 15)),
        total_step=total,
    )


def of_peft(schedule):
    """PEFT's budget and mask flag for each step of the schedule."""
    oracle = SimpleNamespace(
        peft_config=schedule, init_bgt=schedule.initial, target_bgt=schedule.target
    )
    steps = range(schedule.total_step)
    return [RankAllocator.budget_schedule(oracle, step) for step in steps]


def budgets(schedule):
    return [schedule.budget(step) for step in range(schedule.total_step)]


def held(schedule):
    return [schedule.held_budget(step) for step in range(schedule.total_step)]


def test_allocations_are_at_multiples_of_delta_t_whatever_the_warmup():
    schedule = BudgetSchedule(30, 10, tinit=1, tfinal=2, deltaT=3, total_step=14)

    assert [schedule.last_allocation(step) for step in range(14)] == [
        None, None, None, 3, 3, 3, 6, 6, 6, 9, 9, 9, 12, 12,
    ]  # fmt: skip


def test_the_phases_of_the_documented_example():
    schedule = BudgetSchedule(120, 80, tinit=10, tfinal=20, deltaT=1, total_step=100)
    phases = [schedule.phase(step) for step in range(100)]

    # Step 10 still has the full budget: it is the 11th update, and the first of
    # the 70 steps over which the budget falls.
    assert phases.count("initial") == 11
    assert phases.count("reduction") == 69
    assert phases.count("final") == 20
    assert phases == sorted(phases, key=["initial", "reduction", "final"].index)
    assert held(schedule)[10] == 120
    assert held(schedule)[11] < 120
    assert held(schedule)[80] == 80


@given(schedules())
def test_budgets_equal_those_of_peft(schedule):
    theirs = [budget for budget, _ in of_peft(schedule)]
    last = schedule.total_step - 1
    if schedule.tfinal == 0:  # there the last step is final, which PEFT never reaches
        assert budgets(schedule)[last] == schedule.target
        theirs[last] = schedule.target

    assert budgets(schedule) == theirs


@given(schedules())
def test_allocations_happen_where_peft_masks(schedule):
    for step, (budget, masks) in enumerate(of_peft(schedule)):
        if step < schedule.final_step and masks:
            assert schedule.last_allocation(step) == step
            assert schedule.held_budget(step) == budget
        elif step < schedule.final_step:
            assert schedule.last_allocation(step) != step
            former = schedule.held_budget(max(step - 1, 0))
            assert schedule.held_budget(step) == former


@given(schedules())
def test_the_budget_never_rises_and_ends_on_the_target(schedule):
    for values in (budgets(schedule), held(schedule)):
        assert values == sorted(values, reverse=True)
        assert values[-1] == schedule.target
        assert schedule.total_step == 1 or values[0] == schedule.initial
    assert schedule.held_budget(schedule.total_step + 5) == schedule.target

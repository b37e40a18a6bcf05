"""Shares, "auto" and the size of the data become whole optimizer steps."""

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sk_adalora import AdaLoraConfig, BudgetSchedule
from sk_adalora.training.schedule_steps import ResolvedSchedule, resolve_schedule


def resolve(n_samples=1600, **changed):
    return resolve_schedule(n_samples, **{"batch_size": 32, "epochs": 3, **changed})


def budgets(schedule, n_layers=7):
    """What lives after each step of a model of `n_layers`."""
    planned = BudgetSchedule(
        initial=schedule.init_r * n_layers,
        target=schedule.target_r * n_layers,
        tinit=schedule.tinit,
        tfinal=schedule.tfinal,
        deltaT=schedule.deltaT,
        total_step=schedule.total_step,
    )
    return [planned.held_budget(step) for step in range(schedule.total_step)]


# ---- the numbers ------------------------------------------------------------


def test_the_headlines_of_the_quickstart():
    schedule = resolve(1600, target_r=4)

    assert schedule == ResolvedSchedule(
        init_r=6,
        target_r=4,
        tinit=18,
        tfinal=72,
        deltaT=1,
        total_step=150,
        steps_per_epoch=50,
    )


def test_a_share_is_no_step_less_for_rounding():
    """0.29 * 100 is a little less than 29, and so are others."""
    for percent in range(1, 100):
        share = percent / 100
        schedule = resolve(100, batch_size=1, epochs=1, tinit=0.0, tfinal=share)
        assert schedule.total_step == 100
        assert schedule.tfinal == percent


def test_shares_of_the_two_ends_are_rounded_down_and_the_interval_is_not():
    schedule = resolve(100, batch_size=1, epochs=1, tinit=0.129, tfinal=0.488)

    assert (schedule.tinit, schedule.tfinal) == (12, 48)
    assert resolve(100, batch_size=1, epochs=1, deltaT=0.067).deltaT == 7


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "accumulation", "world_size", "steps_per_epoch"),
    [
        (1, 32, 1, 1, 1),
        (32, 32, 1, 1, 1),
        (33, 32, 1, 1, 2),
        (64, 32, 2, 1, 1),
        (65, 32, 2, 1, 2),
        (129, 32, 4, 1, 2),
        (129, 32, 1, 4, 2),
        (128, 16, 2, 4, 1),
    ],
)
def test_a_last_batch_that_is_not_full_is_a_step_too(
    n_samples, batch_size, accumulation, world_size, steps_per_epoch
):
    schedule = resolve(
        n_samples,
        batch_size=batch_size,
        epochs=5,
        gradient_accumulation_steps=accumulation,
        world_size=world_size,
        tinit=0,
        tfinal=0,
    )

    assert schedule.steps_per_epoch == steps_per_epoch
    assert schedule.total_step == 5 * steps_per_epoch


@pytest.mark.parametrize(
    ("init_r", "target_r", "ranks"),
    [
        (None, 1, (2, 1)),
        (None, 2, (3, 2)),
        (None, 3, (5, 3)),
        (None, 8, (12, 8)),
        (12, 8, (12, 8)),
        (8, 8, (8, 8)),
        (12, 0.5, (12, 6)),
        (10, 0.25, (10, 2)),
        (4, 0.01, (4, 1)),
        (4, 0.999, (4, 4)),
    ],
)
def test_each_rank_follows_from_the_other_or_is_a_share_of_it(init_r, target_r, ranks):
    schedule = resolve(init_r=init_r, target_r=target_r)

    assert (schedule.init_r, schedule.target_r) == ranks


@pytest.mark.parametrize(
    ("deltaT", "steps"), [("auto", 1), (1, 1), (10, 10), (0.1, 15), (0.001, 1)]
)
def test_the_interval_of_150_steps(deltaT, steps):
    assert resolve(deltaT=deltaT).deltaT == steps


def test_auto_allocates_about_200_times_however_long_the_training():
    schedule = resolve(10**6, tinit=0.1, tfinal=0.4)
    window = schedule.total_step - schedule.tinit - schedule.tfinal

    assert schedule.total_step == 93750
    assert schedule.deltaT == window // 200 == 234


@pytest.mark.parametrize(
    ("n_samples", "accumulation", "epochs"),
    [
        (1, 1, 64),
        (32, 1, 64),
        (40, 1, 32),  # 2 steps an epoch: 64
        (100, 1, 16),
        (192, 1, 11),
        (200, 1, 10),  # 7 steps an epoch: 70
        (320, 1, 10),
        (384, 1, 8),  # 12 steps an epoch: 96
        (600, 1, 6),
        (1000, 1, 3),
        (10**6, 1, 3),
        (1000, 4, 10),  # 8 steps an epoch
    ],
)
def test_auto_takes_few_rows_more_often(n_samples, accumulation, epochs):
    schedule = resolve(
        n_samples, epochs="auto", gradient_accumulation_steps=accumulation
    )

    assert schedule.epochs == epochs
    assert schedule.total_step == epochs * schedule.steps_per_epoch
    assert schedule == resolve(
        n_samples, epochs=epochs, gradient_accumulation_steps=accumulation
    )


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1024, 1), (32, 32), (64, 4)])
@pytest.mark.parametrize(("n_samples", "epochs"), [(40, 32), (200, 10), (1000, 10)])
def test_auto_goes_no_more_often_over_large_batches(
    n_samples, epochs, batch_size, accumulation
):
    schedule = resolve(
        n_samples,
        epochs="auto",
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
    )

    assert schedule.epochs == epochs


@pytest.mark.parametrize(
    ("n_samples", "n_classes", "epochs"),
    [
        (1000, 12, 3),  # 96 steps, as without
        (1000, 20, 5),  # 160 steps, 32 an epoch
        (4000, 12, 3),
        (1000, 13, 5),  # 104 steps would be four
        (10**6, 13, 5),
        (100, 20, 16),  # 64 steps are needed, however many classes
        (200, 20, 10),
        (1000, 150, 10),
    ],
)
def test_auto_takes_rows_of_many_classes_more_often(n_samples, n_classes, epochs):
    schedule = resolve(n_samples, epochs="auto", n_classes=n_classes)

    assert schedule == resolve(n_samples, epochs=epochs)


@pytest.mark.parametrize(
    ("n_samples", "n_classes", "epochs"),
    [
        (32, 1, 22),  # two thirds of 32
        (40, 1, 11),
        (64, 1, 11),
        (100, 1, 8),  # 4 steps an epoch: 32
        (200, 1, 5),
        (320, 1, 4),
        (400, 1, 3),
        (200, 6, 7),  # 48 steps, of classes
    ],
)
def test_auto_aims_at_the_steps_that_are_enough(n_samples, n_classes, epochs):
    schedule = resolve(n_samples, epochs="auto", enough_steps=32, n_classes=n_classes)

    assert schedule == resolve(n_samples, epochs=epochs)


def test_whole_numbers_are_steps_and_fractions_are_shares():
    as_steps = resolve(tinit=15, tfinal=60)
    as_shares = resolve(tinit=0.1, tfinal=0.4)

    assert as_steps == as_shares
    assert resolve(tinit=0, tfinal=0) == resolve(tinit=0.0, tfinal=0.0)


def test_numbers_of_numpy_count_as_numbers_of_python():
    of_numpy = resolve(
        np.int64(1600),
        batch_size=np.int64(32),
        epochs=np.int32(3),
        init_r=np.int64(6),
        target_r=np.int8(4),
        tinit=np.float32(0.125),
        tfinal=np.float64(0.5),
        deltaT=np.int16(2),
    )

    assert of_numpy == resolve(init_r=6, target_r=4, tinit=0.125, tfinal=0.5, deltaT=2)
    assert {type(v) for v in dataclasses.astuple(of_numpy)} == {int}
    # In float16, the product would be 3000, and the sum 1.
    fifth, many = np.float16(0.2), 160_000
    narrow = resolve(many, deltaT=fifth, tinit=np.float16(0.5), tfinal=0.4999)
    assert narrow == resolve(many, deltaT=float(fifth), tinit=0.5, tfinal=0.4999)
    assert narrow.deltaT == 2999
    share = np.float32(0.7)  # of 25, less than 17.5; in float32 it is 17.5
    of_share = resolve(init_r=np.int64(25), target_r=share)
    assert (of_share.init_r, of_share.target_r) == (25, 17)
    assert type(of_share.init_r) is int
    # In int8, the product would be -128.
    assert resolve(batch_size=np.int8(32), world_size=4) == resolve(world_size=4)


# ---- properties -------------------------------------------------------------

counts = st.integers(1, 10**6)
shares = st.floats(0, 1, exclude_max=True)


@given(
    n_samples=counts,
    batch_size=st.integers(1, 10**4),
    epochs=st.integers(1, 100),
    gradient_accumulation_steps=st.integers(1, 64),
    tinit=shares,
    tfinal=shares,
    target_r=st.integers(1, 64),
)
@example(1, 32, 1, 1, 0.5, 0.499, 8)  # a single step
@example(33, 32, 1, 1, 0.49, 0.5, 8)
@example(10**6, 1, 100, 1, 0.9999, 1e-5, 8)
@example(3, 1, 1, 1, 0.0, 0.999, 8)
@example(10, 1, 1, 1, 0.1, 0.8999999999999999, 8)  # 0.1 * 10 and 0.9 * 10 are whole
def test_shares_that_leave_room_always_resolve(
    n_samples,
    batch_size,
    epochs,
    gradient_accumulation_steps,
    tinit,
    tfinal,
    target_r,
):
    if tinit + tfinal >= 1:
        tinit, tfinal = tinit / 2, tfinal / 2
    schedule = resolve_schedule(
        n_samples,
        batch_size=batch_size,
        epochs=epochs,
        gradient_accumulation_steps=gradient_accumulation_steps,
        target_r=target_r,
        tinit=tinit,
        tfinal=tfinal,
    )
    batches = math.ceil(n_samples / batch_size)
    total = epochs * math.ceil(batches / gradient_accumulation_steps)

    assert all(type(v) is int for v in dataclasses.astuple(schedule))
    assert isinstance(schedule.config(), AdaLoraConfig)
    assert schedule.total_step == total == epochs * schedule.steps_per_epoch
    assert abs(schedule.tinit - tinit * total) <= 1
    assert abs(schedule.tfinal - tfinal * total) <= 1


@given(
    n_samples=st.integers(1, 3000),
    epochs=st.integers(1, 4),
    init_r=st.integers(1, 16),
    target=shares.filter(bool),
    tinit=st.floats(0, 0.5),
    tfinal=st.floats(0, 0.49),
    deltaT=st.just("auto") | st.integers(1, 50) | st.floats(0.01, 0.99),
)
def test_the_budget_falls_from_the_first_rank_to_exactly_the_last(
    n_samples, epochs, init_r, target, tinit, tfinal, deltaT
):
    schedule = resolve(
        n_samples,
        epochs=epochs,
        init_r=init_r,
        target_r=target,
        tinit=tinit,
        tfinal=tfinal,
        deltaT=deltaT,
    )
    held = budgets(schedule)

    assert held == sorted(held, reverse=True)
    assert held[0] in (7 * schedule.init_r, held[-1])
    assert held[-1] == 7 * schedule.target_r
    assert all(b == held[0] for b in held[: schedule.tinit])
    assert set(held[schedule.total_step - schedule.tfinal :]) <= {held[-1]}


def test_the_configuration_takes_the_numbers_over():
    schedule = resolve(target_r=4, deltaT=2)
    config = schedule.config(beta1=0.5, lora_dropout=0.1)

    assert (config.beta1, config.lora_dropout) == (0.5, 0.1)
    for name in ("init_r", "target_r", "tinit", "tfinal", "deltaT", "total_step"):
        assert getattr(config, name) == getattr(schedule, name)


def test_a_schedule_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve().tinit = 3


# ---- errors -----------------------------------------------------------------


def test_a_share_of_nearly_all_steps_leaves_one():
    schedule = resolve(tinit=0.0, tfinal=1 - 1e-12)

    assert (schedule.tinit, schedule.tfinal) == (0, schedule.total_step - 1)


@pytest.mark.parametrize("n_samples", [1, 3, 4, 5, 100])
@pytest.mark.parametrize(("tinit", "tfinal"), [(0.6, 0.6), (0.99, 0.01), (0.5, 0.5)])
def test_shares_that_leave_no_room_are_refused_for_any_number_of_rows(
    tinit, tfinal, n_samples
):
    got = rf"sum to less than 1, .* Got tinit={tinit} and tfinal={tfinal}\. Lower one"
    with pytest.raises(ValueError, match=got):
        resolve_schedule(n_samples, batch_size=1, epochs=1, tinit=tinit, tfinal=tfinal)


@pytest.mark.parametrize(
    ("tinit", "tfinal", "warmup", "final"),
    [(50, 50, 50, 50), (0.5, 30, 30, 30), (60, 0, 60, 0), (0, 0.99, 0, 59)],
)
def test_a_schedule_without_reduction_names_every_number(tinit, tfinal, warmup, final):
    def attempt():
        return resolve_schedule(
            1234,
            batch_size=64,
            epochs=3,
            gradient_accumulation_steps=1,
            tinit=tinit,
            tfinal=tfinal,
        )

    if warmup + final < 60:
        assert attempt().tfinal == final
        return
    with pytest.raises(ValueError, match="at least one optimizer step") as raised:
        attempt()
    message = str(raised.value)
    for part in (
        f"tinit={tinit} ({warmup} steps)",
        f"tfinal={tfinal} ({final} steps)",
        "total_step=60",
        "n_samples=1234",
        "batch_size=64",
        "epochs=3",
        "gradient_accumulation_steps=1",
        "shares",
        "more epochs",
    ):
        assert part in message
    assert "world_size" not in message


def test_the_error_counts_the_workers_of_distributed_training():
    with pytest.raises(ValueError, match=r"total_step=3.*world_size=4"):
        resolve(1600, batch_size=400, world_size=4, tinit=2, tfinal=1)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(
        ValueError, match=r"as a share needs `init_r`.*target_r=0\.5 and init_r=None"
    ):
        resolve(target_r=0.5)


def test_a_target_above_the_first_rank_is_refused():
    message = "`target_r` must be at most `init_r`=4. Got 8. Lower `target_r`"
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve(init_r=4, target_r=8)

"""Shares, "auto" and the size of the data become whole optimizer steps."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sk_adalora import AdaLoraConfig
from sk_adalora.training.schedule_steps import resolve_schedule


def resolve(n_samples=1600, **changed):
    return resolve_schedule(n_samples, **{"batch_size": 32, "epochs": 3, **changed})


def budgets(schedule, n_layers=7):
    """What lives after each step of a model of `n_layers`."""
    planned = schedule.config().schedule(n_layers)
    return [planned.held_budget(step) for step in range(schedule.total_step)]


# ---- the numbers ------------------------------------------------------------


def test_a_share_is_no_step_less_for_rounding():
    """0.29 * 100 is a little less than 29, and so are others."""
    for percent in range(1, 100):
        share = percent / 100
        schedule = resolve(100, batch_size=1, epochs=1, tinit=0.0, tfinal=share)
        assert schedule.total_step == 100
        assert schedule.tfinal == percent


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "steps_per_epoch"),
    [(1, 32, 1), (32, 32, 1), (33, 32, 2)],
)
def test_a_last_batch_that_is_not_full_is_a_step_too(
    n_samples, batch_size, steps_per_epoch
):
    schedule = resolve(
        n_samples,
        batch_size=batch_size,
        epochs=5,
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
    ("n_samples", "changed", "epochs"),
    [
        # Few rows are taken more often: until 96 steps, at most 10 times or 64 steps.
        (1, {}, 64),
        (40, {}, 32),
        (192, {}, 11),
        (200, {}, 10),
        (384, {}, 8),
        (1000, {}, 3),
        (10**6, {}, 3),
        # Larger batches do not raise that bound.
        (1000, {"batch_size": 128}, 10),
        (40, {"batch_size": 1024}, 32),
        # Many classes need more steps, and five epochs.
        (1000, {"n_classes": 12}, 3),
        (1000, {"n_classes": 13}, 5),
        (10**6, {"n_classes": 13}, 5),
        (100, {"n_classes": 20}, 16),
        (1000, {"n_classes": 150}, 10),
        # As of numbers.
        (32, {"enough_steps": 32}, 22),
        (100, {"enough_steps": 32}, 8),
        (400, {"enough_steps": 32}, 3),
        (200, {"enough_steps": 32, "n_classes": 6}, 7),
    ],
)
def test_auto_takes_few_rows_more_often(n_samples, changed, epochs):
    schedule = resolve(n_samples, epochs="auto", **changed)

    assert schedule.epochs == epochs
    assert schedule == resolve(n_samples, epochs=epochs, **changed)


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


# ---- properties -------------------------------------------------------------

counts = st.integers(1, 10**6)
shares = st.floats(0, 1, exclude_max=True)


@given(
    n_samples=counts,
    changed=st.fixed_dictionaries(
        {
            "batch_size": st.integers(1, 10**4),
            "epochs": st.integers(1, 100),
            "tinit": shares,
            "tfinal": shares,
        }
    ),
)
@example(1, {"epochs": 1, "tinit": 0.5, "tfinal": 0.499})  # a single step
@example(10, {"batch_size": 1, "epochs": 1, "tinit": 0.1, "tfinal": 0.9 - 1e-16})
def test_shares_that_leave_room_always_resolve(n_samples, changed):
    if changed["tinit"] + changed["tfinal"] >= 1:
        changed |= {name: changed[name] / 2 for name in ("tinit", "tfinal")}
    schedule = resolve(n_samples, **changed)
    total = schedule.total_step

    assert all(type(v) is int for v in dataclasses.astuple(schedule))
    assert isinstance(schedule.config(), AdaLoraConfig)
    assert total == changed["epochs"] * schedule.steps_per_epoch
    assert abs(schedule.tinit - changed["tinit"] * total) <= 1
    assert abs(schedule.tfinal - changed["tfinal"] * total) <= 1


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


# ---- errors -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_samples", "changed", "message"),
    [
        (3, {"tinit": 0.6, "tfinal": 0.6}, "sum to less than 1, .* Got tinit=0.6 and"),
        (100, {"tinit": 0.99, "tfinal": 0.01}, "sum to less than 1"),
        (
            1234,
            {"batch_size": 64, "tinit": 0.5, "tfinal": 30},
            r"tinit=0.5 \(30 steps\) and tfinal=30 .* total_step=60, .*n_samples=1234",
        ),
        (640, {"tinit": 60, "tfinal": 0}, "at least one optimizer step"),
        (640, {"target_r": 0.5}, "needs `init_r`.*target_r=0.5 and init_r=None"),
        (640, {"init_r": 4, "target_r": 8}, "at most `init_r`=4. Got 8. Lower"),
    ],
)
def test_what_contradicts_itself_is_refused(n_samples, changed, message):
    with pytest.raises(ValueError, match=message):
        resolve(n_samples, **changed)


def test_a_share_of_nearly_all_steps_leaves_one():
    schedule = resolve(tinit=0.0, tfinal=1 - 1e-12)

    assert (schedule.tinit, schedule.tfinal) == (0, schedule.total_step - 1)

"""The automatic race: who is stopped, by the folds that all trials share."""

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from sk_adalora.search.pruner import FoldPruner, fold_scores, make_pruner

# Three complete trials: the folds differ by 0.4, the trials by little.
COMPLETE = [[0.9, 0.5, 0.7], [0.88, 0.5, 0.66], [0.86, 0.46, 0.68]]


def means(scores):
    return {k: float(np.mean(scores[: k + 1])) for k in range(len(scores))}


def study_of(*complete):
    study = optuna.create_study(direction="maximize")
    for scores in complete:
        add(study, means(scores), value=float(np.mean(scores)))
    return study


def add(study, reported, value=0.5, state=TrialState.COMPLETE, **more):
    study.add_trial(
        create_trial(state=state, value=value, intermediate_values=reported, **more)
    )


def running(scores):
    return create_trial(state=TrialState.RUNNING, intermediate_values=means(scores))


def stopped(scores, complete=COMPLETE):
    return FoldPruner().prune(study_of(*complete), running(scores))


def test_the_pruner_of_the_user_is_left_alone():
    """A pruner may keep what it has seen of a study."""
    given_by_user = FoldPruner()
    given_by_user.seen = [1]
    used = make_pruner(given_by_user)

    assert used.seen == given_by_user.seen
    assert used.seen is not given_by_user.seen


def test_a_pruner_for_single_scores_is_warned_of(kept):
    from _search_worker import rows, search

    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        pruner = optuna.pruners.WilcoxonPruner()
    with pytest.warns(UserWarning, match="single scores: .* too often. Pass 'auto'"):
        search(n_trials=1, pruner=pruner, **kept).fit(*rows())


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=10))
def test_scores_of_folds_come_back_from_the_means(scores):
    np.testing.assert_allclose(fold_scores(running(scores)), scores, atol=1e-9)


def test_a_trial_is_compared_on_the_folds_that_it_has_seen():
    """0.5 is far below the others on the first fold, and as good on the second."""
    assert stopped([0.5])
    assert not stopped([0.9, 0.5])
    assert not stopped([0.95, 0.45])


def test_the_best_is_that_of_all_folds():
    """Others may be ahead of it on the folds that a trial has seen."""
    first = [[0.99, 0.5, 0.5], [0.98, 0.51, 0.5]]

    assert not stopped([0.9], [*first, [0.9, 0.7, 0.7]])
    assert stopped([0.6], [*first, [0.9, 0.7, 0.7]])


def test_a_lag_within_half_the_standard_error_is_forgiven():
    best = np.array(COMPLETE[0])
    spread = np.sqrt(np.mean([(best - row).var(ddof=1) for row in COMPLETE[1:]]))

    for n_seen in (1, 2):
        error = spread / np.sqrt(n_seen)
        assert not stopped(best[:n_seen] - 0.45 * error)
        assert stopped(best[:n_seen] - 0.55 * error)


def test_noisy_folds_forgive_more():
    noisy = [[0.9, 0.5, 0.7], [0.7, 0.6, 0.7], [0.95, 0.3, 0.75]]

    assert stopped([0.85], COMPLETE)
    assert not stopped([0.85], noisy)


def test_equals_go_on():
    """Also where the folds have no noise, and sums in another order differ."""
    same = [[0.1, 0.2, 0.7]] * 3

    assert not stopped([0.1], same)
    assert not stopped([0.2, 0.1], same)
    assert stopped([0.1, 0.1999], same)
    assert not stopped([0.0], [[0.0, 0.0, 0.0]] * 3)
    errors = [[-0.7, -0.2, -0.1]] * 3
    assert not stopped([-0.7], errors)
    assert not stopped([-0.2, -0.7], errors)
    # By itself, the mean of these folds is less than in the order of the others.
    assert not stopped([0.06, 0.88, 0.24], [[0.24, 0.88, 0.06, 0.34]] * 3)


def test_some_trials_have_to_be_complete_first():
    for n_complete in range(3):
        assert not stopped([0.0], COMPLETE[:n_complete])
    assert stopped([0.0], COMPLETE)


def test_pruned_and_failed_trials_are_not_compared_with():
    study = study_of(*COMPLETE[:2])
    add(study, means([0.9]), state=TrialState.PRUNED)
    add(study, means([0.9, 0.5]), value=None, state=TrialState.FAIL)

    assert not FoldPruner().prune(study, running([0.0]))


def test_nothing_is_stopped_for_being_behind_what_breaks_a_constraint():
    broken = {"system_attrs": {"constraints": [1.0]}}
    study, better = study_of(*COMPLETE[1:]), np.array(COMPLETE) + 1
    for scores in better:
        add(study, means(scores), value=float(np.mean(scores)), **broken)

    assert not FoldPruner().prune(study, running([0.5]))  # only two are comparable
    add(study, means(COMPLETE[0]), value=0.7)
    assert not FoldPruner().prune(study, running([0.9]))
    assert FoldPruner().prune(study, running([0.5]))


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_scores_that_are_not_finite():
    inf = float("inf")
    infinite = [[inf, 0.5, 0.7], [0.9, -inf, 0.7], [0.9, 0.5, inf]]
    study = study_of(*COMPLETE, *infinite)
    prune = FoldPruner().prune

    assert prune(study, running([float("nan")]))
    assert prune(study, running([-inf]))
    assert not prune(study, running([inf, 0.5]))
    assert not prune(study, running([0.9]))
    assert prune(study, running([0.5]))


def test_trials_with_another_number_of_folds_are_left_out():
    """A trial of five folds has no rival among those of three, and the reverse."""
    five = [[0.5] * 5, [0.48] * 5, [0.49] * 5]

    assert not stopped([0.4], COMPLETE + five[:2])
    assert stopped([0.4], COMPLETE + five)
    assert not stopped([0.5], COMPLETE + five)  # 0.9 was the best on other folds
    assert not stopped([0.0] * 3)  # over: nothing left to save

"""What a search notes on its study and on each trial, and what follows from that."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

# Attribute of a study: the fingerprint of what it was made with.
FINGERPRINT = "sk_adalora:fingerprint"
# Attribute of a study, followed by the name of a run: where that run is.
WORKER = "sk_adalora:worker:"
# Attribute of a trial: the run that evaluates it.
RUN = "sk_adalora:run"
# Attribute of a trial, followed by the number of a fold, counted from 0: its results.
FOLD = "sk_adalora:fold:"
# Attribute of a trial that failed by an error of its own. Whoever fails a trial without
# it queues its parameters again, if it had any.
ERROR = "sk_adalora:error"
# Attribute of a trial that was queued when the search began.
FIRST = "sk_adalora:first"
# Attribute of a trial that was queued again: the number of the one that did not get to
# its end.
AGAIN = "sk_adalora:again"
# Attribute of a trial: how many processes died while they evaluated its parameters.
DEATHS = "sk_adalora:deaths"

# System attribute of a trial where Optuna keeps what a sampler's `constraints_func`
# returned; since 5.0 also, with a colon and a name, each constraint that was set.
_CONSTRAINTS = "constraints"


def is_over(trial: FrozenTrial) -> bool:
    """Tell whether a trial is over and will not be tried again."""
    if trial.state is TrialState.FAIL:
        return ERROR in trial.user_attrs
    return trial.state.is_finished()


def is_feasible(trial: FrozenTrial) -> bool:
    """Tell whether a trial that is over keeps all constraints, if there are any."""
    kept = trial.system_attrs
    found = [*(kept.get(_CONSTRAINTS) or ())]
    found += [kept[name] for name in kept if name.startswith(f"{_CONSTRAINTS}:")]
    return all(value <= 0 for value in found)


def may_be_best(trial: FrozenTrial) -> bool:
    """Tell whether a trial may be the best: is complete and keeps the constraints."""
    return trial.state is TrialState.COMPLETE and is_feasible(trial)

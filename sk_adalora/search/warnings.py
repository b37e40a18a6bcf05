"""The warnings of a search: of its space and its trials."""

from __future__ import annotations

from collections.abc import Collection

from optuna.trial import FrozenTrial
from sklearn.exceptions import FitFailedWarning

from sk_adalora.runtime.messages import warn_user

from .marks import FIRST
from .table import TrialTable


def warn_of_few_settings(n_settings: float, n_trials: int) -> None:
    """Warn, before the first trial, if there will be fewer than were asked for."""
    if n_settings < n_trials:
        warn_user(
            "`n_trials` should be at most the number of settings in the space, "
            f"{n_settings}. Got {n_trials}. The search ends when all were tried. Lower "
            "it, or use GridSearchCV."
        )


def warn_of_unasked(queued: FrozenTrial, asked: Collection[str]) -> None:
    """Warn if a function as space has not asked a queued trial for all of its names."""
    point = queued.system_attrs.get("fixed_params", {})
    unasked = [repr(name) for name in point if name not in asked]
    if FIRST in queued.user_attrs and unasked:
        warn_user(
            "`enqueue` should name what `space` asks the trial for: other values are "
            f"left out. Got {', '.join(unasked)}, and trial {queued.number} was asked "
            f"for {', '.join(map(repr, asked)) or 'nothing'}. Take names from "
            "`study_.best_params`, and queue the choices that they depend on, too."
        )


def warn_of_failures(table: TrialTable) -> None:
    """Warn of trials that failed, and of fits that have `error_score` for a score."""
    failed, error = table.number_of("failed"), table.first_error()
    if failed:
        warn_user(
            f"{failed} of {len(table.rows)} trials failed and are left out."
            + (f" The first of them with:\n{error}" if error else ""),
            FitFailedWarning,
        )
    errors = table.scored_errors()
    if errors:
        warn_user(
            f"{len(errors)} of {table.number_of_fits()} fits failed and have "
            f"`error_score` for a score. The first of them with:\n{errors[0]}",
            FitFailedWarning,
        )

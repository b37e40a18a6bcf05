"""What a search found, as lines of text."""

from __future__ import annotations

from typing import Any

import numpy as np

from .table import TrialTable

_LONGEST = 60  # characters of a value
_STATES = ("complete", "pruned", "failed", "infeasible")


def summarise(
    table: TrialTable, results: dict[str, Any], n_folds: int, metric: str | None
) -> str:
    """Describe the trials of a search, and the best of them, in several lines.

    `metric` is the one of several scores that is compared.
    """
    counted = {state: table.number_of(state) for state in _STATES}
    states = ", ".join(f"{n} {state}" for state, n in counted.items() if n)
    name = table.compared(metric)
    best = results[f"rank_test_{name}"].argmin()
    row, mean = table.rows[best], results[f"mean_test_{name}"][best]
    end = ":" if row.params else "."
    trials = "1 trial" if len(table.rows) == 1 else f"{len(table.rows)} trials"
    width = max(map(len, row.params), default=0)
    return "\n".join(
        [
            f"{trials}: {states}.{_count_fits(table, n_folds)}",
            f"Best mean {name}: {mean:.4g}, of trial {row.trial.number}{end}",
            *(f"  {key:{width}}  {_show(row.params[key])}" for key in row.params),
        ]
    )


def _count_fits(table: TrialTable, n_folds: int) -> str:
    """Say how many fits there were, and how many more if no trial had ended early."""
    fits = table.number_of_fits()
    # Of settings that a function excludes: none.
    all_folds = n_folds * sum(bool(row.done) for row in table.rows)
    return f" {fits} fits" + (f" instead of {all_folds}." if fits < all_folds else ".")


def _show(value: Any) -> str:
    """Write a value of any kind in one line that is not too long."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

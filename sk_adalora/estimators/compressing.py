"""Fewer triplets after a fit: `compress`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sklearn.utils.validation import check_is_fitted

from sk_adalora.files.state import fitted_attributes, rebuild_network
from sk_adalora.runtime.rules import number
from sk_adalora.runtime.transaction import unchanged_on_error

from .predicting import load_predictor

_ENERGY = number(0, 1, with_low=False, with_high=True)


@dataclass(frozen=True)
class CompressionReport:
    """What a compression left; `print` shows it as a table.

    Attributes
    ----------
    triplets_before, triplets_after : int
        Sum of the ranks of all weight matrices.
    bytes_before, bytes_after : int
        What the trained numbers take in a file, with the head.
    score_before, score_after : float or None
        The estimator's `score` on the rows that `compress` got.
    """

    triplets_before: int
    triplets_after: int
    bytes_before: int
    bytes_after: int
    score_before: float | None
    score_after: float | None

    def __str__(self) -> str:
        lines = [f"{'':<12}{'before':>12}{'after':>12}"]
        for name in ("triplets", "bytes", "score"):
            pair = [getattr(self, f"{name}_{when}") for when in ("before", "after")]
            shown = "".join(f"{_shown(value):>12}" for value in pair)
            lines.append(f"{name:<12}{shown}")
        return "\n".join(lines)


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def compress(estimator: Any, X: Any, y: Any, energy: float) -> CompressionReport:
    """Prune the updates of a fitted estimator in place, or leave it as it was."""
    check_is_fitted(estimator)
    _check(estimator, X, y, energy)
    adapter = estimator._adapter
    smaller = adapter.compressed(energy)

    def score() -> float | None:
        return None if X is None else float(estimator.score(X, y))

    before = score()
    predictor = load_predictor(estimator)
    records = (estimator.schedule_, estimator.history_, estimator.fit_report_)
    with unchanged_on_error(estimator):
        vars(estimator).update(fitted_attributes(smaller, *records))
        network = rebuild_network(smaller, predictor.backbone)
        estimator._predictor = replace(predictor, network=network)
        return CompressionReport(
            *(adapter.n_triplets, smaller.n_triplets),
            *(adapter.n_bytes, smaller.n_bytes),
            *(before, score()),
        )


def _check(estimator: Any, X: Any, y: Any, energy: Any) -> None:
    if not _ENERGY.accepts(energy):
        raise ValueError(
            f"`energy` must be {_ENERGY.wording}. Got {energy!r}. Pass a "
            "share, such as 0.95."
        )
    if (X is None) != (y is None):
        given = "`X`" if y is None else "`y`"
        raise ValueError(
            f"`compress` must get `X` and `y`, or neither. Got {given} alone. "
            "Pass both to see the score."
        )
    if X is not None and not hasattr(estimator, "score"):
        raise ValueError(
            f"A {type(estimator).__name__} must be compressed without `X` and `y`. Got "
            "both, and it has no score. Leave them out."
        )
    if not estimator._adapter.n_triplets:
        raise ValueError(
            "`compress` must get an estimator with updates. Got one of rank 0. There "
            "is nothing to drop."
        )

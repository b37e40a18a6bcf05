"""Shares, "auto" and the size of the data -> the numbers of an AdaLoraConfig."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from sk_adalora.adalora.config import AdaLoraConfig
from sk_adalora.data.targets import Targets

# Allocations in the reduction phase under deltaT="auto": the paper's runs have 64
# to 1500, and more than a few hundred change nothing.
_ALLOCATIONS = 200

# Few rows need more passes, and so do many classes: epochs="auto" stands for as many as
# make the targets' `enough_steps`, or this many per class if that is more.
# benchmarks/DEFAULTS.md has the studies.
_STEPS_OF_A_CLASS = 8
# The bounds of these epochs. The lower one is higher for more than _FEW_CLASSES, or
# thousands of rows would get fewer than a thousand.
_FEWEST_EPOCHS, _MOST_EPOCHS = 3, 10
_FEW_CLASSES, _FEWEST_OF_MANY = 12, 5
# With very few rows the upper bound is higher: as many epochs as make this share of
# `enough_steps`, in batches of this size.
_NEEDED_SHARE, _DEFAULT_BATCH = 2 / 3, 32


@dataclass(frozen=True)
class ResolvedSchedule:
    """The ranks and steps of a fit, in whole numbers.

    Parameters
    ----------
    init_r, target_r : int
        Rank of every matrix at the start, and their average rank at the end.
    tinit, tfinal : int
        Last optimizer step, counted from 0, at which all updates have full rank; ranks
        fall at the allocations after it. And number of steps at the final ranks.
    deltaT : int
        Number of optimizer steps between two allocations.
    total_step : int
        Number of optimizer steps of the whole training.
    steps_per_epoch : int
        Number of optimizer steps of one epoch.
    """

    init_r: int
    target_r: int
    tinit: int
    tfinal: int
    deltaT: int
    total_step: int
    steps_per_epoch: int

    @property
    def epochs(self) -> int:
        """Passes over the rows; the last may be of a part of them."""
        return math.ceil(self.total_step / self.steps_per_epoch)

    def config(self, **other: Any) -> AdaLoraConfig:
        """Build the configuration of the adapter.

        Parameters
        ----------
        **other : dict
            The fields of :class:`AdaLoraConfig` that are no part of the schedule.

        Returns
        -------
        AdaLoraConfig
        """
        return AdaLoraConfig(
            init_r=self.init_r,
            target_r=self.target_r,
            tinit=self.tinit,
            tfinal=self.tfinal,
            deltaT=self.deltaT,
            total_step=self.total_step,
            **other,
        )


def resolve_schedule(
    n_samples: int,
    *,
    batch_size: int,
    epochs: int | str,
    max_steps: int | None = None,
    enough_steps: int = Targets.enough_steps,
    n_classes: int = 1,
    init_r: int | None = None,
    target_r: int | float = 8,
    tinit: int | float = 0.12,
    tfinal: int | float = 0.48,
    deltaT: int | float | str = "auto",
) -> ResolvedSchedule:
    """Turn an estimator's parameters into whole optimizer steps.

    Parameters
    ----------
    n_samples : int
        Rows to train on.
    batch_size : int
        Rows of an optimizer step.
    epochs : int or "auto"
        Passes over the rows. "auto" stands for as many as make `enough_steps`, or
        8 for each class or label if that is more; at least 3, or 5 for more than 12
        classes or labels, and at most 10 or as many as make two thirds of
        `enough_steps` in batches of 32, whichever is more.
        ``total_step = epochs * ceil(n_samples / batch_size)``.
    max_steps : int or None, default=None
        Upper bound of ``total_step``.
    enough_steps : int, default=96
        Optimizer steps that are enough for few classes, or for numbers.
    n_classes : int, default=1
        Classes or labels that are learned; 1 for numbers, however many a row.
    init_r : int or None, default=None
        Rank at the start. None stands for ``ceil(1.5 * target_r)``.
    target_r : int or float, default=8
        Average rank at the end; a float in (0, 1) is a share of `init_r`.
    tinit, tfinal : int or float
        As in :class:`ResolvedSchedule`, or in [0, 1) as a share of all steps.
    deltaT : int, float or "auto", default="auto"
        Optimizer steps between two allocations, or a share of all steps, or
        1/200 of the reduction phase.

    Returns
    -------
    ResolvedSchedule

    Raises
    ------
    ValueError
        If the ranks contradict each other, if no step is left for reduction, or if
        shares of all steps leave none, however many there are.

    Examples
    --------
    >>> resolve_schedule(1600, batch_size=32, epochs=3, target_r=4)
    ResolvedSchedule(init_r=6, target_r=4, tinit=18, tfinal=72, deltaT=1, \
total_step=150, steps_per_epoch=50)
    """
    steps_per_epoch = math.ceil(n_samples / int(batch_size))
    if isinstance(epochs, str):
        epochs = _epochs(n_samples, steps_per_epoch, enough_steps, n_classes)
    total = int(epochs) * steps_per_epoch
    if max_steps is not None:
        total = min(total, int(max_steps))
    initial, target = _ranks(init_r, target_r)
    first, final = _steps(tinit, total), _steps(tfinal, total)
    if _is_share(tinit) and _is_share(tfinal):
        if float(tinit) + float(tfinal) >= 1:  # rounded, they may leave a step of few
            raise ValueError(
                "`tinit` and `tfinal` as shares of all steps must sum to less than 1, "
                "or no step is left for reducing the ranks. Got "
                f"tinit={tinit} and tfinal={tfinal}. Lower one of them."
            )
        # Rounding may eat the last step.
        final = min(final, total - 1)
        first = min(first, total - final - 1)
    if first + final >= total:
        raise ValueError(
            "`tinit` + `tfinal` must leave at least one optimizer step for reducing "
            f"the ranks. Got tinit={tinit} ({first} steps) and tfinal={tfinal} "
            f"({final} steps) with total_step={total}, which comes from "
            f"n_samples={n_samples}, batch_size={batch_size}, epochs={epochs}, "
            f"max_steps={max_steps}. Give `tinit` and `tfinal` as shares of all steps "
            "that sum to less than 1, or train for more epochs."
        )
    return ResolvedSchedule(
        init_r=initial,
        target_r=target,
        tinit=first,
        tfinal=final,
        deltaT=_interval(deltaT, total, window=total - first - final),
        total_step=total,
        steps_per_epoch=steps_per_epoch,
    )


def default_init_r(target_r: float) -> int:
    """Return the rank at the start that ``init_r=None`` stands for."""
    return math.ceil(1.5 * target_r)


def rank_of_share(share: float, init_r: int) -> int:
    """Return the average rank that a share of `init_r` stands for."""
    return max(1, round(float(share) * init_r))


def _epochs(
    n_samples: int, steps_per_epoch: int, enough_steps: int, n_classes: int
) -> int:
    """Return what ``epochs="auto"`` stands for."""
    steps = max(enough_steps, _STEPS_OF_A_CLASS * n_classes)
    enough = math.ceil(steps / steps_per_epoch)
    # In batches of the default size: a larger `batch_size` is to make a fit shorter.
    batches = math.ceil(n_samples / _DEFAULT_BATCH)
    most = max(_MOST_EPOCHS, math.ceil(_NEEDED_SHARE * enough_steps / batches))
    fewest = _FEWEST_EPOCHS if n_classes <= _FEW_CLASSES else _FEWEST_OF_MANY
    return min(max(enough, fewest), most)


def _is_share(value: float) -> bool:
    return not isinstance(value, Integral)


def _steps(value: float, total: int) -> int:
    if _is_share(value):  # 0.29 of 100 steps are 29, though 0.29 * 100 is less
        return int(round(float(value) * total, 9))
    return int(value)


def _interval(value: float | str, total: int, window: int) -> int:
    if isinstance(value, str):
        return max(1, window // _ALLOCATIONS)
    return max(1, round(float(value) * total)) if _is_share(value) else int(value)


def _ranks(init_r: int | None, target_r: float) -> tuple[int, int]:
    """Return the rank at the start and the average rank at the end."""
    if _is_share(target_r):
        if init_r is None:
            raise ValueError(
                "`target_r` as a share needs `init_r`. Got "
                f"target_r={target_r} and init_r=None. Give `init_r` too, or give "
                "`target_r` as an int."
            )
        return int(init_r), rank_of_share(target_r, init_r)
    initial = default_init_r(target_r) if init_r is None else int(init_r)
    if target_r > initial:
        raise ValueError(
            f"`target_r` must be at most `init_r`={initial}. Got {target_r}. "
            "Lower `target_r` or raise `init_r`."
        )
    return initial, int(target_r)

"""Optimizer steps -> the shares of the peak learning rates that they are taken at."""

from __future__ import annotations

import math

# Steps of "inverse_sqrt" without a warm-up, after which a rate is 0.7 of the peak.
_SCALE_WITHOUT_WARMUP = 10_000


def rate_share(step: int, *, kind: str, warmup_steps: int, total_step: int) -> float:
    """Return the learning rates of a step, as a share of their peaks.

    They are those of transformers' `get_scheduler`, which imports PEFT if it is
    installed, and fails if that is a version for another transformers.

    Parameters
    ----------
    step : int
        Number of optimizer steps before this one.
    kind : {"linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"}
        How the rates fall after the warm-up; "constant" has none.
    warmup_steps : int
        Steps in which the rates rise, from 0.
    total_step : int
        Steps of the whole training.

    Returns
    -------
    float
        From 0 to 1.
    """
    if kind == "constant":
        return 1.0
    if step < warmup_steps:
        return step / warmup_steps
    if kind == "constant_with_warmup":
        return 1.0
    after = step - warmup_steps
    if kind == "inverse_sqrt":
        scale = warmup_steps or _SCALE_WITHOUT_WARMUP
        return 1 / math.sqrt((after + scale) / scale)
    falling = max(1, total_step - warmup_steps)
    if kind == "cosine":
        return max(0.0, 0.5 * (1 + math.cos(math.pi * (after / falling))))
    return max(0.0, (total_step - step) / falling)

"""The attributes that the mixins of an estimator share, for type checkers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from ._parameters import Rule
from ._persistence import AdapterState
from ._report import FitReport
from ._steps import ResolvedSchedule
from ._training import TrainingHistory


class Attributes:
    """Parameters, and what a fit sets: the estimators' docstrings explain them."""

    model: str | os.PathLike[str]
    target_r: int | float
    init_r: int | None
    tinit: int | float
    tfinal: int | float
    deltaT: int | float | str
    beta1: float
    beta2: float
    orth_reg_weight: float
    lora_alpha: float | None
    lora_dropout: float
    target_modules: Any
    epochs: int | str
    batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    head_learning_rate: float | None
    head_init: str
    interpolation: float | str
    weight_decay: float
    warmup_ratio: float
    lr_scheduler_type: str
    max_grad_norm: float | None
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    scoring: Any
    warm_start: bool
    row_format: str | Callable[[Any], str]
    max_length: int
    long_text: str
    pooling: str
    device: str
    precision: str
    revision: str | None
    local_files_only: bool
    trust_remote_code: bool
    random_state: Any
    verbose: int

    n_features_in_: int
    feature_names_in_: np.ndarray
    n_iter_: int
    total_step_: int
    schedule_: ResolvedSchedule
    ranks_: dict[str, int]
    rank_pattern_: dict[str, list[bool]]
    history_: TrainingHistory
    fit_report_: FitReport
    _adapter: AdapterState

    _rules: ClassVar[Mapping[str, Rule]]

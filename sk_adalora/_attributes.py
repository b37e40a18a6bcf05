"""The parameters of both estimators, and the attributes that a fit sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from ._find_model import DEFAULT_MODEL
from ._parameters import Rule
from ._persistence import AdapterState
from ._report import FitReport
from ._steps import ResolvedSchedule
from ._training import TrainingHistory


class Parameters:
    """What both estimators and their mixins have; their docstrings explain it."""

    _rules: ClassVar[Mapping[str, Rule]]

    # What a fit sets, for type checkers.
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

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        target_r: int | float = 8,
        init_r: int | None = None,
        tinit: int | float = 0.12,
        tfinal: int | float = 0.48,
        deltaT: int | float | str = "auto",
        beta1: float = 0.85,
        beta2: float = 0.85,
        orth_reg_weight: float = 0.1,
        lora_alpha: float | None = None,
        lora_dropout: float = 0.0,
        target_modules: Any = "all-linear",
        epochs: int | str = "auto",
        batch_size: int = 32,
        gradient_accumulation_steps: int = 1,
        learning_rate: float = 0.008,
        head_learning_rate: float | None = None,
        head_init: str = "auto",
        interpolation: float | str = "auto",
        weight_decay: float = 0.0,
        warmup_ratio: float = 0.06,
        lr_scheduler_type: str = "linear",
        max_grad_norm: float | None = 1.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 3,
        scoring: Any = None,
        warm_start: bool = False,
        row_format: str | Callable[[Any], str] = "auto",
        max_length: int = 256,
        long_text: str = "truncate",
        pooling: str = "mean",
        device: str = "auto",
        precision: str = "auto",
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.target_r = target_r
        self.init_r = init_r
        self.tinit = tinit
        self.tfinal = tfinal
        self.deltaT = deltaT
        self.beta1 = beta1
        self.beta2 = beta2
        self.orth_reg_weight = orth_reg_weight
        self.lora_alpha = lora_alpha
        self.lora_dropout = lora_dropout
        self.target_modules = target_modules
        self.epochs = epochs
        self.batch_size = batch_size
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.learning_rate = learning_rate
        self.head_learning_rate = head_learning_rate
        self.head_init = head_init
        self.interpolation = interpolation
        self.weight_decay = weight_decay
        self.warmup_ratio = warmup_ratio
        self.lr_scheduler_type = lr_scheduler_type
        self.max_grad_norm = max_grad_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.scoring = scoring
        self.warm_start = warm_start
        self.row_format = row_format
        self.max_length = max_length
        self.long_text = long_text
        self.pooling = pooling
        self.device = device
        self.precision = precision
        self.revision = revision
        self.local_files_only = local_files_only
        self.trust_remote_code = trust_remote_code
        self.random_state = random_state
        self.verbose = verbose

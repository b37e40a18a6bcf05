"""The parameters of both estimators, and one table of rules for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from sk_adalora.pretrained.find import DEFAULT_MODEL
from sk_adalora.runtime.rules import (
    BOOLEAN,
    DEVICE,
    FUNCTION,
    NAMES,
    NONE,
    PATH,
    POOLINGS,
    RANDOM_STATE,
    SCHEDULERS,
    SCORER,
    TEXT,
    Rule,
    choice,
    instance,
    integer,
    number,
    share,
)


class Parameters:
    """The constructor of both estimators; their docstrings explain the parameters."""

    _rules: ClassVar[Mapping[str, Rule]]

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


SHARED_RULES: dict[str, Rule] = {
    "model": PATH,
    "target_r": integer(1) | share(with_zero=False),
    "init_r": integer(1) | NONE,
    "tinit": integer(0) | share(with_zero=True),
    "tfinal": integer(0) | share(with_zero=True),
    "deltaT": integer(1) | share(with_zero=False) | choice("auto"),
    "beta1": number(0, 1, with_low=False),
    "beta2": number(0, 1, with_low=False),
    "orth_reg_weight": number(0),
    "lora_alpha": number(0, with_low=False) | NONE,
    "lora_dropout": number(0, 1),
    "target_modules": TEXT | NAMES,
    "epochs": integer(1) | choice("auto"),
    "batch_size": integer(1),
    "gradient_accumulation_steps": integer(1),
    "learning_rate": number(0, with_low=False),
    "head_learning_rate": number(0, with_low=False) | NONE,
    "head_init": choice("auto", "linear_probe", "random"),
    "interpolation": number(0, 1, with_high=True) | choice("auto"),
    "weight_decay": number(0),
    "warmup_ratio": number(0, 1, with_high=True),
    "lr_scheduler_type": choice(*SCHEDULERS),
    "max_grad_norm": number(0, with_low=False) | NONE,
    "early_stopping": BOOLEAN,
    "validation_fraction": number(0, 1, with_low=False),
    "n_iter_no_change": integer(1),
    "scoring": SCORER | FUNCTION | NONE,
    "warm_start": BOOLEAN,
    "row_format": TEXT | FUNCTION,
    "max_length": integer(2),
    "long_text": choice("truncate", "head_tail", "windows"),
    "pooling": choice(*POOLINGS, "model"),
    "device": DEVICE,
    "precision": choice("auto", "float32", "bfloat16", "float16"),
    "revision": TEXT | NONE,
    "local_files_only": BOOLEAN,
    "trust_remote_code": BOOLEAN,
    "random_state": RANDOM_STATE,
    "verbose": integer(0) | BOOLEAN,
}

REGRESSOR_RULES = SHARED_RULES

CLASSIFIER_RULES: dict[str, Rule] = {
    **SHARED_RULES,
    "class_weight": choice("balanced") | instance(Mapping, "a dict") | NONE,
}

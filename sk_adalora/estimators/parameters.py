"""One table of rules for the parameters of the estimators."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sk_adalora.runtime.rules import (
    BOOLEAN,
    DEVICE,
    FUNCTION,
    NAMES,
    NONE,
    PATH,
    POOLINGS,
    RANDOM_STATE,
    SCORER,
    SPLITS,
    TEXT,
    Rule,
    choice,
    instance,
    integer,
    number,
    share,
)

SHARED_RULES: dict[str, Rule] = {
    "model": PATH,
    "target_r": integer(1) | share(with_zero=False),
    "epochs": integer(1) | choice("auto"),
    "learning_rate": number(0, with_low=False),
    "batch_size": integer(1),
    "max_length": integer(2),
    "random_state": RANDOM_STATE,
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
    "warmup_ratio": number(0, 1, with_high=True),
    "max_steps": integer(1) | NONE,
    "timeout": number(0, with_low=False) | NONE,
    "row_format": TEXT | FUNCTION,
    "long_text": choice("truncate", "head_tail", "windows"),
    "pooling": choice(*POOLINGS, "model"),
    "early_stopping": BOOLEAN,
    "validation_fraction": number(0, 1, with_low=False),
    "n_iter_no_change": integer(1),
    "scoring": SCORER | FUNCTION | NONE,
    "warm_start": BOOLEAN,
    "device": DEVICE,
    "precision": choice("auto", "float32", "bfloat16", "float16"),
    "model_kwargs": instance(Mapping, "a dict") | NONE,
    "checkpoint_dir": instance((str, os.PathLike), "a folder") | NONE,
    "verbose": integer(0) | BOOLEAN,
}

CLASSIFIER_RULES: dict[str, Rule] = {
    **SHARED_RULES,
    "class_weight": choice("balanced") | instance(Mapping, "a dict") | NONE,
    "calibrate": choice("temperature") | NONE,
    "thresholds": choice("f1") | NONE,
}

# Of an encoder's own fits, none is scored, continued or calibrated.
_NOT_OF_ENCODERS = {
    "calibrate",
    "thresholds",
    "early_stopping",
    "validation_fraction",
    "n_iter_no_change",
    "scoring",
    "warm_start",
}
ENCODER_RULES: dict[str, Rule] = {
    **{name: r for name, r in CLASSIFIER_RULES.items() if name not in _NOT_OF_ENCODERS},
    "pooling": choice(*POOLINGS),
    "n_components": integer(1) | NONE,
    "output": choice("vectors", "predictions", "both"),
    "tune": BOOLEAN,
    "cv": integer(2) | SPLITS,
    "target_type": choice("auto", "multiclass", "continuous"),
}

# What the estimators of mixed tables average, and their rules but for `encoder`.
TABLE_PARTS = ("columns", "vectors", "text", "linear")
TABLE_RULES: dict[str, Rule] = {
    "final_estimator": Rule(
        lambda v: hasattr(v, "fit") and not isinstance(v, type),
        "an estimator of scikit-learn's interface",
    )
    | NONE,
    "column_roles": instance(Mapping, "a dict") | NONE,
    "parts": Rule(
        lambda v: NAMES.accepts(v) and set(v) <= set(TABLE_PARTS),
        f"some of {', '.join(map(repr, TABLE_PARTS))}, in a tuple or list",
    ),
    "cv": integer(2) | SPLITS,
    "class_weight": CLASSIFIER_RULES["class_weight"],
    "random_state": RANDOM_STATE,
    "verbose": integer(0) | BOOLEAN,
}

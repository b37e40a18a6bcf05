"""The parameters of both estimators, and one table of rules for them."""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

# Characters of a value that a message shows.
_SHOWN = 500

SCHEDULERS = (
    "linear",
    "cosine",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)
# How the tokens of a text become one vector, which a linear head reads.
POOLINGS = ("mean", "cls", "last", "max")


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


@dataclass(frozen=True)
class Rule:
    """What a parameter may be.

    Parameters
    ----------
    accepts : callable
        Tells whether a value is allowed.
    wording : str
        Completes the sentence "`name` must be ...".
    words : callable, default=tuple
        Returns the words that are allowed, to suggest one for a misspelt value.
    """

    accepts: Callable[[Any], bool]
    wording: str
    words: Callable[[], Iterable[str]] = tuple

    def __or__(self, other: Rule) -> Rule:
        return Rule(
            lambda value: self.accepts(value) or other.accepts(value),
            f"{self.wording}, or {other.wording}",
            lambda: [*self.words(), *other.words()],
        )


def integer(low: int, high: float = math.inf) -> Rule:
    """Allow whole numbers from `low` on, up to `high`."""
    bound = f" and at most {high}" if math.isfinite(high) else ""
    return Rule(
        lambda v: _is_integer(v) and low <= v <= high,
        f"an int of at least {low}{bound}",
    )


def number(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    with_low: bool = True,
    with_high: bool = False,
) -> Rule:
    """Allow finite numbers in an interval."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, Real) or _is_bool(value) or not _is_finite(value):
            return False
        x: Any = value
        above = x >= low if with_low else x > low
        return above and (x <= high if with_high else x < high)

    left, right = "[" if with_low else "(", "]" if with_high else ")"
    return Rule(accepts, f"a number in {left}{low:g}, {high:g}{right}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def share(*, with_zero: bool) -> Rule:
    """Allow floats below 1, as shares; an int would mean a number of steps or ranks."""
    inside = number(0, 1, with_low=with_zero)
    return Rule(
        lambda v: inside.accepts(v) and not _is_integer(v),
        f"a float in {'[' if with_zero else '('}0, 1)",
    )


def choice(*values: str) -> Rule:
    """Allow some words."""
    return Rule(
        lambda v: isinstance(v, str) and v in values,
        f"one of {', '.join(map(repr, values))}" if len(values) > 1 else repr(*values),
        lambda: values,
    )


def instance(kind: type | tuple[type, ...], wording: str) -> Rule:
    """Allow objects of some types."""
    return Rule(lambda v: isinstance(v, kind), wording)


def _scorers() -> list[str]:
    from sklearn.metrics import get_scorer_names  # a space needs no metrics

    return get_scorer_names()


NONE = Rule(lambda v: v is None, "None")
BOOLEAN = Rule(lambda v: isinstance(v, bool | np.bool_), "True or False")
TEXT = Rule(lambda v: isinstance(v, str) and bool(v), "a str that is not empty")
PATH = Rule(
    lambda v: isinstance(v, str | os.PathLike) and bool(os.fspath(v)),
    "a Hugging Face model id or a folder",
)
DEVICE = Rule(TEXT.accepts, "'auto', or a device's name as a str, such as 'cuda:0'")
FUNCTION = Rule(callable, "a callable")
SCORER = Rule(
    lambda v: isinstance(v, str) and v in _scorers(),
    "a name of `sklearn.metrics.get_scorer_names()`",
    _scorers,
)
NAMES = Rule(
    lambda v: (
        isinstance(v, Collection)
        and not isinstance(v, str | Mapping)
        and len(v) > 0
        and all(isinstance(name, str) for name in v)
    ),
    "a list of str",
)
RANDOM_STATE = (
    integer(0, high=2**32 - 1) | instance(np.random.RandomState, "a RandomState") | NONE
)

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


def check_parameters(estimator: Any, rules: Mapping[str, Rule]) -> None:
    """Check every parameter of an estimator that has a rule."""
    for name, value in estimator.get_params(deep=False).items():
        rule = rules.get(name)  # none for what a subclass adds
        if rule is not None and not rule.accepts(value):
            raise ValueError(
                f"`{name}` of {type(estimator).__name__} must be {rule.wording}. "
                f"Got {_shown(value)}. {_meant(value, rule)}Change it with "
                f"`set_params({name}=...)`."
            )


def _shown(value: Any) -> str:
    shown = repr(value)  # may be hundreds of lines, as of a model or a table
    return shown if len(shown) <= _SHOWN else f"an object of {type(value).__name__}"


def _meant(value: Any, rule: Rule) -> str:
    close = did_you_mean(value, rule.words()) if isinstance(value, str) else ""
    return f"{close} " if close else ""


def defaults_of(cls: Any) -> dict[str, Any]:
    """Return the parameters that have a default: an older version may lack some."""
    own = inspect.signature(cls).parameters
    return {
        name: own[name].default
        for name in cls._get_param_names()
        if own[name].default is not inspect.Parameter.empty
    }


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Suggest words that are close to one that is not known; nothing if none is."""
    words = [*known]
    # The beginning of a word, or a parameter's name without that of its step, mostly
    # means that word, but difflib rarely finds it close.
    longer = [w for w in words if given and w.startswith(given)]
    longer += [w for w in words if w.endswith(f"__{given}")]
    others = difflib.get_close_matches(given, words, n=3)
    close = [*dict.fromkeys([*longer, *others])][:3]
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else ""


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not _is_bool(value)

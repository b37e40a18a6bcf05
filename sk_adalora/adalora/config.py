"""The settings of an adapter: fields, defaults and every rule between them."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

from .schedule import BudgetSchedule
from .untrusted import read_json

CONFIG_NAME = "adapter_config.json"

# PEFT's names of tasks.
_TASKS = (
    "SEQ_CLS",
    "SEQ_2_SEQ_LM",
    "CAUSAL_LM",
    "TOKEN_CLS",
    "QUESTION_ANS",
    "FEATURE_EXTRACTION",
)

# Fields that hold lists, and of what.
_LISTS = {"layers_to_transform": int, "layers_pattern": str, "modules_to_save": str}

# Fields of PEFT that its AdaLoRA does not read.
_WITHOUT_EFFECT = {"r", "use_rslora", "alpha_pattern", "auto_mapping", "peft_version"}
# What PEFT writes for its other methods where they are off, beside null and the like.
_OFF: dict[str, Any] = {
    "bias": "none",
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "runtime_config": {"ephemeral_gpu_offload": False},
}


@dataclass
class AdaLoraConfig:
    """Settings of AdaLoRA [1]_, under PEFT's names.

    Training has three phases, in optimizer steps counted from 0: full rank up to step
    ``tinit``; a reduction, in which the total rank (the budget) falls cubically, so
    fast at first; and ``tfinal`` steps at the target. With
    ``tinit=10, tfinal=20, total_step=100`` the budget is full at steps 0 to 10, falls
    from there, and is the target at steps 80 to 99.

    Parameters
    ----------
    target_r : int or None, default=None
        Average rank of a matrix when training ends; at most ``init_r``, and at least 0,
        unlike in the estimators. None stands for 8, as in PEFT, or for two thirds of an
        ``init_r`` below 12.
    init_r : int, default=12
        Rank of every matrix when training starts.
    tinit : int, default=0
        Last optimizer step, counted from 0, at which all matrices have full rank; ranks
        fall at the allocations after it.
    tfinal : int, default=0
        Number of steps at the target, before training ends.
    deltaT : int, default=1
        Number of steps between two allocations.
    beta1, beta2 : float, default=0.85
        Decay factors, in (0, 1), of the moving averages of the sensitivity and of its
        uncertainty. Together, they decide which ranks are removed.
    orth_reg_weight : float, default=0.5
        Weight of the penalty that keeps the directions of an update orthogonal, in
        ``AdaLoraModel.orthogonality_loss``.
    total_step : int
        Number of steps of the whole training. It must be given.
    rank_pattern : dict or None, default=None
        Final ranks to start with and to keep, as PEFT writes them:
        ``{"<path>.lora_E": [bool] * init_r}`` for every adapted layer. Only the number
        of True counts. None or empty, all layers start at ``init_r``.
    target_modules : set of str, str or None, default=None
        Which linear layers get an update: a set or list of endings of their names, a
        regular expression for whole paths, or ``"all-linear"``, for which None stands:
        every linear layer but pooler, embeddings and head.
    exclude_modules : set of str, str or None, default=None
        Layers to leave out of these: endings of names, or a regular expression.
    layers_to_transform : int, list of int or None, default=None
        Numbers of the layers to adapt. None stands for all.
    layers_pattern : str, list of str or None, default=None
        Name of the list in which these numbers count, such as ``"layer"``.
    modules_to_save : list of str or None, default=None
        Modules to train in full and to store with the adapter: endings of their names.
    task_type : str or None, default=None
        PEFT's name of the task. ``"SEQ_CLS"`` and ``"TOKEN_CLS"`` add the model's
        ``classifier`` and ``score`` to ``modules_to_save``, and ``"QUESTION_ANS"`` its
        ``qa_outputs``; ``"CAUSAL_LM"``, ``"SEQ_2_SEQ_LM"`` and
        ``"FEATURE_EXTRACTION"`` add nothing. A head of another name is not found:
        name it in ``modules_to_save``.
    lora_alpha : int or float, default=8
        Strength of the update: it is multiplied by ``lora_alpha / (init_r + 1e-5)``, as
        in PEFT. 0 stands for ``init_r``.
    lora_dropout : float, default=0.0
        Probability, in [0, 1), with which training drops an input of the update.
    init_lora_weights : bool or "gaussian", default=True
        Whether the update starts as zero, so that the model first computes what the
        pretrained one does. False draws all its numbers from N(0, 1), for tests: the
        update is then much larger than the weights of most models. "gaussian" is True:
        the directions of an update of zero are drawn from a normal distribution.
    fan_in_fan_out : bool, default=False
        Whether weights are stored as ``(in, out)``. It is set to what the adapted
        layers are.
    inference_mode : bool, default=False
        Whether the adapter starts frozen.
    base_model_name_or_path : str, os.PathLike or None, default=None
        The pretrained model that the adapter belongs to. For None, saving an adapter
        writes the name or path that transformers loaded the model from.
    revision : str or None, default=None
        The version of that model.
    peft_type : str, default="ADALORA"
        The method, as it is written into files.

    Raises
    ------
    ValueError, TypeError
        If a value is out of range, or if the schedule leaves no step for the reduction.

    References
    ----------
    .. [1] Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient
       Fine-Tuning", ICLR 2023, arXiv:2303.10512.

    Examples
    --------
    >>> config = AdaLoraConfig(init_r=12, target_r=4, tinit=10, tfinal=20,
    ...                        total_step=100)
    >>> config.peft_type
    'ADALORA'
    """

    target_r: int | None = None
    init_r: int = 12
    tinit: int = 0
    tfinal: int = 0
    deltaT: int = 1
    beta1: float = 0.85
    beta2: float = 0.85
    orth_reg_weight: float = 0.5
    total_step: int | None = None
    rank_pattern: dict[str, list[bool]] | None = None
    target_modules: set[str] | list[str] | str | None = None
    exclude_modules: set[str] | list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    task_type: str | None = None
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    init_lora_weights: bool | str = True
    fan_in_fan_out: bool = False
    inference_mode: bool = False
    base_model_name_or_path: str | None = None
    revision: str | None = None
    peft_type: str = "ADALORA"

    method: ClassVar[str] = "ADALORA"

    def __post_init__(self) -> None:
        self.peft_type = self.method
        for each in fields(self):  # JSON has no paths, and no numbers of NumPy
            setattr(self, each.name, _as_plain(getattr(self, each.name)))
        for name in ("base_model_name_or_path", "revision"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(
                    f"`{name}` must be a str or None. Got "
                    f"{reprlib.repr(getattr(self, name))}. Leave it out."
                )
        self._check_layers()
        self._check_schedule()
        _check_number("lora_alpha", self.lora_alpha)
        _check_number("lora_dropout", self.lora_dropout, below=1)
        for name, known in (
            ("task_type", (None, *_TASKS)),
            ("init_lora_weights", (True, False, "gaussian")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"`{name}` must be one of {known}. Got {getattr(self, name)!r}. "
                    "Choose one of these, or leave it out."
                )
        self.rank_pattern = self.rank_pattern or None
        pattern = {} if self.rank_pattern is None else self.rank_pattern
        if not (isinstance(pattern, dict) and all(map(_are_flags, pattern.values()))):
            raise TypeError(
                "`rank_pattern` must hold a list of true and false for each layer. Got "
                f"{reprlib.repr(pattern)}. It says what a trained adapter has left: "
                "leave it out to start with `init_r` everywhere."
            )

    def _check_layers(self) -> None:
        """Check what layers are called; give lists and sets one type each."""
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            _check_each(name, value, str)
            if isinstance(value, str):
                try:
                    re.compile(value)
                except re.error as error:
                    raise ValueError(
                        f"`{name}` must be a list of name endings or a regular "
                        f"expression. Got {value!r}: {error}. Correct the expression."
                    ) from error
            elif value is not None:
                setattr(self, name, set(value))
        for name, kind in _LISTS.items():
            value = getattr(self, name)
            _check_each(name, value, kind)
            if isinstance(value, set | frozenset):  # which JSON has not
                setattr(self, name, sorted(value))
        if isinstance(self.modules_to_save, str):
            raise TypeError(
                "`modules_to_save` must be a list of name endings. Got the str "
                f"{self.modules_to_save!r}. Pass [{self.modules_to_save!r}]."
            )
        by_number = self.layers_pattern or self.layers_to_transform is not None
        if by_number and isinstance(self.target_modules, str):
            raise ValueError(
                "`layers_to_transform` and `layers_pattern` cannot be used when "
                f"`target_modules` is a str. Got {self.target_modules!r}. List the "
                "name endings instead, or leave them out."
            )
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError(
                "`layers_pattern` needs `layers_to_transform`. Got "
                f"layers_pattern={self.layers_pattern!r} alone. Say which layers."
            )

    def _check_schedule(self) -> None:
        if self.total_step is None:
            raise ValueError(
                "`total_step` must be given. Got None. Set it to the number of "
                "optimizer steps of the whole training."
            )
        for name in ("total_step", "init_r", "deltaT"):
            _check_integer(name, getattr(self, name), low=1)
        if self.target_r is None:
            self.target_r = min(8, max(1, 2 * self.init_r // 3))
        for name in ("target_r", "tinit", "tfinal"):
            _check_integer(name, getattr(self, name), low=0)
        for name in ("beta1", "beta2"):
            _check_number(name, getattr(self, name), with_zero=False, below=1)
        _check_number("orth_reg_weight", self.orth_reg_weight)
        if self.tinit >= self.total_step - self.tfinal:
            raise ValueError(
                "`tinit` + `tfinal` must be below `total_step`, or no step is left "
                f"for reducing the ranks. Got tinit={self.tinit}, "
                f"tfinal={self.tfinal}, total_step={self.total_step}. Lower `tinit` "
                "or `tfinal`, or raise `total_step`."
            )
        if self.target_r > self.init_r:
            raise ValueError(
                f"`target_r` must be at most `init_r`={self.init_r}. "
                f"Got {self.target_r}. Lower `target_r` or raise `init_r`."
            )

    @property
    def scale(self) -> float:
        """Factor by which updates are multiplied; pruning does not change it."""
        # PEFT's formula, its 1e-5 and its meaning of 0 included, so that an adapter
        # gives the same outputs there.
        return (self.lora_alpha or self.init_r) / (self.init_r + 1e-5)

    def schedule(self, n_layers: int = 1) -> BudgetSchedule:
        """Plan the budget of a number of adapted layers.

        Parameters
        ----------
        n_layers : int, default=1
            Number of adapted layers. With 1, a budget is an average rank.

        Returns
        -------
        BudgetSchedule
            The total rank at each step.
        """
        # By __post_init__.
        assert self.total_step is not None
        assert self.target_r is not None
        return BudgetSchedule(
            initial=self.init_r * n_layers,
            target=self.target_r * n_layers,
            tinit=self.tinit,
            tfinal=self.tfinal,
            deltaT=self.deltaT,
            total_step=self.total_step,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, with sets as sorted lists.

        Returns
        -------
        dict
            The values, by the names of the fields.
        """
        return {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make a configuration from what `to_dict` returned, or from PEFT's JSON.

        Parameters
        ----------
        values : dict
            The values, by the names of the fields. Fields that are not known here are
            left out if they are off, or if PEFT's own AdaLoRA does not read them.

        Returns
        -------
        AdaLoraConfig
            The configuration.

        Raises
        ------
        ValueError, TypeError
            If the values belong to another method, if one of them is wrong, or if a
            field that is not known here is on.
        """
        method = values.get("peft_type") or cls.method
        if method != cls.method:
            raise ValueError(
                f"`peft_type` must be {cls.method!r}. Got {method!r}. "
                "Load it with peft, which has that method."
            )
        known = {each.name for each in fields(cls)}
        others = values.keys() - known - _WITHOUT_EFFECT
        unknown = [n for n in sorted(others) if values[n] and values[n] != _OFF.get(n)]
        if unknown:
            raise ValueError(
                f"The fields of an {cls.__name__} must be known here, or be off. Got "
                f"others: {', '.join(unknown)}. Train without them, or update "
                "sk-adalora if they are new in PEFT."
            )
        return cls(**{name: value for name, value in values.items() if name in known})

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write ``adapter_config.json`` as PEFT does.

        Parameters
        ----------
        save_directory : path-like
            The folder to write to. It is created if there is none; an existing file is
            replaced.
        """
        folder = Path(os.path.expanduser(save_directory))
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True)
        path = folder / CONFIG_NAME
        path.write_text(text + "\n", encoding="utf8", newline="\n")

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str]) -> Self:
        """Read ``adapter_config.json`` from a local folder.

        Parameters
        ----------
        directory : path-like
            The adapter's folder.

        Returns
        -------
        AdaLoraConfig
            The configuration.

        Raises
        ------
        FileNotFoundError
            If the folder holds no such file.
        ValueError, TypeError
            If the file is not a JSON object, or if one of its values is wrong.
        """
        folder = Path(os.path.expanduser(directory))
        return cls.from_dict(read_json(folder / CONFIG_NAME))


def _as_plain(value: Any) -> Any:
    """Convert paths, and numbers and arrays of NumPy, also in lists: JSON has none."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(_as_plain, value))
    return value


def _are_flags(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(f, bool) for f in value)


def _check_each(name: str, value: Any, kind: type) -> None:
    """Refuse what is not None, a value of a type, or some values of that type."""
    several = isinstance(value, list | tuple | set | frozenset)
    each = [] if value is None else value if several else [value]
    if not all(isinstance(v, kind) and not isinstance(v, bool) for v in each):
        raise TypeError(
            f"`{name}` must be a list of {kind.__name__}. "
            f"Got {reprlib.repr(value)}. Pass a list."
        )


def _check_integer(name: str, value: Any, low: int) -> None:
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < low:
        raise (ValueError if is_integer else TypeError)(
            f"`{name}` must be an integer of at least {low}. Got {value!r}. Pass one."
        )


def _check_number(
    name: str, value: Any, *, with_zero: bool = True, below: float = math.inf
) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    low = 0.0 if with_zero else math.ulp(0.0)
    if not (is_number and low <= value < below):  # NaN fails every comparison
        raise (ValueError if is_number else TypeError)(
            f"`{name}` must be a number in {'[' if with_zero else '('}0, {below}). "
            f"Got {value!r}. Choose one inside."
        )


# Where users import it from, so that pickles do not name this file. Set here, not in
# the class: dataclasses look up their annotations by it.
AdaLoraConfig.__module__ = "sk_adalora"

"""What classifier and regressor share: parameters, and what of a fit is pickled."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin

from ._doc_links import DocLinkMixin
from ._file_versions import check_names, is_later
from ._find_model import DEFAULT_MODEL
from ._fitting import FitMixin
from ._folder import FolderMixin
from ._parameters import defaults_of
from ._persistence import with_plain_records, with_records
from ._transaction import CALLBACKS

if TYPE_CHECKING:  # scikit-learn's is untyped: what it decorates would be Any
    _Method = TypeVar("_Method", bound=Callable[..., Any])

    def with_callbacks(method: _Method) -> _Method: ...

else:
    from sklearn.callback import with_callbacks as with_callbacks

# Attribute of an instance whose state comes from a pickle or a copy.
_IS_PICKLE = "is_pickle"


def _new_of_a_pickle(cls: type[BaseAdaLora]) -> BaseAdaLora:
    """Make an instance for `__setstate__` to fill from a pickle or a copy."""
    new = cls.__new__(cls)
    new.__dict__[_IS_PICKLE] = True
    return new


class BaseAdaLora(
    FitMixin,
    FolderMixin,
    DocLinkMixin,
    CallbackSupportMixin,
    BaseEstimator,
):
    """A text estimator. Subclasses define targets, loss and outputs."""

    if TYPE_CHECKING:  # scikit-learn's are untyped

        def set_callbacks(self, *callbacks: Any) -> Self: ...

        def set_params(self, **params: Any) -> Self: ...

        def set_fit_request(self, **kwargs: bool | str | None) -> Self: ...

        def set_score_request(self, **kwargs: bool | str | None) -> Self: ...

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

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled.

        Never: the backbone's weights and tokenizer (they are found again by name
        and checked by hash), device handles, the optimizer, caches, the callbacks of
        a fitted estimator. Always: the parameters, the triplets and the head as
        float32 arrays on the CPU, ranks, the coding of the targets, names of
        columns, report and history, the backbone's name and hash, versions and a
        format number. Records such as `history_` are dicts in it, so that a file
        names no class but the estimator's.
        """
        state = dict(super().__getstate__())
        state.pop("_live", None)
        state.pop(_IS_PICKLE, None)
        # Fitted, or a copy that a callback got: its callbacks have done their work.
        if "_adapter" in state or "_callback_fit_ctx" in state:
            for name in CALLBACKS:
                state.pop(name, None)
        return with_plain_records(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`__getstate__` returned.

        Whoever wrote a file of skops is not trusted to run code here: it comes with
        `trust_remote_code` off. A pickle is a program, and keeps it.

        Raises
        ------
        ValueError
            If a later version wrote something that this one does not know.
        """
        state = defaults_of(type(self)) | with_records(state)
        versions = getattr(state.get("_adapter"), "versions", {})
        if is_later(versions):
            known = self._get_param_names()
            what = f"the parameters of {type(self).__name__}"
            public = [name for name in state if name == name.strip("_")]
            check_names(public, known, what, versions, may_lack=known)
        if not self.__dict__.pop(_IS_PICKLE, False) and "trust_remote_code" in state:
            state["trust_remote_code"] = False
        super().__setstate__(state)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Pickles and copies come by here; skops asks for the state alone.
        made = super().__reduce_ex__(protocol)
        assert isinstance(made, tuple), "an instance is no global name"
        if getattr(made[0], "__module__", None) != "copyreg":  # of a subclass
            return made
        return (_new_of_a_pickle, (type(self),), *made[2:])

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_adapter") or getattr(self, "_live", None) is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.input_tags.two_d_array = True
        return tags

"""What classifier and regressor share: rank table, what is pickled, and tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted

from sk_adalora.files.state import with_plain_records, with_records
from sk_adalora.runtime.doc_links import DocLinkMixin
from sk_adalora.runtime.rules import defaults_of
from sk_adalora.runtime.transaction import CALLBACKS
from sk_adalora.training.rank_table import lay_out

from .fitting import FitMixin
from .folder import FolderMixin

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

    def rank_table(self) -> Any:
        """Return the rank that is left in each weight matrix, as a table.

        Returns
        -------
        DataFrame
            A row for each layer and a column for each kind of matrix, such as "query".
            A matrix outside the layers has a row of its own and the column "other".
            Ranks are integers, missing if a layer has no such matrix. The index is
            called "layer".

        Raises
        ------
        ImportError
            If pandas is missing, which `datasets` installs.
        NotFittedError
            If the estimator has not been fitted.
        """
        check_is_fitted(self)
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "`rank_table` needs pandas. Got an environment without it. Run: "
                "pip install pandas"
            ) from error
        table = lay_out(self.ranks_)
        columns = {kind: table.column(kind) for kind in table.kinds}
        frame = pd.DataFrame(columns, index=pd.Index(table.layers, name="layer"))
        # Integers stay integers where some are missing.
        return frame.astype(
            {kind: "Int64" for kind, ranks in columns.items() if None in ranks}
        )

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

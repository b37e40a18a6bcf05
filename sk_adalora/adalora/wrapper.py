"""A module that stands for the model in it, in the eyes of other libraries."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, ClassVar

from torch import nn


class Wrapper(nn.Module):
    """Reads and sets the attributes of the model in it, but for its own.

    Attributes
    ----------
    model : torch.nn.Module
        The wrapped model.
    """

    model: nn.Module
    # What `__init__` sets here, even if the model has attributes of these names.
    _own: ClassVar[frozenset[str]]

    # Without it, the `Trainer` of transformers refuses quantised models.
    _hf_peft_config_loaded = True

    def _show_signature(self) -> None:
        """Show the signature of the model's `forward` as that of one's own.

        The `Trainer` of transformers reads there which columns to keep and, of the
        class alone, which of them are labels.
        """
        kinds: Any = (self._written_class(), type(self.model))
        self.__class__ = _as_of(*kinds)

    def _written_class(self) -> type[Wrapper]:
        """Return the class as it is written in a file."""
        written: type[Wrapper] = vars(type(self)).get("_written", type(self))
        return written

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Pickles cannot name a class that is made at run time; `__setstate__` does it.
        return object.__new__, (self._written_class(),), self.__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._show_signature()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # "model" is not there yet while copying or unpickling. By names such as
            # "__deepcopy__", the model would be copied in place of this.
            if name == "model" or name.startswith("__"):
                raise
            if name == "push_to_hub":  # the model's own leaves the updates out
                raise AttributeError(
                    "`push_to_hub` must be called on a model without an adapter. Got "
                    "an AdaLoraModel. Upload the folder that `save_pretrained` "
                    "writes, or call `merge_and_unload` first."
                ) from None
            return getattr(self.model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # What is read from the wrapped model is set there, too: its own methods, such
        # as `generate`, would not see it here. Names that begin with "_" are those of
        # other wrappers, such as accelerate's hooks.
        model = self.__dict__.get("_modules", {}).get("model")
        if name.startswith("_") or self._is_own(name) or not hasattr(model, name):
            super().__setattr__(name, value)
            return
        before = getattr(model, name, None)
        if value is not before and (_has_numbers(before) or _has_numbers(value)):
            raise ValueError(
                "Parts of a model must be replaced before it is adapted. Got another "
                f"`{name}`, which may be neither adapted nor saved. Set it on the "
                "model, and call `get_peft_model` afterwards."
            )
        setattr(model, name, value)

    def _get_name(self) -> str:
        # By this name, the `Trainer` of transformers knows whether to shift labels.
        model = self._modules.get("model")  # not there yet, if `__init__` fails
        return type(self if model is None else model).__name__

    def __repr__(self) -> str:
        whole = super().__repr__()
        return self._written_class().__name__ + whole.removeprefix(self._get_name())

    def _is_own(self, name: str) -> bool:
        """Tell whether the wrapper, and not only the model in it, has an attribute."""
        own = self.__dict__
        parts = [own.get(kind, ()) for kind in ("_modules", "_parameters", "_buffers")]
        known = any(name in part for part in (own, *parts))
        return known or name in self._own or hasattr(type(self), name)


@cache
def _as_of(wrapper: type[Wrapper], model: type[nn.Module]) -> type[Wrapper]:
    """Make a subclass whose `forward` has the signature of a model's.

    Its name has that of the model, by which the `Trainer` knows question answering.
    """
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # such as of TorchScript
        return wrapper

    def forward(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
        return wrapper.forward(self, *args, **kwargs)

    forward.__signature__ = signature  # type: ignore[attr-defined]
    forward.__doc__ = wrapper.forward.__doc__
    inside = {"forward": forward, "_written": wrapper, "__module__": wrapper.__module__}
    return type(f"{wrapper.__name__}Of{model.__name__}", (wrapper,), inside)


def _has_numbers(part: Any) -> bool:
    """Tell whether an attribute of a model is a part with parameters, or is one."""
    if isinstance(part, nn.Module):
        return any(True for _ in part.parameters())
    return isinstance(part, nn.Parameter)

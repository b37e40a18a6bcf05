"""A module that stands for the model in it, in the eyes of other libraries."""

from __future__ import annotations

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
        inner = vars(self).get("_modules", {}).get("model")
        own = name in self._own or name in vars(self) or hasattr(type(self), name)
        if own or name.startswith("_") or not hasattr(inner, name):
            super().__setattr__(name, value)
        else:
            setattr(inner, name, value)

    def _get_name(self) -> str:
        # By this name, the `Trainer` of transformers knows whether to shift labels.
        model = self._modules.get("model")  # not there yet, if `__init__` fails
        return type(self if model is None else model).__name__

    def __repr__(self) -> str:
        return type(self).__name__ + super().__repr__().removeprefix(self._get_name())

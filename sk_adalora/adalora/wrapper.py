"""A module that stands for the model in it, in the eyes of other libraries."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

# Methods of transformers' models that know nothing of the triplets, and what to do.
# A model with a method of such a name of its own keeps it, but for the first.
_ONE_ADAPTER = "It has one adapter, which is always in use outside `disable_adapter`"
_LIBRARIES = {"adapters", "diffusers", "sentence_transformers", "transformers"}
_REFUSED = {
    "push_to_hub": "Call `save_pretrained` and upload the folder, with "
    "`huggingface_hub.HfApi().upload_folder`",
    "save": "Call `save_pretrained`, which writes the adapter, or `merge_and_unload` "
    "and save what it returns",
    "save_to_hub": "Call `save_pretrained` and upload the folder, with "
    "`huggingface_hub.HfApi().upload_folder`",
    "add_adapter": "Call `unload` or `merge_and_unload` first",
    "load_adapter": "Put the adapter onto the plain model, with `load_peft_adapter`",
    "delete_adapter": "Call `unload`, which returns the plain model",
    "set_adapter": _ONE_ADAPTER,
    "active_adapters": _ONE_ADAPTER,
    "enable_adapters": _ONE_ADAPTER,
    "disable_adapters": "Write `with model.disable_adapter():` around the calls",
    "fuse_qkv_projections": "Call `merge_and_unload` first: it copies the weights of "
    "layers, without the updates",
    "get_adapter_state_dict": "Call `state_dict`, which holds the adapter alone",
}


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
            if name in _REFUSED and not _is_own_method(self.model, name):
                raise AttributeError(
                    f"`{name}` must be called on a model without an adapter. Got an "
                    f"AdaLoraModel, which has no such method. {_REFUSED[name]}."
                ) from None
            return getattr(self.model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # What is read from the wrapped model is set there, too: its own methods, such
        # as `generate`, would not see it here. Names that begin with "_" are those of
        # other wrappers, such as accelerate's hooks.
        model = self.__dict__.get("_modules", {}).get("model")
        gone = self.__dict__.get("_gone", set())
        of_model = hasattr(model, name) or name in gone
        if name.startswith("_") or self._is_own(name) or not of_model:
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

    def __delattr__(self, name: str) -> None:
        # What was set in the wrapped model, as for a while by `mock.patch.object`. It
        # deletes what it has set, and sets what was there before: there again.
        if name.startswith("_") or self._is_own(name):
            super().__delattr__(name)
        else:
            delattr(self.model, name)
            self._gone = {*self.__dict__.get("_gone", ()), name}

    def _get_name(self) -> str:
        # By this name, the `Trainer` of transformers knows whether to shift labels.
        model = self._modules.get("model")  # not there yet, if `__init__` fails
        return type(self if model is None else model).__name__

    def __repr__(self) -> str:
        whole = super().__repr__()
        return type(self).__name__ + whole.removeprefix(self._get_name())

    def _is_own(self, name: str) -> bool:
        """Tell whether the wrapper, and not only the model in it, has an attribute."""
        own = self.__dict__
        parts = [own.get(kind, ()) for kind in ("_modules", "_parameters", "_buffers")]
        known = any(name in part for part in (own, *parts))
        return known or name in self._own or hasattr(type(self), name)


def _has_numbers(part: Any) -> bool:
    """Tell whether an attribute of a model is a part with parameters, or is one."""
    if isinstance(part, nn.Module):
        return any(True for _ in part.parameters())
    return isinstance(part, nn.Parameter)


def _is_own_method(model: nn.Module, name: str) -> bool:
    """Tell whether a model's own class, not that of a known library, defines it."""
    if name == "push_to_hub":  # whoever defines it would upload the plain model
        return False
    for kind in type(model).__mro__:
        if name in vars(kind):
            return kind.__module__.partition(".")[0] not in _LIBRARIES
    return False

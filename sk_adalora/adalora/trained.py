"""Parts of the pretrained model that are trained in full, as private copies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .config import AdaLoraConfig
from .layers import SVDLinear
from .targets import ends_with, is_inside, modules_to_save


@dataclass
class _CopiedModule:
    """A module that is trained in full."""

    parent: nn.Module
    attribute: str  # under which the parent holds it
    original: nn.Module
    trained: nn.Module

    def use(self, trained: bool) -> None:
        setattr(self.parent, self.attribute, self.trained if trained else self.original)


@dataclass
class _CopiedBias:
    """A bias that is trained in full."""

    module: nn.Module
    original: nn.Parameter
    trained: nn.Parameter

    def use(self, trained: bool) -> None:
        self.module.bias = self.trained if trained else self.original


class TrainedCopies:
    """Modules and biases that are trained beside the adapter.

    The pretrained tensors may be shared, so training happens on copies. The
    originals stay at hand for `disable_adapter` and `unload`.

    Parameters
    ----------
    model : torch.nn.Module
        The adapted model, changed in place.
    config : AdaLoraConfig
        Its `modules_to_save`, `bias` and `task_type` decide.
    """

    def __init__(self, model: nn.Module, config: AdaLoraConfig) -> None:
        self._modules: dict[str, _CopiedModule] = {}
        self._biases: dict[str, _CopiedBias] = {}
        self.in_use = True
        self._copy_modules(model, copied_paths(model, config))
        if config.bias != "none":
            self._copy_biases(model, only_adapted=config.bias == "lora_only")

    def _copy_modules(self, model: nn.Module, paths: list[str]) -> None:
        for path in paths:
            parent_path, _, attribute = path.rpartition(".")
            parent = model.get_submodule(parent_path)
            original = model.get_submodule(path)
            trained = copy.deepcopy(original).requires_grad_(True)
            copied = _CopiedModule(parent, attribute, original, trained)
            copied.use(True)
            self._modules[path] = copied

    def _copy_biases(self, model: nn.Module, only_adapted: bool) -> None:
        for path, module in list(model.named_modules()):
            if only_adapted:
                if not isinstance(module, SVDLinear):
                    continue
                path, module = f"{path}.base_layer", module.base_layer
            original = module._parameters.get("bias")
            if original is None or is_inside(path, self._modules):
                continue
            trained = nn.Parameter(original.detach().clone())
            copied = _CopiedBias(module, original, trained)
            copied.use(True)
            self._biases[f"{path}.bias"] = copied

    def use(self, trained: bool) -> None:
        """Put the trained copies, or the originals, into the model.

        Parameters
        ----------
        trained : bool
            Which of the two.
        """
        for module in self._modules.values():
            module.use(trained)
        for bias in self._biases.values():
            bias.use(trained)
        self.in_use = trained

    def apply_outside(self, change: Callable[[Tensor], Tensor]) -> None:
        """Move or cast what is not in the model just now, as the model was.

        Parameters
        ----------
        change : callable
            What :meth:`torch.nn.Module.to` does to each tensor.
        """
        outside = "original" if self.in_use else "trained"
        for module in self._modules.values():
            getattr(module, outside)._apply(change)
        for bias in self._biases.values():
            holder: Any = nn.Module()  # torch knows when to keep a parameter's object
            holder.bias = getattr(bias, outside)
            holder._apply(change)
            setattr(bias, outside, holder.bias)

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield path and tensor of everything trained in full, buffers too."""
        for path, module in self._modules.items():
            for name, tensor in module.trained.state_dict(keep_vars=True).items():
                yield f"{path}.{name}", tensor
        for path, bias in self._biases.items():
            yield path, bias.trained


def copied_paths(model: nn.Module, config: AdaLoraConfig) -> list[str]:
    """Return the paths of the modules to train in full, none inside another.

    Parameters
    ----------
    model : torch.nn.Module
        The model to adapt.
    config : AdaLoraConfig
        Its `modules_to_save` and `task_type` decide.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If a name matches no module.
    """
    paths = [path for path, _ in model.named_modules() if path]
    chosen = []
    for name in modules_to_save(model, config):
        found = [path for path in paths if ends_with(path, name)]
        if not found:
            raise ValueError(
                f"`modules_to_save` must name modules of the model. Got {name!r}, "
                "which matches none. Top-level modules: "
                f"{', '.join(n for n, _ in model.named_children())}."
            )
        chosen += [path for path in found if path not in chosen]
    return [
        path
        for path in chosen
        if not any(path.startswith(other + ".") for other in chosen)
    ]

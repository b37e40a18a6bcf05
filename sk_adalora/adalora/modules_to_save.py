"""Parts of the pretrained model that are trained in full, as private copies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from .config import AdaLoraConfig
from .layer_matching import ends_with, is_inside, names_to_save
from .layers import SVDLinear


@dataclass
class _Copy:
    """A module that is trained in full."""

    # Modules that hold it, and the attribute of each.
    places: list[tuple[nn.Module, str]]
    original: nn.Module
    trained: nn.Module

    def follow(self, in_use: bool) -> None:
        """Take what the owner holds now: others may have replaced what it held.

        `resize_token_embeddings` makes another head. What is only wrapped, as by
        `torch.compile`, stays known without its wrapper.
        """
        name = "trained" if in_use else "original"
        for owner, attribute in self.places:
            now = owner._modules.get(attribute)
            if now is None or now is self.original or now is self.trained:
                continue  # the other of the two, if an interrupt has ended `use`
            if getattr(self, name) not in now.modules():
                setattr(self, name, now)

    def use(self, trained: bool) -> None:
        new = self.trained if trained else self.original
        # `train` and `eval` reach only what is in the model.
        old = getattr(*self.places[0])
        modes = {path: part.training for path, part in old.named_modules()}
        for path, part in new.named_modules():
            part.training = modes.get(path, old.training)
        for owner, attribute in self.places:
            setattr(owner, attribute, new)


class TrainedCopies:
    """Modules that are trained beside the adapter.

    The pretrained tensors may be shared, so training happens on copies. The
    originals stay at hand for `disable_adapter` and `unload`.

    Parameters
    ----------
    model : torch.nn.Module
        The adapted model. Only `use` changes it.
    paths : list of str
        The modules to train, as :func:`copied_paths` returns them.
    """

    def __init__(self, model: nn.Module, paths: list[str]) -> None:
        self._copies: dict[str, _Copy] = {}
        self.in_use = False
        for path in paths:
            original = model.get_submodule(path)
            trained = copy.deepcopy(original).requires_grad_(True)
            places = [
                (owner, attribute)
                for owner in model.modules()
                for attribute, part in owner._modules.items()
                if part is original
            ]
            self._copies[path] = _Copy(places, original, trained)

    @property
    def paths(self) -> list[str]:
        """The paths of the modules that are trained in full."""
        return list(self._copies)

    def use(self, trained: bool) -> None:
        """Put the trained copies, or the originals, into the model."""
        for copied in self._copies.values():
            copied.follow(self.in_use)
            copied.use(trained)
        self.in_use = trained

    def apply_outside(self, change: Callable[[Tensor], Tensor]) -> None:
        """Move or cast what is not in the model at present, as the model was.

        `change` is what :meth:`torch.nn.Module.to` does to each tensor.
        """
        for copied in self._copies.values():
            (copied.original if self.in_use else copied.trained)._apply(change)

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield path and tensor of everything trained in full, buffers too."""
        for path, copied in self._copies.items():
            copied.follow(self.in_use)
            for name, tensor in copied.trained.state_dict(keep_vars=True).items():
                yield f"{path}.{name}", tensor


def called_alike(model: nn.Module, paths: list[str]) -> list[str]:
    """Return the frozen modules that PEFT looks for in a file beside those to save.

    It takes every module whose path ends with the letters of one of them: "norm", at
    the top of a model, stands for each "input_layernorm" too.
    """
    return [
        path
        for path, module in model.named_modules()
        if path.endswith(tuple(paths))
        and not is_inside(path, paths)
        and not any(isinstance(part, SVDLinear) for part in module.modules())
    ]


def copied_paths(model: nn.Module, config: AdaLoraConfig) -> list[str]:
    """Return the paths of the modules to train in full, none inside another.

    Refuse a name that matches no module.
    """
    paths = [path for path, _ in model.named_modules() if path]
    chosen = []
    for name in names_to_save(model, config):
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

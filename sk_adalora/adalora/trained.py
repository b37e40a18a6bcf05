"""Parts of the pretrained model that are trained in full, as private copies."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator

from torch import nn

from .config import AdaLoraConfig
from .layers import SVDLinear
from .targets import ends_with

# The head that PEFT saves by itself for each task.
_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}


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
        self._modules: dict[str, tuple[nn.Module, str, nn.Module, nn.Module]] = {}
        self._biases: dict[str, tuple[nn.Module, nn.Parameter, nn.Parameter]] = {}
        self._copy_modules(model, modules_to_save(model, config))
        if config.bias != "none":
            self._copy_biases(model, only_adapted=config.bias == "lora_only")

    def _copy_modules(self, model: nn.Module, names: Collection[str]) -> None:
        paths = {path: m for path, m in model.named_modules() if path}
        for name in names:
            found = [path for path in paths if ends_with(path, name)]
            if not found:
                raise ValueError(
                    f"`modules_to_save` must name modules of the model. Got {name!r}, "
                    f"which matches none. Top-level modules: "
                    f"{', '.join(n for n, _ in model.named_children())}."
                )
            for path in found:
                if any(path.startswith(done + ".") for done in self._modules):
                    continue
                parent_path, _, attribute = path.rpartition(".")
                parent = model.get_submodule(parent_path)
                trained = copy.deepcopy(paths[path]).requires_grad_(True)
                self._modules[path] = (parent, attribute, paths[path], trained)
                setattr(parent, attribute, trained)

    def _copy_biases(self, model: nn.Module, only_adapted: bool) -> None:
        for path, module in list(model.named_modules()):
            if any(path == p or path.startswith(p + ".") for p in self._modules):
                continue
            if only_adapted:
                if not isinstance(module, SVDLinear):
                    continue
                path, module = f"{path}.base_layer", module.base_layer
            original = module._parameters.get("bias")
            if original is None or f"{path}.bias" in self._biases:
                continue
            trained = nn.Parameter(original.detach().clone())
            self._biases[f"{path}.bias"] = (module, original, trained)
            module.bias = trained

    def use(self, trained: bool) -> None:
        """Put the trained copies, or the originals, into the model.

        Parameters
        ----------
        trained : bool
            Which of the two.
        """
        for parent, attribute, original, copied in self._modules.values():
            setattr(parent, attribute, copied if trained else original)
        for module, original_bias, trained_bias in self._biases.values():
            module.bias = trained_bias if trained else original_bias

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield path and parameter of everything trained in full."""
        for path, (_, _, _, trained) in self._modules.items():
            for name, parameter in trained.named_parameters():
                yield f"{path}.{name}", parameter
        for path, (_, _, bias) in self._biases.items():
            yield path, bias


def modules_to_save(model: nn.Module, config: AdaLoraConfig) -> list[str]:
    """Return the asked-for names, and the head that the task implies."""
    names = list(config.modules_to_save or ())
    last_parts = {path.rpartition(".")[2] for path, _ in model.named_modules()}
    for head in _HEADS.get(config.task_type or "", ()):
        if head in last_parts and head not in names:
            names.append(head)
    return names

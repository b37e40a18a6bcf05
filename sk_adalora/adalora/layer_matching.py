"""Which layers of a model are adapted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from torch import nn

from .config import AdaLoraConfig
from .layers import is_conv1d, is_linear
from .messages import warn_user

ALL_LINEAR = "all-linear"

# Parts of a path that mean pooler, embeddings or head, whoever wrote the model.
_PROTECTED = re.compile(
    r"pooler|embed\w*|\w*embeddings?|(pre_)?classifier|score|cls|"
    r"(contact_|lm_|mc_|qa_)?heads?|lm_decoder|qa_outputs|predictions|discriminator_predictions|"
    r"out_embed\w*"
)

# The heads that PEFT saves by itself for each task: all modules whose names end so.
_TASK_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return all linear layers inside a model by path, in its order."""
    return {name: m for name, m in model.named_modules() if name and is_linear(m)}


def match_layers(model: nn.Module, config: AdaLoraConfig) -> dict[str, nn.Module]:
    """Choose the linear layers that the configuration asks for.

    Parameters
    ----------
    model : torch.nn.Module
        The model to adapt.
    config : AdaLoraConfig
        Its `target_modules`, `exclude_modules`, `layers_to_transform`,
        `layers_pattern` and `modules_to_save` decide.

    Returns
    -------
    dict of str to torch.nn.Module
        Layers by path, in the order of the model.

    Raises
    ------
    ValueError
        If nothing matches; the message lists the layers that exist.
    """
    layers = linear_layers(model)
    given = ALL_LINEAR if config.target_modules is None else config.target_modules
    asked = given if isinstance(given, str) else sorted(given)
    saved = names_to_save(model, config)
    allowed = {
        path: layer
        for path, layer in layers.items()
        if not _matches(path, config.exclude_modules)
        and not is_inside(path, saved)
        and _is_in_layers(path, config)
    }
    chosen = {
        path: layer
        for path, layer in allowed.items()
        if _is_wanted(path, asked, _is_protected(model, path, layer))
    }
    if not chosen:
        raise ValueError(_nothing_matches(asked, layers))
    excluded = layers.keys() - allowed.keys()
    idle = [] if isinstance(asked, str) else _lost(asked, [*chosen, *excluded])
    if idle:  # no error, because PEFT accepts such lists
        warn_user(f"{_nothing_matches(idle, layers)} Only the others are adapted.")
    _warn_of_idle_exclusions(config, layers)
    heads = _TASK_HEADS.get(config.task_type or "")
    if heads and not saved and not config.inference_mode:
        warn_user(
            f"`task_type`={config.task_type!r} trains the head of a model, called "
            f"{' or '.join(heads)}. Got a model without one: only the adapted layers "
            "are trained. Name its head in `modules_to_save`. If it has none, "
            "leave `task_type` out.",
        )
    # As PEFT corrects it; its files say so of all layers at once.
    config.fan_in_fan_out = all(map(is_conv1d, chosen.values()))
    return chosen


def _is_protected(model: nn.Module, path: str, layer: nn.Module) -> bool:
    """Tell whether a layer is of a pooler, embeddings or a head.

    By its name, or by what the model says of itself.
    """
    if any(_PROTECTED.fullmatch(part) for part in path.split(".")):
        return True
    prefix = getattr(model, "base_model_prefix", "")
    body = getattr(model, prefix, None)
    if isinstance(body, nn.Module) and not path.startswith(prefix + "."):
        # Hugging Face: what is outside the body is the head. What wraps such a model,
        # as a `PeftModel`, has its attributes, and other paths.
        if all(part is not layer for part in body.modules()):
            return True
    for getter in ("get_output_embeddings", "get_input_embeddings"):
        try:
            found = getattr(model, getter)()
        except Exception:  # a method of this name may do something else
            continue
        if found is layer:
            return True
    return False


def _is_wanted(path: str, asked: str | list[str], protected: bool) -> bool:
    if asked == ALL_LINEAR:
        return not protected
    if isinstance(asked, str):  # a pattern of whole paths may name protected layers
        return re.fullmatch(asked, path) is not None
    # "pooler.dense" asks for a protected layer, "dense" does not.
    return any(
        ends_with(path, name)
        and (
            not protected
            or name == path
            or any(_PROTECTED.fullmatch(part) for part in name.split("."))
        )
        for name in asked
    )


def ends_with(path: str, name: str) -> bool:
    """Tell whether a path is `name` or ends with it, part by part."""
    return path == name or path.endswith("." + name)


def is_inside(path: str, names: Collection[str]) -> bool:
    """Tell whether a module, or one around it, ends with one of the names."""
    parts = path.split(".")
    prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(ends_with(prefix, name) for prefix in prefixes for name in names)


def names_to_save(model: nn.Module, config: AdaLoraConfig) -> list[str]:
    """Return the asked-for names, and the head that the task implies."""
    names = list(config.modules_to_save or ())
    heads = _TASK_HEADS.get(config.task_type or "", ())
    last_parts = [path.rpartition(".")[2] for path, _ in model.named_modules()]
    # Not part by part: with "classifier", PEFT takes DistilBERT's "pre_classifier".
    names += [part for part in last_parts if heads and part.endswith(heads)]
    return list(dict.fromkeys(names))


def _matches(path: str, pattern: str | Collection[str] | None) -> bool:
    if not pattern:
        return False
    if isinstance(pattern, str):
        return re.fullmatch(pattern, path) is not None
    return any(ends_with(path, name) for name in pattern)


def _is_in_layers(path: str, config: AdaLoraConfig) -> bool:
    wanted = config.layers_to_transform
    indices = [wanted] if isinstance(wanted, int) else wanted
    if not indices:
        return True
    names = config.layers_pattern or []
    names = [names] if isinstance(names, str) else names
    for pattern in [re.escape(name) for name in names] or [r"[^.]*"]:
        # Lazy: the first number counts layers, later ones experts and the like.
        found = re.match(rf"(?:.*?\.)?{pattern}\.(\d+)\.", path)
        if found:
            return int(found.group(1)) in indices
    return False


def check_all_match(names: Collection[str], model: nn.Module) -> None:
    """Refuse name endings of which one matches no linear layer."""
    layers = linear_layers(model)
    lost = _lost(names, layers)
    if lost:
        raise ValueError(_nothing_matches(lost, layers))


def _lost(names: Collection[str], paths: Collection[str]) -> list[str]:
    return [n for n in names if not any(ends_with(path, n) for path in paths)]


def _nothing_matches(asked: str | list[str], layers: Collection[str]) -> str:
    """Say which layers there are instead."""
    if not layers:
        return (
            "The model must have linear layers to adapt. Got none. AdaLoRA adapts "
            "torch.nn.Linear and transformers' Conv1D only, inside another module."
        )
    endings = sorted({path.split(".")[-1] for path in layers})
    close = [
        match
        for name in ([asked] if isinstance(asked, str) else asked)
        for match in difflib.get_close_matches(name.split(".")[-1], endings, n=2)
        if match != name
    ]
    hint = f" Did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
    if isinstance(asked, str) and any(ends_with(path, asked) for path in layers):
        hint = f" A str is a pattern of whole paths: for name endings pass [{asked!r}]."
    return (
        "`target_modules` must match linear layers of the model that no other setting "
        "leaves out, and a pooler, embeddings or a head only by their whole paths. Got "
        f"{asked!r}, which matches none.{hint} Linear layers: {_listed(layers)}."
    )


def _listed(paths: Collection[str]) -> str:
    more = f" and {len(paths) - 40} more" if len(paths) > 40 else ""
    return ", ".join(list(paths)[:40]) + more


def _warn_of_idle_exclusions(config: AdaLoraConfig, layers: Collection[str]) -> None:
    """Warn of what leaves out no layer: those that it was meant for are adapted."""
    given = config.exclude_modules or ()
    entries = [given] if isinstance(given, str) else [[name] for name in sorted(given)]
    idle = [e for e in entries if not any(_matches(path, e) for path in layers)]
    if idle:
        warn_user(
            f"`exclude_modules` must match linear layers of the model. Got {given!r}, "
            f"of which {idle} leaves out none. List ends of their paths, or write a "
            r"regular expression for whole paths, such as 'decoder\..*' for a part. "
            f"Linear layers: {_listed(layers)}."
        )

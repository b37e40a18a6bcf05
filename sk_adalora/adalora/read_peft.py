"""Read PEFT's adapter folder, which may come from an untrusted source."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .adapter_state import PREFIX
from .config import CONFIG_NAME, AdaLoraConfig
from .json_file import read_json
from .layer_matching import is_inside
from .peft_format import (
    CHOOSING,
    FACTOR,
    WEIGHTS_NAME,
    WHOLE,
    is_factor,
    plain_name,
    stored,
)
from .tensor_file import read_tensors

# torch allows every name without a dot, such as "en/de".
_PATH = re.compile(r"[^.]+(\.[^.]+)*")


def read_adapter(
    folder: str | os.PathLike[str],
) -> tuple[AdaLoraConfig, dict[str, Tensor]]:
    """Read the two files of an adapter; no code in them is run.

    Parameters
    ----------
    folder : path-like
        Written by PEFT or by us.

    Returns
    -------
    config : AdaLoraConfig
        The configuration.
    tensors : dict of str to torch.Tensor
        Numbers under the names of :meth:`AdaLoraModel.state_dict`, in float32 but
        for counters and flags.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is broken.
    """
    source = Path(os.path.expanduser(folder))
    values = read_json(source / CONFIG_NAME)
    if (values.get("peft_type") or AdaLoraConfig.method) != AdaLoraConfig.method:
        AdaLoraConfig.from_dict(values)  # raises, before its tensors look broken
    tensors = {
        plain_name(name): _check_tensor(name, tensor)
        for name, tensor in read_tensors(source / WEIGHTS_NAME).items()
        if not _is_frozen(name)
    }
    config = _read_config(values, tensors, _check_factors(tensors))
    check_ranks(config, tensors)
    return config, tensors


def check_ranks(config: AdaLoraConfig, tensors: Mapping[str, Tensor]) -> None:
    """Refuse factors that do not belong together, or to a configuration.

    Parameters
    ----------
    config : AdaLoraConfig
        Of an adapter.
    tensors : mapping of str to torch.Tensor
        Its numbers, under PEFT's names.

    Raises
    ------
    ValueError
        If shapes or ranks do not fit.
    """
    for path, rank in _check_factors(tensors).items():
        _check_rank(config, path, rank)


def _read_config(
    values: dict[str, Any], tensors: Mapping[str, Tensor], ranks: Mapping[str, int]
) -> AdaLoraConfig:
    """Build the configuration, for the layers that have tensors in the file."""
    if values.get("total_step") is None:  # old files may lack a schedule
        values |= {"total_step": 1, "tinit": 0, "tfinal": 0}
    pattern = values.get("rank_pattern")
    if isinstance(pattern, dict):
        plain = {plain_name(n): flags for n, flags in pattern.items()}
        values["rank_pattern"] = plain or None
    # The file's own `target_modules` is not used: matching a malicious pattern may
    # never end, and "all-linear" means other layers to PEFT. A list of names would mean
    # all layers whose paths end with them, so this is a pattern of the whole paths.
    values |= dict.fromkeys(CHOOSING)
    values["target_modules"] = "|".join(map(re.escape, sorted(ranks)))
    try:
        config = AdaLoraConfig.from_dict(values)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{CONFIG_NAME} is broken: {error}") from error
    paths = [name.removeprefix(PREFIX) for name in tensors if not is_factor(name)]
    config.modules_to_save = _saved(config.modules_to_save or (), paths) or None
    return config


def _saved(names: Collection[str], paths: Collection[str]) -> list[str]:
    """Return the names of the modules in full that have tensors in the file.

    PEFT lists the heads that a model may have, and takes every module whose path ends
    with the letters of one: "classifier" stands for "pre_classifier" too.
    """
    kept = [name for name in names if any(is_inside(path, [name]) for path in paths)]
    endings = tuple(name for name in names if name)
    for path in paths:
        parts = path.split(".")[:-1]
        modules = [".".join(parts[: i + 1]) for i in range(len(parts))]
        longer = [module for module in modules if module.endswith(endings)]
        if longer and not is_inside(path, kept):
            kept.append(longer[0])
    return kept


def _is_frozen(name: str) -> bool:
    """Tell whether a tensor is no part of the adapter, although PEFT has written it.

    It writes the frozen weight of an adapted output layer, for example.
    """
    inside = any(part in name for part in ("ranknum", ".original_module."))
    return inside or name.endswith((".base_layer.weight", ".base_layer.bias"))


def _check_tensor(name: str, tensor: Tensor) -> Tensor:
    of_factor = is_factor(name)
    real = tensor.is_floating_point() and tensor.itemsize > 1  # nothing quantised
    if not real and (of_factor or tensor.dtype not in WHOLE):
        kinds = "in floating point" if of_factor else "of plain numbers"
        raise ValueError(
            f"{name!r} must be a tensor {kinds}. Got {tensor.dtype}. "
            "The file is broken, or no adapter."
        )
    numbers = stored(tensor).clone()  # no longer a view into the file
    if not torch.isfinite(numbers).all():
        raise ValueError(
            f"{name!r} must be finite. Got NaN or infinity. The adapter is broken: "
            "train again."
        )
    return numbers.contiguous()


def _check_factors(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Refuse factors that do not belong together; return rank by layer."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, value in tensors.items():
        path = name.removeprefix(PREFIX)
        if path == name or not _PATH.fullmatch(path):
            raise ValueError(
                f"A tensor must be named {PREFIX!r} and the path of a module. Got "
                f"{reprlib.repr(name)}. The file is broken, or no adapter."
            )
        match = FACTOR.fullmatch(path)
        if match is not None:
            shapes.setdefault(match["path"], {})[match["kind"]] = tuple(value.shape)
    if not shapes:
        raise ValueError(
            "An adapter must hold lora_A, lora_B and lora_E of at least one layer. "
            f"Got {reprlib.repr(sorted(tensors))}. It is no adapter of AdaLoRA: "
            "check the path."
        )
    for path, found in shapes.items():
        a, b, e = (found.get(kind, ()) for kind in "ABE")
        if not (len(a) == len(b) == len(e) == 2 and a[0] == b[1] == e[0] and e[1] == 1):
            raise ValueError(
                f"{path!r} must have lora_A of shape (r, in), lora_B of (out, r) and "
                f"lora_E of (r, 1). Got {found}. The file is broken."
            )
    return {path: found["E"][0] for path, found in shapes.items()}


def _check_rank(config: AdaLoraConfig, path: str, rank: int) -> None:
    """Refuse a tensor whose rank is not what the configuration says."""
    pattern = config.rank_pattern
    flags = None if pattern is None else pattern.get(f"{path}.lora_E")
    if pattern is None:
        fits, told = rank == config.init_r, "no pattern"
    elif flags is None:
        fits, told = False, "no flags"
    else:
        fits = len(flags) == config.init_r and sum(flags) == rank
        told = f"{sum(flags)} of {len(flags)}"
    if not fits:
        raise ValueError(
            f"`rank_pattern` must have `init_r`={config.init_r} flags for {path!r}, "
            f"{rank} of them true, or be null for the full rank. Got {told}. The "
            "files do not belong together."
        )

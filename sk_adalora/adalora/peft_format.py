"""PEFT's names of an adapter's numbers, and its files, of AdaLoRA and of plain LoRA.

Files that are read may come from an untrusted source.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from .config import CONFIG_NAME, AdaLoraConfig
from .layer_matching import is_inside
from .untrusted import read_json, read_tensors

PREFIX = "base_model.model."  # what PEFT puts before every path
WEIGHTS_NAME = "adapter_model.safetensors"
# Types of counters in modules that are trained in full, such as BatchNorm's of batches.
WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# Fields that choose layers. They are cleared: the tensors say which are adapted.
CHOOSING = ("exclude_modules", "layers_to_transform", "layers_pattern")
FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<kind>[ABE])", re.DOTALL)
# torch allows every name without a dot, such as "en/de".
_PATH = re.compile(r"[^.]+(\.[^.]+)*")


def select_triplets(
    state: Mapping[str, Tensor], chosen: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Keep the triplets of a state that are flagged, and all that is no triplet.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        Numbers under PEFT's names.
    chosen : mapping of str to torch.Tensor of shape (r,)
        Flags of the triplets of each layer, by path.

    Returns
    -------
    dict of str to torch.Tensor
    """
    result = {}
    for name, value in state.items():
        match = FACTOR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            result[name] = value
        else:
            axis = 1 if match["kind"] == "B" else 0
            rows = chosen[match["path"]].nonzero().flatten().to(value.device)
            result[name] = value.index_select(axis, rows).contiguous()
    return result


def write_adapter(
    folder: str | os.PathLike[str],
    config: AdaLoraConfig,
    tensors: Mapping[str, Tensor],
) -> None:
    """Write the two files of an adapter.

    Parameters
    ----------
    folder : path-like
        Made when missing.
    config : AdaLoraConfig
        Its `rank_pattern` and `target_modules` are written anew, from the tensors.
    tensors : mapping of str to torch.Tensor
        Numbers under PEFT's names, pruned triplets left out.
    """
    ranks = ranks_of(tensors)
    values = config.to_dict()
    values["inference_mode"] = True
    # For 0, PEFT would take the rank that is left of each layer.
    values["lora_alpha"] = config.lora_alpha or config.init_r
    # "all-linear" means different layers to PEFT.
    values |= dict.fromkeys(CHOOSING)
    values["target_modules"] = sorted(ranks)
    values["rank_pattern"] = rank_pattern(dict(sorted(ranks.items())), config.init_r)
    _write(folder, values, tensors)


def ranks_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return rank by layer, from the shapes."""
    return {
        name.removeprefix(PREFIX).removesuffix(".lora_E"): value.shape[0]
        for name, value in tensors.items()
        if name.endswith(".lora_E")
    }


def rank_pattern(ranks: Mapping[str, int], init_r: int) -> dict[str, list[bool]]:
    """Write ranks as PEFT does: a flag for each of the first `init_r` triplets."""
    return {
        f"{path}.lora_E": [i < rank for i in range(init_r)]
        for path, rank in ranks.items()
    }


def is_factor(name: str) -> bool:
    """Tell whether a tensor of a file is one of a layer's three factors.

    The others are of modules that are trained in full, which may be called "lora_head".
    """
    return FACTOR.fullmatch(plain_name(name).removeprefix(PREFIX)) is not None


def plain_name(name: str) -> str:
    """Remove what PEFT adds to names: the name of the adapter, and of its wrapper."""
    name = name.replace(".modules_to_save.default.", ".")
    name = name.replace(".modules_to_save.", ".")
    return name.removesuffix(".default")


def stored(tensor: Tensor) -> Tensor:
    """Return whole numbers as they are, and others in float32."""
    return tensor if tensor.dtype in WHOLE else tensor.float()


def write_lora(
    folder: str | os.PathLike[str],
    config: AdaLoraConfig,
    tensors: Mapping[str, Tensor],
) -> None:
    """Write an adapter as plain LoRA, singular values and scale multiplied in.

    Parameters
    ----------
    folder : path-like
        Made when missing.
    config : AdaLoraConfig
        Of the adapter.
    tensors : mapping of str to torch.Tensor
        Numbers under PEFT's names, pruned triplets left out.

    Raises
    ------
    ValueError
        If no layer has a triplet left.
    """
    ranks = ranks_of(tensors)
    living_ranks = {path: r for path, r in ranks.items() if r}
    if not living_ranks:
        raise ValueError(
            "Plain LoRA must have a layer of rank 1 at least. Got an adapter whose "
            "ranks are all 0. Train with a larger `target_r`, or save the adapter as "
            "AdaLoRA."
        )
    # One rank for all: programs such as llama.cpp divide `lora_alpha` by the rank
    # of each tensor, and know no `alpha_pattern`.
    rank = max(living_ranks.values())
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        match = FACTOR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            plain[name] = value
        elif match["path"] in living_ranks and match["kind"] == "A":
            singular = tensors[f"{PREFIX}{match['path']}.lora_E"]
            rows = value * singular * config.scale  # (r, in)
            plain[f"{name}.weight"] = F.pad(rows, (0, 0, 0, rank - len(rows)))
        elif match["path"] in living_ranks and match["kind"] == "B":
            plain[f"{name}.weight"] = F.pad(value, (0, rank - value.shape[1]))
    values = {
        "peft_type": "LORA",
        "task_type": config.task_type,
        "base_model_name_or_path": config.base_model_name_or_path,
        "revision": config.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,  # scale 1: it is in the numbers
        "lora_dropout": 0.0,
        "fan_in_fan_out": config.fan_in_fan_out,
        "target_modules": sorted(living_ranks),
        "modules_to_save": config.modules_to_save,
    }
    _write(folder, values, plain)


def _write(
    folder: str | os.PathLike[str],
    values: dict[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write both files to a temporary folder, then move them into place.

    A failure to write leaves the files that were there.
    """
    folder = Path(os.path.expanduser(folder))
    text = json.dumps(dict(sorted(values.items())), indent=2)
    tensors = {n: stored(t.detach().cpu()).contiguous() for n, t in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    # Not by tempfile: on Windows its folders are closed to other users, and files that
    # are moved out of them stay so.
    scratch = folder / f".adapter-{uuid4().hex[:16]}"
    try:
        scratch.mkdir()
        weights, config = scratch / WEIGHTS_NAME, scratch / CONFIG_NAME
        save_file(tensors, weights, metadata={"format": "pt"})
        config.write_text(text + "\n", encoding="utf8", newline="\n")
        with suppress(OSError):  # FAT has no permissions
            # Only the owner may read what safetensors writes.
            weights.chmod(config.stat().st_mode & 0o777)
        for path in (config, weights):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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

"""The names and files of PEFT: an adapter's folder, and one of plain LoRA."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from .adapter_state import PREFIX
from .config import CONFIG_NAME, AdaLoraConfig

WEIGHTS_NAME = "adapter_model.safetensors"
# Types of counters in modules that are trained in full, such as BatchNorm's of batches.
WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# Fields that choose layers. They are cleared: the tensors say which are adapted.
CHOOSING = ("exclude_modules", "layers_to_transform", "layers_pattern")
FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<kind>[ABE])", re.DOTALL)


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

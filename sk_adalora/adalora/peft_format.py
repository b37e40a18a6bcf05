"""Read and write the adapter folder of PEFT, and a form for plain-LoRA programs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .config import CONFIG_NAME, AdaLoraConfig, read_json
from .model import AdaLoraModel, get_peft_model
from .state import PREFIX

WEIGHTS_NAME = "adapter_model.safetensors"
_OLD_WEIGHTS_NAME = "adapter_model.bin"
_FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<kind>[ABE])")


def save_adapter(model: AdaLoraModel, folder: str | os.PathLike[str]) -> None:
    """Write an adapter as PEFT does.

    Parameters
    ----------
    model : AdaLoraModel
        Its living triplets are written, and what is trained in full.
    folder : path-like
        Gets ``adapter_config.json`` and ``adapter_model.safetensors``.
    """
    tensors = living(model.state_dict(), model)
    write_adapter(folder, model.peft_config, tensors)


def export_lora(model: AdaLoraModel, folder: str | os.PathLike[str]) -> None:
    """Write an adapter as plain LoRA, for programs that know no AdaLoRA.

    Parameters
    ----------
    model : AdaLoraModel
        Its outputs are those of the LoRA that is written.
    folder : path-like
        Gets ``adapter_config.json`` and ``adapter_model.safetensors``.
    """
    tensors = living(model.state_dict(), model)
    write_lora(folder, model.peft_config, tensors)


def living(state: Mapping[str, Tensor], model: AdaLoraModel) -> dict[str, Tensor]:
    """Leave out the triplets that were pruned but not deleted yet.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        The adapter's numbers.
    model : AdaLoraModel
        Whose they are.

    Returns
    -------
    dict of str to torch.Tensor
    """
    kept = model.allocator.kept.split(model.triplets.ranks)
    flags = dict(zip(model.adapted, kept, strict=True))
    result = {}
    for name, value in state.items():
        match = _FACTOR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            result[name] = value
        else:
            axis = 1 if match["kind"] == "B" else 0
            rows = flags[match["path"]].nonzero().flatten()
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
    # "all-linear" means different layers to PEFT.
    values["target_modules"] = sorted(ranks)
    values["rank_pattern"] = {
        f"{path}.lora_E": [i < rank for i in range(config.init_r)]
        for path, rank in ranks.items()
    }
    _write(Path(folder), values, tensors)


def ranks_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return rank by layer, from the shapes."""
    return {
        name.removeprefix(PREFIX).removesuffix(".lora_E"): value.shape[0]
        for name, value in tensors.items()
        if name.endswith(".lora_E")
    }


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
    """
    living_ranks = {path: r for path, r in ranks_of(tensors).items() if r}
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        match = _FACTOR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            plain[name] = value
        elif match["path"] in living_ranks and match["kind"] == "A":
            singular = tensors[f"{PREFIX}{match['path']}.lora_E"]
            plain[f"{name}.weight"] = value * singular * config.scale
        elif match["path"] in living_ranks and match["kind"] == "B":
            plain[f"{name}.weight"] = value
    values = {
        "peft_type": "LORA",
        "task_type": config.task_type,
        "base_model_name_or_path": config.base_model_name_or_path,
        "revision": config.revision,
        "inference_mode": True,
        "r": config.init_r,
        "lora_alpha": config.init_r,  # scale 1: it is in the numbers
        "lora_dropout": 0.0,
        "bias": config.bias,
        "fan_in_fan_out": config.fan_in_fan_out,
        "target_modules": sorted(living_ranks),
        "modules_to_save": config.modules_to_save,
        "rank_pattern": living_ranks,
        "alpha_pattern": living_ranks,
    }
    _write(Path(folder), values, plain)


def _write(folder: Path, values: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, sort_keys=True)
    (folder / CONFIG_NAME).write_text(text + "\n", encoding="utf8")
    stored = {n: t.detach().cpu().float().contiguous() for n, t in tensors.items()}
    save_file(stored, folder / WEIGHTS_NAME, metadata={"format": "pt"})


def load_peft_adapter(model: nn.Module, folder: str | os.PathLike[str]) -> AdaLoraModel:
    """Put an adapter that PEFT, or :func:`save_adapter`, wrote onto a model.

    Parameters
    ----------
    model : torch.nn.Module
        The pretrained model, changed in place.
    folder : path-like
        The adapter's folder.

    Returns
    -------
    AdaLoraModel
        Ready to predict; call ``requires_grad_()`` on its `triplets` to train on.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is broken, or does not fit the model.
    """
    config, tensors = read_adapter(folder)
    config.inference_mode = True
    adapted = get_peft_model(model, config)
    adapted.load_state_dict(tensors)
    return adapted.eval()


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
        Numbers in float32 under the names of :meth:`AdaLoraModel.state_dict`.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is broken.
    """
    place = Path(folder)
    values = read_json(place / CONFIG_NAME)
    if values.get("total_step") is None:  # old files may lack a schedule
        values |= {"total_step": 1, "tinit": 0, "tfinal": 0}
    values["rank_pattern"] = _plain_pattern(values.get("rank_pattern"))
    config = AdaLoraConfig.from_dict(values)
    tensors = {
        _plain_name(name): _check_tensor(name, tensor)
        for name, tensor in _read_tensors(place).items()
        if "ranknum" not in name and ".original_module." not in name
    }
    if config.rank_pattern is not None:
        _check_ranks(config, tensors)
    return config, tensors


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_NAME
    old = folder / _OLD_WEIGHTS_NAME
    try:
        if path.is_file():
            return load_file(path)
        if old.is_file():
            loaded = torch.load(old, map_location="cpu", weights_only=True)
            if isinstance(loaded, dict):
                return loaded
            raise ValueError(f"it holds {type(loaded).__name__}, not tensors by name")
    except FileNotFoundError:
        raise
    except (SafetensorError, ValueError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(_broken(path if path.is_file() else old, error)) from error
    except Exception as error:  # what unpickling a broken file may raise
        raise ValueError(_broken(old, error)) from error
    raise FileNotFoundError(
        f"An adapter folder must hold {WEIGHTS_NAME}. Got {str(folder)!r} without "
        "it. Check the path."
    )


def _broken(path: Path, error: Exception) -> str:
    return (
        f"{path.name} must hold tensors. Got a file in {str(path.parent)!r} that "
        f"cannot be read: {error}. Copy it again."
    )


def _plain_name(name: str) -> str:
    """Take out what PEFT adds to some names: the adapter's and the wrapper's."""
    name = name.replace(".modules_to_save.default.", ".")
    name = name.replace(".modules_to_save.", ".")
    return name.removesuffix(".default")


def _check_tensor(name: str, tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        raise ValueError(
            f"{name!r} must be a tensor in floating point. Got {kind}. "
            "The file is broken, or no adapter."
        )
    if not torch.isfinite(tensor).all():
        raise ValueError(
            f"{name!r} must be finite. Got NaN or infinity. The adapter is broken: "
            "train again."
        )
    return tensor.float().contiguous()


def _plain_pattern(pattern: Any) -> dict[str, list[bool]] | None:
    if pattern is None:
        return None
    whole = isinstance(pattern, dict) and all(
        isinstance(flags, list) and all(isinstance(f, bool) for f in flags)
        for flags in pattern.values()
    )
    if not whole:
        raise ValueError(
            "`rank_pattern` must hold a list of true and false for each layer. Got "
            f"{str(pattern)[:80]!r}. The file is broken."
        )
    return {name.removesuffix(".default"): flags for name, flags in pattern.items()}


def _check_ranks(config: AdaLoraConfig, tensors: Mapping[str, Tensor]) -> None:
    pattern = config.rank_pattern or {}
    for path, rank in ranks_of(tensors).items():
        flags = pattern.get(f"{path}.lora_E")
        if flags is None or len(flags) != config.init_r or sum(flags) != rank:
            told = "nothing" if flags is None else f"{sum(flags)} of {len(flags)}"
            raise ValueError(
                f"`rank_pattern` must have `init_r`={config.init_r} flags for "
                f"{path!r}, {rank} of them true. Got {told}. The files do not belong "
                "together."
            )

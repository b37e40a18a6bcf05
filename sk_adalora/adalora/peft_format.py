"""Read and write the adapter folder of PEFT, and a form for plain-LoRA programs."""

from __future__ import annotations

import json
import os
import re
import reprlib
import shutil
import zipfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .config import CONFIG_NAME, AdaLoraConfig
from .json_file import read_json
from .model import AdaLoraModel, get_peft_model
from .state import PREFIX
from .targets import ends_with, is_inside

WEIGHTS_NAME = "adapter_model.safetensors"
_OLD_WEIGHTS_NAME = "adapter_model.bin"
# Tensors may take this many times the bytes of their torch file, in which tied weights
# are stored once under several names.
_MAX_REPEATED = 4
_PACKED = getattr(torch, "float4_e2m1fn_x2", None)  # holds two numbers per byte
# Types of counters in modules that are trained in full, such as BatchNorm's of batches.
_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<kind>[ABE])", re.DOTALL)
# torch allows every name without a dot, such as "en/de".
_PATH = re.compile(r"[^.]+(\.[^.]+)*")
# Fields that choose layers. They are cleared: the tensors say which are adapted.
_CHOOSING = ("exclude_modules", "layers_to_transform", "layers_pattern")


def save_adapter(model: AdaLoraModel, folder: str | os.PathLike[str]) -> None:
    """Write an adapter as PEFT does.

    Parameters
    ----------
    model : AdaLoraModel
        The triplets that its outputs depend on are written, and what is trained in
        full. Between two allocations, pruned triplets train on and are among them.
    folder : path-like
        Gets ``adapter_config.json`` and ``adapter_model.safetensors``, in the place
        of those that are there, once both are written. Other files stay.
    """
    tensors = _computing(model)
    write_adapter(folder, model.peft_config, tensors)


def export_lora(model: AdaLoraModel, folder: str | os.PathLike[str]) -> None:
    """Write an adapter as plain LoRA, for programs that know no AdaLoRA.

    Parameters
    ----------
    model : AdaLoraModel
        Its outputs are those of the LoRA that is written.
    folder : path-like
        Gets ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises
    ------
    ValueError
        If no layer has a triplet left: PEFT reads no LoRA without layers.
    """
    tensors = _computing(model)
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
    return _chosen(state, model, model.allocator.kept)


def _computing(model: AdaLoraModel) -> dict[str, Tensor]:
    """Return the tensors, without pruned triplets whose singular value is 0."""
    values = model.triplets.singular_values.detach()
    return _chosen(model.state_dict(), model, model.allocator.kept | (values != 0))


def _chosen(
    state: Mapping[str, Tensor], model: AdaLoraModel, chosen: Tensor
) -> dict[str, Tensor]:
    """Keep the triplets that `chosen` (n,) flags, and all that is no triplet."""
    parts = torch.split(chosen, model.triplets.ranks)
    flags = dict(zip(model.adapted, parts, strict=True))
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
    # For 0, PEFT would take the rank that is left of each layer.
    values["lora_alpha"] = config.lora_alpha or config.init_r
    # "all-linear" means different layers to PEFT.
    values |= dict.fromkeys(_CHOOSING)
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
    # PEFT takes the first path that a layer's path ends with: of "0" and "2.0", the
    # latter has to come first.
    deepest_first = sorted(living_ranks, key=lambda path: (-path.count("."), path))
    living_ranks = {path: living_ranks[path] for path in deepest_first}
    bare = _bare_biases(ranks, living_ranks)
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        match = _FACTOR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            plain[bare.get(name, name)] = value
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
    _write(folder, values, plain)


def _bare_biases(ranks: Mapping[str, int], living: Mapping[str, int]) -> dict[str, str]:
    """Map our names of biases to PEFT's, for the layers that PEFT does not wrap.

    It wraps a layer of rank 0 only if its path ends with that of an adapted layer.
    """
    return {
        f"{PREFIX}{path}.base_layer.bias": f"{PREFIX}{path}.bias"
        for path in ranks
        if not any(ends_with(path, name) for name in living)
    }


def _write(
    folder: str | os.PathLike[str],
    values: dict[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write both files to a temporary folder, then move them into place.

    A failure leaves the files that were there.
    """
    folder = Path(os.path.expanduser(folder))
    text = json.dumps(dict(sorted(values.items())), indent=2)
    stored = {n: _exact(t.detach().cpu()).contiguous() for n, t in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    # Not by tempfile: on Windows its folders are closed to other users, and files that
    # are moved out of them stay so.
    scratch = folder / f".adapter-{uuid4().hex[:16]}"
    try:
        scratch.mkdir()
        weights, config = scratch / WEIGHTS_NAME, scratch / CONFIG_NAME
        save_file(stored, weights, metadata={"format": "pt"})
        config.write_text(text + "\n", encoding="utf8", newline="\n")
        with suppress(OSError):  # FAT has no permissions
            # Only the owner may read what safetensors writes.
            weights.chmod(config.stat().st_mode & 0o777)
        for path in (weights, config):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
    TypeError
        If the model is adapted already.
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is broken, or does not fit the model.
    """
    config, tensors = read_adapter(folder)
    config.inference_mode = True
    trained = [p for p in model.parameters() if p.requires_grad]
    adapted = get_peft_model(model, config)
    try:
        adapted.load_state_dict(tensors)
    except BaseException:
        adapted.unload()
        for parameter in trained:  # the model is as it was
            parameter.requires_grad_(True)
        raise
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
    if values.get("peft_type", AdaLoraConfig.method) != AdaLoraConfig.method:
        AdaLoraConfig.from_dict(values)  # raises, before its tensors look broken
    tensors = {
        _plain_name(name): _check_tensor(name, tensor)
        for name, tensor in _read_tensors(source).items()
        if not _is_frozen(name)
    }
    ranks = _check_factors(tensors)
    config = _read_config(values, tensors, ranks)
    for path, rank in ranks.items():
        _check_rank(config, path, rank)
    return config, tensors


def _read_config(
    values: dict[str, Any], tensors: Mapping[str, Tensor], ranks: Mapping[str, int]
) -> AdaLoraConfig:
    """Build the configuration, for the layers that have tensors in the file."""
    if values.get("total_step") is None:  # old files may lack a schedule
        values |= {"total_step": 1, "tinit": 0, "tfinal": 0}
    for name in ("task_type", "base_model_name_or_path", "revision", "peft_version"):
        _check_plain(name, values.get(name), str)
    saved = values.get("modules_to_save")
    _check_plain("modules_to_save", saved, list)
    for name in saved or ():
        _check_plain("modules_to_save", name, str)
    paths = [name.removeprefix(PREFIX) for name in tensors if not is_factor(name)]
    values["modules_to_save"] = _saved(saved or (), paths) or None
    values["rank_pattern"] = _plain_pattern(values.get("rank_pattern"))
    # The file's own `target_modules` is not used: matching a malicious pattern may
    # never end, and "all-linear" means other layers to PEFT. A list of names would mean
    # all layers whose paths end with them, so this is a pattern of the whole paths.
    values |= dict.fromkeys(_CHOOSING)
    values["target_modules"] = "|".join(map(re.escape, sorted(ranks)))
    try:
        return AdaLoraConfig.from_dict(values)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{CONFIG_NAME} is broken: {error}") from error


def _saved(names: Collection[str], paths: Collection[str]) -> list[str]:
    """Return the names of the modules in full that have tensors in the file.

    PEFT lists the heads that a model may have, and takes every module whose path ends
    with the letters of one: "classifier" stands for "pre_classifier" too.
    """
    kept = [name for name in names if any(is_inside(path, [name]) for path in paths)]
    endings = tuple(name for name in names if name)
    for path in paths:
        *parts, own = path.split(".")
        modules = [".".join(parts[: i + 1]) for i in range(len(parts))]
        longer = [module for module in modules if module.endswith(endings)]
        # A bias may be trained by itself, as `bias` says.
        if longer and own != "bias" and not is_inside(path, kept):
            kept.append(longer[0])
    return kept


def _check_plain(name: str, value: Any, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise ValueError(
            f"`{name}` of {CONFIG_NAME} must be a {kind.__name__}. Got "
            f"{reprlib.repr(value)}. The file is broken."
        )


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_NAME
    old = folder / _OLD_WEIGHTS_NAME
    try:
        if path.is_file():
            return load_file(path)
        if old.is_file():
            size = old.stat().st_size
            if zipfile.is_zipfile(old):  # torch may decompress huge records
                with zipfile.ZipFile(old) as archive:
                    records = archive.infolist()
                _refuse_larger(sum(record.file_size for record in records), size)
            loaded = torch.load(old, map_location="cpu", weights_only=True)
            if isinstance(loaded, dict) and all(isinstance(n, str) for n in loaded):
                values = [v for v in loaded.values() if isinstance(v, Tensor)]
                _refuse_larger(sum(v.numel() * v.element_size() for v in values), size)
                return loaded
            raise ValueError(f"it holds a {type(loaded).__name__} of other things")
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(_broken(path if path.is_file() else old, error)) from error
    except Exception as error:  # torch's own message says how to load it unsafely
        reason = f"it holds more than tensors, or is broken ({type(error).__name__})"
        raise ValueError(_broken(old, reason)) from error
    raise FileNotFoundError(
        f"An adapter folder must hold {WEIGHTS_NAME}. Got {str(folder)!r} without "
        "it. Check the path."
    )


def _refuse_larger(total: int, size: int) -> None:
    """Refuse tensors of `total` bytes in a file of many times fewer, `size`."""
    if total > _MAX_REPEATED * size:
        raise ValueError(f"its tensors take {total} bytes, and it has {size}")


def _broken(path: Path, error: Exception | str) -> str:
    return (
        f"{path.name} must hold tensors. Got a file in {str(path.parent)!r} that "
        f"cannot be read: {error}. Copy it again."
    )


def _is_frozen(name: str) -> bool:
    """Tell whether a tensor is no part of the adapter, although PEFT has written it.

    It writes the frozen weight of an adapted output layer, for example.
    """
    inside = any(part in name for part in ("ranknum", ".original_module."))
    return inside or name.endswith(".base_layer.weight")


def _plain_name(name: str) -> str:
    """Remove what PEFT adds to names: the name of the adapter, and of its wrapper."""
    name = name.replace(".modules_to_save.default.", ".")
    name = name.replace(".modules_to_save.", ".")
    return name.removesuffix(".default")


def is_factor(name: str) -> bool:
    """Tell whether a tensor of a file is one of a layer's three factors.

    The others are of modules that are trained in full, which may be called "lora_head".
    """
    return _FACTOR.fullmatch(_plain_name(name).removeprefix(PREFIX)) is not None


def _check_tensor(name: str, tensor: Any) -> Tensor:
    of_factor = is_factor(name)
    if not isinstance(tensor, Tensor) or not _is_plain(tensor, of_factor):
        kind = type(tensor).__name__
        if isinstance(tensor, Tensor):
            layout = "nested" if tensor.is_nested else tensor.layout
            kind = f"{tensor.dtype}, {layout}, on {tensor.device.type!r}"
        numbers = "in floating point" if of_factor else "of plain numbers"
        raise ValueError(
            f"{name!r} must be a tensor {numbers}. Got {kind}. "
            "The file is broken, or no adapter."
        )
    exact = _exact(tensor).clone()  # no longer a view into the file
    if not torch.isfinite(exact).all():
        raise ValueError(
            f"{name!r} must be finite. Got NaN or infinity. The adapter is broken: "
            "train again."
        )
    return exact.contiguous()


def _exact(tensor: Tensor) -> Tensor:
    """Return whole numbers as they are, and others in float32."""
    return tensor if tensor.dtype in _WHOLE else tensor.float()


def _is_plain(tensor: Tensor, of_factor: bool) -> bool:
    """Tell whether a tensor is dense, on the CPU, and of numbers that are stored."""
    there = tensor.layout is torch.strided and tensor.device.type == "cpu"
    real = tensor.is_floating_point() and tensor.dtype is not _PACKED
    whole = tensor.dtype in _WHOLE and not of_factor
    return there and not tensor.is_nested and (real or whole)


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
        match = _FACTOR.fullmatch(path)
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


def _plain_pattern(pattern: Any) -> dict[str, list[bool]] | None:
    if pattern is None or pattern == {}:
        return None
    whole = isinstance(pattern, dict) and all(
        isinstance(flags, list) and all(isinstance(f, bool) for f in flags)
        for flags in pattern.values()
    )
    if not whole:
        raise ValueError(
            "`rank_pattern` must hold a list of true and false for each layer. Got "
            f"{reprlib.repr(pattern)}. The file is broken."
        )
    return {name.removesuffix(".default"): flags for name, flags in pattern.items()}


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

"""Read PEFT's adapter folder, which may come from an untrusted source."""

from __future__ import annotations

import os
import re
import reprlib
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .config import CONFIG_NAME, AdaLoraConfig
from .json_file import read_json
from .model import AdaLoraModel, get_peft_model
from .peft_format import (
    CHOOSING,
    FACTOR,
    WEIGHTS_NAME,
    WHOLE,
    is_factor,
    plain_name,
    rank_pattern,
    ranks_of,
    stored,
)
from .state import PREFIX
from .targets import is_inside

_OLD_WEIGHTS_NAME = "adapter_model.bin"
# Tensors may take this many times the bytes of their torch file, in which tied weights
# are stored once under several names.
_MAX_REPEATED = 4
_PACKED = getattr(torch, "float4_e2m1fn_x2", None)  # holds two numbers per byte
_BYTES = b"bytearray"
# torch allows every name without a dot, such as "en/de".
_PATH = re.compile(r"[^.]+(\.[^.]+)*")


def load_peft_adapter(model: nn.Module, folder: str | os.PathLike[str]) -> AdaLoraModel:
    """Load an adapter that PEFT or :func:`save_adapter` wrote, onto a model.

    Parameters
    ----------
    model : torch.nn.Module
        The pretrained model. It is changed in place.
    folder : path-like
        The adapter's folder.

    Returns
    -------
    AdaLoraModel
        The adapted model, ready to predict, and frozen. To train on, call
        ``requires_grad_()`` on its `triplets`, and on the head that was saved beside
        them.

    Raises
    ------
    TypeError
        If the model is adapted already.
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is broken, if it does not fit the model, or if the model is on the
        meta device.
    """
    config, tensors = read_adapter(folder)
    config.inference_mode = True
    # Ranks are final, also without a pattern, as PEFT saves before it first prunes.
    config.rank_pattern = rank_pattern(ranks_of(tensors), config.init_r)
    trained = [p for p in model.parameters() if p.requires_grad]
    training = [module for module in model.modules() if module.training]
    adapted = get_peft_model(model, config)
    try:
        if any(tensor.is_meta for tensor in adapted.state_dict().values()):
            raise ValueError(
                "The model must hold its weights. Got one on the meta device, where "
                "the adapter would be lost. Load the pretrained model first."
            )
        adapted.load_state_dict(tensors)
        return adapted.eval()
    except BaseException:  # such as an interrupt
        adapted.unload()
        for parameter in trained:  # the model is as it was
            parameter.requires_grad_(True)
        for module in training:
            module.training = True
        raise


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
    except (TypeError, OverflowError) as error:
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
        *parts, own = path.split(".")
        modules = [".".join(parts[: i + 1]) for i in range(len(parts))]
        longer = [module for module in modules if module.endswith(endings)]
        # A bias may be trained by itself, as `bias` says.
        if longer and own != "bias" and not is_inside(path, kept):
            kept.append(longer[0])
    return kept


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        WEIGHTS_NAME: load_file,
        _OLD_WEIGHTS_NAME: _read_torch_file,
    }
    for name, read in readers.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            return read(path)
        except MemoryError:  # which says nothing about the file
            raise
        except (SafetensorError, ValueError, OSError) as error:
            raise ValueError(_broken(path, error)) from error
        except Exception as error:  # torch's own message says how to load it unsafely
            if "allocate memory" in str(error):  # a RuntimeError of torch's
                raise
            kind = type(error).__name__
            reason = f"it holds more than tensors, or is broken ({kind})"
            raise ValueError(_broken(path, reason)) from error
    raise FileNotFoundError(
        f"An adapter folder must hold {WEIGHTS_NAME}. Got {str(folder)!r} without "
        "it. Check the path."
    )


def _read_torch_file(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    if zipfile.is_zipfile(path):  # torch may decompress huge records
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
        _refuse_larger(sum(record.file_size for record in records), size)
    if _makes_bytes(path):
        raise ValueError("it would fill memory that it does not store")
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, dict) and all(isinstance(n, str) for n in loaded):
        values = [v for v in loaded.values() if isinstance(v, Tensor)]
        _refuse_larger(sum(v.numel() * v.element_size() for v in values), size)
        return loaded
    raise ValueError(f"it holds a {type(loaded).__name__} of other things")


def _makes_bytes(path: Path) -> bool:
    """Tell whether a file calls `bytearray`, which torch allows, with any size."""
    if not zipfile.is_zipfile(path):
        return _BYTES in path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        programs = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return any(_BYTES in archive.read(name) for name in programs)


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


def _check_tensor(name: str, tensor: Any) -> Tensor:
    of_factor = is_factor(name)
    if not isinstance(tensor, Tensor) or not _is_plain(tensor, of_factor):
        kind = type(tensor).__name__
        if isinstance(tensor, Tensor):
            layout = "nested" if tensor.is_nested else tensor.layout
            kind = f"{tensor.dtype}, {layout}, on {tensor.device.type!r}"
        kinds = "in floating point" if of_factor else "of plain numbers"
        raise ValueError(
            f"{name!r} must be a tensor {kinds}. Got {kind}. "
            "The file is broken, or no adapter."
        )
    numbers = stored(tensor).clone()  # no longer a view into the file
    if not torch.isfinite(numbers).all():
        raise ValueError(
            f"{name!r} must be finite. Got NaN or infinity. The adapter is broken: "
            "train again."
        )
    return numbers.contiguous()


def _is_plain(tensor: Tensor, of_factor: bool) -> bool:
    """Tell whether a tensor is dense, on the CPU, and of numbers that are stored."""
    there = tensor.layout is torch.strided and tensor.device.type == "cpu"
    real = tensor.is_floating_point() and tensor.dtype is not _PACKED
    whole = tensor.dtype in WHOLE and not of_factor
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

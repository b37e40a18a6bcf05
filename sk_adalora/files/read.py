"""Read the folder of an estimator, which may come from an untrusted source."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch

from sk_adalora.adalora.config import CONFIG_NAME
from sk_adalora.adalora.peft_format import (
    WEIGHTS_NAME,
    rank_pattern,
    ranks_of,
    read_adapter,
)
from sk_adalora.adalora.untrusted import read_json, read_tensors
from sk_adalora.data.targets import Targets, from_state
from sk_adalora.pretrained.find import COMMIT, WITHOUT_TRUST, is_absent, snapshot
from sk_adalora.pretrained.weights import BESIDE_WEIGHTS
from sk_adalora.runtime.rules import POOLINGS

from .checks import are_sound, fits
from .layout import (
    ARRAYS_NAME,
    BACKBONE,
    CARD_NAME,
    HEAD_NAME,
    MAX_ARRAY_BYTES,
    STATE_NAME,
    broken,
    is_kept,
    settled,
)
from .state import (
    OPTIONAL_ATTRIBUTES,
    RECORDS,
    STATE_FIELDS,
    AdapterState,
    fitted_attributes,
    joined,
)
from .versions import NEWER, check_format, writer

# What is fetched from the hub: files of these names, and those of a pretrained model.
_FETCHED = [STATE_NAME, CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, HEAD_NAME, ARRAYS_NAME]
_OF_BACKBONE = [*BESIDE_WEIGHTS, "*.safetensors", "*.bin"]

# What the model card and warnings show.
_HASH, _VERSION = re.compile("[0-9a-f]{64}"), re.compile(r"[\w.+!-]{1,99}", re.ASCII)
# Types of arrays: truth, numbers, text, objects, dates and durations.
_DTYPE = re.compile(r"[<>|]([biufUmM]\d{1,9}(\[\d{0,9}[a-zA-Z]{1,2}\])?|O)")

# Types of what STATE_NAME holds.
_OF_STATE = get_type_hints(AdapterState)
_HINTS = {name: _OF_STATE[name] for name in STATE_FIELDS} | {
    "class": str,
    "parameters": dict[str, Any],
    "includes_backbone": bool,
    "layers": list[str],
    "fitted": dict[str, Any],
}


# ---- folder -----------------------------------------------------------------


def find(
    source: str | os.PathLike[str],
    revision: str | None,
    local_files_only: bool,
    trust_remote_code: bool,
) -> tuple[Path, Path]:
    """Return the folder, and the folder that its links must stay inside."""
    given = os.path.expanduser(source)
    if os.path.isdir(given):
        root = Path(given).resolve()
        return settled(root), root
    name = os.fspath(source)
    if os.path.isfile(given):
        raise NotADirectoryError(
            "`source` must be a folder that `save_pretrained` wrote. Got a file, "
            f"{name!r}. What joblib or pickle has written, load with that: "
            "joblib.load(...)."
        )
    of_backbone = [*_OF_BACKBONE, *(["*.py"] if trust_remote_code else [])]
    wanted = [*_FETCHED, *(f"{BACKBONE}/{pattern}" for pattern in of_backbone)]
    try:
        folder = snapshot(
            name,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=wanted,
        )
    except (OSError, ValueError) as error:
        if not is_absent(error):
            raise
        where = "not in the local cache" if local_files_only else "out of reach"
        raise FileNotFoundError(
            "`source` must be a folder that `save_pretrained` wrote, or a repository "
            f"of the Hugging Face hub. Got {name!r}, which is neither, or is {where}. "
            "Check the path. If another process saves there just now, load it again."
        ) from error
    return folder, folder.parents[1].resolve()  # the hub's cache links to its blobs


def read_described(folder: Path) -> dict[str, Any]:
    """Read ``sk_adalora.json``: fields of the right types."""
    try:
        described = read_json(folder / STATE_NAME)
    except FileNotFoundError as error:  # transformers loads pretrained models like this
        do = "A pretrained model belongs in the parameter `model`, for a fit."
        if is_kept(folder):
            do = f"{str(folder.parent)!r} is of a save that did not finish: save again."
        raise FileNotFoundError(f"{error} {do}") from None
    check_format(described)
    _check_fields(described, _HINTS, "the fields of a saved estimator", described)
    for name, number in described["versions"].items():
        if not _VERSION.fullmatch(name + number):
            raise broken("hold names and numbers in 'versions'", f"{name} {number}")
    return described


def _check_fields(
    values: Any, hints: Mapping[str, Any], what: str, described: dict[str, Any]
) -> None:
    """Refuse an object that has not the fields it must have, or of other types."""
    if not isinstance(values, dict):
        raise broken(f"hold {what}", values)
    _check_names(values, hints, what, described)
    for name, value in values.items():
        if not fits(value, hints[name]):
            kind = hints[name] if get_args(hints[name]) else hints[name].__name__
            raise broken(f"hold {name!r} as {kind}", value)


def _check_names(
    values: Mapping[str, Any],
    needed: Collection[str],
    what: str,
    described: dict[str, Any],
    optional: Collection[str] = (),
) -> None:
    """Refuse names that are missing, and those that only a later version may know."""
    missing = sorted({*needed} - {*values})
    unknown = sorted({*values} - {*needed} - {*optional})
    if missing:
        raise broken(f"hold {what}, with {missing}", [*values])
    if unknown:
        raise ValueError(
            f"{STATE_NAME} must hold {what} only. Got {reprlib.repr(unknown)} too, of "
            f"{writer(described)}. {NEWER}"
        )


# ---- estimator --------------------------------------------------------------


def read_parameters(
    described: dict[str, Any],
    folder: Path,
    cls: Any,
    given: dict[str, Any],
    trust_remote_code: bool,
) -> dict[str, Any]:
    """Return the parameters of the estimator, but for those that are `given`."""
    # A subclass loads what its estimator saved.
    ours = {base.__name__ for base in cls.__mro__ if hasattr(base, "_target_kinds")}
    if described["class"] not in ours:
        raise ValueError(
            f"The folder must hold an estimator of class {cls.__name__}. Got "
            f"{reprlib.repr(described['class'])}. Load it with its own class."
        )
    own, written = cls._get_param_names(), described["parameters"]
    # Those of a subclass may be missing: they take their defaults.
    _check_names(written, (), f"the parameters of {cls.__name__}", described, own)
    parameters = {name: _parameter(name, value) for name, value in written.items()}
    kwargs = parameters.get("model_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise broken("hold 'model_kwargs' as an object", kwargs)
    if not (trust_remote_code or "model_kwargs" in given):
        if asks := {name for name in kwargs if kwargs[name]} - WITHOUT_TRUST:
            raise ValueError(
                f"{STATE_NAME} must not say what transformers runs. Got "
                f"`model_kwargs` with {reprlib.repr(sorted(map(str, asks)))}. Pass "
                "trust_remote_code=True if you trust its authors, or `model_kwargs`."
            )
    if trust_remote_code and "model_kwargs" in own:  # a subclass may lack it
        parameters["model_kwargs"] = {**kwargs, "trust_remote_code": True}
    if described["includes_backbone"]:
        parameters["model"] = str(folder / BACKBONE)
    return parameters


def _parameter(name: str, value: Any) -> Any:
    """Return a parameter as it was, but tuples and sets as lists."""
    if not isinstance(value, dict):
        return value
    try:
        return dict(value["items"])
    except (KeyError, TypeError, ValueError) as error:
        raise broken(f"hold {name!r} as pairs in 'items'", value) from error


def read_fitted(described: dict[str, Any], folder: Path, cls: Any) -> dict[str, Any]:
    """Return the fitted attributes."""
    fitted = dict(described["fitted"])
    needed = ("n_features_in_", "targets", *RECORDS)
    what = f"the attributes of a fitted {cls.__name__}"
    _check_names(fitted, needed, what, described, OPTIONAL_ATTRIBUTES)
    records: dict[str, Any] = {}
    for name, kind in RECORDS.items():
        what, values = f"the fields of {kind.__name__}", fitted.pop(name)
        _check_fields(values, get_type_hints(kind), what, described)
        records[name] = kind(**values)
    targets = _read_targets(fitted.pop("targets"), cls)
    if "feature_names_in_" in fitted:
        names = _read_array("feature_names_in_", fitted["feature_names_in_"])
        fitted["feature_names_in_"] = names
    if not are_sound(fitted):
        raise broken("hold columns and seed as a fit leaves them", fitted)
    state = _read_state(described, folder)
    if targets.n_outputs != state.n_outputs:
        n_targets = targets.n_outputs
        raise broken(f"hold targets for its {state.n_outputs} outputs", n_targets)
    fitted |= {"_targets": targets, **targets.attributes}
    if cls._array_names:
        fitted |= _read_arrays(folder / ARRAYS_NAME, cls._array_names, state.width)
    return fitted | fitted_attributes(
        state, records["schedule_"], records["history_"], records["fit_report_"]
    )


def _read_array(name: str, written: dict[str, Any]) -> np.ndarray:
    """Return an array of one dimension that was written beside its type."""
    try:
        dtype, values = written["dtype"], written["values"]
        if not _DTYPE.fullmatch(dtype) or type(values) is not list:
            raise ValueError("no type of plain values")
        if not all(isinstance(value, bool | int | float | str) for value in values):
            raise ValueError("values that are not plain")
        if np.dtype(dtype).itemsize * len(values) > MAX_ARRAY_BYTES:
            raise ValueError(f"more than {MAX_ARRAY_BYTES} bytes")
        return np.array(values, dtype=dtype)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise broken(f"hold {name!r} as an array", written) from error


def _read_targets(written: Any, cls: Any) -> Targets:
    """Return the targets, of a kind that the estimator predicts."""
    try:
        values = {
            name: _read_array(name, value) if isinstance(value, dict) else value
            for name, value in written.items()
        }
        targets = from_state(values)
        if isinstance(targets, cls._target_kinds) and targets.is_sound():
            return targets
    except (AttributeError, KeyError, TypeError):
        pass
    raise broken("hold 'targets' as a fit leaves them", written)


# ---- numbers ----------------------------------------------------------------


def _read_state(described: dict[str, Any], folder: Path) -> AdapterState:
    values = {name: described[name] for name in STATE_FIELDS}
    own_head = values["pooling"] == "model"
    if values["pooling"] not in (*POOLINGS, "model"):
        raise broken("hold a 'pooling' that is known", values["pooling"])
    commit, length = values["commit"], values["feature_length"]
    if not (commit is None or COMMIT.fullmatch(commit)):
        raise broken("hold 'commit' as the hash of a commit of the hub", commit)
    if not _HASH.fullmatch(values["content_hash"]):
        raise broken("hold 'content_hash' as a SHA-256", values["content_hash"])
    if (length is None) != own_head or not (own_head or 1e-30 < length < 1e30):
        own = "null for a model's own head"
        raise broken(f"hold 'feature_length' as a number above 0, or {own}", length)
    values["feature_length"] = None if own_head else float(length)
    values["found_in"] = values["found_in"] or values["model"]
    config, tensors = read_adapter(folder)
    written = config.to_dict()
    ranks, layers = ranks_of(tensors), described["layers"]
    if sorted(layers) != sorted(ranks):
        raise broken("list the adapted layers under 'layers'", layers)
    ranks = {path: ranks[path] for path in layers}
    written["rank_pattern"] = rank_pattern(ranks, config.init_r)
    head = {} if own_head else _read_head(folder / HEAD_NAME)
    return AdapterState(config=written, arrays=joined(tensors, head), **values)


def _read_head(path: Path) -> dict[str, torch.Tensor]:
    """Read weight and bias; their shapes are compared with those of the network."""
    return _read_tensors(path, {"weight", "bias"})


def _read_arrays(
    path: Path, names: Collection[str], width: int | None
) -> dict[str, np.ndarray]:
    """Read an encoder's mean (w,) and axes (c, w), of as wide vectors as the head's."""
    arrays = {n: t.numpy() for n, t in _read_tensors(path, {*names}).items()}
    mean, axes = (arrays[name].shape for name in names)
    if mean != (width,) or axes[1:] != mean or not 1 <= axes[0] <= axes[1]:
        raise ValueError(
            f"{path.name} must hold a mean and axes of vectors, which have length "
            f"{width}. Got arrays of shapes {mean} and {axes}. The file is broken."
        )
    return arrays


def _read_tensors(path: Path, names: Collection[str]) -> dict[str, torch.Tensor]:
    """Read tensors of these names from a small file."""
    tensors = read_tensors(path)
    numbers = [*tensors.values()]
    if (
        tensors.keys() != {*names}
        or any(value.dtype != torch.float32 for value in numbers)
        or not all(bool(value.isfinite().all()) for value in numbers)
    ):
        raise ValueError(
            f"{path.name} must hold finite {sorted(names)} in float32. Got "
            f"{reprlib.repr(sorted(tensors))}, or other numbers. The file is broken."
        )
    return tensors

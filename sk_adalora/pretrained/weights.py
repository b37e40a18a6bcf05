"""Which files of a folder a pretrained model is read from; hash and copy them."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sk_adalora.runtime.threads import lock_of

# Files of vocabularies alone. Marian's are *.spm, ProphetNet's *.tokenizer, PhoBERT's
# *.codes.
_PIECES = ("*.model", "*.spm", "*.tokenizer", "*.codes", "*.tiktoken")
# Name patterns of the files that models are read from beside their weights.
BESIDE_WEIGHTS = ("*.json", "*.txt", *_PIECES)
# Where transformers looks for weights, in this order.
_INDEX = ".index.json"
SAFETENSORS, PYTORCH = "model.safetensors", "pytorch_model.bin"
_WEIGHTS = (SAFETENSORS, f"{SAFETENSORS}{_INDEX}", PYTORCH, f"{PYTORCH}{_INDEX}")
# A file of a checkpoint that several processes wrote. Where there is one, transformers
# reads all safetensors beside it.
OF_PROCESSES = "shard-*-model-*-of-*.safetensors"
_VOCABULARIES = (*_PIECES, "vocab*", "tokenizer*", "tekken.json")

# State and hash of files, by path.
_hashes: dict[Path, tuple[tuple[int, ...], str]] = {}


def has_vocabulary(folder: Path) -> bool:
    """Tell whether a folder holds any file that may be a vocabulary."""
    return any(any(folder.glob(pattern)) for pattern in _VOCABULARIES)


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder that transformers reads weights from."""
    own = (name for name in sorted(named_weights(folder)) if Path(name).name == name)
    # False for whatever is wrong with a name.
    return [path for path in map(folder.joinpath, own) if os.path.isfile(path)]


def named_weights(folder: Path) -> set[str]:
    """Return the names of the files that transformers reads weights from."""
    of_processes = any(folder.glob(f"{OF_PROCESSES}*"))
    safetensors = folder.glob("*.safetensors") if of_processes else ()
    return _named_whole(folder) | {path.name for path in safetensors}


def _named_whole(folder: Path) -> set[str]:
    """Return the names of the files of weights in the usual formats."""
    named = read_object(folder / "config.json").get("transformers_weights")
    if named is None:
        named = next((name for name in _WEIGHTS if (folder / name).is_file()), None)
    if named is None:
        return set()
    if not str(named).endswith(_INDEX) or Path(named).name != named:
        return {str(named)}
    shards = read_object(folder / named).get("weight_map")
    return set(map(str, shards.values())) if isinstance(shards, dict) else set()


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; transformers will say what is wrong with another file."""
    try:
        values = json.loads(path.read_text(encoding="utf8"))
    # Not of other errors of the system: the file may name the weights.
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def states_of(folder: Path) -> list[tuple[int | str, ...]]:
    """Return what tells whether the weights or the settings are other files by now.

    Also by their hashes: a file that is overwritten may get the time of another.
    """
    files = [*weight_files(folder), folder / "config.json"]
    return [(*_state_of(path), file_hash(path)) for path in files if path.is_file()]


def _state_of(path: Path) -> tuple[int, ...]:
    """Return other numbers for another file, and for one that was written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def exact_state_of(path: Path) -> tuple[int, ...]:
    """Return other numbers also for a file that was moved away and back.

    By the time of any change: archives and copies keep that of writing, and the number
    of a file may be given again. (A backup changes it, too.)
    """
    return *_state_of(path), path.stat().st_ctime_ns


def content_hash(folder: Path) -> str:
    """Return the SHA-256 of a model's weights.

    For a single file its own hash, as published; for several, the hash of their hashes.
    """
    named, files = named_weights(folder), weight_files(folder)
    if not named:
        raise ValueError(
            f"The folder of `model` must hold weights. Got {str(folder)!r} without "
            f"{SAFETENSORS} or {PYTORCH}, or an index that names several such files. "
            "Save it with `save_pretrained`."
        )
    elsewhere = named - {path.name for path in files}
    if elsewhere:
        raise ValueError(
            f"The weights of `model` must be files of its folder. Got {str(folder)!r}, "
            f"which names {reprlib.repr(sorted(elsewhere))}. Save it with "
            "`save_pretrained`."
        )
    hashes = [file_hash(path) for path in files]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def settings_hashes(folder: Path) -> tuple[tuple[str, str], ...]:
    """Hash the files that a model is read from beside its weights."""
    found = [*_beside_weights(folder), *folder.glob("*.py")]
    files = sorted(path for path in found if path.is_file())
    return tuple((path.name, file_hash(path)) for path in files)


def _beside_weights(folder: Path) -> list[Path]:
    """Return the files that a model is read from beside its weights and code."""
    return [path for pattern in BESIDE_WEIGHTS for path in folder.glob(pattern)]


def file_hash(path: Path) -> str:
    """Hash a file once a process, as long as it does not change."""
    with lock_of(("hash", path)):
        state = exact_state_of(path)
        known, digest = _hashes.get(path, (None, ""))
        if known != state:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            _hashes[path] = state, digest
        return digest


def copy_backbone(folder: Path, target: Path, *, with_code: bool = False) -> None:
    """Copy configuration, tokenizer and weights of a model, and nothing else.

    `target` is a folder that does not exist yet.
    """
    target.mkdir()
    wanted = [*weight_files(folder), *_beside_weights(folder)]
    wanted += folder.glob("*.py") if with_code else ()
    for path in wanted:
        if path.is_file():  # a link of the hub's cache is followed
            shutil.copyfile(path, target / path.name)


def lies_in(model: Path, folder: Path) -> bool:
    """Tell whether replacing a folder would delete the pretrained model inside it."""
    inside = model.resolve()
    chain = (inside, *inside.parents)
    # By its name too: another writer may just have moved it away.
    if Path(os.path.realpath(folder)) in chain:
        return True
    # Compare files, not names: "Models" is also "models" on macOS and Windows.
    return folder.exists() and any(
        os.path.samefile(parent, folder) for parent in chain if parent.exists()
    )


def forget_hashes() -> None:
    """Forget the hashes of files."""
    _hashes.clear()


# Parts of the names of entries of config.json that name code, of attention or experts.
# With a "/" in it, that is a repository of the hub, whose code would be run.
_NAMES_CODE = ("attn_implementation", "experts_implementation")
# The entry that gives others another name, also those that name code or weights.
_RENAMES = "attribute_map"
# The entry of models of images that may name a model of the hub, of which transformers
# would fetch the settings, whether or not the network may be used.
_NAMES_MODEL = "backbone"


def check_folder(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a folder that lacks files, or names others than those it is known by.

    One that holds an adapter is refused, too, and, without `trust_remote_code`, one
    that names code or a model of the hub.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"The folder of `model` must hold config.json. Got {str(folder)!r} "
            "without it. Save the model with `save_pretrained`."
        )
    # Where PEFT is installed, transformers would load the adapter too, silently.
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            "The folder of `model` must hold no adapter of PEFT's beside the model. "
            f"Got {str(folder)!r} with adapter_config.json. Merge it, or move it away."
        )
    if not has_vocabulary(folder):
        raise ValueError(no_tokenizer(folder))
    settings = read_object(folder / "config.json")
    if "configuration_files" in settings:  # for other versions of transformers
        raise ValueError(
            "The config.json of `model` must hold all settings. Got "
            f"{str(folder)!r}, where it names others by `configuration_files`. Put the "
            "right one in its place."
        )
    code = None if trust_remote_code else next(_named_code(settings), None)
    if code is not None:
        raise ValueError(
            "The config.json of `model` must not name code of the hub, or a model by "
            f"`{_NAMES_MODEL}`, or rename entries by `{_RENAMES}`. Got "
            f"{reprlib.repr(code)} in {str(folder)!r}. "
            "Remove that entry, or pass trust_remote_code=True if you trust its "
            "authors."
        )


def refuse_estimator(folder: Path) -> None:
    """Refuse the folder of an estimator, which may hold no weights of a model."""
    if (folder / "sk_adalora.json").is_file():
        raise ValueError(
            f"The folder of `model` must hold a pretrained model. Got {str(folder)!r} "
            "with a fitted estimator. Load that with `from_pretrained`, or write a "
            "model with its `merge_and_save`."
        )


def no_tokenizer(folder: Path) -> str:
    """Return the error about a folder without a vocabulary."""
    return (
        f"The folder of `model` must hold a tokenizer. Got {str(folder)!r} without the "
        "vocabulary of one. Save it there with `tokenizer.save_pretrained`."
    )


def _named_code(settings: Any, names_code: bool = False) -> Iterator[str]:
    """Go through what nested settings name of the hub, and what may hide such names."""
    if isinstance(settings, dict):  # an entry may be one, with a name for each part
        for name, value in settings.items():
            if (name == _RENAMES and value) or (
                name == _NAMES_MODEL and isinstance(value, str)
            ):
                yield name
            named = any(part in name for part in _NAMES_CODE)
            yield from _named_code(value, names_code or named)
    elif isinstance(settings, list):
        for value in settings:
            yield from _named_code(value, names_code)
    elif names_code and isinstance(settings, str) and "/" in settings:
        yield settings

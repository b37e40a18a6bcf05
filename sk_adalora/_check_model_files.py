"""Check the folder of a pretrained model before transformers reads it."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._model_files import has_vocabulary, read_object

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

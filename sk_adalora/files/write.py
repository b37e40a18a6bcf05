"""Write what an estimator is, for its folder and for an exported model."""

from __future__ import annotations

import json
import os
import re
import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from sk_adalora.adalora.json_file import MAX_BYTES
from sk_adalora.pretrained.backbone import Backbone, check_in_place
from sk_adalora.pretrained.weights import content_hash, copy_backbone, settings_hashes
from sk_adalora.tokens.tokenize import locked

from .json_values import to_json
from .layout import BACKBONE
from .state import OF_SOME_FITS, RECORDS, STATE_FIELDS

# Endings of what transformers writes as text.
_TEXTS = {".json", ".txt", ".jinja"}


def copy_model(backbone: Backbone, target: Path, with_code: bool) -> None:
    """Copy the files of a pretrained model."""
    rest = dict(settings_hashes(backbone.folder))
    copy_backbone(backbone.folder, target, with_code=with_code)
    check_in_place(backbone)
    if not with_code:
        rest = {name: kept for name, kept in rest.items() if not name.endswith(".py")}
    try:
        same = content_hash(target) == backbone.content_hash
        same = same and dict(settings_hashes(target)) == rest
    except ValueError:  # some were not there to be copied
        same = False
    if not same:
        raise ValueError(
            "The files of `model` must stay as they are while they are copied. Got "
            f"{str(backbone.folder)!r}, where some were replaced just now. Save again."
        )


def save_tokenizer(tokenizer: Any, folder: Path, row_format: Any) -> None:
    """Write a tokenizer with its own settings, while no other thread uses it.

    The copy returns what the estimator gives to the model.
    """
    names = tokenizer.model_input_names
    given = {n: getattr(tokenizer, n) for n in ("padding_side", "split_special_tokens")}
    # Of single texts, the model is given no types. All are 0 where a tokenizer returns
    # them by itself; XLNet's does not, and they would not be.
    if row_format == "pair" or "token_type_ids" not in names:
        given["model_input_names"] = names
    with locked(tokenizer):
        read = tokenizer.init_kwargs
        try:
            # transformers leaves out what the files that it read did not say.
            tokenizer.init_kwargs = {**read, **given}
            tokenizer.save_pretrained(folder)
        finally:
            tokenizer.init_kwargs = read


def describe(estimator: Any, include_backbone: bool) -> dict[str, Any]:
    """Return all that is not a tensor, as JSON values."""
    parameters = estimator.get_params(deep=False)
    seed = parameters.get("random_state")  # a subclass may lack it
    if not isinstance(seed, int | np.integer | None):
        parameters["random_state"] = None  # a generator's state is no parameter
    if include_backbone:
        parameters["model"] = BACKBONE
    written = {
        name: _plain(
            name,
            os.fspath(value) if isinstance(value, os.PathLike) else value,
            f"set `{name}` to a plain value",
        )
        for name, value in parameters.items()
    }
    fitted = {
        name: _plain(name, vars(estimator)[name], "fit with plain labels, such as str")
        for name in (*estimator._coding, "n_features_in_", *OF_SOME_FITS)
        if name in vars(estimator)
    }
    state = estimator._adapter
    for name in RECORDS:
        fitted[name] = to_json(dict(vars(vars(estimator)[name])))
    described = {name: getattr(state, name) for name in STATE_FIELDS}
    # A path in a cache means nothing on another machine.
    if include_backbone or not state.is_folder:
        described["found_in"] = ""
    if include_backbone:
        described["commit"] = None
    return described | {
        "class": type(estimator).__name__,
        "parameters": written,
        "includes_backbone": include_backbone,
        "layers": list(estimator.ranks_),  # in the order of the model
        "fitted": fitted,
    }


def _plain(name: str, value: Any, advice: str) -> Any:
    """Return a parameter or an attribute as JSON, or say what else to do."""
    try:
        return to_json(value)
    except TypeError as error:
        raise TypeError(
            f"`{name}` must be a plain value to be saved as JSON. Got "
            f"{reprlib.repr(value)}: {error}. Save with joblib, or {advice}."
        ) from error


def name_outputs(config: Any, estimator: Any) -> None:
    """Tell transformers' configuration what the outputs are."""
    names = estimator._label_names()
    config.id2label = names
    config.label2id = {name: i for i, name in names.items()}
    config.problem_type = estimator._problem_type()


def readable(described: dict[str, Any]) -> str:
    """Write JSON for people, lists of numbers in one line.

    Raises
    ------
    ValueError
        If it is more than :func:`~.adalora.json_file.read_json` reads.
    """
    text = json.dumps(described, indent=2, sort_keys=True)
    # JSON escapes line breaks inside texts, so that this matches between values only.
    lists = re.compile(r"\[\n\s+([^\[\]{}\"]*?)\n\s*\]")
    text = lists.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    if len(text) >= MAX_BYTES:  # with the end of the last line; all is ASCII
        steps = len(described["fitted"]["history_"]["loss"])
        raise ValueError(
            f"What a folder says of a fit must take less than {MAX_BYTES} bytes. Got "
            f"{len(text)}, with a history of {steps} steps. Save with joblib."
        )
    return text


def write_text(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf8", newline="\n")


def undo_text_mode(folder: Path) -> None:
    """Give text files that transformers wrote the same bytes on every system."""
    if os.linesep == "\n":
        return
    for path in folder.rglob("*"):
        if path.suffix in _TEXTS:
            data = path.read_bytes()
            path.write_bytes(data.replace(os.linesep.encode(), b"\n"))

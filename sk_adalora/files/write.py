"""Write the files of an estimator's folder, and of an exported model."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sk_adalora.adalora.untrusted import MAX_BYTES
from sk_adalora.pretrained.backbone import Backbone, check_unchanged
from sk_adalora.pretrained.weights import copy_backbone
from sk_adalora.tokens.tokenize import locked

from .layout import BACKBONE, MAX_ARRAY_BYTES
from .state import OPTIONAL_ATTRIBUTES, RECORDS, STATE_FIELDS

# Names of sentence-transformers for our `pooling`, which its older versions read, too.
_POOLING_MODES = {
    "mean": "mean_tokens",
    "cls": "cls_token",
    "last": "lasttoken",
    "max": "max_tokens",
}
_POOLING = "1_Pooling"


def write_text(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf8", newline="\n")


# ---- what is no tensor, as JSON ---------------------------------------------


def describe(estimator: Any, include_backbone: bool) -> dict[str, Any]:
    """Return all that is not a tensor, as JSON values."""
    parameters = estimator.get_params(deep=False)
    seed = parameters.get("random_state")  # a subclass may lack it
    if not isinstance(seed, int | np.integer | None):
        parameters["random_state"] = None  # a generator's state is no parameter
    if include_backbone:
        parameters["model"] = BACKBONE
    fitted = {
        name: _named(name, vars(estimator)[name], _attribute, "fit with labels of str")
        for name in ("n_features_in_", *OPTIONAL_ATTRIBUTES)
        if name in vars(estimator)
    }
    fitted |= {name: dict(vars(getattr(estimator, name))) for name in RECORDS}
    fitted["targets"] = {
        name: _named("y", value, _attribute, "fit with labels of str")
        for name, value in estimator._targets.to_state().items()
    }
    state = estimator._adapter
    described = {name: getattr(state, name) for name in STATE_FIELDS}
    # A path in a cache means nothing on another machine.
    if include_backbone or not state.is_folder:
        described["found_in"] = ""
    if include_backbone:
        described["commit"] = None
    return described | {
        "class": type(estimator).__name__,
        "parameters": {
            name: _named(name, value, _parameter, f"set `{name}` to a plain value")
            for name, value in parameters.items()
        },
        "includes_backbone": include_backbone,
        "layers": list(estimator.ranks_),  # in the order of the model
        "fitted": fitted,
    }


def _named(name: str, value: Any, to_json: Callable[[Any], Any], advice: str) -> Any:
    """Return a parameter or an attribute as JSON, or say what else to do."""
    try:
        return to_json(value)
    except TypeError as error:
        raise TypeError(
            f"`{name}` must be a plain value to be saved as JSON. Got "
            f"{reprlib.repr(value)}: {error}. Save with joblib, or {advice}."
        ) from error


def _parameter(value: Any) -> Any:
    """Return a parameter as JSON has it."""
    if isinstance(value, Mapping):  # its keys may be numbers, which JSON's are not
        return {"items": [[_plain(k), _plain(v)] for k, v in value.items()]}
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers of Python's, and lists."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is no plain value")


def _attribute(value: Any) -> Any:
    """Return a fitted attribute: of an array of one dimension, a list and its type."""
    if not isinstance(value, np.ndarray):
        return _plain(value)
    if value.nbytes > MAX_ARRAY_BYTES:
        raise TypeError(f"an array of more than {MAX_ARRAY_BYTES} bytes")
    in_units = value.dtype.kind in "mM"  # dates and durations
    items = value.astype(np.int64).tolist() if in_units else value.tolist()
    odd = {type(item) for item in items} - {bool, int, float, str}
    if odd:
        raise TypeError(f"{odd.pop().__name__} is no plain value")
    return {"dtype": value.dtype.str, "values": items}


def readable(described: dict[str, Any]) -> str:
    """Write JSON for people, lists of numbers in one line.

    Raises
    ------
    ValueError
        If it is more than :func:`~.adalora.untrusted.read_json` reads.
    """
    text = json.dumps(described, indent=2, sort_keys=True, allow_nan=False)
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


# ---- for other programs -----------------------------------------------------


def copy_model(backbone: Backbone, target: Path) -> None:
    """Copy the files of a pretrained model."""
    check_unchanged(backbone)
    with_code = backbone.asked.trust_remote_code
    copy_backbone(backbone.folder, target, with_code=with_code)


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


def name_outputs(config: Any, estimator: Any) -> None:
    """Tell transformers' configuration what the outputs are."""
    targets = estimator._targets
    config.id2label = dict(enumerate(targets.names))
    config.label2id = {name: i for i, name in config.id2label.items()}
    config.problem_type = targets.problem_type


def write_sentence_files(
    folder: Path, *, pooling: str, width: int, max_length: int
) -> None:
    """Write what ``SentenceTransformer(folder)`` reads beside the model.

    `width` is the length of a pooled vector, `max_length` the longest text in tokens.
    """
    parts = {"Transformer": "", "Pooling": _POOLING}
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, (kind, path) in enumerate(parts.items())
    ]
    modes = {
        f"pooling_mode_{mode}": ours == pooling for ours, mode in _POOLING_MODES.items()
    }
    (folder / _POOLING).mkdir()
    settings: dict[str, Any] = {
        "modules.json": modules,
        f"{_POOLING}/config.json": {"word_embedding_dimension": width, **modes},
        "sentence_bert_config.json": {
            "max_seq_length": max_length,
            "do_lower_case": False,
        },
    }
    for name, values in settings.items():
        write_text(folder / name, json.dumps(values, indent=2))

"""What a study was made with: data, folds, space, scoring and estimator, as hashes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from optuna.distributions import distribution_to_json

from sk_adalora.pretrained.weights import content_hash
from sk_adalora.runtime.digest import digest, is_compared

from .dimensions import CalledSpace, Space

_ADVICE = {
    "data": "the rows (X, y, weights)",
    "cv": "the folds; a shuffled `cv` needs a `random_state`",
    "space": "the space",
    "scoring": "`scoring`, or the metric that `refit` names",
    "parameters": "parameters of the estimator that are not searched",
    "models": "the weights of the pretrained model",
}
# Of more parameters that differ, only so many are named.
_MOST_NAMES = 8


def fingerprint(
    data: Sequence[Any],
    splits: Iterable[tuple[np.ndarray, np.ndarray]],
    space: Space,
    scoring: Any,
    estimator: Any,
) -> dict[str, Any]:
    """Hash each part of what the scores of a study depend on.

    `data` are X, y and what else `fit` got. Of the estimator, parameters that the space
    does not set are compared. Parameters and models are hashed by name.
    """
    own = {**estimator.get_params(deep=True), "": estimator}
    named = set(map(id, own.values()))
    compared = {name: own[name] for name in own if is_compared(name)}
    folds = [[np.asarray(rows, np.int64) for rows in pair] for pair in splits]
    return {
        "data": digest(data),
        "cv": joblib.hash(folds),
        "space": _hash_of_space(space),
        "scoring": digest(scoring),
        "parameters": {
            name: digest(value, named)
            for name, value in compared.items()
            if name not in space.names()
        },
        "models": _models(own, space),
    }


def _hash_of_space(space: Space) -> str:
    if isinstance(space, CalledSpace):  # what it asks for is not known before
        return digest(space.function)
    searched = space.distributions()
    written = {name: distribution_to_json(searched[name]) for name in searched}
    return digest([written, space.choices(), space.fixed(), space.ties])


def _models(own: Mapping[str, Any], space: Space) -> dict[str, str]:
    """Hash the weights in folders of models: others may be saved under their names.

    The folders are those that the estimators of ours have for `model`, or get from the
    space.
    """
    fixed, choices = space.fixed(), space.choices()
    hashes = {}
    for name, value in own.items():
        prefix, _, last = name.rpartition("__")
        if last != "model" or f"{prefix}__target_r".removeprefix("__") not in own:
            continue
        models = {name: fixed.get(name, value)}
        if name in choices:
            models = {f"{name}={choice}": choice for choice in choices[name]}
        for shown, model in models.items():
            with suppress(OSError, TypeError, ValueError):  # a fit refuses it, too
                # As a fit finds it, which keeps the hashes of large files.
                folder = Path(os.path.realpath(os.path.expanduser(model)))
                if folder.is_dir():
                    hashes[shown] = content_hash(folder)
    return hashes


def check_same(stored: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Refuse a study that was made with something else, and say in which parts."""
    differing = []
    for part, advice in _ADVICE.items():
        then, here = stored.get(part, {}), now[part]
        if part == "models":  # a folder may be missing
            then = {name: then[name] for name in then.keys() & here.keys()}
            here = {name: here[name] for name in then}
        if then != here:
            named = _named(then, here) if isinstance(here, dict) else ""
            differing.append(advice + named)
    if differing:
        raise ValueError(
            f"The study {name!r} must go on with what it began with: otherwise its "
            "scores cannot be compared. Got other values of: "
            f"{'; '.join(differing)}. Pass the same again, or choose another "
            "`study_name`."
        )


def _named(stored: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Name what differs; the estimator itself has no name."""
    either = sorted({*stored, *now} - {""})
    names = [name for name in either if stored.get(name) != now.get(name)]
    more = ["..."] if len(names) > _MOST_NAMES else []
    return f": {', '.join(names[:_MOST_NAMES] + more)}" if names else ""

"""What a study was made with: data, folds, space, scoring and estimator, as hashes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import distribution_to_json

from sk_adalora.estimators.base import BaseAdaLora
from sk_adalora.pretrained.weights import content_hash

from .code import code_of, compared_parameters, describe
from .digest import digest
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
# Byte code is compared where it was made by the same Python.
_CODE = f"code, Python {sys.version_info.major}.{sys.version_info.minor}"
_ADVICE[_CODE] = "the code of functions in space, `scoring` or estimator"


def fingerprint(
    data: Sequence[Any],
    splits: Iterable[tuple[np.ndarray, np.ndarray]],
    space: Space,
    scoring: Any,
    estimator: Any,
) -> dict[str, Any]:
    """Hash each part of what the scores of a study depend on.

    `data` are X, y and what else `fit` got, of any kind. Of the estimator, parameters
    that the space does not set are compared. Parameters and models are hashed by name.
    """
    parameters = {
        name: value
        for name, value in compared_parameters(estimator, deep=True).items()
        if name not in space.names()
    }
    parts = [estimator, *estimator.get_params(deep=True).values()]
    named = set(map(id, parts))
    searched = space.function if isinstance(space, CalledSpace) else space.fixed()
    folds = [[np.asarray(rows, np.int64).tobytes() for rows in pair] for pair in splits]
    targets = map(_as_matrix, data[1:2])
    return {
        "data": digest([*data[:1], *targets, *data[2:]]),
        "cv": digest(folds),
        "space": digest(_describe_space(space)),
        "scoring": digest(describe(scoring)),
        "parameters": {
            name: digest(describe(value, named))
            for name, value in {**parameters, "": estimator}.items()
        },
        "models": _models(estimator, space),
        _CODE: code_of([searched, space.choices(), scoring, parameters]),
    }


def _models(estimator: Any, space: Space) -> dict[str, str]:
    """Hash the weights in folders of models: others may be saved under their names.

    The folders are those that the estimators of ours have for `model`, or get from the
    space.
    """
    own = {**estimator.get_params(deep=True), "": estimator}
    fixed, choices = space.fixed(), space.choices()
    hashes = {}
    for name, value in own.items():
        prefix, _, last = name.rpartition("__")
        if last != "model" or not isinstance(own.get(prefix), BaseAdaLora):
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


def _as_matrix(y: Any) -> Any:
    """Return a matrix of numbers as floats, whatever it came in; others as they are."""
    try:
        if hasattr(y, "toarray") and y.dtype.kind in "biuf":
            y = y.astype(np.float64).toarray()
        values = np.asarray(y)
    except Exception:  # rows of several lengths, or what NumPy does not know
        return y
    if values.dtype.kind == "O" and all(isinstance(v, Number) for v in values.flat):
        values = np.array(values.tolist())
    is_matrix = values.ndim == 2 and values.dtype.kind in "biuf"
    return values.astype(np.float64, copy=False) if is_matrix else y


def check_same(stored: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Refuse a study that was made with something else, and say in which parts."""
    differing = []
    for part, advice in _ADVICE.items():
        if part == _CODE and part not in stored:
            continue  # by another Python
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


def _describe_space(space: Space) -> Any:
    if isinstance(space, CalledSpace):  # what it asks for is not known before
        return describe(space.function)
    searched = space.distributions()
    return [
        {name: distribution_to_json(searched[name]) for name in searched},
        describe([space.choices(), space.fixed()], named=()),  # not shortened
        dict(space.ties),
    ]

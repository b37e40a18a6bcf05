"""What a study was made with: data, folds, space, scoring and estimator, as hashes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import joblib
import numpy as np
from optuna.distributions import distribution_to_json
from scipy import sparse

from sk_adalora.pretrained.weights import content_hash

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
# The main module, and what a spawned process calls it.
_MAIN = ("__main__", "__mp_main__")
# Parameters that change where or how a fit runs, but not its result: workers may differ
# in these.
_NOT_COMPARED = {"device", "local_files_only", "memory", "n_jobs", "verbose"}


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
    compared = {name: own[name] for name in own if _is_compared(name)}
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


def digest(value: Any, named: Collection[int] | None = None) -> str:
    """Hash a value by its content, the same in every process.

    Functions and classes are hashed by their names, estimators by their parameters too;
    by their type alone those whose ids are `named`, as their parameters have names of
    their own. A list, a tuple and an array of the same values are alike.
    """
    return str(joblib.hash(_describe(value, named or ())))


def _describe(value: Any, named: Collection[int]) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    inner = partial(_describe, named=named)
    if isinstance(value, Mapping):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [inner(item) for item in value]
    if isinstance(value, set | frozenset):  # whose order depends on the process
        return {"": sorted(str(joblib.hash(inner(item))) for item in value)}
    if isinstance(value, partial):
        return inner([value.func, value.args, value.keywords])
    if "_score_func" in getattr(value, "__dict__", {}):  # of `make_scorer`
        names = ("_score_func", "_sign", "_kwargs", "_response_method")
        return [inner(getattr(value, name)) for name in names]
    if hasattr(value, "get_params") and not isinstance(value, type):
        parameters = value.get_params(deep=False)
        compared = {name: parameters[name] for name in parameters if _is_compared(name)}
        return [type(value).__qualname__, {} if id(value) in named else inner(compared)]
    if callable(value):  # an object that is may hold its log or its cache
        named_so = value if hasattr(value, "__qualname__") else type(value)
        module = getattr(named_so, "__module__", None)
        return f"{_MAIN[0] if module in _MAIN else module}.{named_so.__qualname__}"
    return _hash_of_content(value)


def _hash_of_content(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if sparse.issparse(value):  # which keeps in itself what it has computed
        rows = sparse.csr_array(value)
        value = [rows.shape, rows.data, rows.indices, rows.indptr]
    try:
        if hasattr(value, "__array__") and not hasattr(value, "columns"):
            array = np.asarray(value)
            return array.tolist() if array.ndim < 2 else array
        return joblib.hash(value)
    except Exception:  # it cannot be pickled, as what holds a lock
        return type(value).__qualname__


def _is_compared(name: str) -> bool:
    return name.rpartition("__")[2] not in _NOT_COMPARED


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

"""What a study was made with: data, folds, space, scoring and estimator, as hashes."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from numbers import Number
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from optuna.distributions import distribution_to_json
from sklearn import get_config
from sklearn.utils.metadata_routing import get_routing_for_object

from ._base import BaseAdaLora
from ._dimensions import CalledSpace, Space
from ._model_files import content_hash
from ._search_code import codes_of, describe
from ._search_digest import BY_REPR, digest

# Parameters that change where or how a fit runs, but not its result: workers may differ
# in these.
_NOT_COMPARED = {"device", "local_files_only", "memory", "n_jobs", "verbose"}
_ADVICE = {
    "data": "the rows (X, y, weights)",
    "cv": "the folds; a shuffled `cv` needs a `random_state`",
    "space": "the space",
    "values": "the space, in what its objects hold",
    "scoring": "`scoring`, or the metric that `refit` names",
    "requests": "the requests of weights and other metadata, or whether they count",
    "parameters": "parameters of the estimator that are not searched",
    "models": "the weights of the pretrained model",
}
# Compared since later, so that a study may be without them.
_LATER = ("requests", "models", "values")
# Of more parameters or classes that differ, only so many are named.
_MOST_NAMES = 8
# Byte code is compared where it was made by the same Python.
_CODE = f"codes, Python {sys.version_info.major}.{sys.version_info.minor}"
_ADVICE[_CODE] = "the code of functions or classes in space, `scoring` or estimator"


def fingerprint(
    data: Sequence[Any],
    splits: Iterable[tuple[np.ndarray, np.ndarray]],
    space: Space,
    scoring: Any,
    estimator: Any,
    requests: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Hash each part of what the scores of a study depend on.

    Parameters
    ----------
    data : sequence
        X, y and other data that `fit` got, of any kind, in this order.
    splits : iterable of pairs of ndarray
        Training and test rows of each fold.
    space : Space
        What is searched.
    scoring : object
        How folds are scored.
    estimator : estimator
        Its parameters that the space does not set are compared.
    requests : dict or None, default=None
        As :func:`requests_of` returns them.

    Returns
    -------
    dict of str to str, or to dict of str to str
        The latter by name: of values, parameters, models and code.
    """
    parameters = _compared(estimator, leave_out=space.names())
    fixed = space.function if isinstance(space, CalledSpace) else space.fixed()
    codes = codes_of([fixed, scoring, parameters, estimator])
    tried = _tried(space)
    inside = [step.get_params(deep=True) for step in _steps(tried)]
    # Under names of their own, which a study of before is without.
    more = codes_of([space.choices(), inside])
    codes = {**more, "values of the space": more[""], **codes}
    folds = [[np.asarray(rows, np.int64).tobytes() for rows in pair] for pair in splits]
    targets = map(_as_matrix, data[1:2])
    return {
        "data": digest([*data[:1], *targets, *data[2:]]),
        "cv": digest(folds),
        "space": digest(_describe_space(space)),
        "values": {
            name: digest(_describe_value(values))
            for name, values in tried.items()
            if not all(value is None or isinstance(value, BY_REPR) for value in values)
        },
        "scoring": digest(describe(scoring)),
        "requests": digest(requests or {}),
        "parameters": {
            name: digest(describe(value))
            for name, value in {**parameters, "": estimator}.items()
        },
        "models": _models(estimator, parameters, space),
        _CODE: codes,
    }


def requests_of(search: Any, given: Collection[str]) -> dict[str, Any]:
    """Return which parts of a search ask for weights and other metadata.

    Parameters
    ----------
    search : estimator
        The search.
    given : collection of str
        Names of the metadata that there are.

    Returns
    -------
    dict of str to dict, bool, str or None
        Empty if scikit-learn does not route metadata by requests.
    """
    if not given or not get_config()["enable_metadata_routing"]:
        return {}
    text = repr(get_routing_for_object(search))
    try:
        requests = ast.literal_eval(text)  # a dict's, unless something is of NumPy
    except (SyntaxError, ValueError):
        return {"all": text}
    return _asked_for(requests, given)


def _asked_for(requests: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Leave out what is not given, and who calls whom: both depend on versions."""
    found: dict[str, Any] = {}
    for name, value in requests.items():
        if isinstance(value, Mapping):
            inner = _asked_for(value, given)
            if inner:
                found[name] = inner
        elif isinstance(value, str):
            if value in given:
                found[name] = str(value)
        elif name in given and value:  # None and False: it is not passed on
            found[name] = True
    return found


def _models(
    estimator: Any, parameters: Mapping[str, Any], space: Space
) -> dict[str, str]:
    """Hash the weights in folders of models: others may be saved under their names."""
    hashes = {}
    for shown, value in _named_models(estimator, parameters, space):
        with suppress(OSError, TypeError, ValueError):  # a fit refuses it, too
            # As a fit finds it, which keeps the hashes of large files.
            folder = Path(os.path.realpath(os.path.expanduser(value)))
            if folder.is_dir():
                hashes[shown] = content_hash(folder)
    return hashes


def _named_models(
    estimator: Any, parameters: Mapping[str, Any], space: Space
) -> Iterator[tuple[str, Any]]:
    """Yield each `model` that a fit may read, after what to call it."""
    fixed, choices = space.fixed(), space.choices()
    settings = {**parameters, **fixed}
    owners = {**settings, "": estimator}
    for name, values in choices.items():  # one of ours, if there is one
        ours = (value for value in values if isinstance(value, BaseAdaLora))
        owners[name] = next(ours, None)
    for name, value in settings.items():
        if _is_model(name, owners):
            yield name, value
    for name, values in choices.items():
        if _is_model(name, owners):
            yield from ((f"{name}={value}", value) for value in values)
    for name, held in _tried(space).items():
        for step in _steps(held):
            inside = {**step.get_params(deep=True), "": step}
            for own, value in inside.items():
                if _is_model(own, inside):
                    yield f"{name}__{own}={value}", value


def _is_model(name: str, owners: Mapping[str, Any]) -> bool:
    """Tell whether a parameter is the pretrained model of an estimator of ours."""
    prefix, _, own = name.rpartition("__")
    return own == "model" and isinstance(owners.get(prefix), BaseAdaLora)


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
        if part in (_CODE, *_LATER) and part not in stored:
            continue  # of code, by another Python
        then, here = stored.get(part, {}), now[part]
        # What is the user's own code here may be installed there, and a folder missing.
        if part in (_CODE, "models"):
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
    """Name what differs; the estimator itself, and the functions, have no name."""
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
        {name: describe(value) for name, value in space.fixed().items()},
        dict(space.ties),
    ]


def _describe_value(value: Any) -> Any:
    """Describe a value, with the parameters of the estimators in it."""
    if isinstance(value, Mapping):
        return {str(key): _describe_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_describe_value(item) for item in value]
    if not _is_estimator(value):
        return describe(value)
    return [describe(value), describe(_compared(value))]


def _tried(space: Space) -> dict[str, Sequence[Any]]:
    """Return what a space sets, of which a study may have only shortened texts."""
    return {**{n: (v,) for n, v in space.fixed().items()}, **space.choices()}


def _steps(value: Any) -> Iterator[Any]:
    """Find the estimators in lists and dicts."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _steps(item)
    elif _is_estimator(value):
        yield value


def _is_estimator(value: Any) -> bool:
    return hasattr(value, "get_params") and not isinstance(value, type)


def _compared(estimator: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Return the parameters on which scores depend; a path and its text are alike."""
    return {
        name: str(value) if isinstance(value, PurePath) else value
        for name, value in estimator.get_params(deep=True).items()
        if name not in leave_out and name.split("__")[-1] not in _NOT_COMPARED
    }

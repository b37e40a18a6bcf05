"""What a study was made with: data, folds, space, scoring and estimator, as hashes.

Functions are compared by name, code, defaults and closure, and so are the functions in
these. Classes are compared by name, and by the code of their methods and those of their
bases that are the user's own. A change goes unnoticed in

- methods of the standard library and of installed packages: other versions may be used;
- what a function looks up when it runs: globals, imported modules, attributes;
- the contents of lists, dicts and other objects in its defaults and its closure, which
  may be its log or its cache: only their type is compared;
- what objects that are called like functions hold, unless their repr tells;
- all code, if the Python is of another minor version: its byte code differs.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property, partial, partialmethod, singledispatchmethod
from numbers import Number
from pathlib import PurePath
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from optuna.distributions import distribution_to_json

from ._dimensions import CalledSpace, Space

# Parameters that change where or how a fit runs, but not its result: workers may differ
# in these.
_NOT_COMPARED = {"device", "local_files_only", "memory", "n_jobs", "verbose"}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DIGITS = 16
# Types whose repr is the same in every process.
_BY_REPR = (str, bytes, bool, int, float, date, time, Decimal)
# Of those that a function may hold, types whose values stay as they are; of arrays, it
# is assumed.
_CONSTANTS = (*_BY_REPR, Number, timedelta, range, Enum, np.ndarray)
_ADVICE = {
    "data": "the rows (X, y, weights)",
    "cv": "the folds; a shuffled `cv` needs a `random_state`",
    "space": "the space",
    "scoring": "`scoring`, or the metric that `refit` names",
    "parameters": "parameters of the estimator that are not searched",
}
# Of more parameters or classes that differ, only so many are named.
_MOST_NAMES = 8
# Instructions of byte code that assign to variables of an enclosing function.
_WRITES = ("STORE_DEREF", "DELETE_DEREF")
# Byte code is compared where it was made by the same Python.
_CODE = f"code, Python {sys.version_info.major}.{sys.version_info.minor}"
_ADVICE[_CODE] = "the code of functions or classes in space, `scoring` or estimator"
# Packages whose code is not the user's own, wherever they are, and folders of others.
_LIBRARIES = {"sk_adalora", "sklearn", *sys.stdlib_module_names}
_INSTALLED = {"site-packages", "dist-packages"}
# The main module, and what a spawned process calls it.
_MAIN = ("__main__", "__mp_main__")
# What a class may hold instead of a function, beside methods and properties.
_OF_A_FUNCTION = (cached_property, partial, partialmethod, singledispatchmethod)
# What Python makes of annotations.
_ANNOTATIONS = ("__annotate__", "__annotate_func__")


def fingerprint(
    data: Sequence[Any],
    splits: Iterable[tuple[np.ndarray, np.ndarray]],
    space: Space,
    scoring: Any,
    estimator: Any,
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

    Returns
    -------
    dict of str to str
        But for the parameters, and the code by class, which are dicts themselves.
    """
    parameters = _compared(estimator, space)
    tried = space.function if isinstance(space, CalledSpace) else space.fixed()
    held = [tried, scoring, parameters, estimator]
    folds = [[np.asarray(rows, np.int64).tobytes() for rows in pair] for pair in splits]
    targets = map(_as_matrix, data[1:2])
    return {
        "data": digest([*data[:1], *targets, *data[2:]]),
        "cv": digest(folds),
        "space": digest(_describe_space(space)),
        "scoring": digest(_describe(scoring)),
        "parameters": {
            # A path and its text are the same model.
            name: digest(_describe(str(v) if isinstance(v, PurePath) else v))
            for name, v in {**parameters, "": estimator}.items()
        },
        _CODE: {
            "": digest([_code(f) for leaf in _leaves(held) for f in _functions(leaf)]),
            **_class_codes(held),
        },
    }


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
        if part == _CODE and part not in stored:  # by another Python
            continue
        then, here = stored.get(part, {}), now[part]
        if part == _CODE:  # what is the user's own here may be installed there
            then = {name: then[name] for name in then.keys() & here.keys()}
            here = {name: here[name] for name in then}
        if then != here:
            named = _named(then, here) if isinstance(here, dict) else ""
            differing.append(advice + named)
    if differing:
        raise ValueError(
            f"The study {name!r} must go on with what it was begun with, or its "
            "scores could not be compared. Got other values of: "
            f"{'; '.join(differing)}. Pass the same again, or choose another "
            "`study_name`."
        )


def _named(stored: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Name what differs; the estimator itself, and the functions, have no name."""
    either = sorted({*stored, *now} - {""})
    names = [name for name in either if stored.get(name) != now.get(name)]
    more = ["..."] if len(names) > _MOST_NAMES else []
    return f": {', '.join(names[:_MOST_NAMES] + more)}" if names else ""


def digest(value: Any) -> str:
    """Hash a value by its content, the same in every process.

    Nested lists and dicts, arrays, tables, sparse matrices, plain values. Others are
    pickled.
    """
    state = hashlib.sha256()
    _feed(state, value)
    return state.hexdigest()[:_DIGITS]


def _feed(state: Any, value: Any) -> None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, _BY_REPR):
        state.update(repr(value).encode("utf-8", "surrogatepass"))
        state.update(b";")
    elif isinstance(value, Mapping):
        _feed(state, [[key, value[key]] for key in sorted(value, key=str)])
    elif isinstance(value, list | tuple):
        state.update(b"[")
        for item in value:
            _feed(state, item)
        state.update(b"]")
    elif isinstance(value, np.ndarray):
        _feed_array(state, value)
    else:
        _feed_other(state, value)


def _feed_array(state: Any, array: np.ndarray) -> None:
    if array.ndim <= 1 or array.dtype.kind in "OUSTV":
        _feed(state, array.tolist())  # as the same values in a list
    else:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _feed_other(state: Any, value: Any) -> None:
    import joblib
    from scipy import sparse

    as_lists = _as_lists(value)
    if as_lists is not None:
        _feed(state, as_lists)
    elif sparse.issparse(value):
        rows = sparse.csr_array(value)
        parts = [rows.data, rows.indices, rows.indptr]
        _feed(state, [list(rows.shape), *(np.asarray(part) for part in parts)])
    elif hasattr(value, "tolist"):  # a tensor, or an array of pandas or Arrow
        _feed(state, value.tolist())
    else:
        try:
            state.update(joblib.hash(value).encode())
        except Exception:  # it cannot be pickled: the best that is left is its text
            state.update(_ADDRESS.sub("", repr(value)).encode())


def _as_lists(value: Any) -> list[Any] | None:
    """Return the values of a series, or names and values of columns, if it is one."""
    import narwhals.stable.v2 as nw

    try:
        table = nw.from_native(value, pass_through=True, allow_series=True)
        if isinstance(table, nw.Series):
            return table.to_list()
        if isinstance(table, nw.DataFrame):
            columns = zip(table.columns, table.iter_columns(), strict=True)
            return [[name, column.to_list()] for name, column in columns]
    except ValueError:  # columns share a name, which pandas and Arrow allow
        if hasattr(value, "iloc"):
            return [[name, column.to_list()] for name, column in value.items()]
    return None


def _describe_space(space: Space) -> Any:
    if isinstance(space, CalledSpace):  # what it asks for is not known before
        return _describe(space.function)
    searched = space.distributions()
    return [
        {name: distribution_to_json(searched[name]) for name in searched},
        {name: _describe(value) for name, value in space.fixed().items()},
        dict(space.ties),
    ]


def _compared(estimator: Any, space: Space) -> dict[str, Any]:
    """Return the parameters of an estimator that the space leaves alone."""
    set_by_space = space.names()
    return {
        name: value
        for name, value in estimator.get_params(deep=True).items()
        if name not in set_by_space and name.split("__")[-1] not in _NOT_COMPARED
    }


def _describe(value: Any) -> Any:
    """Describe an object, without what changes from process to process."""
    if isinstance(value, np.generic):
        value = value.item()  # its repr differs between versions of NumPy
    if isinstance(value, Mapping):
        return {str(key): _describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_describe(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(_describe, value), key=repr)
    parts = _parts(value)
    if parts is not None:
        return [_describe(part) for part in parts]
    if isinstance(value, type) or hasattr(value, "get_params"):
        kind = value if isinstance(value, type) else type(value)
        return kind.__qualname__  # its parameters are listed by themselves
    if hasattr(value, "__qualname__"):  # a function
        module = getattr(value, "__module__", None)
        module = _MAIN[0] if module in _MAIN else module
        return f"{module}.{value.__qualname__}"
    if hasattr(value, "__array__") or hasattr(value, "tocsr"):  # of sparse matrices
        return digest(value)
    return _ADDRESS.sub("", repr(value))


def _leaves(value: Any) -> Iterator[Any]:
    """Find what lists, dicts, partials and scorers consist of."""
    if isinstance(value, Mapping):
        value = [value[key] for key in sorted(value, key=str)]
    parts = value if isinstance(value, list | tuple) else _parts(value)
    if parts is None:
        yield value
    else:
        for part in parts:
            yield from _leaves(part)


def _functions(value: Any) -> Iterator[FunctionType]:
    """Find the functions in a function, a method or another attribute of a class."""
    if isinstance(value, property):
        inner = [value.fget, value.fset, value.fdel]
    elif isinstance(value, MethodType | classmethod | staticmethod):
        inner = [value.__func__]
    elif isinstance(value, _OF_A_FUNCTION):
        inner = [value.func]
    else:  # not by `getattr`, to which an object may answer whatever it likes
        inner = [inspect.getattr_static(value, "__wrapped__", None)]
    if isinstance(value, FunctionType):
        yield value
    for part in inner:
        if part is not None:
            yield from _functions(part)


def _class_codes(value: Any) -> dict[str, str]:
    """Hash the user's own classes and those of objects, by name."""
    kinds = (leaf if isinstance(leaf, type) else type(leaf) for leaf in _leaves(value))
    codes: dict[str, list[Any]] = {}
    for kind in {id(kind): kind for kind in kinds}.values():
        module = kind.__module__
        if _is_own(module, getattr(sys.modules.get(module), "__file__", None)):
            codes.setdefault(kind.__qualname__, []).append(_class_code(kind))
    return {name: digest(code) for name, code in codes.items()}


def _class_code(kind: type) -> list[Any]:
    """Describe the methods of a class and its bases that are the user's own."""
    return [
        [name, _code(function)]
        for base in kind.__mro__
        for name in sorted(vars(base), key=str)
        if name not in _ANNOTATIONS
        for function in _functions(vars(base)[name])
        if _is_own(*map(function.__globals__.get, ("__name__", "__file__")))
    ]


def _is_own(module: Any, file: str | None) -> bool:
    """Tell whether the code of a module is the user's own."""
    if module in _MAIN:  # whose file is another one in a worker process
        return True
    if not isinstance(module, str) or module.partition(".")[0] in _LIBRARIES:
        return False
    return _INSTALLED.isdisjoint(PurePath(file or "").parts)


def _parts(value: Any) -> list[Any] | None:
    """Return what a partial, or what `make_scorer` makes, consists of; else None."""
    if isinstance(value, FunctionType | MethodType):
        return None  # `functools.wraps` copies a scorer's attributes to a function
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if "_score_func" in getattr(value, "__dict__", {}):
        names = ("_score_func", "_sign", "_kwargs", "_response_method")
        return [getattr(value, name) for name in names]
    return None


def _code(
    function: FunctionType, seen: dict[FunctionType, int] | None = None
) -> list[Any] | int:
    """Describe what a function does: its byte code, constants, defaults and closure.

    File and line numbers are left out, and variables of the closure that the function
    assigns to: their values change when it runs. Of a function that was `seen`, as one
    that holds itself, only its number is given.
    """
    seen = {} if seen is None else seen
    if function in seen:
        return seen[function]
    seen[function] = len(seen)
    code = function.__code__
    written = {
        step.argval for step in dis.get_instructions(code) if step.opname in _WRITES
    }
    cells = [
        _constant(cell, seen)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
        if name not in written
    ]
    named = sorted((function.__kwdefaults__ or {}).items())
    defaults = _unchanging((*(function.__defaults__ or ()), *named), seen)
    return [_instructions(code, function.__doc__), defaults, cells]


def _instructions(code: CodeType, doc: str | None = None) -> list[Any]:
    constants = [
        _instructions(const) if isinstance(const, CodeType) else _describe(const)
        for const in code.co_consts
        if const is None or const != doc
    ]
    # What `try` covers is in the table alone.
    return [code.co_code, code.co_exceptiontable, constants, code.co_names]


def _constant(cell: CellType, seen: dict[FunctionType, int]) -> Any:
    try:
        return _unchanging(cell.cell_contents, seen)
    except ValueError:  # of a function that is still being defined
        return None


def _unchanging(value: Any, seen: dict[FunctionType, int]) -> Any:
    """Describe what stays as it is; of others only the type: a function may log."""
    if isinstance(value, tuple):
        return [_unchanging(item, seen) for item in value]
    if isinstance(value, frozenset):
        # Sorted first: which function of several is `seen` first must not depend on
        # their addresses.
        items = sorted(value, key=lambda item: repr(_unchanging(item, {**seen})))
        return [_unchanging(item, seen) for item in items]
    parts = _parts(value)
    if parts is not None:
        named = (tuple(sorted(p.items())) if isinstance(p, dict) else p for p in parts)
        return _unchanging(tuple(named), seen)
    if isinstance(value, MethodType):
        return _unchanging(value.__func__, seen)
    if isinstance(value, FunctionType):
        return [value.__qualname__, _code(value, seen)]
    if value is None or isinstance(value, _CONSTANTS) or hasattr(value, "__qualname__"):
        return _describe(value)
    return type(value).__qualname__

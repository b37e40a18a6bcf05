"""Functions and classes -> hashes of what they do: byte code, and what they hold.

Functions are compared by name, code, defaults and closure, and so are the functions in
these. Classes are compared by name, and by the code of their methods and those of their
bases that are the user's own. A change goes unnoticed in

- methods of the standard library and of installed packages: other versions may be used;
- what a function looks up when it runs: globals, imported modules, attributes;
- the names of a function's parameters, by which keywords find them;
- the contents of lists, dicts and other objects in its defaults and its closure, which
  may be its log or its cache: only their type is compared;
- what objects that are neither estimators nor data hold, unless their repr tells;
- all code, if the Python is of another minor version: its byte code differs.
"""

from __future__ import annotations

import dis
import inspect
import re
import sys
import sysconfig
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from functools import cached_property, partial, partialmethod, singledispatchmethod
from numbers import Number
from pathlib import PurePath
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from ._search_digest import BY_REPR, digest, lasting_repr

# Of those that a function may hold, types whose values stay as they are; of arrays, it
# is assumed.
_CONSTANTS = (*BY_REPR, Number, timedelta, range, Enum, np.ndarray)
# Instructions of byte code that assign to variables of an enclosing function.
_WRITES = ("STORE_DEREF", "DELETE_DEREF")
# Where code is not the user's own: Python's folder, two packages wherever they are,
# and the folders of others.
_STDLIB = PurePath(sysconfig.get_path("stdlib"))
_LIBRARIES = {"sk_adalora", "sklearn"}
_INSTALLED = {"site-packages", "dist-packages"}
# The main module, and what a spawned process calls it.
_MAIN = ("__main__", "__mp_main__")
# What a class may hold instead of a function, beside methods and properties.
_OF_A_FUNCTION = (cached_property, partial, partialmethod, singledispatchmethod)
# Parameters that change where or how a fit runs, but not its result: workers may differ
# in these.
_NOT_COMPARED = {"device", "local_files_only", "memory", "n_jobs", "verbose"}
# What Python makes of annotations.
_ANNOTATIONS = ("__annotate__", "__annotate_func__")


def describe(value: Any, named: Collection[int] | None = None) -> Any:
    """Describe an object, without what changes from process to process.

    Estimators are described with their parameters; by their type alone those whose ids
    are `named`, as their parameters have names of their own, and without ids all.
    """
    inner = partial(describe, named=named)
    if isinstance(value, np.generic):
        value = value.item()  # its repr differs between versions of NumPy
    if isinstance(value, Mapping):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [inner(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(inner, value), key=repr)
    parts = _parts(value)
    if parts is not None:
        return [inner(part) for part in parts]
    if isinstance(value, type):
        return value.__qualname__
    if hasattr(value, "get_params"):
        kind = type(value).__qualname__
        whole = named is not None and id(value) not in named
        return [kind, inner(compared_parameters(value))] if whole else kind
    if hasattr(value, "__qualname__"):  # a function
        module = getattr(value, "__module__", None)
        module = _MAIN[0] if module in _MAIN else module
        return f"{module}.{value.__qualname__}"
    if hasattr(value, "__array__") or hasattr(value, "tocsr"):  # of sparse matrices
        return digest(value)
    if isinstance(value, re.Pattern):  # whose repr is cut off
        return [value.pattern, value.flags]
    # The repr of these says nothing of their state.
    if isinstance(value, np.random.RandomState):
        return ["RandomState", digest(value.get_state(legacy=False))]
    if isinstance(value, np.random.Generator):
        return ["Generator", digest(value.bit_generator.state)]
    return lasting_repr(value)


def compared_parameters(estimator: Any, *, deep: bool = False) -> dict[str, Any]:
    """Return the parameters on which scores depend; a path and its text are alike."""
    return {
        name: str(value) if isinstance(value, PurePath) else value
        for name, value in estimator.get_params(deep=deep).items()
        if name.split("__")[-1] not in _NOT_COMPARED
    }


def codes_of(held: Any) -> dict[str, str]:
    """Hash the functions and the user's own classes in lists, dicts and other holders.

    The hash of all functions together is under "", that of a class under its name.
    """
    functions = [f for leaf in _leaves(held) for f in _functions(leaf)]
    return {"": digest([_code(f) for f in functions]), **_class_codes(held)}


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
            with suppress(Exception):  # attributes that fail when they are looked at
                code = _class_code(kind)
                codes.setdefault(kind.__qualname__, []).append(code)
    return {name: digest(code) for name, code in codes.items()}


def _class_code(kind: type) -> list[Any]:
    """Describe the methods of a class and its bases that are the user's own.

    Variables of an enclosing function that one of them assigns to are left out of all.
    """
    methods = [
        (name, function)
        for base in kind.__mro__
        for name in sorted(vars(base), key=str)
        if name not in _ANNOTATIONS
        for function in _functions(vars(base)[name])
        if _is_own(*map(function.__globals__.get, ("__name__", "__file__")))
    ]
    written = {id(cell) for _, method in methods for cell in _written(method)}
    return [[name, _code(method, written=written)] for name, method in methods]


def _is_own(module: Any, file: str | None) -> bool:
    """Tell whether the code of a module is the user's own."""
    if module in _MAIN:  # whose file is another one in a worker process
        return True
    if not isinstance(module, str):
        return False
    name, path = module.partition(".")[0], PurePath(file or _STDLIB)
    of_python = name in sys.stdlib_module_names and path.is_relative_to(_STDLIB)
    if of_python or name in _LIBRARIES:
        return False
    return _INSTALLED.isdisjoint(path.parts)


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


def _written(function: FunctionType) -> list[CellType]:
    """Return the variables of enclosing functions that a function assigns to."""
    code = function.__code__
    steps = dis.get_instructions(code)
    names = {step.argval for step in steps if step.opname in _WRITES}
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    return [cell for name, cell in cells if name in names]


def _code(
    function: FunctionType,
    seen: dict[FunctionType, int] | None = None,
    written: Collection[int] = (),
) -> list[Any] | int:
    """Describe what a function does: its byte code, constants, defaults and closure.

    File and line numbers are left out, and variables of the closure that the function
    assigns to: their values change when it runs. Of a function that was `seen`, as one
    that holds itself, only its number is given. `written` are ids of more variables
    to leave out.
    """
    seen = {} if seen is None else seen
    if function in seen:
        return seen[function]
    seen[function] = len(seen)
    changing = {*written, *map(id, _written(function))}
    held = [c for c in function.__closure__ or () if id(c) not in changing]
    cells = [_constant(cell, seen) for cell in held]
    named = sorted((function.__kwdefaults__ or {}).items())
    defaults = _unchanging((*(function.__defaults__ or ()), *named), seen)
    return [_instructions(function.__code__, function.__doc__), defaults, cells]


def _instructions(code: CodeType, doc: str | None = None) -> list[Any]:
    constants = [
        _instructions(const) if isinstance(const, CodeType) else describe(const)
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
        return describe(value)
    return type(value).__qualname__

"""What wrote a file, and whether this version can read it."""

from __future__ import annotations

import platform
import re
import reprlib
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from sk_adalora import __version__
from sk_adalora.runtime.messages import warn_user

# Raise this number when another version would read files without an error, but wrongly.
# Records with fields that it does not know, or without any, are an error in any case.
FORMAT = 1
_NEWER = "Install a newer sk-adalora, or copy it again if it was changed."
_warned: set[tuple[str, str]] = set()


def used_versions() -> dict[str, str]:
    """Return the versions that a saved estimator depends on."""
    needed = ("torch", "transformers", "scikit-learn", "numpy")
    own = {"python": platform.python_version(), "sk-adalora": __version__}
    return own | {package: _version_of(package) for package in needed}


# Finding a version takes a millisecond, and that of a running package stays the same.
_version_of = cache(version)


def check_format(values: Mapping[str, Any]) -> None:
    """Refuse a layout that a later version wrote."""
    number = values.get("format", FORMAT)  # check_names says that it is missing
    if number not in range(1, FORMAT + 1):
        raise ValueError(
            f"The file must be of format {FORMAT} or before. Got format "
            f"{reprlib.repr(number)}, of {_writer(values.get('versions'))}. {_NEWER}"
        )


def check_names(
    values: Iterable[str],
    known: Collection[str],
    what: str,
    versions: Any,
    *,
    file: str = "The file",
    may_lack: Collection[str] = (),
) -> None:
    """Refuse names that only a later version knows, and that some are missing.

    All of `known` must be there but those in `may_lack`. `what` tells, in the error,
    what they are, and `file` where; `versions` are those in the file, unchecked.
    """
    unknown = sorted({*values} - {*known}, key=repr)
    missing = sorted({*known} - {*values} - {*may_lack})
    if unknown:
        raise ValueError(
            f"{file} must hold {what} only. Got {reprlib.repr(unknown)} too, of "
            f"{_writer(versions)}. {_NEWER}"
        )
    if missing:
        raise ValueError(
            f"{file} must hold {what}. Got them without {missing}. It is broken, was "
            "changed, or is of a version before the first release: copy it again, or "
            "fit again."
        )


def is_later(versions: dict[str, str]) -> bool:
    """Tell whether a later release than this one wrote a file with these versions."""
    return _release(versions.get("sk-adalora", "")) > _release(__version__)


def _release(number: str) -> list[int]:
    """Return the numbers of a release, such as 0.1.0 of 0.1.0.dev0."""
    return [int(part) for part in re.findall(r"\d+", number)[:3]]


def _writer(versions: Any) -> str:
    known = versions.get("sk-adalora") if isinstance(versions, dict) else None
    return f"sk-adalora {reprlib.repr(known)}"


def warn_other_versions(versions: Mapping[str, str]) -> None:
    """Warn, once per process, if torch or transformers differ from training."""
    now = used_versions()
    for package in ("torch", "transformers"):
        then = str(versions.get(package))
        if then == now[package] or (package, then) in _warned:
            continue
        _warned.add((package, then))
        warn_user(
            f"The estimator was trained with {package} {then} and runs with "
            f"{now[package]}: predictions may differ in the last digits."
        )

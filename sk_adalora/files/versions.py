"""What wrote a file, and whether this version can read it."""

from __future__ import annotations

import platform
import reprlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from sk_adalora import __version__
from sk_adalora.runtime.messages import warn_user

# The layout of pickles and folders. Raise this number when it changes.
FORMAT = 1
NEWER = "Install a newer sk-adalora, or copy it again if it was changed."
_warned: set[tuple[str, str]] = set()


def used_versions() -> dict[str, str]:
    """Return the versions that a saved estimator depends on."""
    needed = ("torch", "transformers", "scikit-learn", "numpy")
    own = {"python": platform.python_version(), "sk-adalora": __version__}
    return own | {package: _version_of(package) for package in needed}


# Finding a version takes a millisecond, and that of a running package stays the same.
_version_of = cache(version)


def check_format(values: Mapping[str, Any]) -> None:
    """Refuse a layout that this version does not read, such as a later one's."""
    number = values.get("format")
    if type(number) is not int or number != FORMAT:
        raise ValueError(
            f"The file must be of format {FORMAT}. Got format {reprlib.repr(number)}, "
            f"of {writer(values)}. {NEWER}"
        )


def writer(values: Mapping[str, Any]) -> str:
    """Name the version that wrote a file, whose values were not checked yet."""
    versions = values.get("versions")
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

"""Warnings that point to the user's own line."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

# Packages between the user's line and a warning: this one, and those that call it.
_BETWEEN = {__name__.partition(".")[0], "sklearn", "joblib", "torch", "contextlib"}


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called the library, however deep in it the cause is.

    Parameters
    ----------
    message : str
        What is wrong, what was given, what to do.
    category : type of Warning, default=UserWarning
        Kind of warning.
    """
    level = 2
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _package_of(frame) in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]

"""A fit changes its estimator whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What scikit-learn's callbacks keep on an estimator while it is fitted.
_CALLBACK_STATE = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")
# That, and the callbacks themselves: all that a pickle must not carry.
CALLBACKS = ("_skl_callbacks", "_parent_callback_ctx", *_CALLBACK_STATE)


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Undo every change of attributes if the block fails or is interrupted."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        now = vars(estimator)
        # scikit-learn needs these afterwards, to tear its callbacks down.
        kept = {name: now[name] for name in _CALLBACK_STATE if name in now}
        now.clear()
        now.update(before | kept)
        raise

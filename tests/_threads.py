"""Calls in threads of which none can keep a test from ending."""

import threading
from concurrent.futures import Future

WAIT = 120  # seconds after which a thread counts as one that hangs


def start(call, *args, **kwargs):
    """Start a call in a thread, and return its future: ask for `result(WAIT)`.

    A pool would wait for a thread that hangs.
    """
    future = Future()

    def run():
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def in_threads(call, arguments):
    """Call something in a thread for each argument, and return the results."""
    calls = [start(call, argument) for argument in arguments]
    return [call.result(WAIT) for call in calls]


class Gate:
    """Where a call stops until the `with` block is left, however it is left."""

    def __init__(self, monkeypatch, owner, name, which):
        """Stop calls of the function `name` whose first argument is `which`."""
        self.reached, self._opened = threading.Event(), threading.Event()
        kept = getattr(owner, name)

        def stopping(first, *args, **kwargs):
            if first == which:
                self.reached.set()
                assert self._opened.wait(2 * WAIT)
            return kept(first, *args, **kwargs)

        monkeypatch.setattr(owner, name, stopping)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._opened.set()

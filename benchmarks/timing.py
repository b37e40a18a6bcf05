"""Fair measurements: contestants take turns, and medians are compared."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from .worker import RESULT, wait_for

_ROOT = Path(__file__).parent.parent


def run_job(job):
    """Run a job of `benchmarks.worker` in a new process and return its result.

    Raises
    ------
    RuntimeError
        If the process fails; the message ends with what it wrote.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env=environment,
    )
    lines = [x for x in done.stdout.splitlines() if x.startswith(RESULT)]
    if done.returncode or not lines:
        raise RuntimeError(
            f"The worker must print a result. Got exit code {done.returncode}. It "
            f"wrote:\n{done.stderr[-3000:]}"
        )
    return json.loads(lines[-1].removeprefix(RESULT))


def take_turns(contestants, rounds, warm_ups=0, show=None):
    """Call contestants in turn, every other round in the opposite order.

    Parameters
    ----------
    contestants : dict of name -> callable
        Called with the number of the round, from 0; warm-ups have negative numbers.
    rounds : int
        Calls of each that count.
    warm_ups : int, default=0
        Calls of each before, which do not count.
    show : callable or None, default=None
        Called with name, round and result.

    Returns
    -------
    dict of name -> list
        What they returned, a value a round.
    """
    results = {name: [] for name in contestants}
    for turn in range(-warm_ups, rounds):
        names = list(contestants)
        for name in names if turn % 2 == 0 else reversed(names):
            result = contestants[name](turn)
            if turn >= 0:
                results[name].append(result)
                if show:
                    show(name, turn, result)
    return results


def seconds_of(task, device):
    """Return a function that takes the seconds of `task`, to its end on the device."""

    def timed(turn):
        wait_for(device)
        start = time.perf_counter()
        task()
        wait_for(device)
        return time.perf_counter() - start

    return timed


def median_seconds(tasks, device, rounds, warm_ups=3):
    """Return the median seconds of tasks that take turns, by name."""
    calls = {name: seconds_of(task, device) for name, task in tasks.items()}
    taken = take_turns(calls, rounds, warm_ups)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def ratio(task, other, device, rounds):
    """Return the median seconds of a task beside those of another, in turn."""
    found = median_seconds({"task": task, "other": other}, device, rounds)
    return found["task"] / found["other"]


def medians(rows):
    """Return the median of each numeric field of some results."""
    numbers = [k for k, v in rows[0].items() if isinstance(v, int | float)]
    return {key: statistics.median(row[key] for row in rows) for key in numbers}


class Stopwatch:
    """Where the time goes: seconds inside some functions, without what these call.

    Parameters
    ----------
    device : torch.device
        Waited for at each border, so that its work is counted where it was asked for.

    Attributes
    ----------
    seconds : dict of name -> float
        Seconds by name. What a watched function spends in another watched one is
        counted there only.
    """

    def __init__(self, device):
        self.device = device
        self.seconds = defaultdict(float)
        self._running = []
        self._since = 0.0

    @contextmanager
    def watch(self, name):
        """Count the time of a block."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def _switch(self):
        """Give the time since the last border to whoever ran."""
        wait_for(self.device)
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def watching(self, functions):
        """Watch functions while a block runs.

        Parameters
        ----------
        functions : list of (owner, attribute, name)
            A class or module, what it calls the function, and what to count it as.
            A name that does not exist is an error.
        """
        with ExitStack() as stack:
            for owner, attribute, name in functions:
                wrapped = self._wrap(getattr(owner, attribute), name)
                stack.enter_context(mock.patch.object(owner, attribute, wrapped))
            yield self

    def _wrap(self, function, name):
        def watched(*args, **kwargs):
            with self.watch(name):
                return function(*args, **kwargs)

        return watched

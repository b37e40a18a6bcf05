"""Fair measurements: contestants take turns, and medians are compared."""

import re
import statistics
import sys
import time
from pathlib import Path

import psutil

_PEAK = re.compile(r"VmHWM:\s*(\d+)")  # in KiB, as Linux tells it


def wait_for(device):
    """Wait until a card, of CUDA or of Apple, has done what it was asked for."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Clock:
    """Wall and CPU seconds from its making until `stop`, to the end on the device."""

    def __init__(self, device):
        self.device = device
        wait_for(device)
        self._start = time.perf_counter(), time.process_time()

    def stop(self):
        """Take the time; return the clock."""
        wait_for(self.device)
        self.wall = time.perf_counter() - self._start[0]
        self.cpu = time.process_time() - self._start[1]
        return self


def take_turns(contestants, rounds, warm_ups=0):
    """Call contestants in turn, every other round in the opposite order.

    Parameters
    ----------
    contestants : dict of name -> callable
        Called with the number of the round, from 0; warm-ups have negative numbers.
    rounds : int
        Calls of each that count.
    warm_ups : int, default=0
        Calls of each before, which do not count.

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
    return results


def median_seconds(tasks, device, rounds, warm_ups=3):
    """Return the median wall seconds of tasks that take turns, by name."""

    def timed(task):
        def call(turn):
            clock = Clock(device)
            task()
            return clock.stop().wall

        return call

    calls = {name: timed(task) for name, task in tasks.items()}
    taken = take_turns(calls, rounds, warm_ups)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def peak_bytes():
    """Return the most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists() and (found := _PEAK.search(status.read_text())):
        return 1024 * int(found[1])
    # On Linux, this would be at least that of the process that started this one.
    import resource  # which Windows does not have

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes():
    """Return the memory that this process holds."""
    return psutil.Process().memory_info().rss


def cuda_peak_bytes(device):
    """Return the most memory that tensors took on the card, or None without one."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device)

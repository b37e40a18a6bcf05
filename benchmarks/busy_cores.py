"""A fit beside other programs, by how torch's threads wait for each other.

Fits and predicts 100 headlines in a process of its own for each way to wait, with no
other program at work, with one, and with as many as there are cores, all of which only
count. The ways take turns. Prints a table of seconds, in about ten minutes.

    python -m benchmarks busy
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import statistics
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, contextmanager

from .machine import describe_machine
from .results import table

# What each sets. The first is what GNU's OpenMP does by itself.
WAYS = {
    "spin 300,000 times": {"GOMP_SPINCOUNT": "300000"},
    "spin 10,000 times": {"GOMP_SPINCOUNT": "10000"},
    "spin 3,000 times": {"GOMP_SPINCOUNT": "3000"},
    "spin 1,000 times": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
_NAMES = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"}
ROUNDS = 3
LIMIT = 120  # seconds of a process
PROGRAM = """
import time
from benchmarks.data import load_task, split
from sk_adalora import AdaLoraClassifier
X, y, texts, _ = split(load_task("headlines"), 100, 20, 0)
fit = AdaLoraClassifier(random_state=0, device="cpu", epochs=1).fit
fit(X, y)  # loads the model
start = time.perf_counter()
fitted = fit(X, y)
middle = time.perf_counter()
for text in texts:
    fitted.predict([text])
print(middle - start, (time.perf_counter() - middle) / len(texts) * 1000)
"""


def main():
    """Measure all ways beside more and more programs."""
    cores = len(os.sched_getaffinity(0))
    heads = ["threads that wait"]
    lines = {way: [way] for way in WAYS}
    for others in dict.fromkeys([0, 1, cores]):
        heads += [f"fit, s, {others} others", f"predict one, ms, {others} others"]
        taken = defaultdict(list)
        with at_work(others):
            for _ in range(ROUNDS):
                for way, settings in WAYS.items():
                    if None not in taken[way]:
                        taken[way].append(measure(settings))
        for way, measured in taken.items():
            lines[way] += describe(measured)
    print(f"{describe_machine()}\n\nMedians of {ROUNDS}, of {cores} cores:\n")
    print(table(heads, list(lines.values())))


@contextmanager
def at_work(count):
    """Keep as many programs running as asked for."""
    command = [sys.executable, "-c", "while True: pass"]
    with ExitStack() as stack:
        for _ in range(count):
            # In a session of its own, as another program is.
            program = subprocess.Popen(command, start_new_session=True)
            stack.callback(program.wait)
            stack.callback(program.kill)
        yield


def measure(settings):
    """Return seconds of a fit and milliseconds of a prediction, or None if too long."""
    kept = {name: value for name, value in os.environ.items() if name not in _NAMES}
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM],
            env={**kept, **settings},
            timeout=LIMIT,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return None
    return [float(number) for number in done.stdout.split()]


def describe(measured):
    """Return the cells of what was measured, one line of a table."""
    if None in measured:
        return [f"(over {LIMIT} s in all)", ""]
    fits, predictions = zip(*measured, strict=True)
    return [f"{statistics.median(fits):.2f}", f"{statistics.median(predictions):.0f}"]


if __name__ == "__main__":
    main()

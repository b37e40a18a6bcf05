"""Into how many parts a training batch should be cut on a CPU.

The parts' gradients add up to that of the batch, so that only time and memory change.
Prints a table of seconds beside those of the whole batch. ``OMP_NUM_THREADS`` before
the command is for more than one thread.

    python -m benchmarks parts
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from unittest import mock

from sk_adalora.pretrained.find import DEFAULT_MODEL
from sk_adalora.runtime.devices import Compute, resolve_compute

from .machine import describe_machine
from .results import table
from .timing import median_seconds
from .training_steps import make_step

SHAPES = [(32, 64), (32, 128), (32, 256)]
LIMITS = [None, 4096, 3072, 2048, 1536, 1024]
ROUNDS = 5


def main():
    """Take steps with each limit in turn."""
    lines = []
    for precision in ("bfloat16", "float32"):
        compute = resolve_compute("cpu", precision)
        for shape in SHAPES:
            seconds = measure(compute, *shape)
            whole = seconds[None]
            ratios = [f"{seconds[limit] / whole:.2f}" for limit in LIMITS[1:]]
            name = f"{shape[0]} x {shape[1]}"
            lines.append([precision, name, f"{whole * 1e3:.0f}", *ratios])
    print(f"{describe_machine()}\n")
    header = ["precision", "texts x tokens", "whole, ms"]
    limits = [f"{limit:,} at once" for limit in LIMITS[1:]]
    print(table(header + limits, lines))


def measure(compute, rows, length):
    """Return the median seconds of a step, by the number of tokens at once."""
    step = make_step("ours", rows, length, compute, DEFAULT_MODEL)

    def limited(limit):
        def call():
            with mock.patch.object(Compute, "tokens_to_train", limit):
                step()

        return call

    calls = {limit: limited(limit) for limit in LIMITS}
    return median_seconds(calls, compute.device, ROUNDS, warm_ups=1)


if __name__ == "__main__":
    main()

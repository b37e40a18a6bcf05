"""By which of torch's libraries a processor multiplies faster in float32.

torch multiplies by MKL. Prints a table of the seconds of oneDNN beside those of MKL, of
the products with frozen weights in a training step. ``ONEDNN_MAX_CPU_ISA=AVX2`` before
the command shows oneDNN without AVX512.

    python -m benchmarks float32
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
from unittest import mock

import torch

from sk_adalora.adalora import products

from .machine import describe_machine
from .results import table
from .timing import seconds_of, take_turns

SHAPES = [(1024, 384, 384), (1024, 384, 1536), (1024, 1536, 384), (128, 384, 384)]
ROUNDS = 30


def main():
    """Time both libraries in turn, for each shape and product."""
    lines = []
    for shape in SHAPES:
        calls = make_calls(*shape)
        shown = [f"{measure(call):.2f}" for call in calls.values()]
        tokens, width, out = shape
        lines.append([f"{tokens:,} x {width:,}", f"{out:,}", *shown])
    print(f"{describe_machine()}\n")
    print(table(["tokens x width", "outputs", *calls], lines))


def make_calls(tokens, width, outputs):
    """Return the two products of a layer, forward and backward."""
    torch.manual_seed(0)
    x, gradient = torch.randn(tokens, width), torch.randn(tokens, outputs)
    weight, bias = torch.randn(outputs, width), torch.randn(outputs)
    return {
        "forward": lambda: products.linear(x, weight, bias),
        "backward": lambda: products.linear(gradient, weight.t()),
    }


def measure(call):
    """Return the median seconds of a product by oneDNN beside those by MKL."""
    seconds = seconds_of(call, torch.device("cpu"))

    def by(onednn):
        def timed(turn):
            with mock.patch.object(products, "MKL_IS_SLOW", onednn):
                return seconds(turn)

        return timed

    taken = take_turns({True: by(True), False: by(False)}, ROUNDS, warm_ups=3)
    return statistics.median(taken[True]) / statistics.median(taken[False])


if __name__ == "__main__":
    main()

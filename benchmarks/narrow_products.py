"""How to multiply many tokens by the few rows of an adapter.

``(rows @ x.T).T`` and ``x @ rows.T`` are the same numbers, laid out otherwise. Prints a
table of the seconds of all products of an adapter in a training step that read or write
them, the former beside the latter, by the library that torch itself multiplies by.

    python -m benchmarks narrow
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from sk_adalora.runtime.devices import resolve_compute

from .machine import describe_machine
from .results import table
from .timing import ratio

TOKENS = 1024
WIDTHS = [384, 768, 1536]
RANKS = [2, 4, 8, 12, 16]
ROUNDS = 50


def main():
    """Time both layouts in turn, for each width and rank."""
    lines = []
    for precision in dict.fromkeys(["float32", resolve_compute("cpu").precision]):
        for width in WIDTHS:
            compute = resolve_compute("cpu", precision)
            shown = [f"{measure(compute, width, rank):.2f}" for rank in RANKS]
            lines.append([precision, f"{TOKENS:,} x {width:,}", *shown])
    print(f"{describe_machine()}\n")
    header = ["precision", "tokens x width"]
    print(table(header + [f"rank {rank}" for rank in RANKS], lines))


def measure(compute, width, rank):
    """Return the median seconds of the transposed layout beside those of the plain."""
    torch.manual_seed(0)
    x, out = torch.randn(2, TOKENS, width, dtype=compute.dtype)
    rows = torch.randn(rank, width, dtype=compute.dtype)

    def plain():
        products(x @ rows.T, x, out, rows)

    def transposed():
        products((rows @ x.T).T, x, out, rows)

    return ratio(transposed, plain, compute.device, ROUNDS)


def products(hidden, x, out, rows):
    """Do what a layer does with what it made of its input, forward and backward."""
    out.addmm_(hidden, rows, alpha=1e-6)
    return hidden.T @ x


if __name__ == "__main__":
    main()

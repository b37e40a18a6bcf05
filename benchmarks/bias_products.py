"""What it saves in half precision to add a layer's bias while multiplying.

torch fills the result with the bias and adds the product to it; oneDNN's own layer
adds the bias in the same pass. Prints a table of the seconds of the latter beside those
of the former, for the products with frozen weights in a forward pass.
``ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16`` before the command stands in for a processor
without AMX.

    python -m benchmarks bias
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

from functools import partial

import torch
from torch.nn import functional as F

from sk_adalora.adalora import products

from .machine import describe_machine
from .results import table
from .timing import ratio

TOKENS = [40, 640, 1536]
WIDTHS = [(384, 384), (384, 1536), (1536, 384)]
ROUNDS = 50


def main():
    """Time both in turn, for each number of tokens and layer."""
    if not products.ONEDNN_HAS_BFLOAT16:
        raise SystemExit("oneDNN does not multiply in bfloat16 on this processor.")
    lines = []
    for width, outputs in WIDTHS:
        shown = [f"{measure(tokens, width, outputs):.2f}" for tokens in TOKENS]
        lines.append([f"{width:,}", f"{outputs:,}", *shown])
    print(f"{describe_machine()}\n")
    header = ["width", "outputs", *(f"{tokens:,} tokens" for tokens in TOKENS)]
    print(table(header, lines))


def measure(tokens, width, outputs):
    """Return the median seconds of oneDNN's own layer beside those of torch's."""
    torch.manual_seed(0)
    x = torch.randn(tokens, width, dtype=torch.bfloat16)
    weight = torch.randn(outputs, width, dtype=torch.bfloat16)
    bias = torch.randn(outputs, dtype=torch.bfloat16)
    ours = partial(products.linear, x, weight, bias)
    return ratio(ours, partial(F.linear, x, weight, bias), x.device, ROUNDS)


if __name__ == "__main__":
    main()

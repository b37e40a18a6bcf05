"""Products with frozen weights and an adapter's rows, by the faster library."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Dimensions: m = tokens, k, n = widths. None of these records gradients.


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x @ weight.T + bias``, of x (m, k) and weight (n, k): (m, n)."""
    if onednn_is_faster(x, weight):
        product = torch.ops.mkldnn._linear_pointwise
        return product(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(x, weight, bias)


def narrow_linear(x: Tensor, rows: Tensor) -> Tensor:
    """Compute ``x @ rows.T``, of x (m, k) and few rows (n, k): (m, n).

    Where MKL computes in float32, it does so transposed: with up to 12 rows a CPU makes
    and reads it in four fifths of the time then (`benchmarks/narrow_products.py`).
    """
    if x.dtype == torch.float32 and not onednn_is_faster(x, rows):
        return torch.mm(rows, x.t()).t()
    return linear(x, rows)


def add_linear(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Compute ``out + x @ weight.T``, of x (m, k) and weight (n, k): (m, n).

    The result may be `out` itself.
    """
    if onednn_is_faster(x, weight):
        product = torch.ops.mkldnn._linear_pointwise.binary
        return product(x, out, weight, None, "add")  # type: ignore[no-any-return]
    return out.addmm_(x, weight.t())


def onednn_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Tell whether oneDNN multiplies these faster than what torch would call.

    torch multiplies by MKL in float32, which does without AVX512 on processors of AMD.
    Where they have it, oneDNN takes less than half of the seconds, and without it about
    as many (`benchmarks/float32_products.py`).
    """
    plain = type(weight) in (Tensor, nn.Parameter)  # quantised ones multiply themselves
    on_cpu = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return plain and on_cpu and bool(torch.backends.mkldnn.enabled) and _mkl_is_slow()


@functools.cache
def _mkl_is_slow() -> bool:
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # a build without oneDNN
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # an older version of torch
        return False
    found = torch.cpu.get_capabilities()
    return "AMD" in found.get("cpu_name", "") and bool(found.get("avx512_f"))

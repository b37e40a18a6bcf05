"""Products with frozen weights, by the faster of torch's libraries."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _mkl_is_slow() -> bool:
    """Tell whether this is a processor that MKL does not use all of.

    MKL multiplies without AVX512 on processors of AMD. Zen 4 computes AVX512 in halves,
    and loses little by that. Zen 5 may compute it whole, and is known by AVX-VNNI or
    VP2INTERSECT, which Zen 4 does not have.
    """
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # a build without oneDNN
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # an older version of torch
        return False
    found = torch.cpu.get_capabilities()
    of_zen_5 = found.get("avx_vnni") or found.get("avx512_vp2intersect")
    of_amd = "AMD" in found.get("cpu_name", "")
    return of_amd and bool(found.get("avx512_f") and of_zen_5)


MKL_IS_SLOW = _mkl_is_slow()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x @ weight.T + bias``, of x (m, k) and weight (n, k): (m, n).

    It may not record gradients: it is for what computes them itself.
    """
    if onednn_is_faster(x, weight):
        product = torch.ops.mkldnn._linear_pointwise
        return product(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(x, weight, bias)


def onednn_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Tell whether oneDNN multiplies these faster than what torch would call.

    torch multiplies by MKL in float32, which does without AVX512 on processors of AMD.
    On Zen 5, oneDNN takes less than half of the seconds; on Zen 4 0.92 of them
    (`benchmarks/float32_products.py`), which the kernels that it makes for each length
    of a batch, and their memory, are not worth.
    """
    plain = type(weight) in (Tensor, nn.Parameter)  # quantised ones multiply themselves
    on_cpu = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return plain and on_cpu and bool(torch.backends.mkldnn.enabled) and MKL_IS_SLOW

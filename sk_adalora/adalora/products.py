"""Matrix products with frozen weights, by the faster of torch's libraries."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _mkl_is_slow() -> bool:
    """Tell whether MKL is slow on this processor, because it does not use AVX512.

    MKL multiplies without AVX512 on processors of AMD. Zen 4 executes AVX512
    instructions in two halves, so it loses little. Zen 5 can execute them whole; it is
    recognised by AVX-VNNI or VP2INTERSECT, which Zen 4 does not have.
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


def _onednn_has_bfloat16() -> bool:
    """Tell whether oneDNN multiplies in bfloat16 on this processor."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and supported is not None and bool(supported())


MKL_IS_SLOW = _mkl_is_slow()
ONEDNN_HAS_BFLOAT16 = _onednn_has_bfloat16()


def is_plain(weight: Tensor) -> bool:
    """Tell whether a tensor is torch's own: a quantised one computes its own way."""
    return type(weight) in (Tensor, nn.Parameter)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x @ weight.T + bias``, of x (m, k) and weight (n, k): (m, n).

    Gradients can be lost: call it only inside autograd functions that define their own
    backward.
    """
    if onednn_is_faster(x, weight, bias):
        product = torch.ops.mkldnn._linear_pointwise
        return product(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(x, weight, bias)


def onednn_is_faster(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Tell whether oneDNN's own layer is faster than what torch would call.

    In float32, torch multiplies by MKL, which leaves AVX512 unused on processors of
    AMD. On Zen 5, oneDNN takes less than half the time, and is used. On Zen 4, it takes
    0.92 of the time, and is not used: it would compile a kernel for each length of a
    batch, and the gain is not worth the memory (`benchmarks/float32_products.py`).

    In bfloat16, torch multiplies by oneDNN too, but first fills the result with the
    bias, to which the product is added. To add the bias while multiplying takes 0.8 to
    1.0 of the time (`benchmarks/bias_products.py`).
    """
    if not (is_plain(weight) and x.device.type == "cpu" and x.dtype == weight.dtype):
        return False
    of_float32 = x.dtype == torch.float32 and MKL_IS_SLOW
    has_bias = bias is not None and bias.dtype == x.dtype
    of_bfloat16 = x.dtype == torch.bfloat16 and has_bias and ONEDNN_HAS_BFLOAT16
    return (of_float32 or of_bfloat16) and bool(torch.backends.mkldnn.enabled)

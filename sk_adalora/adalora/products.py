"""Matrix products with frozen weights: by the faster library, and their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _mkl_is_slow() -> bool:
    """Tell whether MKL is slow on this processor, because it does not use AVX512.

    MKL multiplies without AVX512 on processors of AMD. Zen 4 executes AVX512
    instructions in two halves, so it loses little. Zen 5 can execute them whole; it is
    recognised by AVX-VNNI or VP2INTERSECT, which Zen 4 does not have.
    """
    known = (
        torch.backends.mkl.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # not without oneDNN
        and hasattr(torch.cpu, "get_capabilities")  # not in older versions of torch
    )
    found = torch.cpu.get_capabilities() if known else {}
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


def autocasts(kind: str) -> bool:
    """Tell whether autocast is on for a kind of device; "meta" does not have it."""
    return kind != "meta" and torch.is_autocast_enabled(kind)


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
    batch, and the gain is not worth the memory (`python -m benchmarks float32`).

    In bfloat16, torch multiplies by oneDNN too, but first fills the result with the
    bias, to which the product is added. To add the bias while multiplying takes 0.8 to
    1.0 of the time (`python -m benchmarks bias`).
    """
    if not (is_plain(weight) and x.device.type == "cpu" and x.dtype == weight.dtype):
        return False
    of_float32 = x.dtype == torch.float32 and MKL_IS_SLOW
    has_bias = bias is not None and bias.dtype == x.dtype
    of_bfloat16 = x.dtype == torch.bfloat16 and has_bias and ONEDNN_HAS_BFLOAT16
    return (of_float32 or of_bfloat16) and bool(torch.backends.mkldnn.enabled)


def refuse_second_derivatives() -> None:
    """Say that a backward pass has no gradients itself: it would give wrong ones."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "The gradients of an adapted model must not be differentiated again. Got "
            "`create_graph=True`. Leave it out, or call `merge_and_unload` first."
        )


def _project(x: Tensor, rows: Tensor) -> Tensor:
    """Multiply x (m, w) by few rows (r, w): ``x @ rows.T``, (m, r).

    In float32, ``(rows @ x.T).T`` is computed: with up to 12 rows, that takes 0.8 to
    1.06 of the time on a CPU, together with what reads the transposed result
    (`python -m benchmarks narrow`).
    """
    if x.dtype == torch.float32:
        return torch.mm(rows, x.t()).t()
    return torch.mm(x, rows.t())


class FrozenLinear(torch.autograd.Function):
    """``x @ weight.T + bias``, both frozen."""

    # Dimensions: m = tokens, in, out = widths of the layer.

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (m, in)
        weight: Tensor,  # (out, in)
        bias: Tensor | None,  # (out,)
    ) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(x, weight, bias)  # (m, out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # (m, out)
        refuse_second_derivatives()
        (weight,) = ctx.saved_tensors
        needs_x, _, _ = ctx.needs_input_grad
        return linear(gradient, weight.t()) if needs_x else None, None, None


def _fused(
    x: Tensor,  # (m, in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    left: Tensor,  # (r, out)
    right: Tensor,  # (r, in)
    frozen: Tensor | None,  # (m, out)
) -> tuple[Tensor, Tensor]:  # (m, out), (m, r)
    """Compute a layer with its update, which is added in place: no gradients."""
    hidden = _project(x, right)
    if frozen is not None:
        return torch.addmm(frozen, hidden, left), hidden
    return linear(x, weight, bias).addmm_(hidden, left), hidden


class _FusedLinear(torch.autograd.Function):
    """``x @ weight.T + bias + x @ right.T @ left``, with a frozen weight.

    For the sum, autograd would allocate one more tensor of the output's size, and one
    of the input's size for the gradient. Here both are added in place.
    """

    # Dimensions: m = tokens, in, out = widths of the layer, r = its rank.

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (m, in)
        weight: Tensor,  # (out, in)
        bias: Tensor | None,  # (out,)
        left: Tensor,  # (r, out)
        right: Tensor,  # (r, in)
        frozen: Tensor | None,  # (m, out)
    ) -> Tensor:
        out, hidden = _fused(x, weight, bias, left, right, frozen)
        ctx.save_for_backward(x, hidden, weight, left, right)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # (m, out)
        refuse_second_derivatives()
        device = gradient.device.type
        if autocasts(device):  # the forward pass was not under it
            with torch.autocast(device, enabled=False):
                return _FusedLinear.backward(ctx, gradient)
        x, hidden, weight, left, right = ctx.saved_tensors
        needs_x, _, _, needs_left, needs_right, _ = ctx.needs_input_grad
        of_x = of_left = of_right = None
        of_hidden = _project(gradient, left)  # (m, r)
        if needs_x:
            of_x = linear(gradient, weight.t()).addmm_(of_hidden, right)  # (m, in)
        if needs_left:
            of_left = torch.mm(hidden.t(), gradient)  # (r, out)
        if needs_right:
            of_right = torch.mm(of_hidden.t(), x)  # (r, in)
        return of_x, None, None, of_left, of_right, None


def fused_linear(
    x: Tensor,  # (m, in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    left: Tensor,  # (r, out)
    right: Tensor,  # (r, in)
    frozen: Tensor | None = None,  # (m, out)
) -> Tensor:  # (m, out)
    """Compute :class:`_FusedLinear`; without gradients, not by way of autograd.

    `frozen` is the product with the frozen weight, where it is known already.
    """
    operands = (x, weight, bias, left, right, frozen)
    if torch.is_grad_enabled():
        return _FusedLinear.apply(*operands)  # type: ignore[no-any-return]
    return _fused(*operands)[0]

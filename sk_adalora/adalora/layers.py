"""A frozen linear layer and the low-rank update beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from .forward_passes import in_backward
from .products import FrozenLinear, autocasts, fused_linear, is_plain, onednn_is_faster


def is_conv1d(module: nn.Module) -> bool:
    """Tell whether a module is GPT-2's Conv1D, a transposed linear layer.

    It does not import transformers.
    """
    named = any(base.__name__ == "Conv1D" for base in type(module).__mro__)
    return named and hasattr(module, "nf")  # a convolution may have that name too


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer that can be adapted."""
    # torch's MultiheadAttention reads the last one's weight and never calls it.
    linear = isinstance(module, nn.Linear) or is_conv1d(module)
    return linear and not isinstance(module, NonDynamicallyQuantizableLinear)


def _is_standard(layer: nn.Module) -> bool:
    """Tell whether a layer multiplies by its weight and adds its bias, by its class."""
    return type(layer) is nn.Linear or type(layer).__name__ == "Conv1D"


def _moved(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return the generator if it is on the device, else a new one that it seeds."""
    here = generator.device
    if (here.type, here.index or 0) == (device.type, device.index or 0):
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=here)
    return torch.Generator(device).manual_seed(int(seed))


class SVDLinear(nn.Module):
    """A frozen linear layer plus ``left.T @ diag(singular_values) @ right``.

    The three factors live in row banks, from which this layer gets its rows before
    each forward pass: `right` comes with the singular values and the scale multiplied
    in.

    Parameters
    ----------
    base_layer : torch.nn.Linear or transformers Conv1D
        The frozen layer. It is kept as it is.
    rank : int
        Number of triplets.
    dropout : float
        Probability of dropping an input of the update while training.
    generator : torch.Generator or None
        Source of randomness for dropout. None uses the global one. For inputs on
        another device, it seeds a new generator there.
    """

    # Dimensions: in, out = widths of the layer, r = its rank.
    base_layer: Any  # an nn.Linear, or a Conv1D of transformers
    left: Tensor | None  # (r, out)
    right: Tensor | None  # (r, in)
    merged_weight: Tensor | None  # the shape of base_layer.weight

    def __init__(
        self,
        base_layer: nn.Module,
        rank: int,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.rank = rank
        # A module, so that whoever turns dropout off or on finds it.
        self.dropout = nn.Dropout(dropout)
        self.generator = generator
        self.enabled = True
        # Whether the update is zero, as it is before the first step.
        self.idle = False
        self.transposed = is_conv1d(base_layer)
        self.left = self.right = None
        # Called before each forward pass, with the layer: sets `left` and `right`.
        self.refresh: Callable[[SVDLinear], None] | None = None
        self.register_buffer("merged_weight", None, persistent=False)

    @property
    def needs_rows(self) -> bool:
        """Whether a forward pass reads the triplets."""
        return self.enabled and self.rank > 0 and self.merged_weight is None

    @property
    def weight(self) -> Tensor:
        """Merged weight while there is one, else the frozen one: for model code."""
        if self.merged_weight is not None and self.enabled:
            return self.merged_weight
        return self.base_layer.weight  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor | None:
        """Bias of the frozen layer."""
        return self.base_layer.bias  # type: ignore[no-any-return]

    @property
    def in_features(self) -> int:
        """Width of the input."""
        if isinstance(self.base_layer, nn.Linear):
            return self.base_layer.in_features
        return self.weight.shape[0]

    @property
    def out_features(self) -> int:
        """Width of the output."""
        if isinstance(self.base_layer, nn.Linear):
            return self.base_layer.out_features
        return self.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the frozen layer and add the update."""
        if self.merged_weight is not None and self.enabled:
            return self._linear(x, self.merged_weight)
        if not self.enabled:  # exactly as the pretrained model, by no other library
            return self.base_layer(x)  # type: ignore[no-any-return]
        if not self.needs_rows:
            frozen = self._readable(x)
            if frozen is not None and onednn_is_faster(x, *frozen):
                return self._linear(x, frozen[0])
            return self.base_layer(x)  # type: ignore[no-any-return]
        left, right = self._rows_for(x)
        if self.idle and not torch.is_grad_enabled():
            return self.base_layer(x)  # type: ignore[no-any-return]
        flat = x.reshape(-1, x.shape[-1])  # (m, in)
        drops = self.dropout.training and self.dropout.p > 0
        frozen = None if drops else self._readable(x)
        if frozen is not None:
            weight, bias = frozen
            weight = weight.T if self.transposed else weight
            exact = None
            if self.idle:  # with gradients: the triplets learn from this pass
                with torch.no_grad():
                    exact = self.base_layer(x).reshape(-1, self.out_features)
            out = fused_linear(flat, weight, bias, left, right, exact)
        else:
            seen = self._drop(flat) if drops else flat
            hidden = F.linear(seen, right)  # (m, r)
            # As it came: its class, or a hook, may look at whole sequences.
            frozen_out = self.base_layer(x)
            if not isinstance(frozen_out, Tensor):
                raise TypeError(
                    "An adapted layer must return one tensor. Got a "
                    f"{type(self.base_layer).__name__}, which returns a "
                    f"{type(frozen_out).__name__}, as routers of experts do. Leave it "
                    "out by `exclude_modules`."
                )
            frozen_out = frozen_out.reshape(-1, frozen_out.shape[-1])  # (m, out)
            if frozen_out.dtype == hidden.dtype:
                out = torch.addmm(frozen_out, hidden, left)
            else:  # some heads return float32, whatever they get
                out = frozen_out + torch.mm(hidden, left)
        return out.view(*x.shape[:-1], out.shape[-1])

    def _readable(self, x: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """Return weight and bias if a pass may read them instead of calling the layer.

        Returns
        -------
        tuple of (torch.Tensor, torch.Tensor or None), or None
        """
        base = self.base_layer
        if not _is_standard(base):
            return None
        weight, bias = base.weight, base.bias
        if not is_plain(weight) or weight.dtype != x.dtype or x.is_complex():
            return None
        if autocasts(x.device.type):
            return None
        # Others may have put a forward of their own on the layer, as accelerate does.
        hooked = (
            "forward" in base.__dict__
            or base._forward_hooks
            or base._forward_pre_hooks
            or base._backward_hooks
            or base._backward_pre_hooks
        )
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        return None if hooked or trained else (weight, bias)

    def _rows_for(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return left and right rows, in a precision that can be multiplied by `x`."""
        if self.refresh is not None:
            self.refresh(self)
        if self.left is None or self.right is None:
            raise RuntimeError(
                "An adapted layer must belong to an adapted model to be called. Got "
                "one without rows. Call `get_peft_model` on its model."
            )
        if x.dtype == self.right.dtype or autocasts(x.device.type):
            return self.left, self.right
        # A quantised layer, or one inside a region that switches autocast off.
        return self.left.to(x.dtype), self.right.to(x.dtype)

    def _drop(self, x: Tensor) -> Tensor:
        if self.generator is None:
            return self.dropout(x)  # type: ignore[no-any-return]
        if in_backward():
            raise RuntimeError(
                "Gradient checkpointing repeats the dropout of the global generator "
                "only. Got an adapted layer with a generator of its own, whose "
                f"lora_dropout={self.dropout.p} would not be that of the forward pass. "
                "Adapt the model with generator=None, or set lora_dropout=0."
            )
        self.generator = _moved(self.generator, x.device)
        share = 1 - self.dropout.p
        kept = torch.empty_like(x).bernoulli_(share, generator=self.generator)
        return x * kept.div_(share)

    def _linear(self, x: Tensor, weight: Tensor) -> Tensor:
        weight = weight.T if self.transposed else weight
        if autocasts(x.device.type) or not onednn_is_faster(x, weight, self.bias):
            return F.linear(x, weight, self.bias)
        flat = x.reshape(-1, x.shape[-1])  # (m, in)
        out: Tensor = FrozenLinear.apply(flat, weight, self.bias)
        return out.view(*x.shape[:-1], out.shape[-1])

    def merge(self, delta: Tensor, *, check: bool) -> None:
        """Build the merged weight beside the frozen one.

        Parameters
        ----------
        delta : torch.Tensor of shape (out, in)
            The update.
        check : bool
            Whether to refuse a result that is not finite.

        Raises
        ------
        ValueError
            If `check` and the merged weight holds NaN or infinity.
        TypeError
            If the frozen weight is quantised, or the class of the layer does more than
            to multiply by it and to add the bias.
        """
        weight: Tensor = self.base_layer.weight.detach()
        if not (
            is_plain(weight) and weight.is_floating_point() and weight.itemsize > 1
        ):
            raise TypeError(
                "Merging needs weights in floating point of 16 bits or more, in plain "
                f"tensors. Got {weight.dtype} in a {type(weight).__name__}. Load the "
                "model unquantised and whole to merge."
            )
        if not (_is_standard(self.base_layer) or self._only_multiplies(weight)):
            raise TypeError(
                "Merging needs layers that multiply by their weight and add their "
                f"bias. Got a {type(self.base_layer).__name__}, which computes "
                "something else. Leave it out of `target_modules`, or do not merge."
            )
        update = delta.T if self.transposed else delta
        # The sum is of the more precise of the two types, and rounded once.
        merged = (weight + update.to(weight.device)).to(weight.dtype)
        if check and not torch.isfinite(merged).all():
            raise ValueError(
                "The merged weights must be finite. Got NaN or infinity: the "
                "adapter is broken. Train again, with a lower learning rate."
            )
        self.merged_weight = merged

    def _only_multiplies(self, weight: Tensor) -> bool:
        """Tell whether the frozen layer computes what torch's own linear layer would.

        Its class has a forward of its own: ask it, on rows of all signs.
        """
        base = self.base_layer
        x = torch.linspace(-1, 2, 3 * self.in_features).view(3, -1).to(weight)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            expected = F.linear(x, weight.T if self.transposed else weight, base.bias)
            found = base.forward(x)
        if found.dtype != expected.dtype or found.shape != expected.shape:
            return False
        rounding = 8 * torch.finfo(x.dtype).eps * float(expected.abs().max())
        return torch.allclose(found, expected, rtol=0, atol=rounding)

    def forget_rows(self) -> None:
        """Drop the rows of the last forward pass, and the graph they hold."""
        self.left = self.right = None

    def _replicate_for_data_parallel(self) -> Any:
        raise RuntimeError(
            "An adapted model must run in one process per device. Got DataParallel, "
            "whose copies of a layer share no state. Use DistributedDataParallel, or "
            "let the program see one device, as by CUDA_VISIBLE_DEVICES=0."
        )

    def __getstate__(self) -> dict[str, Any]:
        # Rows are views into a graph: they can be neither copied nor pickled.
        return {**self.__dict__, "left": None, "right": None}

    def extra_repr(self) -> str:
        """Describe the update in the module's repr."""
        return f"rank={self.rank}"

"""A frozen linear layer and the low-rank update beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear


def is_conv1d(module: nn.Module) -> bool:
    """Tell GPT-2's transposed linear layer, without importing transformers."""
    return any(base.__name__ == "Conv1D" for base in type(module).__mro__)


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer that can be adapted."""
    # torch's MultiheadAttention reads this one's weight and never calls it.
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return False
    return isinstance(module, nn.Linear) or is_conv1d(module)


class SVDLinear(nn.Module):
    """A frozen linear layer plus ``left.T @ diag(singular_values) @ right``.

    The three factors live in the row banks of :class:`~.triplets.Triplets`, which
    hand this layer its rows before each forward pass: `right` comes with the
    singular values and the scale multiplied in.

    Parameters
    ----------
    base_layer : torch.nn.Linear or transformers Conv1D
        The frozen layer. It is kept as it is.
    rank : int
        Number of triplets.
    dropout : float
        Probability of dropping an input of the update while training.
    generator : torch.Generator or None
        Source of randomness for dropout. None uses the global one.
    """

    # Dimensions: in, out = widths of the layer, r = its rank.
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
        self.dropout = dropout
        self.generator = generator
        self.enabled = True
        self.transposed = is_conv1d(base_layer)
        self.left = self.right = None
        self.register_buffer("merged_weight", None, persistent=False)

    @property
    def weight(self) -> Tensor:
        """Frozen weight, for model code that asks for it."""
        return self.base_layer.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """Bias of the frozen layer."""
        return self.base_layer.bias  # type: ignore[return-value]

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
        frozen = self.base_layer(x)  # (..., out)
        if not self.enabled or self.rank == 0:
            return frozen
        if self.left is None or self.right is None:
            raise RuntimeError(
                "An adapted layer was called outside its model, before the model "
                "ever ran. Call the adapted model."
            )
        hidden = F.linear(self._drop(x), self.right)  # (..., r)
        # One fused product-and-sum instead of a product and a sum of width `out`.
        return torch.addmm(
            frozen.reshape(-1, frozen.shape[-1]), hidden.flatten(0, -2), self.left
        ).view(frozen.shape)

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return x
        if self.generator is None:
            return F.dropout(x, self.dropout)
        kept = torch.empty_like(x).bernoulli_(
            1 - self.dropout, generator=self.generator
        )
        return x * kept / (1 - self.dropout)

    def _linear(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight.T if self.transposed else weight, self.bias)

    def merge(self, delta: Tensor, *, check: bool) -> None:
        """Build the merged weight beside the frozen one.

        Parameters
        ----------
        delta : torch.Tensor of shape (out, in)
            The update, in float32.
        check : bool
            Whether to refuse a result that is not finite.

        Raises
        ------
        ValueError
            If `check` and the merged weight holds NaN or infinity.
        """
        update = delta.T if self.transposed else delta
        merged = (self.weight.detach().float() + update).to(self.weight.dtype)
        if check and not torch.isfinite(merged).all():
            raise ValueError(
                "The merged weights must be finite. Got NaN or infinity: the "
                "adapter is broken. Train again, with a lower learning rate."
            )
        self.merged_weight = merged

    def forget_rows(self) -> None:
        """Drop the rows of the last forward pass, and the graph they hold."""
        self.left = self.right = None

    def __getstate__(self) -> dict[str, Any]:
        # Rows are views into a graph: they can be neither copied nor pickled.
        return {**self.__dict__, "left": None, "right": None}

    def extra_repr(self) -> str:
        """Describe the update in the module's repr."""
        return f"rank={self.rank}"

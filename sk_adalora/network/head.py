"""The linear head: a linear layer that standardises its input while it learns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# Lower bound of the features' distance from their mean, as a share of the length of the
# mean: smaller differences may be rounding, which must not be scaled up. It is this, or
# _ROUNDING times the distance between 1 and the next number, if that is more.
_LEAST_SPREAD = 3e-3
_ROUNDING = 4


class LinearHead(nn.Linear):
    """A linear layer in float32 that standardises its input while it learns.

    It subtracts the mean of the features and divides by a typical distance from it
    (:func:`mean_and_distance`; a fit that continues keeps that of the first). Both
    differ a hundredfold between pretrained models: with the same learning rate, the
    head of one model would hardly move and that of another would diverge.

    Parameters
    ----------
    in_features, out_features : int
        Numbers of features and of outputs.
    device : torch.device, str or None, default=None
        Where the weights are.

    Attributes
    ----------
    centre : torch.Tensor of shape (in_features,) or None
        Mean that is subtracted from the features. None for a head that takes them as
        they are.
    length : float or None
        Distance from the mean by which the difference is divided.
    """

    centre: Tensor | None
    length: float | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(in_features, out_features, device=device, dtype=torch.float32)
        self.register_buffer("centre", None, persistent=False)

    def set_scale(self, centre: Tensor, length: float) -> None:
        """Set how features are standardised; weight and bias stay as they are.

        Parameters
        ----------
        centre : torch.Tensor of shape (in_features,)
            Mean of the features.
        length : float
            Their typical distance from it, above 0.
        """
        self.centre, self.length = centre.float().to(self.weight), length

    def forward(self, features: Tensor) -> Tensor:
        """Compute the outputs (n, out_features) of features (n, in_features)."""
        if self.centre is not None and self.length is not None:
            features = (features - self.centre) * (1 / self.length)
        return super().forward(features)

    def plain_state(self) -> dict[str, Tensor]:
        """Return weight and bias of a plain linear layer with the same outputs.

        Returns
        -------
        dict of str to torch.Tensor
            "weight" of shape (out_features, in_features), "bias" of (out_features,),
            on the CPU.
        """
        weight, bias = self.weight.detach().cpu(), self.bias.detach().cpu()
        if self.centre is None or self.length is None:
            return {"weight": weight, "bias": bias}
        # In float64: where the centre is far from 0, two large numbers cancel.
        exact = weight.double() / self.length
        shift = exact @ self.centre.cpu().double()
        return {"weight": exact.float(), "bias": (bias.double() - shift).float()}

    def load_plain_state(self, state: Mapping[str, Tensor]) -> None:
        """Set weight and bias to give the outputs of a plain linear layer.

        Parameters
        ----------
        state : mapping of str to torch.Tensor
            As :meth:`plain_state` returns it.
        """
        weight, bias = state["weight"], state["bias"]
        if self.centre is not None and self.length is not None:
            weight, bias = weight.double(), bias.double()
            bias = bias + weight @ self.centre.cpu().double()
            weight = weight * self.length
        with torch.no_grad():
            self.weight.copy_(weight)
            self.bias.copy_(bias)


def mean_and_distance(
    features: Tensor, weights: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """Return the mean of features, and their distance from it.

    Parameters
    ----------
    features : torch.Tensor of shape (n, w)
        Features of each row.
    weights : torch.Tensor of shape (n,) or None
        Weights of the rows, or None for all equal.
    dtype : torch.dtype
        What the features were computed in, before they were stored.

    Returns
    -------
    centre : torch.Tensor of shape (w,)
        Their weighted mean, in float64.
    length : float
        Their root-mean-square distance from it, weighted likewise, or a share of the
        mean's own length if that is more: 0.031 for bfloat16, 0.0039 for float16 and
        0.003 for float32; 1 if all features are 0.
    """
    features = features.double()
    weights = features.new_ones(len(features)) if weights is None else weights
    weights = weights.double()
    share = weights / weights.sum()
    centre = share @ features
    length = (share @ (features - centre).square()).sum().sqrt()
    least = max(_LEAST_SPREAD, _ROUNDING * torch.finfo(dtype).eps)
    return centre, float(torch.maximum(length, least * centre.norm())) or 1.0

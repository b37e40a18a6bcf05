"""The linear head: learns on features of one size, whatever size a model's are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LinearHead(nn.Linear):
    """A linear layer that learns on features that are centred and of one size.

    How long the vectors of a model are, and how far from 0 they lie, differs a
    hundredfold between models. At one learning rate the head of the one would stand
    still, and that of the other would diverge.

    Attributes
    ----------
    centre : torch.Tensor of shape (in_features,) or None
        What is taken from each vector; None for a head that takes them as they come.
    scale : float
        What they are multiplied by then.
    """

    centre: Tensor | None = None
    scale = 1.0

    def learn_on(self, centre: Tensor, length: float) -> None:
        """Take features as if they lay around 0 and had a mean squared length of 1.

        Parameters
        ----------
        centre : torch.Tensor of shape (in_features,)
            Mean of the features.
        length : float
            Root of their mean squared distance from it, above 0.
        """
        self.centre, self.scale = centre.to(self.weight), 1 / length

    def forward(self, features: Tensor) -> Tensor:
        """Compute the outputs.

        Parameters
        ----------
        features : torch.Tensor of shape (n, in_features)
            Features as the model gives them.

        Returns
        -------
        torch.Tensor of shape (n, out_features)
        """
        if self.centre is not None:
            features = (features - self.centre) * self.scale
        return super().forward(features)

    def plain_state(self) -> dict[str, Tensor]:
        """Return weight and bias that give the same outputs of features as they come.

        Returns
        -------
        dict of str to torch.Tensor
            "weight" of shape (out_features, in_features), "bias" of (out_features,),
            on the CPU.
        """
        weight, bias = _exact(self.weight), _exact(self.bias)
        if self.centre is not None:
            weight = weight * self.scale
            bias = bias - weight @ _exact(self.centre)
        return {"weight": weight.float(), "bias": bias.float()}

    def load_plain_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over weight and bias that are for features as they come.

        Parameters
        ----------
        state : mapping of str to torch.Tensor
            As :meth:`plain_state` returns it.
        """
        weight, bias = _exact(state["weight"]), _exact(state["bias"])
        if self.centre is not None:
            bias = bias + weight @ _exact(self.centre)
            weight = weight / self.scale
        with torch.no_grad():
            self.weight.copy_(weight)
            self.bias.copy_(bias)


def _exact(tensor: Tensor) -> Tensor:
    """Copy to where there is float64: large numbers cancel if the centre is far off."""
    return tensor.detach().cpu().double()

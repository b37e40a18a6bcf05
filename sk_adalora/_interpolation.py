"""What is kept of a training: a point between where it started and where it ended.

A network that is pulled back a little tells other rows apart as well as before or
better, and is less sure of itself (WiSE-FT: Wortsman et al. 2022, arXiv:2109.01903).
docs/defaults.md has what that is worth here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ._network import TextNetwork


class Interpolation:
    """Pull a trained network back towards where it is when this is made.

    Parameters
    ----------
    network : TextNetwork
        A network before its training: its head has its first values, and all of its
        updates are 0.
    share : float
        How far to go from there (0) to where the network is later (1), in [0, 1].
    """

    def __init__(self, network: TextNetwork, share: float) -> None:
        self.network, self.share = network, share
        self._start = [p.detach().clone() for p in network.head_parameters()]

    @torch.no_grad()
    def apply(self) -> None:
        """Pull the network back for good."""
        if self.share == 1:
            return
        self.network.encoder.triplets.singular_values.mul_(self.share)
        head = self.network.head_parameters()
        for start, parameter in zip(self._start, head, strict=True):
            parameter.lerp_(start, 1 - self.share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Pull the network back for a look at it, between two epochs of a training."""
        parameters = [
            self.network.encoder.triplets.singular_values,
            *self.network.head_parameters(),
        ]
        trained = [p.detach().clone() for p in parameters]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for value, parameter in zip(trained, parameters, strict=True):
                    parameter.copy_(value)

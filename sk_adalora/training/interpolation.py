"""Interpolate a trained network between the start and the end of its training.

Moved a little back towards the start, a network predicts unseen rows as well as before
or better, and is less confident (WiSE-FT: Wortsman et al. 2022, arXiv:2109.01903).
docs/defaults.md has what that gains here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sk_adalora.network.network import TextNetwork


class Interpolation:
    """Move a trained network back towards its state when this object was made.

    Parameters
    ----------
    network : TextNetwork
        A network before its training: the head is initialised, and all updates are 0.
    share : float
        Position between that state (0) and the trained one (1), in [0, 1].
    """

    def __init__(self, network: TextNetwork, share: float) -> None:
        self.network, self.share = network, share
        self._start = [p.detach().clone() for p in network.head_parameters()]

    @torch.no_grad()
    def apply(self) -> None:
        """Interpolate the network permanently."""
        # Between two allocations pruned triplets train on; what is kept has none.
        self.network.encoder.allocator.zero_pruned()
        if self.share == 1:
            return
        # An update is linear in its singular values, and starts at 0.
        self.network.encoder.triplets.singular_values.mul_(self.share)
        head = self.network.head_parameters()
        for start, parameter in zip(self._start, head, strict=True):
            parameter.lerp_(start, 1 - self.share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Interpolate the network in a `with` block, between two epochs."""
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

"""What a fitted estimator keeps, and how it becomes a network again."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from ._backbone import Backbone, TextNetwork
from .adalora import AdaLoraConfig

FORMAT = 1
# Live objects of an estimator: rebuilt on demand, never pickled.
TRANSIENT = ("_live",)
_HEAD = "head."


@dataclass(frozen=True)
class AdapterState:
    """All that training changed, as plain arrays.

    Parameters
    ----------
    config : dict
        Fields of the :class:`AdaLoraConfig`, with the pruned ranks.
    arrays : dict of str to ndarray
        Triplets under PEFT's names and the head, in float32.
    n_outputs : int
        Outputs of the head.
    pooling : str
        How tokens become one vector.
    max_length : int
        Longest text in tokens.
    model : str
        The pretrained model, as it was asked for.
    found_in : str
        The folder it was found in.
    content_hash : str
        SHA-256 of its weights.
    format : int
        Number of this layout.
    versions : dict of str to str
        What it was trained with.
    """

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    n_outputs: int
    pooling: str
    max_length: int
    model: str
    found_in: str
    content_hash: str
    format: int = FORMAT
    versions: dict[str, str] = field(default_factory=lambda: used_versions())


def used_versions() -> dict[str, str]:
    """Return the versions that a saved estimator depends on."""
    versions = {"python": platform.python_version()}
    for package in ("sk-adalora", "torch", "transformers", "scikit-learn", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a source folder
            versions[package] = "unknown"
    return versions


def freeze_state(
    network: TextNetwork, backbone: Backbone, max_length: int
) -> AdapterState:
    """Copy what was trained to the CPU.

    Parameters
    ----------
    network : TextNetwork
        A trained network, with final ranks.
    backbone : Backbone
        The encoder below it.
    max_length : int
        Longest text in tokens.

    Returns
    -------
    AdapterState
    """
    encoder = network.encoder
    config = encoder.peft_config.to_dict()
    config["rank_pattern"] = rank_pattern(encoder.ranks, config["init_r"])
    tensors = {
        **encoder.state_dict(),
        **{_HEAD + name: value for name, value in network.head.state_dict().items()},
    }
    return AdapterState(
        config=config,
        arrays={n: t.detach().float().cpu().numpy() for n, t in tensors.items()},
        n_outputs=network.head.out_features,
        pooling=network.pooling,
        max_length=max_length,
        model=backbone.name,
        found_in=str(backbone.folder),
        content_hash=backbone.content_hash,
    )


def rank_pattern(ranks: dict[str, int], init_r: int) -> dict[str, list[bool]]:
    """Write ranks as PEFT does: a flag for each of the first `init_r` triplets."""
    return {
        f"{path}.lora_E": [i < rank for i in range(init_r)]
        for path, rank in ranks.items()
    }


def thaw_network(state: AdapterState, backbone: Backbone) -> TextNetwork:
    """Build the network that predicts.

    Parameters
    ----------
    state : AdapterState
        What training left.
    backbone : Backbone
        The encoder it was trained on.

    Returns
    -------
    TextNetwork
        In evaluation mode.

    Raises
    ------
    ValueError
        If the backbone is another one, or the state is of a later format.
    """
    check_format(state)
    check_backbone(state, backbone)
    config = AdaLoraConfig.from_dict({**state.config, "inference_mode": True})
    network = TextNetwork(
        backbone, config, state.n_outputs, state.pooling, torch.Generator()
    )
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in state.arrays.items()}
    head = {n: tensors.pop(_HEAD + n) for n in network.head.state_dict()}
    network.encoder.load_state_dict(tensors)
    network.head.load_state_dict(head)
    return network.requires_grad_(False).eval()


def check_format(state: AdapterState) -> None:
    """Refuse a layout that a later version wrote."""
    if state.format > FORMAT:
        raise ValueError(
            f"The file must be of format {FORMAT} or before. Got format "
            f"{state.format}, of sk-adalora {state.versions.get('sk-adalora')}. "
            "Install a newer sk-adalora."
        )


def check_backbone(state: AdapterState, backbone: Backbone) -> None:
    """Refuse a pretrained model other than the one of training."""
    if state.content_hash != backbone.content_hash:
        raise ValueError(
            "The pretrained model must be the one that the estimator was trained "
            f"on: {state.model!r}, found then in {state.found_in!r} with SHA-256 "
            f"{state.content_hash}. Got {str(backbone.folder)!r} with SHA-256 "
            f"{backbone.content_hash}. Point `model` to the former, or fit again."
        )

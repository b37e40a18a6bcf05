"""Save an adapter in the files of PEFT or as plain LoRA, and load what PEFT saved."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor, nn

from .model import AdaLoraModel, get_peft_model
from .peft_format import (
    rank_pattern,
    ranks_of,
    read_adapter,
    select_triplets,
    write_lora,
)


def save_adapter(
    model: AdaLoraModel,
    folder: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write an adapter in the files of PEFT.

    transformers without PEFT's classes cannot load pruned AdaLoRA, PEFT's included.
    From version 5.6 on, it can load what :func:`export_lora` writes, and from 5.18 on,
    also a trained head with it.

    Parameters
    ----------
    model : AdaLoraModel
        The adapted model. What is written are the triplets that its outputs depend on,
        and what is trained in full. Between two allocations, pruned triplets train on
        and are among them.
    folder : path-like
        The folder that gets ``adapter_config.json`` and ``adapter_model.safetensors``.
        Files of these names are replaced once both are written; others stay.
    state_dict : mapping of str to torch.Tensor or None, default=None
        The numbers to write. None stands for `model.state_dict()`.
    """
    model.save_pretrained(folder, state_dict=state_dict)


def export_lora(model: AdaLoraModel, folder: str | os.PathLike[str]) -> None:
    """Write an adapter as plain LoRA, for programs that do not know AdaLoRA.

    Parameters
    ----------
    model : AdaLoraModel
        The adapted model. The LoRA gives the same outputs.
    folder : path-like
        The folder that gets ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises
    ------
    ValueError
        If no layer has a triplet left: PEFT reads no LoRA without layers.
    """
    write_lora(folder, *model._to_write())


def living(state: Mapping[str, Tensor], model: AdaLoraModel) -> dict[str, Tensor]:
    """Leave out the triplets that were pruned but not deleted yet."""
    return select_triplets(state, model._by_layer(model.allocator.kept))


def load_peft_adapter(model: nn.Module, folder: str | os.PathLike[str]) -> AdaLoraModel:
    """Load an adapter that PEFT or :func:`save_adapter` wrote, onto a model.

    Parameters
    ----------
    model : torch.nn.Module
        The pretrained model. It is changed in place.
    folder : path-like
        The adapter's folder.

    Returns
    -------
    AdaLoraModel
        The adapted model, ready to predict, and frozen. To train on, call
        ``requires_grad_()`` on its `triplets`, and on the head that was saved beside
        them.

    Raises
    ------
    TypeError
        If the model is adapted already.
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is broken, or does not fit the model.
    """
    config, tensors = read_adapter(folder)
    config.inference_mode = True
    # Ranks are final, also without a pattern, as PEFT saves before it first prunes.
    config.rank_pattern = rank_pattern(ranks_of(tensors), config.init_r)
    trained = [p for p in model.parameters() if p.requires_grad]
    adapted = get_peft_model(model, config)
    try:
        adapted.load_state_dict(tensors)
    except ValueError:
        adapted.unload()
        for parameter in trained:  # the model is as it was
            parameter.requires_grad_(True)
        raise
    return adapted.eval()

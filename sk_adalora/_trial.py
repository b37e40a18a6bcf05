"""Try a pretrained model on a few tokens, before anything is trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._devices import Place
from ._pretrained import silent_transformers

# Its first tokens are tried. They come from a text, since ids of our own may be too
# high for the model, or mean padding.
_TEXT = "A few words are enough."
_MOST = 6


def shared_copy(module: nn.Module) -> nn.Module:
    """Return a module of its own over the same parameters."""
    shared = {id(p): p for p in module.parameters()}
    return copy.deepcopy(module, memo=shared)


def skip_pooler(module: nn.Module) -> None:
    """Have BERT's pooler return what it is given, since nothing reads its output.

    Its weights stay, for whoever saves the model. oneDNN would compile a kernel for it
    at each shape of a batch, of 0.6 MB.

    Parameters
    ----------
    module : torch.nn.Module
        An encoder, which is changed.
    """
    pooler = getattr(module, "pooler", None)
    if isinstance(pooler, nn.Module):
        pooler.forward = _unchanged  # type: ignore[method-assign]


def _unchanged(hidden: Tensor) -> Tensor:
    return hidden


def measure_width(module: nn.Module, tokenizer: Any, place: Place, folder: Path) -> int:
    """Return the length of a hidden state.

    Configs do not tell: OPT may project what it returns, and Reformer returns twice
    the width that it computes in.

    Parameters
    ----------
    module : torch.nn.Module
        A model without a head, in its place. Nothing of it changes.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    place : Place
        Device and precision of the model.
    folder : Path
        Where it was read from, for the message.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If the model does not turn each token into a vector.
    """
    body = shared_copy(module)
    skip_pooler(body)
    ids = tokenizer(_TEXT)["input_ids"][:_MOST] or [0]
    try:
        return _hidden(body, torch.tensor([ids], device=place.device)).shape[2]
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(_refusal(body, place, folder, error)) from error


def _hidden(body: nn.Module, ids: Tensor) -> Tensor:
    """Return the hidden states of some tokens, of shape (1, t, w)."""
    apart, plain = torch.random.fork_rng(devices=[]), torch.inference_mode(False)
    with silent_transformers(), apart, plain, torch.no_grad():
        hidden = body(input_ids=ids, attention_mask=None).last_hidden_state
    if hidden.shape[:2] != ids.shape:
        raise TypeError(f"{ids.shape[1]} tokens became {tuple(hidden.shape[1:-1])}")
    return hidden  # type: ignore[no-any-return]


def _refusal(body: nn.Module, place: Place, folder: Path, error: Exception) -> str:
    do = "Give another model, one that was pretrained on texts alone."
    if place.dtype != torch.float32:
        do = (
            "If it cannot compute in this precision, set `precision`='float32'; else "
            "give another model."
        )
    return (
        "`model` must be a text model, which turns each token into a vector. Got "
        f"{str(folder)!r}, a {type(body).__name__}, with which a few tokens in "
        f"{str(place.dtype).removeprefix('torch.')} raised {type(error).__name__}: "
        f"{error}. {do}"
    )

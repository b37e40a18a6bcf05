"""Try a pretrained model on a few tokens, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sk_adalora.runtime.devices import Place, computes, lacks_memory

from .read import (
    TRIAL_TEXT,
    Pretrained,
    count_vectors,
    shared_copy,
    silent_transformers,
    skip_pooler,
    text_part,
)

# So many tokens of a text are tried: ids of our own may be too high for the model, or
# mean padding.
_MOST = 4
# A head is tried on these. CANINE's needs four characters.
_TEXTS = ("A few", "A few words", "Words are enough")
# Up to this share of the largest number, a change counts as rounding.
_LEAST_SHARE = 1e-4
# The same for the outputs of a head in half precision, of texts in other shapes.
_SHARE_OF_HALF = 0.1


@dataclass(frozen=True)
class TrialResult:
    """What a trial found out about a model.

    Parameters
    ----------
    width : int
        Length of a hidden state, or 0 if it is not known. Configs do not tell: OPT may
        project what it returns, and Reformer returns twice the width that it computes
        in.
    sees_padding : bool
        Whether the vectors of a text depend on what it is padded with; of a model with
        a head of its own, whether the outputs depend on padding.
    failure : str, default=""
        Why it cannot be used; "" if it computes.
    """

    width: int
    sees_padding: bool
    failure: str = ""


def try_model(
    pretrained: Pretrained, place: Place, folder: Path, *, has_head: bool
) -> TrialResult:
    """Compute the hidden states of a few tokens, or what a head makes of them.

    A model with a head of its own need not give each token a vector, as Funnel does
    not. `folder` is where it was read from, for the message.
    """
    model, tokenizer = shared_copy(pretrained.module), pretrained.tokenizer
    whole: Any = model
    body = text_part(whole.base_model) if has_head else model
    tried = _TEXTS if has_head else ()
    texts = [tokenizer(text)["input_ids"] or [0] for text in tried]
    ids = tokenizer(TRIAL_TEXT)["input_ids"][:_MOST] or [0]
    pad_id = tokenizer.pad_token_id or 0
    try:
        _check_ids(body, sum(texts, [*ids, pad_id]))
        if has_head and _head_sees_padding(model, texts, pad_id, place):
            return TrialResult(0, True)
        skip_pooler(body)
        alone = _hidden(body, torch.tensor([ids], device=place.device))
        if alone.shape[:2] != (1, len(ids)):
            if has_head:
                return TrialResult(0, False)
            raise TypeError(f"{len(ids)} tokens became {tuple(alone.shape[1:-1])}")
        return TrialResult(alone.shape[2], _sees_padding(body, ids, pad_id, alone))
    except Exception as error:
        if lacks_memory(error) or not computes(place.device):
            raise  # it tells nothing of the model
        return TrialResult(0, False, _refusal(model, place, folder, error))


def _check_ids(body: nn.Module, ids: list[int]) -> None:
    """Refuse tokens that the model has no vector for.

    CUDA would raise an error too, but after it the process cannot use the GPU any more;
    and Apple's GPUs would raise none.
    """
    count = count_vectors(body)
    if count is not None and max(ids) >= count:
        raise IndexError(
            f"the tokenizer gave token {max(ids)}, and there are vectors for {count} "
            "tokens"
        )


def _sees_padding(body: nn.Module, ids: list[int], pad_id: int, alone: Tensor) -> bool:
    """Tell whether tokens that the mask leaves out change the others.

    Two paddings of the same shape are compared, which most models compute alike to the
    last bit in any precision. MobileBERT also reads the next token, whose embedding is
    0 where it is padding: so the text must differ from the text without padding too.
    """
    count = len(ids)
    kept = torch.tensor([[1] * count + [0] * count], device=alone.device)
    padded, other = (
        _hidden(body, torch.tensor([ids + behind], device=alone.device), kept)
        for behind in ([pad_id] * count, ids[::-1])
    )
    padded, other = padded[:, :count].float(), other[:, :count].float()
    # Mixtures of experts round differently if other tokens are beside those of a text.
    rounding = max(_LEAST_SHARE, 2 * torch.finfo(alone.dtype).eps)
    limit = rounding * float(alone.abs().max())
    change = float((padded - other).abs().max())
    return change > limit and float((padded - alone.float()).abs().max()) > limit


def _head_sees_padding(
    model: nn.Module, texts: list[list[int]], pad_id: int, place: Place
) -> bool:
    """Tell whether a head gives texts other outputs in a padded batch than alone.

    XLNet's reads the last position, which is padding there; T5Gemma's the one after the
    last token. The batch cannot be padded with anything else for comparison: the heads
    of decoders find the last token by the padding behind it.
    """
    most = max(map(len, texts)) + 2
    as_tensor = partial(torch.tensor, device=place.device)
    ids = [text + [pad_id] * (most - len(text)) for text in texts]
    kept = [[1] * len(text) + [0] * (most - len(text)) for text in texts]
    padded = _run(model, as_tensor(ids), as_tensor(kept)).logits.float()
    alone = [_run(model, as_tensor([text])).logits for text in texts]
    expected = torch.cat(alone).float()
    share = _LEAST_SHARE if place.precision == "float32" else _SHARE_OF_HALF
    return bool((padded - expected).abs().max() > share * expected.abs().max())


def _hidden(body: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the hidden states of some tokens, of shape (1, t, w)."""
    return _run(body, ids, mask).last_hidden_state


def _run(model: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Any:
    """Return what a model returns for some tokens."""
    apart, plain = torch.random.fork_rng(devices=[]), torch.inference_mode(False)
    with silent_transformers(), apart, plain, torch.no_grad():
        return model(input_ids=ids, attention_mask=mask)


def _refusal(model: nn.Module, place: Place, folder: Path, error: Exception) -> str:
    do = "Give one that was pretrained on texts, and takes them at any length."
    if place.dtype != torch.float32:
        do = (
            "If it cannot compute in this precision, set precision='float32'. "
            "Otherwise, give a model that was pretrained on texts."
        )
    return (
        "`model` must be a text model, which turns each token into a vector. Got "
        f"{str(folder)!r}, a {type(model).__name__}, which failed on a few tokens in "
        f"{str(place.dtype).removeprefix('torch.')} with {type(error).__name__}: "
        f"{error}. {do}"
    )

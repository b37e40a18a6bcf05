"""Integrated gradients: how much each word of a text moved an output, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_adalora.network.network import TextNetwork
from sk_adalora.runtime.devices import own_settings_of_torch, resolve_compute
from sk_adalora.tokens.tokenize import locked

from .predicting import load_network, most_tokens

# Points of Gauss and Legendre's rule between the empty text and the text.
_N_STEPS = 32

Span = tuple[int, int]


@own_settings_of_torch()
def integrate_gradients(
    estimator: Any,
    rows: Sequence[Sequence[str]],
    words: Sequence[Sequence[Sequence[Span]]],
    which: np.ndarray,
) -> tuple[list[np.ndarray], list[float]]:
    """Share what a text adds to an output among its words (arXiv:1703.01365).

    The way goes from the vectors of padding tokens to those of the words, with the
    special tokens in both.

    Parameters
    ----------
    estimator : estimator
        A fitted one that reads a text or a pair of texts.
    rows : sequence of sequences of str
        The texts of each row, one or two.
    words : sequence of sequences of sequences of (int, int)
        Begin and end of the words of each of these texts.
    which : ndarray of shape (n_samples,)
        The output of each row.

    Returns
    -------
    values : list of ndarrays of shape (n_words,)
        What each word adds, in the order of the texts.
    baselines : list of float
        The outputs without words.
    """
    compute = resolve_compute(estimator.device, estimator.precision)
    # A network of its own: what predicts may hold tables that inference mode has made,
    # which autograd refuses.
    network, backbone = load_network(estimator, compute)
    tokenizer, most = backbone.tokenizer, most_tokens(estimator.max_length, backbone)
    values, baselines = [], []
    for texts, spans, output in zip(rows, words, which.tolist(), strict=True):
        with locked(tokenizer):
            # In lists: of a pair, an empty second text would otherwise be ignored.
            (encoded,) = tokenizer(
                *([text] for text in texts),
                truncation="longest_first",
                max_length=most,
                verbose=False,
            ).encodings
        typed = len(texts) > 1 and "token_type_ids" in tokenizer.model_input_names
        of_tokens, baseline = _of_tokens(
            network, estimator._targets, encoded, _no_word(tokenizer), output, typed
        )
        values.append(_of_words(of_tokens, encoded, texts, spans))
        baselines.append(baseline)
    return values, baselines


def _no_word(tokenizer: Any) -> int:
    """Return the token that says nothing.

    From masks, the strongest words matter less (`python -m benchmarks explain`).
    """
    known = (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.eos_token_id)
    return next((int(id_) for id_ in known if id_ is not None), 0)


def _of_tokens(
    network: TextNetwork,
    targets: Any,
    encoded: Any,
    no_word: int,
    output: int,
    typed: bool,
) -> tuple[np.ndarray, float]:
    """Return what each token adds, of shape (t,), and the output without them."""
    # Dimensions: s = steps, t = tokens, w = width.
    module: Any = network.encoder.model
    embed = module.get_input_embeddings()
    device = next(network.encoder.triplets.parameters()).device
    ids = torch.tensor(encoded.ids, device=device)  # (t,)
    special = torch.tensor(encoded.special_tokens_mask, device=device).bool()
    types = torch.tensor(encoded.type_ids, device=device) if typed else None
    with torch.no_grad():
        end = embed(ids).float()  # (t, w)
        start = embed(torch.where(special, ids, no_word)).float()
    nodes, weights = np.polynomial.legendre.leggauss(_N_STEPS)
    places = torch.tensor([0.0, *(nodes + 1) / 2], dtype=torch.float32, device=device)
    shares = torch.tensor(weights / 2, dtype=torch.float32, device=device)  # (s,)
    way = start + places[:, None, None] * (end - start)  # (1 + s, t, w)
    way.requires_grad_()
    outputs = network.of_vectors(way.to(embed.weight.dtype), types)
    measured: Tensor = targets.measure_tensor(outputs, output)  # (1 + s,)
    (gradients,) = torch.autograd.grad(measured.sum(), way)
    mean = torch.einsum("stw,s->tw", gradients[1:], shares)
    added = (mean * (end - start)).sum(dim=1)  # (t,)
    return added.cpu().double().numpy(), float(measured[0].detach())


def _of_words(
    of_tokens: np.ndarray,
    encoded: Any,
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]],
) -> np.ndarray:
    """Add up the tokens of each word, by the characters that they share."""
    values, begin = np.zeros(sum(map(len, spans))), 0
    for i, (text, of_text) in enumerate(zip(texts, spans, strict=True)):
        word_of = np.full(len(text), -1)
        for word, (start, stop) in enumerate(of_text):
            word_of[start:stop] = begin + word
        for token, (start, stop) in enumerate(encoded.offsets):
            if encoded.sequence_ids[token] != i or not of_text:
                continue
            own = word_of[start:stop]
            own = own[own >= 0]
            if not len(own):  # of spaces: with the word before, or the first
                before = word_of[:stop][word_of[:stop] >= 0]
                own = before[-1:] if len(before) else np.array([begin])
            np.add.at(values, own, of_tokens[token] / len(own))
        begin += len(of_text)
    return values

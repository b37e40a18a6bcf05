"""Texts with more tokens than the model takes: cut, both ends, or windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sk_adalora.data.texts import Texts

from .table import TokenTable
from .tokenize import check_room, encode, locked

# A limit above any text's length, since `encode` always truncates.
_NO_LIMIT = 2**30


@dataclass(frozen=True)
class Windows:
    """Pieces of distinct texts, each short enough for the model.

    Parameters
    ----------
    tokens : TokenTable
        One row a window.
    owners : ndarray of shape (n_windows,)
        The distinct text that each window is of.
    """

    tokens: TokenTable
    owners: np.ndarray

    def take(self, texts: np.ndarray) -> Windows:
        """Return the windows of some distinct texts, which are sorted."""
        kept = np.flatnonzero(np.isin(self.owners, texts))
        owners = np.searchsorted(texts, self.owners[kept])
        return Windows(self.tokens.take(kept), owners)

    def average(self, outputs: np.ndarray) -> np.ndarray:
        """Average the outputs of the windows of each text.

        Parameters
        ----------
        outputs : ndarray of shape (n_windows, n_outputs)
            Outputs by window.

        Returns
        -------
        ndarray of shape (n_distinct, n_outputs)
        """
        counts = np.bincount(self.owners)
        if counts.max() == 1:
            return outputs
        sums = np.zeros((len(counts), outputs.shape[1]), outputs.dtype)
        np.add.at(sums, self.owners, outputs)
        return sums / counts[:, np.newaxis].astype(outputs.dtype)


def encode_for_training(
    texts: Texts, tokenizer: Any, max_length: int, long_text: str
) -> TokenTable:
    """Encode texts for training, each as at most `max_length` tokens.

    Of windows, training uses only the first.
    """
    if long_text != "truncate":
        _refuse_pairs(texts, long_text)
    if long_text != "head_tail":
        return encode(texts, tokenizer, max_length)
    return _keep_both_ends(_encode_whole(texts, tokenizer, max_length), max_length)


def encode_for_both(
    texts: Texts, tokenizer: Any, max_length: int, long_text: str
) -> tuple[TokenTable, Windows]:
    """Encode texts once, to train on and to predict.

    Of windows, training uses only the first. Return it of each row, and all windows of
    the distinct texts.
    """
    tokens, windows = encode_for_prediction(texts, tokenizer, max_length, long_text)
    if long_text != "windows":
        return tokens, windows
    first = windows.tokens.take(np.arange(len(tokens.starts)))
    long = tokens.stops - tokens.starts > max_length
    return replace(first, text_of=tokens.text_of, truncated=long), windows


def encode_for_prediction(
    texts: Texts, tokenizer: Any, max_length: int, long_text: str
) -> tuple[TokenTable, Windows]:
    """Encode texts for prediction: return their tokens, and what the model is given.

    The latter has a window or more of each distinct text. Which of these a row is of,
    `text_of` of the tokens tells.
    """
    if long_text == "windows":
        _refuse_pairs(texts, long_text)
        whole = _encode_whole(texts, tokenizer, max_length)
        return whole, _split(whole.distinct(), tokenizer, max_length)
    tokens = encode_for_training(texts, tokenizer, max_length, long_text)
    return tokens, Windows(tokens.distinct(), np.arange(len(tokens.starts)))


def _refuse_pairs(texts: Texts, long_text: str) -> None:
    if texts.second is not None:
        raise ValueError(
            f"`long_text` must be 'truncate' with pairs of texts. Got {long_text!r}. "
            "Change it, or join the pair with a template as `row_format`."
        )


def _encode_whole(texts: Texts, tokenizer: Any, max_length: int) -> TokenTable:
    """Encode texts whole, for pieces of `max_length` tokens."""
    check_room(tokenizer, max_length)
    return encode(texts, tokenizer, _NO_LIMIT)


def _keep_both_ends(whole: TokenTable, max_length: int) -> TokenTable:
    """Cut the middle out of long texts; special tokens are at the ends."""
    lengths = whole.stops - whole.starts
    kept = np.minimum(lengths, max_length)
    starts = np.cumsum(kept) - kept
    head = (max_length + 1) // 2
    long = lengths > max_length
    # The cumulative sum is 1 in the middle of a long text, and 0 elsewhere.
    edges = np.zeros(len(whole.ids) + 1, np.int8)
    edges[whole.starts[long] + head] += 1
    edges[whole.stops[long] - (max_length - head)] -= 1
    stays = np.cumsum(edges[:-1], dtype=np.int8) == 0
    return replace(
        whole,
        ids=whole.ids[stays],
        starts=starts,
        stops=starts + kept,
        truncated=long,
        max_length=max_length,
    )


def _split(distinct: TokenTable, tokenizer: Any, max_length: int) -> Windows:
    """Cut long texts into windows that overlap by half, special tokens in each.

    The first window of a long text takes the place of the text, and the others come
    after all texts.
    """
    lengths = distinct.stops - distinct.starts
    longest = int(lengths.argmax())
    before, after = _special_ends(tokenizer, _ids_of(distinct, longest))
    room = max_length - before - after
    step = max(1, room // 2)
    long = np.flatnonzero(lengths > max_length)
    pieces: list[np.ndarray] = []
    texts: list[int] = []  # of which each window is
    for text in long.tolist():
        whole = _ids_of(distinct, text)
        opening, closing = whole[:before], whole[len(whole) - after :]
        content = whole[before : len(whole) - after]
        last = len(content) - room
        for first in (*range(0, last, step), last):
            pieces += [opening, content[first : first + room], closing]
            texts.append(text)
    owners = np.asarray(texts, np.int64)
    begins = len(distinct.ids) + max_length * np.arange(len(owners), dtype=np.int64)
    is_first = np.diff(owners, prepend=-1) > 0
    kept = distinct.starts.astype(np.int64)  # a copy, with room for what follows
    kept[long] = begins[is_first]
    starts = np.append(kept, begins[~is_first])
    owners = np.append(np.arange(len(lengths)), owners[~is_first])
    tokens = replace(
        distinct,
        ids=np.concatenate([distinct.ids, *pieces]),
        starts=starts,
        stops=starts + np.minimum(lengths[owners], max_length),
        text_of=np.arange(len(starts)),
        truncated=np.zeros(len(starts), dtype=bool),
        max_length=max_length,
    )
    return Windows(tokens, owners)


def _ids_of(distinct: TokenTable, text: int) -> np.ndarray:
    return distinct.ids[distinct.starts[text] : distinct.stops[text]]


def _special_ends(tokenizer: Any, known: np.ndarray) -> tuple[int, int]:
    """Count the special tokens before and after a text; `known` are the ids of one."""
    with locked(tokenizer):
        empty = tokenizer("")["input_ids"]
        one = tokenizer("a")["input_ids"]
    if len(one) <= len(empty):  # the vocabulary has no "a"
        one = known.tolist()
    before = 0
    while before < len(empty) and empty[before] == one[before]:
        before += 1
    return before, len(empty) - before

"""Token ids -> padded batches of rows of similar length.

A batch is as wide as its longest row, so grouping rows by length is what saves most
of the work on texts of mixed lengths. Batches are lists of row positions first; `pad`
turns one into tensors when its turn comes.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .table import TokenTable

# Rows are sorted by length within runs of this many batches, which leaves little
# padding. With more rows than that, each epoch has other batches. With fewer, the
# batches are the same in each epoch, except for rows of equal length: mixing rows of
# all lengths takes up to 1.5 times as long, and scores no higher
# (`python -m benchmarks grouping`).
_MEGABATCH = 50


@dataclass(frozen=True)
class Batch:
    """Some rows of a table as tensors, padded on the right.

    Attributes
    ----------
    input_ids : Tensor of shape (n_rows, length), dtype int64
        The token ids; `length` is at least that of the longest row.
    attention_mask : Tensor of shape (n_rows, length), dtype int64, or None
        1 for tokens and 0 for padding; None where nothing is padded, which lets
        attention take its fastest path.
    token_type_ids : Tensor of shape (n_rows, length), dtype int64, or None
        Which text of a pair a token belongs to, if the model is told.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    token_type_ids: torch.Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; see `send`."""
        mask, types = self.attention_mask, self.token_type_ids
        return Batch(
            send(self.input_ids, device),
            None if mask is None else send(mask, device),
            None if types is None else send(types, device),
        )


# Types of devices to which a copy runs while the host goes on.
_OVERLAPPING = {"cuda"}


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device; on CUDA, without waiting for running computations."""
    if device.type in _OVERLAPPING and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def pad(
    table: TokenTable, rows: np.ndarray, multiple: int = 1, n_rows: int | None = None
) -> Batch:
    """Cut rows out of a table and pad them to the longest of them.

    Parameters
    ----------
    table : TokenTable
        The token ids.
    rows : ndarray of shape (n_rows,)
        Positions in the table, at least one.
    multiple : int, default=1
        Pad on to a multiple of about this many tokens, see `padded_length`.
    n_rows : int or None, default=None
        Rows of the tensors: fill up to them by repeating the last one. None adds none.

    Returns
    -------
    Batch
        CPU tensors, rows in the given order.
    """
    filled = np.append(rows, np.repeat(rows[-1:], max(0, (n_rows or 0) - len(rows))))
    distinct = table.text_of[filled]
    starts, stops = table.starts[distinct], table.stops[distinct]
    longest = int((stops - starts).max())
    length = padded_length(longest, multiple, table.max_length)  # L
    positions = starts[:, None] + np.arange(length)  # (n_rows, L)
    is_token = positions < stops[:, None]  # (n_rows, L)
    # At padding, any valid position will do: its value is overwritten.
    positions = np.where(is_token, positions, 0)
    ids = np.where(is_token, table.ids[positions], table.pad_id)
    type_ids = None
    if table.type_ids is not None:
        type_ids = _to_tensor(np.where(is_token, table.type_ids[positions], 0))
    mask = None if is_token.all() else _to_tensor(is_token)
    return Batch(_to_tensor(ids), mask, type_ids)


def padded_length(length: int, multiple: int, max_length: int) -> int:
    """Round a length up, so that few different lengths occur, with little padding.

    Parameters
    ----------
    length : int
        Tokens of a batch's longest row.
    multiple : int
        Round up to a multiple of this many tokens. It is doubled until it is at least a
        twelfth of the length, unless it is 1.
    max_length : int
        Most tokens that the model takes: the upper limit of the result.

    Returns
    -------
    int

    Examples
    --------
    >>> [padded_length(n, 4, max_length=78) for n in (5, 48, 49, 77)]
    [8, 48, 56, 78]
    """
    while 1 < multiple < length / 12:
        multiple *= 2
    return min(-(-length // multiple) * multiple, max_length)


def _to_tensor(array: np.ndarray) -> torch.Tensor:
    # int64: what every embedding layer and attention mask accepts
    return torch.from_numpy(array.astype(np.int64))


def training_batches(
    table: TokenTable, batch_size: int, generator: torch.Generator
) -> list[np.ndarray]:
    """Deal all rows of a table into the batches of one epoch.

    The rows are shuffled, sorted by length within runs of 50 batches, cut into
    batches of equal size, and the batches are shuffled. If the last batch were smaller
    instead, it would hold the longest rows, and each of them would count more than
    other rows.

    Parameters
    ----------
    table : TokenTable
        The token ids.
    batch_size : int
        Most rows in a batch.
    generator : torch.Generator
        Source of all randomness, on the CPU.

    Returns
    -------
    list of ndarrays of shape (n_rows,)
        ``ceil(n_samples / batch_size)`` batches of row positions, whose sizes differ
        by at most one; each row is in one.
    """
    n_rows = len(table)
    n_batches = -(-n_rows // batch_size)
    order = torch.randperm(n_rows, generator=generator).numpy()
    # Place i is in batch i * n_batches // n_rows, so each begins at the least such i.
    bounds = -(-np.arange(n_batches + 1) * n_rows // n_batches)
    for first in range(0, n_batches, _MEGABATCH):
        last = min(first + _MEGABATCH, n_batches)
        run = order[bounds[first] : bounds[last]]
        distinct = table.text_of[run]
        lengths = table.stops[distinct] - table.starts[distinct]
        run[:] = run[np.argsort(lengths, kind="stable")]
    shuffled = torch.randperm(n_batches, generator=generator).tolist()
    return [order[bounds[i] : bounds[i + 1]] for i in shuffled]


def micro_batches(
    table: TokenTable, rows: np.ndarray, max_tokens: int
) -> list[np.ndarray]:
    """Cut a batch into parts whose gradients add up to that of the batch.

    Parameters
    ----------
    table : TokenTable
        The token ids.
    rows : ndarray of shape (n_rows,)
        The rows of a batch.
    max_tokens : int
        Tokens of a part, padding included; a part may have a row more.

    Returns
    -------
    list of ndarrays of shape (n_part,)
        Equal numbers of rows, the longest first; each row is in one part.
    """
    distinct = table.text_of[rows]  # `table.lengths` would compute those of all rows
    lengths = table.stops[distinct] - table.starts[distinct]  # (n_rows,)
    parts = -(-len(rows) * int(lengths.max()) // max_tokens)
    if parts == 1:
        return [rows]
    longest_first = rows[np.argsort(-lengths, kind="stable")]
    return np.array_split(longest_first, min(parts, len(rows)))


def prediction_batches(
    table: TokenTable, max_tokens: int, multiple: int = 1
) -> list[np.ndarray]:
    """Cut the rows of a table, longest first, into batches of bounded size.

    The longest come first, so that a batch that does not fit in memory fails at once.
    For tables with repeated texts, predict ``table.distinct()`` and index the results
    with ``table.text_of``.

    Parameters
    ----------
    table : TokenTable
        The token ids.
    max_tokens : int
        Most tokens in a batch, padding included; a longer row is a batch of its own.
    multiple : int, default=1
        What the batches will be padded to, see `pad`. Above 1 they have one of a few
        numbers of rows, see `round_count_down`, except the last.

    Returns
    -------
    list of ndarrays of shape (n_rows,)
        Batches of row positions; each row is in one.
    """
    lengths = table.lengths
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        length = padded_length(int(lengths[order[start]]), multiple, table.max_length)
        n_rows = max(1, max_tokens // length)
        if multiple > 1:
            n_rows = round_count_down(n_rows)
        batches.append(order[start : start + n_rows])
        start += n_rows
    return batches


def round_count_down(n: int) -> int:
    """Round a number down to 2**k or 3 * 2**k: two numbers for each doubling.

    Examples
    --------
    >>> [round_count_down(n) for n in (1, 3, 5, 7, 42)]
    [1, 3, 4, 6, 32]
    """
    power = 1 << (n.bit_length() - 1)
    between = power + power // 2
    return between if n >= between else power


def round_count_up(n: int) -> int:
    """Round a number up to 2**k or 3 * 2**k.

    Examples
    --------
    >>> [round_count_up(n) for n in (1, 3, 5, 7, 42)]
    [1, 3, 6, 8, 48]
    """
    below = round_count_down(n)
    if below == n:
        return n
    return below * 3 // 2 if below & (below - 1) == 0 else below // 3 * 4


def uniform_batches(
    table: TokenTable, batch_size: int, max_tokens: int
) -> list[np.ndarray]:
    """Cut the rows of a table, longest first, into batches of the shapes of training.

    So kernels that are compiled for the shape of a batch are used by both.

    Parameters
    ----------
    table : TokenTable
        The token ids.
    batch_size : int
        Rows of a training batch.
    max_tokens : int
        Most tokens that go through the network at once, see `micro_batches`.

    Returns
    -------
    list of ndarrays of shape (n_rows,)
        Row positions of batches, or of their parts, see `micro_batches`. The sizes of
        whole batches differ by at most one; each row is in one.
    """
    order = np.argsort(-table.lengths, kind="stable")
    batches = np.array_split(order, -(-len(order) // batch_size))
    return [part for rows in batches for part in micro_batches(table, rows, max_tokens)]

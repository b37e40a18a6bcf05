"""Token ids -> padded batches of rows of similar length.

A batch is as wide as its longest row, so grouping rows by length is what saves most
of the work on texts of mixed lengths. Batches are lists of row positions first; `pad`
turns one into tensors when its turn comes.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

__all__ = [
    "Batch",
    "micro_batches",
    "pad",
    "prediction_batches",
    "training_batches",
]

# Rows are sorted by length within this many batches: enough to leave little padding,
# and few enough that the batches of an epoch still mix all rows.
_MEGABATCH = 50


class _TokenTable(Protocol):
    """What this module needs of a table of token ids."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def starts(self) -> np.ndarray: ...
    @property
    def stops(self) -> np.ndarray: ...
    @property
    def rows(self) -> np.ndarray: ...
    @property
    def type_ids(self) -> np.ndarray | None: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def lengths(self) -> np.ndarray: ...
    @property
    def longest(self) -> int: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Batch:
    """Some rows of a table as tensors, padded on the right.

    Attributes
    ----------
    input_ids : Tensor of shape (n_rows, length), dtype int64
        The token ids; `length` is that of the longest row.
    attention_mask : Tensor of shape (n_rows, length), dtype int64, or None
        1 for tokens and 0 for padding; None where nothing is padded, which lets
        attention take its fastest path.
    token_type_ids : Tensor of shape (n_rows, length), dtype int64, or None
        Which text of a pair a token belongs to, if the model is told.
    rows : ndarray of shape (n_rows,)
        The rows' positions in the table.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    token_type_ids: torch.Tensor | None
    rows: np.ndarray

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device; see `send`."""
        device = torch.device(device)
        mask, types = self.attention_mask, self.token_type_ids
        return Batch(
            send(self.input_ids, device),
            None if mask is None else send(mask, device),
            None if types is None else send(types, device),
            self.rows,
        )


# Devices that take a copy while the host goes on.
_OVERLAPPING = {"cuda"}


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device; on CUDA, without waiting for what it computes.

    Parameters
    ----------
    tensor : torch.Tensor
        On the CPU, or there already.
    device : torch.device
        Where it is needed.

    Returns
    -------
    torch.Tensor
    """
    if device.type in _OVERLAPPING and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def pad(table: _TokenTable, rows: np.ndarray, multiple: int = 1) -> Batch:
    """Cut rows out of a table and pad them to the longest of them.

    Parameters
    ----------
    table : TokenTable
        The token ids.
    rows : ndarray of shape (n_rows,)
        Positions in the table, at least one.
    multiple : int, default=1
        Pad on to a multiple of this many tokens, and of twice as many for each doubling
        of the length beyond 12 times that: few lengths in all, and little padding. It
        is never padded beyond the longest row of the table.

    Returns
    -------
    Batch
        CPU tensors, rows in the given order.
    """
    distinct = table.rows[rows]
    starts, stops = table.starts[distinct], table.stops[distinct]
    length = int((stops - starts).max())  # L
    while 1 < multiple < length / 12:
        multiple *= 2
    if length % multiple:
        length = min(length + multiple - length % multiple, table.longest)
    positions = starts[:, None] + np.arange(length)  # (n_rows, L)
    is_token = positions < stops[:, None]  # (n_rows, L)
    if is_token.all():
        return Batch(
            _to_tensor(table.ids[positions]),
            None,
            None if table.type_ids is None else _to_tensor(table.type_ids[positions]),
            rows,
        )
    # Any valid position will do where padding overwrites what it holds.
    positions = np.where(is_token, positions, 0)
    ids = np.where(is_token, table.ids[positions], table.pad_id)
    type_ids = None
    if table.type_ids is not None:
        type_ids = _to_tensor(np.where(is_token, table.type_ids[positions], 0))
    return Batch(_to_tensor(ids), _to_tensor(is_token), type_ids, rows)


def _to_tensor(array: np.ndarray) -> torch.Tensor:
    # int64: what every embedding layer and attention mask accepts
    return torch.from_numpy(array.astype(np.int64))


def training_batches(
    table: _TokenTable, batch_size: int, generator: torch.Generator
) -> list[np.ndarray]:
    """Deal all rows of a table into the batches of one epoch.

    The rows are shuffled, sorted by length within runs of 50 batches, cut into
    batches, and the batches are shuffled.

    Parameters
    ----------
    table : TokenTable
        The token ids.
    batch_size : int
        Rows in each batch; one batch may have fewer.
    generator : torch.Generator
        Source of all randomness, on the CPU.

    Returns
    -------
    list of ndarrays of shape (n_rows,)
        ``ceil(n_samples / batch_size)`` batches of row positions; each row is in one.
    """
    n_rows = len(table)
    order = torch.randperm(n_rows, generator=generator).numpy()
    megabatch = np.arange(n_rows) // (_MEGABATCH * batch_size)
    order = order[np.lexsort((table.lengths[order], megabatch))]
    batches = [order[i : i + batch_size] for i in range(0, n_rows, batch_size)]
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[i] for i in shuffled]


def micro_batches(
    table: _TokenTable, rows: np.ndarray, max_tokens: int | None
) -> list[np.ndarray]:
    """Cut a batch into parts whose gradients add up to that of the batch.

    Parameters
    ----------
    table : TokenTable
        The token ids.
    rows : ndarray of shape (n_rows,)
        The rows of a batch.
    max_tokens : int or None
        Tokens of a part, padding included; a part may have a row more. None leaves
        the batch whole.

    Returns
    -------
    list of ndarrays of shape (n_part,)
        Equal numbers of rows, the longest first; each row is in one part.
    """
    if max_tokens is None:
        return [rows]
    distinct = table.rows[rows]  # not `lengths`, which are those of all rows
    lengths = table.stops[distinct] - table.starts[distinct]  # (n_rows,)
    parts = -(-len(rows) * int(lengths.max()) // max_tokens)
    if parts == 1:
        return [rows]
    longest_first = rows[np.argsort(-lengths, kind="stable")]
    return np.array_split(longest_first, min(parts, len(rows)))


def prediction_batches(
    table: _TokenTable, max_tokens: int, max_rows: int | None = None
) -> list[np.ndarray]:
    """Cut the rows of a table, longest first, into batches of bounded size.

    The longest come first, so that a batch that does not fit in memory fails at once.
    For tables with repeated texts, predict ``table.distinct()`` and index the results
    with ``table.rows``.

    Parameters
    ----------
    table : TokenTable
        The token ids.
    max_tokens : int
        Most tokens in a batch, padding included; a longer row is a batch of its own.
    max_rows : int or None, default=None
        Most rows in a batch. None is no bound.

    Returns
    -------
    list of ndarrays of shape (n_rows,)
        Batches of row positions; each row is in one.
    """
    lengths = table.lengths
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        n_rows = max(1, max_tokens // int(lengths[order[start]]))
        n_rows = min(n_rows, max_rows or n_rows)
        batches.append(order[start : start + n_rows])
        start += n_rows
    return batches

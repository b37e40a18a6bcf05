"""The token ids of a table's rows, from which batches are cut.

The ids of all distinct texts lie one after the other in a single array, so that a batch
is cut out of it without a Python loop, and rows, folds and epochs share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class TokenTable:
    """The token ids of a table's rows; rows with equal texts share them.

    The ids of distinct text ``d`` are ``ids[starts[d] : stops[d]]``.

    Attributes
    ----------
    ids : ndarray of shape (n_tokens,), dtype int32
        The token ids of all distinct texts, one after the other.
    starts, stops : ndarrays of shape (n_distinct,), dtype int32 or int64
        Where each distinct text begins and ends in `ids`.
    text_of : ndarray of shape (n_samples,), dtype int32 or int64
        The distinct text of each row.
    type_ids : ndarray of shape (n_tokens,), dtype int8, or None
        Which text of a pair each token belongs to, if the model is told.
    truncated : ndarray of shape (n_distinct,), dtype bool
        Whether tokens were cut off.
    pad_id : int
        The id to fill batches with.
    max_length : int
        Tokens that the model takes: no row has more, and none is padded to more.
    """

    ids: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    text_of: np.ndarray
    type_ids: np.ndarray | None
    truncated: np.ndarray
    pad_id: int
    max_length: int

    def __len__(self) -> int:
        return len(self.text_of)

    @property
    def lengths(self) -> np.ndarray:
        """Token counts of shape (n_samples,), each at least 1."""
        return (self.stops - self.starts)[self.text_of]

    @property
    def all_distinct(self) -> bool:
        """Whether the rows are the distinct texts, in their order."""
        return np.array_equal(self.text_of, np.arange(len(self.starts)))

    @property
    def truncated_share(self) -> float:
        """The share of rows that lost tokens."""
        return float(self.truncated[self.text_of].mean())

    def take(self, indices: Sequence[int] | np.ndarray) -> "TokenTable":
        """Return the table of some rows, in that order; the ids are shared."""
        kept, text_of = np.unique(
            self.text_of[np.asarray(indices, dtype=np.int64)], return_inverse=True
        )
        return replace(
            self,
            starts=self.starts[kept],
            stops=self.stops[kept],
            text_of=text_of.astype(self.text_of.dtype, copy=False),
            truncated=self.truncated[kept],
        )

    def distinct_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows whose tokens are those of a row before.

        Different texts may have the same, as where they differ after the cut.

        Returns
        -------
        first : ndarray of shape (n_distinct,)
            The first row with each sequence of tokens, in row order.
        same_as : ndarray of shape (n_samples,)
            For each row, the position in `first` of the one with its tokens.
        """
        positions: dict[tuple[bytes, ...], int] = {}
        of_tokens = [self.ids, *([] if self.type_ids is None else [self.type_ids])]
        first, same_as = [], np.empty(len(self), np.int64)
        for row, text in enumerate(self.text_of):
            part = slice(self.starts[text], self.stops[text])
            key = tuple(values[part].tobytes() for values in of_tokens)
            if key not in positions:
                first.append(row)
            same_as[row] = positions.setdefault(key, len(positions))
        return np.array(first, np.int64), same_as

    def distinct(self) -> "TokenTable":
        """Return the table of the distinct texts, one row each.

        With ``results`` a value per row of it, ``results[self.text_of]`` is a value per
        row of this table.
        """
        return replace(self, text_of=np.arange(len(self.starts)))

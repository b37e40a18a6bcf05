"""The rows of all updates that have one width, as one parameter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .products import autocasts, refuse_second_derivatives

# In half precision, ranks are padded to multiples of this: on a CPU, a kernel is
# compiled for each shape, and kept in memory; tensor cores are fast only at multiples
# of 8.
_BLOCK = 16

# Dimensions: m = rows of a bank, w = width of a bank, k = matrices in a bank,
# r = rank of one matrix.


class RowBank(nn.Module):
    """The rows of all updates that have one width, layer after layer.

    Parameters
    ----------
    width : int
        Length of a row.
    positions : sequence of int
        Which of the model's layers own the rows.
    ranks : sequence of int
        Rank of every layer of the model.
    """

    triplet_of: Tensor  # (m,) the triplet that each row belongs to

    def __init__(
        self, width: int, positions: Sequence[int], ranks: Sequence[int]
    ) -> None:
        super().__init__()
        self.positions = list(positions)
        # float32, whatever the precision of the frozen weights or torch's default.
        rows = torch.zeros(
            sum(ranks[i] for i in self.positions), width, dtype=torch.float
        )
        self.rows = nn.Parameter(rows)  # (m, w)
        self.register_buffer("triplet_of", torch.empty(0).long(), persistent=False)
        # Cache of `_table`, by kind.
        self._tables: dict[str, Tensor] = {}
        self.lay_out(ranks)

    @property
    def width(self) -> int:
        """Length of a row."""
        return self.rows.shape[1]

    def lay_out(self, ranks: Sequence[int]) -> None:
        """Assign the rows to layers, when they have changed with the ranks.

        Parameters
        ----------
        ranks : sequence of int
            Rank of every layer of the model.
        """
        device = self.rows.device
        self.sizes = [ranks[i] for i in self.positions]
        of_layers = torch.split(torch.arange(sum(ranks), device=device), list(ranks))
        self.triplet_of = torch.cat([of_layers[i] for i in self.positions])
        self.holds_all = len(self.triplet_of) == sum(ranks)
        # Rebuild the tables that steps use: here, the host waits for the device anyway.
        needed, self._tables = list(self._tables), {}
        for kind in needed:
            self._table(kind, device)

    def split(self, rows: Tensor) -> Sequence[Tensor]:
        """Cut the bank's rows into matrices, in half precision padded with zeros.

        Parameters
        ----------
        rows : torch.Tensor of shape (m, w)
            The bank's rows.

        Returns
        -------
        sequence of torch.Tensor of shape (r, w)
            In half precision `r` is rounded up to a multiple of 16.
        """
        if rows.element_size() > 2:
            return torch.split(rows, self.sizes)
        padded = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        return torch.split(
            padded.index_select(0, self._table("blocks", rows.device)),
            [_round_up(r) for r in self.sizes],
        )

    def matrices(self, rows: Tensor) -> Tensor:
        """Stack the bank's matrices, padded with zero rows to one rank.

        Parameters
        ----------
        rows : torch.Tensor of shape (m, w)
            The bank's rows.

        Returns
        -------
        torch.Tensor of shape (k, r, w)
        """
        # Made even if unused, as at equal ranks: `lay_out` then rebuilds it, which a
        # later step would have to do otherwise.
        index = self._table("stack", rows.device)
        if len(set(self.sizes)) == 1:
            return rows.view(len(self.sizes), self.sizes[0], self.width)
        padded = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        # Not `padded[index]`, whose backward sorts the index on a GPU.
        return padded.index_select(0, index).view(len(self.sizes), -1, self.width)

    def _table(self, kind: str, device: torch.device) -> Tensor:
        """Return a constant tensor that depends on the ranks only, from the cache.

        If it were made on the host at each step, the device would have to wait.

        Parameters
        ----------
        kind : {"blocks", "stack", "identities"}
            "blocks": the index of the row at each position of what `split` returns;
            "stack": likewise for `matrices`; "identities": an identity for each of
            these matrices, of shape (k, r, r), 0 where a row is padding.
        device : torch.device
            Where it is needed.
        """
        table = self._tables.get(kind)
        if table is None or table.device != device:
            with torch.inference_mode(False):  # training steps may use it later
                table = self._make_table(kind).to(device)
            self._tables[kind] = table
        return table

    def _make_table(self, kind: str) -> Tensor:
        if kind == "blocks":
            return _padded_index(self.sizes, [_round_up(r) for r in self.sizes])
        longest = max(self.sizes)
        stack = _padded_index(self.sizes, [longest] * len(self.sizes))
        if kind == "stack":
            return stack
        is_row = stack < sum(self.sizes)
        return torch.diag_embed(is_row.view(len(self.sizes), longest).float())

    def orthogonality(self) -> Tensor:
        """Sum ``||M M^T - I||_F`` over the bank's matrices, at least in float32.

        Returns
        -------
        torch.Tensor of shape ()
        """
        if not self.rows.shape[0]:
            return self.rows.sum()
        exact = torch.promote_types(self.rows.dtype, torch.float)
        identity = self._table("identities", self.rows.device).to(exact)
        kind = self.rows.device.type
        with torch.autocast(kind, enabled=False) if autocasts(kind) else nullcontext():
            matrices = self.matrices(self.rows.to(exact))  # (k, r, w)
            total: Tensor = _Deviation.apply(matrices, identity)
            return total


class _Deviation(torch.autograd.Function):
    """Sum of ``||M M^T - I||_F`` over matrices M.

    Its gradient is ``2 (M M^T - I) M / ||M M^T - I||_F``: one product, where autograd
    would compute two and add them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        matrices: Tensor,  # (k, r, w)
        identity: Tensor,  # (k, r, r), 0 where a row is padding
    ) -> Tensor:
        gap = torch.baddbmm(identity, matrices, matrices.mT, beta=-1)  # (k, r, r)
        norms: Tensor = torch.linalg.matrix_norm(gap)  # (k,)
        ctx.save_for_backward(matrices, gap, norms)
        return norms.sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        refuse_second_derivatives()
        matrices, gap, norms = ctx.saved_tensors
        tiny = torch.finfo(norms.dtype).tiny  # where the norm is 0, so is the gap
        # Divide first: a gradient that a GradScaler has enlarged, divided by `tiny`,
        # would overflow.
        unit = gap / norms.clamp_min(tiny).view(-1, 1, 1)  # (k, r, r)
        return torch.bmm(unit * (2 * gradient), matrices), None


def pad_rank(rows: Tensor) -> Tensor:
    """Pad one matrix as `RowBank.split` does, which may have cut its other side."""
    if rows.element_size() > 2:
        return rows
    return F.pad(rows, (0, 0, 0, _round_up(len(rows)) - len(rows)))


def _padded_index(sizes: Sequence[int], widths: Sequence[int]) -> Tensor:
    """Return the row index of each position in padded matrices.

    At padding, it is that of one more row, after the last.
    """
    blank = sum(sizes)
    rows = torch.split(torch.arange(blank), list(sizes))
    padded = zip(rows, widths, strict=True)
    return torch.cat([F.pad(r, (0, w - len(r)), value=blank) for r, w in padded])


def _round_up(rank: int) -> int:
    return -(-rank // _BLOCK) * _BLOCK

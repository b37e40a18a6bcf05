"""Where the adapter's numbers live: one bank of rows per width.

Update of a layer: ``left.T @ diag(singular_values) @ right``. A *triplet* is one row
of `left` (a column of the paper's P), one singular value and one row of `right` (a
row of Q). The rows of all layers that share a width are one parameter, so an adapter
of a BERT is five tensors, however deep the model is.

Life of the rows
----------------
A layer computes with its own rows, which are cut from the banks:

- the forward pass of the model, or of a part that is called by itself, begins: all
  layers are handed their rows at once, if any needs them;
- a layer is called alone, outside of such a pass, or has no rows: they are handed out
  anew, since the parameters may have changed;
- the backward pass calls a layer again, for gradient checkpointing: it uses the rows
  that it has, as in the forward pass; but if what began that pass is called again, the
  rows were made within the checkpoint, and are made anew;
- the forward pass of the model ends: the rows stay, for such a backward pass;
- other numbers are loaded (`load`), triplets deleted (`keep`), or a layer is copied or
  pickled: the rows are dropped.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .layers import SVDLinear

INIT_STD = 0.02

# In half precision, ranks are padded to multiples of this: on a CPU, a kernel is
# compiled for each shape, and kept in memory; tensor cores are fast only at multiples
# of 8.
_BLOCK = 16

# Dimensions: n = triplets of the model, m = rows of a bank, w = width of a bank,
# k = matrices in a bank, r = rank of one matrix.


class Factors(NamedTuple):
    """The numbers of one layer's update, of rank r."""

    left: Tensor  # (r, out)
    values: Tensor  # (r,), the singular values
    right: Tensor  # (r, in)


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
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        matrices, gap, norms = ctx.saved_tensors
        tiny = torch.finfo(norms.dtype).tiny  # where the norm is 0, so is the gap
        # Divide first: a gradient that a GradScaler has enlarged, divided by `tiny`,
        # would overflow.
        unit = gap / norms.clamp_min(tiny).view(-1, 1, 1)  # (k, r, r)
        return torch.bmm(unit * (2 * gradient), matrices), None


class RowBank(nn.Module):
    """The rows of all updates that have one width, layer after layer.

    Parameters
    ----------
    width : int
        Length of a row.
    layers : sequence of int
        Positions of the layers that own the rows.
    ranks : sequence of int
        Rank of every layer of the model.
    """

    triplets: Tensor  # (m,) the triplet that each row belongs to

    def __init__(self, width: int, layers: Sequence[int], ranks: Sequence[int]):
        super().__init__()
        self.layers = list(layers)
        # float32, whatever the precision of the frozen weights or torch's default.
        rows = torch.zeros(sum(ranks[i] for i in self.layers), width, dtype=torch.float)
        self.rows = nn.Parameter(rows)  # (m, w)
        self.register_buffer("triplets", torch.empty(0).long(), persistent=False)
        # Cache of `_table`, by kind.
        self._tables: dict[str, Tensor] = {}
        self.lay_out(ranks)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.lay_out(self._ranks)  # `to_empty` leaves no numbers in the indices
        return self

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
        self._ranks = list(ranks)
        self.sizes = [ranks[i] for i in self.layers]
        of_layers = torch.split(torch.arange(sum(ranks), device=device), list(ranks))
        self.triplets = torch.cat([of_layers[i] for i in self.layers])
        self.holds_all = len(self.triplets) == sum(ranks)
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
                table = self._tables[kind] = self._make_table(kind).to(device)
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
        identity = self._table("identities", self.rows.device)
        with torch.autocast(self.rows.device.type, enabled=False):
            matrices = self.matrices(self.rows.to(exact))  # (k, r, w)
            total: Tensor = _Deviation.apply(matrices, identity.to(exact))  # type: ignore[no-untyped-call]
            return total


class Triplets(nn.Module):
    """The trained numbers of all updates: two lists of banks, and one vector.

    Parameters
    ----------
    layers : sequence of SVDLinear
        The adapted layers, in the order of the model. Their `rank` says how many
        triplets each gets.
    scale : float
        Factor by which every update is multiplied.
    """

    singular_values: nn.Parameter  # (n,)

    def __init__(self, layers: Sequence[SVDLinear], scale: float) -> None:
        super().__init__()
        self._remember(layers)
        self.scale = scale
        self.left = self._banks([layer.out_features for layer in layers])
        self.right = self._banks([layer.in_features for layer in layers])
        values = torch.zeros(sum(self.ranks), dtype=torch.float)
        self.singular_values = nn.Parameter(values)
        # The module whose forward pass is running. In a tuple, so that torch does not
        # register it as a submodule.
        self._outermost: tuple[nn.Module] | None = None
        # The modules whose last forward pass was not inside that of another one.
        self._began: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        for layer in layers:
            layer.borrow_from(self)

    def _banks(self, widths: Sequence[int]) -> nn.ModuleList:
        return nn.ModuleList(
            RowBank(width, [i for i, w in enumerate(widths) if w == width], self.ranks)
            for width in sorted(set(widths))
        )

    def _remember(self, layers: Sequence[SVDLinear]) -> None:
        """Keep weak references to the layers.

        The layers refer to this module. With strong references back, a model that is
        not used any more would stay in memory, with its frozen weights, until Python
        collects reference cycles.
        """
        self._references = [weakref.ref(layer) for layer in layers]

    @property
    def _layers(self) -> list[SVDLinear]:
        return cast("list[SVDLinear]", [known() for known in self._references])

    def __getstate__(self) -> dict[str, Any]:
        # Weak references can be neither copied nor pickled.
        state = {**self.__dict__, "_references": self._layers, "_outermost": None}
        del state["_began"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._remember(state["_references"])
        self._began = weakref.WeakSet()

    @property
    def ranks(self) -> list[int]:
        """Rank of each layer."""
        return [layer.rank for layer in self._layers]

    @property
    def banks(self) -> list[RowBank]:
        """Left banks, then right banks."""
        return cast("list[RowBank]", [*self.left, *self.right])

    def _sides(self) -> Iterator[list[RowBank]]:
        for side in (self.left, self.right):
            yield cast("list[RowBank]", list(side))

    def initialise(
        self, zero_update: bool = True, generator: torch.Generator | None = None
    ) -> None:
        """Initialise rows and singular values for training.

        Parameters
        ----------
        zero_update : bool, default=True
            Rows from N(0, 0.02), singular values 0. False draws everything from
            N(0, 1), for tests.
        generator : torch.Generator or None, default=None
            Source of randomness, on any device. None uses the global one.
        """
        std = INIT_STD if zero_update else 1.0
        with torch.no_grad():
            for bank in self.banks:
                bank.rows.copy_(_draw(bank.rows.shape, generator) * std)
            if not zero_update:
                shape = self.singular_values.shape
                self.singular_values.copy_(_draw(shape, generator))

    def before_forward(self, module: nn.Module, *_: Any) -> None:
        """Hand out the rows when the forward pass of a model begins: a pre-hook."""
        running = self._outermost
        if _in_backward():  # checkpointing: do what the forward pass did
            begins = module in self._began
        else:
            # When a KeyboardInterrupt ends a forward pass, torch calls no forward hook,
            # and `_outermost` stays set. So a module that is not inside it begins.
            begins = running is None or not _is_inside(module, running[0])
            (self._began.add if begins else self._began.discard)(module)
        if begins:
            if any(layer.needs_rows for layer in self._layers):
                self.hand_out()
            self._outermost = (module,)

    def after_forward(self, module: nn.Module, *_: Any) -> None:
        """Note that the forward pass of a model has ended: a forward hook.

        The rows stay, because gradient checkpointing calls layers again in the backward
        pass.
        """
        running = self._outermost
        if running is not None and running[0] is module:
            self._outermost = None

    def refresh(self, layer: SVDLinear) -> None:
        """Hand out the rows anew if a layer is called alone, or has none.

        Alone is outside of a model's forward pass, and of a backward pass.
        """
        alone = self._outermost is None and not _in_backward()
        if alone or layer.right is None:
            self.hand_out()

    def hand_out(self) -> None:
        """Give every layer its rows, in the precision that it computes in.

        This takes one product and one cast per bank; the backward of the split is one
        concatenation.
        """
        weights = self.singular_values * self.scale  # (n,)
        layers = self._layers
        left, right = self._sides()
        for bank in right:
            own = weights if bank.holds_all else weights.index_select(0, bank.triplets)
            receivers = [layers[i] for i in bank.layers]
            parts = _split(bank, bank.rows * own.unsqueeze(1), receivers)
            for layer, part in zip(receivers, parts, strict=True):
                layer.right = part
        for bank in left:
            receivers = [layers[i] for i in bank.layers]
            parts = _split(bank, bank.rows, receivers)
            for layer, part in zip(receivers, parts, strict=True):
                layer.left = part

    def orthogonality(self) -> Tensor:
        """Average ``||M M^T - I||_F`` over all left and right matrices.

        Returns
        -------
        torch.Tensor of shape ()
        """
        total = torch.stack([bank.orthogonality() for bank in self.banks]).sum()
        return total / (2 * len(self._references))

    def per_layer(self) -> list[Factors]:
        """Return the triplets of each layer.

        Views of the stored numbers, without gradient, singular values and scale
        not multiplied in.
        """
        left: dict[int, Tensor] = {}
        right: dict[int, Tensor] = {}
        for rows, banks in zip((left, right), self._sides(), strict=True):
            for bank in banks:
                parts = torch.split(bank.rows.detach(), bank.sizes)
                rows.update(zip(bank.layers, parts, strict=True))
        values = torch.split(self.singular_values.detach(), self.ranks)
        return [Factors(left[i], values[i], right[i]) for i in range(len(values))]

    def deltas(self) -> Iterator[Tensor]:
        """Multiply out the update of each layer.

        Yields
        ------
        torch.Tensor of shape (out, in)
        """
        for left, values, right in self.per_layer():
            # In float32, also where the caller computes by autocast.
            with torch.autocast(left.device.type, enabled=False):
                delta = left.T @ (right * (values * self.scale).unsqueeze(1))
            yield delta

    def load(self, parts: Sequence[Factors]) -> None:
        """Load the triplets of all layers; ranks follow from the shapes.

        Parameters
        ----------
        parts : sequence of Factors
            As :meth:`per_layer` returns them. Parameters stay the same objects, and
            are written in place where no rank changes.
        """
        same = [len(part.values) for part in parts] == self.ranks
        with torch.no_grad():  # before anything changes, as it may fail
            values = torch.cat([part.values for part in parts])
            values = values.to(self.singular_values)
            rows = [
                torch.cat([getattr(parts[i], side) for i in bank.layers]).to(bank.rows)
                for side, banks in zip(("left", "right"), self._sides(), strict=True)
                for bank in banks
            ]
        self._outermost = None  # no pass is running; an interrupted one may have set it
        for layer, part in zip(self._layers, parts, strict=True):
            layer.rank = len(part.values)
            layer.forget_rows()
        with torch.no_grad():
            _store(self.singular_values, values)
            for bank, of_bank in zip(self.banks, rows, strict=True):
                _store(bank.rows, of_bank)
                if not same:
                    bank.lay_out(self.ranks)

    def keep(
        self, kept: Tensor, optimizers: Sequence[torch.optim.Optimizer] = ()
    ) -> None:
        """Delete all other triplets, and their share of the optimizers' state.

        Parameters stay the same objects, for whoever refers to them.

        Parameters
        ----------
        kept : torch.Tensor of shape (n,)
            Boolean.
        optimizers : sequence of torch.optim.Optimizer, default=()
            Their state shrinks with the parameters.

        Raises
        ------
        TypeError
            If the state of an optimizer cannot shrink; nothing is changed then.
        """
        for optimizer in optimizers:
            _check_shrinks(optimizer)
        if kept.all():
            return
        self._outermost = None  # as in `load`
        per_layer = torch.split(kept.cpu(), self.ranks)
        parameters = [self.singular_values, *(bank.rows for bank in self.banks)]
        chosen = [kept.nonzero().flatten()]
        for bank in self.banks:
            chosen.append(kept[bank.triplets].nonzero().flatten())
        for layer, flags in zip(self._layers, per_layer, strict=True):
            layer.rank = int(flags.sum())
            layer.forget_rows()
        for parameter, rows in zip(parameters, chosen, strict=True):
            for optimizer in optimizers:
                _shrink_state(optimizer, parameter, rows)
            _resize(parameter, parameter.data[rows])
        for bank in self.banks:
            bank.lay_out(self.ranks)


def _draw(shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    """Draw from N(0, 1) in float32 on the generator's device, not torch's defaults."""
    device = None if generator is None else generator.device
    return torch.randn(shape, generator=generator, dtype=torch.float, device=device)


def _in_backward() -> bool:
    # torch.compile cannot trace the question, and compiles forward passes only.
    compiles = torch.compiler.is_compiling()
    return not compiles and torch._C._current_graph_task_id() != -1


def _is_inside(module: nn.Module, outer: nn.Module) -> bool:
    """Tell whether `outer` holds `module`.

    Search level by level: a model that is called by others is near the top.
    """
    level, seen = {outer}, {outer}
    while level:
        level = {child for parent in level for child in parent.children()} - seen
        if module in level:
            return True
        seen |= level
    return False


def _split(
    bank: RowBank, rows: Tensor, layers: Sequence[SVDLinear]
) -> Sequence[Tensor]:
    """Cut rows into those of each layer, on its device and in its precision."""
    weights = [layer.weight for layer in layers]
    places = [(weight.device, _compute_dtype(weight)) for weight in weights]
    if len(set(places)) == 1:
        return bank.split(rows.to(*places[0]))
    parts = torch.split(rows, bank.sizes)
    return [_padded(part.to(*place)) for part, place in zip(parts, places, strict=True)]


def _padded(rows: Tensor) -> Tensor:
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


def _compute_dtype(weight: Tensor) -> torch.dtype:
    """Choose the precision in which a layer with this weight computes."""
    kind = weight.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    # A quantised layer, be it in float8, computes in the precision of its input;
    # float32 is safe.
    computes = weight.is_floating_point() and weight.itemsize > 1
    return weight.dtype if computes else torch.float32


def _check_shrinks(optimizer: torch.optim.Optimizer) -> None:
    kind = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError(
            "An optimizer must have a state for each parameter, which can shrink with "
            f"it. Got {kind}, which has one state for all parameters. Leave it out, "
            "and make a new one after `compact`."
        )
    if not hasattr(optimizer, "state"):
        raise TypeError(
            f"`compact` must be given optimizers. Got {kind}. Pass each optimizer as "
            "an argument of its own."
        )


def _shrink_state(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, rows: Tensor
) -> None:
    """Keep some rows of a parameter's state, before the parameter itself shrinks."""
    state = optimizer.state.get(parameter, {})
    for name, value in state.items():
        if isinstance(value, Tensor) and _is_per_row(name, value, parameter):
            state[name] = value[rows]


def _store(parameter: nn.Parameter, value: Tensor) -> None:
    """Write other numbers into a parameter, of any number of rows."""
    if value.shape == parameter.shape:
        parameter.copy_(value)
    else:
        _resize(parameter, value.to(parameter, copy=True))


def _resize(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a parameter a value of another shape."""
    parameter.grad = None
    # A graph that is still alive, as that of the last loss, would make the next one
    # expect gradients of the old shape. A change of type makes torch forget that.
    other = torch.float if parameter.dtype == torch.half else torch.half
    parameter.data = value.new_empty(0, dtype=other)
    parameter.data = value


def _is_per_row(name: str, value: Tensor, old: Tensor) -> bool:
    """Tell whether a tensor of the optimizer's state has one entry for each row."""
    if value.shape[:1] != old.shape[:1] or value.ndim > old.ndim:
        return False
    if value.ndim == old.ndim:
        sizes = zip(value.shape, old.shape, strict=True)
        return all(size in (full, 1) for size, full in sizes)
    # Adafactor has one number per row and one per column. In a square bank their shapes
    # are equal, and only the name tells them apart.
    return "col" not in name

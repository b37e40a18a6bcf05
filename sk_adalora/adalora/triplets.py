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
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .forward_passes import ForwardPasses, in_backward
from .layers import SVDLinear
from .products import autocasts
from .row_bank import RowBank, pad_rank

INIT_STD = 0.02

# Dimensions: n = triplets of the model, r = rank of one layer.


class Factors(NamedTuple):
    """The numbers of one layer's update, of rank r."""

    left: Tensor  # (r, out)
    values: Tensor  # (r,), the singular values
    right: Tensor  # (r, in)


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
        self._passes = ForwardPasses()
        for layer in layers:
            layer.refresh = self.refresh

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
        layers = [known() for known in self._references]
        if any(layer is None for layer in layers):
            raise RuntimeError(
                "All adapted layers of a model must be kept, as they share their "
                "numbers. Got a part of a model, or a copy of a part, without the "
                "others. Keep or copy the whole adapted model, or call `unload` or "
                "`merge_and_unload` before."
            )
        return cast("list[SVDLinear]", layers)

    def __getstate__(self) -> dict[str, Any]:
        # Weak references can be neither copied nor pickled.
        state = {**self.__dict__, "_references": self._layers}
        del state["_passes"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._remember(state["_references"])
        self._passes = ForwardPasses()

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
            Rows from N(0, 0.02²), singular values 0. False draws everything from
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
        if self._passes.begins(module):
            if any(layer.needs_rows for layer in self._layers):
                self.hand_out()
            self._passes.start(module)

    def after_forward(self, module: nn.Module, *_: Any) -> None:
        """Note that the forward pass of a model has ended: a forward hook.

        The rows stay, because gradient checkpointing calls layers again in the backward
        pass.
        """
        self._passes.end(module)

    def refresh(self, layer: SVDLinear) -> None:
        """Hand out the rows anew if a layer is called alone, or has none.

        Alone is outside of a model's forward pass, and of a backward pass.
        """
        alone = not self._passes.running and not in_backward()
        if alone or layer.right is None:
            self.hand_out()

    def hand_out(self) -> None:
        """Give every layer its rows, in the precision that it computes in.

        This takes one product and one cast per bank; the backward of the split is one
        concatenation.
        """
        weights = self.singular_values * self.scale  # (n,)
        layers = self._layers
        idle = self._are_zero()
        for layer in layers:
            layer.idle = idle
        left, right = self._sides()
        for bank in right:
            own = (
                weights if bank.holds_all else weights.index_select(0, bank.triplet_of)
            )
            receivers = [layers[i] for i in bank.positions]
            parts = _split(bank, bank.rows * own.unsqueeze(1), receivers)
            for layer, part in zip(receivers, parts, strict=True):
                layer.right = part
        for bank in left:
            receivers = [layers[i] for i in bank.positions]
            parts = _split(bank, bank.rows, receivers)
            for layer, part in zip(receivers, parts, strict=True):
                layer.left = part

    def _are_zero(self) -> bool:
        """Tell whether all updates are zero: layers compute the frozen one exactly.

        Only on a CPU, where layers may multiply by another library than torch does:
        elsewhere the host would have to wait for the answer.
        """
        values = self.singular_values
        if values.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        # A read of memory: torch would count it as the host waiting.
        return not values.detach().float().numpy().any()

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
                rows.update(zip(bank.positions, parts, strict=True))
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

    @torch.no_grad()
    def load(self, parts: Sequence[Factors]) -> None:
        """Load the triplets of all layers; ranks follow from the shapes.

        Parameters
        ----------
        parts : sequence of Factors
            As :meth:`per_layer` returns them. Parameters stay the same objects, and
            are written in place where no rank changes.
        """
        same = [len(part.values) for part in parts] == self.ranks
        # Before anything changes, as it may fail.
        values = torch.cat([part.values for part in parts]).to(self.singular_values)
        rows = [
            torch.cat([getattr(parts[i], side) for i in bank.positions]).to(bank.rows)
            for side, banks in zip(("left", "right"), self._sides(), strict=True)
            for bank in banks
        ]
        self._passes.stop()
        for layer, part in zip(self._layers, parts, strict=True):
            layer.rank = len(part.values)
            layer.forget_rows()
        numbers = (self.singular_values, *(bank.rows for bank in self.banks))
        for parameter, value in zip(numbers, (values, *rows), strict=True):
            if value.shape == parameter.shape:
                parameter.copy_(value)
            else:
                _resize(parameter, value)
        if not same:
            for bank in self.banks:
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
        if kept.all():
            return
        parameters = [self.singular_values, *(bank.rows for bank in self.banks)]
        for optimizer in optimizers:
            for parameter in parameters:
                _check_shrinks(optimizer, parameter)
        self._passes.stop()
        per_layer = torch.split(kept.cpu(), self.ranks)
        chosen = [kept.nonzero().flatten()]
        for bank in self.banks:
            chosen.append(kept[bank.triplet_of].nonzero().flatten())
        # Training may go on after inference mode, unless all was made within it.
        with torch.inference_mode(self.singular_values.is_inference()):
            # Before anything changes, as memory may run out.
            pairs = [*zip(parameters, chosen, strict=True)]
            values = [parameter.data[rows] for parameter, rows in pairs]
            states = [
                (state, {n: v[rows] for n, v in state.items() if _has_rows(v)})
                for parameter, rows in pairs
                for state in (one.state.get(parameter, {}) for one in optimizers)
            ]
            for layer, flags in zip(self._layers, per_layer, strict=True):
                layer.rank = int(flags.sum())
                layer.forget_rows()
            for state, shrunk in states:
                state.update(shrunk)
            for parameter, value in zip(parameters, values, strict=True):
                _resize(parameter, value)
            for bank in self.banks:
                bank.lay_out(self.ranks)


def _has_rows(value: Any) -> bool:
    """Tell whether a part of an optimizer's state is more than a number."""
    return isinstance(value, Tensor) and value.ndim > 0


def _check_shrinks(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    """Refuse a state of which no rows can be chosen as of the parameter."""
    values = optimizer.state.get(parameter, {}).values()
    if any(_has_rows(v) and v.shape != parameter.shape for v in values):
        raise TypeError(
            "The state of an optimizer must be as large as the parameters, to shrink "
            f"with them. Got {type(optimizer).__name__}, whose state holds rows and "
            "columns, or blocks. Leave it out, and make a new one after `compact`."
        )


def _resize(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a parameter a value of another shape, for whoever refers to it."""
    parameter.grad = None
    # A graph that is still alive, as that of the last loss, would make the next one
    # expect gradients of the old shape. A change of type makes torch forget that.
    other = torch.float if parameter.dtype == torch.half else torch.half
    parameter.data = value.new_empty(0, dtype=other)
    parameter.data = value


def _draw(shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    """Draw from N(0, 1) in float32 on the generator's device, not torch's defaults."""
    device = None if generator is None else generator.device
    return torch.randn(shape, generator=generator, dtype=torch.float, device=device)


def _split(
    bank: RowBank, rows: Tensor, layers: Sequence[SVDLinear]
) -> Sequence[Tensor]:
    """Cut rows into those of each layer, on its device and in its precision."""
    places = [
        (layer.base_layer.weight.device, _compute_dtype(layer)) for layer in layers
    ]
    if len(set(places)) == 1:
        return bank.split(rows.to(*places[0]))
    parts = torch.split(rows, bank.sizes)
    return [
        pad_rank(part.to(*place)) for part, place in zip(parts, places, strict=True)
    ]


def _compute_dtype(layer: SVDLinear) -> torch.dtype:
    """Choose the precision in which a layer computes."""
    weight: Tensor = layer.base_layer.weight
    kind = weight.device.type
    # Autocast leaves products in float64 alone.
    if autocasts(kind) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    if weight.is_floating_point() and weight.itemsize > 1:
        return weight.dtype
    # A quantised layer, be it in float8, computes in the precision of its input, which
    # some tell; float32 is safe.
    told = getattr(layer.base_layer, "compute_dtype", None)
    return told if isinstance(told, torch.dtype) else torch.float32

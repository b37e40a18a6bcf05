"""Several processes that share one fit: the ranks of torch's process group."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class _Fault:
    """What a rank tells the others of the error that ended its part."""

    rank: int
    name: str
    message: str

    def as_error(self, count: int) -> Exception:
        """Return an error of the same type, where Python has it; say where it arose."""
        where = f"rank {self.rank} of {count}"
        kind = getattr(builtins, self.name, None)
        # A KeyboardInterrupt of another process is none of this one.
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(f"{self.message} This is what {where} raised.")
            except TypeError:  # such as UnicodeDecodeError, of five values
                pass
        return RuntimeError(f"What {where} raised: {self.name}: {self.message}")


@dataclass(frozen=True)
class Ranks:
    """The processes that share a fit; by default this one alone.

    Every method that takes a function is called on all ranks alike. If the function
    raises on one of them, all of them raise. What runs between two such calls gives the
    same on each rank. A rank that fails there closes its connections, so that the
    others fail too, and do not wait.

    Parameters
    ----------
    rank, count : int
        The number of this process, from 0 on, and how many there are.
    group : torch.distributed.ProcessGroup or None
        A group of this fit's own, through which they talk.
    """

    rank: int = 0
    count: int = 1
    group: Any = field(default=None, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this process reads, decides and writes for all."""
        return self.rank == 0

    def from_first(
        self,
        function: Callable[[], _Value],
        sent: Callable[[_Value], Any] | None = None,
    ) -> _Value:
        """Call a function on rank 0; return its value, or what is `sent` of it."""
        if self.count == 1:
            return function()
        value: Any = None
        error, told = None, None
        if self.is_first:
            value, error = _try(function)
            if error is None:
                told = value if sent is None else sent(value)
        parcel: list[Any] = [told, self._fault(error)]
        with self._connected():
            dist.broadcast_object_list(parcel, src=0, group=self.group)
        self._raise(error, parcel[1:])
        received: _Value = value if self.is_first else parcel[0]
        return received

    def on_first(self, function: Callable[[], _Value]) -> _Value | None:
        """Call a function on rank 0 alone; return None elsewhere."""
        return self.from_first(function, sent=lambda value: None)

    def gather(self, function: Callable[[], _Value]) -> list[_Value]:
        """Call a function on each rank; return the values of all."""
        if self.count == 1:
            return [function()]
        value, error = _try(function)
        parcels: list[Any] = [None] * self.count
        with self._connected():
            dist.all_gather_object(
                parcels, (value, self._fault(error)), group=self.group
            )
        self._raise(error, [fault for _, fault in parcels])
        return [of_rank for of_rank, _ in parcels]

    def together(self, function: Callable[[], _Value]) -> _Value:
        """Call a function on each rank; return this rank's value."""
        if self.count == 1:
            return function()
        kept: list[_Value] = []
        self.gather(lambda: kept.append(function()))
        return kept[0]

    def of_rows(
        self, n_rows: int, compute: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Compute an array of each row, on each rank for its share of the rows.

        Parameters
        ----------
        n_rows : int
            Number of rows, at least one.
        compute : callable
            From positions of shape (m,), returns an array of shape (m, ...).

        Returns
        -------
        ndarray of shape (n_rows, ...)
            Of all rows.
        """
        if self.count == 1:
            return compute(np.arange(n_rows))
        mine = np.arange(self.rank, n_rows, self.count)
        parts = self.gather(lambda: compute(mine) if len(mine) else None)
        of_first = parts[0]
        assert of_first is not None, "the first row is rank 0's"
        whole = np.empty((n_rows, *of_first.shape[1:]), of_first.dtype)
        for rank, part in enumerate(parts):
            if part is not None:
                whole[rank :: self.count] = part
        return whole

    def add_up(
        self,
        parameters: Sequence[Tensor],
        backward: Callable[[], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """Add up the gradients that all ranks compute, in a single exchange.

        Parameters
        ----------
        parameters : sequence of torch.Tensor
            What has gradients, the same on each rank.
        backward : callable
            Adds this rank's gradients, and returns two numbers, as tensors.

        Returns
        -------
        tuple of two torch.Tensor of shape ()
            The two numbers, added up over the ranks.
        """
        if self.count == 1:
            return backward()
        numbers, error = _try(backward)
        like = parameters[0]
        numbers = numbers or (like.new_zeros(()), like.new_zeros(()))
        # Which gradients there are, and whether something was raised: known to the
        # host, which need not wait for a device to tell it.
        known = [error is not None, *(p.grad is not None for p in parameters)]
        told = torch.tensor(known, dtype=like.dtype)
        numbers_sent = [number.detach().reshape(1).to(like.dtype) for number in numbers]
        flat = torch.cat(
            [
                *((p if p.grad is None else p.grad).reshape(-1) for p in parameters),
                *numbers_sent,
            ]
        ).detach()
        for piece, parameter in zip(_cut(flat, parameters), parameters, strict=False):
            if parameter.grad is None:
                piece.zero_()
        with self._connected():
            if like.device.type == "cpu":
                flat = torch.cat([flat, told])
                dist.all_reduce(flat, group=self.group)
                flat, told = flat.split([len(flat) - len(told), len(told)])
            else:
                dist.all_reduce(told, group=self.group)
        if told[0] > 0:
            self.gather(lambda: _raise_again(error))
        if like.device.type != "cpu":
            flat = self._add_on_device(flat)
        pieces = _cut(flat, parameters)
        for parameter, piece, present in zip(
            parameters, pieces, told[1:].tolist(), strict=True
        ):
            parameter.grad = piece.view_as(parameter) if present else None
        first, second = flat[-2:]
        return first, second

    def _add_on_device(self, flat: Tensor) -> Tensor:
        """Add up on the devices where the user's group can, else on the hosts."""
        with self._connected():
            if f"{flat.device.type}:" in str(dist.get_backend_config()):
                dist.all_reduce(flat)
                return flat
            on_host = flat.cpu()
            dist.all_reduce(on_host, group=self.group)
            return on_host.to(flat.device)

    def _fault(self, error: BaseException | None) -> _Fault | None:
        if error is None:
            return None
        return _Fault(self.rank, type(error).__name__, str(error))

    def _raise(
        self, error: BaseException | None, faults: Sequence[_Fault | None]
    ) -> None:
        """Raise this rank's own error, or else the first of another rank."""
        if error is not None:
            raise error
        for fault in faults:
            if fault is not None:
                raise fault.as_error(self.count)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).partition(". This is")[0].strip()
            raise RuntimeError(
                "A fit on several ranks needs all of them until it ends. Got a broken "
                f"connection on rank {self.rank} of {self.count}: another rank was "
                "killed, lacked memory, or raised an error of its own; see what it "
                "printed. Start all of them again: with `checkpoint_dir`, the fit goes "
                f"on from its last checkpoint. ({reason})"
            ) from error


ALONE = Ranks()
# The ranks of the fit that runs in this thread; None outside of fits.
_current: ContextVar[Ranks | None] = ContextVar("ranks", default=None)
# Two fits at once would take each other's messages.
_shared = threading.Lock()


def ranks_now() -> Ranks:
    """Return the ranks that share the fit that runs now."""
    return _current.get() or ALONE


@contextmanager
def alone() -> Iterator[None]:
    """Have fits in a `with` block run in this process alone."""
    with _as_current(ALONE):
        yield


@contextmanager
def shared_fit() -> Iterator[Ranks]:
    """Share a fit among all ranks of torch's process group, if there is one.

    A fit inside of another one has the ranks of that. Where rank 0 alone does
    something, a fit in it runs there alone.
    """
    inside = _current.get()
    if inside is not None or not _joined():
        with _as_current(inside or ALONE):
            yield inside or ALONE
        return
    if not _shared.acquire(blocking=False):
        raise RuntimeError(
            "One fit at a time can be shared by the ranks of a process group. Got "
            "another in a thread of the same process. Fit one after the other, with "
            "n_jobs=1."
        )
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    try:
        with ranks._connected():
            group = dist.new_group(backend="gloo")
        ranks = Ranks(ranks.rank, ranks.count, group)
        try:
            with _as_current(ranks):
                yield ranks
        finally:
            # Whoever waits for a rank that failed gets an error at once.
            dist.destroy_process_group(group)
    finally:
        _shared.release()


@contextmanager
def _as_current(ranks: Ranks) -> Iterator[None]:
    before = _current.set(ranks)
    try:
        yield
    finally:
        _current.reset(before)


def _joined() -> bool:
    """Tell whether the program has joined a process group of several ranks."""
    return is_joined() and dist.get_world_size() > 1


def is_joined() -> bool:
    """Tell whether the program has joined a process group."""
    return dist.is_available() and dist.is_initialized()


def _try(
    function: Callable[[], _Value],
) -> tuple[_Value | None, BaseException | None]:
    """Return what a function gives, or what it raises; a fit in it runs alone."""
    try:
        with alone():
            return function(), None
    except BaseException as error:
        return None, error


def _raise_again(error: BaseException | None) -> None:
    if error is not None:
        raise error


def _cut(flat: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Cut the gradients of parameters out of a tensor that ends with two numbers."""
    return flat[:-2].split([p.numel() for p in parameters])

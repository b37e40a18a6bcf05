"""A fit that can be killed: its state in a file, from which the same fit goes on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sk_adalora.adalora.untrusted import check_header
from sk_adalora.runtime.digest import digest, is_compared
from sk_adalora.runtime.messages import warn_user, write_lines
from sk_adalora.training.epochs import Interpolation, ScoreWatcher
from sk_adalora.training.loop import Progress, Saver, TrainingHistory, TrainingRun
from sk_adalora.training.schedule_steps import ResolvedSchedule

from .versions import FORMAT

# A file is written each second, or after so many times what writing takes if that is
# more: a fit then takes at most a hundredth longer.
_SECONDS, _TIMES_WRITING = 1.0, 100
_STEPS = ("loss", "orthogonality", "learning_rate", "budget", "score")
_RANKS = ("ranks", "rank_steps")  # whole numbers
_SHOWN = 60  # characters of a value in a message
WHOLE = "fit"  # the name of a fit to all rows


def name_of_fold(number: int) -> str:
    """Return the name of a fit to the rows of a fold."""
    return f"fold-{number}"


class Checkpoint(Saver):
    """Writes the state of a training now and then, and puts it back.

    Parameters
    ----------
    folder : Path or None
        Where to write; None writes nothing.
    name : str, default="fit"
        Of the file, among those of other trainings of the same fit.
    verbose : int, default=0
        Whether to say where a training goes on.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str = WHOLE,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self.path = None if folder is None else folder / f"{name}.safetensors"
        self.verbose = verbose
        self.described: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self._written_at, self._writing, self._warned = time.perf_counter(), 0.0, False

    @property
    def found(self) -> bool:
        """Whether there is a state to go on from."""
        return bool(self.tensors)

    def open(self, parts: Mapping[str, Any]) -> None:
        """Read the file, if there is one; refuse that of another fit.

        Parameters
        ----------
        parts : mapping of str to JSON values
            What the result depends on, as `parts_of_fit` returns it.
        """
        self.described = {"format": FORMAT, "parts": dict(parts)}
        if self.path is None or not self.path.exists():
            return
        described, tensors = read_checkpoint(self.path)
        _check_same(described["parts"], parts, self.path)
        self.described, self.tensors = described, tensors

    def after_step(self, run: TrainingRun) -> None:
        """Write the state, if it is time to."""
        if self.path is not None and self._is_due(run):
            self._write(run)

    # Set before a training: they are part of its state.
    generator: torch.Generator
    interpolation: Interpolation
    watcher: ScoreWatcher | None

    def restore(
        self,
        run: TrainingRun,
        generator: torch.Generator,
        interpolation: Interpolation,
        watcher: ScoreWatcher | None = None,
    ) -> None:
        """Put the state back that was read, if any; note what belongs to it."""
        self.generator, self.interpolation = generator, interpolation
        self.watcher = watcher
        if not self.found:
            return
        try:
            self.progress = _restore(self, run)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise _broken(self.path, error) from error
        self.tensors = {}
        run.differ_in_dropout()
        if self.verbose and run.ranks.is_first:
            write_lines(
                f"going on at step {run.step} of {run.recipe.total_step}, from "
                f"{str(self.path)!r}"
            )

    def _is_due(self, run: TrainingRun) -> bool:
        if run.step == run.recipe.total_step:
            return True
        period = max(_SECONDS, _TIMES_WRITING * self._writing)
        return time.perf_counter() - self._written_at >= period

    def _write(self, run: TrainingRun) -> None:
        """Replace the file once the new one is complete; where it fails, warn once."""
        assert self.path is not None, "there is a folder to write to"
        start = time.perf_counter()
        state, tensors = _capture(self, run)
        said = json.dumps({**self.described, **state})
        metadata = {"fit": said, "checksum": _checksum(said, tensors)}
        beside = self.path.with_suffix(".new")
        try:
            with open(beside, "wb") as file:
                file.write(save(tensors, metadata))
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.path)
        except OSError as error:  # such as a full disk
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            if not self._warned:
                last = "stays" if self.path.exists() else "is still to be written"
                warn_user(
                    "`checkpoint_dir` must be a folder with room for the state of the "
                    f"fit. Got {error.strerror} at {str(self.path)!r}. The fit goes "
                    f"on, and the last checkpoint {last}: make room, and the next "
                    "one is written."
                )
            self._warned = True
        self._written_at = time.perf_counter()
        self._writing = self._written_at - start


# ---- what a fit is -----------------------------------------------------------


def parts_of_fit(
    estimator: Any,
    run: TrainingRun,
    *,
    held_out: Any,
    before: Any,
    model: str,
    seed: int,
) -> dict[str, Any]:
    """Return what the result of a training depends on: values, and hashes of data.

    Parameters
    ----------
    estimator : estimator
        What is fitted.
    run : TrainingRun
        The training, with its rows.
    held_out : tuple of X and y, or None
        The rows to validate on.
    before : AdapterState or None
        What `warm_start` goes on from.
    model : str
        Hash of the pretrained model's weights.
    seed : int
        What the fit started from.
    """
    given = estimator.get_params(deep=False)
    if not isinstance(given["random_state"], int | np.integer):
        del given["random_state"]
    tokens, examples = run.examples.tokens, run.examples
    weights = None if examples.weights is None else examples.weights.numpy()
    arrays = (tokens.ids, tokens.starts, tokens.stops, tokens.text_of, tokens.type_ids)
    return {
        "parameters": {
            name: _plain(value) for name, value in given.items() if is_compared(name)
        },
        "X": joblib.hash(arrays),
        "y": joblib.hash((examples.targets.numpy(), estimator._targets.to_state())),
        "sample_weight": joblib.hash(weights),
        "X_val and y_val": digest(held_out),
        "the weights of the pretrained model": model,
        "the fit before, by warm_start": joblib.hash(before and before.arrays),
        "seed": seed,
    }


def stored_seed(checkpoint_dir: Any, *, given: bool = False) -> int | None:
    """Return what the fit in a folder started from; None where there is none.

    Of a fit that was `given` its seed, that.
    """
    if checkpoint_dir is None:
        return None
    path = Path(os.path.expanduser(checkpoint_dir)) / f"{WHOLE}.safetensors"
    if not path.exists():
        return None
    parts = _describe(path)["parts"]
    seed = parts["parameters"].get("random_state") if given else parts["seed"]
    return None if seed is None else int(seed)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    plain = isinstance(value, str | int | float | None)
    return value if plain else {"hash": digest(value)}


def _check_same(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuse the checkpoint of another fit, and say what differs."""
    named = [(name, "parameters") for name in now["parameters"]]
    named += [(name, "") for name in now if name not in ("parameters", "seed")]
    differing = []
    for name, group in named:
        before, here = (all[group] if group else all for all in (then, now))
        old, new = before.get(name), here[name]
        if old != new:
            readable = group and dict not in (type(old), type(new))
            shown = f" ({_short(old)}, now {_short(new)})" if readable else ""
            differing.append(f"{name}{shown}")
    if differing:
        raise ValueError(
            "A fit must go on with what it began with: the checkpoint in "
            f"`checkpoint_dir` is of a fit with other values. Got {str(path)!r}, "
            f"which differs in: {', '.join(differing)}. Pass the same again, choose "
            "another folder, or delete the file to start anew."
        )


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


# ---- its state ---------------------------------------------------------------


def _capture(
    checkpoint: Checkpoint, run: TrainingRun
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the state of a training as JSON values and tensors."""
    progress, head = checkpoint.progress, run.network.head
    history = progress.history
    allocator = run.allocator.state_dict()
    assert progress.shuffled_by is not None, "an epoch has begun"
    tensors = {f"network.{n}": t for n, t in run.network.state_dict().items()}
    if (centre := getattr(head, "centre", None)) is not None:
        tensors["head.centre"] = centre
    for i, parameter in enumerate(run.parameters):
        for name, value in run.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{i}.{name}"] = value
    tensors |= {f"allocator.{n}": allocator.pop(n) for n in ("kept", "reached")}
    for i, pair in enumerate(allocator.pop("averages") or ()):
        tensors |= {f"average.{i}.{k}": value for k, value in enumerate(pair)}
    starts = checkpoint.interpolation.start
    tensors |= {f"start.{i}": start for i, start in enumerate(starts)}
    tensors["shuffled_by"] = progress.shuffled_by
    for name, generator in _generators(run).items():
        tensors[name] = generator.get_state()
    tensors |= _lists(progress)
    watcher = checkpoint.watcher
    if watcher is not None and watcher.best is not None:
        tensors |= {f"best.{name}": value for name, value in watcher.best.items()}
    state = {
        "step": run.step,
        "schedule": dict(vars(run.schedule)),
        "rates": run.scheduler.get_last_lr(),
        "scaler": run.scaler.state_dict(),
        "allocator": allocator,
        "length": getattr(head, "length", None),
        "epochs": history.epochs,
        "best_epoch": history.best_epoch,
        "seconds": history.seconds,
        "waited": 0 if watcher is None else watcher.waited,
        "best_score": 0.0 if watcher is None else watcher.best_score,
    }
    return state, {name: _own(value) for name, value in tensors.items()}


def _lists(progress: Progress) -> dict[str, Tensor]:
    """Return what is kept of each step and each allocation."""
    progress.read_ranks()
    lists = {}
    for name in ("losses", "penalties"):
        numbers: list[Tensor] = getattr(progress, name)
        lists[name] = torch.stack(numbers) if numbers else torch.empty(0)
    for name in (*_STEPS, *_RANKS):
        kind = torch.int64 if name in _RANKS else torch.float64
        values = getattr(progress.history, name)
        lists[f"history.{name}"] = torch.tensor(values, dtype=kind)
    return lists


def _own(value: Tensor) -> Tensor:
    """Copy a tensor to the CPU: safetensors refuses those that share memory."""
    return value.detach().to("cpu", copy=True).contiguous()


def _restore(checkpoint: Checkpoint, run: TrainingRun) -> Progress:
    """Put back what `_capture` returned."""
    state, tensors = checkpoint.described, dict(checkpoint.tensors)
    device = run.compute.device
    if run.limit is not None:
        run.replan(ResolvedSchedule(**state["schedule"]))
    run.network.load_state_dict(_named(tensors, "network."))
    if "head.centre" in tensors:
        run.network.head.set_scale(tensors["head.centre"], state["length"])
    _restore_optimizer(run, state, tensors)
    averages = [
        (tensors[f"average.{i}.0"], tensors[f"average.{i}.1"])
        for i in range(sum(name.startswith("average.") for name in tensors) // 2)
    ]
    flags = {name: tensors[f"allocator.{name}"] for name in ("kept", "reached")}
    run.allocator.load_state_dict(
        {**state["allocator"], **flags, "averages": averages or None}
    )
    for i, start in enumerate(checkpoint.interpolation.start):
        start.copy_(tensors[f"start.{i}"])
    checkpoint.generator.set_state(tensors["shuffled_by"])
    for name, generator in _generators(run).items():
        generator.set_state(tensors[name])
    history = TrainingHistory(
        **{n: tensors[f"history.{n}"].tolist() for n in (*_STEPS, *_RANKS)},
        epochs=state["epochs"],
        best_epoch=state["best_epoch"],
        seconds=state["seconds"],
    )
    history.budget = [int(budget) for budget in history.budget]
    if (watcher := checkpoint.watcher) is not None:
        watcher.waited, watcher.best_score = state["waited"], state["best_score"]
        watcher.best = _named(tensors, "best.", device) or None
    losses, penalties = (
        list(tensors[name].to(device)) for name in ("losses", "penalties")
    )
    return Progress(history, losses, penalties, shuffled_by=tensors["shuffled_by"])


def _restore_optimizer(
    run: TrainingRun, state: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Put back the optimizer's averages, the learning rates and the step."""
    kept: dict[int, dict[str, Tensor]] = {}
    for i, parameter in enumerate(run.parameters):
        kept[i] = of_one = _named(tensors, f"optimizer.{i}.")
        for name, value in of_one.items():
            if value.numel() > 1 and value.shape != parameter.shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)}")
    groups = run.optimizer.state_dict()["param_groups"]
    for group, rate in zip(groups, state["rates"], strict=True):
        group["lr"] = rate
    run.optimizer.load_state_dict(
        {"state": {i: s for i, s in kept.items() if s}, "param_groups": groups}
    )
    run.step = state["step"]
    run.scheduler.load_state_dict(
        {
            **run.scheduler.state_dict(),
            "last_epoch": run.step,
            "_step_count": run.step + 1,
            "_last_lr": state["rates"],
        }
    )
    if run.scaler.is_enabled():
        run.scaler.load_state_dict(state["scaler"])


def _generators(run: TrainingRun) -> dict[str, torch.Generator]:
    return {f"dropout.{i}": g for i, g in enumerate(run.dropout_generators())}


def _named(
    tensors: Mapping[str, Tensor], prefix: str, device: Any = "cpu"
) -> dict[str, Tensor]:
    """Return the tensors whose names begin so, by the rest of the names."""
    return {
        name.removeprefix(prefix): value.to(device)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


# ---- its file ----------------------------------------------------------------


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what a fit wrote."""
    described = _describe(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata()
        if metadata["checksum"] != _checksum(metadata["fit"], tensors):
            raise ValueError("its numbers have changed")
    except (KeyError, ValueError, SafetensorError) as error:
        raise _broken(path, error) from error
    return described, tensors


def _checksum(said: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.blake2b(said.encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    """Return what is no tensor in a checkpoint."""
    try:
        check_header(path)
        with safe_open(path, "pt") as file:
            described = json.loads(file.metadata()["fit"])
        if described["format"] != FORMAT:
            raise ValueError(f"format {described['format']}")
        if not isinstance(described["parts"]["parameters"], dict):
            raise TypeError("no parameters")
        int(described["parts"]["seed"])
    except (KeyError, TypeError, ValueError, OverflowError, SafetensorError) as error:
        raise _broken(path, error) from error
    return dict(described)


def _broken(path: Path | None, error: Exception) -> ValueError:
    return ValueError(
        "`checkpoint_dir` must hold a checkpoint that this version wrote. Got "
        f"{str(path)!r}, which is broken or of another version: {error}. Delete it to "
        "start anew."
    )


def remove_checkpoints(checkpoint_dir: Any) -> None:
    """Delete what a fit wrote that has ended; the folder too, if it is empty then."""
    if checkpoint_dir is None:
        return
    folder = Path(os.path.expanduser(checkpoint_dir))
    for name in (WHOLE, "fold-*"):
        for suffix in ("safetensors", "new"):  # the latter of a writer that was killed
            for path in folder.glob(f"{name}.{suffix}"):
                path.unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it
        folder.rmdir()


@contextmanager
def sole_fit(checkpoint_dir: Any) -> Iterator[Path | None]:
    """Make the folder of checkpoints, for one fit at a time.

    It goes again if nothing has been written to it.
    """
    if checkpoint_dir is None:
        yield None
        return
    folder = Path(os.path.expanduser(checkpoint_dir))
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileExistsError(
            f"`checkpoint_dir` must be a folder. Got the file {str(folder)!r}. Choose "
            "another."
        ) from None
    try:
        with _locked(folder):
            yield folder
    finally:
        if is_new:
            with suppress(OSError):  # something is in it
                folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            flock(handle, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                "`checkpoint_dir` must be of one fit at a time. Got "
                f"{str(folder)!r}, which another fit writes to now. Give each its own "
                "folder; AdaLoraSearchCV does so for its fits."
            ) from None
        yield
    finally:
        os.close(handle)

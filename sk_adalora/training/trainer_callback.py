"""AdaLoRA in the training loop of transformers' `Trainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sk_adalora.adalora import AdaLoraModel

_FILE = "allocator.pt"  # beside the Trainer's own optimizer.pt
_VALUES = "singular_values"


class AdaLoraCallback(TrainerCallback):
    """Train an adapted model with the `Trainer` of transformers.

    In each optimizer step, it adds the orthogonality penalty to the gradients and
    allocates the ranks. Each checkpoint gets the adapter in the files of PEFT, and the
    state of the allocator, with which a resumed training goes on as if it had not been
    interrupted. When training ends, the ranks are final, and the adapter is saved in
    ``output_dir``, unless ``save_strategy="no"``.

    Logged losses are those of the model, without the penalty.

    Examples
    --------
    >>> from sk_adalora import AdaLoraCallback
    >>> callback = AdaLoraCallback()  # for Trainer(model, ..., callbacks=[callback])
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **others: Any,
    ) -> None:
        """Check the model and its schedule, and resume the allocator.

        Parameters
        ----------
        args : transformers.TrainingArguments
            The Trainer's settings.
        state : transformers.TrainerState
            Where the training is.
        control : transformers.TrainerControl
            Not used.
        model : AdaLoraModel
            The adapted model.
        **others : dict
            Not used.

        Raises
        ------
        TypeError
            If the model is not adapted.
        ValueError
            If the schedule is longer than the training.
        FileNotFoundError
            If a training is resumed, and its checkpoint is not found.
        """
        if not isinstance(model, AdaLoraModel):
            raise TypeError(
                "The Trainer's `model` must be an AdaLoraModel. Got "
                f"{type(model).__name__}. Adapt it with `get_peft_model` first."
            )
        total_step = model.allocator.schedule.total_step
        if total_step > state.max_steps and not model.allocator.finished:
            raise ValueError(
                "`total_step` of the AdaLoraConfig must be at most the number of the "
                f"Trainer's optimizer steps, which is {state.max_steps}. Got "
                f"{total_step}. Set `total_step={state.max_steps}`."
            )
        if state.global_step:
            name = f"checkpoint-{state.global_step}"
            places = [Path(str(args.output_dir), name)]
            if isinstance(args.resume_from_checkpoint, str):
                places.insert(0, Path(args.resume_from_checkpoint))
            _resume(model, places)

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **others: Any,
    ) -> None:
        """Give parameters the gradient of the penalty, to which the loss adds its own.

        Parameters
        ----------
        args : transformers.TrainingArguments
            Not used.
        state : transformers.TrainerState
            Not used.
        control : transformers.TrainerControl
            Not used.
        model : AdaLoraModel
            The adapted model.
        optimizer : accelerate.optimizer.AcceleratedOptimizer or None, default=None
            Says by what the loss is multiplied in float16.
        **others : dict
            Not used.
        """
        # Before the first part of a step, and not after the last: so it is clipped
        # together with the loss, as if it were in it.
        penalty = model.orthogonality_loss()
        scaler = getattr(optimizer, "scaler", None)
        (penalty if scaler is None else scaler.scale(penalty)).backward()

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **others: Any,
    ) -> None:
        """Allocate the ranks, while the gradients of the step are there.

        Parameters
        ----------
        args : transformers.TrainingArguments
            Not used.
        state : transformers.TrainerState
            Where the training is.
        control : transformers.TrainerControl
            Not used.
        model : AdaLoraModel
            The adapted model.
        **others : dict
            Not used.
        """
        model.update_and_allocate(state.global_step)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **others: Any,
    ) -> None:
        """Add the adapter and the state of the allocator to a checkpoint.

        Parameters
        ----------
        args : transformers.TrainingArguments
            The Trainer's settings.
        state : transformers.TrainerState
            Where the training is.
        control : transformers.TrainerControl
            Not used.
        model : AdaLoraModel
            The adapted model.
        **others : dict
            Not used.
        """
        if args.should_save:
            folder = _just_written(args, state)
            model.save_pretrained(folder)
            stored = model.allocator.state_dict() | {_VALUES: _values(model)}
            torch.save(stored, folder / _FILE)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **others: Any,
    ) -> None:
        """Make the ranks final, also of a training that was stopped, and save them.

        Parameters
        ----------
        args : transformers.TrainingArguments
            The Trainer's settings.
        state : transformers.TrainerState
            Says which checkpoint was the best.
        control : transformers.TrainerControl
            Not used.
        model : AdaLoraModel
            The adapted model.
        **others : dict
            Not used.
        """
        best = state.best_model_checkpoint
        if args.load_best_model_at_end and best is not None:
            _resume(model, [Path(best)])  # the Trainer has loaded its weights
        model.allocator.finish()
        model.allocator.zero_pruned()
        if args.should_save and args.save_strategy != "no":
            model.save_pretrained(str(args.output_dir))


def _values(model: AdaLoraModel) -> torch.Tensor:
    return model.triplets.singular_values.detach().cpu().clone()


def _resume(model: AdaLoraModel, places: list[Path]) -> None:
    """Load the allocator of the checkpoint whose weights the Trainer has loaded."""
    for folder in places:
        if (folder / _FILE).is_file():
            # On the CPU, as the Trainer may be on a machine without the device.
            stored = torch.load(folder / _FILE, map_location="cpu", weights_only=True)
            if torch.equal(stored.pop(_VALUES), _values(model)):
                model.allocator.load_state_dict(stored)
                return
    raise FileNotFoundError(
        f"A checkpoint must hold {_FILE!r}, which this callback writes, with the "
        f"singular values that the Trainer has loaded. Got none in {str(places[0])!r}. "
        "If the checkpoint is elsewhere, set `resume_from_checkpoint` of "
        "TrainingArguments to its folder."
    )


def _just_written(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder of the checkpoint that the Trainer has just written."""
    name, folder = f"checkpoint-{state.global_step}", Path(str(args.output_dir))
    if not state.is_hyper_param_search:
        return folder / name
    # Each trial has a folder, whose name callbacks are not told.
    return max(folder.glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)


# Where users import it from.
AdaLoraCallback.__module__ = "sk_adalora"

"""A model whose linear layers are adapted with AdaLoRA."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.utils.hooks import RemovableHandle

from .allocator import RankAllocator
from .config import AdaLoraConfig
from .layer_matching import match_layers
from .layer_replacement import (
    check_adaptable,
    entries,
    replace_modules,
    stop_fused_layers,
)
from .layers import SVDLinear
from .messages import warn_user
from .modules_to_save import TrainedCopies, called_alike, copied_paths
from .peft_format import PREFIX, select_triplets, write_adapter
from .triplets import Factors, Triplets
from .wrapper import Wrapper


def get_peft_model(
    model: nn.Module,
    config: AdaLoraConfig,
    *,
    generator: torch.Generator | None = None,
) -> AdaLoraModel:
    """Adapt a model with AdaLoRA, in place.

    Parameters
    ----------
    model : torch.nn.Module
        Any model with linear layers. All its parameters are frozen.
    config : AdaLoraConfig
        Which layers get an update, and the schedule of ranks.
    generator : torch.Generator or None, default=None
        Source of randomness for the first values of updates, and for dropout. None uses
        the global one.

    Returns
    -------
    AdaLoraModel
        A wrapper around the model, which is called like it.

    Raises
    ------
    TypeError
        If `config` is not an :class:`AdaLoraConfig`, if `model` is not a
        :class:`torch.nn.Module`, or if it is adapted or compiled already.
    ValueError
        If no layer matches `target_modules`, if a name in `modules_to_save` matches
        none, if `rank_pattern` lacks an adapted layer, or if a layer does not hold its
        weight.

    Examples
    --------
    >>> import torch
    >>> from sk_adalora import AdaLoraConfig, get_peft_model
    >>> base = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> config = AdaLoraConfig(init_r=4, target_r=2, total_step=10)
    >>> model = get_peft_model(base, config)
    >>> model.print_trainable_parameters()
    trainable params: 112 || all params: 202 || trainable%: 55.4455
    """
    return AdaLoraModel(model, config, generator=generator)


class AdaLoraModel(Wrapper):
    """A frozen model with trained low-rank updates of its linear layers.

    :func:`get_peft_model` makes it. Attributes that it does not have itself, such as
    `generate` and `generation_config`, are those of the wrapped model, read and set
    there.

    Parameters
    ----------
    model : torch.nn.Module
        The model to adapt. It is changed in place.
    config : AdaLoraConfig
        Which layers get an update, and the schedule of ranks.
    generator : torch.Generator or None, default=None
        Source of randomness for the first values of updates, and for dropout. None uses
        the global one.

    Attributes
    ----------
    model : torch.nn.Module
        The wrapped model.
    peft_config : AdaLoraConfig
        The configuration.
    adapted : dict of str to SVDLinear
        The adapted layers, by path.
    triplets : Triplets
        All trained numbers of the updates.
    allocator : RankAllocator
        What measures importance, and removes rank.

    Notes
    -----
    **Gradient checkpointing** is exact with ``use_reentrant=False``, where what is
    checkpointed lies inside a module that is called as a whole. Between a forward pass
    and its backward pass, call a checkpointed part in one way only, and run nothing in
    ``torch.inference_mode`` (under autocast: nothing without gradients). Selective
    checkpointing must not save products, and ``allow_cache_entry_mutation`` gives wrong
    gradients. With ``use_reentrant=True``, torch stops, or the adapter gets no
    gradients.

    **Several processes.** Wrap the adapted model in ``DistributedDataParallel``, and
    anew after `compact`; leave `find_unused_parameters` off. FSDP around the whole
    model fails: ``fully_shard`` each frozen layer instead, and average the gradients of
    what is trained in the loop. ``torch.distributed.checkpoint`` takes ``{"model":
    model, "allocator": model.allocator}``, before `compact`.

    **Several devices.** Each layer is adapted on its device, and the penalty is on that
    of the first. Layers that accelerate has offloaded cannot be adapted.

    **Other loops.** With Lightning, call `update_and_allocate` after
    ``super().optimizer_step``; save the state of the allocator in
    `on_save_checkpoint`, and load it in `on_train_start`. No other thread may run the
    model during a step: gradients would be wrong.

    Examples
    --------
    >>> import torch
    >>> from sk_adalora import AdaLoraConfig, AdaLoraModel
    >>> base = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> config = AdaLoraConfig(init_r=4, target_r=2, total_step=10)
    >>> model = AdaLoraModel(base, config)
    >>> model(torch.ones(3, 8)).shape
    torch.Size([3, 2])
    >>> model.ranks
    {'0': 4, '1': 4}
    """

    _own = frozenset({"model", "peft_config", "adapted", "triplets", "allocator"})

    def __init__(
        self,
        model: nn.Module,
        config: AdaLoraConfig,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_arguments(model, config)
        layers = match_layers(model, config)
        ranks = _initial_ranks(layers, config)
        copied = copied_paths(model, config)  # fails before anything is changed
        check_adaptable(model, [*layers], copied)
        self.model = model
        self.peft_config = config
        self.adapted: dict[str, SVDLinear] = {}
        for path, layer in layers.items():
            self.adapted[path] = SVDLinear(
                layer, ranks[path], config.lora_dropout, generator
            )
        self.triplets = Triplets(list(self.adapted.values()), config.scale)
        self.triplets.initialise(bool(config.init_lora_weights), generator)
        self.triplets.to(next(iter(self.adapted.values())).base_layer.weight.device)
        schedule = config.schedule(len(ranks))
        self.allocator = RankAllocator(
            self.triplets, schedule, config.beta1, config.beta2
        )
        _start(self.allocator, config)
        self._n_missing = 0
        self.register_load_state_dict_post_hook(_forgive_children)
        self._copies = TrainedCopies(model, copied)  # the last that may lack memory
        model.requires_grad_(False)
        replace_modules(model, {a.base_layer: a for a in self.adapted.values()})
        self._unfused = stop_fused_layers(model)
        self._copies.use(trained=True)
        if config.inference_mode:
            self.requires_grad_(False)
        self._hooks: list[RemovableHandle] = []
        before, after = self.triplets.before_forward, self.triplets.after_forward
        for entry in entries(model):
            self._hooks.append(entry.register_forward_pre_hook(before))
            self._hooks.append(entry.register_forward_hook(after, always_call=True))
        # Of the model's signature, as `transformers.Trainer` keeps the columns that it
        # names. Not bound to this object, which no circle of references must hold.
        call = partial(model)
        call.__wrapped__ = model.forward  # type: ignore[attr-defined]
        self.forward = call  # type: ignore[method-assign]

    # ---- forward ------------------------------------------------------------

    def forward(self, *args: Any, labels: Any = None, **kwargs: Any) -> Any:
        """Call the wrapped model.

        Parameters
        ----------
        *args : tuple
            What the wrapped model takes.
        labels : object, default=None
            Passed on unless it is None. `transformers.Trainer` looks for the names of
            labels in this signature.
        **kwargs : dict
            What the wrapped model takes, by name.

        Returns
        -------
        object
            What it returns.
        """
        given = kwargs if labels is None else {**kwargs, "labels": labels}
        return self.model(*args, **given)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for layer in self.adapted.values():
            layer.forget_rows()  # whose graph holds the tensors as they were
        super()._apply(fn, recurse)
        self._copies.apply_outside(fn)
        self.allocator.to(self.triplets.singular_values.device)
        return self

    # ---- training -----------------------------------------------------------

    def replan(self, **steps: Any) -> None:
        """Change the schedule of a training that goes on, to end it sooner or later.

        Before ranks fall, all steps may change. After that, change `tfinal` and
        `total_step` by the same number.

        Parameters
        ----------
        **steps : int
            New values of `tinit`, `tfinal`, `deltaT` and `total_step`, as in
            :class:`AdaLoraConfig`.

        Raises
        ------
        ValueError
            If they leave no step for reducing the ranks.
        """
        config = replace(self.peft_config, **steps)
        self.allocator.replan(config.schedule(len(self.adapted)))
        self.peft_config = config

    def orthogonality_loss(self) -> Tensor:
        """Return the penalty that keeps the directions of updates orthogonal.

        Add it to the loss once for each optimizer step.

        Returns
        -------
        torch.Tensor of shape ()
            ``orth_reg_weight`` times the average ``||M M^T - I||_F`` over all left and
            right matrices.
        """
        return self.peft_config.orth_reg_weight * self.triplets.orthogonality()

    def update_and_allocate(self, global_step: int) -> int:
        """Update the importance of each unit of rank, and remove rank when it is time.

        Call it after ``optimizer.step()`` and before ``zero_grad()``. Of skipped steps,
        the allocation is caught up, and gradients are not. A repeated step changes
        nothing. Unless you call `compact`, call this until training ends: pruned
        triplets train on, and this sets their singular values back to 0.

        Parameters
        ----------
        global_step : int
            The optimizer step that was just taken, counted from 0.

        Returns
        -------
        int
            The total rank that is left, which is the number of live triplets.

        Raises
        ------
        RuntimeError
            If there are no gradients at the first step, while ranks are not final.
        """
        if self.allocator.last_step < 0 and not self.allocator.finished:
            self._check_gradients()
        return self.allocator.update_and_allocate(global_step)

    def _check_gradients(self) -> None:
        """Refuse a first step without gradients; warn of layers that got none."""
        trained = [p for p in self.triplets.parameters() if p.requires_grad]
        if trained and all(p.grad is None for p in trained):
            raise RuntimeError(
                "`update_and_allocate` needs the gradients of the step. Got an adapter "
                "without any. Call it before `zero_grad`, and `unmerge` before you "
                "train; with the Trainer of transformers, use `AdaLoraCallback`."
            )
        values = self.triplets.singular_values
        gradient = torch.zeros_like(values) if values.grad is None else values.grad
        parts = self._by_layer(gradient.ne(0).cpu())
        unused = [path for path, part in parts.items() if not part.any()]
        if trained and unused:
            warn_user(
                f"{len(unused)} adapted layers got no gradient in the first step: "
                f"{', '.join(unused[:8])}. They count as unimportant. Leave them out "
                "of `target_modules` if the loss does not depend on them, or if the "
                "model reads their weights without calling them."
            )

    def _check_allocated(self) -> None:
        """Warn of a trained adapter that still has all its rank, by an oversight."""
        untouched = self.allocator.last_step < 0 and not self.allocator.finished
        starts_at_zero = bool(self.peft_config.init_lora_weights)
        if untouched and starts_at_zero and self.triplets.singular_values.any():
            warn_user(
                "The ranks of a trained adapter must be allocated. Got one that has "
                "all its rank, and whose `update_and_allocate` was never called. Call "
                "it after each optimizer step; with the Trainer of transformers, add "
                "`AdaLoraCallback()`."
            )

    def compact(self, *optimizers: torch.optim.Optimizer) -> None:
        """Delete pruned triplets for good, once ranks are final.

        This makes the rest of the training smaller and faster. Outputs stay the same
        if `update_and_allocate` has followed the last step of the optimizer.
        The penalty falls, because it no longer has the deleted rows: with
        `orth_reg_weight` above 0, the steps after it are not those of a model that
        keeps them. Parameters stay the same objects, of a smaller shape and without
        gradients: a wrapper that synchronises processes must be made again. Where
        nothing was pruned, nothing changes.

        Parameters
        ----------
        *optimizers : torch.optim.Optimizer
            All optimizers that train the adapter. Their state shrinks with the
            parameters, and would not fit them otherwise.

        Raises
        ------
        RuntimeError
            If ranks are not final yet.
        TypeError
            If the state of an optimizer is not as large as the parameters, as that of
            Adafactor, or of optimizers in 8 bits; nothing is changed then. Make these
            anew after `compact`, and so wrappers with a state of their own.
        """
        self.allocator.compact(*optimizers)

    # ---- what it holds ------------------------------------------------------

    @property
    def base_model(self) -> AdaLoraModel:
        """This object, for programs that ask PEFT's `base_model` to allocate."""
        return self

    def get_base_model(self) -> nn.Module:
        """Return the wrapped model, as PEFT does.

        Returns
        -------
        torch.nn.Module
            The attribute `model`.
        """
        return self.model

    @property
    def ranks(self) -> dict[str, int]:
        """The rank that is left in each adapted layer, by its path."""
        kept = self._by_layer(self.allocator.kept.cpu())
        return {path: int(flags.sum()) for path, flags in kept.items()}

    def _by_layer(self, flags: Tensor) -> dict[str, Tensor]:
        """Cut what is known of all triplets, of shape (n,), by the paths of layers."""
        parts = torch.split(flags, self.triplets.ranks)
        return dict(zip(self.adapted, parts, strict=True))

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Go through all parameters that are trained: of updates and of copies.

        Yields
        ------
        tuple of (str, torch.nn.Parameter)
            Name of a parameter, and the parameter itself.
        """
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Count the numbers that are trained, and all numbers.

        Returns
        -------
        tuple of (int, int)
            How many numbers are trained, and how many there are.
        """
        return self.num_parameters(only_trainable=True), self.num_parameters()

    def num_parameters(
        self, only_trainable: bool = False, exclude_embeddings: bool = False
    ) -> int:
        """Count numbers, as models of transformers do.

        Parameters
        ----------
        only_trainable : bool, default=False
            Whether to count only what is trained.
        exclude_embeddings : bool, default=False
            Whether to leave out what embeds tokens.

        Returns
        -------
        int
            How many there are.
        """
        tables = [m.weight for m in self.modules() if isinstance(m, nn.Embedding)]
        left_out = set(map(id, tables)) if exclude_embeddings else set()
        return sum(
            p.numel()
            for p in self.parameters()
            if id(p) not in left_out and (p.requires_grad or not only_trainable)
        )

    def print_trainable_parameters(self) -> None:
        """Print how many numbers are trained, and how many there are."""
        trained, total = self.get_nb_trainable_parameters()
        sys.stdout.write(
            f"trainable params: {trained:,d} || all params: {total:,d} || "
            f"trainable%: {100 * trained / total:.4f}\n"
        )

    def state_dict(  # type: ignore[override]
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Tensor]:
        """Return the adapter alone, under PEFT's names, as copies.

        Parameters
        ----------
        destination : dict or None, default=None
            Dict to add the numbers to. None makes a new one.
        prefix : str, default=""
            What stands before each name.
        keep_vars : bool, default=False
            For compatibility with torch. It has no effect: copies have no gradients.

        Returns
        -------
        dict of str to torch.Tensor
            ``lora_A`` (r, in), ``lora_B`` (out, r) and ``lora_E`` (r, 1) of each layer,
            and what `modules_to_save` trains.
        """
        collected: dict[str, Tensor] = {} if destination is None else destination
        layers = zip(self.adapted, self.triplets.per_layer(), strict=True)
        for path, (left, values, right) in layers:
            start = f"{prefix}{PREFIX}{path}."
            collected[start + "lora_A"] = right.clone()
            contiguous = torch.contiguous_format
            collected[start + "lora_B"] = left.T.clone(memory_format=contiguous)
            collected[start + "lora_E"] = values.unsqueeze(1).clone()
        for path, tensor in self._copies.named_tensors():
            collected[prefix + PREFIX + path] = tensor.detach().clone()
        return collected

    def load_state_dict(  # type: ignore[override]
        self, state_dict: Mapping[str, Tensor], strict: bool = True
    ) -> _IncompatibleKeys:
        """Load an adapter that `state_dict` returned; ranks follow from the shapes.

        Merged weights are dropped, and the allocation starts anew: to continue an
        earlier one, load the state of the allocator afterwards, that of the same step.
        Parameters and allocator stay the same objects.

        Parameters
        ----------
        state_dict : mapping of str to torch.Tensor
            An adapter of the same model, at full or at pruned rank. If ranks change,
            the state of an optimizer does not fit any more: load that of the same
            step, or make a new optimizer.
        strict : bool, default=True
            Whether missing and unknown names, other than those of layers, are an error.

        Returns
        -------
        (missing_keys, unexpected_keys)
            Lists of names, as torch returns them; empty if `strict`.

        Raises
        ------
        ValueError
            If a layer is missing, if a shape does not fit, or if a rank is above
            `init_r`; nothing is changed then.
        """
        rest = dict(state_dict)
        factors = [self._take_factors(rest, path) for path in self.adapted]
        own = {PREFIX + path: tensor for path, tensor in self._copies.named_tensors()}
        missing = sorted(own.keys() - rest.keys())
        unknown = sorted(rest.keys() - own.keys())
        if strict and (missing or unknown):
            raise ValueError(
                "The adapter must hold what the model trains. Missing: "
                f"{missing[:5]}. Unknown: {unknown[:5]}. Check the base model and "
                "`modules_to_save`. What PEFT may adapt or save beside linear layers, "
                "such as embeddings, tokens and convolutions, is not read: train "
                "without it."
            )
        pairs = {name: (own[name], rest[name]) for name in own if name in rest}
        for name, (tensor, stored) in pairs.items():
            if tensor.shape != stored.shape:
                raise ValueError(
                    f"{name!r} must have shape {tuple(tensor.shape)}. Got "
                    f"{tuple(stored.shape)}. Check that the model has as many labels "
                    "as the adapter."
                )
        # Training may go on after inference mode, unless all was made within it.
        within = self.triplets.singular_values.is_inference()
        with torch.inference_mode(within), torch.no_grad():
            self.triplets.load(factors)
            self.unmerge()
            for tensor, stored in pairs.values():
                tensor.copy_(stored)
            _start(self.allocator, self.peft_config)
        return _IncompatibleKeys(missing, unknown)

    def _take_factors(self, state: dict[str, Tensor], path: str) -> Factors:
        """Take the factors of a layer out of a state; refuse those that do not fit."""
        try:
            right, left, values = (
                state.pop(f"{PREFIX}{path}.lora_{kind}") for kind in "ABE"
            )
        except KeyError as error:
            raise ValueError(
                f"The adapter must hold {error.args[0]!r}. Got no such tensor. Check "
                "that it belongs to this model and these `target_modules`."
            ) from None
        layer, rank = self.adapted[path], values.numel()
        expected = ((rank, layer.in_features), (layer.out_features, rank), (rank, 1))
        shapes = (tuple(right.shape), tuple(left.shape), tuple(values.shape))
        if shapes != expected:
            raise ValueError(
                f"The factors of {path!r} must have shapes "
                f"{', '.join(map(str, expected))}. Got {', '.join(map(str, shapes))}. "
                "Check that the adapter belongs to this model."
            )
        init_r = self.peft_config.init_r
        if rank > init_r:  # the scale would be another one
            raise ValueError(
                f"`init_r`={init_r} must be that of the adapter. Got rank {rank} for "
                f"{path!r}. Adapt the model with the `init_r` that the adapter was "
                "trained with."
            )
        return Factors(left.T, values.flatten(), right)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load the adapter from the state dict of a module that contains this one."""
        found = {
            name.removeprefix(prefix): value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        missing: list[str] = []
        unexpected: list[str] = []
        if not found:
            missing = [*self.state_dict()]
        else:
            try:
                missing, unexpected = self.load_state_dict(found, strict=False)
            except ValueError as error:
                error_msgs.append(str(error))
        missing_keys += [prefix + name for name in missing]
        unexpected_keys += [prefix + name for name in unexpected]
        self._n_missing = len(missing_keys)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        save_function: Any = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write the adapter alone, in the files of PEFT, as `save_adapter` does.

        Parameters
        ----------
        save_directory : path-like
            The folder that gets ``adapter_config.json`` and
            ``adapter_model.safetensors``.
        is_main_process : bool, default=True
            Whether to write anything: of several processes, one must.
        state_dict : mapping of str to torch.Tensor or None, default=None
            The numbers to write, such as an average of several states. None stands for
            `state_dict()`, whose names and shapes they must have.
        save_function : object, default=None
            Not used. accelerate's programs pass one.
        safe_serialization : bool, default=True
            Not used: nothing but safetensors is written.
        """
        if is_main_process:
            write_adapter(save_directory, *self._to_write(state_dict))

    def _to_write(
        self, state_dict: Mapping[str, Tensor] | None = None
    ) -> tuple[AdaLoraConfig, dict[str, Tensor]]:
        """Return the configuration and the numbers that a file of this adapter holds.

        Parameters
        ----------
        state_dict : mapping of str to torch.Tensor or None, default=None
            The numbers. None stands for `state_dict()`.

        Returns
        -------
        config : AdaLoraConfig
            A copy, which names the base model also where the user did not, and modules
            to save by whole paths, which PEFT cannot mistake.
        tensors : dict of str to torch.Tensor
            Without pruned triplets whose singular value is 0.
        """
        self._check_allocated()
        config = copy.copy(self.peft_config)
        name = getattr(self.model, "name_or_path", None)
        if config.base_model_name_or_path is None and name and isinstance(name, str):
            config.base_model_name_or_path = name
        state = self.state_dict() if state_dict is None else state_dict
        kept = self.allocator.kept
        values = [state[f"{PREFIX}{path}.lora_E"].flatten() for path in self.adapted]
        chosen = kept | (torch.cat(values).to(kept.device) != 0)
        tensors = select_triplets(state, self._by_layer(chosen))
        if config.modules_to_save:
            saved = self._copies.paths
            alike = called_alike(self.model, saved)
            config.modules_to_save = saved + alike
            for path in alike:
                numbers = self.model.get_submodule(path).state_dict()
                tensors |= {f"{PREFIX}{path}.{n}": t for n, t in numbers.items()}
        return config, tensors

    # ---- merging ------------------------------------------------------------

    def merge(self, safe_merge: bool = True) -> None:
        """Add the updates to copies of the weights, so that outputs cost nothing extra.

        Frozen weights are kept beside them: `unmerge` undoes this exactly.

        Parameters
        ----------
        safe_merge : bool, default=True
            Whether merged weights with NaN or infinity are an error.

        Raises
        ------
        ValueError
            If `safe_merge` and a merged weight is not finite; nothing is merged.
        TypeError
            If the frozen weights are quantised, or if the class of a layer does more
            than to multiply by its weight and to add its bias; nothing is merged.
        """
        self._check_allocated()
        layers = list(self.adapted.values())
        try:
            for layer, delta in zip(layers, self.triplets.deltas(), strict=True):
                if layer.rank:
                    layer.merge(delta, check=safe_merge)
        except BaseException:  # also when memory runs out
            self.unmerge()
            raise

    def unmerge(self) -> None:
        """Drop the merged weights. The frozen ones were never changed."""
        for layer in self.adapted.values():
            layer.merged_weight = None

    merge_adapter, unmerge_adapter = merge, unmerge  # PEFT's names

    def merge_and_unload(self, safe_merge: bool = True) -> nn.Module:
        """Return the plain model, with the updates merged into new weights.

        Parameters
        ----------
        safe_merge : bool, default=True
            Whether merged weights with NaN or infinity are an error.

        Returns
        -------
        torch.nn.Module
            The wrapped model. Do not use this object any more.

        Raises
        ------
        ValueError
            If `safe_merge` and a merged weight is not finite; nothing is changed.
        TypeError
            If the frozen weights are quantised, or if the class of a layer does more
            than to multiply by its weight and to add its bias; nothing is merged.
        """
        self.merge(safe_merge)
        for layer in self.adapted.values():
            if layer.merged_weight is not None:
                merged = nn.Parameter(layer.merged_weight, requires_grad=False)
                layer.base_layer.weight = merged
        return self._taken_apart()

    def unload(self) -> nn.Module:
        """Return the plain model as it was before, frozen.

        Returns
        -------
        torch.nn.Module
            The wrapped model. Do not use this object any more.
        """
        self._copies.use(trained=False)
        return self._taken_apart()

    def _taken_apart(self) -> nn.Module:
        layers = self.adapted.values()
        replace_modules(self.model, {layer: layer.base_layer for layer in layers})
        for module, name, value in self._unfused:
            setattr(module, name, value)
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        return self.model

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Run the pretrained model in a `with` block, as if it were not adapted.

        Yields
        ------
        None
        """
        before = self._copies.in_use  # False inside another such block
        try:
            self._switch(on=False)
            yield
        finally:
            self._switch(on=before)

    def _switch(self, on: bool) -> None:
        for layer in self.adapted.values():
            layer.enabled = on
        for module, name, value in self._unfused:
            setattr(module, name, 0 if on else value)
        self._copies.use(trained=on)


def _check_arguments(model: Any, config: Any) -> None:
    if not isinstance(config, AdaLoraConfig):
        kind = f"{type(config).__module__}.{type(config).__name__}"
        raise TypeError(
            f"`config` must be an AdaLoraConfig of sk_adalora. Got a {kind}. Other "
            "methods are peft's."
        )
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"`model` must be a torch.nn.Module. Got {type(model).__name__}. Pass the "
            "model itself."
        )
    if type(model).__name__ == "OptimizedModule":  # its class is slow to import
        raise TypeError(
            "`model` must be adapted before it is compiled. Got what `torch.compile` "
            "returns. Adapt the model that you gave it, and compile the result."
        )
    if any(isinstance(m, AdaLoraModel | SVDLinear) for m in model.modules()):
        raise TypeError(
            "`model` must not be adapted already. Got a model with adapted layers. "
            "Call `unload` or `merge_and_unload` first."
        )


def _initial_ranks(paths: Iterable[str], config: AdaLoraConfig) -> dict[str, int]:
    """Return rank by layer: `init_r`, or what a stored pattern says."""
    if config.rank_pattern is None:
        return dict.fromkeys(paths, config.init_r)
    ranks = {}
    for path in paths:
        pattern = config.rank_pattern.get(f"{path}.lora_E")
        if pattern is None:
            raise ValueError(
                "`rank_pattern` must name every adapted layer. Got none for "
                f"{path!r}. Check that `target_modules` is the one of training."
            )
        if len(pattern) != config.init_r:
            raise ValueError(
                f"`rank_pattern` must hold `init_r`={config.init_r} flags a layer. "
                f"Got {len(pattern)} for {path!r}. Set `init_r` as in training."
            )
        ranks[path] = sum(bool(flag) for flag in pattern)
    return ranks


def _start(allocator: RankAllocator, config: AdaLoraConfig) -> None:
    """Let an allocator start anew, with the triplets that there are now.

    It has finished already if ranks are below `init_r`, or a `rank_pattern` is given.
    """
    ranks = allocator.triplets.ranks
    schedule, living = config.schedule(len(ranks)), sum(ranks)
    final = living != schedule.initial or config.rank_pattern is not None
    if final:
        schedule = replace(schedule, initial=living, target=living)
    allocator.schedule = schedule
    allocator.reset()
    allocator.finished = final


def _forgive_children(model: nn.Module, keys: _IncompatibleKeys) -> None:
    """Remove the names that torch reports as missing for submodules.

    `_load_from_state_dict` has listed all that the adapter lacks.
    """
    assert isinstance(model, AdaLoraModel)
    del keys.missing_keys[model._n_missing :]


# Where users import them from, so that pickles do not name this file.
AdaLoraModel.__module__ = get_peft_model.__module__ = "sk_adalora"

"""Load a pretrained encoder once per process, and share its frozen weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn

from sk_adalora.runtime.devices import Compute
from sk_adalora.runtime.digest import digest
from sk_adalora.runtime.threads import lock_of

from .find import Found, Request, find_again, find_folder, forget_found, request
from .read import (
    CannotComputeError,
    Pretrained,
    TrialResult,
    read_module,
    read_pretrained,
    shared_copy,
    text_part,
    try_model,
)
from .weights import (
    check_folder,
    content_hash,
    file_hashes,
    forget_hashes,
    read_settings,
    tokenizer_hash,
)

# Names of the number of positions in configs: of most models, LED and MPT.
_POSITIONS = (
    "max_position_embeddings",
    "max_encoder_position_embeddings",
    "max_seq_len",
)

# The cache: it keeps the two models that were used last, and finds all that are in use.
_last_used: list[Backbone] = []
_held: WeakValueDictionary[_Wanted, Backbone] = WeakValueDictionary()
# Models that failed to compute with the device and precision they were tried with.
_fails: set[_Wanted] = set()
# The lock of this is held while a model is read and tried, which changes for all
# threads what torch and transformers do: default precision, random state, functions.
_READING = "a pretrained model"


@dataclass(frozen=True)
class _Wanted:
    """What identifies a model in the cache: its files, and how they are read.

    Parameters
    ----------
    folder : Path
        Where it is.
    files : tuple of (str, str)
        Name and SHA-256 of each of its files.
    compute : Compute
        Device and precision of the weights.
    n_labels : int or None
        Outputs of the architecture's own classification head. None leaves it out.
    trust_remote_code : bool
        Whether the model may bring its own code.
    options : str
        Hash of what else transformers gets.
    asked : Request
        All of what it gets: another name or a bar on the network is the same model.
    """

    folder: Path
    files: tuple[tuple[str, str], ...]
    compute: Compute
    n_labels: int | None
    trust_remote_code: bool
    options: str
    asked: Request = field(compare=False)

    def in_float32(self) -> _Wanted:
        """Return the same model in float32."""
        return replace(self, compute=replace(self.compute, precision="float32"))


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen pretrained encoder and its tokenizer.

    Parameters
    ----------
    folder : Path
        Where it was found.
    content_hash : str
        SHA-256 of the weights.
    tokenizer_hash : str
        SHA-256 of what the tokenizer does to some texts, and of its vocabulary.
    settings : dict
        What its config.json says of how it computes.
    pretrained : Pretrained
        Module and tokenizer. All copies share the module's parameters: never write to
        them.
    compute : Compute
        Device and precision of the weights.
    trial : TrialResult
        What the model made of a few tokens.
    asked : Request
        By what it was asked for.
    """

    folder: Path
    content_hash: str
    tokenizer_hash: str
    settings: dict[str, Any]
    pretrained: Pretrained
    compute: Compute
    trial: TrialResult
    asked: Request

    @property
    def module(self) -> nn.Module:
        """The encoder."""
        return self.pretrained.module

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the encoder."""
        return self.pretrained.tokenizer

    @property
    def width(self) -> int:
        """Length of a hidden state."""
        return self.trial.width

    @property
    def sees_padding(self) -> bool:
        """Whether what a text gets depends on what it is padded with."""
        return self.trial.sees_padding

    @cached_property
    def longest(self) -> int | None:
        """Tokens that the encoder has positions for, or None if it has no limit."""
        config: Any = self.module.config
        # Gemma 3 with its own head has the settings of its text model inside.
        config = getattr(config, "text_config", None) or config
        limits: list[Any] = [getattr(config, name, None) for name in _POSITIONS]
        limits += [self.tokenizer.model_max_length, *self._numbered()]
        # XLNet's -1 and huge numbers stand for no limit.
        limits = [n for n in limits if n and 0 < n < 10**9]
        return min(limits) if limits else None

    def _numbered(self) -> list[int]:
        """Limits of models whose positions start after the padding index: RoBERTa."""
        return [
            module.num_embeddings - module.padding_idx - 1
            for name, module in self.module.named_modules()
            if name.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ]

    def copy(self) -> nn.Module:
        """Return a module of its own over the shared parameters."""
        return shared_copy(self.module)


def load_backbone(
    model: str | os.PathLike[str],
    compute: Compute,
    *,
    or_float32: bool = False,
    model_kwargs: Mapping[str, Any] | None = None,
    n_labels: int | None = None,
    found: Found | None = None,
    check: Callable[[Path, str, dict[str, Any]], None] | None = None,
) -> Backbone:
    """Load an encoder, or return the one loaded before.

    The default model's packaged copy is used where it is installed. With `or_float32`,
    float32 is taken where the model cannot compute in the precision of `compute`.
    `n_labels` are the outputs of the architecture's own classification head; None
    leaves it out. A model that was `found` before is used as long as its weights are on
    this machine: a relative path is found from another directory, and the hub is not
    asked again. `check` may refuse a folder by the hash of its weights and by its
    settings, before transformers reads any of it. Refuse a folder that lacks
    something, is broken, holds no model of texts, or an estimator.
    """
    asked = request(os.fspath(model), model_kwargs)
    folder = find_folder(asked) if found is None else find_again(asked, found)
    check_folder(folder, asked.trust_remote_code)
    if check is not None:
        check(folder, content_hash(folder), read_settings(folder))
    wanted = _Wanted(
        folder,
        file_hashes(folder),
        compute,
        n_labels,
        asked.trust_remote_code,
        digest(asked.options),
        asked,
    )
    instead = wanted.in_float32() if or_float32 else wanted
    if wanted in _fails:
        wanted = instead
    try:
        backbone = _read_once(wanted)
    except CannotComputeError:
        if wanted == instead:
            raise
        backbone = _read_once(instead)
        _fails.add(wanted)
    others = [other for other in _last_used if other is not backbone]
    _last_used[:] = [*others, backbone][-2:]
    return backbone


def _read_once(wanted: _Wanted) -> Backbone:
    """Return the model from the cache, or read it and try it."""
    backbone = _held.get(wanted)
    if backbone is not None:  # waits for no other model that is read
        return backbone
    with lock_of(_READING):
        backbone = _held.get(wanted)
        if backbone is None:
            backbone = _held[wanted] = _read(wanted)
        return backbone


def _read(wanted: _Wanted) -> Backbone:
    folder, compute, n_labels = wanted.folder, wanted.compute, wanted.n_labels
    hash_of_weights = content_hash(folder)
    pretrained = read_pretrained(folder, compute, wanted.asked, n_labels)
    backbone = Backbone(
        folder=folder,
        content_hash=hash_of_weights,
        tokenizer_hash=tokenizer_hash(pretrained.tokenizer),
        settings=read_settings(folder),
        pretrained=pretrained,
        compute=compute,
        trial=try_model(pretrained, compute, folder, has_head=n_labels is not None),
        asked=wanted.asked,
    )
    if file_hashes(folder) != wanted.files:  # it would be held under wrong hashes
        raise ValueError(
            "The files of `model` must stay as they are while they are read. Got "
            f"{str(folder)!r}, where some were replaced just now. Try again."
        )
    return backbone


def clear_backbone_cache() -> None:
    """Free the pretrained models that the estimators of this process share.

    The next fit looks for its model again, on the hub too. Fitted estimators keep
    working: they load their model again at the next prediction, or go on with the one
    that they hold.

    Examples
    --------
    >>> import sk_adalora
    >>> sk_adalora.clear_backbone_cache()
    """
    _last_used.clear()
    _held.clear()
    _fails.clear()
    forget_found()
    forget_hashes()
    torch.cuda.empty_cache()  # does nothing unless this process uses CUDA
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


# As of all public names: pickles say where they are imported from.
clear_backbone_cache.__module__ = "sk_adalora"


def check_unchanged(backbone: Backbone) -> None:
    """Refuse a folder that has got another model since one was read from it.

    That is told by the weights and by what `config.json` says of how it computes.
    """
    folder, failure = backbone.folder, None
    try:
        same = content_hash(folder) == backbone.content_hash
        same = same and read_settings(folder) == backbone.settings
    except (OSError, ValueError) as error:  # they cannot be read
        same, failure = False, error
    if not same:
        raise ValueError(
            "The folder of the pretrained model must hold the weights and the "
            f"config.json that were read from it. Got {str(folder)!r}, where they are "
            "gone or others. Put the former files back, or save to another folder "
            "with include_backbone=False, which does not need them."
        ) from failure


def whole_model(backbone: Backbone, encoder: nn.Module) -> nn.Module:
    """Return a model that transformers can save, with an encoder's weights in it.

    It is the encoder itself, or the model that it is a part of. The backbone is that of
    the encoder, in float32 on the CPU, too.
    """
    if not backbone.pretrained.part:
        return encoder
    with lock_of(_READING):
        whole, _ = read_module(backbone.folder, backbone.compute, backbone.asked)
    check_unchanged(backbone)
    text_part(whole).load_state_dict(encoder.state_dict())
    return whole

"""Load a pretrained encoder once per process, and share its frozen weights."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn

from sk_adalora.runtime.devices import Place
from sk_adalora.runtime.threads import lock_of, make_lock

from .find import Found, Request, find_again, find_folder, forget_found
from .identity import read_settings, tokenizer_hash, vocabulary_hash
from .read import Pretrained, read_module, read_pretrained, shared_copy, text_part
from .trial import Findings, try_model
from .weights import (
    content_hash,
    forget_hashes,
    refuse_estimator,
    settings_hashes,
    states_of,
)

# Names of the number of positions in configs: of most models, LED and MPT.
_POSITIONS = (
    "max_position_embeddings",
    "max_encoder_position_embeddings",
    "max_seq_len",
)

# The cache: it keeps the models that were used last, and finds all that are in use.
_last_used: deque[Backbone] = deque(maxlen=2)
_held: WeakValueDictionary[_Wanted, Backbone] = WeakValueDictionary()
# Models that failed to compute with the device and precision they were tried with.
_fails: set[_Wanted] = set()
# Held for moments, to look into the cache or to change it.
_lock = make_lock()
# Held while a model is read and tried, which changes for all threads what torch and
# transformers do: the default precision, the random state, functions.
_reading = make_lock()


@dataclass(frozen=True)
class _Wanted:
    """What identifies a model in the cache: its files, and how they are read.

    Parameters
    ----------
    folder : Path
        Where it is.
    content_hash : str
        SHA-256 of the weights.
    settings_hashes : tuple of (str, str)
        Name and SHA-256 of each of its other files.
    place : Place
        Device and precision of the weights.
    n_labels : int or None
        Outputs of the architecture's own classification head. None leaves it out.
    trust_remote_code : bool
        Whether the model may bring its own code.
    fetch_code : bool
        Whether that code may come from another repository on the hub: the same model.
    states : list of tuple of int or str
        What tells its files from others, of before the hashes above.
    """

    folder: Path
    content_hash: str
    settings_hashes: tuple[tuple[str, str], ...]
    place: Place
    n_labels: int | None
    trust_remote_code: bool
    fetch_code: bool = field(compare=False)
    states: list[tuple[int | str, ...]] = field(compare=False)

    def in_float32(self) -> _Wanted:
        """Return the same model in float32."""
        return replace(self, place=replace(self.place, precision="float32"))


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
        SHA-256 of the token ids that the tokenizer makes of some texts.
    vocabulary_hash : str or None
        SHA-256 of its vocabulary, if it has one.
    settings : dict
        What its config.json says of how it computes.
    pretrained : Pretrained
        Module and tokenizer. All copies share the module's parameters: never write to
        them.
    place : Place
        Device and precision of the weights.
    findings : Findings
        Results of a trial run.
    """

    folder: Path
    content_hash: str
    tokenizer_hash: str
    vocabulary_hash: str | None
    settings: dict[str, Any]
    pretrained: Pretrained
    place: Place
    findings: Findings

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
        return self.findings.width

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
    place: Place,
    *,
    or_float32: bool = False,
    revision: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    n_labels: int | None = None,
    found: Found | None = None,
) -> Backbone:
    """Load an encoder, or return the one loaded before.

    The default model's packaged copy is used where it is installed. With `or_float32`,
    float32 is taken where the model cannot compute in the precision of `place`.
    `n_labels` are the outputs of the architecture's own classification head; None
    leaves it out. A model that was `found` before is used as long as its weights are on
    this machine: a relative path is found from another directory, and the hub is not
    asked again. Refuse a folder that lacks something, is broken, holds no model of
    texts, or an estimator.
    """
    asked = Request(os.fspath(model), revision, local_files_only, trust_remote_code)
    folder = find_folder(asked) if found is None else find_again(asked, found)
    refuse_estimator(folder)
    fetch_code = trust_remote_code and not local_files_only
    with lock_of(folder):
        states = states_of(folder)  # before the hashes that it is held under
        hashes = (content_hash(folder), settings_hashes(folder))
        code = (trust_remote_code, fetch_code)
        wanted = _Wanted(folder, *hashes, place, n_labels, *code, states)
        if or_float32 and wanted in _fails:
            wanted = wanted.in_float32()
        backbone = _read_once(wanted)
        if backbone.findings.failure and or_float32 and wanted != wanted.in_float32():
            backbone = _read_once(wanted.in_float32())
            if not backbone.findings.failure:  # else it may not be the precision's
                _fails.add(wanted)
        if backbone.findings.failure:
            raise ValueError(backbone.findings.failure)
        with _lock:
            if backbone in _last_used:
                _last_used.remove(backbone)
            _last_used.append(backbone)
        return backbone


def _read_once(wanted: _Wanted) -> Backbone:
    """Return the model from the cache, or read it and try it."""
    with _lock:
        backbone = _held.get(wanted)
    if backbone is None:
        with _reading:
            backbone = _read(wanted)
    # A model that has a key keeps it. With another one, Python would compare the two
    # when the model goes, which fails as Python ends.
    with _lock:
        return _held.setdefault(wanted, backbone)


def _read(wanted: _Wanted) -> Backbone:
    folder, place, n_labels = wanted.folder, wanted.place, wanted.n_labels
    pretrained = read_pretrained(
        folder, place, wanted.trust_remote_code, n_labels, wanted.fetch_code
    )
    backbone = Backbone(
        folder=folder,
        content_hash=wanted.content_hash,
        tokenizer_hash=tokenizer_hash(pretrained.tokenizer),
        vocabulary_hash=vocabulary_hash(pretrained.tokenizer),
        settings=read_settings(folder),
        pretrained=pretrained,
        place=place,
        findings=try_model(pretrained, place, folder, has_head=n_labels is not None),
    )
    if states_of(folder) != wanted.states:
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
    with _lock:
        _last_used.clear()
        _held.clear()
        _fails.clear()
    forget_found()
    forget_hashes()
    torch.cuda.empty_cache()  # does nothing unless this process uses CUDA
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def check_in_place(backbone: Backbone) -> None:
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


def made_whole(
    backbone: Backbone, encoder: nn.Module, trust_remote_code: bool
) -> nn.Module:
    """Return a model that transformers can save, with an encoder's weights in it.

    It is the encoder itself, or the model that it is a part of. The backbone is that of
    the encoder, in float32 on the CPU, too.
    """
    if not backbone.pretrained.part:
        return encoder
    with _reading:
        whole, _ = read_module(backbone.folder, backbone.place, trust_remote_code)
    check_in_place(backbone)
    text_part(whole).load_state_dict(encoder.state_dict())
    return whole

"""Save a fitted estimator as a folder without pickle, and load it again."""

from __future__ import annotations

import copy
import json
import os
import re
import reprlib
import shutil
import tempfile
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors.torch import save_file
from sklearn.utils.validation import check_is_fitted

from . import _folder_files, _read_folder
from ._backbone import Backbone, check_in_place, made_whole
from ._card import CARD_NAME, write_card, write_export_card
from ._folder_files import BACKBONE, HEAD_NAME, STATE_NAME
from ._json_values import to_json
from ._model_files import copy_backbone, lies_in
from ._parameters import Rule, check_parameters
from ._persistence import RECORDS, AdapterState
from ._pretrained import silent_transformers
from ._sentence_files import write_sentence_files
from ._torch_settings import own_settings_of_torch, prepare_threads
from ._turns import same_settings
from ._whole_folder import (
    errors_of_writing,
    read_model_whole,
    read_whole,
    written_whole,
)
from .adalora import AdaLoraConfig
from .adalora.peft_format import write_adapter, write_lora

# Files that not every estimator has. On the hub, those of the estimator that is
# replaced would stay, so they are deleted.
_OF_SOME_ONLY = [HEAD_NAME, "config.json", f"{BACKBONE}/*"]
# Endings of what transformers writes as text.
_TEXTS = {".json", ".txt", ".jinja"}


class FolderMixin(metaclass=ABCMeta):
    """Save and load an estimator as a folder that can be read without running it."""

    # Fitted attributes that say how targets are coded.
    _coding: ClassVar[tuple[str, ...]]
    _rules: ClassVar[Mapping[str, Rule]]
    _adapter: AdapterState

    # ---- what an export says of the task ------------------------------------

    @abstractmethod
    def _label_names(self) -> dict[int, str]:
        """Name the outputs, for programs that load an export."""

    @abstractmethod
    def _problem_type(self) -> str:
        """Return the `problem_type` of the task in transformers' configurations."""

    def _units(self) -> str:
        """Say how to convert outputs to the units of the targets; "" if not needed."""
        return ""

    # ---- folders ------------------------------------------------------------

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        include_backbone: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Save the fitted estimator as a folder, without pickle.

        Parameters
        ----------
        folder : path-like
            Where to write. The folder gets PEFT's two adapter files, the head, the
            tokenizer, ``sk_adalora.json`` and a model card. "~" is the home directory.
        include_backbone : bool, default=False
            Whether to copy the pretrained model too, so that the folder is complete. A
            model that lies in the folder to be replaced is copied in any case.
        overwrite : bool, default=False
            Whether to replace a folder that sk-adalora wrote, with everything that was
            put into it since.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        FileExistsError
            If the folder is not empty and `overwrite` is False, or sk-adalora did not
            write it; or if it is a file or a link.
        TypeError
            If a parameter, such as a function, cannot be written as JSON.
        ValueError
            If a parameter is wrong, or if the pretrained model is not the one of `fit`.
        OSError
            If the pretrained model cannot be found, or the folder cannot be written;
            what was there before is still there.
        """
        check_is_fitted(self)
        check_parameters(self, self._rules)
        backbone = self._ready().backbone
        folder = _at_home(folder)
        include_backbone = include_backbone or lies_in(backbone.folder, folder)
        described = _describe(self, include_backbone)
        config = AdaLoraConfig.from_dict(self._adapter.config)
        tensors, head = self._adapter.tensors()
        with written_whole(folder, overwrite=overwrite) as staged:
            with errors_of_writing(folder):
                write_adapter(staged, config, tensors)
                if head:
                    save_file(head, staged / HEAD_NAME)
                else:  # tells transformers the names of the outputs
                    own = copy.deepcopy(backbone.module.config)
                    own.dtype = None  # that of the weights, not the precision of `fit`
                    _name_outputs(own, self)
                    own.save_pretrained(staged)
                _save_tokenizer(backbone.tokenizer, staged, self.row_format)
            _undo_text_mode(staged)
            if include_backbone:
                target, with_code = staged / BACKBONE, self.trust_remote_code
                copied = partial(_copy, backbone, target, with_code)
                read_model_whole(backbone.folder, copied)
            _write_text(staged / CARD_NAME, write_card(self, backbone.pretrained.part))
            described = _folder_files.with_hashes(staged, described)
            _write_text(staged / STATE_NAME, _readable(described))

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        local_files_only: bool | None = None,
        trust_remote_code: bool = False,
        **parameters: Any,
    ) -> Self:
        """Load an estimator from a folder, or from the Hugging Face hub.

        Parameters
        ----------
        source : path-like or str
            A folder that :meth:`save_pretrained` wrote, or the id of a repository.
        revision : str or None, default=None
            Commit, tag or branch of the repository `source`. That of the pretrained
            model is as it was saved: change it afterwards, with ``set_params``.
        local_files_only : bool or None, default=None
            Whether to never use the network, neither for `source` nor for the
            pretrained model. None allows it for `source`, and leaves the parameter as
            it was saved.
        trust_remote_code : bool, default=False
            Whether the pretrained model may bring code of its own.
        **parameters : dict
            Parameters to set on the estimator, such as ``device="cpu"``.

        Returns
        -------
        estimator
            A fitted estimator, which predicts as the saved one did.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or a file of it is missing.
        OSError
            If the repository cannot be downloaded for another reason.
        ValueError
            If a file is broken, changed or too new, if the folder is of another class
            or asks for remote code, or if a parameter is wrong.
        """
        prepare_threads()  # to check many numbers takes several
        if local_files_only is not None:
            parameters["local_files_only"] = local_files_only
        find = partial(
            _read_folder.find,
            source,
            revision,
            bool(local_files_only),
            trust_remote_code,
        )
        read = partial(cls._read, find, trust_remote_code, parameters)
        return read_whole(_at_home(source), read)

    @classmethod
    def _read(
        cls,
        find: Callable[[], tuple[Path, Path]],
        trust_remote_code: bool,
        parameters: dict[str, Any],
    ) -> Self:
        """Find and read a folder, once."""
        folder, root = find()
        _folder_files.refuse_links(folder, root)
        described = _read_folder.read_described(folder)
        estimator: Any = cls(
            **_read_folder.read_parameters(described, folder, cls, trust_remote_code)
        )
        estimator.set_params(**parameters)
        check_parameters(estimator, cls._rules)
        fitted = _read_folder.read_fitted(described, folder, cls)
        # Once more: a file may have been replaced while it was read.
        _folder_files.check_files(folder, described)
        vars(estimator).update(fitted)
        return estimator

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload an AdaLoRA estimator",
        include_backbone: bool = False,
    ) -> str:
        """Upload the fitted estimator to the Hugging Face hub.

        The token is that of ``hf auth login`` or of the environment.

        Parameters
        ----------
        repo_id : str
            Name of the repository: ``"user/name"``, or ``"name"`` for one of your own.
            It is created if there is none. An estimator in it is replaced; other files
            stay.
        private : bool or None, default=None
            Whether a new repository is private. None stands for the hub's default.
        revision : str or None, default=None
            Branch to upload to; it is created if there is none. None stands for the
            main branch.
        commit_message : str, default="Upload an AdaLoRA estimator"
            Message of the commit.
        include_backbone : bool, default=False
            Whether to upload the pretrained model too.

        Returns
        -------
        str
            Address of the commit.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        TypeError
            If a parameter, such as a function, cannot be written as JSON.
        ValueError
            If a parameter or `repo_id` is wrong, or if the pretrained model is not the
            one of `fit`.
        OSError
            If the hub cannot be reached or refuses, or if the pretrained model cannot
            be found.
        """
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "estimator"
            self.save_pretrained(folder, include_backbone=include_backbone)
            api = HfApi()
            # A name without an owner means the user's: the answer has the full name.
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            replaces_own = api.file_exists(repo_id, STATE_NAME, revision=revision)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
                # Files that match, but are uploaded now, are not deleted.
                delete_patterns=_OF_SOME_ONLY if replaces_own else None,
            )
        return str(commit)

    def export_lora(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write the updates as plain LoRA, for programs that do not know AdaLoRA.

        Parameters
        ----------
        folder : path-like
            Where to write. The folder gets ``adapter_config.json``,
            ``adapter_model.safetensors`` and a card.
        overwrite : bool, default=False
            Whether to replace a folder that sk-adalora wrote.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        FileExistsError
            If the folder is not empty and `overwrite` is False, or sk-adalora did not
            write it; or if it is a file or a link.
        ValueError
            If it is the folder of the pretrained model, or if no layer has a rank left.
        OSError
            If it cannot be written; what was there before is still there.
        """
        check_is_fitted(self)
        config = AdaLoraConfig.from_dict(self._adapter.config)
        tensors, _ = self._adapter.tensors()
        folder = _at_home(folder)
        for model in (os.path.expanduser(self.model), self._adapter.found_in):
            if os.path.isdir(model):
                _refuse_own_model(Path(model), folder)
        with written_whole(folder, overwrite=overwrite) as staged:
            with errors_of_writing(folder):
                write_lora(staged, config, tensors)
            card = write_export_card(self, merged=False)
            _write_text(staged / CARD_NAME, card)

    @own_settings_of_torch()
    def merge_and_save(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write a plain transformers model with the updates merged in, in float32.

        Parameters
        ----------
        folder : path-like
            Where to write. The folder gets the model and its tokenizer, for
            ``AutoModel.from_pretrained``, the head in ``head.safetensors``, and what
            ``SentenceTransformer`` needs to pool as in the fit. Of an encoder-decoder,
            the encoder is the adapted part. With ``pooling="model"`` the head is in
            the model, for ``transformers.pipeline("text-classification")``.
        overwrite : bool, default=False
            Whether to replace a folder that sk-adalora wrote.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        FileExistsError
            If the folder is not empty and `overwrite` is False, or sk-adalora did not
            write it; or if it is a file or a link.
        ValueError
            If it is the folder of the pretrained model, or if that model is not the one
            of `fit`.
        OSError
            If the pretrained model cannot be found, or the folder cannot be written;
            what was there before is still there.
        """
        check_is_fitted(self)
        network, backbone = self._exact_network()
        folder = _at_home(folder)
        _refuse_own_model(backbone.folder, folder)
        _, head = self._adapter.tensors()
        with written_whole(folder, overwrite=overwrite) as staged:
            merged = network.encoder.merge_and_unload()
            whole = partial(made_whole, backbone, merged, self.trust_remote_code)
            merged = read_model_whole(backbone.folder, whole)
            if not head:
                _name_outputs(merged.config, self)
            with errors_of_writing(folder):
                if head:
                    # In config.json, transformers would take them for a random head's.
                    labels = json.dumps([*self._label_names().values()])
                    save_file(head, staged / HEAD_NAME, metadata={"labels": labels})
                with silent_transformers():
                    merged.save_pretrained(staged)
                _save_tokenizer(backbone.tokenizer, staged, self.row_format)
                # Of an adapted part, such as BART's encoder, it would read the whole.
                if head and not backbone.pretrained.part:
                    write_sentence_files(
                        staged,
                        pooling=network.pooling,
                        width=backbone.width,
                        max_length=self._most_tokens(backbone),
                    )
            card = write_export_card(self, backbone.pretrained.part, merged=True)
            _write_text(staged / CARD_NAME, card)


# ---- writing ----------------------------------------------------------------


def _copy(backbone: Backbone, target: Path, with_code: bool) -> None:
    """Copy the files of a pretrained model; what an earlier try left is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    copy_backbone(backbone.folder, target, with_code=with_code)
    check_in_place(backbone)


def _save_tokenizer(tokenizer: Any, folder: Path, row_format: Any) -> None:
    """Write a tokenizer with its own settings, while no other thread uses it.

    The copy returns what the estimator gives to the model.
    """
    names = tokenizer.model_input_names
    given = {n: getattr(tokenizer, n) for n in ("padding_side", "split_special_tokens")}
    # Of single texts, the model is given no types. All are 0 where a tokenizer returns
    # them by itself; XLNet's does not, and they would not be.
    if row_format == "pair" or "token_type_ids" not in names:
        given["model_input_names"] = names
    with same_settings(tokenizer):
        read = tokenizer.init_kwargs
        try:
            # transformers leaves out what the files that it read did not say.
            tokenizer.init_kwargs = {**read, **given}
            tokenizer.save_pretrained(folder)
        finally:
            tokenizer.init_kwargs = read


def _describe(estimator: Any, include_backbone: bool) -> dict[str, Any]:
    """Return all that is not a tensor, as JSON values."""
    parameters = estimator.get_params(deep=False)
    seed = parameters.get("random_state")  # a subclass may lack it
    if not isinstance(seed, int | np.integer | None):
        parameters["random_state"] = None  # a generator's state is no parameter
    if include_backbone:
        parameters["model"] = BACKBONE
    written = {
        name: _plain(
            name,
            os.fspath(value) if isinstance(value, os.PathLike) else value,
            f"set `{name}` to a plain value",
        )
        for name, value in parameters.items()
    }
    fitted = {
        name: _plain(name, vars(estimator)[name], "fit with plain labels, such as str")
        for name in (*estimator._coding, "n_features_in_", *_read_folder.OPTIONAL)
        if name in vars(estimator)
    }
    state = estimator._adapter
    for name in RECORDS:
        fitted[name] = to_json(dict(vars(vars(estimator)[name])))
    described = {name: getattr(state, name) for name in _read_folder.STATE_FIELDS}
    # A path in a cache means nothing on another machine.
    if include_backbone or not state.is_folder:
        described["found_in"] = ""
    if include_backbone:
        described["commit"] = None
    return described | {
        "class": type(estimator).__name__,
        "parameters": written,
        "includes_backbone": include_backbone,
        "layers": list(estimator.ranks_),  # in the order of the model
        "fitted": fitted,
    }


def _plain(name: str, value: Any, advice: str) -> Any:
    """Return a parameter or an attribute as JSON, or say what else to do."""
    try:
        return to_json(value)
    except TypeError as error:
        raise TypeError(
            f"`{name}` must be a plain value to be saved as JSON. Got "
            f"{reprlib.repr(value)}: {error}. Save with joblib, or {advice}."
        ) from error


def _at_home(folder: str | os.PathLike[str]) -> Path:
    """Return the folder that a user names, who may write "~" for their home."""
    return Path(os.path.expanduser(folder))


def _refuse_own_model(model: Path, folder: Path) -> None:
    if lies_in(model, folder):
        raise ValueError(
            "`folder` must not be the one that the pretrained model lies in. Got "
            f"{str(folder)!r}, with the model in {str(model)!r}. Choose another."
        )


def _name_outputs(config: Any, estimator: Any) -> None:
    """Tell transformers' configuration what the outputs are."""
    names = estimator._label_names()
    config.id2label = names
    config.label2id = {name: i for i, name in names.items()}
    config.problem_type = estimator._problem_type()


def _readable(described: dict[str, Any]) -> str:
    """Write JSON for people, lists of numbers in one line."""
    text = json.dumps(described, indent=2, sort_keys=True)
    # JSON escapes line breaks inside texts, so that this matches between values only.
    lists = re.compile(r"\[\n\s+([^\[\]{}\"]*?)\n\s*\]")
    return lists.sub(lambda found: f"[{' '.join(found[1].split())}]", text)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf8", newline="\n")


def _undo_text_mode(folder: Path) -> None:
    """Give text files that transformers wrote the same bytes on every system."""
    if os.linesep == "\n":
        return
    for path in folder.rglob("*"):
        if path.suffix in _TEXTS:
            data = path.read_bytes()
            path.write_bytes(data.replace(os.linesep.encode(), b"\n"))

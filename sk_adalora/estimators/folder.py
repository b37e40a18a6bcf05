"""Save a fitted estimator as a folder without pickle, and load it again."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from safetensors.torch import save_file
from sklearn.utils.validation import check_is_fitted

from sk_adalora.adalora import AdaLoraConfig
from sk_adalora.adalora.peft_format import write_adapter, write_lora
from sk_adalora.files import layout as _folder_files
from sk_adalora.files import read as _read_folder
from sk_adalora.files.card import CARD_NAME, write_card, write_export_card
from sk_adalora.files.layout import BACKBONE, HEAD_NAME, STATE_NAME
from sk_adalora.files.sentence_files import write_sentence_files
from sk_adalora.files.swap import written_whole
from sk_adalora.files.write import (
    copy_model,
    describe,
    name_outputs,
    readable,
    save_tokenizer,
    undo_text_mode,
    write_text,
)
from sk_adalora.pretrained.backbone import made_whole
from sk_adalora.pretrained.read import silent_transformers
from sk_adalora.pretrained.weights import lies_in
from sk_adalora.runtime.rules import check_parameters
from sk_adalora.runtime.torch_settings import own_settings_of_torch, prepare_threads

from .predicting import PredictMixin

# Files that not every estimator has. On the hub, those of the estimator that is
# replaced would stay, so they are deleted.
_OF_SOME_ONLY = [HEAD_NAME, "config.json", f"{BACKBONE}/*"]


class FolderMixin(PredictMixin):
    """Save and load an estimator as a folder that can be read without running it."""

    # Fitted attributes that say how targets are coded.
    _coding: ClassVar[tuple[str, ...]]

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
            write it; if it is a file or a link; or if another process saves to it.
        TypeError
            If a parameter, such as a function, cannot be written as JSON.
        ValueError
            If a parameter is wrong, if the pretrained model is not the one of `fit`, or
            if the fit took more than about a million steps: save with joblib.
        OSError
            If the pretrained model cannot be found, or the folder cannot be written
            (safetensors and tokenizers have errors of their own for that); what was
            there before is still there.
        """
        check_is_fitted(self)
        check_parameters(self, self._rules)
        backbone = self._ready().backbone
        folder = _at_home(folder)
        include_backbone = include_backbone or lies_in(backbone.folder, folder)
        described = describe(self, include_backbone)
        config = AdaLoraConfig.from_dict(self._adapter.config)
        tensors, head = self._adapter.tensors()
        with written_whole(folder, overwrite=overwrite) as staged:
            write_adapter(staged, config, tensors)
            if head:
                save_file(head, staged / HEAD_NAME)
            else:  # tells transformers the names of the outputs
                own: Any = copy.deepcopy(backbone.module.config)
                own.dtype = None  # that of the weights, not the precision of `fit`
                name_outputs(own, self)
                own.save_pretrained(staged)
            save_tokenizer(backbone.tokenizer, staged, self.row_format)
            undo_text_mode(staged)
            if include_backbone:
                copy_model(backbone, staged / BACKBONE, self.trust_remote_code)
            write_text(staged / CARD_NAME, write_card(self, backbone.pretrained.part))
            described = _folder_files.with_hashes(staged, described)
            write_text(staged / STATE_NAME, readable(described))

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
        offline = bool(local_files_only)
        folder, root = _read_folder.find(source, revision, offline, trust_remote_code)
        with _folder_files.in_one_state(folder):
            return cls._read(folder, root, trust_remote_code, parameters)

    @classmethod
    def _read(
        cls,
        folder: Path,
        root: Path,
        trust_remote_code: bool,
        parameters: dict[str, Any],
    ) -> Self:
        """Read a folder, whose links stay inside `root`."""
        _folder_files.refuse_links(folder, root)
        described = _read_folder.read_described(folder)
        estimator: Any = cls(
            **_read_folder.read_parameters(described, folder, cls, trust_remote_code)
        )
        estimator.set_params(**parameters)
        check_parameters(estimator, cls._rules)
        vars(estimator).update(_read_folder.read_fitted(described, folder, cls))
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
            If a parameter or `repo_id` is wrong, if the pretrained model is not the one
            of `fit`, or if the fit took more than about a million steps.
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
            write it; if it is a file or a link; or if another process saves to it.
        ValueError
            If it is the folder of the pretrained model, if a parameter is wrong, or if
            no layer has a rank left.
        OSError
            If it cannot be written (safetensors has an error of its own for that); what
            was there before is still there.
        """
        check_is_fitted(self)
        check_parameters(self, self._rules)
        config = AdaLoraConfig.from_dict(self._adapter.config)
        tensors, _ = self._adapter.tensors()
        folder = _at_home(folder)
        for model in (os.path.expanduser(self.model), self._adapter.found_in):
            if os.path.isdir(model):
                _refuse_own_model(Path(model), folder)
        with written_whole(folder, overwrite=overwrite) as staged:
            write_lora(staged, config, tensors)
            card = write_export_card(self, merged=False)
            write_text(staged / CARD_NAME, card)

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
            write it; if it is a file or a link; or if another process saves to it.
        ValueError
            If it is the folder of the pretrained model, if a parameter is wrong, or if
            that model is not the one of `fit`.
        OSError
            If the pretrained model cannot be found, or the folder cannot be written
            (safetensors and tokenizers have errors of their own for that); what was
            there before is still there.
        """
        check_is_fitted(self)
        check_parameters(self, self._rules)
        network, backbone = self._exact_network()
        folder = _at_home(folder)
        _refuse_own_model(backbone.folder, folder)
        _, head = self._adapter.tensors()
        with written_whole(folder, overwrite=overwrite) as staged:
            part = network.encoder.merge_and_unload()
            merged: Any = made_whole(backbone, part, self.trust_remote_code)
            if not head:
                name_outputs(merged.config, self)
            if head:
                # In config.json, transformers would take them for a random head's.
                labels = json.dumps([*self._label_names().values()])
                save_file(head, staged / HEAD_NAME, metadata={"labels": labels})
            with silent_transformers():
                merged.save_pretrained(staged)
            save_tokenizer(backbone.tokenizer, staged, self.row_format)
            # Of an adapted part, such as BART's encoder, it would read the whole.
            if head and not backbone.pretrained.part:
                write_sentence_files(
                    staged,
                    pooling=network.pooling,
                    width=backbone.width,
                    max_length=self._most_tokens(backbone),
                )
            card = write_export_card(self, backbone.pretrained.part, merged=True)
            write_text(staged / CARD_NAME, card)


def _at_home(folder: str | os.PathLike[str]) -> Path:
    """Return the folder that a user names, who may write "~" for their home."""
    return Path(os.path.expanduser(folder))


def _refuse_own_model(model: Path, folder: Path) -> None:
    if lies_in(model, folder):
        raise ValueError(
            "`folder` must not be the one that the pretrained model lies in. Got "
            f"{str(folder)!r}, with the model in {str(model)!r}. Choose another."
        )

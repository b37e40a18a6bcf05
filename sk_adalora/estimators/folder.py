"""Save a fitted estimator as a folder without pickle, and load it again."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any, ClassVar, Self

from sk_adalora.files import folder as _files

from .predicting import PredictMixin


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
        _files.save(self, folder, include_backbone, overwrite)

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
        loaded: Self = _files.load(
            cls, source, revision, local_files_only, trust_remote_code, parameters
        )
        return loaded

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
        return _files.push_to_hub(
            self, repo_id, private, revision, commit_message, include_backbone
        )

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
        _files.export_lora(self, folder, overwrite)

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
        _files.merge_and_save(self, folder, overwrite)

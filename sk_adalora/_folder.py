"""Save a fitted estimator as a folder without pickle, and load it again."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sklearn.utils.validation import check_is_fitted

from ._backbone import copy_backbone
from ._card import write_card
from ._json_values import from_json, to_json
from ._persistence import FORMAT, HEAD, AdapterState, rank_pattern
from ._report import FitReport
from ._steps import ResolvedSchedule
from ._training import TrainingHistory
from .adalora import AdaLoraConfig
from .adalora.config import read_json
from .adalora.peft_format import ranks_of, read_adapter, write_adapter, write_lora

STATE_NAME = "sk_adalora.json"
_HEAD_NAME = "head.safetensors"
_BACKBONE = "backbone"

# Fitted attributes that are dataclasses of plain fields.
_RECORDS = {
    "schedule_": ResolvedSchedule,
    "history_": TrainingHistory,
    "fit_report_": FitReport,
}
_STATE_FIELDS = (
    "n_outputs",
    "pooling",
    "model",
    "found_in",
    "content_hash",
    "format",
    "versions",
)


class FolderMixin:
    """Save and load an estimator as a folder that can be read without running it."""

    # Fitted attributes that say how targets are coded.
    _coding: ClassVar[tuple[str, ...]]
    _adapter: AdapterState

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        include_backbone: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Write the fitted estimator as a folder, without pickle.

        Parameters
        ----------
        folder : path-like
            Where to. It holds PEFT's two adapter files, the head, the tokenizer,
            ``sk_adalora.json`` and a model card.
        include_backbone : bool, default=False
            Whether to copy the pretrained model too, so that the folder is complete.
        overwrite : bool, default=False
            Whether to replace an existing folder of an estimator.

        Raises
        ------
        FileExistsError
            If the folder exists and `overwrite` is False, or it holds other things.
        TypeError
            If a parameter, such as a callable, cannot be written as JSON.
        OSError
            If it cannot be written; what was there before is still there.
        """
        check_is_fitted(self)
        text = json.dumps(_describe(self, include_backbone), indent=2, sort_keys=True)
        with written_whole(Path(folder), overwrite=overwrite) as place:
            (place / STATE_NAME).write_text(text + "\n", encoding="utf8")
            config, tensors, head = _parts(self._adapter)
            write_adapter(place, config, tensors)
            if head:
                save_file(head, place / _HEAD_NAME)
            live = self._ready()  # type: ignore[attr-defined]
            live.backbone.tokenizer.save_pretrained(place)
            if include_backbone:
                copy_backbone(live.backbone.folder, place / _BACKBONE)
            card = write_card(self, self._adapter)
            (place / "README.md").write_text(card, encoding="utf8")

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        **parameters: Any,
    ) -> Self:
        """Load an estimator from a folder, or from the Hugging Face hub.

        Parameters
        ----------
        source : path-like or str
            A folder that :meth:`save_pretrained` wrote, or the id of a repository.
        revision : str or None, default=None
            Commit, tag or branch on the hub.
        trust_remote_code : bool, default=False
            Whether the pretrained model may bring its own code.
        **parameters : dict
            Parameters to set on the estimator, such as ``device="cpu"``.

        Returns
        -------
        estimator
            Fitted; predicts as the one that was saved.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or a file of it is missing.
        ValueError
            If a file is broken, too new, of another class, or asks for remote code.
        """
        folder, root = _find(source, revision)
        _refuse_links(folder, root)
        described = read_json(folder / STATE_NAME)
        _check_kind(described, cls)
        estimator = cls(**_read_parameters(described, folder, trust_remote_code))
        estimator.set_params(**parameters)  # type: ignore[attr-defined]
        vars(estimator).update(_read_fitted(described, folder, cls._coding))
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

        The token is the one of ``hf auth login`` or of the environment.

        Parameters
        ----------
        repo_id : str
            Name of the repository; it is made when missing.
        private : bool or None, default=None
            Whether a new repository is private. None is the hub's default.
        revision : str or None, default=None
            Branch to upload to.
        commit_message : str, default="Upload an AdaLoRA estimator"
            Message of the commit.
        include_backbone : bool, default=False
            Whether to upload the pretrained model too.

        Returns
        -------
        str
            Address of the commit.
        """
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "estimator"
            self.save_pretrained(folder, include_backbone=include_backbone)
            api = HfApi()
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
            )
        return str(commit)

    def export_lora(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write the adapter as plain LoRA, for programs that know no AdaLoRA.

        Parameters
        ----------
        folder : path-like
            Gets ``adapter_config.json`` and ``adapter_model.safetensors``.
        overwrite : bool, default=False
            Whether to replace an existing adapter folder.

        Raises
        ------
        FileExistsError
            If the folder exists and `overwrite` is False.
        """
        check_is_fitted(self)
        config, tensors, _ = _parts(self._adapter)
        with written_whole(Path(folder), overwrite=overwrite) as place:
            write_lora(place, config, tensors)

    def merge_and_save(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write a plain transformers model with the update merged, in float32.

        Parameters
        ----------
        folder : path-like
            Gets the encoder and its tokenizer, for ``AutoModel.from_pretrained``,
            and the head in ``head.safetensors``. With ``pooling="model"`` it is a
            whole model, for ``transformers.pipeline("text-classification")``.
        overwrite : bool, default=False
            Whether to replace an existing folder.

        Raises
        ------
        FileExistsError
            If the folder exists and `overwrite` is False.
        """
        check_is_fitted(self)
        network, tokenizer = self._exact_network()  # type: ignore[attr-defined]
        _, _, head = _parts(self._adapter)
        with written_whole(Path(folder), overwrite=overwrite) as place:
            merged = network.encoder.merge_and_unload()
            if head:
                save_file(head, place / _HEAD_NAME)
            else:
                merged.config.id2label = self._label_names()  # type: ignore[attr-defined]
                merged.config.label2id = {
                    name: i for i, name in merged.config.id2label.items()
                }
            merged.save_pretrained(place)
            tokenizer.save_pretrained(place)


# ---- writing ----------------------------------------------------------------


def _describe(estimator: Any, include_backbone: bool) -> dict[str, Any]:
    """Return all that is not a tensor, as JSON values."""
    parameters = estimator.get_params(deep=False)
    if not isinstance(parameters["random_state"], int | np.integer | None):
        parameters["random_state"] = None  # a generator's state is no parameter
    if include_backbone:
        parameters["model"] = _BACKBONE
    written = {}
    for name, value in parameters.items():
        try:
            written[name] = to_json(
                os.fspath(value) if isinstance(value, os.PathLike) else value
            )
        except TypeError as error:
            raise TypeError(
                f"`{name}` must be a plain value to be saved as JSON. Got {value!r}: "
                f"{error}. Save with joblib, or set `{name}` to a plain value."
            ) from error
    state = estimator._adapter
    fitted = {
        name: to_json(vars(estimator)[name])
        for name in (*estimator._coding, "n_features_in_", "feature_names_in_")
        if name in vars(estimator)
    }
    for name in _RECORDS:
        fitted[name] = to_json(asdict(getattr(estimator, name)))
    return {
        "class": type(estimator).__name__,
        "parameters": written,
        "includes_backbone": include_backbone,
        "fitted": fitted,
        **{name: getattr(state, name) for name in _STATE_FIELDS},
    }


def _parts(
    state: AdapterState,
) -> tuple[AdaLoraConfig, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return configuration, adapter and head."""
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in state.arrays.items()}
    head = {n.removeprefix(HEAD): tensors.pop(n) for n in [*tensors] if HEAD in n[:5]}
    return AdaLoraConfig.from_dict(state.config), tensors, head


@contextmanager
def written_whole(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Write beside, then rename: a folder is there whole, or as it was before."""
    folder = Path(os.path.abspath(folder))
    _check_vacant(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        place = scratch / "new"
        place.mkdir()
        yield place
        if folder.exists():
            folder.rename(scratch / "old")
        try:
            place.rename(folder)
        except OSError:
            if (scratch / "old").exists():
                (scratch / "old").rename(folder)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_vacant(folder: Path, overwrite: bool) -> None:
    if not (folder.exists() or folder.is_symlink()):
        return
    ours = (STATE_NAME, "adapter_config.json", _HEAD_NAME)
    if folder.is_dir() and not folder.is_symlink():
        if not any(folder.iterdir()):
            return
        if overwrite and any((folder / name).is_file() for name in ours):
            return
    do = (
        "It holds no estimator, so it is not replaced: choose another path."
        if overwrite
        else "Pass overwrite=True to replace it, or choose another path."
    )
    raise FileExistsError(
        f"`folder` must not exist yet. Got {str(folder)!r}, which does. {do}"
    )


# ---- reading ----------------------------------------------------------------


def _find(source: str | os.PathLike[str], revision: str | None) -> tuple[Path, Path]:
    """Return the folder, and the folder that its links must stay inside."""
    if os.path.isdir(source):
        folder = Path(source).resolve()
        return folder, folder
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(os.fspath(source), revision=revision))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            "`source` must be a folder that `save_pretrained` wrote, or a repository "
            f"of the Hugging Face hub. Got {os.fspath(source)!r}, which is neither, "
            "or cannot be reached. Check the path."
        ) from error
    return folder, folder.parents[1].resolve()  # the hub's cache links to its blobs


def _refuse_links(folder: Path, root: Path) -> None:
    for path in folder.rglob("*"):
        if not path.resolve().is_relative_to(root):
            raise ValueError(
                f"The files must lie in the folder. Got {path.name!r}, which links to "
                "a place outside. Replace the link by the file."
            )


def _check_kind(described: dict[str, Any], cls: type) -> None:
    number = _field(described, "format", int)
    if number > FORMAT:
        raise ValueError(
            f"{STATE_NAME} must be of format {FORMAT} or before. Got {number}. "
            "Install a newer sk-adalora."
        )
    name = _field(described, "class", str)
    if name not in {base.__name__ for base in cls.__mro__}:
        raise ValueError(
            f"The folder must hold a {cls.__name__}. Got a {name[:80]}. "
            "Load it with its own class."
        )


def _field(values: dict[str, Any], name: str, kind: type) -> Any:
    value = values.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(
            f"{STATE_NAME} must hold {name!r} as {kind.__name__}. Got "
            f"{type(value).__name__}. The file is broken."
        )
    return value


def _read_parameters(
    described: dict[str, Any], folder: Path, trust_remote_code: bool
) -> dict[str, Any]:
    written = _field(described, "parameters", dict)
    parameters = {name: from_json(value) for name, value in written.items()}
    if parameters.get("trust_remote_code") and not trust_remote_code:
        raise ValueError(
            f"{STATE_NAME} asks for code that the pretrained model brings along. "
            "Pass trust_remote_code=True if you trust its authors."
        )
    parameters["trust_remote_code"] = trust_remote_code
    if _field(described, "includes_backbone", bool):
        parameters["model"] = str(folder / _BACKBONE)
    return parameters


def _read_fitted(
    described: dict[str, Any], folder: Path, coding: tuple[str, ...]
) -> dict[str, Any]:
    """Return the fitted attributes."""
    written = _field(described, "fitted", dict)
    missing = {*coding, "n_features_in_", *_RECORDS} - set(written)
    if missing:
        raise ValueError(
            f"{STATE_NAME} must hold {sorted(missing)} under 'fitted'. Got nothing. "
            "The file is broken."
        )
    names = (*coding, "n_features_in_", "feature_names_in_")
    fitted = {name: from_json(written[name]) for name in names if name in written}
    for name, kind in _RECORDS.items():
        fitted[name] = _read_record(kind, from_json(written[name]))
    state = _read_state(described, folder)
    ranks = {
        path.removesuffix(".lora_E"): sum(flags)
        for path, flags in state.config["rank_pattern"].items()
    }
    return fitted | {
        "_adapter": state,
        "_live": None,
        "ranks_": ranks,
        "rank_pattern_": state.config["rank_pattern"],
        "total_step_": fitted["schedule_"].total_step,
        "n_iter_": fitted["history_"].epochs,
    }


def _read_record(kind: type, values: Any) -> Any:
    names = {field.name for field in fields(kind)}
    if not isinstance(values, dict) or set(values) != names:
        raise ValueError(
            f"{STATE_NAME} must hold the fields of {kind.__name__}: {sorted(names)}. "
            f"Got {str(values)[:80]!r}. The file is broken."
        )
    return kind(**values)


def _read_state(described: dict[str, Any], folder: Path) -> AdapterState:
    config, tensors = read_adapter(folder)
    own_head = _field(described, "pooling", str) == "model"
    n_outputs = _field(described, "n_outputs", int)
    head = {} if own_head else _read_head(folder, n_outputs)
    written = config.to_dict()
    written["rank_pattern"] = rank_pattern(ranks_of(tensors), config.init_r)
    tensors |= {HEAD + name: value for name, value in head.items()}
    kinds = {"n_outputs": int, "format": int, "versions": dict}
    return AdapterState(
        config=written,
        arrays={name: value.numpy() for name, value in tensors.items()},
        **{
            name: _field(described, name, kinds.get(name, str))
            for name in _STATE_FIELDS
        },
    )


def _read_head(folder: Path, n_outputs: int) -> dict[str, torch.Tensor]:
    path = folder / _HEAD_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"The folder must hold {_HEAD_NAME}. Got {str(folder)!r} without it. "
            "Copy it again."
        )
    try:
        head = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{_HEAD_NAME} must hold tensors. Got a file that cannot be read: "
            f"{error}. Copy it again."
        ) from error
    weight, bias = head.get("weight"), head.get("bias")
    fits = (
        set(head) == {"weight", "bias"}
        and all(t.dtype == torch.float32 for t in head.values())
        and weight.ndim == 2
        and weight.shape[0] == n_outputs
        and bias.shape == (n_outputs,)
        and all(bool(torch.isfinite(t).all()) for t in head.values())
    )
    if not fits:
        raise ValueError(
            f"{_HEAD_NAME} must hold a finite 'weight' of {n_outputs} rows and a "
            "'bias', in float32. Got something else. The file is broken."
        )
    return head

"""Save an estimator as a folder without pickle, load it, and export its update.

The methods of the estimators say what each function takes and raises.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sklearn.utils.validation import check_is_fitted

from sk_adalora.adalora import AdaLoraConfig
from sk_adalora.adalora.peft_format import write_adapter, write_lora
from sk_adalora.adalora.untrusted import read_json
from sk_adalora.pretrained.backbone import whole_model
from sk_adalora.pretrained.read import silent_transformers
from sk_adalora.pretrained.weights import lies_in
from sk_adalora.runtime.devices import own_settings_of_torch, prepare_threads
from sk_adalora.runtime.rules import check_parameters

from .card import write_card, write_export_card
from .layout import (
    ARRAYS_NAME,
    BACKBONE,
    CARD_NAME,
    HEAD_NAME,
    STATE_NAME,
    refuse_links,
    written_whole,
)
from .read import find, read_described, read_fitted, read_parameters
from .write import (
    copy_model,
    describe,
    name_outputs,
    readable,
    save_tokenizer,
    write_sentence_files,
    write_text,
)

# Files that not every estimator has. On the hub, those of the estimator that is
# replaced would stay, so they are deleted.
_OF_SOME_ONLY = [HEAD_NAME, ARRAYS_NAME, "config.json", f"{BACKBONE}/*"]


def save(
    estimator: Any,
    folder: str | os.PathLike[str],
    include_backbone: bool,
    overwrite: bool,
) -> None:
    """Save a fitted estimator as a folder."""
    check_is_fitted(estimator)
    check_parameters(estimator, estimator._rules)
    backbone = estimator._ready().backbone
    folder = _at_home(folder)
    include_backbone = include_backbone or lies_in(backbone.folder, folder)
    text = readable(describe(estimator, include_backbone))
    config = AdaLoraConfig.from_dict(estimator._adapter.config)
    tensors, head = estimator._adapter.tensors()
    with written_whole(folder, overwrite=overwrite) as staged:
        write_adapter(staged, config, tensors)
        if head:
            save_file(head, staged / HEAD_NAME)
        else:  # tells transformers the names of the outputs
            own: Any = copy.deepcopy(backbone.module.config)
            own.dtype = None  # that of the weights, not the precision of `fit`
            name_outputs(own, estimator)
            own.save_pretrained(staged)
        if names := estimator._array_names:
            arrays = {n: torch.from_numpy(getattr(estimator, n)) for n in names}
            save_file(arrays, staged / ARRAYS_NAME)
        save_tokenizer(backbone.tokenizer, staged, estimator.row_format)
        if include_backbone:
            copy_model(backbone, staged / BACKBONE)
        card = write_card(estimator, backbone.pretrained.part)
        write_text(staged / CARD_NAME, card)
        write_text(staged / STATE_NAME, text)


def load(
    cls: Any,
    source: str | os.PathLike[str],
    revision: str | None,
    local_files_only: bool | None,
    trust_remote_code: bool,
    parameters: dict[str, Any],
) -> Any:
    """Load an estimator of a class from a folder, or from the hub."""
    prepare_threads()  # to check many numbers takes several
    folder, root = find(source, revision, bool(local_files_only), trust_remote_code)
    refuse_links(folder, root)
    described = read_described(folder)
    own = read_parameters(described, folder, cls, parameters, trust_remote_code)
    if local_files_only is not None:
        only = {"local_files_only": local_files_only}
        own["model_kwargs"] = {**(own.get("model_kwargs") or {}), **only}
    estimator = cls(**own).set_params(**parameters)
    check_parameters(estimator, cls._rules)
    vars(estimator).update(read_fitted(described, folder, cls))
    # Labels of one training and numbers of another would make a third estimator.
    if read_json(folder / STATE_NAME) != described:
        raise ValueError(
            "The folder must stay as it is while it is read. Got "
            f"{str(folder)!r}, which was replaced just now: load it again."
        )
    return estimator


def push_to_hub(
    estimator: Any,
    repo_id: str,
    private: bool | None,
    revision: str | None,
    commit_message: str,
    include_backbone: bool,
) -> str:
    """Upload a fitted estimator to the hub; return the address of the commit."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "estimator"
        save(estimator, folder, include_backbone, overwrite=False)
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
    estimator: Any, folder: str | os.PathLike[str], overwrite: bool
) -> None:
    """Write the updates as plain LoRA."""
    check_is_fitted(estimator)
    check_parameters(estimator, estimator._rules)
    config = AdaLoraConfig.from_dict(estimator._adapter.config)
    tensors, _ = estimator._adapter.tensors()
    folder = _at_home(folder)
    for model in (os.path.expanduser(estimator.model), estimator._adapter.found_in):
        if os.path.isdir(model):
            _refuse_own_model(Path(model), folder)
    with written_whole(folder, overwrite=overwrite) as staged:
        write_lora(staged, config, tensors)
        write_text(staged / CARD_NAME, write_export_card(estimator, merged=False))


@own_settings_of_torch()
def merge_and_save(
    estimator: Any, folder: str | os.PathLike[str], overwrite: bool
) -> None:
    """Write a plain transformers model with the updates merged in, in float32."""
    check_is_fitted(estimator)
    check_parameters(estimator, estimator._rules)
    network, backbone = estimator._exact_network()
    folder = _at_home(folder)
    _refuse_own_model(backbone.folder, folder)
    part, longest = backbone.pretrained.part, estimator.max_length
    _, head = estimator._adapter.tensors()
    with written_whole(folder, overwrite=overwrite) as staged:
        encoder = network.encoder.merge_and_unload()
        merged: Any = whole_model(backbone, encoder)
        if head:
            # In config.json, transformers would take them for a random head's.
            labels = json.dumps(estimator._targets.names)
            save_file(head, staged / HEAD_NAME, metadata={"labels": labels})
        else:
            name_outputs(merged.config, estimator)
        with silent_transformers():
            merged.save_pretrained(staged)
        save_tokenizer(backbone.tokenizer, staged, estimator.row_format)
        # Of an adapted part, such as BART's encoder, it would read the whole.
        if head and not part:
            write_sentence_files(
                staged,
                pooling=network.pooling,
                width=backbone.width,
                max_length=min(longest, backbone.longest or longest),
            )
        card = write_export_card(estimator, part, merged=True)
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

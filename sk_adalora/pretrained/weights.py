"""The files that a pretrained model is read from: check, hash, compare, copy them."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sk_adalora.adalora.untrusted import check_header, read_bounded

# Files of vocabularies alone. Marian's are *.spm, ProphetNet's *.tokenizer, PhoBERT's
# *.codes.
_PIECES = ("*.model", "*.spm", "*.tokenizer", "*.codes", "*.tiktoken")
_VOCABULARIES = (*_PIECES, "vocab*", "tokenizer*", "tekken.json")
# Name patterns of the files that models are read from beside their weights.
BESIDE_WEIGHTS = ("*.json", "*.txt", *_PIECES)
# Where transformers looks for weights, in this order.
_INDEX = ".index.json"
SAFETENSORS, PYTORCH = "model.safetensors", "pytorch_model.bin"
_WEIGHTS = (SAFETENSORS, f"{SAFETENSORS}{_INDEX}", PYTORCH, f"{PYTORCH}{_INDEX}")

# State and hash of files, by path.
_hashes: dict[Path, tuple[tuple[int, ...], str]] = {}


# ---- which files ------------------------------------------------------------


def has_vocabulary(folder: Path) -> bool:
    """Tell whether a folder holds any file that may be a vocabulary."""
    return any(any(folder.glob(pattern)) for pattern in _VOCABULARIES)


def weight_names(folder: Path) -> list[str]:
    """Name the files that transformers reads weights from."""
    name = next((name for name in _WEIGHTS if (folder / name).is_file()), "")
    if not name.endswith(_INDEX):
        return [name] if name else []
    shards = read_object(folder / name).get("weight_map")
    return sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; transformers will say what is wrong with another file."""
    text = read_bounded(path)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _files(folder: Path, *, with_code: bool) -> list[Path]:
    """Return the files that a model is read from."""
    patterns = (*BESIDE_WEIGHTS, "*.py") if with_code else BESIDE_WEIGHTS
    beside = [path for pattern in patterns for path in folder.glob(pattern)]
    found = {*map(folder.joinpath, weight_names(folder)), *beside}
    return sorted(path for path in found if os.path.isfile(path))


def copy_backbone(folder: Path, target: Path, *, with_code: bool = False) -> None:
    """Copy configuration, tokenizer and weights of a model, and nothing else.

    `target` is a folder that does not exist yet.
    """
    target.mkdir()
    for path in _files(folder, with_code=with_code):
        shutil.copyfile(path, target / path.name)  # follows links of the hub's cache


def lies_in(model: Path, folder: Path) -> bool:
    """Tell whether replacing a folder would delete the pretrained model inside it."""
    inside = model.resolve()
    chain = (inside, *inside.parents)
    # By its name too: another writer may just have moved it away.
    if Path(os.path.realpath(folder)) in chain:
        return True
    # Compare files, not names: "Models" is also "models" on macOS and Windows.
    return folder.exists() and any(
        os.path.samefile(parent, folder) for parent in chain if parent.exists()
    )


# ---- hashes -----------------------------------------------------------------


def content_hash(folder: Path) -> str:
    """Return the SHA-256 of a model's weights.

    For a single file its own hash, as published; for several, the hash of their hashes.
    """
    names = weight_names(folder)
    if not names:
        raise ValueError(
            f"The folder of `model` must hold weights. Got {str(folder)!r} without "
            f"{SAFETENSORS} or {PYTORCH}, or an index that names several such files. "
            "Save it with `save_pretrained`."
        )
    own = [n for n in names if Path(n).name == n and os.path.isfile(folder / n)]
    if own != names:
        elsewhere = [name for name in names if name not in own]
        raise ValueError(
            f"The weights of `model` must be files of its folder. Got {str(folder)!r}, "
            f"which names {reprlib.repr(elsewhere)}. Save it with `save_pretrained`."
        )
    hashes = [file_hash(folder / name) for name in names]
    return hashes[0] if len(hashes) == 1 else _hash_text("\n".join(hashes))


def file_hashes(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return name and SHA-256 of each file that a model is read from."""
    files = _files(folder, with_code=True)
    return tuple((path.name, file_hash(path)) for path in files)


def file_hash(path: Path) -> str:
    """Hash a file once a process, as long as it does not change."""
    status = path.stat()
    # With the time of any change: archives and copies keep that of writing, and the
    # number of a file may be given again.
    state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    known, digest = _hashes.get(path, (None, ""))
    if known != state:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        _hashes[path] = state, digest
    return digest


def forget_hashes() -> None:
    """Forget the hashes of files."""
    _hashes.clear()


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---- tokenizer and settings -------------------------------------------------

# Texts that tokenizers with the same vocabulary may still split differently: capitals,
# accents, punctuation, scripts.
SAMPLES = [
    "The quick brown Fox didn't jump: 3.14 times, at 10%!",
    "Na\u00efve caf\u00e9s\tand\u00a0e-mails\nin UPPER_case, unbelievably",
    "\u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439",
]

# Entries of config.json that change nothing of what a model computes: where it comes
# from, what its outputs are called, how it was stored, how it is trained from scratch.
_OTHER_ENTRIES = {
    *("_name_or_path", "transformers_version", "architectures", "auto_map"),
    *("id2label", "label2id", "num_labels", "problem_type", "task_specific_params"),
    *("dtype", "torch_dtype", "use_cache", "gradient_checkpointing", "return_dict"),
    *("initializer_range", "initializer_factor"),
}


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the SHA-256 of what a tokenizer does to texts, and of its vocabulary.

    Not of its files, which may be written differently and mean the same: of the token
    ids that it makes of some texts, and the side on which it cuts long ones.
    """
    tokens = tokenizer(SAMPLES)["input_ids"]
    side = getattr(tokenizer, "truncation_side", "right")
    return _hash_text(json.dumps([tokens, side, _vocabulary(tokenizer)]))


def _vocabulary(tokenizer: Any) -> list[tuple[int, str]] | None:
    """Return the tokens of a tokenizer and their ids; None if it does not tell.

    Where a tokenizer tells them apart, tokens that were added to the vocabulary are
    left out: which ones are may change with the version of transformers.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    try:
        if backend is None:
            found = tokenizer.get_vocab()
        else:
            found = backend.get_vocab(with_added_tokens=False)
    except (NotImplementedError, AttributeError, TypeError):  # of a model's own
        return None
    # Tokens are bytes in some tokenizers that models bring along.
    return sorted((int(i), repr(token)) for token, i in found.items())


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what the config.json of a model's folder says of how it computes."""
    path = folder / "config.json"
    text = read_bounded(path)
    try:
        # NaN and infinity, which strict readers of JSON refuse, become texts.
        return _without_others(json.loads(text, parse_constant=str))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} must be JSON. Got: {error}. The file is broken."
        ) from error


def _without_others(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {
        name: _without_others(value)  # a model of texts and images has one for each
        for name, value in settings.items()
        if name not in _OTHER_ENTRIES
    }


def changed_settings(then: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Return the entries of config.json that differ, and how.

    Parameters
    ----------
    then, now : dict
        What :func:`read_settings` returned. `then` may be of an untrusted file.

    Returns
    -------
    dict of str to str
        By name, what to read in an error message. An entry that only one has, or that
        is None, is no difference: files may leave out what is so by default, or be of
        another version of transformers, with other names.
    """
    changed: dict[str, str] = {}
    for name in sorted(then.keys() & now.keys()):
        before, after = then[name], now[name]
        if isinstance(before, dict) and isinstance(after, dict):
            inner = changed_settings(before, after)
            changed |= {f"{name}.{entry}": how for entry, how in inner.items()}
        elif before != after and before is not None and after is not None:
            changed[name] = f"{reprlib.repr(after)} instead of {reprlib.repr(before)}"
    return changed


# ---- what is refused --------------------------------------------------------

# What transformers would load silently beside the weights that are hashed: an adapter,
# where PEFT is installed, and the checkpoints that several processes wrote.
_LOADED_BESIDE = ("adapter_config.json", "shard-*-model-*-of-*.safetensors*")
# Entries of config.json by which transformers reads other files than the usual ones.
_NAMES_FILES = ("configuration_files", "transformers_weights")
# Parts of the names of entries of config.json that name code, of attention or experts.
# With a "/" in it, that is a repository of the hub, whose code would be run.
_NAMES_CODE = ("attn_implementation", "experts_implementation")
# The entry that gives others another name, also those that name code or weights.
_RENAMES = "attribute_map"
# The entry of models of images that may name a model of the hub, of which transformers
# would fetch the settings, whether or not the network may be used.
_NAMES_MODEL = "backbone"
# Numbers of config.json that cost time by themselves, and what no model exceeds: by the
# ends of their names.
_MOST = {
    "labels": 100_000,
    "layers": 1_000,
    "layer": 1_000,
    "groups": 1_000,
    "group_num": 1_000,
    "experts": 10_000,
    "positions": 2**27,
    "position_embeddings": 2**27,
    "ctx": 2**27,
    "seq_len": 2**27,
}
_LABELS = ("id2label", "label2id")
# Each pair of tokens that belong together is a list in it: Gemma's has 0.5 million.
_TOKENIZER, _MOST_OF_TOKENIZER = "tokenizer.json", (2**27, 2**21)


def check_folder(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a folder that lacks files, or names others than those it is known by.

    One that holds an estimator or an adapter is refused, too, and, without
    `trust_remote_code`, one that names code or a model of the hub.
    """
    if (folder / "sk_adalora.json").is_file():
        raise ValueError(
            f"The folder of `model` must hold a pretrained model. Got {str(folder)!r} "
            "with a fitted estimator. Load that with `from_pretrained`, or write a "
            "model with its `merge_and_save`."
        )
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"The folder of `model` must hold config.json. Got {str(folder)!r} "
            "without it. Save the model with `save_pretrained`."
        )
    if not has_vocabulary(folder):
        raise ValueError(no_tokenizer(folder))
    beside = [path.name for name in _LOADED_BESIDE for path in folder.glob(name)]
    if beside:
        raise ValueError(
            "The folder of `model` must hold no adapter of PEFT's and no parts of a "
            f"model beside its weights. Got {str(folder)!r} with {beside[0]}. Merge "
            "it, or move it away."
        )
    settings = _read_small(folder)
    _check_settings(settings, folder, trust_remote_code)
    _check_numbers(settings, folder)
    for name in weight_names(folder):
        if name.endswith(".safetensors") and os.path.isfile(folder / name):
            try:
                check_header(folder / name)
            except ValueError as error:
                raise ValueError(
                    "The weights of `model` must be files of safetensors. Got "
                    f"{str(folder)!r} with {name}: {error}. Copy it again."
                ) from error


def _read_small(folder: Path) -> dict[str, Any]:
    """Return config.json; refuse files of a tokenizer that no tokenizer has."""
    for name in (
        "tokenizer_config.json",
        "added_tokens.json",
        "special_tokens_map.json",
    ):
        if (folder / name).is_file():
            read_bounded(folder / name)
    if (folder / _TOKENIZER).is_file():
        read_bounded(folder / _TOKENIZER, *_MOST_OF_TOKENIZER)
    return read_object(folder / "config.json")


def _check_numbers(settings: Any, folder: Path) -> None:
    """Refuse settings, nested ones too, with numbers that no model has."""
    for name, value in settings.items() if isinstance(settings, dict) else ():
        _check_numbers(value, folder)
        most = next((n for end, n in _MOST.items() if name.endswith(end)), None)
        if name in _LABELS and isinstance(value, dict | list):
            most, value = _MOST["labels"], len(value)
        if most is not None and isinstance(value, int | float) and value > most:
            raise ValueError(
                f"The config.json of `model` must say at most {most} of `{name}`. Got "
                f"{str(folder)!r} with {reprlib.repr(value)}. It is broken, or was "
                "changed: save the model with `save_pretrained`."
            )


def _check_settings(
    settings: dict[str, Any], folder: Path, trust_remote_code: bool
) -> None:
    """Refuse a config.json that names other files, or what lies on the hub."""
    for name in _NAMES_FILES:
        if name in settings:
            raise ValueError(
                "The config.json of `model` must name no other files. Got "
                f"{str(folder)!r} with `{name}`. Save it with `save_pretrained`."
            )
    code = None if trust_remote_code else next(_named_code(settings), None)
    if code is not None:
        raise ValueError(
            "The config.json of `model` must not name code of the hub, or a model by "
            f"`{_NAMES_MODEL}`, or rename entries by `{_RENAMES}`. Got "
            f"{reprlib.repr(code)} in {str(folder)!r}. "
            "Remove that entry, or pass trust_remote_code=True if you trust its "
            "authors."
        )


def no_tokenizer(folder: Path) -> str:
    """Return the error about a folder without a vocabulary."""
    return (
        f"The folder of `model` must hold a tokenizer. Got {str(folder)!r} without the "
        "vocabulary of one. Save it there with `tokenizer.save_pretrained`."
    )


def _named_code(settings: Any, names_code: bool = False) -> Iterator[str]:
    """Go through what nested settings name of the hub, and what may hide such names."""
    if isinstance(settings, dict):  # an entry may be one, with a name for each part
        for name, value in settings.items():
            if (name == _RENAMES and value) or (
                name == _NAMES_MODEL and isinstance(value, str)
            ):
                yield name
            named = any(part in name for part in _NAMES_CODE)
            yield from _named_code(value, names_code or named)
    elif isinstance(settings, list):
        for value in settings:
            yield from _named_code(value, names_code)
    elif names_code and isinstance(settings, str) and "/" in settings:
        yield settings

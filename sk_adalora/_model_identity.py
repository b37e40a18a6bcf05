"""What identifies a pretrained model beside its weights: its settings and tokens."""

from __future__ import annotations

import hashlib
import json
import reprlib
from operator import itemgetter
from pathlib import Path
from typing import Any

# Entries of config.json that change nothing of what a model computes: where it comes
# from, what its outputs are called, how it was stored, how it is trained from scratch.
_OTHER_ENTRIES = {
    *("_name_or_path", "transformers_version", "architectures", "auto_map"),
    *("id2label", "label2id", "num_labels", "problem_type", "task_specific_params"),
    *("dtype", "torch_dtype", "use_cache", "gradient_checkpointing", "return_dict"),
    *("initializer_range", "initializer_factor"),
}

# Texts that tokenizers with the same vocabulary may still split differently: capitals,
# accents, punctuation, scripts.
_SAMPLES = [
    "The quick brown Fox didn't jump: 3.14 times, at 10%!",
    "Na\u00efve caf\u00e9s\tand\u00a0e-mails\nin UPPER_case, unbelievably",
    "\u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439",
]


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the SHA-256 of the token ids that a tokenizer makes of some texts.

    Not of its files, which may be written differently and mean the same.
    """
    return _hash(tokenizer(_SAMPLES)["input_ids"])


def vocabulary_hash(tokenizer: Any) -> str | None:
    """Return the SHA-256 of a tokenizer's tokens and their ids; None without any.

    Tokens that were added to the vocabulary are left out: which ones are may change
    with the version of transformers.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    try:
        if backend is None:
            vocabulary = tokenizer.get_vocab()
        else:
            vocabulary = backend.get_vocab(with_added_tokens=False)
    except NotImplementedError:  # a model's own tokenizer
        return None
    return _hash(sorted(vocabulary.items(), key=itemgetter(1, 0)))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what the config.json of a model's folder says of how it computes."""
    text = (folder / "config.json").read_text(encoding="utf8")
    return _read(text)


def _read(text: str) -> dict[str, Any]:
    """Read JSON; NaN and infinity, which strict readers refuse, become texts."""
    settings = json.loads(text, parse_constant=str)
    return _without_others(settings)  # type: ignore[no-any-return]


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
        What :func:`read_settings` returned.

    Returns
    -------
    dict of str to str
        By name, what to read in an error message. An entry that one of them lacks
        counts as what transformers takes for it.
    """
    if then == now:
        return {}
    defaults = _defaults(now)
    then, now = {**defaults, **then}, {**defaults, **now}
    return {
        name: f"{_shown(now, name)} instead of {_shown(then, name)}"
        for name in sorted({*then, *now})
        if _shown(now, name) != _shown(then, name) or now[name] != then[name]
    }


def _shown(settings: dict[str, Any], name: str) -> str:
    return reprlib.repr(settings[name]) if name in settings else "nothing"


def _defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers takes where config.json says nothing."""
    import transformers

    try:
        config = transformers.AutoConfig.for_model(settings.get("model_type"))
        return _read(config.to_json_string(use_diff=False))
    except Exception:  # a model's own class, or one that needs arguments
        return {}

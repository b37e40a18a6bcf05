"""What identifies a pretrained model beside its weights: its settings and tokens."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterator
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

# No size of a model is larger.
_LARGEST = 10**8

# Texts that tokenizers with the same vocabulary may still split differently: capitals,
# accents, punctuation, scripts.
_SAMPLES = [
    "The quick brown Fox didn't jump: 3.14 times, at 10%!",
    "Na\u00efve caf\u00e9s\tand\u00a0e-mails\nin UPPER_case, unbelievably",
    "\u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439",
]


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the SHA-256 of the token ids that a tokenizer makes of some texts.

    Not of its files, which may be written differently and mean the same. The side on
    which it cuts long texts is added if that is not the right.
    """
    tokens = tokenizer(_SAMPLES)["input_ids"]
    side = getattr(tokenizer, "truncation_side", "right")
    return _hash(tokens if side == "right" else [tokens, side])


def vocabulary_hash(tokenizer: Any) -> str | None:
    """Return the SHA-256 of a tokenizer's tokens and their ids; None without any.

    Where a tokenizer tells them apart, tokens that were added to the vocabulary are
    left out: which ones are may change with the version of transformers.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    try:
        if backend is None:
            vocabulary = tokenizer.get_vocab()
        else:
            vocabulary = backend.get_vocab(with_added_tokens=False)
        # Tokens are bytes in some tokenizers that models bring along.
        return _hash(sorted((int(i), repr(token)) for token, i in vocabulary.items()))
    except Exception:  # of a model's own tokenizer
        return None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what the config.json of a model's folder says of how it computes."""
    text = (folder / "config.json").read_text(encoding="utf8")
    return _read(text)


def _read(text: str) -> dict[str, Any]:
    """Read JSON; NaN and infinity, which strict readers refuse, become texts."""
    settings = json.loads(text, parse_constant=str)
    return _without_others(settings)


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
        What :func:`read_settings` returned. Only `now` is trusted: `then` may have
        entries that it never returns, such as a number of labels.

    Returns
    -------
    dict of str to str
        By name, what to read in an error message. Where the files say the same in
        other words, by leaving out what is so by default or under names of another
        version of transformers, nothing differs.
    """
    then = _without_others(then)
    if then == now:
        return {}
    plain = {n for n in then.keys() & now.keys() if _is_plain(then[n], now[n])}
    changed = _differences({n: then[n] for n in plain}, {n: now[n] for n in plain})
    if changed:
        return changed
    read_then, read_now = _as_transformers_reads(then), _as_transformers_reads(now)
    if read_then is None or read_now is None:
        return _differences(then, now)
    return _differences(read_then, read_now)


def _is_plain(*values: Any) -> bool:
    """Tell whether values can be compared as they are: None may stand for a default."""
    return all(isinstance(value, str | int | float) for value in values)


def _differences(then: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    return {
        name: f"{_shown(now, name)} instead of {_shown(then, name)}"
        for name in sorted({*then, *now})
        if name not in then or name not in now or then[name] != now[name]
    }


def _shown(settings: dict[str, Any], name: str) -> str:
    return reprlib.repr(settings[name]) if name in settings else "nothing"


def _as_transformers_reads(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return all entries of the configuration that transformers makes of some."""
    import transformers

    # Some configurations have a list as long as the number of layers.
    if any(size > _LARGEST for size in _sizes(settings)):
        return None
    try:
        config = transformers.AutoConfig.for_model(**settings)
        return _read(config.to_json_string(use_diff=False))
    except Exception:  # a model's own class, or entries that it does not take
        return None


def _sizes(value: Any) -> Iterator[float]:
    """Go through all numbers in nested settings."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _sizes(inner)
    elif isinstance(value, int | float):
        yield value

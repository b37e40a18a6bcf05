"""What identifies a pretrained model beside its weights: its settings and tokens."""

from __future__ import annotations

import hashlib
import json
import reprlib
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
SAMPLES = [
    "The quick brown Fox didn't jump: 3.14 times, at 10%!",
    "Na\u00efve caf\u00e9s\tand\u00a0e-mails\nin UPPER_case, unbelievably",
    "\u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439",
]


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the SHA-256 of the token ids that a tokenizer makes of some texts.

    Not of its files, which may be written differently and mean the same. The side on
    which it cuts long texts is added if that is not the right.
    """
    tokens = tokenizer(SAMPLES)["input_ids"]
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
    except MemoryError:  # which says nothing about the tokenizer
        raise
    except Exception:  # of a model's own tokenizer
        return None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what the config.json of a model's folder says of how it computes."""
    text = (folder / "config.json").read_text(encoding="utf8")
    # NaN and infinity, which strict readers of JSON refuse, become texts.
    return _without_others(json.loads(text, parse_constant=str))


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
        By name, what to read in an error message. An entry that only one has, or that
        is None, is no difference: files may leave out what is so by default, or be of
        another version of transformers, with other names.
    """
    changed: dict[str, str] = {}
    for name in sorted((then.keys() & now.keys()) - _OTHER_ENTRIES):
        before, after = then[name], now[name]
        if isinstance(before, dict) and isinstance(after, dict):
            inner = changed_settings(before, after)
            changed |= {f"{name}.{entry}": how for entry, how in inner.items()}
        elif before != after and before is not None and after is not None:
            changed[name] = f"{reprlib.repr(after)} instead of {reprlib.repr(before)}"
    return changed

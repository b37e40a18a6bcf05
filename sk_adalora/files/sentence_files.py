"""Files that tell sentence-transformers how a fit made vectors of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Its names for our `pooling`, in the form that its older versions read, too.
_MODES = {
    "mean": "mean_tokens",
    "cls": "cls_token",
    "last": "lasttoken",
    "max": "max_tokens",
}
_POOLING = "1_Pooling"


def write_sentence_files(
    folder: Path, *, pooling: str, width: int, max_length: int
) -> None:
    """Write what ``SentenceTransformer(folder)`` reads beside the model.

    `width` is the length of a pooled vector, `max_length` the longest text in tokens.
    """
    parts = {"Transformer": "", "Pooling": _POOLING}
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, (kind, path) in enumerate(parts.items())
    ]
    modes = {f"pooling_mode_{mode}": ours == pooling for ours, mode in _MODES.items()}
    (folder / _POOLING).mkdir()
    _write(folder / "modules.json", modules)
    of_pooling = {"word_embedding_dimension": width, **modes}
    _write(folder / _POOLING / "config.json", of_pooling)
    of_model = {"max_seq_length": max_length, "do_lower_case": False}
    _write(folder / "sentence_bert_config.json", of_model)


def _write(path: Path, values: Any) -> None:
    text = json.dumps(values, indent=2)
    path.write_text(text + "\n", encoding="utf8", newline="\n")

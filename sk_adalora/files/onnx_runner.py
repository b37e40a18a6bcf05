"""Predict with the model in this folder: python run.py "a text" "another text"."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Model:
    """The model in a folder, as the estimator that it was exported from."""

    def __init__(self, folder: Path = Path(__file__).parent) -> None:
        self.config = json.loads((folder / "config.json").read_text("utf8"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = self.config["split_special_tokens"]
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"))

    def outputs(self, rows: Any, batch_size: int = 32) -> Any:
        """Return the probabilities of rows; a regressor's are its numbers."""
        starts = range(0, len(rows), batch_size)
        return np.concatenate([self._run(rows[i : i + batch_size]) for i in starts])

    def predict(self, rows: Any) -> Any:
        """Return the class of each row, the 0 and 1 of its labels, or its numbers."""
        found = self.outputs(rows)
        if self.config["kind"] == "classes":
            return [self.config["classes"][i] for i in found.argmax(axis=1)]
        if self.config["kind"] != "labels":
            return found
        thresholds = self.config["thresholds"]
        yes = found > 0.5 if thresholds is None else found >= thresholds
        return yes.astype(int)

    def _run(self, rows: Any) -> Any:
        encoded = self.tokenizer.encode_batch([self._text(row) for row in rows])
        given = {
            "input_ids": [row.ids or [0] for row in encoded],
            "attention_mask": [row.attention_mask or [0] for row in encoded],
            "token_type_ids": [row.type_ids or [0] for row in encoded],
        }
        inputs = {n: np.array(given[n], np.int64) for n in self.config["inputs"]}
        return self.session.run(None, inputs)[0]

    def _text(self, row: Any) -> Any:
        """Return the text of a dict of cells; a text, or a pair of them, as it is."""
        if not isinstance(row, dict):
            return row if isinstance(row, str) else tuple(row)
        cells = {name: row[name] for name in self.config["columns"]}
        if template := self.config["template"]:
            filled = {k: "" if v is None else v for k, v in cells.items()}
            return template.format(**filled)
        return "\n".join(f"{k}: {v}" for k, v in cells.items() if v is not None)


if __name__ == "__main__":
    print(*Model().predict(sys.argv[1:]), sep="\n")  # noqa: T201

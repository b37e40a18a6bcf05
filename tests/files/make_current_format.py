"""Make the files of the current format that `test_current_format.py` reads.

Run it, and commit what it writes, when the format has changed on purpose:

    PYTHONPATH=.:tests python tests/files/make_current_format.py
"""

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

import joblib
import transformers
from _tiny import build
from _tiny_model import write_model, write_tiny_model
from _toy import QUICK, make, make_regressor, topics

from sk_adalora import AdaLoraEncoder

PLACE = Path(__file__).parent / "current_format"
X, Y = topics(48)
ROWS = X[:6]
# By the name of their files: what was fitted, and what it said of `ROWS`.
FITS = {
    "classifier": lambda model: make(model, early_stopping=True).fit(X, Y),
    "regressor": lambda model: make_regressor(model).fit(
        X, [float(x) for x in range(48)]
    ),
    "encoder": lambda model: AdaLoraEncoder(model, n_components=3, **QUICK).fit(X, Y),
}


def outputs(fitted):
    """What an estimator says of some rows, for JSON."""
    names = ("predict_proba", "predict", "transform")
    method = next(name for name in names if hasattr(fitted, name))
    return getattr(fitted, method)(ROWS).tolist()


def small_model(folder):
    """A model of a few thousand numbers: it is kept in the repository."""
    write_tiny_model(folder)
    config = transformers.BertConfig(
        vocab_size=transformers.AutoConfig.from_pretrained(folder).vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    write_model(Path(folder), build(lambda: transformers.BertModel(config)))
    return folder


def main():
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)
        small_model("model")
        for name, fit in FITS.items():
            fitted = fit("model")
            fitted.save_pretrained(PLACE / name, include_backbone=True)
            # No file in a repository names a folder of the machine that wrote it.
            fitted._adapter = dataclasses.replace(fitted._adapter, found_in="model")
            joblib.dump(fitted, PLACE / f"{name}.joblib", compress=3)
            expected = json.dumps(outputs(fitted), indent=1)
            (PLACE / f"{name}.json").write_text(expected + "\n", "utf8")
        os.chdir(PLACE)


if __name__ == "__main__":
    main()

"""Files that an older version wrote are read, whatever has been renamed since.

``python tests/test_old_files.py tests/format_1`` wrote the files, and may do so again
until the first release. From then on, they stay as they are, and a change of the format
adds a folder.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from _tiny_model import write_tiny_model
from _toy import make, make_regressor, topics

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor

X, Y = topics(24)
NUMBERS = np.linspace(-1, 3, 24)
INDICATOR = np.column_stack([Y == "art", Y != "sport"]).astype(int)
# Little is saved, but something of everything.
SMALL = {"target_modules": ["query"], "epochs": 1, "early_stopping": True}
TARGETS = {
    "classifier": (make, Y, {}),
    "tagger": (make, INDICATOR, {"pooling": "model"}),
    "regressor": (make_regressor, NUMBERS, {}),
}
FORMATS = sorted(Path(__file__).parent.glob("format_*"))
# What tells the pretrained model: the tiny one is not the same to the last digit
# wherever it is made.
IDENTITY = ("content_hash", "tokenizer_hash", "vocabulary_hash", "settings")


def fit(name, model):
    make_one, y, changed = TARGETS[name]
    return make_one(model, **SMALL, **changed).fit(X, y)


def write(folder):
    """Write a folder and a joblib file for each kind of target."""
    model = write_tiny_model(str(Path(tempfile.gettempdir()) / "tiny-bert"))
    for name in TARGETS:
        fitted = fit(name, model)
        fitted.save_pretrained(folder / name, overwrite=True)
        joblib.dump(fitted, folder / f"{name}.joblib", compress=True)


def read(path):
    if path.suffix == ".joblib":
        return joblib.load(path)
    kind = AdaLoraRegressor if path.name == "regressor" else AdaLoraClassifier
    return kind.from_pretrained(path)


def test_there_are_files():
    assert FORMATS


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("folder", FORMATS, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore:The estimator was trained with")
def test_files_of_an_older_version(folder, name, tiny_model):
    now = fit(name, tiny_model)
    identity = {field: getattr(now._adapter, field) for field in IDENTITY}
    outputs = []
    for path in (folder / name, folder / f"{name}.joblib"):
        then = read(path)
        assert then._adapter.format == int(folder.name.removeprefix("format_"))
        then._adapter = replace(then._adapter, **identity)
        then.set_params(model=tiny_model)
        assert vars(now).keys() - vars(then).keys() <= {"_live", "_validation_seed"}
        assert vars(then).keys() <= vars(now).keys()
        assert sum(then.ranks_.values()) == sum(now.ranks_.values())
        assert then.fit_report_.n_rows == now.fit_report_.n_rows
        assert len(then.history_.score) == len(now.history_.score) == 1
        if name == "classifier":
            np.testing.assert_array_equal(then.classes_, now.classes_)
        outputs.append(then._predict_outputs(X))
        assert then.predict(X).shape == now.predict(X).shape
        assert then.predict(X).dtype == now.predict(X).dtype
        assert then.set_params(warm_start=True).fit(X, TARGETS[name][1]).n_iter_ == 1

    np.testing.assert_array_equal(*outputs)


if __name__ == "__main__":
    write(Path(sys.argv[1]))

"""Folders of estimators: to be read, compared and broken."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

STATE_NAME = "sk_adalora.json"

# Large enough that predictions differ from those without the adapter.
STRONG = {"learning_rate": 0.05, "epochs": 3}


def strengthen(fitted, factor=30):
    """Make the update of a fitted estimator larger than training did."""
    arrays = {
        name: array * np.float32(factor) if name.endswith("lora_E") else array
        for name, array in fitted._adapter.arrays.items()
    }
    fitted._adapter = replace(fitted._adapter, arrays=arrays)
    fitted._predictor = None
    return fitted


def read(folder):
    """What ``sk_adalora.json`` says."""
    return json.loads((Path(folder) / STATE_NAME).read_text("utf8"))


def write(folder, described):
    """Write ``sk_adalora.json``."""
    (Path(folder) / STATE_NAME).write_text(json.dumps(described), "utf8")


def bytes_of(folder):
    """All files below a folder with their bytes, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def there_and_back(estimator, folder, **options):
    estimator.save_pretrained(folder, **options)
    return type(estimator).from_pretrained(folder)


def learned(estimator):
    """All fitted attributes, to be compared."""
    names = {n for n in vars(estimator) if n.endswith("_") and not n.startswith("_")}
    return {name: getattr(estimator, name) for name in sorted(names)}


def assert_equal_estimators(loaded, fitted):
    assert type(loaded) is type(fitted)
    assert loaded.get_params() == fitted.get_params()
    for name, value in learned(fitted).items():
        np.testing.assert_equal(getattr(loaded, name), value, err_msg=name)
        assert type(getattr(loaded, name)) is type(value)
    rebuilt = {"_predictor"}
    assert vars(loaded).keys() | rebuilt == vars(fitted).keys() | rebuilt
    assert loaded._adapter.config["rank_pattern"] == fitted.rank_pattern_
    for name, array in fitted._adapter.arrays.items():
        np.testing.assert_array_equal(loaded._adapter.arrays[name], array)

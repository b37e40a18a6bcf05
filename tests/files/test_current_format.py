"""Files of the current format, which were written once: each version reads them.

If this fails, either mend what reads them; or, if the format is to change, raise
`FORMAT` and run `make_current_format.py`.
"""

import json
from pathlib import Path

import joblib
import numpy as np
import pytest
from make_current_format import FITS, PLACE, outputs

from sk_adalora import AdaLoraClassifier, AdaLoraEncoder, AdaLoraRegressor
from sk_adalora.files.versions import FORMAT

CLASSES = {
    "classifier": AdaLoraClassifier,
    "regressor": AdaLoraRegressor,
    "encoder": AdaLoraEncoder,
}


def from_folder(name):
    return CLASSES[name].from_pretrained(PLACE / name)


def from_joblib(name):
    loaded = joblib.load(PLACE / f"{name}.joblib")
    return loaded.set_params(model=PLACE / name / "backbone")


@pytest.mark.filterwarnings("ignore:The estimator was trained with:UserWarning")
@pytest.mark.parametrize("load", [from_folder, from_joblib])
@pytest.mark.parametrize("name", FITS)
def test_a_file_of_the_current_format_is_read(name, load):
    loaded = load(name)
    expected = json.loads((PLACE / f"{name}.json").read_text("utf8"))

    assert loaded._adapter.format == FORMAT
    assert type(loaded) is CLASSES[name]
    np.testing.assert_allclose(outputs(loaded), expected, rtol=1e-4)
    assert sum(loaded.ranks_.values()) == loaded.history_.budget[-1]


def test_a_file_of_the_current_format_has_the_fields_of_now(tiny_model, tmp_path):
    """A field more or less is another format."""
    for name, fit in FITS.items():
        fit(tiny_model).save_pretrained(tmp_path / name)
        now, then = (fields(place / name) for place in (tmp_path, PLACE))
        assert now == then


def fields(folder):
    """The names of all fields, but those that the model and the versions differ in."""
    described = json.loads((Path(folder) / "sk_adalora.json").read_text("utf8"))
    inner = [described["fitted"], *described["fitted"].values()]
    objects = [described, *(value for value in inner if isinstance(value, dict))]
    return [sorted(value) for value in objects]

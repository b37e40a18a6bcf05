"""Files of skops: no code in them, and a short list of what must be trusted."""

import copy
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from _folders import STRONG, assert_equal_estimators, strengthen
from _toy import make, make_regressor, topics
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor

X, Y = topics(48)
PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "save_and_share.md"
CLASSIFIER, REGRESSOR = (
    [f"{kind.__module__}.{kind.__name__}"]
    for kind in (AdaLoraClassifier, AdaLoraRegressor)
)


def there_and_back(value, path, trusted):
    skops.io.dump(value, path)
    assert skops.io.get_untrusted_types(file=path) == sorted(trusted)
    return skops.io.load(path, trusted=trusted)


def test_the_page_has_the_whole_list():
    named = re.findall(r'"(sk_adalora\.[\w.]+)"', PAGE.read_text("utf8"))

    assert set(named) == {*CLASSIFIER, *REGRESSOR}


FITS = {
    "str": (X, Y, {}),
    "object": (X, Y.astype(object), {}),
    "bool": (X, np.arange(48) % 2 == 0, {}),
    "several": (X, np.eye(3, dtype=int)[np.arange(48) % 3], {}),
    "table": (pd.DataFrame({"a": X, "b": X}), Y, {"row_format": "{a}"}),
    "weights": (X, Y, {"class_weight": {"art": 1.0, "business": 2.0, "sport": 1.0}}),
    "own head": (X, Y, {"pooling": "model"}),
    "temperature": (X, Y, {"calibrate": "temperature"}),
    "thresholds": (X, np.eye(3, dtype=int)[np.arange(48) % 3], {"thresholds": "f1"}),
    "score": (X, Y, {"early_stopping": True, "learning_rate": np.float64(0.05)}),
}


@pytest.mark.parametrize("case", FITS)
def test_a_classifier_through_skops_and_back(tiny_model, tmp_path, case):
    data, y, changed = FITS[case]
    fitted = strengthen(make(tiny_model, **{**STRONG, **changed}).fit(data, y))
    loaded = there_and_back(fitted, tmp_path / "f.skops", CLASSIFIER)

    assert_equal_estimators(loaded, fitted)
    np.testing.assert_array_equal(
        loaded.predict_proba(data), fitted.predict_proba(data)
    )


def test_a_regressor_through_skops_and_back(tiny_model, tmp_path):
    fitted = make_regressor(tiny_model, **STRONG).fit(X, np.linspace(-3, 9, 48))
    loaded = there_and_back(fitted, tmp_path / "f.skops", REGRESSOR)

    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_an_unfitted_estimator_goes_through_skops(tiny_model, tmp_path):
    loaded = there_and_back(make(tiny_model), tmp_path / "f.skops", CLASSIFIER)

    assert loaded.get_params() == make(tiny_model).get_params()


TRUSTED = {"trust_remote_code": True}


def test_a_file_does_not_have_code_run(tiny_model, tmp_path):
    fitted = make(tiny_model, model_kwargs=TRUSTED).fit(X, Y)
    loaded = there_and_back(make_pipeline(fitted), tmp_path / "f.skops", CLASSIFIER)[0]

    assert loaded.model_kwargs is None
    for kept in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert kept.model_kwargs == TRUSTED
        assert vars(kept).keys() == vars(fitted).keys() - {"_predictor"}
    with zipfile.ZipFile(tmp_path / "f.skops") as archive:
        names = archive.namelist()
    assert {Path(name).suffix for name in names} == {".json", ".npy"}
    with pytest.raises(Exception, match="AdaLoraClassifier"):
        skops.io.load(tmp_path / "f.skops")


class Named(AdaLoraClassifier):
    """A subclass that pickles in its own way."""

    def __reduce__(self):
        return Named, (self.model,)


def test_a_subclass_may_reduce_itself(tiny_model):
    assert type(copy.copy(Named(tiny_model))) is Named
    assert copy.deepcopy(Named(tiny_model)).model == tiny_model


def test_in_a_search(tiny_model, tmp_path):
    search = GridSearchCV(make(tiny_model), {"epochs": [1, 2]}, cv=2).fit(X, Y)
    skops.io.dump(search, tmp_path / "s.skops")
    found = skops.io.get_untrusted_types(file=tmp_path / "s.skops")
    # What else a search holds is not ours.
    assert [name for name in found if not name.startswith(("numpy", "sklearn"))] == (
        CLASSIFIER
    )
    loaded = skops.io.load(tmp_path / "s.skops", trusted=found)
    np.testing.assert_array_equal(loaded.predict(X), search.predict(X))


def test_a_search_of_ours(tmp_path):
    from _search_worker import rows, search

    fitted = search(n_trials=3).fit(*rows())
    skops.io.dump(fitted, tmp_path / "s.skops")
    found = skops.io.get_untrusted_types(file=tmp_path / "s.skops")
    loaded = skops.io.load(tmp_path / "s.skops", trusted=found)

    assert loaded.best_params_ == fitted.best_params_
    assert loaded.study_.best_value == fitted.study_.best_value
    assert [t.state for t in loaded.trials_] == [t.state for t in fitted.trials_]

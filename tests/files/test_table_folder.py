"""Folders of estimators of mixed tables: there and back, and what is refused."""

import copy
import io
import json
import os
import pickle
import shutil
import sys
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pytest
import sklearn
from _folders import bytes_of, read, write
from _toy import QUICK, toy
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree._tree import Tree

from sk_adalora import AdaLoraEncoder, AdaLoraTableClassifier, AdaLoraTableRegressor
from sk_adalora.files.table_folder import OWN_TYPES

pytest.importorskip("skrub", reason="needs the extra `tables`")
skops = pytest.importorskip("skops.io", reason="needs the extra `tables`")

TREES = "sklearn.tree._tree.Tree"


def films(n_rows=60):
    """A table with columns of all roles and types."""
    texts, y = toy(n_rows)
    rng = np.random.default_rng(0)
    columns = {
        "review": [f"{text} {i}" for i, text in enumerate(texts)],
        "minutes": rng.integers(80, 180, n_rows).astype(float),
        "price": [f"{price:.2f}" for price in rng.uniform(5, 15, n_rows)],
        "old": np.arange(n_rows) % 3 == 0,
        "lasts": pd.to_timedelta(np.arange(n_rows), unit="h"),
        "seen": pd.date_range("2020-01-10", periods=n_rows).strftime("%d/%m/%Y"),
        "at": pd.date_range("2020-01-01", periods=n_rows, freq="7h", tz="Asia/Tokyo"),
        "genre": rng.choice(np.array(["drama", "comedy", None], object), n_rows),
        "kind": pd.Categorical(["a", "b"] * (n_rows // 2)),
        "shop": [f"shop {i % 55}" for i in range(n_rows)],
        "nothing": [None] * n_rows,
    }
    return pd.DataFrame(columns), y


X, Y = films()
ROLES = {"shop": "category"}
LABELS = np.column_stack([Y, 1 - Y, np.arange(60) % 3 == 0, 0 * Y])
NUMBERS = Y + X.minutes / 50
CLF, REG = AdaLoraTableClassifier, AdaLoraTableRegressor
# A class, what it is fitted to, and its parameters. A part alone has a share.
FITS = {
    "all parts": (CLF, X, np.where(Y, "good", "bad"), {}),
    "columns": (CLF, X, np.where(Y, "a", "b").astype(object), {"parts": ["columns"]}),
    "linear": (CLF, X, np.arange(60) % 3, {"parts": ("linear",), "cv": KFold(2)}),
    "vectors, labels": (CLF, X, LABELS, {"parts": ["vectors"]}),
    "linear, labels": (CLF, X, LABELS, {"parts": ["linear"]}),
    "text": (CLF, [*X.review], Y, {"parts": ["text"], "cv": StratifiedKFold(2)}),
    "numbers": (REG, X, NUMBERS, {"parts": ["vectors"], "encoder__tune": False}),
    "linear, numbers": (REG, X, np.c_[Y, NUMBERS], {"parts": ["linear"]}),
    "columns, numbers": (REG, X, np.c_[Y, NUMBERS], {"parts": ["columns"]}),
}


@pytest.fixture(scope="module")
def encoder(tiny_model):
    quick = {name: value for name, value in QUICK.items() if name != "random_state"}
    return AdaLoraEncoder(tiny_model, n_components=4, **quick)


@pytest.fixture(scope="module")
def fit(encoder):
    """Function: case, further parameters -> a fitted estimator. Do not refit."""
    fits = {}

    def of(case, **changed):
        cls, rows, y, own = FITS[case]
        key = (case, *changed)
        if key not in fits:
            roles = ROLES if rows is X else None
            estimator = cls(encoder, cv=2, random_state=0, column_roles=roles)
            fits[key] = estimator.set_params(**own, **changed).fit(rows, y)
        return fits[key]

    return of


@pytest.fixture(scope="module")
def saved(fit, tmp_path_factory):
    """The folder of "all parts". Do not write into it."""
    folder = tmp_path_factory.mktemp("saved") / "f"
    fit("all parts").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A folder that the test may break."""
    return shutil.copytree(saved, tmp_path / "f")


def outputs(estimator, rows=X):
    return getattr(estimator, "predict_proba", estimator.predict)(rows)


# ---- there and back ---------------------------------------------------------


@pytest.mark.parametrize("case", FITS)
def test_a_loaded_estimator_predicts_as_the_saved_one(fit, tmp_path, case):
    cls, rows, _, _ = FITS[case]
    fitted = fit(case)
    fitted.save_pretrained(tmp_path / "f")
    loaded = cls.from_pretrained(tmp_path / "f")

    np.testing.assert_array_equal(outputs(loaded, rows), outputs(fitted, rows))
    np.testing.assert_array_equal(loaded.predict(rows), fitted.predict(rows))
    assert loaded.fit_report_ == fitted.fit_report_
    assert loaded.column_roles_ == fitted.column_roles_
    assert vars(loaded).keys() == vars(fitted).keys()
    plain, expected = loaded.get_params(), fitted.get_params()
    for name in ("encoder", "final_estimator", "cv"):  # objects, new ones
        assert type(plain.pop(name)) is type(expected.pop(name))
    assert plain == expected


def test_the_list_of_types_is_what_fits_need(fit):
    needed = set()
    for case in FITS:
        bare = AdaLoraTableClassifier.__new__(type(fit(case)))
        vars(bare).update(vars(fit(case)) | {"encoder_": None})
        needed |= {*skops.get_untrusted_types(data=skops.dumps(bare))}

    assert needed <= OWN_TYPES
    # Versions of SciPy have other names for the same.
    assert all(name.startswith("scipy.") for name in OWN_TYPES - needed)


def test_what_a_folder_holds(saved):
    names = {path.name for path in saved.iterdir()}
    card = (saved / "README.md").read_text("utf8")

    assert names == {"encoder", "table.skops", "README.md"}
    assert AdaLoraEncoder.from_pretrained(saved / "encoder").n_components_ == 4
    assert "library_name: sk-adalora" in card.splitlines()
    assert "AdaLoraTableClassifier.from_pretrained" in card
    assert "text     review" in card
    with zipfile.ZipFile(saved / "table.skops") as archive:
        suffixes = {name.rsplit(".")[-1] for name in archive.namelist()}
    assert suffixes == {"json", "npy"}


def test_a_folder_is_replaced_only_if_asked(fit, folder):
    before = bytes_of(folder)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        fit("linear").save_pretrained(folder)
    assert bytes_of(folder) == before

    fit("linear").save_pretrained(folder, overwrite=True)
    assert not (folder / "encoder").exists()
    CLF.from_pretrained(folder)


def test_a_model_in_the_folder_stays_there(fit, tmp_path):
    expected = outputs(fit("all parts"))
    fit("all parts").save_pretrained(tmp_path / "f", include_backbone=True)
    (tmp_path / "f").rename(tmp_path / "g")
    loaded = CLF.from_pretrained(tmp_path / "g")
    assert (tmp_path / "g") in (tmp_path / loaded.encoder_.model).parents
    np.testing.assert_array_equal(outputs(loaded), expected)

    loaded.save_pretrained(tmp_path / "g", overwrite=True)
    again = CLF.from_pretrained(tmp_path / "g")
    np.testing.assert_array_equal(outputs(again), expected)


def test_parameters_reach_the_fitted_encoder(saved, fit):
    changed = {"encoder__batch_size": 7, "encoder__output": "vectors", "verbose": 1}
    loaded = CLF.from_pretrained(saved, **changed)

    assert loaded.get_params().items() >= changed.items()
    assert loaded.encoder_.batch_size == 7
    assert loaded.encoder_.output == "both"
    np.testing.assert_allclose(outputs(loaded), outputs(fit("all parts")), rtol=1e-5)
    for wrong in ({"parts": "text"}, {"evil": 1}, {"encoder__batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong)).split("__")[-1]):
            CLF.from_pretrained(saved, **wrong)


def test_requests_are_left_out(fit, tmp_path):
    with sklearn.config_context(enable_metadata_routing=True):
        asks = copy.copy(fit("linear")).set_fit_request(sample_weight=True)
    asks.save_pretrained(tmp_path / "f")

    np.testing.assert_array_equal(
        outputs(CLF.from_pretrained(tmp_path / "f")), outputs(asks)
    )


def test_another_final_estimator_is_a_matter_of_trust(fit, tmp_path):
    forest = fit("columns", final_estimator=RandomForestClassifier(5))
    forest.save_pretrained(tmp_path / "f")
    with pytest.raises(ValueError, match=f"others: '{TREES}'. Pass their names as"):
        CLF.from_pretrained(tmp_path / "f")

    for trusted in ([TREES], [Tree]):
        loaded = CLF.from_pretrained(tmp_path / "f", trusted=trusted)
        np.testing.assert_array_equal(outputs(loaded), outputs(forest))


class Endless:
    """skops does not come to an end with it."""

    def __init__(self):
        self.own = self

    def fit(self, X, y): ...


def test_what_cannot_be_written_is_said(fit, tmp_path):
    endless = copy.copy(fit("linear"))
    endless.final_estimator = Endless()
    with pytest.raises(TypeError, match=r"types that skops writes\. .*joblib"):
        endless.save_pretrained(tmp_path / "f")
    with pytest.raises(NotFittedError):
        CLF().save_pretrained(tmp_path / "f")
    assert not [*tmp_path.iterdir()]


def test_skops_is_of_an_extra(fit, saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match=r"sk-adalora\[tables\]"):
        fit("linear").save_pretrained(tmp_path / "f")
    with pytest.raises(ImportError, match=r"sk-adalora\[tables\]"):
        CLF.from_pretrained(saved)


def test_code_of_a_model_is_run_only_if_asked(folder):
    described = read(folder / "encoder")
    asks = [["trust_remote_code", True]]
    described["parameters"]["model_kwargs"] = {"items": asks}
    write(folder / "encoder", described)
    with pytest.raises(ValueError, match="Pass trust_remote_code=True"):
        CLF.from_pretrained(folder)

    loaded = CLF.from_pretrained(folder, trust_remote_code=True)
    for encoder in (loaded.encoder_, loaded.encoder):
        assert encoder.model_kwargs == {"trust_remote_code": True}


# ---- broken and hostile -----------------------------------------------------


def test_what_is_no_folder_of_ours(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="Check the path"):
        CLF.from_pretrained(tmp_path / "none")
    with pytest.raises(ValueError, match="Load it with its own class"):
        CLF.from_pretrained(folder / "encoder")
    with pytest.raises(ValueError, match=r"class AdaLoraTableRegressor\. Got AdaLoraT"):
        REG.from_pretrained(folder)
    shutil.rmtree(folder / "encoder")
    with pytest.raises(FileNotFoundError, match="must hold 'encoder'"):
        CLF.from_pretrained(folder)


@pytest.mark.parametrize("name", ["table.skops", "encoder"])
def test_links_out_of_the_folder(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ValueError, match="links to a place outside"):
        CLF.from_pretrained(folder)


def zipped(**files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return data.getvalue()


def schema(**changed):
    """What skops says of an array in the file x.npy."""
    array = {"__class__": "ndarray", "__module__": "numpy", "__id__": 1}
    array |= {"__loader__": "NdArrayNode", "type": "numpy", "file": "x.npy", **changed}
    return {"protocol": 3, **array}


def many(n_times):
    """A list of the same file, read anew each time."""
    items = [schema(__id__=i) for i in range(n_times)]
    return {
        **schema(__class__="list", __module__="builtins", __loader__="ListNode"),
        "content": items,
    }


def saved_zeros(n_bytes):
    data = io.BytesIO()
    np.save(data, np.zeros(n_bytes, np.uint8))
    return data.getvalue()


def sparse(n_bytes):
    """A matrix whose file is an archive, too."""
    inner = zipped(data_npy=saved_zeros(n_bytes))
    of_scipy = {"__loader__": "SparseMatrixNode", "type": "scipy"}
    return zipped(
        schema_json=json.dumps(schema(**of_scipy)), x_npy=inner, y=os.urandom(10**5)
    )


def changed_schema(data, old, new):
    """A file with other text in its schema."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as before,
        zipfile.ZipFile(out, "w") as after,
    ):
        for name in before.namelist():
            content = before.read(name)
            if name == "schema.json":
                assert old in content
                content = content.replace(old, new)
            after.writestr(name, content)
    return out.getvalue()


FILES = {
    "nothing": lambda good: b"",
    "cut": lambda good: good[:-100],
    "half": lambda good: good[: len(good) // 2],
    "nonsense": lambda good: b"PK" + bytes(1000),
    "a pickle": lambda good: pickle.dumps({}),
    "a zip of nothing": lambda good: zipped(),
    "no JSON": lambda good: zipped(schema_json="evil"),
    "a number": lambda good: zipped(schema_json="1"),
    "deep": lambda good: zipped(schema_json='{"a":' * 100_000, x_npy=os.urandom(9999)),
    "no file": lambda good: zipped(schema_json=json.dumps(schema())),
    "another object": lambda good: skops.dumps([1, 2]),
    "not fitted": lambda good: skops.dumps(CLF()),
    "a later protocol": lambda good: changed_schema(
        good, b'"protocol":', b'"protocol":9'
    ),
    "another attribute": lambda good: changed_schema(good, b'"weights_"', b'"evil"'),
    "no part": lambda good: changed_schema(good, b'"named_estimators_"', b'"evil"'),
    "no parameter": lambda good: changed_schema(good, b'"n_components"', b'"evil"'),
    "another seed": lambda good: changed_schema(good, b'"random_state"', b'"cv"'),
    "code": lambda good: skops.dumps(FunctionTransformer(os.system)),
    "a bomb": lambda good: zipped(schema_json="[" + " " * 10**8 + "]"),
    "a bomb of arrays": lambda good: zipped(
        schema_json=json.dumps(schema()), x_npy=saved_zeros(10**8)
    ),
    "a bomb of one array": lambda good: zipped(
        schema_json=json.dumps(many(3000)),
        x_npy=saved_zeros(10**6),
        y=os.urandom(10**5),
    ),
    "a bomb in an array": lambda good: sparse(10**8),
}


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_file_is_refused(folder, case):
    data = FILES[case]((folder / "table.skops").read_bytes())
    (folder / "table.skops").write_bytes(data)
    small = len(data) < 10**6
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"table\.skops|its own class") as caught:
            CLF.from_pretrained(folder)
        assert tracemalloc.get_traced_memory()[1] < 2e8 or not small
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 1500


NODES = {
    "a branch beyond": ("left", 10**6),
    "a branch back": ("right", 0),
    "a column beyond": ("feature_idx", 10**9),
    "a column before": ("feature_idx", -1),
    "a category of a number": ("is_categorical", 1),
}


@pytest.mark.parametrize("case", NODES)
def test_trees_that_leave_their_arrays_are_refused(fit, tmp_path, case):
    evil = copy.deepcopy(fit("columns, numbers"))
    learner = evil.named_estimators_["columns"][-1].estimators_[-1]
    field, value = NODES[case]
    learner._predictors[0][0].nodes[field][0] = value
    evil.save_pretrained(tmp_path / "f")

    with pytest.raises(ValueError, match="no fit leaves so"):
        REG.from_pretrained(tmp_path / "f")

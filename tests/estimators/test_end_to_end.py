"""The main job on real text with the real default model, offline."""

from pathlib import Path

import joblib
import numpy as np
import pytest
from _news import headlines
from _process import run_python
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier

pytestmark = pytest.mark.slow

TOPICS = ["business", "entertainment", "politics", "sports", "tech"]


@pytest.fixture(scope="module")
def split():
    """Headlines and topics of BBC news stories: 480 to learn from, 300 to predict."""
    X, y = headlines()
    assert len(X) == 2225
    return train_test_split(
        X, y, train_size=480, test_size=300, stratify=y, random_state=0
    )


@pytest.fixture(scope="module")
def fitted(split):
    """As in the quickstart, which has more rows. Do not refit."""
    X, _, y, _ = split
    return AdaLoraClassifier(target_r=4, device="cpu", random_state=0).fit(X, y)


def test_headlines_are_told_apart(fitted, split):
    _, X, _, y = split

    assert fitted.classes_.tolist() == TOPICS
    assert fitted.score(X, y) >= 0.82  # 0.89 of 1,600 rows: examples/quickstart.py
    assert fitted.predict(["Shares fall as oil prices rise"]) == ["business"]


def test_ranks_went_where_they_matter(fitted):
    ranks = list(fitted.ranks_.values())

    assert len(ranks) == 6 * 6
    assert sum(ranks) == 4 * 36
    assert min(ranks) < 4 < max(ranks)
    report = fitted.fit_report_
    assert report.trainable_parameters < 0.02 * report.total_parameters


LOAD = """
import sys, joblib, numpy
fitted = joblib.load(sys.argv[1])
texts = open(sys.argv[2], encoding="utf-8").read().split("\\n")
numpy.save(sys.argv[3], fitted.predict_proba(texts))
"""


def test_the_file_is_small_and_predicts_the_same_elsewhere(
    fitted, split, tmp_path, monkeypatch
):
    _, X, _, _ = split
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    (tmp_path / "texts").write_text("\n".join(X), encoding="utf-8")
    files = [tmp_path / name for name in ("fitted.joblib", "texts", "proba.npy")]
    run_python(LOAD, *files, timeout=300)
    proba = np.load(tmp_path / "proba.npy")

    assert (tmp_path / "fitted.joblib").stat().st_size < 2_000_000
    np.testing.assert_allclose(proba, fitted.predict_proba(X), atol=1e-6)
    labels = fitted.classes_[proba.argmax(axis=1)]
    np.testing.assert_array_equal(labels, fitted.predict(X))


def test_an_int8_export_is_a_third_and_gives_the_same_labels(fitted, split, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra `onnx`")
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    from sk_adalora.files.onnx_runner import Model

    _, X, _, _ = split
    fitted.export_onnx(tmp_path / "onnx", quantize="int8")

    size = sum(file.stat().st_size for file in (tmp_path / "onnx").iterdir())
    assert size < 30_000_000  # of 90
    found = Model(tmp_path / "onnx").predict(X)
    assert np.mean(np.array(found) == fitted.predict(X)) >= 0.985


def test_the_same_seed_gives_the_same(split):
    X, held, y, _ = split
    held = held[:200]
    first, second, other = (
        AdaLoraClassifier(target_r=4, epochs=2, device="cpu", random_state=seed).fit(
            X[:96], y[:96]
        )
        for seed in (0, 0, 1)
    )

    assert first.ranks_ == second.ranks_
    np.testing.assert_array_equal(first.predict_proba(held), second.predict_proba(held))
    assert first.ranks_ != other.ranks_


def test_precisions_agree(fitted, split):
    _, X, _, _ = split
    proba = []
    for precision in ("float32", "bfloat16"):
        fitted.set_params(precision=precision)
        proba.append(fitted.predict_proba(X[:100]))
    fitted.set_params(precision="auto")

    assert np.abs(proba[0] - proba[1]).mean() < 0.01


SEARCH = """
import re, sys
import transformers
from sklearn.model_selection import GridSearchCV
from sk_adalora import AdaLoraClassifier

def peak():  # not by getrusage, which counts the process that started this one
    return re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]

calls = []
real = transformers.AutoModel.from_pretrained
def count(*args, **kwargs):
    calls.append(args)
    return real(*args, **kwargs)
transformers.AutoModel.from_pretrained = count

rows = open(sys.argv[1], encoding="utf-8").read().split("\\n")
y = sys.argv[2:]
classifier = AdaLoraClassifier(epochs=1, batch_size=16, device="cpu", random_state=0)
classifier.fit(rows, y).predict(rows)
before = peak()
grid = {"target_r": [1, 8], "learning_rate": [0.002, 0.008]}
search = GridSearchCV(classifier, grid, cv=3, error_score="raise").fit(rows, y)
assert len(search.cv_results_["params"]) == 4
print(len(calls), before, peak())
"""


def test_a_search_loads_the_model_once_and_needs_the_memory_of_a_fit(split, tmp_path):
    status = Path("/proc/self/status")
    if not (status.exists() and "VmHWM" in status.read_text()):
        pytest.skip("needs the memory counts of Linux")
    X, _, y, _ = split
    (tmp_path / "texts").write_text("\n".join(X[:60]), encoding="utf-8")
    found = run_python(SEARCH, tmp_path / "texts", *y[:60], timeout=300)
    loads, before, after = map(int, found.stdout.split())

    assert loads == 1
    assert after <= 1.15 * before

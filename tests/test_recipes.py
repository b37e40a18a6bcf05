"""The recipes of the user guide for clusters, run as they are written.

Their packages are large: pages mark them ```py, and tests/test_docs.py leaves them out.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from _process import run_python
from _toy import make, toy

from sk_adalora import AdaLoraClassifier

GUIDE = Path(__file__).parent.parent / "docs" / "how_to"
# Workers are told nothing of the test's process but what is in the environment.
ALONE = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
WITH_RAY = """
import joblib, pandas as pd, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
"""
WITH_SPARK = """
import joblib, pandas as pd
from pyspark import SparkFiles
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", False)
spark = spark.getOrCreate()
"""
KEEP = "joblib.dump({labels}['label'].tolist(), 'labels')"


def recipe(page, title):
    """The block of code that follows a title."""
    text = (GUIDE / page).read_text("utf-8").partition(title)[2]
    code = re.search(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) <= 10
    return code


@pytest.fixture
def folder(tiny_model, tmp_path):
    """Where `model.joblib` is, and some empty rows are among others."""
    texts, y = toy()
    table = pd.DataFrame({"id": range(len(y)), "review": texts})
    classifier = make(tiny_model).fit(table[["review"]], np.array(["no", "yes"])[y])
    joblib.dump(classifier, tmp_path / "model.joblib")
    (tmp_path / "reviews.parquet").mkdir()
    for part, rows in enumerate([table[:20], table[:0], table[20:]]):
        rows.to_parquet(tmp_path / "reviews.parquet" / f"{part}.parquet")
    expected = classifier.predict(table[["review"]])
    joblib.dump(sorted(expected), tmp_path / "expected")
    return tmp_path


def assert_labels(folder):
    labels = sorted(joblib.load(folder / "labels"))  # parts come as they are ready
    assert labels == joblib.load(folder / "expected")


@pytest.mark.slow
def test_ray_data_predicts(folder):
    pytest.importorskip("ray.data", reason="needs the extra `ray`")
    keep = KEEP.format(labels="labels.to_pandas()")
    code = recipe("millions.md", "**Ray Data**")
    run_python(WITH_RAY + code + keep, cwd=folder, **ALONE)

    assert_labels(folder)


@pytest.mark.slow
def test_spark_predicts(folder):
    pytest.importorskip("pyspark", reason="needs the extra `spark`")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("needs Java")
    keep = KEEP.format(labels="labels.toPandas()")
    code = recipe("millions.md", "**Spark**")
    run_python(
        WITH_SPARK + code + keep, cwd=folder, PYSPARK_PYTHON=sys.executable, **ALONE
    )

    assert_labels(folder)


@pytest.mark.slow
def test_ray_trains(tiny_model, tmp_path):
    pytest.importorskip("ray.train", reason="needs the extra `ray`")
    code = recipe("several_devices.md", "## Ray Train")
    for written, here in [
        ("num_workers=4, use_gpu=True", "num_workers=2"),
        ('"/shared/model"', repr(str(tmp_path / "model"))),
        ("AdaLoraClassifier(", f"AdaLoraClassifier({tiny_model!r}, epochs=1, "),
    ]:
        assert written in code
        code = code.replace(written, here)
    rows = "texts, labels = ['good film', 'bad film'] * 8, [1, 0] * 8\n"
    start = "import torch.distributed\nfrom sk_adalora import AdaLoraClassifier\n"
    run_python(WITH_RAY + start + rows + code, cwd=tmp_path, **ALONE)
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "model")

    assert loaded.fit_report_.n_rows == 16

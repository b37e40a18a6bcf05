"""A model is served over HTTP, and logged with MLflow."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from _toy import topics

SERVE = Path(__file__).parent.parent / "examples" / "serve.py"
X, _ = topics(48)


@contextmanager
def serving(*arguments):
    """Run the example; give the address that it prints."""
    command = [sys.executable, str(SERVE), "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def post(address, content):
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(address, json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


@pytest.mark.parametrize("kind", ["saved", "onnx"])
def test_the_server_answers_clients_at_the_same_time(fitted, saved, tmp_path, kind):
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    pytest.importorskip("uvicorn", reason="needs the extra `serve`")
    folder = saved
    if kind == "onnx":
        pytest.importorskip("onnx", reason="needs the extra `onnx`")
        folder = tmp_path / "onnx"
        fitted.export_onnx(folder)
    with serving("--model", folder, "--wait", 20) as address:
        requests = [{"texts": X[i : i + 1 + i % 3]} for i in range(20)]
        with ThreadPoolExecutor(20) as clients:
            answers = [*clients.map(post, [address] * 20, requests)]
        with pytest.raises(urllib.error.HTTPError, match="422"):
            post(address, {"texts": [1]})

    assert answers == [fitted.predict(r["texts"]).tolist() for r in requests]


def test_mlflow_logs_a_model_without_pickle(fitted, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow or mlflow-skinny")
    monkeypatch.chdir(tmp_path)  # it writes folders
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
        with mlflow.start_run():
            logged = mlflow.sklearn.log_model(
                fitted,
                name="model",
                serialization_format="skops",
                skops_trusted_types=["sk_adalora.AdaLoraClassifier"],
                pip_requirements=["sk-adalora"],  # else, it starts a process to guess
            )
        loaded = mlflow.sklearn.load_model(logged.model_uri)
        served = mlflow.pyfunc.load_model(logged.model_uri)
    finally:
        mlflow.set_tracking_uri(before)

    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(served.predict(X), fitted.predict(X))

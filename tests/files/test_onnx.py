"""An exported model predicts as its estimator, without torch."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from _tiny_model import write_model
from _toy import make, make_regressor, topics

pytest.importorskip("onnx", reason="needs the extra `onnx`")
pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
from sk_adalora.files.onnx_runner import Model

X, Y = topics(48)
# Texts of all lengths, together in one batch; one is cut, one has no words.
TEXTS = [*X[:5], "", "good film " * 60, "a [SEP] b", "Ünï ☃"]


def assert_close(found, expected, scale=1.0):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)


def exported(estimator, folder, **options):
    estimator.export_onnx(folder / "onnx", **options)
    return Model(folder / "onnx")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max", "model"])
def test_classes_are_those_of_the_estimator(tiny_model, tmp_path, pooling):
    model = make(tiny_model, pooling=pooling, max_length=16, calibrate="temperature")
    model.fit(X, Y)
    ours = exported(model, tmp_path)

    assert_close(ours.outputs(TEXTS), model.predict_proba(TEXTS))
    assert ours.predict(TEXTS) == model.predict(TEXTS).tolist()
    assert ours.outputs(TEXTS[:1]).shape == (1, 3)


def test_labels_and_numbers(tiny_model, tmp_path):
    indicator = (Y[:, None] == np.unique(Y)[None, :2]).astype(int)
    indicator[0] = 1
    labels = make(tiny_model, calibrate="temperature", thresholds="f1")
    labels.fit(X, indicator)
    (tmp_path / "one").mkdir()
    ours = exported(labels, tmp_path)
    assert_close(ours.outputs(TEXTS), labels.predict_proba(TEXTS))
    np.testing.assert_array_equal(ours.predict(TEXTS), labels.predict(TEXTS))

    for name, y in {"one": 1e6 + np.arange(48.0), "two": np.eye(48)[:, :2]}.items():
        numbers = make_regressor(tiny_model).fit(X, y)
        found = exported(numbers, tmp_path / name).predict(TEXTS)
        assert_close(found, numbers.predict(TEXTS), y.std())
        assert found.shape == numbers.predict(TEXTS).shape


@pytest.mark.parametrize("row_format", ["auto", "pair", "{a}: {b}"])
def test_rows_of_tables(tiny_model, tmp_path, row_format):
    table = pd.DataFrame({"a": X, "b": X[::-1]})
    table.loc[3, "a"] = None
    model = make(tiny_model, row_format=row_format).fit(table, Y)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    if row_format == "pair":
        rows = [(row["a"] or "", row["b"]) for row in rows]

    found = exported(model, tmp_path).outputs(rows)
    assert_close(found, model.predict_proba(table))


@pytest.mark.parametrize(
    "name", ["distilbert", "mpnet", "deberta-v2", "modernbert", "gpt2", "llama"]
)
def test_architectures(own_model, tmp_path, tiny_architecture, name):
    module = tiny_architecture(name)
    module.resize_token_embeddings(256)
    write_model(own_model, module)
    model = make(str(own_model), max_length=24).fit(X, Y)

    assert_close(exported(model, tmp_path).outputs(TEXTS), model.predict_proba(TEXTS))


def test_a_text_without_tokens_gets_one(own_model, tmp_path):
    """Where the tokenizer adds none, as GPT-2's."""
    for name, changed in {
        "tokenizer.json": {"post_processor": None},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
    }.items():
        settings = json.loads((own_model / name).read_text("utf8")) | changed
        (own_model / name).write_text(json.dumps(settings), "utf8")
    model = make(str(own_model)).fit(X, Y)
    ours = exported(model, tmp_path)

    assert model._ready().backbone.tokenizer("").input_ids == []
    assert_close(ours.outputs(TEXTS), model.predict_proba(TEXTS))
    assert_close(ours.outputs([""]), model.predict_proba([""]))


def test_the_runner_needs_neither_torch_nor_us(fitted, tmp_path):
    fitted.export_onnx(tmp_path / "onnx")
    hidden = "import sys, runpy; sys.modules.update(dict.fromkeys(" + (
        "['torch', 'transformers', 'sk_adalora', 'sklearn'])); "
    )
    program = hidden + "sys.argv[1:] = ['music film', 'team game']; "
    program += "runpy.run_path('run.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "onnx",
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    assert done.stdout.split() == fitted.predict(["music film", "team game"]).tolist()


def test_int8_is_smaller_and_may_replace_what_we_wrote(fitted, tmp_path):
    fitted.export_onnx(tmp_path / "onnx")
    size = (tmp_path / "onnx" / "model.onnx").stat().st_size
    with pytest.raises(FileExistsError, match="overwrite=True"):
        fitted.export_onnx(tmp_path / "onnx")
    model = exported(fitted, tmp_path, quantize="int8", overwrite=True)

    assert (tmp_path / "onnx" / "model.onnx").stat().st_size < 0.7 * size
    assert model.predict(X) == fitted.predict(X).tolist()
    assert "int8" in (tmp_path / "onnx" / "README.md").read_text("utf8")


@pytest.mark.parametrize(
    ("parameters", "options", "message"),
    [
        ({}, {"quantize": "int4"}, "`quantize` must be None or 'int8'. Got 'int4'"),
        ({"long_text": "windows"}, {}, r"set_params\(long_text='truncate'\)"),
        ({"row_format": str}, {}, "Fit on the texts that it returns"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    fitted, tmp_path, parameters, options, message
):
    before = fitted.get_params()
    try:
        fitted.set_params(**parameters)
        with pytest.raises(ValueError, match=message):
            fitted.export_onnx(tmp_path / "onnx", **options)
    finally:
        fitted.set_params(**before)
    assert [*tmp_path.iterdir()] == []


def test_a_model_that_predicts_something_else_is_not_written(
    fitted, tmp_path, monkeypatch
):
    """As if the exporter had lost the padding."""
    from sk_adalora.files import onnx

    monkeypatch.setattr(onnx, "pool", lambda hidden, mask, _: hidden.mean(dim=1))
    with pytest.raises(ValueError, match="must predict as the estimator"):
        fitted.export_onnx(tmp_path / "onnx")
    assert [*tmp_path.iterdir()] == []

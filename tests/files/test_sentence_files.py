"""The merged folder as sentence-transformers reads it."""

import json

import numpy as np
import pytest
import transformers
from _toy import make, make_regressor, rounding, topics
from safetensors.torch import load_file

X, Y = topics(48)
LONG = ["music film " * 20, *X]


@pytest.fixture(params=["mean", "cls", "last", "max"])
def fitted(request, tiny_model):
    return make(tiny_model, pooling=request.param, max_length=16).fit(X, Y)


def test_the_files_name_pooling_and_length(fitted, tmp_path):
    fitted.merge_and_save(tmp_path / "m")
    modules = json.loads((tmp_path / "m" / "modules.json").read_text("utf8"))
    pooling = json.loads((tmp_path / "m/1_Pooling/config.json").read_text("utf8"))
    settings = (tmp_path / "m" / "sentence_bert_config.json").read_text("utf8")

    assert [module["path"] for module in modules] == ["", "1_Pooling"]
    assert pooling.pop("word_embedding_dimension") == 32
    (mode,) = [name for name, chosen in pooling.items() if chosen]
    assert fitted.pooling in mode
    assert json.loads(settings)["max_seq_length"] == 16


def test_sentence_transformers_makes_the_vectors_of_the_fit(fitted, tmp_path):
    package = pytest.importorskip("sentence_transformers")
    fitted.merge_and_save(tmp_path / "m")
    model = package.SentenceTransformer(str(tmp_path / "m"), device="cpu")
    head = load_file(tmp_path / "m" / "head.safetensors")
    vectors = model.encode(LONG, convert_to_tensor=True, batch_size=8)
    found = vectors @ head["weight"].T + head["bias"]

    np.testing.assert_allclose(
        found, fitted._predict_outputs(LONG), atol=rounding(vectors, head["weight"])
    )


def test_without_vectors_of_texts_there_are_no_such_files(tiny_model, tmp_path):
    y = np.linspace(0.0, 1.0, 48)
    make_regressor(tiny_model, pooling="model").fit(X, y).merge_and_save(tmp_path / "m")

    assert not (tmp_path / "m" / "modules.json").exists()
    assert not (tmp_path / "m" / "1_Pooling").exists()


def test_the_folder_is_a_model_for_another_fit(tiny_model, tmp_path):
    make(tiny_model, max_length=16).fit(X, Y).merge_and_save(tmp_path / "m")
    again = make(str(tmp_path / "m"), max_length=64).fit(LONG, ["art", *Y])

    assert again.fit_report_.tokens_max > 16


def test_of_an_encoder_alone_there_are_no_such_files(tiny_model, tmp_path):
    """sentence-transformers would read BART's decoder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    config = transformers.BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
    )
    for part in (transformers.BartModel(config), tokenizer):
        part.save_pretrained(tmp_path / "bart")
    make(str(tmp_path / "bart")).fit(X, Y).merge_and_save(tmp_path / "m")

    assert not (tmp_path / "m" / "modules.json").exists()

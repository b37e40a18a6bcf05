"""What estimators save, as read by PEFT and by transformers."""

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from _folders import STRONG, strengthen
from _tiny import (
    build,
)
from _toy import make, make_regressor, rounding, topics
from packaging.version import Version
from safetensors import safe_open
from safetensors.torch import load_file

from sk_adalora.adalora import (
    load_peft_adapter,
)

TRANSFORMERS = Version(transformers.__version__)
X, Y = topics(48)
PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "peft.md"
transformers.utils.logging.disable_progress_bar()


def assert_close(first, second):
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def by_peft(base, folder):
    """The model that peft makes of a folder; nothing may be missing or left over."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return peft.PeftModel.from_pretrained(base, folder).eval()


# ---- estimators -------------------------------------------------------------


def architecture(name, folder, tokenizer_from):
    """Save a tiny model of another architecture with the tiny tokenizer."""
    size = len(transformers.AutoTokenizer.from_pretrained(tokenizer_from))
    sizes = {
        "vocab_size": size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 80,
    }
    config = {
        "bert": lambda: transformers.BertConfig(**sizes),
        "without pooler": lambda: transformers.BertConfig(**sizes),
        "distilbert": lambda: transformers.DistilBertConfig(
            vocab_size=size, dim=32, n_layers=2, n_heads=2, hidden_dim=48
        ),
        "roberta": lambda: transformers.RobertaConfig(**sizes, pad_token_id=0),
        "electra": lambda: transformers.ElectraConfig(**sizes, embedding_size=32),
        "mpnet": lambda: transformers.MPNetConfig(**sizes, pad_token_id=0),
    }[name]()
    model = build(lambda: transformers.AutoModel.from_config(config))
    if name == "without pooler":
        model = build(lambda: transformers.BertModel(config, add_pooling_layer=False))
    model.save_pretrained(folder)
    for file in Path(tokenizer_from).glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return str(folder)


ARCHITECTURES = ["bert", "without pooler", "distilbert", "roberta", "electra", "mpnet"]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def own_head(request, tiny_model, tmp_path_factory):
    """A classifier with the head of its architecture, fitted. Do not refit."""
    folder = tmp_path_factory.mktemp(request.param)
    model = architecture(request.param, folder, tiny_model)
    fitted = make(model, pooling="model", max_length=64, **STRONG).fit(X, Y)
    return strengthen(fitted)


def batch_of(folder, texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer(
        texts, padding=True, truncation=True, max_length=64, return_tensors="pt"
    )


def logits(model, batch):
    with torch.no_grad():
        return model(**batch).logits.numpy()


def test_transformers_and_peft_read_a_model_with_its_own_head(own_head, tmp_path):
    own_head.save_pretrained(tmp_path / "f")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "f")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        own_head.model, config=config
    )
    model = by_peft(base, tmp_path / "f")
    expected = own_head._predict_outputs(X)

    found = logits(model, batch_of(tmp_path / "f", X))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert config.id2label == {0: "art", 1: "business", 2: "sport"}
    assert config.label2id == {"art": 0, "business": 1, "sport": 2}
    assert np.ptp(expected, axis=0).max() > 1e-3


@pytest.mark.skipif(
    TRANSFORMERS < Version("5.18"),
    reason="transformers before 5.18 loads no head with an adapter, not PEFT's either",
)
def test_transformers_alone_finds_plain_lora(own_head, tmp_path):
    own_head.export_lora(tmp_path / "l")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "l", num_labels=3
    ).eval()

    found = logits(model, batch_of(own_head.model, X))
    np.testing.assert_allclose(found, own_head._predict_outputs(X), atol=1e-5)


def test_plain_lora_of_a_model_with_its_own_head(own_head, tmp_path):
    own_head.export_lora(tmp_path / "l")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        own_head.model, num_labels=3
    )
    found = logits(by_peft(base, tmp_path / "l"), batch_of(own_head.model, X))

    np.testing.assert_allclose(found, own_head._predict_outputs(X), atol=1e-5)


def test_several_labels_through_a_pipeline(tiny_model, tmp_path):
    y = np.eye(3, dtype=int)[np.arange(48) % 3] | (np.arange(48) % 2)[:, None]
    fitted = strengthen(make(tiny_model, pooling="model", **STRONG).fit(X, y))
    fitted.merge_and_save(tmp_path / "m")
    pipeline = transformers.pipeline("text-classification", model=str(tmp_path / "m"))
    for row, expected in zip(
        pipeline(X, top_k=None), fitted.predict_proba(X), strict=True
    ):
        scores = {entry["label"]: entry["score"] for entry in row}
        np.testing.assert_allclose(
            [scores[str(k)] for k in range(3)], expected, atol=1e-5
        )


def test_numbers_through_a_pipeline(tiny_model, tmp_path):
    y = np.linspace(-30.0, 70.0, 48)
    fitted = strengthen(make_regressor(tiny_model, pooling="model", **STRONG).fit(X, y))
    fitted.merge_and_save(tmp_path / "m")
    pipeline = transformers.pipeline("text-classification", model=str(tmp_path / "m"))
    found = np.array([entry["score"] for entry in pipeline(X)])
    card = (tmp_path / "m" / "README.md").read_text("utf8")
    scale, mean = map(
        float, re.search(r"`output \* \[(.*?)\] \+ \[(.*?)\]`", card).groups()
    )

    np.testing.assert_allclose(found * scale + mean, fitted.predict(X), rtol=1e-4)


# ---- pooled heads -----------------------------------------------------------


def snippet():
    """The block of the page that reads a folder with peft, between its two marks."""
    text = PAGE.read_text("utf8")
    block = re.search(r"<!-- peft -->\n```python\n(.*?)^```$", text, re.M | re.S)
    return block[1]


def test_the_documented_snippet_gives_our_logits(tiny_model, tmp_path, monkeypatch):
    shutil.copytree(tiny_model, tmp_path / "my-encoder")
    monkeypatch.chdir(tmp_path)
    fitted = strengthen(make("./my-encoder", **STRONG).fit(X, Y))
    fitted.save_pretrained("classifier")
    names = {"texts": X}
    exec(snippet(), names)

    np.testing.assert_allclose(
        names["logits"].numpy(), fitted._predict_outputs(X), atol=1e-5
    )


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "mpnet"])
def test_hidden_states_through_peft(tiny_model, tmp_path, name):
    model = architecture(name, tmp_path / "model", tiny_model)
    fitted = strengthen(make(model, max_length=64, **STRONG).fit(X, Y))
    fitted.save_pretrained(tmp_path / "f")
    fitted.export_lora(tmp_path / "l")
    fitted.merge_and_save(tmp_path / "m")
    batch = batch_of(tmp_path / "f", X)
    with torch.no_grad():
        expected = fitted._ready().network.encoder(**batch).last_hidden_state

    def base():
        return transformers.AutoModel.from_pretrained(model)

    for other in (
        by_peft(base(), tmp_path / "f"),
        by_peft(base(), tmp_path / "l"),
        transformers.AutoModel.from_pretrained(tmp_path / "m").eval(),
    ):
        with torch.no_grad():
            assert_close(other(**batch).last_hidden_state, expected)
    with torch.no_grad():
        plain = base().eval()(**batch).last_hidden_state
    assert (plain - expected).abs().max() > 1e-2
    # The engine reads the folder too.
    with torch.no_grad():
        loaded = load_peft_adapter(base(), tmp_path / "f")
        assert_close(loaded(**batch).last_hidden_state, expected)


def test_the_head_beside_a_merged_model(tiny_model, tmp_path):
    fitted = strengthen(make(tiny_model, pooling="cls", **STRONG).fit(X, Y))
    fitted.merge_and_save(tmp_path / "m")
    model = transformers.AutoModel.from_pretrained(tmp_path / "m").eval()
    head = load_file(tmp_path / "m" / "head.safetensors")
    with torch.no_grad():
        hidden = model(**batch_of(tmp_path / "m", X)).last_hidden_state[:, 0]
    with safe_open(tmp_path / "m" / "head.safetensors", "pt") as file:
        assert json.loads(file.metadata()["labels"]) == fitted.classes_.tolist()
    assert "metadata" in (tmp_path / "m" / "README.md").read_text("utf8")

    np.testing.assert_allclose(
        (hidden @ head["weight"].T + head["bias"]).numpy(),
        fitted._predict_outputs(X),
        atol=rounding(hidden, head["weight"]),
    )

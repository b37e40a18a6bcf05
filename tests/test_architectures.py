"""Architectures that are unlike BERT in what they are read from, take or give."""

import numpy as np
import pytest
import torch
import transformers
from _toy import make, toy

import sk_adalora
from sk_adalora._backbone import load_backbone
from sk_adalora._devices import resolve_place

PLACE = resolve_place("cpu", "float32")
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
SEQ2SEQ = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}


@pytest.fixture(autouse=True)
def _empty_cache():
    yield
    sk_adalora.clear_backbone_cache()


@pytest.fixture
def folder_of(tiny_model, tmp_path):
    """Function: config class and options -> folder of a random model of them."""

    def make_folder(kind, head=transformers.AutoModel, **options):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
        config = kind(**{"vocab_size": len(tokenizer), **TOKENS, **options})
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            head.from_config(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return str(tmp_path)

    return make_folder


# ---- how long a text may be ---------------------------------------------------------


def test_a_model_that_says_minus_one_has_no_limit(folder_of):
    model = folder_of(
        transformers.XLNetConfig, d_model=32, n_layer=2, n_head=2, d_inner=64
    )
    backbone = load_backbone(model, PLACE)
    assert backbone.module.config.max_position_embeddings == -1
    assert backbone.longest == backbone.tokenizer.model_max_length

    X, y = toy(16)
    assert np.isfinite(make(model).fit(X, y).predict_proba(X)).all()


@pytest.mark.parametrize(
    ("kind", "options", "layer"),
    [
        (
            transformers.LEDConfig,
            {
                **SEQ2SEQ,
                "max_encoder_position_embeddings": 64,
                "max_decoder_position_embeddings": 32,
                "attention_window": 8,
            },
            "fc1",
        ),
        (
            transformers.MptConfig,
            {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 64},
            "Wqkv",
        ),
    ],
)
def test_positions_are_read_under_each_name(folder_of, kind, options, layer):
    model = folder_of(kind, **options)
    assert load_backbone(model, PLACE).longest == 64

    X, y = toy(16)
    long = ["the good film " * 100, *X[1:]]
    fitted = make(model, max_length=256, target_modules=[layer]).fit(long, y)
    assert fitted.fit_report_.max_length == 64
    assert np.isfinite(fitted.predict_proba(long)).all()

"""Architectures that are unlike BERT in what they are read from, take or give."""

import json
import pickle
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
import transformers
from _tiny_model import SIZES
from _toy import BAD, GOOD, global_states, make, toy
from huggingface_hub.utils import filter_repo_objects

import sk_adalora
from sk_adalora import AdaLoraClassifier
from sk_adalora.network.network import TextNetwork
from sk_adalora.pretrained import backbone as _backbone
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.runtime import devices as _devices
from sk_adalora.runtime.devices import resolve_compute

pytestmark = pytest.mark.usefixtures("empty_cache")

CPU = resolve_compute("cpu", "float32")
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


@pytest.fixture
def folder_of(tiny_model, tmp_path):
    """Function: config class and options -> folder of a random model of them."""

    def make_folder(kind, head=transformers.AutoModel, **options):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
        config = kind(**{"vocab_size": len(tokenizer), **TOKENS, **options})
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            getattr(head, "from_config", head)(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return str(tmp_path)

    return make_folder


# ---- how long a text may be ---------------------------------------------------------


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
    assert load_backbone(model, CPU).longest == 64

    X, y = toy(16)
    long = ["the good film " * 100, *X[1:]]
    fitted = make(model, max_length=256, target_modules=[layer]).fit(long, y)
    assert fitted.fit_report_.max_length == 64
    assert np.isfinite(fitted.predict_proba(long)).all()


# ---- what it gives ------------------------------------------------------------------

OPT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 64,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("width", [16, 32])
def test_the_head_is_as_wide_as_what_the_model_gives(folder_of, width, capfd):
    model = folder_of(transformers.OPTConfig, **OPT, word_embed_proj_dim=width)
    before = global_states()
    capfd.readouterr()
    backbone = load_backbone(model, CPU)
    assert tuple(capfd.readouterr()) == ("", "")
    assert global_states() == before
    assert (backbone.module.config.hidden_size, backbone.width) == (32, width)

    X, y = toy(16)
    fitted = make(model, target_modules=["v_proj"]).fit(X, y)
    assert fitted._predictor.network.head.in_features == width
    assert np.isfinite(fitted.predict_proba(X)).all()


# ---- models of more than texts ------------------------------------------------------

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


@pytest.fixture
def gemma(folder_of, tiny_model):
    """Folder of a random model of texts and images."""
    size = transformers.AutoConfig.from_pretrained(tiny_model).vocab_size
    texts = {**SIZES, "vocab_size": size, "num_key_value_heads": 1, "head_dim": 16}
    return folder_of(transformers.Gemma3Config, text_config=texts, vision_config=VISION)


def test_of_texts_and_images_the_texts_are_read(gemma, tmp_path):
    X, y = toy(16)
    fitted = make(gemma).fit(X, y)
    network, backbone = fitted._exact_network()

    assert backbone.longest == 64
    assert isinstance(backbone.module, transformers.Gemma3TextModel)
    fitted.merge_and_save(tmp_path / "merged")
    whole, found = transformers.AutoModel.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    ids = torch.tensor(backbone.tokenizer(["good film"])["input_ids"])
    with torch.no_grad():
        expected = network.encoder(ids).last_hidden_state
        got = whole.eval()(ids).last_hidden_state

    assert isinstance(whole, transformers.Gemma3Model)
    assert not found["missing_keys"]
    torch.testing.assert_close(got, expected)


def test_the_head_of_a_model_of_texts_and_images(gemma):
    """What it is told lies in the part of its config that is for texts."""
    X, y = toy(16)
    layers = r"model\.language_model.*"
    fitted = make(gemma, pooling="model", target_modules=layers).fit(X, y)
    alone = np.concatenate([fitted.predict_proba([text]) for text in X])

    np.testing.assert_allclose(fitted.predict_proba(X), alone, atol=1e-5)
    backbone = fitted._predictor.backbone
    assert backbone.longest == 64
    assert backbone.module.config.text_config.pad_token_id == 0


def test_of_a_model_with_two_towers_one_is_read(folder_of, tiny_model):
    size = transformers.AutoConfig.from_pretrained(tiny_model).vocab_size
    model = folder_of(
        transformers.CLIPConfig,
        text_config={**SIZES, "vocab_size": size},
        vision_config=VISION,
    )
    X, y = toy(16)

    assert np.isfinite(make(model).fit(X, y).predict_proba(X)).all()


def test_a_model_without_texts_is_refused_before_training(folder_of):
    model = folder_of(transformers.ViTConfig, **VISION)
    match = (
        r"^`model` must be a text model, which turns each token into a vector\. Got "
        r".*, a ViTModel, which failed on a few tokens in float32 with \w+Error: .*"
        r"\. Give one that was pretrained on texts, and takes them at any length\.$"
    )
    with pytest.raises(ValueError, match=match):
        make(model).fit(*toy(16))


def test_a_model_that_cannot_compute_in_half_precision_is_refused(folder_of):
    model = folder_of(
        transformers.FNetConfig,
        **{k: v for k, v in SIZES.items() if k != "num_attention_heads"},
    )
    match = (
        r"a few tokens in bfloat16 with .*set precision='float32'\. Otherwise, give a"
    )
    with pytest.raises(ValueError, match=match):
        load_backbone(model, resolve_compute("cpu", "bfloat16"))


@pytest.fixture
def reads(monkeypatch):
    """List of the precisions that a model is read in, where "auto" is bfloat16."""
    found = []
    read = _backbone.read_pretrained

    def read_and_note(folder, compute, *settings):
        found.append(compute.precision)
        return read(folder, compute, *settings)

    monkeypatch.setattr(_backbone, "read_pretrained", read_and_note)
    monkeypatch.setattr(_devices, "_has_bfloat16", lambda device: True)
    return found


@pytest.mark.filterwarnings("ignore:`model` must ignore")  # so does XLNet's own head
@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_auto_takes_float32_where_a_model_cannot_compute_in_half(
    folder_of, reads, pooling
):
    model = folder_of(
        transformers.XLNetConfig, d_model=32, n_layer=2, n_head=2, d_inner=64
    )
    X, y = toy(16)
    fitted = make(model, precision="auto", pooling=pooling).fit(X, y)
    expected = fitted.predict_proba(X)

    assert reads == ["bfloat16", "float32"]
    assert fitted.fit_report_.precision == "float32"
    # Neither a prediction, nor another fit, tries again what is known to fail.
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
    make(model, precision="auto", pooling=pooling).fit(X, y)
    # Float32 that was asked for is the same model, and computes the same.
    asked = make(model, precision="float32", pooling=pooling).fit(X, y)
    assert reads == ["bfloat16", "float32"]
    np.testing.assert_array_equal(asked.predict_proba(X), expected)
    if pooling == "mean":
        with pytest.raises(ValueError, match="failed on a few tokens in bfloat16"):
            make(model, precision="bfloat16").fit(X, y)
        # A fitted one says so, too, whether or not it was loaded.
        for one in (fitted, loaded):
            with pytest.raises(ValueError, match="failed on a few tokens in bfloat16"):
                one.set_params(precision="bfloat16").predict(X)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasC"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_a_lack_of_memory_tells_nothing_of_a_model(
    tiny_model, reads, monkeypatch, error
):
    """It would be taken in float32, or refused, until the process ends."""

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as full:
        full.setattr(transformers.BertModel, "forward", fail)
        with pytest.raises(type(error)) as raised:
            make(tiny_model, precision="auto").fit(*toy(16))
        assert raised.value is error

    report = make(tiny_model, precision="auto").fit(*toy(16)).fit_report_
    assert report.precision == "bfloat16"
    assert set(reads) == {"bfloat16"}


# ---- tokenizers of other files ------------------------------------------------------


def prophet_net(folder, words):
    """ProphetNet's tokenizer, whose vocabulary is a file like no other."""
    path = Path(folder) / "words"
    path.write_text("\n".join(words))
    tokenizer = transformers.ProphetNetTokenizer(str(path))
    path.unlink()
    return tokenizer


TOKENIZERS = {
    "byt5": lambda *_: transformers.ByT5Tokenizer(extra_ids=0),  # has no vocabulary
    "prophetnet": prophet_net,
}


@pytest.fixture(params=TOKENIZERS)
def with_own_tokenizer(request, folder_of, tiny_model):
    """Folder of a random model with a tokenizer of its architecture."""
    words = transformers.AutoTokenizer.from_pretrained(tiny_model).get_vocab()
    model = folder_of(transformers.BertConfig, **{**SIZES, "vocab_size": 300})
    for path in Path(model).glob("tokenizer*"):
        path.unlink()
    tokenizer = TOKENIZERS[request.param](model, sorted(words, key=words.get))
    tokenizer.save_pretrained(model)
    return model


def test_a_tokenizer_is_known_by_what_it_does(with_own_tokenizer, tmp_path):
    X, y = toy(16)
    fitted = make(with_own_tokenizer).fit(X, y)
    proba = fitted.predict_proba(X)
    fitted.save_pretrained(tmp_path / "saved", include_backbone=True)
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "saved")

    assert len(np.unique(proba)) > 2
    np.testing.assert_array_equal(loaded.predict_proba(X), proba)


def test_a_vocabulary_that_changes_is_read_again(with_own_tokenizer):
    before = load_backbone(with_own_tokenizer, CPU)
    for path in Path(with_own_tokenizer).glob("*.tokenizer"):
        path.write_text(path.read_text().replace("good", "goat"))
        assert load_backbone(with_own_tokenizer, CPU) is not before


def test_the_files_of_every_tokenizer_are_fetched(monkeypatch, tiny_model):
    asked = []

    def snapshot(name, *, allow_patterns, **options):
        asked.extend(allow_patterns)
        return tiny_model

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    load_backbone("some/model", CPU)
    names = ["source.spm", "prophetnet.tokenizer", "bpe.codes", "spiece.model"]
    assert list(filter_repo_objects(names, allow_patterns=asked)) == names


def test_a_tokenizer_without_a_vocabulary(folder_of):
    """transformers makes an empty one, which reads all texts alike."""
    model = folder_of(transformers.BertConfig, **SIZES)
    (Path(model) / "tokenizer.json").unlink()
    settings = json.dumps({"tokenizer_class": "BertTokenizer"})
    (Path(model) / "tokenizer_config.json").write_text(settings)

    with pytest.raises(ValueError, match=r"must hold a tokenizer.*save_pretrained"):
        load_backbone(model, CPU)


def test_a_tokenizer_that_cannot_read_every_text(folder_of):
    model = folder_of(transformers.BertConfig, **SIZES)
    words = tokenizers.models.WordLevel({"good": 0, "bad": 1, "film": 2})
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(f"{model}/tokenizer.json")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (Path(model) / "tokenizer_config.json").write_text(json.dumps(settings))

    match = r"must read any text\. Got .*Missing \[UNK\].*\. If it lacks an `unk_token`"
    with pytest.raises(ValueError, match=match):
        load_backbone(model, CPU)


def test_an_encoder_that_is_no_model_of_transformers(folder_of):
    model = folder_of(
        transformers.FSMTConfig,
        **{**SEQ2SEQ, "src_vocab_size": 300, "tgt_vocab_size": 300},
        langs=["de", "en"],
    )
    with pytest.raises(
        ValueError, match=r"Got .*is a plain FSMTEncoder\. Give another"
    ):
        load_backbone(model, CPU)


def test_an_architecture_without_a_head_of_its_own(folder_of):
    model = folder_of(transformers.MarianConfig, **SEQ2SEQ)
    match = (
        r"AutoModelForSequenceClassification\. Choose another `model` or `pooling`\.$"
    )
    with pytest.raises(ValueError, match=match):
        make(model, pooling="model").fit(*toy(16))


def test_a_head_of_the_models_own_needs_a_token_for_padding(folder_of):
    """It would take tokens of id 0 at the end of a text for padding."""
    options = {**SIZES, "num_key_value_heads": 1}
    model = folder_of(transformers.LlamaConfig, **options)
    path = Path(model) / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"pad_token": None, "eos_token": None}
    path.write_text(json.dumps(settings))
    X, y = toy(16)
    match = (
        r"^With pooling='model', the tokenizer of `model` must have a token for "
        r"padding or for the end, .*\. Got .* with neither\. Set `pad_token` in its "
        r"tokenizer_config\.json, or choose another `pooling`\.$"
    )

    with pytest.raises(ValueError, match=match):
        make(model, pooling="model").fit(X, y)
    assert np.isfinite(make(model, pooling="last").fit(X, y).predict_proba(X)).all()


def unigrams(words):
    """A tokenizer like T5's, which has the end among the pieces of texts."""
    pieces = [*"<pad> </s> <unk>".split(), *(f"\u2581{word}" for word in words)]
    vocabulary = [(p, -2.0 if p.isalpha() else 0.0) for p in pieces]
    vocabulary += [(sign, -4.0) for sign in ("\u2581", *"</s>")]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0)


T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
ENDS = {
    "bart": (transformers.BartConfig, {**SEQ2SEQ, "max_position_embeddings": 64}),
    "t5": (transformers.T5Config, {**T5, "decoder_start_token_id": 0}),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_text_is_told_from_what_the_text_says(folder_of, name):
    kind, options = ENDS[name]
    own = {"pad_token_id": 0, "eos_token_id": 1, "vocab_size": 300}
    model = folder_of(kind, **options, **({} if name == "bart" else own))
    if name != "bart":
        (Path(model) / "tokenizer.json").unlink()
        unigrams(GOOD + BAD).save_pretrained(model)
    X, y = toy(16)
    tokenizer = load_backbone(model, CPU).tokenizer
    end = tokenizer.eos_token or tokenizer.sep_token
    texts = [f"good {end} film", f"good{end}{end}film", end, *X[3:]]
    fitted = make(model, pooling="model", target_modules=r".*encoder.*").fit(texts, y)
    proba = fitted.predict_proba(texts)
    pairs = np.array([texts, texts[::-1]], dtype=object).T

    alone = np.concatenate([fitted.predict_proba([text]) for text in texts])
    np.testing.assert_allclose(proba, alone, atol=1e-5)
    make(model, pooling="model", row_format="pair").fit(pairs, y).predict(pairs)


# ---- attention that changes by itself -----------------------------------------------

BIG_BIRD = {
    **SIZES,
    "attention_type": "block_sparse",
    "block_size": 2,
    "num_random_blocks": 1,
}


def test_a_short_text_does_not_change_what_long_ones_get(folder_of, tmp_path):
    model = folder_of(transformers.BigBirdConfig, **BIG_BIRD)
    X, y = toy(16)
    long = [f"{text} " * 8 for text in X]
    fitted = make(model).fit(long, y)
    first = pickle.loads(pickle.dumps(fitted)).predict_proba(long)
    fitted.predict_proba(X)

    np.testing.assert_array_equal(fitted.predict_proba(long), first)
    fitted.merge_and_save(tmp_path / "merged")
    saved = transformers.AutoConfig.from_pretrained(tmp_path / "merged")
    assert saved.attention_type == "original_full"


# ---- padding that is not left out ---------------------------------------------------

SEES_PADDING = {
    "fnet": (
        transformers.FNetConfig,
        {k: v for k, v in SIZES.items() if k != "num_attention_heads"},
    ),
    "canine": (transformers.CanineConfig, {**SIZES, "local_transformer_stride": 8}),
    "funnel": (
        transformers.FunnelConfig,
        {
            "head": transformers.FunnelModel,
            "block_sizes": [1, 1],
            "d_model": 32,
            "n_head": 2,
            "d_head": 16,
            "d_inner": 64,
            "num_decoder_layers": 1,
        },
    ),
}
# Mixtral rounds by how many tokens an expert gets.
SEES_NONE = {
    "mixtral": (
        transformers.MixtralConfig,
        {
            **SIZES,
            "num_key_value_heads": 1,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
        },
    ),
    "xlnet": (
        transformers.XLNetConfig,
        {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
    ),
    "opt": (transformers.OPTConfig, {**OPT, "word_embed_proj_dim": 16}),
}


# Only their heads do: XLNet's reads the last position, and T5Gemma's the one after the
# last token.
GEMMA = {
    **{k: v for k, v in SIZES.items() if k not in ("type_vocab_size", "vocab_size")},
    "num_key_value_heads": 1,
    "head_dim": 16,
}
HEADS_SEE_PADDING = {
    "xlnet": SEES_NONE["xlnet"],
    "t5gemma": (transformers.T5GemmaConfig, {"encoder": GEMMA, "decoder": GEMMA}),
}


def warned_of_padding(model, pooling, target_modules="all-linear"):
    """Fit with a warning of what texts are padded with."""
    ways = "`model` or `pooling`" if pooling == "model" else "`model`"
    match = (
        r"^`model` must ignore what texts are padded with\. Got .*, a \w+, which does "
        r"not: the prediction for a text depends on the other texts of its batch\. "
        rf"Give another {ways}, or predict one text at a time\.$"
    )
    estimator = make(model, pooling=pooling, target_modules=target_modules)
    with pytest.warns(UserWarning, match=match):
        return estimator.fit(*toy(16))


@pytest.mark.parametrize(
    ("name", "pooling"),
    [(name, "mean") for name in SEES_PADDING]
    + [(name, "model") for name in ("fnet", "canine")],
)
def test_a_model_that_sees_padding_is_warned_of(folder_of, name, pooling):
    kind, options = SEES_PADDING[name]
    modules = r".*(query|q_head|output\.dense)"
    warned_of_padding(folder_of(kind, **options), pooling, modules)


@pytest.mark.parametrize("name", HEADS_SEE_PADDING)
def test_a_head_that_sees_padding_is_warned_of(folder_of, name):
    kind, options = HEADS_SEE_PADDING[name]
    model = folder_of(kind, **options)
    fitted = warned_of_padding(model, "model")
    assert changes_with_other_texts(fitted) > 1e-3

    fitted = make(model, pooling="last").fit(*toy(16))
    assert changes_with_other_texts(fitted) < 1e-5


def changes_with_other_texts(fitted):
    """How much a longer text in the batch changes the probabilities of others."""
    X, _ = toy(8)
    alone = np.vstack([fitted.predict_proba([text]) for text in X])
    return abs(fitted.predict_proba([*X, "good film " * 14])[:-1] - alone).max()


def test_a_text_alone_is_not_padded_where_that_is_seen(folder_of, monkeypatch):
    """Elsewhere it is, on some processors, to a multiple of four tokens."""
    kind, options = SEES_PADDING["fnet"]
    fitted = warned_of_padding(folder_of(kind, **options), "mean")
    X, _ = toy(8)

    found = []
    for slow in (True, False):
        monkeypatch.setattr(_devices, "MKL_IS_SLOW", slow)
        found.append(np.vstack([fitted.predict_proba([text]) for text in X]))
    np.testing.assert_allclose(*found, atol=1e-5)


def test_a_model_with_a_head_may_give_fewer_vectors_than_tokens(folder_of):
    kind, options = SEES_PADDING["funnel"]
    model = folder_of(kind, **options)
    X, y = toy(16)
    fitted = make(model, pooling="model", target_modules=["q_head"]).fit(X, y)

    assert np.isfinite(fitted.predict_proba(X)).all()


@pytest.mark.parametrize("name", SEES_NONE)
def test_a_model_that_leaves_padding_out_is_not_warned_of(folder_of, name):
    kind, options = SEES_NONE[name]

    assert not load_backbone(folder_of(kind, **options), CPU).sees_padding


# ---- the two texts of a pair --------------------------------------------------------


def pieces(kind):
    """A tokenizer of single pieces, with the special tokens that its class has."""
    special = "<pad> <unk> [CLS] [SEP] [MASK] <s> </s> <cls> <sep> <mask>".split()
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(f"\u2581{word}", -2.0) for word in (*GOOD, *BAD)]
    return kind(vocab=[*vocabulary, ("\u2581", -3.0)])


def words(kind):
    """A tokenizer of whole words, likewise."""
    special = "[PAD] [UNK] [CLS] [SEP] [MASK] <pad> <unk> <cls> <sep>".split()
    vocabulary = [*special, *GOOD, *BAD]
    return kind(vocab={token: i for i, token in enumerate(vocabulary)})


XLNET = SEES_NONE["xlnet"][1]
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
NO_TYPES = {**SIZES, "type_vocab_size": 0}
ONE_TYPE = {**SIZES, "type_vocab_size": 1}
# Model, its options, tokenizer, and what tells the two texts and the rest apart.
PAIRS = {
    "bert": (transformers.BertConfig, SIZES, words, "BertTokenizer", {0, 1}),
    "albert": (transformers.AlbertConfig, SIZES, pieces, "AlbertTokenizer", {0, 1}),
    # They compare types, and have no table of them.
    "xlnet": (transformers.XLNetConfig, XLNET, pieces, "XLNetTokenizer", {0, 1, 2}),
    "funnel": (*SEES_PADDING["funnel"], words, "FunnelTokenizer", {0, 1, 2}),
}
NO_PAIRS = {
    # The tokenizer has one type of tokens.
    "roberta": (transformers.RobertaConfig, SIZES, pieces, "XLMRobertaTokenizer"),
    # The model does: as BERT's that were trained further without the second type.
    "one": (transformers.BertConfig, ONE_TYPE, words, "BertTokenizer"),
    # It has fewer than the tokenizer.
    "few": (transformers.BertConfig, SIZES, pieces, "XLNetTokenizer"),
    # It has none.
    "deberta": (transformers.DebertaV2Config, NO_TYPES, pieces, "DebertaV2Tokenizer"),
    "distilbert": (transformers.DistilBertConfig, DISTILBERT, words, "BertTokenizer"),
    # It would take a type for the token of that number.
    "gpt2": (transformers.GPT2Config, GPT2, words, "BertTokenizer"),
}


@pytest.fixture
def folder_for_pairs(folder_of):
    """Function: model, its options and its tokenizer -> a folder of the two."""

    def make_folder(kind, options, write, tokenizer):
        model = folder_of(kind, **options)
        for path in Path(model).glob("tokenizer*"):
            path.unlink()
        write(getattr(transformers, tokenizer)).save_pretrained(model)
        return model

    return make_folder


@pytest.fixture
def types_seen(monkeypatch):
    """List of the types of tokens in each batch, or of None without types."""
    seen = []
    encode = TextNetwork._encode

    def watched(self, batch):
        types = batch.token_type_ids
        seen.append(None if types is None else frozenset(types.unique().tolist()))
        return encode(self, batch)

    monkeypatch.setattr(TextNetwork, "_encode", watched)
    return seen


def toy_pairs():
    texts, y = toy(16)
    return np.array([texts, texts[::-1]], dtype=object).T, y


@pytest.mark.filterwarnings("ignore:`model` must ignore what texts are padded")
@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_model_that_tells_two_texts_apart_is_told(
    folder_for_pairs, types_seen, name, pooling
):
    """Whether or not its tokenizer names them, as few do since transformers 5."""
    *parts, expected = PAIRS[name]
    model = folder_for_pairs(*parts)
    X, y = toy_pairs()
    layers = r".*(query|q_head|layer_1)"
    options = {"pooling": pooling, "target_modules": layers}
    fitted = make(model, row_format="pair", **options).fit(X, y)
    proba = fitted.predict_proba(X)

    assert set(types_seen) == {frozenset(expected)}
    assert np.isfinite(proba).all()
    types_seen.clear()
    make(model, **options).fit([first for first, _ in X], y)
    assert set(types_seen) == {None}


@pytest.mark.parametrize("name", NO_PAIRS)
def test_a_model_that_does_not_tell_two_texts_apart_is_not_told(
    folder_for_pairs, types_seen, name
):
    model = folder_for_pairs(*NO_PAIRS[name])
    X, y = toy_pairs()
    layers = r".*(query|query_proj|q_lin|Wqkv|c_attn|\.q)"
    fitted = make(model, row_format="pair", target_modules=layers).fit(X, y)

    assert np.isfinite(fitted.predict_proba(X)).all()
    assert set(types_seen) == {None}


def test_what_is_saved_tells_two_texts_apart(folder_for_pairs, types_seen, tmp_path):
    model = folder_for_pairs(*PAIRS["albert"][:-1])
    X, y = toy_pairs()
    fitted = make(model, row_format="pair").fit(X, y)
    proba = fitted.predict_proba(X)
    fitted.save_pretrained(tmp_path / "saved", include_backbone=True)
    sk_adalora.clear_backbone_cache()
    types_seen.clear()

    for loaded in (
        AdaLoraClassifier.from_pretrained(tmp_path / "saved"),
        pickle.loads(pickle.dumps(fitted)),
    ):
        np.testing.assert_array_equal(loaded.predict_proba(X), proba)
    assert types_seen == [{0, 1}, {0, 1}]


# ---- copies of tokenizers -----------------------------------------------------------

COLUMNS = pd.DataFrame({"a": ["good film", "bad price", "red"] * 6})
COLUMNS["b"] = ["great", "poor loss blue", "win"] * 6


def as_the_pipeline_says(fitted, folder, rows):
    """The probabilities of what `merge_and_save` writes."""
    fitted.merge_and_save(folder)
    pipeline = transformers.pipeline(
        "text-classification", model=str(folder), device="cpu"
    )
    found = pipeline(rows, top_k=None, batch_size=8)
    scores = [{each["label"]: each["score"] for each in row} for row in found]
    return np.array([[row[str(name)] for name in fitted.classes_] for row in scores])


def change(folder, **settings):
    """Change what the file of a tokenizer says."""
    path = Path(folder) / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_the_types_of_pairs_are_returned_by_a_copy_too(folder_of, tmp_path):
    model = folder_of(transformers.BertConfig, **SIZES)
    # Such as ALBERT's: it can write types, and does not unless it is asked.
    change(model, tokenizer_class="PreTrainedTokenizerFast")
    y = np.arange(len(COLUMNS)) % 2
    fitted = make(model, pooling="model", row_format="pair").fit(COLUMNS, y)
    rows = [{"text": a, "text_pair": b} for a, b in COLUMNS.itertuples(index=False)]
    found = as_the_pipeline_says(fitted, tmp_path / "merged", rows)

    np.testing.assert_allclose(found, fitted.predict_proba(COLUMNS), atol=1e-6)


# GPT-2 would take types for tokens, and its Chinese models have BERT's tokenizer; a
# head that counts ends has them split in texts.
@pytest.mark.parametrize(
    ("kind", "options", "changed", "layers"),
    [
        (transformers.GPT2Config, GPT2, {}, ["c_attn"]),
        (transformers.BertConfig, SIZES, {"padding_side": "left"}, "all-linear"),
        (transformers.BartConfig, SEQ2SEQ, {}, "all-linear"),
    ],
)
def test_a_copy_of_a_tokenizer_reads_as_in_the_fit(
    folder_of, tmp_path, kind, options, changed, layers
):
    X, y = toy(16)
    model = folder_of(kind, **options)
    change(model, **changed)
    fitted = make(model, pooling="model", target_modules=layers).fit(X, y)
    texts = ["good [SEP] film", *X]
    found = as_the_pipeline_says(fitted, tmp_path / "merged", texts)

    np.testing.assert_allclose(found, fitted.predict_proba(texts), atol=1e-6)


def test_cards_name_the_part_that_is_adapted(folder_of, tmp_path):
    fitted = make(folder_of(transformers.BartConfig, **SEQ2SEQ)).fit(*toy(16))
    fitted.save_pretrained(tmp_path / "saved")
    fitted.merge_and_save(tmp_path / "merged")
    fitted.export_lora(tmp_path / "lora")

    saved = (tmp_path / "saved" / "README.md").read_text("utf8")
    assert (
        '`peft.PeftModel.from_pretrained(model.get_encoder(), "this-folder")`' in saved
    )
    merged = (tmp_path / "merged" / "README.md").read_text("utf8")
    assert '.AutoModel.from_pretrained("this-folder").get_encoder()`' in merged
    lora = (tmp_path / "lora" / "README.md").read_text("utf8")
    assert "Of an encoder-decoder, `model` is the encoder (`get_encoder()`)" in lora

"""Loading, sharing and copying pretrained models; pooling."""

import gc
import json
import pickle
import shutil
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from _threads import WAIT, Gate, in_threads, start
from _tiny import build
from _tiny_model import SIZES, random_bert, write_model
from _toy import global_states, make, toy
from safetensors.torch import save_file
from transformers import dynamic_module_utils
from transformers.models.bert.modeling_bert import BertPooler

import sk_adalora
from sk_adalora.pretrained import backbone as _backbone
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.pretrained.find import Request
from sk_adalora.pretrained.read import read_pretrained
from sk_adalora.pretrained.weights import content_hash
from sk_adalora.runtime.devices import resolve_compute

pytestmark = pytest.mark.usefixtures("empty_cache")

CPU = resolve_compute("cpu", "float32")
BFLOAT16 = resolve_compute("cpu", "bfloat16")


# ---- the cache --------------------------------------------------------------


def test_a_folder_is_loaded_once_under_all_its_names(tiny_model, monkeypatch):
    monkeypatch.chdir(Path(tiny_model).parent)
    name = Path(tiny_model).name
    names = [tiny_model, tiny_model, Path(tiny_model), name, f"./{name}"]
    first, *others = (load_backbone(name, CPU) for name in names)
    in_half = load_backbone(tiny_model, BFLOAT16)

    assert all(other is first for other in others)
    assert first.folder == Path(tiny_model).resolve()
    assert {p.dtype for p in first.module.parameters()} == {torch.float32}
    assert {p.dtype for p in in_half.module.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in first.module.parameters())
    assert not any(m.training for m in first.module.modules())
    assert load_backbone(name, CPU) is first
    sk_adalora.clear_backbone_cache()
    assert load_backbone(name, CPU).module is not first.module


def test_the_cache_forgets_what_was_used_least_recently(tiny_model, tmp_path):
    """What is still held is found all the same."""
    folders = [shutil.copytree(tiny_model, tmp_path / name) for name in "abc"]
    a, b, c = held = [load_backbone(folder, CPU) for folder in folders]
    assert [load_backbone(folder, CPU) for folder in folders] == held
    assert load_backbone(folders[0], CPU) is a  # used again: b is older now
    watched = [weakref.ref(backbone) for backbone in held]
    del a, b, c, held
    gc.collect()

    assert [found() is not None for found in watched] == [True, False, True]


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_memory_of_a_gpu_is_given_back_too(monkeypatch, kind):
    emptied = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
    monkeypatch.setattr(getattr(torch, kind), "empty_cache", lambda: emptied.append(1))
    sk_adalora.clear_backbone_cache()

    assert emptied == [1]


def test_a_model_that_changed_on_disk_is_loaded_anew(own_model):
    before = load_backbone(own_model, CPU)
    write_model(own_model, random_bert(own_model, seed=1))
    after = load_backbone(own_model, CPU)

    assert after is not before
    assert after.content_hash != before.content_hash
    assert not torch.equal(*(next(b.module.parameters()) for b in (before, after)))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_model_that_changes_while_it_is_read(own_model, monkeypatch, file):
    """It would be held under the hash of another."""

    def changing(*args, read=_backbone.read_pretrained):
        found = read(*args)
        with (own_model / file).open("ab") as changed:
            changed.write(b"\n")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(_backbone, "read_pretrained", changing)
        with pytest.raises(ValueError, match="must stay as they are while they are"):
            load_backbone(own_model, CPU)
    write_model(own_model, random_bert(own_model, seed=1))
    assert load_backbone(own_model, CPU).content_hash == content_hash(own_model)


def test_a_token_without_a_vector_is_refused_on_the_host(own_model):
    """On a GPU, whatever the process computed there next would fail."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(own_model)
    count = len(tokenizer)
    assert load_backbone(own_model, CPU).module.config.vocab_size == count
    tokenizer.add_special_tokens({"pad_token": "<a padding of its own>"})
    tokenizer.save_pretrained(own_model)

    match = f"IndexError: the tokenizer gave token {count}, .* for {count} tokens"
    with pytest.raises(ValueError, match=match):
        load_backbone(own_model, CPU)


def test_words_without_a_vector_are_refused_before_training(own_model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(own_model)
    count = len(tokenizer)
    tokenizer.add_tokens(["zyzzyva"])
    tokenizer.save_pretrained(own_model)
    X, y = toy(32)
    match = rf"Got token {count} of '.*', which has {count}\. Call its `resize_token"

    fitted = make(own_model).fit(X, y)
    with pytest.raises(ValueError, match=match):
        fitted.predict(["a zyzzyva"])
    with pytest.raises(ValueError, match=match):
        make(own_model).fit([*X, "a zyzzyva"], [*y, y[0]])


def test_the_pooler_is_not_computed(tiny_model, monkeypatch):
    X, y = toy(16)
    called, kept = [], BertPooler.forward
    monkeypatch.setattr(
        BertPooler, "forward", lambda *given: called.append(given) or kept(*given)
    )
    fitted = make(tiny_model).fit(X, y)
    fitted.predict(X)
    assert not called
    # Its weights are there still, and a head of the model's own reads it.
    assert "pooler.dense.weight" in fitted._predictor.backbone.module.state_dict()
    make(tiny_model, pooling="model").fit(X, y)
    assert called


def test_a_model_that_was_first_loaded_to_predict_can_be_trained(tiny_model):
    # Tensors that are made in inference mode cannot be trained through.
    X, y = toy(16)
    loaded = pickle.loads(pickle.dumps(make(tiny_model).fit(X, y)))
    sk_adalora.clear_backbone_cache()
    loaded.predict(X)
    backbone = load_backbone(tiny_model, CPU)
    tensors = [*backbone.module.parameters(), *backbone.module.buffers()]

    assert not any(t.is_inference() for t in tensors)
    loaded.fit(X, y)


# ---- threads ----------------------------------------------------------------


def test_models_are_read_one_at_a_time_and_once(tiny_model, tmp_path, monkeypatch):
    """Reading changes torch's state, which is the same for all threads."""
    entered, inside = [], []

    def slowly(folder, *args, read=_backbone.read_pretrained):
        inside.append(folder)
        entered.append((folder, len(inside)))
        time.sleep(0.1)  # the other threads come meanwhile
        try:
            return read(folder, *args)
        finally:
            inside.remove(folder)

    monkeypatch.setattr(_backbone, "read_pretrained", slowly)
    folders = [Path(shutil.copytree(tiny_model, tmp_path / name)) for name in "ab"]
    before = global_states()
    found = in_threads(lambda folder: load_backbone(folder, CPU), folders * 3)

    assert sorted(entered) == [(folder, 1) for folder in folders]
    assert len({id(backbone.module) for backbone in found}) == 2
    assert global_states() == before


def test_a_held_model_does_not_wait_while_another_is_read(
    tiny_model, own_model, monkeypatch
):
    held = load_backbone(tiny_model, CPU)
    with Gate(monkeypatch, _backbone, "read_pretrained", own_model) as gate:
        loading = start(load_backbone, own_model, CPU)
        assert gate.reached.wait(WAIT)
        assert start(load_backbone, tiny_model, CPU).result(WAIT) is held
        assert not loading.done()

    assert loading.result(WAIT).folder == own_model


# ---- copies -----------------------------------------------------------------


def test_copies_share_parameters_but_no_modules_and_no_buffers(tiny_model):
    backbone = load_backbone(tiny_model, CPU)
    first, second = backbone.copy(), backbone.copy()
    modules = [set(m.modules()) for m in (backbone.module, first, second)]

    for copied in (first, second):
        pairs = zip(backbone.module.parameters(), copied.parameters(), strict=True)
        assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert not modules[0] & modules[1]
    assert not modules[1] & modules[2]
    buffers = [{b.data_ptr() for b in m.buffers()} for m in (first, second)]
    assert buffers[0]
    assert not buffers[0] & buffers[1]


def test_a_fit_changes_nothing_of_the_backbone(tiny_model):
    backbone = load_backbone(tiny_model, CPU)
    before = {n: t.clone() for n, t in backbone.module.state_dict().items()}
    names = [name for name, _ in backbone.module.named_modules()]
    make(tiny_model, lora_dropout=0.1).fit(*toy(16))

    assert load_backbone(tiny_model, CPU) is backbone
    assert [name for name, _ in backbone.module.named_modules()] == names
    after = backbone.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(m._forward_pre_hooks for m in backbone.module.modules())


# ---- weights that files lack, code, silence ---------------------------------


def write_without(folder, part):
    """Save a model without some of its weights, which must be drawn then."""
    module = random_bert(folder, seed=0)
    state = {k: v for k, v in module.state_dict().items() if part not in k}
    (folder / "model.safetensors").unlink()
    module.save_pretrained(folder, state_dict=state)


def test_what_files_lack_is_drawn_alike_in_every_process(tiny_model):
    def head(seed):
        sk_adalora.clear_backbone_cache()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            backbone = load_backbone(tiny_model, CPU, n_labels=3)
        return backbone.module.get_parameter("classifier.weight")

    assert torch.equal(head(1), head(2))


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize(("part", "n"), [("encoder.layer.1", 16), ("embeddings", 5)])
def test_a_fit_warns_of_weights_that_the_files_lack(own_model, pooling, part, n):
    write_without(own_model, part)
    match = rf" should hold all .* without {n} of a Bert\w+, such as '[\w.]*{part}"
    with pytest.warns(UserWarning, match=match):
        make(str(own_model), pooling=pooling, epochs=1).fit(*toy(16))


@pytest.mark.parametrize("part", ["embeddings.LayerNorm", "layer.0.output.dense"])
def test_what_files_lack_is_trained_amid_half_precision(own_model, part):
    """It is in float32, and what comes behind it is not."""
    write_without(own_model, part)
    texts, y = toy(16)
    with pytest.warns(UserWarning, match=r"^The files of `model` should hold all"):
        fitted = make(
            str(own_model), pooling="model", precision="bfloat16", epochs=1
        ).fit(texts, y)
    half = fitted.predict_proba(texts)
    exact = fitted.set_params(precision="float32").predict_proba(texts)

    np.testing.assert_allclose(half, exact, atol=0.02)
    assert {a.dtype for a in fitted._adapter.arrays.values()} == {np.dtype("float32")}
    modules = fitted._adapter.config["modules_to_save"]
    assert len(modules) == len({*modules})  # though its weight and its bias are lacking


def test_a_head_reads_an_exact_pooler_where_files_lack_it(own_model):
    write_without(own_model, "pooler")
    texts, y = toy(16)
    fitted = make(str(own_model), pooling="model", precision="bfloat16", epochs=1).fit(
        texts, y
    )
    seen = []
    head = fitted._predictor.network.encoder.model.classifier
    head.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    fitted.predict(texts)

    assert not torch.equal(seen[0], seen[0].bfloat16().float())
    modules = fitted._adapter.config["modules_to_save"]
    assert modules == ["classifier", "bert.pooler.dense"]  # and no dropout


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_fit_does_not_warn_of_a_pooler_and_a_head(own_model, pooling):
    write_without(own_model, "pooler")
    make(str(own_model), pooling=pooling, epochs=1).fit(*toy(16))

    backbone = load_backbone(own_model, CPU, n_labels=2)
    drawn = backbone.pretrained.drawn
    assert {"bert.pooler.dense.weight", "classifier.weight"} <= {*drawn}
    assert list(drawn) == sorted(drawn)  # in the same order in every process


def test_all_names_of_a_weight_that_files_lack_are_known(t5):
    state = transformers.AutoModel.from_pretrained(t5).state_dict()
    kept = {k: v for k, v in state.items() if "shared" not in k and "embed" not in k}
    weights = {k: v.clone() for k, v in kept.items()}
    save_file(weights, t5 / "model.safetensors", {"format": "pt"})

    drawn = read_pretrained(t5, CPU, Request(str(t5)), n_labels=2).drawn
    assert {
        "transformer.shared.weight",
        "transformer.encoder.embed_tokens.weight",
    } <= set(drawn)


CODE = {
    "configuration_elsewhere.py": """
from transformers import BertConfig

class Elsewhere(BertConfig):
    model_type = "elsewhere"
""",
    "modeling_elsewhere.py": """
from transformers import BertModel

from .configuration_elsewhere import Elsewhere

class ElsewhereModel(BertModel):
    config_class = Elsewhere
""",
}


@pytest.fixture
def code_elsewhere(own_model, tmp_path, monkeypatch):
    """Have the code of `own_model` in another repository; return the files asked for.

    As that of nomic-embed-text, of Jina's and of Alibaba's encoders.
    """
    snapshot = tmp_path / "models--someone--code" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for name, code in CODE.items():
        (snapshot / name).write_text(code)
    path, where = own_model / "config.json", "someone/code--"
    named = {
        "AutoConfig": f"{where}configuration_elsewhere.Elsewhere",
        "AutoModel": f"{where}modeling_elsewhere.ElsewhereModel",
    }
    settings = {"model_type": "elsewhere", "auto_map": named}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    asked = set()

    def cached_file(folder, name, *args, local_files_only=False, **options):
        if folder != "someone/code":
            return kept(folder, name, *args, **options)
        asked.add(name)
        if local_files_only:
            raise OSError(f"{name} is not in the cache")
        return str(snapshot / name)

    kept = dynamic_module_utils.cached_file
    monkeypatch.setattr(dynamic_module_utils, "is_offline_mode", lambda: False)
    monkeypatch.setattr(dynamic_module_utils, "cached_file", cached_file)
    return asked


def test_code_of_a_model_may_lie_in_another_repository(code_elsewhere, own_model):
    X, y = toy(16)
    fitted = make(own_model, model_kwargs={"trust_remote_code": True}).fit(X, y)

    assert code_elsewhere == {*CODE}
    assert type(fitted._predictor.backbone.module).__name__ == "ElsewhereModel"
    options = {"trust_remote_code": True, "local_files_only": True}
    assert (
        load_backbone(own_model, CPU, model_kwargs=options)
        is fitted._predictor.backbone
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "trust_remote_code=True"),
        (
            {"trust_remote_code": True, "local_files_only": True},
            "OSError: configuration_elsewhere",
        ),
    ],
)
def test_code_in_another_repository_is_not_fetched_unasked(
    code_elsewhere, own_model, options, match
):
    with pytest.raises(ValueError, match=match):
        load_backbone(own_model, CPU, model_kwargs=options)
    assert code_elsewhere <= {"configuration_elsewhere.py"}


def test_loading_prints_nothing_and_leaves_the_settings_of_transformers(
    own_model, capfd
):
    logging = transformers.utils.logging
    # Weights of a head that is not used, and a head's that are missing: reports.
    head = transformers.BertForMaskedLM(
        transformers.AutoConfig.from_pretrained(own_model)
    )
    write_model(own_model, head)
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    logging.set_verbosity_warning()
    capfd.readouterr()
    try:
        load_backbone(own_model, CPU)
        assert tuple(capfd.readouterr()) == ("", "")
        assert logging.get_verbosity() == logging.WARNING
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(before[0])
        if not before[1]:
            logging.disable_progress_bar()


# ---- architectures ----------------------------------------------------------

TOKENS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
ARCHITECTURES = {
    "distilbert": lambda **v: transformers.DistilBertConfig(
        dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64, **v
    ),
    "roberta": lambda **v: transformers.RobertaConfig(**SIZES, **v),
    "mpnet": lambda **v: transformers.MPNetConfig(**SIZES, **v),
    "deberta-v2": lambda **v: transformers.DebertaV2Config(
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        **SIZES,
        **v,
    ),
    "modernbert": lambda **v: transformers.ModernBertConfig(
        cls_token_id=2, sep_token_id=3, **SIZES, **v
    ),
    "gpt2": lambda **v: transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=2, n_positions=64, **v
    ),
    "llama": lambda **v: transformers.LlamaConfig(num_key_value_heads=1, **SIZES, **v),
    "t5": lambda **v: transformers.T5Config(
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        **v,
    ),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request, tiny_model, tmp_path_factory):
    """Folder of a random model of that architecture with the tiny tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    config = ARCHITECTURES[request.param](vocab_size=len(tokenizer), **TOKENS)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_architectures_fit_and_predict(architecture):
    X, y = toy(32)
    fitted = make(architecture, precision="bfloat16").fit(X, y)
    proba = fitted.predict_proba(X)

    assert sum(fitted.ranks_.values()) == 2 * len(fitted.ranks_)
    assert len(fitted.ranks_) >= 2 * 4  # GPT-2 and ModernBERT join q, k and v
    assert np.isfinite(proba).all()
    assert len(np.unique(proba)) > 2
    # All layers were reached: their values moved away from 0.
    for path, rank in fitted.ranks_.items():
        values = fitted._adapter.arrays[f"base_model.model.{path}.lora_E"]
        assert len(values) == rank
        assert np.all(values != 0)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.predict_proba(X), proba)


def test_texts_are_cut_to_the_positions_and_padding_changes_nothing(architecture):
    X, y = toy(16)
    long = ["the good film " * 300, *X[1:]]
    fitted = make(architecture, max_length=256).fit(long, y)
    alone = np.concatenate([fitted.decision_function([text]) for text in long])
    backbone = load_backbone(architecture, CPU)

    assert fitted.fit_report_.truncated_share == 1 / 16
    np.testing.assert_allclose(fitted.decision_function(long), alone, atol=1e-4)
    assert backbone.width == 32
    # T5 has no positions: it takes what the tokenizer says.
    is_t5 = backbone.module.config.model_type == "t5"
    assert backbone.longest == 512 if is_t5 else backbone.longest <= 64


# ---- what a model is read from beside its weights --------------------------------


def gpt2_folder(folder, **options):
    """A random GPT-2 in a folder that holds a tokenizer."""
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = transformers.GPT2Config(
        vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=64, **options
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        write_model(folder, transformers.GPT2Model(config))
    return str(folder)


@pytest.mark.parametrize("pad", [3, None])
def test_a_decoder_with_its_own_head_reads_the_last_token_of_a_text(own_model, pad):
    X, y = toy(32)
    model = gpt2_folder(own_model, pad_token_id=pad)
    fitted = make(model, pooling="model").fit(X, y)
    alone = fitted.predict_proba(["good film"])
    beside = fitted.predict_proba(["good film", "bad bad price loss poor worst"])

    np.testing.assert_allclose(alone[0], beside[0], atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_model_does_not_look_for_padding_where_there_is_none(
    own_model, pooling, monkeypatch
):
    path = own_model / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"pad_token": "[SEP]"}
    path.write_text(json.dumps(settings))
    folder = gpt2_folder(own_model, pad_token_id=3)
    said = []
    log = transformers.modeling_utils.logger
    monkeypatch.setattr(log, "warning_once", lambda text, *_: said.append(text))
    X, y = toy(32)
    fitted = make(folder, pooling=pooling, precision="float32").fit(X, y)
    fitted.predict([None])

    assert said == []
    transformers.GPT2Model.from_pretrained(folder)(torch.tensor([[3]]))
    assert "your input_ids may be padded" in said[0]  # what is not to be seen above


def test_a_tokenizer_without_padding_pads_with_the_end(own_model):
    path = own_model / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"pad_token": None, "eos_token": "[SEP]"}
    path.write_text(json.dumps(settings))
    tokenizer = load_backbone(own_model, CPU).tokenizer

    assert tokenizer.pad_token == "[SEP]"


def test_a_checkpoint_with_a_head_for_other_labels(own_model):
    config = transformers.AutoConfig.from_pretrained(own_model, num_labels=5)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        other = transformers.BertForSequenceClassification(config)
    write_model(own_model, other)
    X, y = toy(32)
    fitted = make(str(own_model), pooling="model", epochs=6).fit(X, y)

    assert fitted.predict_proba(X).shape == (32, 2)
    drawn = load_backbone(own_model, CPU, n_labels=2).pretrained.drawn
    assert {"classifier.weight", "classifier.bias"} <= set(drawn)
    kept = load_backbone(own_model, CPU, n_labels=5).module
    assert torch.equal(kept.classifier.weight, other.classifier.weight)


@pytest.fixture
def t5(own_model):
    """The folder of a random T5."""
    size = json.loads((own_model / "config.json").read_text())["vocab_size"]
    config = transformers.T5Config(
        vocab_size=size,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    )
    write_model(own_model, build(lambda: transformers.T5Model(config)))
    return own_model


@pytest.mark.parametrize("alone", [False, True])
def test_an_encoder_is_saved_in_what_it_was_read_from(t5, tmp_path, alone):
    kind = transformers.AutoModel
    if alone:
        kind = transformers.T5EncoderModel
        write_model(t5, kind.from_pretrained(t5))
        assert not kind.from_pretrained(t5).config.is_encoder_decoder
    X, y = toy(32)
    fitted = make(str(t5), max_length=32).fit(X, y)
    fitted.merge_and_save(tmp_path / "merged")
    whole, found = kind.from_pretrained(tmp_path / "merged", output_loading_info=True)
    network, backbone = fitted._exact_network()
    ids = torch.tensor(backbone.tokenizer(["good film"])["input_ids"])
    with torch.no_grad():
        expected = network.encoder(ids).last_hidden_state
        got = whole.get_encoder()(ids).last_hidden_state

    assert not found["missing_keys"]
    torch.testing.assert_close(got, expected)


def test_a_head_beside_an_encoder_saved_alone_reads_texts_with_end_tokens(t5):
    encoder = transformers.T5EncoderModel.from_pretrained(t5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(t5)
    encoder.config.eos_token_id = tokenizer.sep_token_id
    write_model(t5, encoder)
    with pytest.warns(UserWarning, match="should hold all of its weights"):
        fitted = make(str(t5), pooling="model", epochs=1).fit(*toy(16))

    assert fitted.predict(["good film", "good [SEP] film"]).shape == (2,)

"""Loading, sharing and copying pretrained models; pooling."""

import gc
import json
import pickle
import shutil
import time
import weakref
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from _threads import WAIT, Gate, in_threads, start
from _tiny import build
from _tiny_model import SIZES, random_bert, write_model
from _toy import global_states, make, toy
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import dynamic_module_utils
from transformers.models.bert.modeling_bert import BertPooler

import sk_adalora
from sk_adalora.adalora import AdaLoraConfig
from sk_adalora.pretrained import backbone as _backbone
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.pretrained.read import read_pretrained, silent_transformers
from sk_adalora.pretrained.weights import content_hash, weight_files
from sk_adalora.runtime.devices import resolve_place
from sk_adalora.network.network import build_network, pool
from sk_adalora.runtime.rules import POOLINGS

pytestmark = pytest.mark.usefixtures("empty_cache")

PLACE = resolve_place("cpu", "float32")
BFLOAT16 = resolve_place("cpu", "bfloat16")


# ---- the cache --------------------------------------------------------------


def test_a_folder_is_loaded_once_under_all_its_names(tiny_model, monkeypatch):
    monkeypatch.chdir(Path(tiny_model).parent)
    name = Path(tiny_model).name
    names = [tiny_model, tiny_model, Path(tiny_model), name, f"./{name}"]
    first, *others = (load_backbone(name, PLACE) for name in names)

    assert all(other is first for other in others)
    assert first.folder == Path(tiny_model).resolve()
    assert [*_backbone._last_used] == [first]  # there is room for another
    sk_adalora.clear_backbone_cache()
    assert not _backbone._last_used
    assert load_backbone(names[0], PLACE).module is not first.module


def test_precisions_are_apart(tiny_model):
    first, second = (
        load_backbone(tiny_model, PLACE),
        load_backbone(tiny_model, BFLOAT16),
    )

    assert {p.dtype for p in first.module.parameters()} == {torch.float32}
    assert {p.dtype for p in second.module.parameters()} == {torch.bfloat16}
    assert load_backbone(tiny_model, PLACE) is first


def test_the_cache_forgets_what_was_used_least_recently(tiny_model, tmp_path):
    folders = [shutil.copytree(tiny_model, tmp_path / name) for name in "abc"]
    a, b = (load_backbone(folder, PLACE) for folder in folders[:2])
    assert load_backbone(folders[0], PLACE) is a  # used again: b is older now
    load_backbone(folders[2], PLACE)

    assert len(_backbone._last_used) == 2
    assert load_backbone(folders[0], PLACE) is a
    forgotten = weakref.ref(b)
    del b
    gc.collect()
    assert forgotten() is None


def test_what_is_still_held_is_not_loaded_again(tiny_model, tmp_path):
    """Many estimators of three models would else have a copy of the weights each."""
    folders = [shutil.copytree(tiny_model, tmp_path / name) for name in "abc"]
    held = [load_backbone(folder, PLACE) for folder in folders]

    assert [load_backbone(folder, PLACE) for folder in folders] == held
    assert len(_backbone._last_used) == 2


def test_a_model_that_goes_is_compared_with_none(tiny_model, monkeypatch):
    """When Python ends, paths cannot be compared any more: it printed tracebacks."""
    held, compared = [load_backbone(tiny_model, PLACE) for _ in range(2)], []
    gone = weakref.ref(held[0])
    monkeypatch.setattr(_backbone._Wanted, "__eq__", lambda *_: compared.append(1))
    _backbone._last_used.clear()
    del held
    gc.collect()

    assert gone() is None
    assert compared == []


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_memory_of_a_gpu_is_given_back_too(monkeypatch, kind):
    emptied = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
    monkeypatch.setattr(getattr(torch, kind), "empty_cache", lambda: emptied.append(1))
    sk_adalora.clear_backbone_cache()

    assert emptied == [1]


def test_a_model_that_changed_on_disk_is_loaded_anew(own_model):
    before = load_backbone(own_model, PLACE)
    write_model(own_model, random_bert(own_model, seed=1))
    after = load_backbone(own_model, PLACE)

    assert after is not before
    assert after.content_hash != before.content_hash
    assert not torch.equal(*(next(b.module.parameters()) for b in (before, after)))


@pytest.fixture
def changing(own_model, monkeypatch):
    """Have a file of `own_model` change when it is read next, after it was hashed."""

    def change(file):
        def changed(*args):
            monkeypatch.setattr(_backbone, "read_pretrained", read)
            if file == "model.safetensors":
                write_model(own_model, random_bert(own_model, seed=1))
            else:
                with (own_model / file).open("a") as text:
                    text.write("\n")
            return read(*args)

        read = _backbone.read_pretrained
        monkeypatch.setattr(_backbone, "read_pretrained", changed)

    return change


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_model_that_changes_while_it_is_read(own_model, changing, file):
    """It would be held under the hash of another."""
    changing(file)
    with pytest.raises(ValueError, match="must stay as they are while they are read"):
        load_backbone(own_model, PLACE)

    assert load_backbone(own_model, PLACE).content_hash == content_hash(own_model)


def test_what_else_changes_while_a_model_is_read(own_model, changing):
    changing("log.txt")
    assert load_backbone(own_model, PLACE)


def test_a_token_without_a_vector_is_refused_on_the_host(own_model):
    """On a GPU, whatever the process computed there next would fail."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(own_model)
    count = len(tokenizer)
    assert load_backbone(own_model, PLACE).module.config.vocab_size == count
    tokenizer.add_special_tokens({"pad_token": "<a padding of its own>"})
    tokenizer.save_pretrained(own_model)

    match = f"IndexError: the tokenizer gave token {count}, .* for {count} tokens"
    with pytest.raises(ValueError, match=match):
        load_backbone(own_model, PLACE)


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


def test_all_is_frozen_and_in_evaluation_mode(tiny_model):
    module = load_backbone(tiny_model, PLACE).module

    assert not any(p.requires_grad for p in module.parameters())
    assert not any(m.training for m in module.modules())


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
    assert "pooler.dense.weight" in fitted._live.backbone.module.state_dict()
    make(tiny_model, pooling="model", head_init="random").fit(X, y)
    assert called


def test_a_model_that_was_first_loaded_to_predict_can_be_trained(tiny_model):
    # Tensors that are made in inference mode cannot be trained through.
    X, y = toy(16)
    loaded = pickle.loads(pickle.dumps(make(tiny_model).fit(X, y)))
    sk_adalora.clear_backbone_cache()
    loaded.predict(X)
    (backbone,) = _backbone._last_used
    tensors = [*backbone.module.parameters(), *backbone.module.buffers()]

    assert not any(t.is_inference() for t in tensors)
    loaded.fit(X, y)


# ---- threads ----------------------------------------------------------------


@pytest.fixture
def hub(tiny_model, monkeypatch):
    """Every model of the hub is the tiny one."""
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: tiny_model
    )


@pytest.fixture
def download(hub, monkeypatch):
    """A gate at which the download of "new/model" stops."""
    return Gate(monkeypatch, huggingface_hub, "snapshot_download", "new/model")


@pytest.mark.parametrize("found", ["folder", "hub"])
def test_a_held_model_waits_for_no_download(tiny_model, download, found):
    model = tiny_model if found == "folder" else "held/model"
    held = load_backbone(model, PLACE)
    with download:
        loading = start(load_backbone, "new/model", PLACE)
        assert download.reached.wait(WAIT)
        assert start(load_backbone, model, PLACE).result(WAIT) is held
        assert not loading.done()

    assert loading.result(WAIT).module is held.module


def test_a_prediction_waits_for_no_download(tiny_model, download):
    X, y = toy(16)
    fitted = make(tiny_model).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted))
    with download:
        loading = start(load_backbone, "new/model", PLACE)
        assert download.reached.wait(WAIT)
        found = start(again.predict_proba, X).result(WAIT)
        assert not loading.done()

    loading.result(WAIT)
    np.testing.assert_array_equal(found, fitted.predict_proba(X))


def test_a_held_model_does_not_wait_while_another_is_read(
    tiny_model, own_model, monkeypatch
):
    held = load_backbone(tiny_model, PLACE)
    with Gate(monkeypatch, _backbone, "read_pretrained", own_model) as gate:
        loading = start(load_backbone, own_model, PLACE)
        assert gate.reached.wait(WAIT)
        assert start(load_backbone, tiny_model, PLACE).result(WAIT) is held
        assert not loading.done()

    assert loading.result(WAIT).folder == own_model


@pytest.fixture
def reading(monkeypatch):
    """List of the folders that are read, slowly, with how many are read at a time."""
    entered, inside, kept = [], [], _backbone.read_pretrained

    def slowly(folder, *args):
        inside.append(folder)
        entered.append((folder, len(inside)))
        time.sleep(0.2)  # the other threads come meanwhile
        try:
            return kept(folder, *args)
        finally:
            inside.remove(folder)

    monkeypatch.setattr(_backbone, "read_pretrained", slowly)
    return entered


def test_threads_that_ask_for_one_model_read_it_once(tiny_model, monkeypatch, reading):
    monkeypatch.chdir(Path(tiny_model).parent)
    names = [tiny_model, Path(tiny_model).name] * 3
    found = in_threads(lambda name: load_backbone(name, PLACE), names)

    assert reading == [(Path(tiny_model).resolve(), 1)]
    assert len({id(backbone.module) for backbone in found}) == 1


def test_models_are_read_one_after_the_other(tiny_model, tmp_path, reading):
    """Reading changes torch's state, which is the same for all threads."""
    folders = [Path(shutil.copytree(tiny_model, tmp_path / name)) for name in "abc"]
    before = global_states()
    in_threads(lambda folder: load_backbone(folder, PLACE), folders)

    assert sorted(reading) == [(folder, 1) for folder in folders]
    assert global_states() == before


@pytest.mark.parametrize("step", ["download", "read"])
def test_the_cache_can_be_cleared_while_a_model_is_loading(
    tiny_model, hub, monkeypatch, step
):
    if step == "download":
        where = (huggingface_hub, "snapshot_download", "new/model")
    else:
        where = (_backbone, "read_pretrained", Path(tiny_model))
    with Gate(monkeypatch, *where) as gate:
        loading = start(load_backbone, "new/model", PLACE)
        assert gate.reached.wait(WAIT)
        start(sk_adalora.clear_backbone_cache).result(WAIT)
    backbone = loading.result(WAIT)

    assert backbone.folder == Path(tiny_model)
    assert load_backbone("new/model", PLACE) is backbone


# ---- copies -----------------------------------------------------------------


def test_copies_share_parameters_but_no_modules_and_no_buffers(tiny_model):
    backbone = load_backbone(tiny_model, PLACE)
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
    backbone = load_backbone(tiny_model, PLACE)
    before = {n: t.clone() for n, t in backbone.module.state_dict().items()}
    names = [name for name, _ in backbone.module.named_modules()]
    make(tiny_model, lora_dropout=0.1).fit(*toy(16))

    assert load_backbone(tiny_model, PLACE) is backbone
    assert [name for name, _ in backbone.module.named_modules()] == names
    after = backbone.module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(m._forward_pre_hooks for m in backbone.module.modules())


# ---- side effects -----------------------------------------------------------


def write_without(folder, part):
    """Save a model without some of its weights, which must be drawn then."""
    module = random_bert(folder, seed=0)
    state = {k: v for k, v in module.state_dict().items() if part not in k}
    for path in weight_files(folder):
        path.unlink()
    module.save_pretrained(folder, state_dict=state)


def test_loading_leaves_the_global_generators_alone(own_model):
    write_without(own_model, "pooler")
    before = global_states()
    load_backbone(own_model, PLACE)

    assert global_states() == before


def test_what_files_lack_is_drawn_alike_in_every_process(tiny_model):
    def head(seed):
        sk_adalora.clear_backbone_cache()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            backbone = load_backbone(tiny_model, PLACE, n_labels=3)
        return backbone.module.get_parameter("classifier.weight")

    assert torch.equal(head(1), head(2))


def test_what_files_lack_is_in_the_same_order_in_every_process(own_model):
    write_without(own_model, "encoder.layer.1")
    drawn = load_backbone(own_model, PLACE).pretrained.drawn

    assert len(drawn) == 16
    assert list(drawn) == sorted(drawn)


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize(("part", "n"), [("encoder.layer.1", 16), ("embeddings", 5)])
def test_a_fit_warns_of_weights_that_the_files_lack(own_model, pooling, part, n):
    write_without(own_model, part)
    match = rf" should hold all .* without {n} of a Bert\w+, such as '[\w.]*{part}"
    with pytest.warns(UserWarning, match=match):
        make(str(own_model), pooling=pooling, epochs=1).fit(*toy(16))


@pytest.mark.parametrize(
    "part", ["token_type_embeddings", "embeddings.LayerNorm", "layer.0.output.dense"]
)
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
    head = fitted._live.network.encoder.model.classifier
    head.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    fitted.predict(texts)

    assert not torch.equal(seen[0], seen[0].bfloat16().float())
    modules = fitted._adapter.config["modules_to_save"]
    assert modules == ["classifier", "bert.pooler.dense"]  # and no dropout


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_fit_does_not_warn_of_a_pooler_and_a_head(own_model, pooling):
    write_without(own_model, "pooler")
    make(str(own_model), pooling=pooling, epochs=1).fit(*toy(16))

    backbone = load_backbone(own_model, PLACE, n_labels=2)
    assert {"bert.pooler.dense.weight", "classifier.weight"} <= {
        *backbone.pretrained.drawn
    }


def test_all_names_of_a_weight_that_files_lack_are_known(t5):
    state = transformers.AutoModel.from_pretrained(t5).state_dict()
    kept = {k: v for k, v in state.items() if "shared" not in k and "embed" not in k}
    (weights,) = weight_files(t5)
    save_file({k: v.clone() for k, v in kept.items()}, weights, {"format": "pt"})

    drawn = read_pretrained(t5, PLACE, False, n_labels=2).drawn
    assert {
        "transformer.shared.weight",
        "transformer.encoder.embed_tokens.weight",
    } <= set(drawn)


@pytest.mark.parametrize("trusted", [False, True])
def test_code_of_a_model_is_run_for_those_who_trust_it(
    tiny_model, monkeypatch, trusted
):
    asked = []
    read = _backbone.read_pretrained

    def watched(folder, place, trust_remote_code, *settings):
        asked.append(trust_remote_code)
        return read(folder, place, trust_remote_code, *settings)

    sk_adalora.clear_backbone_cache()
    load_backbone(tiny_model, PLACE, trust_remote_code=not trusted)
    monkeypatch.setattr(_backbone, "read_pretrained", watched)
    load_backbone(tiny_model, PLACE, trust_remote_code=trusted)
    assert asked == [trusted]


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
    fitted = make(own_model, trust_remote_code=True).fit(X, y)

    assert code_elsewhere == {*CODE}
    assert type(fitted._live.backbone.module).__name__ == "ElsewhereModel"
    fitted.set_params(local_files_only=True)
    assert fitted._load_backbone(PLACE) is fitted._live.backbone


def test_code_in_another_repository_is_not_fetched_without_the_network(
    code_elsewhere, own_model
):
    with pytest.raises(ValueError, match="OSError: configuration_elsewhere"):
        load_backbone(own_model, PLACE, trust_remote_code=True, local_files_only=True)


def test_code_in_another_repository_is_not_fetched_unasked(code_elsewhere, own_model):
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load_backbone(own_model, PLACE)
    assert not code_elsewhere


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
        load_backbone(own_model, PLACE)
        assert tuple(capfd.readouterr()) == ("", "")
        assert logging.get_verbosity() == logging.WARNING
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(before[0])
        if not before[1]:
            logging.disable_progress_bar()


# ---- what a folder must hold ------------------------------------------------


def test_a_model_in_several_files_fits_and_predicts(own_model):
    module = random_bert(own_model, seed=0)
    for path in weight_files(own_model):
        path.unlink()
    module.save_pretrained(own_model, max_shard_size="50KB")
    X, y = toy(16)

    assert set(make(own_model).fit(X, y).predict(X)) <= {0, 1}


def test_an_adapter_in_the_folder_of_a_model_is_refused(own_model):
    """With PEFT installed, transformers would add it, and without PEFT not."""
    (own_model / "adapter_config.json").write_text("{}")

    with pytest.raises(ValueError, match=r"no adapter of PEFT's.*Merge it, or move"):
        load_backbone(own_model, PLACE)


def test_a_folder_without_configuration(own_model):
    (own_model / "config.json").unlink()

    with pytest.raises(ValueError, match=r"must hold config\.json\. Got .*own"):
        load_backbone(own_model, PLACE)


def test_a_folder_without_tokenizer(own_model):
    for path in own_model.glob("*token*"):
        path.unlink()
    for path in own_model.glob("vocab*"):
        path.unlink()

    with pytest.raises(
        ValueError, match=r"must hold a tokenizer\. Got .*own"
    ) as raised:
        load_backbone(own_model, PLACE)
    assert "tokenizer.save_pretrained" in str(raised.value)


@pytest.mark.parametrize("kind", [ImportError, ModuleNotFoundError])
def test_a_package_that_is_missing(own_model, monkeypatch, kind):
    def fail(*args, **kwargs):
        raise kind("It requires the SentencePiece library.\n")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    match = (
        r"^`model` must be one that transformers can read with what is installed\. "
        rf"Got .*own.*, with which it raised {kind.__name__}: It requires the "
        r"SentencePiece library\. Install the package\.$"
    )
    with pytest.raises(ImportError, match=match):
        load_backbone(own_model, PLACE)


# ---- pooling ----------------------------------------------------------------


def naive_pool(hidden, mask, pooling):
    """One text after the other, its tokens only."""
    rows = []
    for states, kept in zip(hidden, mask.bool(), strict=True):
        states = states[kept]
        rows.append(
            {
                "mean": states.mean(dim=0),
                "max": states.max(dim=0).values,
                "cls": states[0],
                "last": states[-1],
            }[pooling]
        )
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_sees_the_tokens_and_no_padding(pooling):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 7, 3, generator=generator)
    lengths = torch.tensor([7, 1, 3, 6, 2])
    mask = (torch.arange(7) < lengths[:, None]).long()
    expected = naive_pool(hidden, mask, pooling)

    torch.testing.assert_close(pool(hidden, mask, pooling), expected)
    garbage = hidden.masked_fill(~mask.bool().unsqueeze(2), 1e4)
    torch.testing.assert_close(pool(garbage, mask, pooling), expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_without_mask_is_pooling_of_full_rows(pooling):
    hidden = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    full = torch.ones(4, 6, dtype=torch.long)

    torch.testing.assert_close(pool(hidden, None, pooling), pool(hidden, full, pooling))
    torch.testing.assert_close(
        pool(hidden, None, pooling), naive_pool(hidden, full, pooling)
    )


@pytest.mark.parametrize("mask", [None, torch.ones(2, 3)])
def test_a_pooling_of_a_later_version_is_no_other_one(mask):
    with pytest.raises(ValueError, match=r"Got 'sum'\. Install a newer"):
        pool(torch.zeros(2, 3, 4), mask, "sum")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_estimator_pools_as_asked(tiny_model, pooling):
    X, y = toy(16)
    fitted = make(tiny_model, pooling=pooling).fit(X, y)
    network, tokenizer = fitted._live.network, fitted._live.backbone.tokenizer
    encoded = tokenizer(X, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = network.encoder(**encoded).last_hidden_state
        outputs = network.head(naive_pool(hidden, encoded["attention_mask"], pooling))

    np.testing.assert_allclose(
        fitted.predict_log_proba(X), outputs.log_softmax(1), atol=1e-5
    )


def test_a_head_starts_at_random_and_as_small_as_its_input_is_wide(tiny_model):
    backbone = load_backbone(tiny_model, PLACE)
    config = AdaLoraConfig(total_step=9)
    generator = torch.Generator().manual_seed(0)
    weight = build_network(backbone, config, 9, "mean", generator).head.weight
    largest = backbone.width**-0.5

    assert weight.abs().max() <= largest
    assert weight.min() < -0.9 * largest
    assert weight.max() > 0.9 * largest


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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_architectures_fit_and_predict(architecture, precision):
    X, y = toy(32)
    fitted = make(architecture, precision=precision).fit(X, y)
    network = fitted._live.network
    proba = fitted.predict_proba(X)

    assert sum(fitted.ranks_.values()) == 2 * len(fitted.ranks_)
    assert len(fitted.ranks_) >= 2 * 4  # GPT-2 and ModernBERT join q, k and v
    assert np.isfinite(proba).all()
    assert len(np.unique(proba)) > 2
    assert network.encoder.peft_config.inference_mode
    # All layers were reached: their values moved away from 0.
    for path, rank in fitted.ranks_.items():
        values = fitted._adapter.arrays[f"base_model.model.{path}.lora_E"]
        assert len(values) == rank
        assert np.all(values != 0)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.predict_proba(X), proba)


def test_padding_does_not_change_what_a_text_gets(architecture):
    X, y = toy(16)
    fitted = make(architecture).fit(X, y)
    alone = np.concatenate([fitted.decision_function([text]) for text in X])

    np.testing.assert_allclose(fitted.decision_function(X), alone, atol=1e-4)


@pytest.mark.parametrize("max_length", [256, 40])
def test_no_text_is_longer_than_the_positions(architecture, max_length):
    X, y = toy(16)
    long = ["the good film " * 300, *X[1:]]
    fitted = make(architecture, max_length=max_length).fit(long, y)

    assert fitted.fit_report_.truncated_share == 1 / 16
    assert fitted.fit_report_.max_length <= max_length
    assert np.isfinite(fitted.predict_proba(long)).all()


def test_architectures_take_pairs_of_texts(architecture):
    X, y = toy(16)
    table = np.array([X, X[::-1]], dtype=object).T
    fitted = make(architecture, row_format="pair").fit(table, y)

    assert np.isfinite(fitted.predict_proba(table)).all()


def test_the_width_is_that_of_the_hidden_states(architecture):
    backbone = load_backbone(architecture, PLACE)

    assert backbone.width == 32
    assert isinstance(backbone.module, nn.Module)
    config = json.loads((Path(architecture) / "config.json").read_text())
    if config["model_type"] == "t5":
        assert backbone.longest == 512  # no positions: what the tokenizer says
    else:
        assert backbone.longest <= 64


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
    tokenizer = load_backbone(own_model, PLACE).tokenizer

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
    drawn = load_backbone(own_model, PLACE, n_labels=2).pretrained.drawn
    assert {"classifier.weight", "classifier.bias"} <= set(drawn)
    kept = load_backbone(own_model, PLACE, n_labels=5).module
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


def test_a_decoder_that_the_files_lack_is_saved_alike_each_time(t5, tmp_path):
    weights = load_file(t5 / "model.safetensors")
    kept = {n: w for n, w in weights.items() if not n.startswith("decoder.")}
    save_file(kept, t5 / "model.safetensors", metadata={"format": "pt"})
    fitted = make(str(t5), max_length=32).fit(*toy(32))
    written = set()
    for name in "ab":
        torch.rand(1)  # the global generator is in another state
        fitted.merge_and_save(tmp_path / name)
        written.add((tmp_path / name / "model.safetensors").read_bytes())

    assert len(written) == 1


@pytest.fixture(params=[True, False])
def bars(request):
    """Whether the user has transformers show progress bars."""
    logging = transformers.utils.logging
    before = logging.is_progress_bar_enabled()
    switch = {True: logging.enable_progress_bar, False: logging.disable_progress_bar}
    switch[request.param]()
    yield request.param
    switch[before]()


def test_silence_ends_with_the_last_who_wants_it(bars):
    from transformers.utils import logging

    before = logging.get_verbosity(), bars
    first, second = silent_transformers(), silent_transformers()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.get_verbosity() == logging.ERROR
    assert not logging.is_progress_bar_enabled()
    second.__exit__(None, None, None)

    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before

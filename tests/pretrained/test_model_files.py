"""What of a pretrained model is hashed and copied, and what is refused."""

import errno
import hashlib
import json
import os
import re
import shutil
import time
from itertools import product
from pathlib import Path

import pytest
import torch
from _threads import in_threads
from _tiny_model import random_bert
from safetensors.torch import load_file, save_file

import sk_adalora
from sk_adalora.pretrained import backbone as _backbone
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.pretrained.weights import (
    check_folder,
    content_hash,
    copy_backbone,
    has_vocabulary,
    lies_in,
    settings_hashes,
    weight_files,
)
from sk_adalora.runtime.devices import resolve_place

pytestmark = pytest.mark.usefixtures("empty_cache")

PLACE = resolve_place("cpu", "float32")


# ---- hashes -----------------------------------------------------------------


def test_the_hash_of_one_file_is_the_published_one(tiny_model):
    (path,) = weight_files(Path(tiny_model))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()

    assert content_hash(Path(tiny_model)) == expected


@pytest.fixture
def shards(own_model):
    """The weights of `own_model`, in several files."""
    module = random_bert(own_model, seed=0)
    for path in weight_files(own_model):
        path.unlink()
    module.save_pretrained(own_model, max_shard_size="50KB")
    paths = weight_files(own_model)
    assert len(paths) > 1
    return paths


def test_the_hash_of_several_files_depends_on_each(own_model, shards):
    before = content_hash(own_model)
    assert content_hash(own_model) == before

    for shard in shards:
        held = shard.read_bytes()
        shard.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
        assert content_hash(own_model) != before
        shard.write_bytes(held)


def test_the_hash_of_several_files_is_that_of_their_hashes(own_model, shards):
    """Models that were saved before have recorded it so."""
    lines = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(shards)]
    expected = hashlib.sha256("\n".join(lines).encode()).hexdigest()

    assert content_hash(own_model) == expected


@pytest.mark.usefixtures("shards")
def test_hashes_do_not_depend_on_the_order_in_which_files_are_found(
    own_model, monkeypatch
):
    """Each file system has one of its own."""
    before = content_hash(own_model), settings_hashes(own_model)
    find = Path.glob
    monkeypatch.setattr(Path, "glob", lambda *given: reversed([*find(*given)]))

    assert (content_hash(own_model), settings_hashes(own_model)) == before


def test_threads_hash_a_file_once(tiny_model, monkeypatch):
    read, kept = [], hashlib.file_digest

    def digest(file, kind):
        time.sleep(0.2)
        read.append(file.name)
        return kept(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert len(set(in_threads(content_hash, [Path(tiny_model)] * 4))) == 1
    assert len(read) == 1


def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(own_model, monkeypatch):
    (path,) = weight_files(own_model)
    kept = hashlib.file_digest

    def digest(file, kind):
        found = kept(file, kind)
        path.write_bytes(b"other weights")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", digest)
        content_hash(own_model)

    expected = hashlib.sha256(b"other weights").hexdigest()
    assert content_hash(own_model) == expected


OTHERS = [
    "adapter_model.safetensors",
    "head.safetensors",  # of a merged model
    "model.fp16.safetensors",
    "consolidated.safetensors",  # Mistral's second copy
    "pytorch_model.generator.bin",  # DeBERTa's
    "training_args.bin",
]


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_the_weights_are_what_transformers_reads(own_model, tmp_path, weights):
    """Whether another program has fetched other files into a cache changes nothing."""
    module, safe = random_bert(own_model, seed=0), own_model / "model.safetensors"
    if weights == "pytorch_model.bin":
        torch.save(module.state_dict(), own_model / weights)
        safe.unlink()
    before = content_hash(own_model)
    for name in OTHERS:
        (own_model / name).touch()
    if weights == "model.safetensors":
        (own_model / "pytorch_model.bin").touch()

    assert [path.name for path in weight_files(own_model)] == [weights]
    assert content_hash(own_model) == before
    copy_backbone(own_model, tmp_path / "copy")
    copied = {path.name for path in (tmp_path / "copy").iterdir()}
    assert copied.isdisjoint({*OTHERS, "pytorch_model.bin"} - {weights})
    assert content_hash(tmp_path / "copy") == before
    load_backbone(own_model, PLACE)  # transformers does not look at the empty files


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_what_several_processes_wrote_is_hashed(own_model, tmp_path):
    """transformers reads it, with all safetensors beside it, before other weights."""
    before, weights = content_hash(own_model), own_model / "model.safetensors"
    shard = own_model / "shard-00001-model-00001-of-00001.safetensors"
    shutil.copyfile(weights, shard)
    shutil.copyfile(weights, own_model / "other.safetensors")

    names = ["model.safetensors", "other.safetensors", shard.name]
    assert [path.name for path in weight_files(own_model)] == names
    assert content_hash(own_model) != before
    copy_backbone(own_model, tmp_path / "copy")
    assert content_hash(tmp_path / "copy") == content_hash(own_model)
    load_backbone(own_model, PLACE)
    weights.unlink()
    assert [path.name for path in weight_files(own_model)] == names[1:]


@pytest.mark.parametrize(
    "replace",
    [
        os.replace,
        pytest.param(
            shutil.copy2,  # into the file that is there
            marks=pytest.mark.skipif(os.name == "nt", reason="notes no later change"),
        ),
    ],
)
def test_another_file_of_the_same_time_and_size_is_hashed_anew(
    own_model, tmp_path, replace
):
    """As archives with fixed times unpack it."""
    weights, other = own_model / "model.safetensors", tmp_path / "other"
    numbers = bytearray(weights.read_bytes())
    numbers[-1] ^= 1
    other.write_bytes(numbers)
    for path in (weights, other):
        os.utime(path, (0, 0))
    before = content_hash(own_model)
    time.sleep(0.05)  # some file systems count time in such steps
    replace(other, weights)

    assert content_hash(own_model) != before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_not_read(own_model):
    """A named pipe would be waited for."""
    (weights,) = weight_files(own_model)
    os.mkfifo(own_model / "other.safetensors")
    assert weight_files(own_model) == [weights]


def test_a_folder_is_no_file_of_a_model_whatever_its_name(own_model, tmp_path):
    (own_model / "older.json").mkdir()
    assert "older.json" not in dict(settings_hashes(own_model))

    copy_backbone(own_model, tmp_path / "copy")
    assert not (tmp_path / "copy" / "older.json").exists()


def test_code_that_comes_with_a_model_is_hashed_like_its_settings(own_model):
    code = own_model / "modeling_own.py"
    code.write_text("x = 1")
    before = settings_hashes(own_model)
    code.write_text("x = 12")

    assert settings_hashes(own_model) != before


@pytest.mark.parametrize("with_code", [False, True])
def test_code_that_comes_with_a_model_is_copied_if_asked(
    own_model, tmp_path, with_code
):
    (own_model / "modeling_own.py").touch()
    copy_backbone(own_model, tmp_path / "copy", with_code=with_code)

    assert (tmp_path / "copy" / "modeling_own.py").exists() == with_code


@pytest.mark.parametrize(
    "name",
    [
        "vocab.txt",
        "vocab.json",
        "tokenizer.json",
        "tekken.json",
        "spiece.model",
        "source.spm",
        "prophetnet.tokenizer",
        "bpe.codes",
        "qwen.tiktoken",
    ],
)
def test_a_vocabulary_of_any_form_is_found(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    for other in ("config.json", "added.txt"):
        (folder / other).touch()
    assert not has_vocabulary(folder)
    (folder / name).touch()
    assert has_vocabulary(folder)

    copy_backbone(folder, tmp_path / "copy")
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(os.listdir(folder))
    assert [n for n, _ in settings_hashes(folder)] == sorted(os.listdir(folder))


def test_what_a_link_leads_to_is_copied(own_model, tmp_path):
    """The hub's cache has links."""
    (own_model / "config.json").rename(tmp_path / "settings")
    (own_model / "config.json").symlink_to(tmp_path / "settings")
    copy_backbone(own_model, tmp_path / "copy")

    assert (tmp_path / "copy" / "config.json").is_file()
    assert not (tmp_path / "copy" / "config.json").is_symlink()


@pytest.mark.parametrize("there", [True, False])
def test_a_model_lies_in_itself_and_in_the_folders_above_it(tmp_path, there):
    """Also through a link, and where another writer has just moved it away."""
    for name in ("real", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    inside = Path("saved", "model")
    if there:
        (tmp_path / "real" / inside).mkdir(parents=True)
    models = [tmp_path / name / inside for name in ("real", "link")]
    for model, other in product(models, models):
        assert lies_in(model, other)
        assert lies_in(model, other.parent)
        assert not lies_in(model, other / "within")
        assert not lies_in(model, tmp_path / "other")


def test_a_model_lies_in_a_folder_whose_name_is_written_otherwise(
    tmp_path, monkeypatch
):
    """As on macOS, which is pretended here."""

    def same(*paths):
        return len({str(path).lower() for path in paths}) == 1

    monkeypatch.setattr(os.path, "samefile", same)
    model = tmp_path / "Models" / "own"
    for folder in (model, tmp_path / "models"):
        folder.mkdir(parents=True, exist_ok=True)

    assert lies_in(model, tmp_path / "models")


# ---- what a folder names ----------------------------------------------------


def point_to(folder, *names):
    """Have an index name files, each for one half of the weights."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    of = {key: names[i % len(names)] for i, key in enumerate(tensors)}
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        part = {key: tensors[key] for key, file in of.items() if file == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    path.unlink()
    index = {"metadata": {}, "weight_map": of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("absolute", [False, True])
def test_an_index_of_weights_elsewhere_is_refused(own_model, tmp_path, absolute):
    """They would not be hashed."""
    name = str(tmp_path / "a.safetensors") if absolute else "parts/a.safetensors"
    point_to(own_model, name, "b.safetensors")
    with pytest.raises(
        ValueError, match=r"must be files of its folder.*a\.safetensors"
    ):
        load_backbone(own_model, PLACE)


def test_an_index_of_weights_of_pytorch_elsewhere_is_refused(own_model):
    (own_model / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"x": "parts/a.bin"}}
    (own_model / "pytorch_model.bin.index.json").write_text(json.dumps(index))

    with pytest.raises(ValueError, match=r"must be files of its folder.*parts/a\.bin"):
        content_hash(own_model)


def test_an_index_of_pytorch_is_not_read_where_there_is_safetensors(own_model):
    index = {"metadata": {}, "weight_map": {"x": "parts/a.bin"}}
    before = content_hash(own_model)
    (own_model / "pytorch_model.bin.index.json").write_text(json.dumps(index))

    assert content_hash(own_model) == before


def test_an_index_of_weights_in_the_folder(own_model):
    expected = load_backbone(own_model, PLACE).module.state_dict()
    sk_adalora.clear_backbone_cache()
    point_to(own_model, "model-1.safetensors", "model-2.safetensors")

    found = load_backbone(own_model, PLACE).module.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": {}}'])
def test_an_index_that_names_no_files(own_model, index):
    (own_model / "model.safetensors").unlink()
    (own_model / "model.safetensors.index.json").write_text(index)

    with pytest.raises(ValueError, match="or an index that names several such files"):
        load_backbone(own_model, PLACE)


@pytest.mark.usefixtures("shards")
@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_what_names_the_weights_must_be_read(own_model, monkeypatch, name, code):
    """It may be closed to the user, or too many files may be open."""
    read = Path.read_text

    def read_text(path, **options):
        if path.name == name:
            raise OSError(code, os.strerror(code), str(path))
        return read(path, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(OSError, match=re.escape(name)) as raised:
        content_hash(own_model)
    assert raised.value.errno == code


@pytest.mark.parametrize(
    "name", ["sub/x.safetensors", f"{'x' * 300}.safetensors", "", 7, ["model.bin"]]
)
def test_what_the_settings_name_for_weights_must_be_a_file(own_model, name):
    settings = own_model / "config.json"
    named = json.loads(settings.read_text()) | {"transformers_weights": name}
    settings.write_text(json.dumps(named))

    with pytest.raises(ValueError, match=r"must be files of its folder.* which names"):
        load_backbone(own_model, PLACE)


@pytest.mark.parametrize("name", ["sub/x.safetensors", "x.safetensors"])
def test_weights_that_the_settings_name(own_model, name):
    (own_model / "sub").mkdir()
    (own_model / "model.safetensors").rename(own_model / name)
    settings = own_model / "config.json"
    named = json.loads(settings.read_text()) | {"transformers_weights": name}
    settings.write_text(json.dumps(named))
    save_file({"x": torch.zeros(1)}, own_model / "head.safetensors")
    if "/" in name:
        with pytest.raises(ValueError, match="must be files of its folder"):
            load_backbone(own_model, PLACE)
    else:
        assert weight_files(own_model) == [own_model / name]
        load_backbone(own_model, PLACE)


def test_an_index_elsewhere_is_not_read(own_model):
    point_to(own_model, "a.safetensors")
    (own_model / "sub").mkdir()
    index = own_model / "model.safetensors.index.json"
    index.rename(own_model / "sub" / index.name)
    settings = own_model / "config.json"
    named = {"transformers_weights": f"sub/{index.name}"}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | named))
    with pytest.raises(ValueError, match=r"must be files of its folder.*sub/model"):
        load_backbone(own_model, PLACE)


def test_settings_in_another_file_are_refused(own_model):
    """transformers would read them, and nobody would compare them."""
    path = own_model / "config.json"
    other = json.loads(path.read_text()) | {"hidden_act": "relu"}
    (own_model / "config.4.0.0.json").write_text(json.dumps(other))
    named = {"configuration_files": ["config.4.0.0.json"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    with pytest.raises(ValueError, match="must hold all settings"):
        load_backbone(own_model, PLACE)


def load_while(monkeypatch, folder, change):
    """Load a model, and do something before its files are looked at again."""
    read = _backbone.read_pretrained

    def meanwhile(*args):
        found = read(*args)
        change()
        return found

    monkeypatch.setattr(_backbone, "read_pretrained", meanwhile)
    return load_backbone(folder, PLACE)


@pytest.mark.parametrize(
    "how", [lambda path: path.chmod(0o600), lambda path: os.link(path, f"{path}.copy")]
)
def test_what_a_backup_does_meanwhile_is_no_change(own_model, monkeypatch, how):
    load_while(monkeypatch, own_model, lambda: how(own_model / "model.safetensors"))


def write_again(path):
    path.write_bytes(path.read_bytes())


def put_a_copy_in_place(path):
    shutil.copy2(path, f"{path}.copy")  # which keeps the time
    os.replace(f"{path}.copy", path)


@pytest.mark.parametrize("how", [write_again, put_a_copy_in_place])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_was_written_again_meanwhile_is_a_change(
    own_model, monkeypatch, name, how
):
    """Another model may have been there in between."""
    with pytest.raises(ValueError, match="must stay as they are while they are read"):
        load_while(monkeypatch, own_model, lambda: how(own_model / name))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_is_overwritten_by_a_file_of_the_same_time_and_size_is_a_change(
    own_model, monkeypatch, name
):
    """As where both are out of archives that give all files one time."""
    path = own_model / name
    os.utime(path, (0, 0))
    other = path.read_bytes()[:-1] + b" "  # which JSON may end with

    def overwrite():
        path.write_bytes(other)
        os.utime(path, (0, 0))

    with pytest.raises(ValueError, match="must stay as they are while they are read"):
        load_while(monkeypatch, own_model, overwrite)


CODE = {
    "attention": {"_attn_implementation": "evil/kernel"},
    "attention of a part": {"attn_implementation": {"text": "evil/kernel"}},
    "of a nested part": {"parts": [{"_attn_implementation": "evil/kernel:x"}]},
    "experts": {"experts_implementation": "evil/kernel"},
    # transformers 5.0 sets what its configurations keep the name in.
    "what holds it": {"_attn_implementation_internal": "evil/kernel"},
}


@pytest.mark.parametrize("case", CODE)
def test_code_of_the_hub_is_refused(own_model, case):
    """transformers would fetch and import it, whatever `trust_remote_code` says."""
    path = own_model / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | CODE[case]))
    with pytest.raises(ValueError, match=r"must not name code of the hub.*evil/kernel"):
        load_backbone(own_model, PLACE)

    check_folder(own_model, trust_remote_code=True)


@pytest.mark.parametrize("hidden", ["_attn_implementation", "transformers_weights"])
def test_settings_under_other_names_are_refused(own_model, hidden):
    """What names code or weights could hide: transformers sets it all the same."""
    path = own_model / "config.json"
    hides = {"attribute_map": {"other": hidden}, "other": "evil/kernel"}
    for settings in (hides, {"text_config": hides}):
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        with pytest.raises(ValueError, match=r"must not .* rename.*`attribute_map`"):
            load_backbone(own_model, PLACE)

    check_folder(own_model, trust_remote_code=True)


def test_a_model_of_the_hub_in_the_settings_is_refused(own_model):
    """transformers asks the hub for it, even if told not to use the network."""
    path = own_model / "config.json"
    kept = json.loads(path.read_text())
    named = {"backbone": "evil/model", "use_timm_backbone": False}
    for settings in (named, {"vision_config": named}):
        path.write_text(json.dumps(kept | {"model_type": "detr"} | settings))
        with pytest.raises(ValueError, match=r"must not name .* by `backbone`"):
            load_backbone(own_model, PLACE, local_files_only=True)


@pytest.mark.parametrize("name", ["sdpa", "eager", None])
def test_attention_of_transformers_itself_is_not_refused(own_model, name):
    path = own_model / "config.json"
    named = {"_attn_implementation": name, "source": "https://example.org/a"}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    check_folder(own_model, trust_remote_code=False)

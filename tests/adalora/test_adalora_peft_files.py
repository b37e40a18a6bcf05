"""PEFT's adapter folder, both ways; plain LoRA; merged models of transformers."""

import json
import warnings

import accelerate
import peft
import pytest
import torch
import transformers
from _folders import bytes_of
from _tiny import (
    adapt,
    build,
    randomise,
    tiny_bert,
    tiny_classifier,
    tiny_distilbert,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    tokens,
    train,
)
from _toy import topics
from packaging.version import Version
from safetensors.torch import load_file, save_file
from torch import nn

from sk_adalora.adalora import (
    export_lora,
    load_peft_adapter,
    save_adapter,
)

TRANSFORMERS = Version(transformers.__version__)
X, Y = topics(48)
transformers.utils.logging.disable_progress_bar()


def outputs(model, ids=None):
    """Logits or last hidden states, without gradient."""
    ids = tokens() if ids is None else ids
    more = {"decoder_input_ids": ids} if "T5" in type(unwrapped(model)).__name__ else {}
    with torch.no_grad():
        result = model(input_ids=ids, **more)
    return result.logits if hasattr(result, "logits") else result.last_hidden_state


def unwrapped(model):
    while isinstance(model, peft.PeftModel) or type(model).__name__ == "AdaLoraModel":
        model = (
            model.get_base_model() if isinstance(model, peft.PeftModel) else model.model
        )
    return model


def assert_close(first, second):
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def by_peft(base, folder):
    """The model that peft makes of a folder; nothing may be missing or left over."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return peft.PeftModel.from_pretrained(base, folder).eval()


# Engine: a model and how it is adapted.
KINDS = {
    "bert": (tiny_bert, {}),
    "query and value": (tiny_bert, {"target_modules": ["query", "value"]}),
    "pattern": (tiny_bert, {"target_modules": r".*\.(key|dense)"}),
    "some layers": (
        tiny_bert,
        {"target_modules": ["dense"], "layers_to_transform": [1]},
    ),
    "classifier": (tiny_classifier, {"task_type": "SEQ_CLS"}),
    "distilbert classifier": (
        tiny_distilbert,
        {"target_modules": ["q_lin", "v_lin"], "task_type": "SEQ_CLS"},
    ),
    "saved by name": (tiny_classifier, {"modules_to_save": ["classifier", "pooler"]}),
    # PEFT takes every module whose path ends with these letters.
    "norms of llama": (tiny_llama, {"modules_to_save": ["norm"]}),
    "norms of a bare llama": (
        lambda seed=0: tiny_llama(seed, transformers.LlamaModel),
        {"modules_to_save": ["norm"]},
    ),
    "gpt2": (tiny_gpt2, {"fan_in_fan_out": True}),
    "llama": (tiny_llama, {}),
    "llama classifier": (
        lambda seed=0: tiny_llama(seed, transformers.LlamaForSequenceClassification),
        {"task_type": "SEQ_CLS"},
    ),
    "t5": (tiny_t5, {}),
    "no alpha": (tiny_bert, {"lora_alpha": 0.5}),
    "alpha 0": (tiny_bert, {"lora_alpha": 0}),
}


def trained(kind, steps=12):
    """An adapted model of that kind with large random numbers, pruned to the target."""
    new, options = KINDS[kind]
    model = randomise(adapt(new(), **options))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, tensor in model.trainable_parameters():
            if tensor.ndim < 2 or "triplets" not in _:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    scores = torch.rand(len(model.triplets.singular_values), generator=generator)
    return prune(model, scores > 0.4) if steps else model


def prune(model, kept):
    """Mask triplets, as an allocation does."""
    model.allocator.kept.copy_(kept)
    with torch.no_grad():
        model.triplets.singular_values[~kept] = 0
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_peft_reads_what_we_write(kind, tmp_path):
    model = trained(kind)
    expected = outputs(model)
    save_adapter(model, tmp_path)
    base = KINDS[kind][0]()
    before = outputs(base)

    assert_close(outputs(by_peft(base, tmp_path)), expected)
    assert (before - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_we_read_what_we_write(kind, tmp_path):
    model = trained(kind)
    save_adapter(model, tmp_path)
    loaded = load_peft_adapter(KINDS[kind][0](), tmp_path)

    assert_close(outputs(loaded), outputs(model))
    assert loaded.ranks == model.ranks
    assert not [n for n, _ in loaded.trainable_parameters()]
    save_adapter(loaded, tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (
            tmp_path / name
        ).read_bytes()


def test_the_ways_of_transformers_and_accelerate_write_the_adapter(tmp_path):
    model = trained("classifier")
    one = accelerate.Accelerator(cpu=True)
    save_adapter(model, tmp_path / "ours")
    model.save_pretrained(tmp_path / "transformers")
    model.save_pretrained(
        tmp_path / "accelerate",
        is_main_process=one.is_main_process,
        save_function=one.save,
        state_dict=one.get_state_dict(model),
        safe_serialization=True,
    )
    model.save_pretrained(tmp_path / "other", is_main_process=False)
    ours = bytes_of(tmp_path / "ours")

    assert sorted(ours) == ["adapter_config.json", "adapter_model.safetensors"]
    assert bytes_of(tmp_path / "transformers") == ours
    assert bytes_of(tmp_path / "accelerate") == ours
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("learned", [False, True])
def test_other_numbers_than_the_model_has(tmp_path, learned):
    model = trained("classifier", steps=12 if learned else 0)
    state = {n: -2 * t.double() for n, t in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=state)
    other = tiny_classifier()
    expected = trained("classifier", steps=12 if learned else 0)
    expected.load_state_dict({n: t.float() for n, t in state.items()})

    assert_close(outputs(load_peft_adapter(other, tmp_path)), outputs(expected))


@pytest.mark.parametrize(
    ("write", "load"),
    [
        (save_adapter, peft.AutoPeftModelForSequenceClassification.from_pretrained),
        pytest.param(
            export_lora,
            transformers.AutoModelForSequenceClassification.from_pretrained,
            marks=pytest.mark.skipif(
                TRANSFORMERS < Version("5.6"),
                reason="transformers before 5.6 leaves out an adapter, with a report",
            ),
        ),
    ],
)
def test_a_folder_alone_finds_its_base_model(tmp_path, write, load):
    tiny_classifier().save_pretrained(tmp_path / "base")
    base = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base")
    model = randomise(adapt(base.eval(), task_type="SEQ_CLS"))
    write(model, tmp_path / "adapter")

    assert_close(outputs(load(tmp_path / "adapter").eval()), outputs(model))
    assert model.peft_config.base_model_name_or_path is None  # it is the caller's


@pytest.mark.parametrize("write", [save_adapter, export_lora])
@pytest.mark.parametrize("step", ["save_file", "Path.write_text"])
def test_a_failure_leaves_the_adapter_that_was_there(
    tmp_path, monkeypatch, write, step
):
    write(trained("bert", steps=0), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = bytes_of(tmp_path)

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(f"sk_adalora.adalora.peft_format.{step}", fail)
    with pytest.raises(OSError, match="No space left on device"):
        write(trained("query and value"), tmp_path)
    monkeypatch.undo()
    assert bytes_of(tmp_path) == before

    write(trained("query and value"), tmp_path)
    after = bytes_of(tmp_path)
    assert [name for name in before if before[name] == after[name]] == ["notes.txt"]
    assert after.keys() == before.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_peft_computes_the_same_of_exported_lora(kind, tmp_path):
    model = trained(kind)
    export_lora(model, tmp_path)
    values = json.loads((tmp_path / "adapter_config.json").read_text("utf8"))

    assert values["peft_type"] == "LORA"
    living = {path: rank for path, rank in model.ranks.items() if rank}
    assert set(values["target_modules"]) == set(living)
    assert values["r"] == values["lora_alpha"] == max(living.values())
    assert values["lora_dropout"] == 0
    names = load_file(tmp_path / "adapter_model.safetensors")
    assert {name for name in names if ".lora_" in name} == {
        f"base_model.model.{path}.lora_{factor}.weight"
        for path in living
        for factor in "AB"
    }
    assert_close(outputs(by_peft(KINDS[kind][0](), tmp_path)), outputs(model))


@pytest.mark.parametrize("by", ["rank of the tensor", "rank of the configuration"])
def test_programs_that_read_one_alpha_compute_the_same_of_exported_lora(by, tmp_path):
    """llama.cpp divides by the rank of a tensor, vLLM by `r`; none reads patterns."""
    model = trained("bert")
    first = torch.cat([torch.arange(r) == 0 for r in model.triplets.ranks])
    prune(model, model.allocator.kept & ~first)
    export_lora(model, tmp_path)
    values = json.loads((tmp_path / "adapter_config.json").read_text("utf8"))
    tensors = load_file(tmp_path / "adapter_model.safetensors")

    ranks = {len(t) for name, t in tensors.items() if "lora_A" in name}
    assert ranks == {max(model.ranks.values())} == {3}
    assert len(set(model.ranks.values())) > 1
    assert model.peft_config.init_r == 4
    deltas = dict(zip(model.adapted, model.triplets.deltas(), strict=True))
    for path in values["target_modules"]:
        start = f"base_model.model.{path}.lora_"
        a, b = tensors[f"{start}A.weight"], tensors[f"{start}B.weight"]
        rank = len(a) if by == "rank of the tensor" else values["r"]
        assert_close(values["lora_alpha"] / rank * (b @ a), deltas[path])


@pytest.mark.parametrize("write", [save_adapter, export_lora])
@pytest.mark.parametrize("n_pruned", [1, 11])
def test_layers_of_rank_0(tmp_path, write, n_pruned):
    model = randomise(adapt(tiny_bert()))
    prune(model, torch.arange(48) >= 4 * n_pruned)
    write(model, tmp_path)

    assert list(model.ranks.values()).count(0) == n_pruned
    assert_close(outputs(by_peft(tiny_bert(), tmp_path)), outputs(model))
    if write is save_adapter:
        assert_close(outputs(load_peft_adapter(tiny_bert(), tmp_path)), outputs(model))


@pytest.mark.parametrize("write", [save_adapter, export_lora])
@pytest.mark.parametrize("ranks", [(4, 1), (1, 4), (4, 0)])
def test_a_layer_whose_path_is_the_end_of_another_s(tmp_path, write, ranks):
    """PEFT tells layers by the ends of their paths: "2.0" ends as "0" does."""

    def make_nested():
        inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), inner)

    model = randomise(adapt(build(make_nested), target_modules=["0"]))
    prune(model, torch.tensor([i < rank for rank in ranks for i in range(4)]))
    write(model, tmp_path)
    rows = torch.linspace(-1, 1, 24).view(3, 8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a layer that has no rank
        read = peft.PeftModel.from_pretrained(build(make_nested), tmp_path).eval()
        assert_close(read(rows), model(rows))


def test_without_any_rank_there_is_no_plain_lora(tmp_path):
    model = adapt(tiny_classifier(), target_r=0, task_type="SEQ_CLS")
    model.allocator.finish()
    with pytest.raises(ValueError, match=r"rank 1 at least.*all 0.*larger `target_r`"):
        export_lora(model, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()

    save_adapter(model, tmp_path)
    for load in (by_peft, load_peft_adapter):
        assert_close(outputs(load(tiny_classifier(), tmp_path)), outputs(model))
    model.compact()
    assert model.orthogonality_loss() == 0


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_peft_writes_the_frozen_part_of_an_adapted_output_layer(tmp_path):
    theirs = adapted_by_peft(tiny_gpt2, target_modules=["c_attn", "lm_head"])
    theirs.save_pretrained(tmp_path)
    names = load_file(tmp_path / "adapter_model.safetensors")

    assert "base_model.model.lm_head.base_layer.weight" in names
    assert_close(outputs(load_peft_adapter(tiny_gpt2(), tmp_path)), outputs(theirs))


@pytest.mark.parametrize("write", [save_adapter, export_lora])
def test_before_and_after_the_pruned_are_deleted(tmp_path, write):
    model = adapt(tiny_bert())
    train(model, range(10))  # final, and not deleted yet
    randomised = model.triplets.singular_values.data[model.allocator.kept]
    model.triplets.singular_values.data[model.allocator.kept] = randomised.sign() * 0.5
    full = len(model.triplets.singular_values)
    write(model, tmp_path / "before")
    expected = outputs(model)
    model.compact()
    write(model, tmp_path / "after")

    assert len(model.triplets.singular_values) < full
    for folder in ("before", "after"):
        assert_close(outputs(by_peft(tiny_bert(), tmp_path / folder)), expected)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        first, second = (
            (tmp_path / f / name).read_bytes() for f in ("before", "after")
        )
        assert first == second


# ---- what peft writes -------------------------------------------------------


def adapted_by_peft(new, steps=9, **options):
    """A model that peft adapted and trained a little, with large numbers."""
    config = peft.AdaLoraConfig(
        **{
            "init_r": 4,
            "target_r": 2,
            "tinit": 1,
            "tfinal": 2,
            "deltaT": 1,
            "total_step": 9,
            "lora_alpha": 8,
            "target_modules": ["query", "value"],
            **options,
        }
    )
    torch.manual_seed(0)
    model = peft.get_peft_model(new(), config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    for step in range(steps):
        model(input_ids=tokens(step))
        loss = outputs_with_gradient(model, step).square().mean()
        loss.backward()
        model.base_model.update_and_allocate(step)
        model.zero_grad()
    return model.eval()


def outputs_with_gradient(model, step):
    result = model(input_ids=tokens(step))
    return result.logits if hasattr(result, "logits") else result.last_hidden_state


PEFTS = {
    "pruned": (tiny_bert, {}),
    "before pruning": (tiny_bert, {"steps": 0}),
    "while pruning": (tiny_bert, {"steps": 5}),
    "never pruned": (tiny_bert, {"steps": 1}),
    "classifier": (tiny_classifier, {"task_type": "SEQ_CLS"}),
    "saved": (tiny_classifier, {"modules_to_save": ["classifier"]}),
    "distilbert classifier": (
        tiny_distilbert,
        {"target_modules": ["q_lin", "v_lin"], "task_type": "SEQ_CLS"},
    ),
    "distilbert, saved": (
        tiny_distilbert,
        {"target_modules": ["q_lin", "v_lin"], "modules_to_save": ["classifier"]},
    ),
    "gpt2": (tiny_gpt2, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    # peft fails at layers without gradient, such as the pooler here.
    "all-linear": (
        tiny_bert,
        {"target_modules": "all-linear", "exclude_modules": ".*pooler.*"},
    ),
    "all-linear, fresh": (tiny_bert, {"target_modules": "all-linear", "steps": 0}),
    "pattern": (tiny_bert, {"target_modules": r".*encoder.*\.(key|dense)"}),
    "excluded": (
        tiny_bert,
        {"target_modules": ["query", "key"], "exclude_modules": ["key"]},
    ),
    "alpha 1": (tiny_bert, {"lora_alpha": 1}),
}


@pytest.mark.parametrize("kind", PEFTS)
@pytest.mark.filterwarnings("ignore:.*:UserWarning:peft")
def test_we_read_what_peft_writes(kind, tmp_path):
    new, options = PEFTS[kind]
    model = adapted_by_peft(new, **options)
    model.save_pretrained(tmp_path)
    loaded = load_peft_adapter(new(), tmp_path)

    assert_close(outputs(loaded), outputs(model))
    assert (outputs(new()) - outputs(model)).abs().max() > 1e-3
    # And peft reads it back from us.
    save_adapter(loaded, tmp_path / "again")
    assert_close(outputs(by_peft(new(), tmp_path / "again")), outputs(model))


class Counting(nn.Module):
    """A layer to adapt, and one to train that has buffers of whole numbers."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.norm.register_buffer("switches", torch.zeros(8, dtype=torch.bool))
        for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
            name = str(dtype).removeprefix("torch.")
            self.norm.register_buffer(name, torch.arange(8).to(dtype))

    def forward(self, x):
        return self.norm(self.inner(x)) * (1 + self.norm.switches.float())


def test_buffers_of_whole_numbers_in_what_is_trained_in_full(tmp_path):
    names = {"target_modules": ["inner"], "modules_to_save": ["norm"]}
    base, x = build(Counting), torch.randn(6, 8)
    theirs = peft.get_peft_model(base, peft.AdaLoraConfig(total_step=9, **names))
    norm = base.norm.modules_to_save["default"]
    norm.num_batches_tracked.fill_(2**40 + 1)  # more than float32 can tell apart
    norm.switches[:3] = True
    theirs.eval().save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    loaded = load_peft_adapter(build(Counting), tmp_path)
    save_adapter(loaded, tmp_path / "again")

    again = load_file(tmp_path / "again" / "adapter_model.safetensors")
    types = {name: tensor.dtype for name, tensor in stored.items()}
    assert {torch.int64, torch.uint8, torch.bool} <= {*types.values()}
    assert {name: tensor.dtype for name, tensor in again.items()} == types
    assert loaded.norm.num_batches_tracked.dtype == torch.int64
    by_them = by_peft(build(Counting), tmp_path / "again")
    of_them = by_them.get_base_model().norm.modules_to_save["default"]
    for read, norm in ((loaded, loaded.norm), (by_them, of_them)):
        assert_close(read(x), theirs(x))
        assert norm.num_batches_tracked == 2**40 + 1


# PEFT takes names for patterns, so it reads the first three only.
NAMES = ["en/de", "a b", "é", "(x+x+)+y", "|", "[", "\\d", "line\nbreak", "$", "+"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_torch_allows(tmp_path, name):
    def make():
        inner = nn.ModuleDict({name: nn.Linear(8, 8), "x": nn.Linear(8, 8)})
        return nn.ModuleDict({"inner": inner})

    model = randomise(adapt(build(make)))
    save_adapter(model, tmp_path)
    loaded, x = load_peft_adapter(build(make), tmp_path), torch.randn(3, 8)

    assert list(loaded.adapted) == [f"inner.{name}", "inner.x"]
    expected = model.inner[name](x)
    assert_close(loaded.inner[name](x), expected)
    if name in NAMES[:3]:
        theirs = by_peft(build(make), tmp_path).get_base_model()
        assert_close(theirs.inner[name](x), expected)


@pytest.fixture
def from_peft(tmp_path):
    """A model of peft's and its folder, which the test may change."""
    model = adapted_by_peft(tiny_classifier, task_type="SEQ_CLS")
    model.save_pretrained(tmp_path)
    return model, tmp_path


def change_config(folder, **changed):
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text("utf8")) | changed
    values = {name: value for name, value in values.items() if value is not ...}
    path.write_text(json.dumps(values), "utf8")
    return values


def dense(folder):
    """Write the pruned triplets as zeros, as files without a pattern have them."""
    pattern = json.loads((folder / "adapter_config.json").read_text("utf8"))[
        "rank_pattern"
    ]
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, flags in pattern.items():
        start = "base_model.model." + name.removesuffix(".default").removesuffix("E")
        rows = torch.tensor(flags)
        for kind, axis in (("A", 0), ("B", 1), ("E", 0)):
            small = tensors[start + kind]
            shape = list(small.shape)
            shape[axis] = len(flags)
            full = torch.zeros(shape)
            full.index_copy_(axis, rows.nonzero().flatten(), small)
            tensors[start + kind] = full
    save_file(tensors, folder / "adapter_model.safetensors")
    change_config(folder, rank_pattern=None)


def rename_tensors(folder, rename):
    path = folder / "adapter_model.safetensors"
    save_file({rename(n): t for n, t in load_file(path).items()}, path)


def rename_pattern(folder, rename):
    path = folder / "adapter_config.json"
    pattern = json.loads(path.read_text("utf8"))["rank_pattern"]
    change_config(folder, rank_pattern={rename(n): f for n, f in pattern.items()})


def add_frozen(folder):
    """Add what is no part of an adapter, of any shape."""
    path = folder / "adapter_model.safetensors"
    names = ["classifier.original_module.weight", "bert.pooler.dense.ranknum.default"]
    more = {f"base_model.model.{name}": torch.ones(1) for name in names}
    save_file(load_file(path) | more, path)


def cast(folder, dtype):
    path = folder / "adapter_model.safetensors"
    save_file({n: t.to(dtype) for n, t in load_file(path).items()}, path)


NEWER = ("exclude_modules", "alpha_pattern", "auto_mapping", "peft_version", "use_dora")
VARIANTS = {
    "as it is": lambda folder: None,
    "null pattern": dense,
    "empty pattern": lambda f: (dense(f), change_config(f, rank_pattern={})),
    "the adapter's name in keys": lambda f: rename_tensors(
        f, lambda n: n + ".default" if ".lora_" in n else n
    ),
    "the adapter's name in the pattern": lambda f: rename_pattern(
        f, lambda n: n.removesuffix(".default") + ".default"
    ),
    "no name in the pattern": lambda f: rename_pattern(
        f, lambda n: n.removesuffix(".default")
    ),
    "the wrapper in keys": lambda f: rename_tensors(
        f, lambda n: n.replace("classifier.", "classifier.modules_to_save.default.")
    ),
    "the wrapper in keys, without a name": lambda f: rename_tensors(
        f, lambda n: n.replace("classifier.", "classifier.modules_to_save.")
    ),
    "with something frozen": add_frozen,
    "double": lambda f: cast(f, torch.float64),
    "no schedule": lambda f: change_config(f, total_step=None, tinit=0, tfinal=0),
    "no method, no schedule": lambda f: change_config(
        f, peft_type=None, total_step=None
    ),
    "no total": lambda f: change_config(f, total_step=None, tinit=3, tfinal=4),
    "an old config": lambda f: change_config(f, **dict.fromkeys(NEWER, ...)),
    "only what must be": lambda f: change_config(
        f,
        **dict.fromkeys(
            [
                "beta1",
                "beta2",
                "deltaT",
                "orth_reg_weight",
                "total_step",
                "tinit",
                "tfinal",
                "r",
                "lora_dropout",
                "init_lora_weights",
                "layers_pattern",
                "layers_to_transform",
                "revision",
                "loftq_config",
                *NEWER,
            ],
            ...,
        ),
    ),
    "a field of the future": lambda f: change_config(f, use_something_new=None),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_peft_folders(from_peft, variant):
    model, folder = from_peft
    VARIANTS[variant](folder)
    loaded = load_peft_adapter(tiny_classifier(), folder)

    assert_close(outputs(loaded), outputs(model))


@pytest.mark.parametrize("variant", ["as it is", "null pattern", "empty pattern"])
def test_ranks_of_a_loaded_adapter_are_final(from_peft, variant):
    _, folder = from_peft
    VARIANTS[variant](folder)
    loaded = load_peft_adapter(tiny_classifier(), folder)
    before = loaded.ranks
    loaded.update_and_allocate(0)
    loaded.compact()

    assert loaded.allocator.finished
    assert loaded.ranks == before


def test_fields_that_would_change_something_are_named(from_peft):
    _, folder = from_peft
    change_config(folder, use_something_new=True)
    with pytest.raises(ValueError, match=r"Got others: use_something_new\."):
        load_peft_adapter(tiny_classifier(), folder)


def test_another_method_is_refused(tmp_path):
    config = peft.LoraConfig(target_modules=["query"])
    peft.get_peft_model(tiny_bert(), config).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"must be 'ADALORA'\. Got 'LORA'. Load it with p"
    ):
        load_peft_adapter(tiny_bert(), tmp_path)


def test_a_model_that_does_not_fit_stays_as_it_was(tmp_path):
    save_adapter(trained("bert"), tmp_path)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
    )
    other = build(lambda: transformers.BertModel(config))
    expected = outputs(other)
    with pytest.raises(ValueError, match=r"must have shapes.*belongs to this model"):
        load_peft_adapter(other, tmp_path)

    assert torch.equal(outputs(other), expected)
    assert not [n for n, m in other.named_modules() if type(m).__name__ == "SVDLinear"]
    assert all(parameter.requires_grad for parameter in other.parameters())


def with_convolution():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("make", "targets", "saving"),
    [
        (tiny_llama, ["q_proj"], {"save_embedding_layers": True}),
        (with_convolution, ["0", "2"], {}),
    ],
)
def test_what_peft_adapts_beside_linear_layers_is_refused(
    tmp_path, make, targets, saving
):
    config = peft.AdaLoraConfig(total_step=12, target_modules=targets)
    peft.get_peft_model(make(), config).save_pretrained(tmp_path, **saving)
    with pytest.raises(ValueError, match=r"such as embeddings, tokens and convolutio"):
        load_peft_adapter(make(), tmp_path)


def test_training_can_go_on(tmp_path):
    model = trained("bert")
    save_adapter(model, tmp_path)
    loaded = load_peft_adapter(tiny_bert().train(), tmp_path)
    assert not any(part.training for part in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    loaded.triplets.requires_grad_()

    assert {n.split(".")[0] for n, _ in loaded.trainable_parameters()} == {"triplets"}

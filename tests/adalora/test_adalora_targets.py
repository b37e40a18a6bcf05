"""Which layers of real architectures are adapted."""

import re
import warnings

import peft
import pytest
import torch
import transformers
from _tiny import (
    BERT_LAYERS,
    SIZES,
    adapt,
    build,
    config,
    no_warning,
    randomise,
    tiny_bert,
    tiny_classifier,
    tiny_distilbert,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    tokens,
)
from torch import nn

from sk_adalora.adalora import get_peft_model
from sk_adalora.adalora.targets import find_targets, linear_layers


def chosen(model, **options):
    return set(find_targets(model, config(**options)))


def under(prefix, *names):
    return {f"{prefix}.{i}.{name}" for i in range(2) for name in names}


def of_peft(model, **options):
    """The layers that PEFT adapts for the same settings."""
    settings = {"init_r": 4, "target_r": 2, "total_step": 12, **options}
    adapted = peft.get_peft_model(model, peft.AdaLoraConfig(**settings))
    return set(adapted.targeted_module_names)


def random_model(model, **options):
    """Function that returns a random model of this class."""
    return lambda: build(lambda: model(model.config_class(**SIZES, **options)))


mpnet = random_model(transformers.MPNetModel)
deberta = random_model(
    transformers.DebertaV2ForSequenceClassification,
    relative_attention=True,
    pos_att_type=["p2c", "c2p"],
    position_buckets=8,
    share_att_key=True,  # as the published models do
)
modernbert = random_model(
    transformers.ModernBertForSequenceClassification,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    cls_token_id=1,
    sep_token_id=2,
)
electra = random_model(transformers.ElectraForSequenceClassification, embedding_size=16)
esm = random_model(transformers.EsmModel, pad_token_id=0, mask_token_id=49)
roberta = random_model(transformers.RobertaForSequenceClassification)
roberta_mlm = random_model(transformers.RobertaForMaskedLM)
bert_mlm = random_model(transformers.BertForMaskedLM)
phimoe = random_model(
    transformers.PhimoeModel, num_key_value_heads=2, num_local_experts=2
)


BERT_NAMES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
DEBERTA_NAMES = (
    "attention.self.query_proj",
    "attention.self.key_proj",
    "attention.self.value_proj",
    *BERT_NAMES[3:],
)
MPNET_NAMES = (
    "attention.attn.q",
    "attention.attn.k",
    "attention.attn.v",
    "attention.attn.o",
    *BERT_NAMES[4:],
)
DISTILBERT_NAMES = (
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "ffn.lin1",
    "ffn.lin2",
)
LLAMA_NAMES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
GPT2_NAMES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
T5_LAYERS = (
    under("encoder.block", *(f"layer.0.SelfAttention.{n}" for n in "qkvo"))
    | under("encoder.block", "layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wo")
    | under("decoder.block", *(f"layer.0.SelfAttention.{n}" for n in "qkvo"))
    | under("decoder.block", *(f"layer.1.EncDecAttention.{n}" for n in "qkvo"))
    | under("decoder.block", "layer.2.DenseReluDense.wi", "layer.2.DenseReluDense.wo")
)
ALL_LINEAR = {
    "bert": (tiny_bert, BERT_LAYERS),
    "bert with head": (tiny_classifier, under("bert.encoder.layer", *BERT_NAMES)),
    "distilbert": (
        tiny_distilbert,
        under("distilbert.transformer.layer", *DISTILBERT_NAMES),
    ),
    "mpnet": (mpnet, under("encoder.layer", *MPNET_NAMES)),
    "deberta": (deberta, under("deberta.encoder.layer", *DEBERTA_NAMES)),
    "modernbert": (
        modernbert,
        under("model.layers", "attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"),
    ),
    "electra": (electra, under("electra.encoder.layer", *BERT_NAMES)),
    "esm": (esm, under("encoder.layer", *BERT_NAMES)),
    "roberta": (roberta, under("roberta.encoder.layer", *BERT_NAMES)),
    "roberta mlm": (roberta_mlm, under("roberta.encoder.layer", *BERT_NAMES)),
    "llama": (tiny_llama, under("model.layers", *LLAMA_NAMES)),
    "t5": (tiny_t5, T5_LAYERS),
}


@pytest.mark.parametrize("name", ALL_LINEAR)
def test_all_linear_finds_exactly_the_layers_of_the_encoder(name):
    make, expected = ALL_LINEAR[name]
    model = make()

    assert chosen(model, target_modules="all-linear") == expected
    assert chosen(model) == expected  # the default
    assert list(find_targets(model, config())) == [
        path for path in linear_layers(model) if path in expected
    ]


def test_all_linear_of_gpt2():
    with pytest.warns(UserWarning, match="fan_in_fan_out is set to False"):
        assert chosen(tiny_gpt2()) == under("transformer.h", *GPT2_NAMES)


@pytest.mark.parametrize("name", ["bert with head", "deberta", "electra", "roberta"])
def test_a_bare_dense_hits_neither_pooler_nor_head(name):
    model = ALL_LINEAR[name][0]()
    dense = {p for p in ALL_LINEAR[name][1] if p.endswith(".dense")}

    assert any(p.endswith("dense") and p not in dense for p in linear_layers(model))
    assert chosen(model, target_modules=["dense"]) == dense


@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (tiny_bert, "pooler.dense", "pooler.dense"),
        (tiny_classifier, "pooler.dense", "bert.pooler.dense"),
        (tiny_classifier, "classifier", "classifier"),
        (roberta, "classifier.dense", "classifier.dense"),
        (roberta_mlm, "lm_head.dense", "lm_head.dense"),
        (tiny_distilbert, "pre_classifier", "pre_classifier"),
        (electra, "embeddings_project", "electra.embeddings_project"),
        (tiny_llama, "lm_head", "lm_head"),
    ],
)
def test_pooler_and_head_are_hit_when_they_are_named(make, name, expected):
    assert chosen(make(), target_modules=[name]) == {expected}


def test_a_wrapper_with_the_attributes_of_its_model_has_the_same_head():
    """As `PeftModel` has, in which paths begin with the wrapper's names."""

    class Wrapping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = tiny_classifier()

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(self.whole, name)

    for wanted in ("all-linear", ["query"]):
        expected = chosen(tiny_classifier(), target_modules=wanted)
        assert expected
        found = chosen(Wrapping(), target_modules=wanted)
        assert found == {f"whole.{path}" for path in expected}


def test_a_pattern_for_whole_paths_is_explicit():
    assert chosen(tiny_bert(), target_modules=r".*dense") == {
        p for p in linear_layers(tiny_bert()) if p.endswith("dense")
    }


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["query", "value"]},
        {"target_modules": ["attention.self.query"]},
        {"target_modules": ["encoder.layer.1.output.dense", "key"]},
        {"target_modules": r".*\.(query|value)"},
        {"target_modules": r".*layer\.1\..*query"},
        {"target_modules": ["query", "value"], "exclude_modules": ["value"]},
        {"target_modules": ["query"], "exclude_modules": r".*layer\.0.*"},
        {"target_modules": ["query"], "layers_to_transform": 1},
        {"target_modules": ["query"], "layers_to_transform": [0, 1]},
        {"target_modules": ["query"], "layers_to_transform": []},
        {
            "target_modules": ["query"],
            "layers_to_transform": [1],
            "layers_pattern": "layer",
        },
        {
            "target_modules": ["query", "intermediate.dense"],
            "layers_to_transform": [0],
            "layers_pattern": ["layers", "layer"],
        },
        {"target_modules": ["query", "value"], "modules_to_save": ["value"]},
        {"target_modules": ["query", "key"], "modules_to_save": ["layer.0"]},
    ],
)
def test_the_choice_is_that_of_peft(options):
    assert chosen(tiny_bert(), **options) == of_peft(tiny_bert(), **options)


@pytest.mark.parametrize(
    "excluded", [["layer.0.attention.self"], ["query", "layer.0.attention.self"], "lay"]
)
def test_what_leaves_out_no_layer_is_named(excluded):
    """A part of the model, or a misspelt name: its layers are adapted, as by PEFT."""
    options = {"target_modules": ["query", "key"], "exclude_modules": excluded}
    lost = excluded[-1:] if isinstance(excluded, list) else excluded
    message = re.escape(f"Got {lost!r}, which leaves out none.")
    with pytest.warns(UserWarning, match=message) as caught:
        model = adapt(tiny_bert(), **options)

    assert caught[0].filename.endswith("_tiny.py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's
        assert set(model.adapted) == of_peft(tiny_bert(), **options)


@pytest.mark.parametrize(
    "excluded",
    [["word_embeddings"], ["embeddings", "LayerNorm"], ["pooler"], ".*embed.*", "", []],
)
def test_what_is_not_adapted_in_any_case_may_be_excluded(excluded):
    with no_warning():
        model = adapt(tiny_bert(), target_modules=["query"], exclude_modules=excluded)

    assert set(model.adapted) == chosen(tiny_bert(), target_modules=["query"])


def test_a_part_is_named_though_some_of_its_kind_hold_no_adapted_layer():
    with pytest.warns(UserWarning, match=r"Got \['attention'\], which leaves out none"):
        adapt(
            tiny_bert(),
            target_modules=["query"],
            exclude_modules=["attention"],
            layers_to_transform=1,
        )


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(4, 4)}) for _ in "ab"
        )


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"layers": nn.ModuleList(Expert() for _ in "abc")})


@pytest.mark.parametrize("pattern", [None, "layers", "experts", ["nix", "layers"]])
def test_layers_are_counted_at_the_first_number(pattern):
    options = {
        "target_modules": ["up"],
        "layers_to_transform": [1],
        "layers_pattern": pattern,
    }

    assert chosen(Experts(), **options) == of_peft(Experts(), **options)


def test_a_pattern_of_layers_is_a_name_and_no_regular_expression():
    options = {"target_modules": ["query"], "layers_to_transform": [1]}

    assert chosen(tiny_bert(), **options, layers_pattern="layer")
    with pytest.raises(ValueError, match="must"):
        chosen(tiny_bert(), **options, layers_pattern="lay.r")


class OwnOutput(nn.Module):
    """Its output layer has a name that says nothing."""

    def __init__(self):
        super().__init__()
        self.body, self.to_words = nn.Linear(4, 4), nn.Linear(4, 9)

    def get_output_embeddings(self):
        return self.to_words


def test_an_output_layer_is_known_by_what_the_model_says_of_it():
    assert chosen(OwnOutput()) == {"body"}


def test_a_head_whose_name_begins_like_that_of_the_body():
    class Tagger(nn.Module):
        base_model_prefix = "tag"

        def __init__(self):
            super().__init__()
            self.tag = nn.Sequential(nn.Linear(4, 4))
            self.tagger = nn.Linear(4, 2)

    assert chosen(Tagger()) == {"tag.0"}
    assert chosen(Tagger(), target_modules=["tagger"]) == {"tagger"}


@pytest.mark.parametrize(
    "method",
    [lambda ids, images: ids, lambda *inputs: torch.cat(inputs)],
    ids=["TypeError", "RuntimeError"],
)
@pytest.mark.parametrize("name", ["get_input_embeddings", "get_encoder"])
def test_a_method_that_fails_without_arguments_says_nothing_of_layers(name, method):
    """Its error also left the model half adapted."""
    mixed = OwnOutput()
    setattr(mixed, name, method)

    assert list(adapt(mixed).adapted) == ["body"]


def test_layers_of_all_linear():
    names = chosen(tiny_bert(), layers_to_transform=[1])

    assert names == {p for p in BERT_LAYERS if ".1." in p}


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS"])
def test_a_head_that_the_task_saves_is_no_target(task):
    names = chosen(tiny_classifier(), target_modules=r".*query|classifier")
    saved = chosen(
        tiny_classifier(), target_modules=r".*query|classifier", task_type=task
    )

    assert names - saved == {"classifier"}


@pytest.mark.parametrize("target", [None, "all-linear"])
def test_a_model_of_heads_alone_says_how_to_adapt_them(target):
    model = nn.ModuleDict({"head": nn.Linear(4, 2)})
    message = r"Got 'all-linear', which leaves out head\. .* such as 'head', or"
    with pytest.raises(ValueError, match=message):
        chosen(model, target_modules=target)
    assert chosen(model, target_modules=["head"]) == {"head"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (["querry"], r"Got \['querry'\], which matches none. Did you mean query\?"),
        (["q_proj", "v_proj"], r"Got \['q_proj', 'v_proj'\], which matches none"),
        ([], r"Got \[\], which matches none"),
        ("", "Got '', which matches none"),
        (r"layer\.9.*", "which matches none"),
        (["dens"], r"Did you mean dense\?"),
        ("dens", r"Got 'dens', which matches none. Did you mean dense\?"),
        ("query", r"A str is a pattern of whole paths: .* pass \['query'\]"),
    ],
)
def test_no_target_lists_the_layers_that_exist(target, message):
    model = tiny_bert()
    with pytest.raises(ValueError, match=message) as caught:
        get_peft_model(model, config(target_modules=target))

    for path in BERT_LAYERS | {"pooler.dense"}:
        assert path in str(caught.value)
    assert all(p.requires_grad for p in model.parameters())  # nothing was changed


@pytest.mark.parametrize(
    "options",
    [
        {"layers_to_transform": [7]},
        {"layers_to_transform": [0], "layers_pattern": "layers"},
        {"exclude_modules": ".*query"},
        {"modules_to_save": ["encoder"]},
        {"exclude_modules": ["0.attention.self.query"], "layers_to_transform": 0},
    ],
)
def test_settings_that_leave_out_all_that_match_are_named(options):
    paths = ", ".join(f"encoder.layer.{i}.attention.self.query" for i in (0, 1))
    message = re.escape(f"that leave out all: {paths}. Check them")
    with pytest.raises(ValueError, match=message) as caught:
        find_targets(tiny_bert(), config(target_modules=["query"], **options))

    assert all(f"`{name}`" in str(caught.value) for name in options)


def test_settings_that_leave_out_all_linear_layers_are_named():
    with pytest.raises(ValueError, match=r"that leave out all: 0\. Check them"):
        chosen(nn.Sequential(nn.Linear(4, 4)), exclude_modules=["0"])


def test_a_head_that_a_task_saves_is_not_all_there_is_to_adapt():
    message = "or `task_type` that leave out all: classifier. "
    with pytest.raises(ValueError, match=message):
        chosen(tiny_classifier(), target_modules="classifier", task_type="SEQ_CLS")


def test_a_name_that_matches_only_a_head_is_named():
    message = r"which leaves out cls\.predictions\.decoder\. .* Only the others"
    with pytest.warns(UserWarning, match=message):
        adapt(bert_mlm(), target_modules=["query", "decoder"])
    with no_warning():
        names = ["query", "dense"]  # "dense" is in the encoder too
        adapt(bert_mlm(), target_modules=names)
        options = {"exclude_modules": ["decoder"]}
        adapt(bert_mlm(), target_modules=["query", "decoder"], **options)


def test_a_name_that_matches_nothing_beside_others_is_named():
    base = nn.Sequential()
    base.add_module("e", nn.Embedding(5, 4))
    base.add_module("l", nn.Linear(4, 4))
    message = r"Got \['e', 'll'\], which matches none.*l\?.*Only the others"
    with pytest.warns(UserWarning, match=message) as caught:
        model = get_peft_model(base, config(target_modules=["e", "ll", "l"]))

    assert list(model.adapted) == ["l"]
    assert caught[0].filename == __file__
    with no_warning():
        adapt(tiny_classifier(), target_modules=["query", "pooler.dense", "classifier"])


def with_heads():
    """A model whose attention has heads; no pooler, embeddings or head."""
    pairs = [
        nn.ModuleDict({"q": nn.Linear(4, 4), "v": nn.Linear(4, 4)}) for _ in range(2)
    ]
    mix = nn.ModuleDict({"q": nn.Linear(4, 4)})
    return nn.ModuleDict({"heads": nn.ModuleList(pairs), "mix": mix})


def test_layers_that_a_name_matches_and_that_are_held_back_are_named():
    message = (
        r"Got \['q'\], which leaves out heads\.0\.q, heads\.1\.q\. .*'heads\.0\.q'"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        model = get_peft_model(with_heads(), config(target_modules=["q"]))

    assert list(model.adapted) == ["mix.q"]
    assert caught[0].filename == __file__
    message = r"Got \['v'\], which leaves out heads\.0\.v, heads\.1\.v\. .*Nothing else"
    with pytest.raises(ValueError, match=message):
        adapt(with_heads(), target_modules=["v"])


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q", "heads.0.q", "heads.1.q"]},
        {"target_modules": r".*\.q"},
        {"target_modules": ["q"], "exclude_modules": r"heads\..*"},
        {"target_modules": ["q"], "exclude_modules": ["heads.0.q", "heads.1.q"]},
    ],
)
def test_what_the_message_on_held_back_layers_says_to_do(options):
    expected = {"heads.0.q", "heads.1.q", "mix.q"}
    if "exclude_modules" in options:
        expected = {"mix.q"}
    with no_warning():
        assert chosen(with_heads(), **options) == expected


@pytest.mark.parametrize("make", [tiny_bert, roberta, roberta_mlm, deberta])
def test_what_is_surely_a_pooler_or_head_is_held_back_quietly(make):
    with no_warning():
        assert chosen(make(), target_modules=["dense"])


PROTECTED = """
    pooler embed embedding embeddings embed_tokens word_embeddings out_embeddings
    classifier pre_classifier score cls head heads lm_head qa_head contact_head mc_heads
    lm_decoder qa_outputs predictions discriminator_predictions
""".split()
PLAIN = "spool body subclass classifiers scores dense out overhead lm_encoder".split()


def test_names_of_poolers_embeddings_and_heads():
    """In a model of one's own, nothing but the names tells them from other layers."""
    model = nn.Module()
    for name in [*PROTECTED, *PLAIN]:
        model.add_module(name, nn.ModuleList([nn.Linear(4, 4)]))

    assert chosen(model) == {f"{name}.0" for name in PLAIN}


def test_a_long_list_is_cut():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
    with pytest.raises(ValueError, match="38, 39 and 10 more"):
        find_targets(model, config(target_modules=["nix"]))


@pytest.mark.parametrize("model", [nn.Linear(4, 4), nn.Sequential(nn.Conv1d(4, 4, 1))])
def test_a_model_without_inner_linear_layers_says_so(model):
    with pytest.raises(ValueError, match=r"must have linear layers to adapt. Got none"):
        get_peft_model(model, config())


class Conv1D(nn.Conv1d):
    """A convolution that is named like GPT-2's linear layer."""


def test_a_convolution_of_that_name_is_no_target():
    model = nn.Sequential(Conv1D(4, 4, 1), nn.Flatten(), nn.Linear(4, 4))
    model[1].nf = 4  # nor is what has the attribute alone

    assert chosen(model) == {"2"}


@pytest.mark.parametrize("flag", [False, True])
def test_conv1d_is_found_by_itself(flag):
    settings = config(target_modules=["c_attn", "c_proj"], fan_in_fan_out=flag)
    plain = tiny_gpt2()
    if flag:
        with no_warning():
            model = randomise(get_peft_model(plain, settings))
    else:
        message = "set to False but the target module is `Conv1D`"
        with pytest.warns(UserWarning, match=message) as caught:
            model = randomise(get_peft_model(plain, settings))
        assert caught[0].filename == __file__
    assert settings.fan_in_fan_out

    ids = tokens()
    with torch.no_grad():
        adapted = model(ids).logits
        merged = model.merge_and_unload()(ids).logits
        untouched = tiny_gpt2()(ids).logits
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(adapted, untouched, atol=1e-2)


@pytest.mark.parametrize("flag", [False, True])
def test_linear_layers_are_never_transposed(flag):
    settings = config(fan_in_fan_out=flag)
    if flag:
        message = r"True but the target module is `torch.nn.Linear`"
        with pytest.warns(UserWarning, match=message) as caught:
            get_peft_model(tiny_bert(), settings)
        assert caught[0].filename == __file__
    else:
        with no_warning():
            get_peft_model(tiny_bert(), settings)

    assert not settings.fan_in_fan_out


@pytest.mark.parametrize("flag", [False, True])
def test_the_flag_stays_where_layers_are_of_both_kinds(flag):
    mixed = nn.Sequential(transformers.pytorch_utils.Conv1D(4, 4), nn.Linear(4, 4))
    settings = config(fan_in_fan_out=flag)
    with no_warning():
        assert len(find_targets(mixed, settings)) == 2

    assert settings.fan_in_fan_out is flag


def test_the_inner_layer_of_multihead_attention_is_no_target():
    model = nn.ModuleDict(
        {"attention": nn.MultiheadAttention(8, 2), "last": nn.Linear(8, 8)}
    )

    assert chosen(model) == {"last"}
    with pytest.raises(ValueError, match=r"\['out_proj'\].*Linear layers: last"):
        chosen(model, target_modules=["out_proj"])


@pytest.mark.parametrize("names", [["linear1", "linear2"], ["0.linear1"]])
def test_the_fused_encoder_of_torch_computes_padded_rows(names):
    """Not by its own kernel, which reads the frozen weights and nested tensors."""

    def make():
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        return nn.TransformerEncoder(layer, 2)

    model = randomise(adapt(build(make), target_modules=names), seed=3)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with_gradient = model(x, src_key_padding_mask=padding).detach()
    # A layer that holds no adapted one keeps its fast kernel.
    fast = [bool(layer.activation_relu_or_gelu) for layer in model.model.layers]
    assert fast == [False, "linear1" not in names]
    with torch.no_grad():
        inference = model(x, src_key_padding_mask=padding)
        plain = build(make)(x, src_key_padding_mask=padding)
    restored = model.unload()
    with torch.no_grad():
        after = restored(x, src_key_padding_mask=padding)

    torch.testing.assert_close(inference[~padding], with_gradient[~padding])
    assert not torch.allclose(inference[~padding], plain[~padding], atol=1e-3)
    torch.testing.assert_close(after, plain)
    assert restored.use_nested_tensor
    assert all(layer.activation_relu_or_gelu == 1 for layer in restored.layers)


def test_a_layer_under_two_names_is_adapted_under_both():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict(
        {"a": nn.Sequential(shared), "b": nn.Sequential(nn.ReLU(), shared)}
    )
    adapted = randomise(adapt(model))
    x = torch.randn(3, 4)

    assert list(adapted.adapted) == ["a.0"]
    assert model["b"][1] is model["a"][0]
    torch.testing.assert_close(model["a"](x.relu()), model["b"](x))
    assert adapted.unload()["b"][1] is shared


class Router(nn.Linear):
    """Picks one of some experts for each row, as those of PhiMoE and Llama 4 do."""

    def forward(self, x):
        scores = super().forward(x)
        return scores, scores.argmax(dim=-1)


class Doubled(nn.Linear):
    """A linear layer with a forward method of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class Grouped(nn.Linear):
    """A layer that does not compute a row alone."""

    def forward(self, x):
        return super().forward(x.view(-1, 2, self.in_features))


class Split(nn.Linear):
    """Computes each half of its outputs from a row of its own, as in DeepSeek-V4."""

    def forward(self, x):
        weights = self.weight.view(2, -1, self.in_features)
        rows = x.reshape(-1, 2, self.in_features).transpose(0, 1)
        out = torch.bmm(rows, weights.mT).transpose(0, 1)
        return out.reshape(*x.shape[:-2], 2, -1)


class TransposedRouter(transformers.pytorch_utils.Conv1D):
    """A transposed layer that returns a tuple."""

    def forward(self, x):
        scores = super().forward(x)
        return scores.sigmoid(), scores


class Best(nn.Linear):
    """Returns one number for each row, not all outputs."""

    def forward(self, x):
        return super().forward(x).amax(dim=-1)


class Renamed(transformers.pytorch_utils.Conv1D):
    """A transposed layer that keeps its weight under another name."""

    def __init__(self, *args):
        super().__init__(*args)
        self.packed = self.weight
        del self.weight

    def forward(self, x):
        return x @ self.packed + self.bias


class Convolution(Conv1D):
    """A convolution with the names of a transposed layer."""

    nf = 4

    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("layer", [Renamed(4, 4), Convolution(4, 4, 1)])
def test_what_only_looks_like_a_transposed_layer_may_stay_beside_others(layer):
    model = nn.ModuleDict({"a": layer, "b": nn.Linear(4, 4)})

    assert chosen(model, target_modules=["b"]) == {"b"}


def test_what_does_not_return_rows_is_no_linear_layer():
    model = nn.ModuleDict({"a": Router(6, 2), "b": Doubled(6, 2), "c": Grouped(6, 2)})
    model["d"] = Best(6, 2)
    model["e"] = Split(6, 4)
    model["f"] = TransposedRouter(2, 6)
    assert model["e"](torch.ones(5, 2, 6)).shape == (5, 2, 2)
    assert chosen(model, target_modules=None) == {"b", "c"}

    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    paths = under("layers", *(f"self_attn.{name}" for name in attention))
    assert chosen(phimoe(), target_modules=None) == paths
    adapted = randomise(get_peft_model(phimoe(), config(target_modules=None)))
    assert torch.isfinite(adapted(tokens()).last_hidden_state).all()


class Tracked(nn.Linear):
    """Keeps the largest input that it has seen, and how many."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("largest", torch.tensor(7.0))
        self.seen = [0]

    def forward(self, x):
        self.largest = torch.maximum(self.largest, x.abs().max())
        self.seen[0] += len(x)
        return super().forward(x)


def test_looking_for_linear_layers_leaves_them_as_they_are():
    model = nn.Sequential(Router(6, 2), Doubled(6, 2).to(torch.bfloat16), Tracked(6, 2))
    before = {name: (t, t._version) for name, t in model.state_dict().items()}
    assert set(linear_layers(model)) == {"1", "2"}
    after = {name: (t, t._version) for name, t in model.state_dict().items()}
    assert before.keys() == after.keys()
    for name, (tensor, version) in before.items():
        assert after[name][1] == version
        assert after[name][0].data_ptr() == tensor.data_ptr()
    assert model[2].largest == 7
    assert model[2].seen == [0]


class Uncopied(Doubled):
    """A layer that refuses to be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("it cannot be copied")


def test_a_layer_that_cannot_be_copied_may_be_adapted():
    assert set(linear_layers(nn.Sequential(Uncopied(6, 2)))) == {"0"}

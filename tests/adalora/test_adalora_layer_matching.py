"""Which layers of real architectures are adapted."""

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
from sk_adalora.adalora.layer_matching import linear_layers, match_layers


def chosen(model, **options):
    return set(match_layers(model, config(**options)))


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
    assert list(match_layers(model, config())) == [
        path for path in linear_layers(model) if path in expected
    ]


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


@pytest.mark.parametrize("excluded", [["layer.0.attention.self"], ["query", "x"], "l"])
def test_what_leaves_out_no_layer_is_named(excluded):
    """A part of the model, or a misspelt name: its layers are adapted, as by PEFT."""
    options = {"target_modules": ["query", "key"], "exclude_modules": excluded}
    with pytest.warns(UserWarning, match=r"`exclude_modules` .* leaves out none"):
        model = adapt(tiny_bert(), **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's
        assert set(model.adapted) == of_peft(tiny_bert(), **options)


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


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS"])
def test_a_head_that_the_task_saves_is_no_target(task):
    names = chosen(tiny_classifier(), target_modules=r".*query|classifier")
    saved = chosen(
        tiny_classifier(), target_modules=r".*query|classifier", task_type=task
    )

    assert names - saved == {"classifier"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["querry"]}, r"Got \['querry'\].* Did you mean query\?"),
        ({"target_modules": []}, r"Got \[\], which matches none"),
        ({"target_modules": r"layer\.9.*"}, "which matches none"),
        ({"target_modules": "dens"}, r"Got 'dens', .* Did you mean dense\?"),
        ({"target_modules": "query"}, r"A str is a pattern of .* pass \['query'\]"),
        ({"layers_to_transform": [7]}, "no other setting leaves out"),
        ({"exclude_modules": ".*"}, "no other setting leaves out"),
        ({"modules_to_save": ["encoder"]}, "no other setting leaves out"),
    ],
)
def test_where_nothing_matches_the_layers_are_listed(options, message):
    model = tiny_bert()
    with pytest.raises(ValueError, match=message) as caught:
        get_peft_model(model, config(**options))

    for path in BERT_LAYERS | {"pooler.dense"}:
        assert path in str(caught.value)
    assert all(p.requires_grad for p in model.parameters())  # nothing was changed


def test_names_by_which_nothing_is_adapted_are_warned_of():
    message = r"Got \['dens', 'embeddings'\], which.*dense\?.* Only the others"
    with pytest.warns(UserWarning, match=message) as caught:
        model = get_peft_model(
            tiny_bert(), config(target_modules=["dens", "embeddings", "query"])
        )

    assert {path.rpartition(".")[2] for path in model.adapted} == {"query"}
    assert caught[0].filename == __file__
    with no_warning():
        adapt(tiny_classifier(), target_modules=["query", "pooler.dense", "classifier"])
        adapt(tiny_bert(), target_modules=["dense"])  # which the pooler has, too


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
    model = randomise(get_peft_model(tiny_gpt2(), settings))
    plain = config(fan_in_fan_out=flag)
    get_peft_model(tiny_bert(), plain)
    assert settings.fan_in_fan_out
    assert not plain.fan_in_fan_out

    ids = tokens()
    with torch.no_grad():
        adapted = model(ids).logits
        merged = model.merge_and_unload()(ids).logits
        untouched = tiny_gpt2()(ids).logits
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(adapted, untouched, atol=1e-2)


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


def test_what_returns_no_tensor_says_what_to_do():
    model = nn.ModuleDict({"router": Router(6, 2), "up": nn.Linear(6, 2)})
    adapted = randomise(adapt(model))
    with pytest.raises(TypeError, match=r"Got a Router, which returns a tuple.*Leave"):
        adapted.model["router"](torch.ones(1, 6))

    options = {"target_modules": None, "exclude_modules": ["router"]}
    adapted = randomise(get_peft_model(phimoe(), config(**options)))
    assert torch.isfinite(adapted(tokens()).last_hidden_state).all()


@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        pytest.param(
            nn.utils.weight_norm,
            marks=pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`"),
        ),
    ],
)
def test_a_weight_that_is_computed_is_refused(norm):
    model = nn.Sequential(nn.Linear(8, 8), norm(nn.Linear(8, 8)))
    with pytest.raises(ValueError, match=r"be a parameter\. Got '1', .*Remove the par"):
        adapt(model)

    adapt(model, exclude_modules=["1"])

"""What is trained beside the triplets: biases, heads, modules to save."""

import copy
from collections import OrderedDict

import peft
import pytest
import torch
import transformers
from _tiny import (
    adapt,
    build,
    classifier_loss,
    config,
    no_warning,
    randomise,
    tiny_bert,
    tiny_classifier,
    tiny_llama,
    tokens,
    train,
)
from torch import nn
from torch.nn.utils import prune

from sk_adalora.adalora import (
    SVDLinear,
    exchange,
    get_peft_model,
    load_peft_adapter,
    save_adapter,
    trained,
)
from sk_adalora.adalora import model as engine


def snapshot(model):
    """Names, bytes and addresses of all frozen tensors."""
    return {
        name: (p.data_ptr(), p.detach().clone().contiguous().numpy().tobytes())
        for name, p in model.named_parameters()
        if not p.requires_grad
    }


def test_print_trainable_parameters(capsys):
    model = adapt(tiny_bert())
    model.print_trainable_parameters()
    trained, total = model.get_nb_trainable_parameters()

    assert trained == sum(
        4 * (layer.in_features + layer.out_features + 1)
        for layer in model.adapted.values()
    )
    assert total == trained + sum(p.numel() for p in tiny_bert().parameters())
    assert capsys.readouterr().out == (
        f"trainable params: {trained:,d} || all params: {total:,d} || "
        f"trainable%: {100 * trained / total:.4f}\n"
    )


def trained_outside(model):
    return {n for n, _ in model.trainable_parameters() if not n.startswith("triplets")}


@pytest.mark.parametrize("bias", ["none", "all"])
def test_a_model_that_there_is_no_memory_to_adapt_is_as_before(monkeypatch, bias):
    base = tiny_classifier()
    frozen = base.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    modules, deepcopy = list(base.modules()), copy.deepcopy

    def fail(module):
        if module is base.classifier:
            raise torch.OutOfMemoryError
        return deepcopy(module)

    options = {"modules_to_save": ["pooler", "classifier"], "bias": bias}
    with monkeypatch.context() as patched:
        patched.setattr(trained.copy, "deepcopy", fail)
        with pytest.raises(torch.OutOfMemoryError):
            adapt(base, **options)

    assert list(base.modules()) == modules
    assert [p for p in base.parameters() if not p.requires_grad] == [frozen]
    train(adapt(base, **options), range(1), loss=classifier_loss)


def interrupt_copies(patch, after):
    """Interrupt, once, the exchange of copies for originals, after so many of them."""
    use, count = trained._Copy.use, iter(range(after))

    def stop(self, new):
        if next(count, None) is None:
            patch.undo()
            raise KeyboardInterrupt
        use(self, new)

    patch.setattr(trained._Copy, "use", stop)


@pytest.mark.parametrize("part", ["stop_fused_layers", "entries", "copies"])
def test_a_model_whose_adapting_is_interrupted_is_as_before(monkeypatch, part):
    base = tiny_classifier()
    modules, parameters = list(base.modules()), list(base.parameters())

    def stop(*_):
        raise KeyboardInterrupt

    options = {"modules_to_save": ["pooler", "classifier"], "bias": "all"}
    with monkeypatch.context() as patched:
        if part == "copies":
            interrupt_copies(patched, after=2)
        else:
            patched.setattr(engine, part, stop)
        with pytest.raises(KeyboardInterrupt):
            adapt(base, **options)

    assert list(base.modules()) == modules
    assert all(p.requires_grad for p in base.parameters())
    assert [id(p) for p in base.parameters()] == [id(p) for p in parameters]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    train(adapt(base, **options), range(1), loss=classifier_loss)


def test_a_fused_encoder_whose_adapting_is_interrupted_is_as_before(monkeypatch):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    base = nn.TransformerEncoder(layer, 2)
    holds, calls = exchange._holds_adapted, iter(range(2))

    def stop(module):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return holds(module)

    monkeypatch.setattr(exchange, "_holds_adapted", stop)
    with pytest.raises(KeyboardInterrupt):
        adapt(base, target_modules=["linear1"])

    assert base.use_nested_tensor
    assert [layer.activation_relu_or_gelu for layer in base.layers] == [1, 1]


@pytest.mark.parametrize("part", ["requires_grad_", "eval"])
def test_a_model_whose_loading_is_interrupted_is_as_before(monkeypatch, tmp_path, part):
    adapt(tiny_classifier()).save_pretrained(tmp_path)
    base = tiny_classifier().train()
    modules, change = list(base.modules()), getattr(engine.AdaLoraModel, part)

    def stop(self, *options):
        change(self, *options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(engine.AdaLoraModel, part, stop)
        with pytest.raises(KeyboardInterrupt):
            load_peft_adapter(base, tmp_path)

    assert list(base.modules()) == modules
    assert all(p.requires_grad for p in base.parameters())
    assert all(module.training for module in modules)
    load_peft_adapter(base, tmp_path)


def test_an_interrupt_loses_no_copies(monkeypatch):
    model = adapt(tiny_classifier(), modules_to_save=["pooler"], bias="all")
    train(model, range(2), loss=classifier_loss)
    before = copy.deepcopy(model.state_dict())
    for after in (1, 3):
        with monkeypatch.context() as patched:
            interrupt_copies(patched, after)
            with pytest.raises(KeyboardInterrupt), model.disable_adapter():
                pass

    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert model.model.classifier.bias.requires_grad


def test_bias_none_trains_no_bias():
    assert trained_outside(adapt(tiny_bert())) == set()


def test_bias_lora_only_trains_those_of_the_adapted_layers():
    model = adapt(tiny_bert(), target_modules=["query"], bias="lora_only")

    assert trained_outside(model) == {
        f"model.encoder.layer.{i}.attention.self.query.base_layer.bias" for i in (0, 1)
    }


def test_bias_all_trains_every_bias():
    base = tiny_bert()
    biases = [n for n, _ in base.named_parameters() if n.endswith("bias")]
    model = adapt(base, target_modules=["query"], bias="all")

    assert len(trained_outside(model)) == len(biases)
    assert all(name.endswith(".bias") for name in trained_outside(model))


def test_a_bias_that_two_modules_share_is_trained_as_one(tmp_path):
    def make():
        return build(lambda: transformers.BertForMaskedLM(tiny_bert().config))

    model = adapt(make(), target_modules=["query"], bias="all")
    head = model.cls.predictions
    train(model, range(2), loss=lambda model, step: model(tokens(step)).logits.mean())
    save_adapter(model, tmp_path)
    loaded = load_peft_adapter(make(), tmp_path)

    assert head.bias is head.decoder.bias
    assert head.bias.any()  # it was trained
    assert torch.equal(loaded.cls.predictions.decoder.bias, head.bias)
    with model.disable_adapter():
        assert head.bias is head.decoder.bias
        assert not head.bias.any()
    plain = model.half().merge_and_unload().cls.predictions
    assert plain.bias is plain.decoder.bias


class OwnBias(nn.Sequential):
    """A model that has a bias itself."""

    def __init__(self):
        super().__init__(nn.Linear(8, 8), nn.Linear(8, 2))
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return super().forward(x) + self.bias


@pytest.mark.filterwarnings("ignore:.*rank_pattern:RuntimeWarning:peft")
def test_a_bias_of_the_model_itself_is_saved_under_the_name_of_peft(tmp_path):
    model, x = randomise(adapt(build(OwnBias), bias="all")), torch.randn(3, 8)
    save_adapter(model, tmp_path)
    loaded = load_peft_adapter(build(OwnBias), tmp_path)
    theirs = peft.PeftModel.from_pretrained(build(OwnBias), tmp_path)

    assert "base_model.model.bias" in model.state_dict()
    torch.testing.assert_close(loaded(x), model(x))
    torch.testing.assert_close(theirs(x), model(x))


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_are_copies(bias):
    base = tiny_bert()
    before = snapshot(base.requires_grad_(False))
    originals = dict(base.named_parameters())
    model = randomise(adapt(base, bias=bias))
    train(model, range(3))
    state = model.state_dict()
    changed = [n for n in state if n.endswith(".bias")]

    assert changed
    for name in changed:
        if "pooler" in name:  # the loss does not depend on it
            continue
        path = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert not torch.equal(state[name], originals[path])
    for name, parameter in originals.items():
        assert parameter.detach().numpy().tobytes() == before[name][1]


class TwoNames(nn.Module):
    """Its head has two names, as parts of Grounding DINO have."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"fc": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
        self.last = self.body["head"]

    def forward(self, x):
        return self.last(self.body["fc"](x))


def test_a_module_under_two_names_is_trained_under_both():
    base = TwoNames()
    head, x = base.last, torch.randn(3, 4)
    plain = base(x)
    model = adapt(base, target_modules=["fc"], modules_to_save=["head"])
    model(x).sum().backward()

    assert base.last is base.body["head"] is not head
    assert base.last.weight.grad is not None
    nn.init.ones_(base.last.weight)
    with model.disable_adapter():
        assert base.last is base.body["head"] is head
        torch.testing.assert_close(model(x), plain)
    assert model.unload().last is head


@pytest.mark.parametrize("place", ["body", "last", "both"])
def test_what_replaces_a_module_of_two_names_is_kept(place):
    base, new = TwoNames(), nn.Linear(4, 2)
    model = adapt(base, target_modules=["fc"], modules_to_save=["head"])
    if place != "last":
        base.body["head"] = new
    if place != "body":
        base.last = new
    with model.disable_adapter():
        assert base.last is base.body["head"] is not new

    assert base.last is base.body["head"] is new


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["classifier"], "bias": "all"},
        {"modules_to_save": ["pooler", "pooler.dense"]},
        {"modules_to_save": ["pooler.dense", "pooler"]},
    ],
    ids=str,
)
def test_what_is_asked_for_twice_is_stored_as_it_was_trained(options):
    model = adapt(tiny_classifier(), **options)
    train(model, range(3), loss=classifier_loss)
    state, parts = model.state_dict(), dict(model.model.named_parameters())
    trained = [name for name, part in parts.items() if part.requires_grad]

    assert trained
    for name in trained:
        assert torch.equal(state[f"base_model.model.{name}"], parts[name])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"task_type": "SEQ_CLS"}, {"classifier"}),
        ({"task_type": "TOKEN_CLS"}, {"classifier"}),
        ({"task_type": "CAUSAL_LM"}, set()),
        ({"task_type": None}, set()),
        ({"task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}, {"classifier"}),
        ({"modules_to_save": ["pooler"]}, {"bert.pooler"}),
        ({"modules_to_save": ["bert.pooler", "pooler.dense"]}, {"bert.pooler"}),
    ],
)
def test_modules_to_save_and_the_head_of_the_task(options, expected):
    base = tiny_classifier()
    inside = {
        f"model.{n}"
        for n, _ in base.named_parameters()
        if any(n.startswith(e + ".") for e in expected)
    }
    original = base.classifier
    model = adapt(base, **options)

    assert trained_outside(model) == inside
    assert (base.classifier is original) == ("classifier" not in expected)
    stored = {n for n in model.state_dict() if ".lora_" not in n}
    assert stored == {n.replace("model.", "base_model.model.", 1) for n in inside}


def test_a_module_that_two_names_match_is_copied_once():
    options = config(modules_to_save=["pooler", "bert.pooler"])

    assert trained.copied_paths(tiny_classifier(), options) == ["bert.pooler"]


@pytest.mark.parametrize(
    ("make", "task", "heads"),
    [
        (tiny_bert, "SEQ_CLS", "classifier or score"),
        (tiny_classifier, "QUESTION_ANS", "qa_outputs"),
    ],
)
def test_a_task_whose_head_the_model_lacks(make, task, heads):
    message = f"^`task_type`='{task}' trains .*called {heads}. .* in `modules_to_save`"
    with pytest.warns(UserWarning, match=message) as caught:
        model = get_peft_model(make(), config(task_type=task))

    assert caught[0].filename == __file__
    assert not trained_outside(model)
    with no_warning():
        adapt(make(), task_type=task, modules_to_save=["pooler"])
        adapt(make(), task_type=task, inference_mode=True)  # as when one is loaded


def test_a_module_whose_name_begins_as_another_s_is_not_inside_it():
    names = ["up", "head", "head2"]
    base = nn.ModuleDict({name: nn.Linear(4, 4) for name in names})
    model = adapt(base, target_modules=["up"], modules_to_save=["head", "head2"])

    assert trained_outside(model) == {
        f"model.{name}.{part}" for name in names[1:] for part in ("weight", "bias")
    }


def test_the_head_of_a_llama_is_called_score():
    make = transformers.LlamaForSequenceClassification
    model = adapt(tiny_llama(make=make), task_type="SEQ_CLS")

    assert trained_outside(model) == {"model.score.weight"}


@pytest.mark.parametrize("name", ["heads", "assifier"])
def test_unknown_modules_to_save_are_refused_before_anything_changes(name):
    base = tiny_classifier()
    message = f"Got '{name}', which matches none.*: bert, "
    with pytest.raises(ValueError, match=message):
        adapt(base, modules_to_save=[name])

    assert not any(isinstance(m, SVDLinear) for m in base.modules())
    assert all(p.requires_grad for p in base.parameters())


class Remembering(nn.Linear):
    """A layer with more to store than tensors."""

    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass


def test_a_state_that_is_no_tensor_is_refused_before_anything_changes():
    base = nn.ModuleDict({"up": nn.Linear(4, 4), "head": Remembering(4, 4)})
    message = r"tensors only. Got 'head', whose '_extra_state' is a dict. Leave it out"
    with pytest.raises(TypeError, match=message):
        adapt(base, target_modules=["up"], modules_to_save=["head"])

    assert type(base["up"]) is nn.Linear
    assert all(p.requires_grad for p in base.parameters())


def head_with_norm():
    head = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    return nn.Sequential(OrderedDict(body=nn.Linear(8, 8), head=head))


@pytest.mark.parametrize("inner", [False, True], ids=["adapted", "wrapped"])
def test_originals_follow_the_mode_of_the_model(inner):
    """Also where the mode is set on the wrapped model."""
    base = head_with_norm()
    x = torch.randn(16, 8) + 5
    before = copy.deepcopy(base.state_dict())
    expected = copy.deepcopy(base).eval()(x)
    model = adapt(base, target_modules=["body"], modules_to_save=["head"])
    (base if inner else model).eval()
    with model.disable_adapter():
        torch.testing.assert_close(model(x), expected)
        with model.disable_adapter():
            torch.testing.assert_close(model(x), expected)
    after = model.unload()

    assert not any(part.training for part in after.modules())
    torch.testing.assert_close(after(x), expected)
    assert all(torch.equal(v, before[n]) for n, v in after.state_dict().items())


def test_copies_follow_the_mode_that_is_set_while_they_are_not_used():
    model = adapt(head_with_norm(), target_modules=["body"], modules_to_save=["head"])
    with model.disable_adapter():
        model.eval()
    assert not any(part.training for part in model.modules())

    model.train()
    model.model.head[0].eval()  # one part alone
    with model.disable_adapter():
        assert [part.training for part in model.model.head] == [False, True, True]
    assert [part.training for part in model.model.head] == [False, True, True]


def adapted_beside_a_head():
    base = head_with_norm().eval()
    return adapt(base, target_modules=["body"], modules_to_save=["head"])


def test_what_replaces_a_trained_module_is_saved():
    """As by timm's `reset_classifier`: it is what is trained then."""
    model = adapted_beside_a_head()
    other = copy.deepcopy(model)
    old, new = model.model.head, head_with_norm().head.eval()
    model.model.head = new
    other.load_state_dict(model.state_dict())
    x = torch.randn(16, 8)

    torch.testing.assert_close(other(x), model(x))
    with model.disable_adapter():
        assert model.model.head not in (old, new)


@pytest.mark.parametrize("new", [head_with_norm().head.eval(), nn.Linear(8, 2)])
def test_what_replaces_a_trained_module_is_used_again(new):
    model = adapted_beside_a_head()
    model.model.head = new
    with model.disable_adapter():
        assert model.model.head is not new
    assert model.model.head is new


def test_a_trained_module_that_is_taken_out_is_still_saved():
    model = adapt(tiny_classifier(), modules_to_save=["classifier"])
    before = model.state_dict()
    model.model.classifier = None
    with model.disable_adapter():
        assert isinstance(model.model.classifier, nn.Linear)

    assert model.state_dict().keys() == before.keys()


def test_a_head_is_saved_at_the_size_that_it_was_given_later():
    model = adapt(tiny_llama(), target_modules=["q_proj"], modules_to_save=["lm_head"])
    model.resize_token_embeddings(53)

    assert model.state_dict()["base_model.model.lm_head.weight"].shape == (53, 32)


def test_what_is_not_in_use_is_converted_with_the_model():
    x, options = tokens(), {"modules_to_save": ["classifier"], "bias": "all"}
    model = randomise(adapt(tiny_classifier(), **options)).eval()
    with torch.no_grad():
        for _, parameter in model.trainable_parameters():
            parameter.add_(0.1)
    adapted = model(x).logits
    with model.disable_adapter():
        expected = model(x).logits
        model.double()
        torch.testing.assert_close(model(x).logits, expected.double())
    torch.testing.assert_close(model(x).logits, adapted.double(), rtol=1e-4, atol=1e-5)
    model.float()
    torch.testing.assert_close(model.unload()(x).logits, expected)


def test_trained_biases_that_get_other_parameters_are_saved():
    model = adapt(head_with_norm().eval(), target_modules=["body"], bias="all")
    whole, adapter = copy.deepcopy(model.model.state_dict()), model.state_dict()
    model.to("meta").to_empty(device="cpu")
    model.model.load_state_dict(whole)
    model.load_state_dict(adapter)
    model.model.body.base_layer.bias.data.add_(1)

    saved = model.state_dict()["base_model.model.body.base_layer.bias"]
    assert torch.equal(saved, whole["body.base_layer.bias"] + 1)


def test_a_trained_module_in_a_wrapper_is_saved_without_it():
    """As in that of `torch.compile`, whose names in the state are others."""
    model = adapted_beside_a_head()
    names, head = set(model.state_dict()), model.model.head
    model.model.head = nn.Sequential(head)

    assert set(model.state_dict()) == names
    with model.disable_adapter():
        pass
    assert model.model.head is head


def test_a_trained_bias_that_is_computed_from_others_later_is_saved():
    """As by torch's pruning, which keeps it under another name."""
    model = adapt(head_with_norm().eval(), target_modules=["body"], bias="lora_only")
    layer, before = model.model.body.base_layer, model.state_dict()
    prune.l1_unstructured(layer, "bias", amount=1)
    assert "bias" not in layer._parameters

    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_buffers_of_saved_modules_are_stored():
    base = nn.ModuleDict({"norm": nn.BatchNorm1d(4), "up": nn.Linear(4, 4)})
    model, fresh = (
        adapt(copy.deepcopy(base), modules_to_save=["norm"]) for _ in range(2)
    )
    model.model["norm"](torch.randn(9, 4))
    fresh.load_state_dict(model.state_dict())

    assert fresh.model["norm"].running_mean.any()
    assert fresh.model["norm"].num_batches_tracked == 1


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (tiny_bert(), {"init_r": 4}, "`config` must be an AdaLoraConfig. Got dict"),
        (
            tiny_bert(),
            peft.AdaLoraConfig(total_step=10),
            "Got that of peft. Import ours, from sk_adalora.adalora",
        ),
        ("bert", config(), "`model` must be a torch.nn.Module. Got str"),
        (adapt(tiny_bert()), config(), "must not be adapted already.*Call `unload`"),
        (adapt(tiny_bert()).model, config(), "must not be adapted already"),
    ],
)
def test_wrong_arguments_say_so(model, settings, message):
    with pytest.raises(TypeError, match=message):
        get_peft_model(model, settings)


def test_inference_mode_trains_nothing():
    assert not dict(adapt(tiny_bert(), inference_mode=True).trainable_parameters())


def test_unknown_attributes_are_those_of_the_model():
    model = adapt(tiny_bert())

    assert model.config is model.model.config
    with pytest.raises(AttributeError, match="nonsense"):
        model.nonsense  # noqa: B018

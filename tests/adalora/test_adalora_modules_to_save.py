"""What is trained beside the triplets: heads and other modules to save."""

import copy
from collections import OrderedDict

import peft
import pytest
import torch
from _tiny import (
    adapt,
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

from sk_adalora.adalora import (
    SVDLinear,
    get_peft_model,
)


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
    assert model.num_parameters(only_trainable=True) == trained
    without = tiny_bert().num_parameters(exclude_embeddings=True)
    assert model.num_parameters(exclude_embeddings=True) == without + trained
    assert capsys.readouterr().out == (
        f"trainable params: {trained:,d} || all params: {total:,d} || "
        f"trainable%: {100 * trained / total:.4f}\n"
    )


def trained_outside(model):
    return {n for n, _ in model.trainable_parameters() if not n.startswith("triplets")}


class NoMemory(nn.Linear):
    """Memory runs out where it is copied."""

    def __deepcopy__(self, memo):
        raise torch.OutOfMemoryError


def test_a_model_that_there_is_no_memory_to_adapt_is_as_before():
    base = tiny_classifier()
    base.classifier = NoMemory(32, 3)
    frozen = base.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    modules = list(base.modules())
    options = {"modules_to_save": ["pooler", "classifier"]}
    with pytest.raises(torch.OutOfMemoryError):
        adapt(base, **options)

    assert list(base.modules()) == modules
    assert [p for p in base.parameters() if not p.requires_grad] == [frozen]
    base.classifier.__class__ = nn.Linear
    train(adapt(base, **options), range(1), loss=classifier_loss)


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


@pytest.mark.parametrize("name", ["heads", "assifier"])
def test_unknown_modules_to_save_are_refused_before_anything_changes(name):
    base = tiny_classifier()
    message = f"Got '{name}', which matches none.*: bert, "
    with pytest.raises(ValueError, match=message):
        adapt(base, modules_to_save=[name])

    assert not any(isinstance(m, SVDLinear) for m in base.modules())
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


def test_a_head_is_saved_at_the_size_that_it_was_given_later():
    model = adapt(tiny_llama(), target_modules=["q_proj"], modules_to_save=["lm_head"])
    model.resize_token_embeddings(53)

    assert model.state_dict()["base_model.model.lm_head.weight"].shape == (53, 32)


def test_what_is_not_in_use_is_converted_with_the_model():
    x = tokens()
    model = randomise(adapt(tiny_classifier(), modules_to_save=["classifier"])).eval()
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
        (
            tiny_bert(),
            {"init_r": 4},
            "Got a builtins.dict",
        ),
        (
            tiny_bert(),
            peft.AdaLoraConfig(total_step=10),
            "Got a peft.*AdaLoraConfig",
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

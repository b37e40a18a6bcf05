"""Merged weights: equal to the update beside them, and gone when told to."""

import copy
import pickle

import pytest
import torch
from _tiny import (
    adapt,
    adapted_bert,
    classifier_loss,
    hidden,
    randomise,
    tiny_bert,
    tiny_classifier,
    tiny_llama,
    tiny_t5,
    tokens,
    train,
)
from torch import nn

from sk_adalora.adalora import SVDLinear


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-5), (torch.float64, 1e-6), (torch.bfloat16, 0.1)],
)
def test_merged_equals_unmerged(dtype, tolerance):
    model = randomise(adapt(tiny_bert().to(dtype)))
    apart = hidden(model)
    model.merge()
    merged = hidden(model)
    model.unmerge()

    torch.testing.assert_close(merged, apart, rtol=tolerance, atol=tolerance)
    assert torch.equal(hidden(model), apart)


@pytest.mark.parametrize("make", [tiny_bert, tiny_classifier, tiny_llama, tiny_t5])
def test_frozen_weights_are_never_written(make):
    base = make()
    before = {n: (p.data_ptr(), p.detach().clone()) for n, p in base.named_parameters()}
    owners = list(base.parameters())
    model = randomise(adapt(base))
    ids = {"input_ids": tokens()}
    if make is tiny_t5:
        ids["decoder_input_ids"] = tokens()

    def loss(model, step):
        return model(**ids)[0].square().mean()

    train(model, range(12), loss=loss)
    model.merge()
    model(**ids)
    model.unmerge()
    model.merge()
    model.compact()
    with model.disable_adapter():
        model(**ids)

    for (name, (address, value)), p in zip(before.items(), owners, strict=True):
        assert p.data_ptr() == address, name
        assert torch.equal(p, value), name


def test_merge_and_unload_returns_the_plain_model():
    base = tiny_bert()
    model = randomise(adapt(base))
    expected = hidden(model)
    plain = model.merge_and_unload()

    assert plain is base
    assert not any(isinstance(m, SVDLinear) for m in plain.modules())
    assert set(plain.state_dict()) == set(tiny_bert().state_dict())
    assert not hooks_of(plain)
    torch.testing.assert_close(hidden(plain), expected, rtol=1e-4, atol=1e-5)
    copy.deepcopy(plain)
    adapt(plain)  # can be adapted once more


def hooks_of(model):
    return [
        hook
        for module in model.modules()
        for name in (
            "_forward_pre_hooks",
            "_forward_hooks",
            "_forward_hooks_always_called",
        )
        for hook in getattr(module, name).values()
    ]


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_is_taken_apart_alone(copied):
    model = adapt(tiny_bert())
    other = copied(model)
    n_hooks = len(hooks_of(model))
    plain = other.unload()

    assert not hooks_of(plain)
    assert len(hooks_of(model)) == n_hooks > 0


def test_unload_restores_the_model():
    base = tiny_classifier()
    weights = dict(base.named_parameters())
    order = list(base.state_dict())
    model = randomise(adapt(base, modules_to_save=["classifier"]))
    train(model, range(3), loss=classifier_loss)
    plain = model.unload()

    assert plain is base
    assert dict(plain.named_parameters()).keys() == weights.keys()
    assert all(p is weights[name] for name, p in plain.named_parameters())
    assert list(plain.state_dict()) == order
    assert not hooks_of(plain)
    assert torch.equal(plain(tokens()).logits, tiny_classifier()(tokens()).logits)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_merging_refuses_broken_numbers_and_merges_nothing(number):
    model = adapted_bert()
    with torch.no_grad():
        model.triplets.singular_values[-1] = number
    with pytest.raises(ValueError, match=r"must be finite. Got NaN or infinity"):
        model.merge()
    assert all(layer.merged_weight is None for layer in model.adapted.values())

    model.merge(safe_merge=False)
    assert hidden(model).isnan().any()
    model.unmerge()
    merged = model.merge_and_unload(safe_merge=False)
    assert hidden(merged).isnan().any()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, KeyboardInterrupt])
def test_merging_that_is_cut_short_merges_nothing(monkeypatch, error):
    """Each merged weight takes memory, and a merged layer learns no more."""
    model = randomise(adapted_bert())
    before, merge = hidden(model), SVDLinear.merge
    third = list(model.adapted.values())[2]

    def fail(layer, delta, *, check):
        if layer is third:
            raise error
        merge(layer, delta, check=check)

    monkeypatch.setattr(SVDLinear, "merge", fail)
    with pytest.raises(error):
        model.merge()

    assert all(layer.merged_weight is None for layer in model.adapted.values())
    assert torch.equal(hidden(model), before)


class Scaled(nn.Linear):
    """A layer that does more than to multiply and to add."""

    def forward(self, x):
        return 1.5 * super().forward(x)


class Written(nn.Linear):
    """A plain layer whose class writes out what it computes, as Falcon's does."""

    def forward(self, x):
        return x @ self.weight.T + self.bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_that_computes_in_its_own_way_is_not_merged(dtype):
    torch.manual_seed(0)
    adapted = randomise(adapt(nn.Sequential(Scaled(6, 5), Written(5, 6)).to(dtype)))
    x = torch.randn(4, 6).to(dtype)
    before = adapted(x)

    match = r"^Merging needs layers that .* a Scaled, which computes something else"
    for merge in (adapted.merge, adapted.merge_and_unload):
        with pytest.raises(TypeError, match=match):
            merge()
    assert torch.equal(adapted(x), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_class_that_writes_out_the_product_is_merged(dtype):
    torch.manual_seed(0)
    adapted = randomise(
        adapt(nn.Sequential(Written(300, 200), Written(200, 6)).to(dtype))
    )
    x = torch.randn(4, 300).to(dtype)
    apart = adapted(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        adapted.merge()
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(adapted(x), apart, rtol=tolerance, atol=tolerance)

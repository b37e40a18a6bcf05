"""Merged weights: equal to the update beside them, and gone when told to."""

import copy
import pickle

import pytest
import torch
from _tiny import (
    BERT_LAYERS,
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


def test_a_merged_weight_is_rounded_once():
    model = randomise(adapt(tiny_bert().to(torch.bfloat16)))
    deltas = [delta.float() for delta in model.triplets.deltas()]
    model.merge()

    layers = [m for m in model.modules() if isinstance(m, SVDLinear)]
    for layer, delta in zip(layers, deltas, strict=True):
        exact = (layer.base_layer.weight.float() + delta).bfloat16()
        assert torch.equal(layer.merged_weight, exact)


class ReadsWeights(nn.Module):
    """A layer whose weight a model multiplies by without calling it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inside = nn.Linear(6, 5)

    def forward(self, x):
        return x @ self.inside.weight.T + self.inside.bias


def test_model_code_that_reads_weights_gets_merged_ones():
    model, x = randomise(adapt(ReadsWeights())), torch.randn(3, 6)
    pretrained = model(x)
    model.merge()
    merged = model(x)
    with model.disable_adapter():
        off = model(x)
    model.unmerge()
    again, plain = model(x), model.merge_and_unload()(x)

    torch.testing.assert_close(merged, plain)
    assert not torch.allclose(merged, pretrained, atol=1e-2)
    assert torch.equal(off, pretrained)
    assert torch.equal(again, pretrained)


def test_merging_is_exact_whatever_is_computed_in():
    model = randomise(adapt(tiny_bert()))
    expected = [delta.clone() for delta in model.triplets.deltas()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        deltas = list(model.triplets.deltas())
        model.merge()
    apart = randomise(adapt(tiny_bert()))
    apart.merge()

    assert all(torch.equal(a, b) for a, b in zip(deltas, expected, strict=True))
    assert torch.equal(hidden(model), hidden(apart))


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


def test_frozen_weights_outlive_merge_and_unload():
    base = tiny_bert()
    weights = {path: base.get_submodule(path).weight for path in BERT_LAYERS}
    copies = {path: w.detach().clone() for path, w in weights.items()}
    merged = randomise(adapt(base)).merge_and_unload()

    for path, weight in weights.items():
        assert torch.equal(weight, copies[path])
        assert not torch.equal(merged.get_submodule(path).weight, weight)


@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.parametrizations.weight_norm,
        pytest.param(
            nn.utils.weight_norm,
            marks=pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`"),
        ),
    ],
)
def test_a_weight_that_is_computed_is_merged_but_not_replaced(norm):
    base = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    norm(base[1])
    model = randomise(adapt(base))
    x = torch.randn(3, 8)
    expected = model(x)
    with pytest.raises(ValueError, match=r"must be a parameter. Got '1'.*Call `merge`"):
        model.merge_and_unload()
    assert model.adapted["0"].merged_weight is None

    model.merge()
    torch.testing.assert_close(model(x), expected)
    model.unload()
    assert type(base[0]) is nn.Linear


def test_a_weight_that_is_computed_may_stay_where_no_rank_is_left():
    base = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    nn.utils.parametrizations.weight_norm(base[1])
    model = randomise(adapt(base))
    ranks = model.triplets.ranks
    model.triplets.keep(torch.arange(sum(ranks)) < ranks[0])
    x = torch.randn(3, 8)
    expected = model(x)

    torch.testing.assert_close(model.merge_and_unload()(x), expected)
    assert nn.utils.parametrize.is_parametrized(base[1])


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


def test_merging_keeps_what_was_put_around_a_trained_module():
    base = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    model = adapt(base, target_modules=["body"], modules_to_save=["head"])
    base["head"] = around = nn.Sequential(base["head"], nn.Softmax(-1))

    assert model.merge_and_unload()["head"] is around


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
    model = randomise(adapt(base, bias="all", modules_to_save=["classifier"]))
    train(model, range(3), loss=classifier_loss)
    plain = model.unload()

    assert plain is base
    assert dict(plain.named_parameters()).keys() == weights.keys()
    assert all(p is weights[name] for name, p in plain.named_parameters())
    assert list(plain.state_dict()) == order
    assert not hooks_of(plain)
    assert torch.equal(plain(tokens()).logits, tiny_classifier()(tokens()).logits)


def test_other_hooks_stay():
    base = tiny_bert()
    base.register_forward_hook(lambda *_: None)
    base.register_forward_pre_hook(lambda *_: None)
    adapt(base).unload()

    assert len(hooks_of(base)) == 2


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


def test_merged_weights_are_not_stored():
    model = adapted_bert()
    names = set(model.state_dict())
    model.merge()

    assert set(model.state_dict()) == names
    assert not any("merged" in name for name in model.model.state_dict())


class Scaled(nn.Linear):
    """A layer that does more than to multiply and to add."""

    def forward(self, x):
        return 1.5 * super().forward(x)


class LastRow(nn.Linear):
    """A layer of the last row of each sequence, or of rows."""

    def forward(self, x):
        return super().forward(x[:, -1] if x.ndim == 3 else x)


class OfImages(Scaled):
    """One that takes neither rows nor sequences, by which it could be tried out."""

    def forward(self, x):
        assert x.ndim == 4
        return super().forward(x)


class Written(nn.Linear):
    """A plain layer whose class writes out what it computes, as Falcon's does."""

    def forward(self, x):
        return x @ self.weight.T + self.bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Scaled, LastRow])
def test_a_layer_that_computes_in_its_own_way_is_not_merged(kind, dtype):
    torch.manual_seed(0)
    adapted = randomise(adapt(nn.Sequential(kind(6, 5), Written(5, 6)).to(dtype)))
    x = torch.randn(4, 6).to(dtype)
    before = adapted(x)

    match = rf"^Merging needs layers that .* a {kind.__name__}, which computes someth"
    for merge in (adapted.merge, adapted.merge_and_unload):
        with pytest.raises(TypeError, match=match):
            merge()
    assert torch.equal(adapted(x), before)


def test_a_layer_that_cannot_be_tried_out_is_not_merged():
    adapted = randomise(adapt(nn.Sequential(OfImages(6, 5))))
    assert adapted(torch.randn(1, 2, 3, 6)).shape == (1, 2, 3, 5)

    with pytest.raises(TypeError, match=r"^Merging needs layers .* a OfImages"):
        adapted.merge()


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

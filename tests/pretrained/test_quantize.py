"""Packed weights: what they are, and fits on them, up to what is saved."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from sk_adalora import AdaLoraClassifier
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.pretrained.quantize import (
    FourBitLinear,
    Int8Embedding,
    Int8Linear,
    QuantizedLinear,
    quantize,
)
from sk_adalora.runtime.devices import resolve_compute

CPU = torch.device("cpu")
X = ["good film", "bad film", "a joy", "a bore"] * 8
Y = ["fresh", "rotten"] * 16


def layer(dtype=torch.float32):
    torch.manual_seed(0)
    # 30 * 50 numbers are no whole number of blocks.
    return nn.Linear(50, 30).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "most", "size"), [(Int8Linear, 1 / 254, 1), (FourBitLinear, 0.16, 0.52)]
)
def test_a_packed_layer_is_one_of_near_weights(kind, most, size, dtype):
    plain = layer(dtype)
    packed = kind(plain, CPU)
    weight = packed.unpack(torch.float32)
    largest = plain.weight.float().abs().max()

    assert (weight - plain.weight.float()).abs().max() <= most * largest * 1.01
    assert packed.weight.nbytes <= size * plain.weight.numel()
    x = torch.randn(2, 3, 50, dtype=dtype, requires_grad=True)
    out = packed(x)
    as_plain = torch.nn.functional.linear(x, packed.unpack(dtype), plain.bias)
    torch.testing.assert_close(out, as_plain)
    got, expected = (torch.autograd.grad(o.sum(), x)[0] for o in (out, as_plain))
    torch.testing.assert_close(got, expected)


def test_the_numbers_of_four_bits_are_those_of_qlora():
    plain = nn.Linear(1, 64)
    plain.weight.data = torch.linspace(-1, 1, 64)[:, None]
    found = FourBitLinear(plain, CPU).unpack(torch.float32).unique()
    published = [-1, -0.69619, -0.52507, -0.39492, -0.28444, -0.18477, -0.09105, 0]
    published += [0.07958, 0.16093, 0.24611, 0.33792, 0.44071, 0.56262, 0.72296, 1]
    np.testing.assert_allclose(found, published, atol=1e-5)


@pytest.mark.parametrize("kind", [Int8Linear, FourBitLinear])
def test_weights_of_zero_stay_zero(kind):
    plain = layer()
    plain.weight.zero_()
    assert not kind(plain, CPU).unpack(torch.float32).any()


def test_no_unpacked_weight_waits_for_the_backward_pass():
    model = nn.Sequential(*[Int8Linear(nn.Linear(64, 64), CPU) for _ in range(4)])
    sizes = []
    keep = torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.numel()) or t, lambda t: t
    )
    with keep:
        model(torch.ones(2, 64, requires_grad=True))
    assert sum(sizes) < 64 * 64


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ValueError, match="needs a model with linear layers"):
        quantize(nn.Sequential(nn.Conv1d(3, 3, 1)), "int8", CPU)


# ---- estimators ---------------------------------------------------------------


def make(model, **parameters):
    settings = {"device": "cpu", "precision": "float32", "random_state": 0}
    settings |= {"epochs": 2, "target_r": 2, "batch_size": 8}
    return AdaLoraClassifier(model, **(settings | parameters))


@pytest.fixture(scope="module", params=["int8", "4bit"])
def fitted(request, tiny_model):
    """A fit on packed weights: do not refit."""
    return make(tiny_model, quantization=request.param).fit(X, Y)


def test_a_fit_is_on_packed_weights_and_shares_none_with_plain_ones(fitted, tiny_model):
    backbone = fitted._ready().backbone
    kinds = {type(part) for part in backbone.module.modules()}
    assert nn.Linear not in kinds
    assert Int8Embedding in kinds
    compute = resolve_compute("cpu", "float32")
    plain = load_backbone(tiny_model, compute)
    assert plain is not backbone
    assert plain.content_hash == backbone.content_hash
    again = resolve_compute("cpu", "float32", fitted.quantization)
    assert load_backbone(tiny_model, again) is backbone
    assert fitted.fit_report_.precision == f"float32 ({fitted.quantization})"
    total = make(tiny_model, epochs=1).fit(X, Y).fit_report_
    trained = fitted.fit_report_.trainable_parameters - total.trainable_parameters
    assert fitted.fit_report_.total_parameters - trained == total.total_parameters


def test_copies_of_the_model_share_the_packed_weights(fitted):
    backbone = fitted._ready().backbone
    tensors = [
        {t.data_ptr() for n, t in module.state_dict(keep_vars=True).items()}
        | {p.scale.data_ptr() for p in module.modules() if hasattr(p, "scale")}
        for module in (backbone.module, backbone.copy())
    ]
    assert tensors[0] == tensors[1]
    assert any(isinstance(p, QuantizedLinear) for p in backbone.copy().modules())


def test_what_was_fitted_is_kept_in_every_form(fitted, tmp_path):
    expected = fitted.predict_proba(X)
    fitted.save_pretrained(tmp_path / "folder")
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "folder")
    for copy in (pickle.loads(pickle.dumps(fitted)), loaded):
        assert copy.quantization == fitted.quantization
        np.testing.assert_array_equal(copy.predict_proba(X), expected)
    np.testing.assert_array_equal(clone(fitted).fit(X, Y).predict_proba(X), expected)
    fitted.export_lora(tmp_path / "lora")


def test_predictions_and_a_merge_may_use_the_weights_of_the_file(fitted, tmp_path):
    plain = pickle.loads(pickle.dumps(fitted)).set_params(quantization=None)
    expected = plain.transform(X)
    assert not np.array_equal(expected, fitted.transform(X))
    np.testing.assert_allclose(expected, fitted.transform(X), atol=0.5)

    fitted.merge_and_save(tmp_path / "merged")
    merged = load_backbone(tmp_path / "merged", resolve_compute("cpu", "float32"))
    tokens = merged.tokenizer(X[:1], return_tensors="pt")
    with torch.no_grad():
        hidden = merged.copy()(**tokens).last_hidden_state.mean(dim=1)
    np.testing.assert_allclose(hidden, expected[:1], atol=1e-5)


def test_a_head_of_the_models_own_is_trained_unpacked(tiny_model):
    model = make(tiny_model, quantization="int8", pooling="model").fit(X, Y)
    assert set(model.predict(X)) <= {"fresh", "rotten"}


def test_bfloat16_computes_with_packed_weights_too(tiny_model):
    model = make(tiny_model, quantization="4bit", precision="bfloat16")
    assert np.isfinite(model.fit(X, Y).predict_proba(X)).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="`quantization` of AdaLoraClassifier must be"):
        make("any", quantization="int4").fit(X, Y)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["int8", "4bit"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_packed_weights_on_a_gpu(tiny_model, kind):
    model = make(tiny_model, quantization=kind, device="cuda").fit(X, Y)
    assert np.isfinite(model.predict_proba(X)).all()

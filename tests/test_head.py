"""The head learns alike whatever size the features of a model are."""

import shutil

import numpy as np
import pytest
import torch
from _toy import make, toy
from safetensors.torch import load_file, save_file
from torch import nn

from sk_adalora import AdaLoraRegressor
from sk_adalora._head import LinearHead

X, Y = toy(40)
LENGTHS = np.array([len(text.split()) for text in X], float)
# Factors and shifts of the features, as between models: of a sentence encoder they are
# about 0.05 a number, of a decoder tens.
SIZES = [(30.0, 0.0), (0.03, 0.0), (1.0, 50.0), (10.0, -20.0)]


@pytest.fixture(scope="module")
def resized(tiny_model, tmp_path_factory):
    """Function: factor, shift -> a tiny model with features of that size."""

    def resize(factor, shift):
        folder = tmp_path_factory.mktemp("resized") / "model"
        shutil.copytree(tiny_model, folder)
        weights = load_file(folder / "model.safetensors")
        last = max(n for n in weights if n.endswith("output.LayerNorm.weight"))
        bias = last.replace("weight", "bias")
        weights[last] = weights[last] * factor
        move = torch.linspace(-1, 1, len(weights[bias])) * shift
        weights[bias] = weights[bias] * factor + move
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return str(folder)

    return resize


def fit_classifier(model, **changed):
    return make(model, **changed).fit(X, Y)


def fit_regressor(model, **changed):
    params = make(model, **changed).get_params()
    known = AdaLoraRegressor().get_params()
    return AdaLoraRegressor(**{k: v for k, v in params.items() if k in known}).fit(
        X, LENGTHS
    )


@pytest.mark.parametrize(("factor", "shift"), SIZES)
@pytest.mark.parametrize("head_init", ["linear_probe", "random"])
@pytest.mark.parametrize("fit", [fit_classifier, fit_regressor])
def test_what_is_learned_does_not_depend_on_the_size_of_the_features(
    tiny_model, resized, fit, head_init, factor, shift
):
    settings = {"head_init": head_init, "epochs": 4}
    expected = fit(tiny_model, **settings)
    got = fit(resized(factor, shift), **settings)

    assert expected.history_.loss[-1] < 0.95 * expected.history_.loss[0]
    np.testing.assert_allclose(
        got.history_.loss, expected.history_.loss, rtol=2e-3, atol=1e-3
    )
    np.testing.assert_allclose(got.predict(X), expected.predict(X), atol=0.01)


@pytest.mark.parametrize(("factor", "shift"), SIZES)
def test_a_warm_start_goes_on_alike(tiny_model, resized, factor, shift):
    """The head is kept for features as they come, and learns on those of one size."""
    fits = [
        fit_regressor(model, epochs=2).set_params(warm_start=True).fit(X, LENGTHS)
        for model in (tiny_model, resized(factor, shift))
    ]

    expected, got = (fitted.history_.loss for fitted in fits)
    np.testing.assert_allclose(got, expected, rtol=5e-3, atol=1e-3)


def test_a_plain_state_gives_the_same_outputs():
    head, features = LinearHead(5, 3), 100 + 30 * torch.randn(20, 5)
    head.learn_on(features.mean(0), 30.0)
    plain = nn.Linear(5, 3)
    plain.load_state_dict(head.plain_state())

    assert head(features).abs().max() < 10  # as it was drawn for
    torch.testing.assert_close(plain(features), head(features), rtol=0, atol=1e-4)

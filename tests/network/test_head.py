"""The head learns alike however long the features of a model are."""

import shutil

import numpy as np
import pytest
import torch
from _toy import make, make_regressor, toy
from safetensors.torch import load_file, save_file
from torch import nn

from sk_adalora.network.head import LinearHead, mean_and_distance

X, Y = toy(40)
LENGTHS = np.array([len(text.split()) for text in X], float)
# Factors and shifts of the features, as between models: of a sentence encoder they are
# about 0.05 a number, of a decoder tens.
SIZES = [(0.03, 0.0), (1.0, 100.0), (10.0, -20.0)]


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
    return make_regressor(model, **changed).fit(X, LENGTHS)


def losses_agree(got, expected):
    """Whether two fits went the same way, step by step."""
    got, expected = (np.array(fitted.history_.loss) for fitted in (got, expected))
    assert np.ptp(expected) > 0.1 * expected.max()
    np.testing.assert_allclose(got, expected, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize(("factor", "shift"), SIZES)
@pytest.mark.parametrize("fit", [fit_classifier, fit_regressor])
def test_what_is_learned_does_not_depend_on_the_length_of_the_features(
    tiny_model, resized, fit, factor, shift
):
    settings = {"learning_rate": 0.05, "epochs": 4}
    expected = fit(tiny_model, **settings)
    got = fit(resized(factor, shift), **settings)

    losses_agree(got, expected)
    np.testing.assert_allclose(got.predict(X), expected.predict(X), rtol=0.02, atol=0.2)


def test_a_heavy_row_does_not_shorten_the_features(tiny_model):
    """Its distance from a mean that is its own tells nothing of the others."""
    heavy = np.where(np.arange(40), 1.0, 1e6)
    first, second = (
        make_regressor(tiny_model, epochs=1).fit(X, LENGTHS, sample_weight=weight)
        for weight in (None, heavy)
    )

    assert second._adapter.feature_length == first._adapter.feature_length


@pytest.mark.parametrize(("factor", "shift"), SIZES)
@pytest.mark.parametrize("fit", [fit_classifier, fit_regressor])
def test_a_warm_start_goes_on_alike(tiny_model, resized, fit, factor, shift):
    """The head is kept for features as they are, and learns on standardised ones."""
    y = Y if fit is fit_classifier else LENGTHS
    expected, got = (
        fit(model, epochs=2).set_params(warm_start=True).fit(X, y)
        for model in (tiny_model, resized(factor, shift))
    )

    losses_agree(got, expected)


def test_features_that_are_not_finite_are_refused(tiny_model, monkeypatch):
    monkeypatch.setattr(
        "sk_adalora.network.network.pool",
        lambda *args: torch.full((len(args[0]), 32), np.nan),
    )

    with pytest.raises(FloatingPointError, match=r"must compute finite features\. Got"):
        fit_classifier(tiny_model)


@pytest.fixture
def head():
    """A head that is set for features far from 0, and such features."""
    generator = torch.Generator().manual_seed(0)
    features = 100 + 30 * torch.randn(20, 5, generator=generator)
    head = LinearHead(5, 3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.uniform_(-1, 1, generator=generator)
    head.set_scale(*mean_and_distance(features, None, features.dtype))
    return head, features


def test_a_plain_state_gives_the_same_outputs(head):
    head, features = head
    plain = nn.Linear(5, 3)
    plain.load_state_dict(head.plain_state())

    assert head(features).abs().max() < 5  # as it was drawn for
    torch.testing.assert_close(plain(features), head(features), rtol=0, atol=1e-4)


def test_a_plain_state_is_taken_over(head):
    head, features = head
    plain = nn.Linear(5, 3)
    head.load_plain_state(plain.state_dict())

    torch.testing.assert_close(head(features), plain(features), rtol=0, atol=1e-4)
    assert list(head.state_dict()) == ["weight", "bias"]
    assert head.to("meta").centre.is_meta


@pytest.mark.parametrize("weighted", [False, True])
def test_mean_and_length_of_features(weighted):
    features = np.random.default_rng(0).normal(3, 2, (30, 4))
    weights = np.arange(30.0) if weighted else None
    given = torch.from_numpy(weights) if weighted else None
    centre, length = mean_and_distance(torch.from_numpy(features), given, torch.float32)

    mean = np.average(features, axis=0, weights=weights)
    squared = np.average(((features - mean) ** 2).sum(1), weights=weights)
    np.testing.assert_allclose(centre, mean)
    assert length == pytest.approx(np.sqrt(squared))


@pytest.mark.parametrize(
    ("dtype", "share"),
    [(torch.float32, 0.003), (torch.float16, 0.0039), (torch.bfloat16, 0.031)],
)
def test_features_that_hardly_differ_count_as_differing_by_a_share(dtype, share):
    """Of the length of their mean, which is more where numbers are rounded more."""
    features = torch.tensor([[3.0, 4.0], [3.0, 4.001]])

    assert mean_and_distance(features, None, dtype)[1] == pytest.approx(
        5 * share, rel=0.01
    )
    assert mean_and_distance(torch.zeros(2, 3), None, dtype)[1] == 1

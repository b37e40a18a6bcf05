"""How the tokens of a text become one vector, and where a head starts."""

import numpy as np
import pytest
import torch
from _toy import make, toy

from sk_adalora.adalora import AdaLoraConfig
from sk_adalora.network.network import build_network, pool
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.runtime.devices import resolve_place
from sk_adalora.runtime.rules import POOLINGS

PLACE = resolve_place("cpu", "float32")


def naive_pool(hidden, mask, pooling):
    """One text after the other, its tokens only."""
    rows = []
    for states, kept in zip(hidden, mask.bool(), strict=True):
        states = states[kept]
        rows.append(
            {
                "mean": states.mean(dim=0),
                "max": states.max(dim=0).values,
                "cls": states[0],
                "last": states[-1],
            }[pooling]
        )
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_sees_the_tokens_and_no_padding(pooling):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 7, 3, generator=generator)
    lengths = torch.tensor([7, 1, 3, 6, 2])
    mask = (torch.arange(7) < lengths[:, None]).long()
    expected = naive_pool(hidden, mask, pooling)

    torch.testing.assert_close(pool(hidden, mask, pooling), expected)
    garbage = hidden.masked_fill(~mask.bool().unsqueeze(2), 1e4)
    torch.testing.assert_close(pool(garbage, mask, pooling), expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_without_mask_is_pooling_of_full_rows(pooling):
    hidden = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    full = torch.ones(4, 6, dtype=torch.long)

    torch.testing.assert_close(pool(hidden, None, pooling), pool(hidden, full, pooling))
    torch.testing.assert_close(
        pool(hidden, None, pooling), naive_pool(hidden, full, pooling)
    )


@pytest.mark.parametrize("mask", [None, torch.ones(2, 3)])
def test_a_pooling_of_a_later_version_is_no_other_one(mask):
    with pytest.raises(ValueError, match=r"Got 'sum'\. Install a newer"):
        pool(torch.zeros(2, 3, 4), mask, "sum")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_estimator_pools_as_asked(tiny_model, pooling):
    X, y = toy(16)
    fitted = make(tiny_model, pooling=pooling).fit(X, y)
    network, tokenizer = fitted._predictor.network, fitted._predictor.backbone.tokenizer
    encoded = tokenizer(X, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = network.encoder(**encoded).last_hidden_state
        outputs = network.head(naive_pool(hidden, encoded["attention_mask"], pooling))

    np.testing.assert_allclose(
        fitted.predict_log_proba(X), outputs.log_softmax(1), atol=1e-5
    )


def test_a_head_starts_at_random_and_as_small_as_its_input_is_wide(tiny_model):
    backbone = load_backbone(tiny_model, PLACE)
    config = AdaLoraConfig(total_step=9)
    generator = torch.Generator().manual_seed(0)
    weight = build_network(backbone, config, 9, "mean", generator).head.weight
    largest = backbone.width**-0.5

    assert weight.abs().max() <= largest
    assert weight.min() < -0.9 * largest
    assert weight.max() > 0.9 * largest

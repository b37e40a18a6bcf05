"""What the wrapper hands on to the model in it, and what packages do with parts."""

import copy

import pytest
import torch
import torch.fx
import transformers
from _tiny import (
    adapt,
    tiny_bert,
    tiny_llama,
    tokens,
)
from torch import nn


class Scaled(nn.Module):
    """A model with an attribute that its pass reads, and one that we have, too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.allocator = "of the model"
        self.scale = 1.0

    def forward(self, x):
        return self.scale * self.linear(x)


# ---- attributes -------------------------------------------------------------


def test_attributes_of_the_model_are_set_on_it():
    model = adapt(Scaled(), target_modules=["linear"])
    before = model(torch.ones(4))
    model.scale = 2.0

    assert model.model.scale == 2.0
    torch.testing.assert_close(model(torch.ones(4)), 2 * before)
    assert "scale" not in vars(model)


def test_generate_heeds_a_configuration_that_is_set():
    model = adapt(tiny_llama())
    ids = tokens(rows=2)
    model.generation_config = transformers.GenerationConfig(
        max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0
    )

    assert model.generate(ids).shape == (2, ids.shape[1] + 3)


def test_attributes_of_the_wrapper_stay_there():
    base = Scaled()
    base._seen = "of the model"
    model = adapt(base, target_modules=["linear"])
    model._hook = model._seen = "of another package"
    model.note = "of nobody"
    model.forward = model.forward  # as accelerate wraps it
    model.train()

    assert base.allocator == base._seen == "of the model"
    assert "forward" in vars(model)
    assert "forward" not in vars(base)
    assert model.allocator.budget == 4
    assert not hasattr(base, "_hook")
    assert not hasattr(base, "note")
    assert copy.deepcopy(model).note == "of nobody"


def test_the_wrapped_model_is_not_pushed_without_its_updates():
    with pytest.raises(AttributeError, match="Upload the folder that `save_p"):
        adapt(tiny_bert()).push_to_hub("nobody/nothing")


# ---- its name ---------------------------------------------------------------


def test_the_trainer_shifts_labels_that_it_smooths(tmp_path):
    """It knows a causal model by the name of its class."""
    base = tiny_llama()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), label_smoothing_factor=0.1, report_to=[], use_cpu=True
    )
    ids = tokens(rows=2)

    def loss_of(model):
        trainer = transformers.Trainer(model, arguments)
        return trainer.compute_loss(model, {"input_ids": ids, "labels": ids})

    expected = loss_of(copy.deepcopy(base))
    model = adapt(base)

    torch.testing.assert_close(loss_of(model), expected)
    assert repr(model).startswith("AdaLoraModel(")


def test_the_trainer_takes_a_quantised_model_with_an_adapter(tmp_path):
    """Which it tells from one without by an attribute."""
    base = tiny_llama()
    base.is_quantized = True
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), report_to=[], use_cpu=True
    )
    with pytest.raises(ValueError, match="purely quantized"):
        transformers.Trainer(copy.deepcopy(base), arguments)

    transformers.Trainer(adapt(base), arguments)


# ---- parts ------------------------------------------------------------------


def test_a_part_without_the_others_says_what_to_keep():
    model = adapt(tiny_bert())
    inputs = torch.ones(1, 3, 32)

    with pytest.raises(
        RuntimeError, match="All adapted layers of a model must be kept"
    ):
        copy.deepcopy(model.model.encoder.layer[0])(inputs)
    first = model.model.encoder.layer[0]
    del model
    with pytest.raises(
        RuntimeError, match="All adapted layers of a model must be kept"
    ):
        first(inputs)

"""The contestants of the benchmarks fit, predict, and are set up as the page says."""

import pytest
import torch
from _benchmarks import X, Y, settings
from transformers import AutoTokenizer

from benchmarks.contestants import CONTESTANTS, Settings, fit
from benchmarks.huggingface import MEAN_POOLED, load_mean_pooled
from benchmarks.training_steps import STEPS, steps_of


@pytest.mark.parametrize("name", list(CONTESTANTS))
def test_contestants_fit_and_predict(name, tiny_model):
    if name.startswith(("peft", "lora")):
        pytest.importorskip("peft")
    if name.startswith(("peft", "lora", "full")):
        pytest.importorskip("accelerate")
    if name in ("skorch", "setfit"):
        pytest.importorskip(name)

    predicted = fit(name, X, Y, settings(tiny_model)).predict(X[:5])

    assert len(predicted) == 5
    assert set(predicted) <= set(Y)


@pytest.mark.parametrize("name", ["full", "full-tuned"])
def test_contestants_that_train_all_weights_learn_what_they_see(name, tiny_model):
    pytest.importorskip("accelerate")
    eager = settings(tiny_model, epochs=40, learning_rate=5e-3)

    predicted = fit(name, X, Y, eager).predict(X)

    assert predicted == Y


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_that_are_trained_are_held_in_float32(precision, tiny_model):
    pytest.importorskip("accelerate")
    at_hand = settings(tiny_model, precision=precision)
    model = fit("full-tuned", X, Y, at_hand).trainer.model

    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_callback_brings_peft_to_its_target_rank(tiny_model):
    pytest.importorskip("peft")
    from benchmarks.huggingface import INIT_R, TARGET_R

    predictor = fit("peft-adalora", X, Y, settings(tiny_model))
    parameters = predictor.trainer.model.named_parameters()
    values = [p for name, p in parameters if "lora_E" in name]

    assert {v.numel() for v in values} == {INIT_R}
    living = sum(int(v.count_nonzero()) for v in values)
    assert living == TARGET_R * len(values)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tuned_peft_computes_in_one_precision(precision, tiny_model, monkeypatch):
    """Its updates, which PEFT would compute in float32, included."""
    pytest.importorskip("peft")
    pytest.importorskip("accelerate")
    from peft.tuners.adalora import SVDLinear

    dtypes, forward = set(), SVDLinear.forward

    def watched(layer, x, *args, **kwargs):
        out = forward(layer, x, *args, **kwargs)
        dtypes.update({x.dtype, layer.get_base_layer().weight.dtype, out.dtype})
        return out

    monkeypatch.setattr(SVDLinear, "forward", watched)
    fit("peft-tuned", X, Y, settings(tiny_model, precision=precision))

    assert dtypes == {getattr(torch, precision)}


def test_mean_pooling_is_for_those_whose_dropout_has_known_names(
    tiny_model, tiny_architecture, tmp_path
):
    pytest.importorskip("peft")
    tiny_architecture("distilbert").save_pretrained(tmp_path)
    other = str(tmp_path)

    with pytest.raises(ValueError, match=r"bert, mpnet\. .* type distilbert\. Leave"):
        fit("peft-tuned", X, Y, settings(other))
    assert steps_of(tiny_model) == list(STEPS)
    assert steps_of(other) == [name for name in STEPS if name != "peft-tuned"]


@pytest.mark.parametrize("name", MEAN_POOLED)
def test_tuned_contestants_pool_the_mean(name, tiny_model, tiny_architecture, tmp_path):
    backbone = tiny_architecture(name)
    backbone.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])

    _, model = load_mean_pooled(settings(str(tmp_path)), n_classes=3)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
        hidden = backbone(input_ids=ids, attention_mask=mask)[0]
        means = torch.stack([hidden[0].mean(0), hidden[1, :3].mean(0)])
        expected = model.classifier(means)

    torch.testing.assert_close(logits, expected)
    assert not any(layer.p for layer in model.base_model.modules() if _drops(layer))


def _drops(layer):
    return isinstance(layer, torch.nn.Dropout)


def test_trainer_takes_one_card_of_several(tiny_model, monkeypatch):
    """As ours does; each of them would get a batch of its own."""
    pytest.importorskip("accelerate")
    from transformers import TrainingArguments

    from benchmarks.huggingface import _arguments

    begin = TrainingArguments.__post_init__

    def on_two_cards(self):
        begin(self)
        self._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", on_two_cards)
    arguments = _arguments("full", settings(tiny_model), "unused", by_length=False)

    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 4)


def test_contestants_are_named():
    with pytest.raises(ValueError, match="must be one of ours, peft-adalora"):
        fit("theirs", X, Y, Settings())

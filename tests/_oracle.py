"""PEFT's AdaLoRA beside ours: same numbers, same batches, step by step."""

import dataclasses
import warnings

import peft
import torch
from _tiny import adapt, labels, tokens

ADAPTER = "default"


def quietly(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def pair(make, seed=0, **options):
    """Ours and PEFT's model over the same weights, with the same triplets."""
    ours = quietly(lambda: adapt(make(), seed, **options))
    settings = {
        f.name: getattr(ours.peft_config, f.name)
        for f in dataclasses.fields(ours.peft_config)
        if f.name not in ("peft_type", "task_type", "fan_in_fan_out")
    }
    settings["target_modules"] = list(ours.adapted)
    theirs = quietly(
        lambda: peft.get_peft_model(make(), peft.AdaLoraConfig(**settings))
    )
    with torch.no_grad():
        numbers = ours.triplets.per_layer()
        for layer, (left, values, right) in zip(layers(theirs), numbers, strict=True):
            layer.lora_A[ADAPTER].copy_(right)
            layer.lora_B[ADAPTER].copy_(left.T)
            layer.lora_E[ADAPTER].copy_(values.unsqueeze(1))
    return ours, theirs


def layers(theirs):
    kind = peft.tuners.adalora.layer.SVDLinear
    return [m for m in theirs.modules() if isinstance(m, kind)]


def numbers_of_peft(theirs):
    """(left, singular values, right) of each layer, laid out like ours."""
    return [
        (
            layer.lora_B[ADAPTER].detach().T,
            layer.lora_E[ADAPTER].detach().flatten(),
            layer.lora_A[ADAPTER].detach(),
        )
        for layer in layers(theirs)
    ]


def living(numbers):
    """Which singular values are not zero, over all layers."""
    return torch.cat([values != 0 for _, values, _ in numbers])


def classifier_batch(step):
    return {"input_ids": tokens(step), "labels": labels(step)}


def causal_batch(step):
    return {"input_ids": tokens(step), "labels": tokens(step)}


def step_ours(model, optimizer, step, batch):
    loss = model(**batch).loss + model.orthogonality_loss()
    loss.backward()
    optimizer.step()
    model.update_and_allocate(step)
    optimizer.zero_grad()
    return loss.detach()


def step_peft(model, optimizer, step, batch):
    # PEFT adds the penalty itself, but not when the outermost model is called.
    loss = model.base_model(**batch).loss
    loss.backward()
    optimizer.step()
    model.base_model.update_and_allocate(step)
    optimizer.zero_grad()
    return loss.detach()


def sgd(model):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(parameters, lr=0.5, momentum=0.9)

"""What runs on a CPU runs on another device, with the same numbers, and seldom waits.

The device is a pretended one (_pretend.py), which has to be registered with torch for
good: test_other_device.py runs this file in a process of its own.
"""

import re
import warnings
from functools import partial

import _pretend
import joblib
import numpy as np
import pytest
import torch
from _folders import STRONG
from _pretend import DEVICE, KIND, Pretend, PretendedTensor, waits
from _tiny import adamw
from _tiny_model import write_tiny_model
from _toy import make, make_regressor, topics
from safetensors.torch import load_file

from sk_adalora import AdaLoraClassifier, AdaLoraSearchCV, clear_backbone_cache
from sk_adalora.adalora import AdaLoraConfig, get_peft_model, layers
from sk_adalora.runtime import devices as _devices
from sk_adalora.tokens import batches as _batches
from sk_adalora.training import loop as _training

X, Y = topics(48)
LONG = [" ".join(X[i : i + 6]) for i in range(0, 48, 2)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """One layer only: each operation on the device goes through Python."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    return write_tiny_model(str(folder), n_layers=1)


@pytest.fixture(autouse=True)
def _device(monkeypatch):
    """A machine that has the device, and nothing left on it by another test."""
    monkeypatch.setattr(_devices, "available_devices", lambda: [str(DEVICE), "cpu"])
    monkeypatch.setattr(_batches, "_OVERLAPPING", {KIND})
    # On a real device, tensors are of torch's own class.
    monkeypatch.setattr(layers, "is_plain", lambda weight: True)
    clear_backbone_cache()
    with Pretend():
        yield


@pytest.fixture
def waits_of_steps(monkeypatch):
    """List of what each training step waited for, and whether it ended the schedule."""
    step, found = _training.train_step, []

    def watched(run, group):
        waits.clear()
        left = len(run.allocator.kept)
        result = step(run, group)
        found.append((dict(waits), len(run.allocator.kept) < left))
        return result

    monkeypatch.setattr(_training, "train_step", watched)
    return found


def assert_on_device(estimator):
    """The model that predicts is on the device, all of it."""
    network = estimator._predictor.network
    tensors = [*network.parameters(), *network.buffers()]
    assert len(tensors) > 20
    assert all(isinstance(tensor, PretendedTensor) for tensor in tensors)


# ---- the device itself ------------------------------------------------------


def test_the_device_does_not_mix_with_the_cpu():
    there = torch.ones(3).to(DEVICE)
    with pytest.raises(RuntimeError, match="aten::add: all tensors must be on one"):
        there + torch.ones(3)

    assert (there + torch.tensor(1.0)).cpu().tolist() == [2, 2, 2]


def test_the_device_has_no_double_precision():
    with pytest.raises(TypeError, match=r"have no torch\.float64"):
        torch.ones(3).double().to(DEVICE)


def test_the_device_counts_waits():
    waits.clear()
    there = torch.ones(3).to(DEVICE, non_blocking=True)
    there[1:].add_(1)
    assert not waits
    assert there.sum().item() == 5
    there.cpu()
    torch.ones(3).to(DEVICE)
    assert len(waits) == 3


def test_the_device_has_gradients():
    layer = torch.nn.Linear(3, 2).to(DEVICE)
    layer(torch.ones(4, 3, device=DEVICE)).sum().backward()

    assert layer.weight.grad.device == DEVICE
    assert layer.bias.grad.cpu().tolist() == [4, 4]


# ---- estimators -------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-5),
        ({"precision": "bfloat16"}, 1e-2),
        ({"pooling": "model"}, 1e-2),
        ({"pooling": "last"}, 1e-5),
        ({"class_weight": "balanced", "early_stopping": True, "epochs": 4}, 1e-5),
    ],
    ids=str,
)
def test_classifiers_predict_as_on_the_cpu(tiny_model, options, tolerance):
    here = make(tiny_model, **options).fit(X, Y)
    there = make(tiny_model, **options, device=str(DEVICE)).fit(X, Y)

    assert_on_device(there)
    assert there.ranks_ == here.ranks_
    there_p, here_p = there.predict_proba(X), here.predict_proba(X)
    np.testing.assert_allclose(there_p, here_p, atol=tolerance)


def test_half_precision_with_a_scaler(tiny_model, monkeypatch):
    # Torch's scaler leaves double precision out for devices that it knows by name.
    monkeypatch.setattr(_pretend, "has_double", True)
    here = make(tiny_model).fit(X, Y)
    there = make(tiny_model, precision="float16", device=str(DEVICE)).fit(X, Y)

    assert (
        next(there._predictor.network.encoder.model.parameters()).dtype == torch.float16
    )
    assert there.ranks_ == here.ranks_
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=1e-2)


def test_steps_that_a_scaler_leaves_out_are_not_warned_of(tiny_model, monkeypatch):
    """As in half precision on Apple's GPUs, where the first gradients overflow."""
    monkeypatch.setattr(_pretend, "has_double", True)
    kind, scales = torch.amp.GradScaler, []

    class Scaler(kind):
        def update(self):
            super().update()
            scales.append(self.get_scale())

    monkeypatch.setattr(torch.amp, "GradScaler", partial(Scaler, init_scale=2.0**30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = make(tiny_model, precision="float16", device=str(DEVICE)).fit(X, Y)

    assert scales[0] == 2.0**29  # the first step was left out
    assert np.isfinite(there.predict_proba(X)).all()
    assert there.history_.learning_rate[:2] == pytest.approx([0.0, 0.02])


def test_a_diverging_run_ends_after_the_epoch(tiny_model):
    """The losses are read no earlier, as reading waits for the device."""
    wild = {"learning_rate": 1e30, "warmup_ratio": 0.0}
    classifier = make(tiny_model, device=str(DEVICE), epochs=3, **wild)
    with pytest.raises(FloatingPointError, match="Got NaN or infinity in epoch 1 of 3"):
        classifier.fit(X, Y)


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ({"aten::mm", "aten::addmm"}, "^set CUBLAS_WORKSPACE_CONFIG$"),
        ({"aten::embedding"}, "^`model` must be a text model"),
    ],
)
def test_what_no_model_could_compute_is_not_the_models_fault(
    tiny_model, monkeypatch, failing, message
):
    """As with `use_deterministic_algorithms`, or on a card that torch is not for."""
    compute = _pretend._compute

    def broken(func, args, kwargs):
        leaves = _pretend._leaves(args)
        there = any(isinstance(x, PretendedTensor) for x in leaves)
        if there and func._schema.name in failing:
            raise RuntimeError("set CUBLAS_WORKSPACE_CONFIG")
        return compute(func, args, kwargs)

    monkeypatch.setattr(_pretend, "_compute", broken)
    with pytest.raises((RuntimeError, ValueError), match=message):
        make(tiny_model, device=str(DEVICE)).fit(X, Y)


def test_the_device_is_tried_in_a_precision_that_it_has(tiny_model, monkeypatch):
    """Where torch makes numbers in float64 by default, which Apple's GPUs lack."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        fitted = make(tiny_model, device="auto").fit(X, Y)
        computes = _devices.computes(DEVICE)
    finally:
        torch.set_default_dtype(before)

    assert fitted.fit_report_.device == str(DEVICE)
    assert computes


@pytest.mark.filterwarnings("ignore:100% of the texts are longer")
def test_long_texts_are_predicted_as_on_the_cpu(tiny_model):
    options = {"long_text": "windows", "max_length": 8}
    here = make(tiny_model, **options).fit(LONG, Y[::2])
    there = make(tiny_model, **options, device=str(DEVICE)).fit(LONG, Y[::2])

    np.testing.assert_allclose(
        there.predict_proba(LONG), here.predict_proba(LONG), atol=1e-5
    )


def test_regressors_predict_as_on_the_cpu(tiny_model):
    numbers = np.column_stack([np.arange(48.0), np.arange(48.0)[::-1] ** 2])
    here = make_regressor(tiny_model, **STRONG).fit(X, numbers)
    there = make_regressor(tiny_model, device=str(DEVICE), **STRONG).fit(X, numbers)

    assert_on_device(there)
    np.testing.assert_allclose(there.predict(X), here.predict(X), rtol=1e-3)


def test_what_is_saved_is_on_no_device(tiny_model, tmp_path):
    here = make(tiny_model).fit(X, Y)
    there = make(tiny_model, device=str(DEVICE)).fit(X, Y)
    expected = there.predict_proba(X)
    joblib.dump(there, tmp_path / "there.joblib")
    there.save_pretrained(tmp_path / "folder")
    loaded = joblib.load(tmp_path / "there.joblib")
    read = AdaLoraClassifier.from_pretrained(tmp_path / "folder", device="cpu")

    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
    assert_on_device(loaded)
    np.testing.assert_allclose(read.predict_proba(X), expected, atol=1e-5)
    moved = loaded.set_params(device="cpu").predict_proba(X)
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    for name, estimator in {"there": there, "here": here}.items():
        estimator.merge_and_save(tmp_path / name / "merged")
        estimator.export_lora(tmp_path / name / "lora")
    for file in ("merged/model.safetensors", "lora/adapter_model.safetensors"):
        found = load_file(tmp_path / "there" / file)
        expected = load_file(tmp_path / "here" / file)
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4)


def test_searches_fit_on_the_device(tiny_model):
    search = AdaLoraSearchCV(
        make(tiny_model, device=str(DEVICE)), n_trials=2, cv=2, random_state=0
    ).fit(X, Y)

    assert_on_device(search.best_estimator_)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# ---- the engine -------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["bert", "deberta-v2", "modernbert", "gpt2", "llama"],
)
def test_architectures_train_as_on_the_cpu(tiny_architecture, name):
    ids = torch.arange(3, 45).reshape(6, 7)
    mask = torch.ones_like(ids)
    mask[1:4, 4:] = 0
    found = []
    for device in ("cpu", DEVICE):
        config = AdaLoraConfig(init_r=4, target_r=2, total_step=9, tinit=1, tfinal=3)
        generator = torch.Generator().manual_seed(0)
        model = get_peft_model(tiny_architecture(name), config, generator=generator)
        model.to(device)
        optimizer = adamw(model)
        for step in range(9):
            inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
            hidden = model(**inputs).last_hidden_state
            loss = (hidden[mask.bool().to(device)] ** 2).mean()
            (loss + model.orthogonality_loss()).backward()
            optimizer.step()
            model.update_and_allocate(step)
            optimizer.zero_grad()
        model.compact(optimizer)
        found.append((model.ranks, hidden.detach().cpu().numpy()))

    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-4)


class Halves(torch.nn.Module):
    """Layers of one width on two devices, as `device_map` spreads a large model."""

    def __init__(self, second):
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
        self.third = torch.nn.Linear(8, 4)  # no layer of this width is on the first
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, generator=generator)
        self.second.to(second)
        self.third.to(second)

    def forward(self, x):
        hidden = self.first(x).relu().to(self.second.weight.device)
        return self.third(self.second(hidden).relu())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
def test_a_model_on_several_devices(dtype, tolerance):
    found = []
    for device in ("cpu", DEVICE):
        config = AdaLoraConfig(init_r=4, target_r=2, total_step=9, tinit=1, tfinal=3)
        generator = torch.Generator().manual_seed(0)
        model = get_peft_model(Halves(device).to(dtype), config, generator=generator)
        optimizer, x = adamw(model), torch.eye(8, dtype=dtype)
        for step in range(9):
            loss = (model(x).float() ** 2).mean()
            (loss + model.orthogonality_loss().to(loss.device)).backward()
            optimizer.step()
            model.update_and_allocate(step)
            optimizer.zero_grad()
        model.compact(optimizer)
        apart = model(x).detach().cpu().float().numpy()
        model.merge()
        merged = model(x).detach().cpu().float().numpy()
        np.testing.assert_allclose(merged, apart, rtol=tolerance, atol=tolerance)
        found.append((model.ranks, apart))

    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)


# ---- waiting ----------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"precision": "bfloat16"}, {"class_weight": "balanced"}], ids=str
)
def test_no_step_waits_for_the_device(tiny_model, waits_of_steps, options):
    y = np.where(np.arange(48) < 30, "many", "few")
    make(tiny_model, epochs=4, device=str(DEVICE), **options).fit(X, y)

    compacted = [shrunk for _, shrunk in waits_of_steps].index(True)
    assert len(waits_of_steps) == 12
    assert 1 < compacted < 11
    for step, (waited, _) in enumerate(waits_of_steps):
        # Of each padded batch, transformers asks whether it is padded.
        own = [line for line in waited if not re.search("masking_utils", line)]
        # At the start it looks for layers without gradient, and lays the ranks out; in
        # the end, compaction has to know on the host what is left.
        assert bool(own) == (step in (0, compacted)), (step, own)


def test_batches_of_a_prediction_do_not_wait_for_each_other(tiny_model, monkeypatch):
    texts = [*X, *LONG]
    fitted = make(tiny_model, device=str(DEVICE)).fit(X, Y)
    expected = fitted.predict_proba(texts)
    network, seen = fitted._predictor.network, []
    monkeypatch.setattr(_devices.Compute, "tokens_to_predict", 64)
    network.register_forward_pre_hook(lambda *_: seen.append(waits.total()))
    waits.clear()

    np.testing.assert_allclose(fitted.predict_proba(texts), expected, atol=1e-5)
    own = [line for line in waits if not re.search("masking_utils", line)]
    n_batches, n_reads = len(seen), sum(waits[line] for line in own)
    assert n_batches > 5
    assert n_reads >= n_batches
    # What transformers asks of a padded batch is all that had been waited for.
    assert seen[-1] <= waits.total() - n_reads

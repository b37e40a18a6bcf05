"""A search holds one pretrained model, however many fits it makes."""

import functools
import gc
import multiprocessing
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
import transformers
from _news import headlines
from _tiny import no_warning
from _toy import make as make_classifier
from _toy import topics
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor, clear_backbone_cache
from sk_adalora.data.texts import Texts
from sk_adalora.network.network import TextNetwork
from sk_adalora.runtime import devices as _devices
from sk_adalora.runtime.devices import Compute, resolve_compute, warn_of_sharing
from sk_adalora.tokens.table import TokenTable
from sk_adalora.training.loop import TrainingRun

FOLDS = StratifiedKFold(3)
GRID = {"target_r": [2, 3, 5, 8], "learning_rate": [1e-3, 4e-3, 8e-3]}  # 12 candidates
X, Y = topics(36)


def test_a_prediction_holds_its_outputs_once(tiny_model, monkeypatch):
    """On a GPU all batches wait for one copy; a CPU waits for nothing."""
    fitted = make_classifier(tiny_model).fit(X, Y)
    outputs, alive = [], []
    forward = TextNetwork.forward

    def watched(network, batch):
        alive.append(sum(ref() is not None for ref in outputs))
        computed = forward(network, batch)
        outputs.append(weakref.ref(computed))
        return computed

    monkeypatch.setattr(TextNetwork, "forward", watched)
    monkeypatch.setattr(Compute, "tokens_to_predict", 32)
    fitted.predict([f"{text} {i}" for i, text in enumerate(X * 3)])

    assert len(alive) > 10
    assert max(alive) <= 1


@pytest.fixture
def no_collector():
    """What Python frees without looking for circles: at once, on a GPU too."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def loads(monkeypatch, empty_cache):
    """List that gets an entry whenever weights are loaded."""
    seen = []
    load = transformers.AutoModel.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModel,
        "from_pretrained",
        lambda *args, **kwargs: seen.append(args) or load(*args, **kwargs),
    )
    return seen


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier that is quick to fit."""
    return functools.partial(make_classifier, tiny_model, epochs=1)


# One pretrained model


def test_a_search_loads_once(make, loads):
    search = GridSearchCV(make(), {"target_r": [1, 2]}, cv=3).fit(X, Y)
    search.predict(X)
    make().fit(X, Y).predict_proba(X)

    assert len(loads) == 1


def test_estimators_share_the_frozen_weights(make, empty_cache):
    first, second = make().fit(X, Y), make(random_state=1).fit(X, Y)
    one, other = (
        {
            parameter.data_ptr()
            for parameter in e._predictor.network.encoder.model.parameters()
            if parameter.data_ptr()
        }
        for e in (first, second)
    )
    backbone = first._predictor.backbone
    frozen = {parameter.data_ptr() for parameter in backbone.module.parameters()}

    assert backbone is second._predictor.backbone
    assert frozen <= one & other


def test_a_fitted_estimator_outlives_the_cache(make, loads):
    fitted = make().fit(X, Y)
    expected = fitted.predict_proba(X)
    clear_backbone_cache()

    np.testing.assert_array_equal(fitted.predict_proba(X), expected)
    assert len(loads) == 1  # it went on with the one that it held


def test_clearing_frees_the_weights(make, empty_cache, no_collector):
    """Once nobody predicts with them any more."""
    fitted = make().fit(X, Y)
    module = fitted._predictor.backbone.module
    weights = [weakref.ref(module), *map(weakref.ref, module.parameters())]
    del fitted, module
    assert all(weight() is not None for weight in weights)  # kept for the next fit

    clear_backbone_cache()

    assert all(weight() is None for weight in weights)


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_fitted_estimator_keeps_nothing_of_its_training(
    make, empty_cache, no_collector, pooling
):
    """No optimizer, no gradients, no rows: what lives is what predicts."""
    kinds = {TrainingRun, TokenTable, torch.optim.AdamW}
    before = sum(type(thing) in kinds for thing in gc.get_objects())
    fitted = make(pooling=pooling).fit(X, Y)

    assert sum(type(thing) in kinds for thing in gc.get_objects()) == before
    parameters = [*fitted._predictor.network.parameters()]
    assert not any(parameter.requires_grad for parameter in parameters)
    assert all(parameter.grad is None for parameter in parameters)


# Processes that share a GPU


CUDA = Compute(torch.device("cuda:0"), "bfloat16")
CPU = Compute(torch.device("cpu"), "float32")


@pytest.fixture
def worker(monkeypatch):
    """This process believes that it is a worker, and has said nothing yet."""
    monkeypatch.setattr(_devices, "_warned_of_sharing", False)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())


def test_workers_on_a_gpu_warn_once(worker):
    with pytest.warns(UserWarning, match=r"Each process keeps.*cuda:0 in.*n_jobs=1"):
        warn_of_sharing(CUDA)
    with no_warning():
        warn_of_sharing(CUDA)
        warn_of_sharing(CPU)  # shares the file


# Predictions


N_OUTPUTS = 200


def peak_of(predict, texts):
    """Bytes that NumPy held at most, and those of the result."""
    predict(texts[:2])  # what the first prediction imports and builds
    tracemalloc.start()
    try:
        result = predict(texts)
        return tracemalloc.get_traced_memory()[1], result.nbytes
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def many_texts():
    return [f"the film {i}" for i in range(2000)]


def test_many_numbers_a_row_are_in_memory_once(tiny_model, many_texts):
    y = np.random.default_rng(0).normal(size=(20, N_OUTPUTS))
    fitted = AdaLoraRegressor(tiny_model, epochs=1).fit(many_texts[:20], y)
    peak, of_result = peak_of(fitted.predict, many_texts)

    # The outputs of the network are of half that size.
    assert peak < 2 * of_result


def test_probabilities_of_many_labels_are_in_memory_once(make, many_texts):
    y = np.random.default_rng(0).integers(0, 2, size=(20, N_OUTPUTS))
    fitted = make().fit(many_texts[:20], y)
    peak, of_result = peak_of(fitted.predict_proba, many_texts)

    # The result is torch's memory; the outputs of the network are of half its size.
    assert peak < 0.9 * of_result
    logs = fitted.predict_log_proba(many_texts)
    exact = torch.from_numpy(fitted.decision_function(many_texts))
    at_once = torch.nn.functional.logsigmoid(exact).numpy()
    np.testing.assert_array_equal(logs, at_once)
    np.testing.assert_array_equal(fitted.predict_proba(many_texts), np.exp(at_once))


# The real model


def search(grid=GRID):
    classifier = AdaLoraClassifier(epochs=1, max_length=32, random_state=0)
    return GridSearchCV(classifier, grid, cv=FOLDS, refit=False)


def resident():
    """Memory of this process in bytes, garbage aside."""
    psutil = pytest.importorskip("psutil")
    gc.collect()
    return psutil.Process().memory_info().rss


needs_bfloat16 = pytest.mark.skipif(
    resolve_compute("cpu").precision != "bfloat16",
    reason="this processor computes bfloat16 in software: 120 predictions take minutes",
)


def test_requests_of_any_size_have_few_shapes(tiny_model, monkeypatch):
    """Kernels are compiled for each shape in bfloat16, and a service gets them all."""
    estimator = AdaLoraClassifier(
        tiny_model, epochs=1, device="cpu", precision="bfloat16", random_state=0
    ).fit(["a", "b"] * 8, [0, 1] * 8)
    shapes = set()
    forward = TextNetwork.forward

    def spied(self, batch):
        shapes.add(tuple(batch.input_ids.shape))
        return forward(self, batch)

    monkeypatch.setattr(TextNetwork, "forward", spied)
    for n_rows in range(1, 9):
        for n_words in range(1, 28, 2):
            texts = [f"{row} " + "good " * n_words for row in range(n_rows)]
            estimator.predict(texts)

    lengths = {length for _, length in shapes}
    assert len(lengths) <= 9
    assert {n for n, _ in shapes} == {1, 2, 3, 4, 6, 8}


@pytest.mark.slow
@needs_bfloat16
def test_resident_memory_of_single_rows(empty_cache):
    """Without few shapes, 120 lengths took twice the memory of the first."""
    texts, labels = headlines(60)
    estimator = AdaLoraClassifier(epochs=1, device="cpu", random_state=0)
    estimator.fit(texts, labels).predict(texts[:1])
    before = resident()

    for n_words in range(1, 240, 2):
        estimator.predict(["film " * n_words])

    assert resident() <= 1.3 * before


def on_gpu():
    """Memory of tensors on the GPU in bytes, without what cuBLAS keeps to work in."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # 32 MiB each on an H100
    return torch.cuda.memory_allocated()


@pytest.mark.slow
@pytest.mark.gpu
def test_gpu_memory_of_36_fits(loads):
    texts, labels = headlines(150)
    torch.cuda.reset_peak_memory_stats()
    fitted = AdaLoraClassifier(
        target_r=8, epochs=1, max_length=32, random_state=0, device="cuda"
    ).fit(texts, labels)
    fitted.predict(texts)
    peak, left = torch.cuda.max_memory_allocated(), on_gpu()

    search().set_params(estimator__device="cuda").fit(texts, labels)

    assert torch.cuda.max_memory_allocated() <= 1.15 * peak
    assert on_gpu() <= 1.15 * left
    assert len(loads) == 1

    del fitted
    clear_backbone_cache()
    assert on_gpu() < 0.1 * left


@pytest.mark.slow
@pytest.mark.gpu
def test_two_jobs_on_one_gpu(empty_cache):
    texts, labels = headlines(150)
    classifier = AdaLoraClassifier(epochs=1, max_length=32, random_state=0)
    grid = GridSearchCV(classifier, {"target_r": [2, 8]}, cv=2, n_jobs=2)

    assert np.isfinite(grid.fit(texts, labels).cv_results_["mean_test_score"]).all()


@pytest.mark.usefixtures("no_collector")
def test_copies_of_the_texts_are_gone_once_there_are_tokens(tiny_model, monkeypatch):
    held = []
    forward = TextNetwork.forward

    def spy(self, batch):
        held.append(
            sum(len(thing) for thing in gc.get_objects() if type(thing) is Texts)
        )
        return forward(self, batch)

    monkeypatch.setattr(TextNetwork, "forward", spy)
    make_classifier(tiny_model, epochs=1).fit(X, Y).predict(X)

    assert len(held) > 1
    assert not any(held)

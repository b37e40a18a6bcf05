"""Compression against its definition: the largest singular values of all updates."""

import copy

import joblib
import numpy as np
import pytest
from _toy import make, make_regressor, topics, toy
from sklearn.exceptions import NotFittedError

from sk_adalora import AdaLoraClassifier, AdaLoraEncoder


@pytest.fixture(scope="module")
def fitted(tiny_model):
    """A classifier of three classes: copy it before you change it."""
    return make(tiny_model, target_r=3).fit(*topics())


def updates(estimator, folder):
    """The update of each weight matrix, from the file of plain LoRA."""
    from safetensors.numpy import load_file

    estimator.export_lora(folder, overwrite=True)
    factors = load_file(folder / "adapter_model.safetensors")
    return {
        name.replace("lora_A", ""): factors[name.replace("lora_A", "lora_B")] @ value
        for name, value in factors.items()
        if "lora_A" in name
    }


@pytest.mark.parametrize("energy", [0.5, 0.95, 1.0])
def test_the_largest_singular_values_of_all_updates_stay(fitted, tmp_path, energy):
    smaller = copy.deepcopy(fitted)
    report = smaller.compress(*topics(), energy=energy)
    before = updates(fitted, tmp_path / "before")
    after = updates(smaller, tmp_path / "after")
    values = {k: np.linalg.svd(u, compute_uv=False) for k, u in before.items()}
    squares = np.sort(np.concatenate([*values.values()]))[::-1] ** 2
    shares = np.cumsum(squares) / squares.sum()
    kept = int(np.searchsorted(shares, energy - 1e-6)) + 1
    assert report.triplets_after == kept == sum(smaller.ranks_.values())
    left = sum((u**2).sum() for u in after.values())
    assert left / squares.sum() == pytest.approx(shares[kept - 1], abs=1e-4)
    for name, update in after.items():  # of each matrix the best of its rank
        rank = np.linalg.matrix_rank(update, tol=1e-6)
        error = np.linalg.norm(before[name] - update)
        best = np.sqrt((values[name][rank:] ** 2).sum())
        assert error == pytest.approx(best, abs=1e-5)


def test_the_report_tells_size_and_score(fitted, tmp_path):
    X, y = topics()
    smaller = copy.deepcopy(fitted)
    report = smaller.compress(X, y, energy=0.6)
    sizes = []
    for estimator in (fitted, smaller):
        joblib.dump(estimator, tmp_path / "file")
        sizes.append((tmp_path / "file").stat().st_size)
    saved = report.bytes_before - report.bytes_after
    assert sizes[0] - sizes[1] == pytest.approx(saved, rel=0.1)
    assert (report.score_before, report.score_after) == (
        fitted.score(X, y),
        smaller.score(X, y),
    )
    assert str(report).splitlines()[0].split() == ["before", "after"]


def test_a_compressed_estimator_is_saved_and_goes_on(fitted, tmp_path):
    X, y = topics()
    smaller = copy.deepcopy(fitted)
    assert smaller.compress(energy=0.5).score_after is None
    smaller.save_pretrained(tmp_path / "folder")
    joblib.dump(smaller, tmp_path / "file")
    for loaded in (
        AdaLoraClassifier.from_pretrained(tmp_path / "folder"),
        joblib.load(tmp_path / "file"),
    ):
        assert loaded.ranks_ == smaller.ranks_
        np.testing.assert_array_equal(loaded.predict_proba(X), smaller.predict_proba(X))
    smaller.set_params(warm_start=True).fit(X, y)
    assert sum(smaller.ranks_.values()) == sum(fitted.ranks_.values())


def test_regressors_and_encoders_shrink_too(tiny_model):
    texts, _ = toy()
    numbers = np.arange(len(texts), dtype=float)
    regressor = make_regressor(tiny_model).fit(texts, numbers)
    report = regressor.compress(texts, numbers, energy=0.5)
    assert report.triplets_after < report.triplets_before
    encoder = AdaLoraEncoder(tiny_model, random_state=0, epochs=1).fit(*toy())
    width = encoder.transform(texts).shape
    assert encoder.compress(energy=0.5).bytes_after > 0
    assert encoder.transform(texts).shape == width
    with pytest.raises(ValueError, match="has no score"):
        encoder.compress(*toy())


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {"energy": 95}, r"`energy` must be a number in \(0, 1\]. Got 95"),
        ((), {"energy": 0}, "Got 0"),
        ((["a text"],), {}, "Got `X` alone"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(fitted, arguments, options, message):
    before = dict(fitted.ranks_)
    with pytest.raises(ValueError, match=message):
        fitted.compress(*arguments, **options)
    assert fitted.ranks_ == before


def test_nothing_is_compressed_before_a_fit(tiny_model):
    with pytest.raises(NotFittedError):
        make(tiny_model).compress()
    encoder = AdaLoraEncoder(tiny_model, tune=False).fit(toy()[0])
    with pytest.raises(ValueError, match="one of rank 0"):
        encoder.compress()

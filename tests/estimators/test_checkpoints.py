"""Fits that are killed, and go on: `checkpoint_dir`."""

import json
import os
import re

import numpy as np
import pytest
from _checkpoint_worker import CASES
from _process import run_python
from _toy import make, numbers, save_each_step, toy
from optuna.distributions import CategoricalDistribution
from safetensors import safe_open
from sklearn.exceptions import FitFailedWarning

from sk_adalora import AdaLoraEncoder, AdaLoraSearchCV

SAVING = {"epochs": 3}


@pytest.fixture(autouse=True)
def each_step(monkeypatch):
    save_each_step(monkeypatch)


class Stop(Exception):
    """What ends a fit here, as an interrupt would."""


@pytest.fixture
def stop_at(monkeypatch):
    """Have fits end with an error as they begin to write a checkpoint."""

    def stop(moment):
        count = iter(range(1, 10**6))
        real = os.fsync

        def fsync(handle):
            if next(count) == moment:
                raise Stop
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    return stop


@pytest.fixture
def stopped(tiny_model, tmp_path, stop_at):
    """The folder of a fit to `toy` that ended at its third checkpoint."""
    folder = tmp_path / "checkpoints"
    stop_at(3)
    with pytest.raises(Stop):
        make(tiny_model, checkpoint_dir=folder, **SAVING).fit(*toy())
    return folder


def test_kill_9_and_the_same_numbers_in_the_end(tiny_model, tmp_path):
    worker = "import runpy; runpy.run_module('_checkpoint_worker', run_name='__main__')"
    done = run_python(worker, tiny_model, tmp_path, *CASES, OMP_NUM_THREADS="1")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [*CASES]
    for line in lines:
        found = re.fullmatch(
            r"\w+ killed=(\d+) resumed=(\d+) same=True left=\[\]", line
        )
        assert found, line
        assert int(found[1]) == int(found[2]) > 0, line


def test_a_fit_goes_on_where_it_was(tiny_model, stopped, capsys):
    X, y = toy()
    whole = make(tiny_model, **SAVING).fit(X, y)
    resumed = make(tiny_model, checkpoint_dir=stopped, verbose=1, **SAVING).fit(X, y)
    assert "going on at step 2 of 9" in capsys.readouterr().err
    for name, array in numbers(whole).items():
        np.testing.assert_array_equal(numbers(resumed)[name], array)
    assert not stopped.exists()  # it has served


@pytest.mark.parametrize(
    ("changed", "rows", "named"),
    [
        ({"learning_rate": 0.01}, 48, ["learning_rate (0.02, now 0.01)"]),
        ({"epochs": 4, "class_weight": {0: 1, 1: 2}}, 48, ["epochs", "class_weight"]),
        ({}, 44, ["X", "y"]),
        ({"random_state": 1}, 48, ["random_state (0, now 1)"]),
    ],
)
def test_another_fit_is_refused(tiny_model, stopped, changed, rows, named):
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    X, y = toy()
    other = make(tiny_model, checkpoint_dir=stopped, **{**SAVING, **changed})
    with pytest.raises(ValueError, match="which differs in: ") as raised:
        other.fit(X[:rows], y[:rows])
    listed = str(raised.value).partition("differs in: ")[2].partition(". Pass")[0]
    for name in named:
        assert name in listed
    assert before == {path: path.read_bytes() for path in stopped.iterdir()}


def test_what_changes_no_result_may_change(tiny_model, stopped):
    other = make(tiny_model, checkpoint_dir=stopped, **SAVING)
    other.set_params(device="cpu:0").fit(*toy())


def test_labels_of_other_names_are_another_fit(tiny_model, stopped):
    X, y = toy()
    with pytest.raises(ValueError, match="differs in: y"):
        make(tiny_model, checkpoint_dir=stopped, **SAVING).fit(X, y + 1)


def test_a_full_disk_is_said_once_and_the_fit_goes_on(
    tiny_model, tmp_path, monkeypatch
):
    def full(handle):
        if next(count) > 2:
            raise OSError(28, "No space left on device")

    count = iter(range(1, 1000))
    monkeypatch.setattr(os, "fsync", full)
    folder, seen = tmp_path / "checkpoints", []

    def score(estimator, X, y):  # called after each epoch
        seen.append(sorted(path.name for path in folder.iterdir()))
        return 0.0

    X, y = toy()
    saving = make(tiny_model, checkpoint_dir=folder, **SAVING)
    saving.set_params(early_stopping=True, scoring=score)
    with pytest.warns(UserWarning, match="No space left") as warned:
        saving.fit(X, y)
    assert len(warned) == 1
    assert str(folder) in str(warned[0].message)
    assert seen == [["fit.safetensors"]] * 3  # the last good one, and nothing half


def test_one_folder_is_of_one_fit_at_a_time(tiny_model, tmp_path):
    X, y = toy()

    def score(estimator, X_val, y_val):
        with pytest.raises(FileExistsError, match="one fit at a time"):
            make(tiny_model, checkpoint_dir=tmp_path).fit(X, y)
        return 1.0

    fitted = make(tiny_model, checkpoint_dir=tmp_path, early_stopping=True)
    assert fitted.set_params(scoring=score).fit(X, y).history_.score


def test_bad_input_leaves_no_folder(tiny_model, tmp_path):
    folder = tmp_path / "new" / "checkpoints"
    with pytest.raises(ValueError, match="y"):
        make(tiny_model, checkpoint_dir=folder).fit(["a", "b"], [0])
    assert not folder.exists()


def test_a_file_in_place_of_the_folder(tiny_model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="must be a folder"):
        make(tiny_model, checkpoint_dir=tmp_path / "file").fit(*toy())
    assert (tmp_path / "file").read_text() == "mine"


def test_the_folds_of_an_encoder_that_are_done_are_not_fitted_again(
    tiny_model, tmp_path, stop_at
):
    X, y = toy()
    settings = {"cv": 2, "target_r": 2, "epochs": 1, "random_state": 0}
    encoder = AdaLoraEncoder(tiny_model, **settings, checkpoint_dir=tmp_path / "a")
    stop_at(4)  # the whole writes two steps, each fold one
    with pytest.raises(Stop):
        encoder.fit_transform(X, y)
    names = sorted(path.name for path in (tmp_path / "a").glob("*.safetensors"))
    assert names == ["fit.safetensors", "fold-0.safetensors"]
    with safe_open(tmp_path / "a" / names[0], "pt") as file:
        assert json.loads(file.metadata()["fit"])["step"] == 2
    whole = AdaLoraEncoder(tiny_model, **settings).fit_transform(X, y)
    np.testing.assert_array_equal(encoder.fit_transform(X, y), whole)


def test_a_search_that_was_killed_goes_on_within_a_fold(
    tiny_model, tmp_path, monkeypatch, capsys
):
    X, y = toy()
    folder, real = tmp_path / "checkpoints", os.fsync
    classifier = make(tiny_model, checkpoint_dir=folder, verbose=1, **SAVING)

    def fit():
        return AdaLoraSearchCV(
            classifier,
            {"lora_dropout": CategoricalDistribution([0.0, 0.1])},
            n_trials=2,
            cv=2,
            pruner=None,
            storage=f"sqlite:///{tmp_path / 'study.db'}",
            study_name="study",
            random_state=0,
        ).fit(X, y)

    def interrupt(handle):
        if sum(1 for _ in folder.glob("*/fit.safetensors")) == 1:  # the first has one
            raise KeyboardInterrupt
        real(handle)

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit()
    monkeypatch.setattr(os, "fsync", real)
    assert len([*folder.iterdir()]) == 1
    assert sum(trial.value is not None for trial in fit().trials_) == 2
    assert capsys.readouterr().err.count("going on at step") == 1
    assert not any(folder.glob("*"))


def test_a_fold_that_fails_in_a_search_leaves_no_checkpoint(
    tiny_model, tmp_path, monkeypatch
):
    def fail(handle):
        if next(count) == 3:
            raise ValueError("the fit fails here")
        real(handle)

    count, real = iter(range(1, 1000)), os.fsync
    monkeypatch.setattr(os, "fsync", fail)
    folder = tmp_path / "checkpoints"
    search = AdaLoraSearchCV(
        make(tiny_model, checkpoint_dir=folder, **SAVING),
        {"lora_dropout": CategoricalDistribution([0.0, 0.1])},
        n_trials=1,
        cv=2,
        error_score=0.0,
        random_state=0,
    )
    with pytest.warns(FitFailedWarning, match="the fit fails here"):
        search.fit(*toy())
    assert not any(folder.glob("*"))

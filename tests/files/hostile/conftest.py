"""Folders to break."""

import shutil

import numpy as np
import pytest
from _hostile import X, Y
from _toy import QUICK, make, make_regressor

from sk_adalora import AdaLoraEncoder


@pytest.fixture(scope="module")
def own_head(tiny_model, tmp_path_factory):
    """The folder of a model with its own head. Do not write into it."""
    folder = tmp_path_factory.mktemp("saved") / "own-head"
    make(tiny_model, pooling="model").fit(X, Y).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def regressor(tiny_model, tmp_path_factory):
    """The folder of a regressor. Do not write into it."""
    folder = tmp_path_factory.mktemp("saved") / "regressor"
    make_regressor(tiny_model).fit(X, np.arange(48.0)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tiny_model, tmp_path_factory):
    """The folder of an encoder. Do not write into it."""
    folder = tmp_path_factory.mktemp("saved") / "encoder"
    AdaLoraEncoder(tiny_model, n_components=3, **QUICK).fit(X, Y).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A folder that the test may break."""
    return shutil.copytree(saved, tmp_path / "f")

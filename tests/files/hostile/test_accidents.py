"""Folders that were cut off or rearranged: a clear error each."""

import os

import numpy as np
import pytest
from _hostile import CHECKED, HEAD, STATE, X, assert_refused

from sk_adalora import AdaLoraClassifier


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("share", [0, 0.01, 0.6, 0.99])
def test_a_file_that_was_cut_is_refused(folder, name, share):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * share)])

    assert_refused(folder)


@pytest.mark.parametrize("name", CHECKED)
def test_a_file_that_is_none(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        AdaLoraClassifier.from_pretrained(folder)

    (folder / name).mkdir()
    assert_refused(folder)


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("target", ["outside", "/dev/zero", "../f.json"])
def test_a_link_out_of_the_folder(folder, name, target):
    (folder.parent / "outside").write_bytes((folder / name).read_bytes())
    (folder / name).unlink()
    target = folder.parent / "outside" if target == "outside" else target
    (folder / name).symlink_to(target)

    assert_refused(folder, match="which links to a place outside")


def test_a_folder_that_is_a_link_out(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "backbone").symlink_to(tmp_path / "elsewhere")

    assert_refused(folder, match="which links to a place outside")


def test_a_folder_that_is_none_of_ours_has_links_of_its_own(tmp_path):
    (tmp_path / "python").symlink_to("/usr/bin/python3")

    with pytest.raises(FileNotFoundError, match=r"must hold sk_adalora\.json"):
        AdaLoraClassifier.from_pretrained(tmp_path)


def test_a_link_to_itself(folder):
    (folder / HEAD).unlink()
    (folder / HEAD).symlink_to(HEAD)

    assert_refused(folder)


def test_links_inside_the_folder_are_followed(folder, fitted):
    (folder / HEAD).rename(folder / "blob")
    (folder / HEAD).symlink_to("blob")

    loaded = AdaLoraClassifier.from_pretrained(folder)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_a_file(folder):
    (folder / STATE).unlink()
    os.mkfifo(folder / STATE)
    with pytest.raises(FileNotFoundError, match=r"must hold sk_adalora\.json"):
        AdaLoraClassifier.from_pretrained(folder)

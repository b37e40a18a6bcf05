"""Folders cut off, changed or rearranged, and not sealed again: a clear error each."""

import copy
import json
import os
import re
import shutil

import numpy as np
import pytest
from _folders import strengthen
from _hostile import CHECKED, CLEAR, HEAD, STATE, X, assert_refused

from sk_adalora import AdaLoraClassifier
from sk_adalora.files import read as _read_folder


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.99, "one byte less", "more"])
def test_a_file_that_was_cut_or_grew_is_refused(folder, name, share):
    data = (folder / name).read_bytes()
    cut = {"one byte less": data[:-2], "more": data + b"\0"}.get(share)
    (folder / name).write_bytes(data[: int(len(data) * share)] if cut is None else cut)

    assert_refused(folder)


@pytest.mark.parametrize("name", CHECKED)
def test_each_flipped_bit_is_noticed(fitted, folder, name):
    """Or it changes nothing, such as one blank for another."""
    data = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    # All of the header, and a sample of the rest.
    places = {*range(0, 64, 3), *rng.integers(len(data), size=60)}
    for place in sorted(places):
        broken = bytearray(data)
        broken[place] ^= 1 << rng.integers(8)
        (folder / name).write_bytes(broken)
        try:
            loaded = AdaLoraClassifier.from_pretrained(folder)
        except CLEAR:
            continue
        assert name == STATE, (place, bytes(broken[place - 5 : place + 5]))
        assert json.loads(broken) == json.loads(data)
        assert loaded.get_params() == fitted.get_params()


@pytest.mark.parametrize("name", [*CHECKED, "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()

    with pytest.raises(FileNotFoundError, match=re.escape(name)):
        AdaLoraClassifier.from_pretrained(folder)
    assert_refused(folder)


@pytest.mark.parametrize("name", CHECKED)
def test_a_folder_in_place_of_a_file(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()

    assert_refused(folder)


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("target", ["outside", "/etc/passwd", "/dev/zero", "../f.json"])
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


def test_a_file_that_is_replaced_while_it_is_read(
    folder, fitted, monkeypatch, tmp_path
):
    """As by a copy. Numbers of two trainings would make a third."""
    read = _read_folder.read_fitted
    strengthen(copy.copy(fitted), 2).save_pretrained(tmp_path / "other")

    def meanwhile(*args):
        shutil.copyfile(tmp_path / "other" / HEAD, folder / HEAD)
        return read(*args)

    monkeypatch.setattr(_read_folder, "read_fitted", meanwhile)
    with pytest.raises(ValueError, match=r"replaced just now: load it again\."):
        AdaLoraClassifier.from_pretrained(folder)


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

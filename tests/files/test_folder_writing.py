"""Folders of fitted estimators are written whole, or not at all."""

import copy
import errno
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from _folders import (
    assert_equal_estimators,
    bytes_of,
    read,
    strengthen,
    there_and_back,
)
from _toy import make, topics

from sk_adalora import AdaLoraClassifier
from sk_adalora.adalora import AdaLoraConfig, json_file
from sk_adalora.estimators import folder as _folder
from sk_adalora.files import swap as _whole_folder
from sk_adalora.files import write as _write_folder
from sk_adalora.files.card import OUR_MARK

X, Y = topics(48)
SAMPLE = X[:9]


# ---- existing folders -------------------------------------------------------

WRITERS = ["save_pretrained", "export_lora", "merge_and_save"]


@pytest.mark.parametrize("method", WRITERS)
@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_an_existing_folder_is_kept(tiny_model, tmp_path, method, pooling):
    fitted = make(tiny_model, pooling=pooling).fit(X, Y)
    write = getattr(fitted, method)
    write(tmp_path / "f")
    (tmp_path / "f" / "stale").write_text("old")
    before = bytes_of(tmp_path / "f")
    with pytest.raises(FileExistsError, match=r"which is not\. Pass overwrite=True"):
        write(tmp_path / "f")
    assert bytes_of(tmp_path / "f") == before

    write(tmp_path / "f", overwrite=True)
    assert set(bytes_of(tmp_path / "f")) == set(before) - {"stale"}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_an_estimator_whose_card_was_rewritten_is_replaced(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "f")
    (tmp_path / "f" / "README.md").write_text("# Our tagger")

    fitted.save_pretrained(tmp_path / "f", overwrite=True)
    assert "# Our tagger" not in (tmp_path / "f" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("method", WRITERS)
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_foreign_folder_is_never_replaced(fitted, tmp_path, method, overwrite):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "thesis.tex").write_text("years of work")
    card = f"# Ma thèse\n\n\n\nIt is not of\n{OUR_MARK}\n".encode("latin-1")
    (tmp_path / "f" / "README.md").write_bytes(card)
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path / "f")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("f", "file", "link", "dangling", "loop"):
        why = "did not write it" if name in ("f", "file") else "It is a link"
        match = f"`folder` must be new or empty.*{why}"
        with pytest.raises(FileExistsError, match=match):
            getattr(fitted, method)(tmp_path / name, overwrite=overwrite)

    assert (tmp_path / "f" / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "a file"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "dangling",
        "f",
        "file",
        "link",
        "loop",
    ]


@pytest.mark.parametrize("inside", ["mine", "mine/new", ".f-notes/old", "README.md"])
def test_a_foreign_folder_of_folders_is_never_replaced(fitted, tmp_path, inside):
    (tmp_path / "f" / inside).mkdir(parents=True)
    with pytest.raises(FileExistsError, match="did not write it"):
        fitted.save_pretrained(tmp_path / "f", overwrite=True)

    assert [p for p in (tmp_path / "f").rglob("*") if p.is_file()] == []


def test_a_card_that_cannot_be_read_is_the_error(fitted, tmp_path, monkeypatch):
    fitted.export_lora(tmp_path / "f")
    before = bytes_of(tmp_path)

    def read_text(path, **options):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", read_text)
        with pytest.raises(OSError, match="Too many open files"):
            fitted.export_lora(tmp_path / "f", overwrite=True)
    assert bytes_of(tmp_path) == before


def test_a_pretrained_model_is_never_replaced(fitted, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    with pytest.raises(FileExistsError, match="sk-adalora did not write it"):
        fitted.merge_and_save(model, overwrite=True)

    assert bytes_of(model) == bytes_of(tiny_model)


def test_an_empty_folder_and_new_parents(fitted, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    fitted.save_pretrained(tmp_path / "empty")
    fitted.save_pretrained(tmp_path / "new" / "parents" / "f")
    monkeypatch.chdir(tmp_path)
    fitted.save_pretrained("relative")
    fitted.save_pretrained("with slash/")

    for place in ("empty", "new/parents/f", "relative", "with slash"):
        assert AdaLoraClassifier.from_pretrained(tmp_path / place).ranks_


def test_a_folder_that_was_made_in_advance_stays_the_same_one(fitted, tmp_path):
    """As a program wants it that watches the folder."""
    (tmp_path / "f").mkdir()
    before = (tmp_path / "f").stat().st_ino
    fitted.save_pretrained(tmp_path / "f")

    assert (tmp_path / "f").stat().st_ino == before
    assert not [*(tmp_path / "f").glob(".*")]


def test_a_relative_path_is_of_the_folder_where_the_writing_began(
    fitted, tmp_path, monkeypatch
):
    """Another thread may go elsewhere meanwhile."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    write = _folder.write_text

    def meanwhile(path, text):
        os.chdir(tmp_path / "elsewhere")
        write(path, text)

    monkeypatch.setattr(_folder, "write_text", meanwhile)
    fitted.save_pretrained("f")

    assert not any(Path.cwd().iterdir())
    assert AdaLoraClassifier.from_pretrained(tmp_path / "f").ranks_


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory that is not the current one."""
    (tmp_path / "home").mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


@pytest.mark.parametrize("kind", [str, Path])
def test_the_home_directory_is_written_to_and_read_from(fitted, home, kind):
    for method in ("save_pretrained", "merge_and_save", "export_lora"):
        getattr(fitted, method)(kind(f"~/new/{method}"))
    loaded = AdaLoraClassifier.from_pretrained(kind("~/new/save_pretrained"))

    assert_equal_estimators(loaded, fitted)
    assert len([*(home / "new").iterdir()]) == 3
    assert not any(Path.cwd().iterdir())
    with pytest.raises(FileExistsError, match=re.escape(str(home))):
        fitted.save_pretrained(kind("~/new/save_pretrained"))


def test_a_model_in_the_home_directory_is_kept_as_given(
    tiny_model, home, tmp_path, monkeypatch
):
    model = shutil.copytree(tiny_model, home / "m")
    fitted = make("~/m", epochs=1).fit(X, Y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert fitted.get_params()["model"] == loaded.get_params()["model"] == "~/m"
    described = read(tmp_path / "f")
    assert described["parameters"]["model"] == described["model"] == "~/m"
    assert described["found_in"] == str(model.resolve())
    assert (loaded.predict_proba(SAMPLE) == fitted.predict_proba(SAMPLE)).all()
    for method in ("merge_and_save", "export_lora"):
        with pytest.raises(ValueError, match="the pretrained model lies in"):
            getattr(fitted, method)("~/m", overwrite=True)
    moved = shutil.move(model, home.parent / "m")  # somebody else's home
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(Path(moved).parent))
    again = AdaLoraClassifier.from_pretrained(tmp_path / "f")
    assert (again.predict_proba(SAMPLE) == fitted.predict_proba(SAMPLE)).all()


def test_the_model_is_found_in_a_folder_of_another_spelling(tmp_path, monkeypatch):
    """As on macOS, where "Mine" is "mine", and resolving a path changes no letter."""
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "Mine").symlink_to(tmp_path / "mine", target_is_directory=True)
    monkeypatch.setattr(Path, "resolve", lambda self: self)

    assert _folder.lies_in(tmp_path / "mine" / "deep", tmp_path / "Mine")
    assert not _folder.lies_in(tmp_path / "mine", tmp_path / "mine" / "deep")
    assert not _folder.lies_in(tmp_path / "mine", tmp_path / "absent")


# ---- nothing half-written ---------------------------------------------------

FULL = OSError(errno.ENOSPC, "No space left on device")
# Where writing may fail: (object, name).
STEPS = {
    "adapter": (_folder, "write_adapter"),
    "head": (_folder, "save_file"),
    "backbone": (_write_folder, "copy_backbone"),
    "card": (_folder, "write_card"),
    "text": (_folder, "write_text"),
    "hashes": (_folder._folder_files, "digests"),
    "state": (_folder, "readable"),
    "last rename": (_folder.Path, "rename"),
}


def fail(*args, **kwargs):
    raise FULL


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk(fitted, saved, tmp_path, monkeypatch, step, there):
    folder = tmp_path / "f"
    if there:
        shutil.copytree(saved, folder)
    monkeypatch.setattr(*STEPS[step], fail)
    with pytest.raises(OSError, match="No space left on device"):
        fitted.save_pretrained(folder, overwrite=True, include_backbone=True)

    assert [p.name for p in tmp_path.iterdir()] == (["f"] if there else [])
    if there:
        assert bytes_of(folder) == bytes_of(saved)


def test_a_training_that_is_too_long_to_be_read(fitted, tmp_path, monkeypatch):
    """About a million steps: a folder that cannot be loaded would lose the model."""
    fitted.save_pretrained(tmp_path / "f")
    length = (tmp_path / "f" / "sk_adalora.json").stat().st_size
    monkeypatch.setattr(json_file, "MAX_BYTES", length)
    monkeypatch.setattr(_write_folder, "MAX_BYTES", length)
    fitted.save_pretrained(tmp_path / "f", overwrite=True)
    AdaLoraClassifier.from_pretrained(tmp_path / "f")

    monkeypatch.setattr(_write_folder, "MAX_BYTES", length - 1)
    with pytest.raises(ValueError, match=r"a history of \d+ steps\. Save with joblib"):
        fitted.save_pretrained(tmp_path / "g")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_failure_between_the_two_renames(fitted, saved, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(saved, tmp_path / "f"))
    rename = Path.rename

    def sometimes(self, target):
        if self.name == "new":
            raise FULL
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", sometimes)
    with pytest.raises(OSError, match="No space"):
        fitted.save_pretrained(folder, overwrite=True)

    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert bytes_of(folder) == bytes_of(saved)


def test_an_interruption_as_soon_as_the_hidden_folder_is_made(
    fitted, saved, tmp_path, monkeypatch
):
    folder = Path(shutil.copytree(saved, tmp_path / "f"))
    make_folder = Path.mkdir

    def interrupted(self, *args, **kwargs):
        make_folder(self, *args, **kwargs)
        if self.name.startswith(".f-"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted.save_pretrained(folder, overwrite=True)

    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert bytes_of(folder) == bytes_of(saved)


def test_an_interruption_while_the_hidden_folder_is_deleted(
    fitted, saved, tmp_path, monkeypatch
):
    folder = Path(shutil.copytree(saved, tmp_path / "f"))
    delete, calls = shutil.rmtree, []

    def interrupted(path, *args, **kwargs):
        if Path(path).parent == tmp_path:
            calls.append(path)
            if len(calls) == 1:
                raise KeyboardInterrupt
        delete(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted.save_pretrained(folder, overwrite=True)

    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert bytes_of(folder) == bytes_of(saved)


def test_the_old_folder_outlives_any_failure(fitted, saved, tmp_path, monkeypatch):
    """When it cannot even be moved back, it is left where it is."""
    folder = Path(shutil.copytree(saved, tmp_path / "f"))
    rename = Path.rename

    def only_away(self, target):
        if self.name != "f":
            raise FULL
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", only_away)
    with pytest.raises(OSError, match="No space"):
        fitted.save_pretrained(folder, overwrite=True)

    (left,) = tmp_path.rglob("old")
    assert bytes_of(left) == bytes_of(saved)


@pytest.mark.parametrize("method", ["export_lora", "merge_and_save"])
@pytest.mark.parametrize("step", ["write_text", "write_export_card"])
def test_an_export_onto_a_full_disk(fitted, tmp_path, monkeypatch, method, step):
    monkeypatch.setattr(_folder, step, fail)
    with pytest.raises(OSError, match="No space left on device"):
        getattr(fitted, method)(tmp_path / "f")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", ["nothing", "an empty folder"])
@pytest.mark.parametrize("method", ["save_pretrained", "merge_and_save"])
def test_what_appears_while_it_is_written_is_kept(
    fitted, tmp_path, monkeypatch, before, method
):
    """Another program may take the same place."""
    folder = tmp_path / "f"
    if before == "an empty folder":
        folder.mkdir()
    write = _folder.write_text

    def meanwhile(path, text):
        folder.mkdir(exist_ok=True)
        (folder / "thesis.txt").write_text("mine")
        write(path, text)

    monkeypatch.setattr(_folder, "write_text", meanwhile)
    with pytest.raises(FileExistsError, match=r"must be new or empty.*choose another"):
        getattr(fitted, method)(folder)

    assert [path.name for path in tmp_path.rglob("*")] == ["f", "thesis.txt"]


def test_a_folder_in_a_closed_one_is_refilled(fitted, tmp_path, monkeypatch):
    """As the one that a service may write to."""
    closed, folder = tmp_path / "closed", tmp_path / "closed" / "f"
    folder.mkdir(parents=True)
    make_folder, access = Path.mkdir, os.access

    def refuse(self, *args, **kwargs):  # as for those who are not root
        if self.parent == closed and not self.exists():
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        make_folder(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(os, "access", lambda p, m: p != closed and access(p, m))
    closed.chmod(0o500)
    try:
        for _ in range(2):
            fitted.save_pretrained(folder, overwrite=True)
    finally:
        closed.chmod(0o700)

    assert [*closed.iterdir()] == [folder]
    assert not [*folder.glob(".*")]
    loaded = AdaLoraClassifier.from_pretrained(folder)
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_a_refused_folder(fitted, tmp_path, monkeypatch):
    make_folder = Path.mkdir

    def refuse(self, *args, **kwargs):
        if self.name.startswith(".f-"):
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))
        make_folder(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        fitted.save_pretrained(tmp_path / "f")

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_goes_meanwhile_stops_a_refill_as_a_whole(
    fitted, tmp_path, monkeypatch
):
    folder = tmp_path / "f"
    fitted.save_pretrained(folder)
    names = {path.name for path in folder.iterdir()}
    monkeypatch.setattr(_whole_folder, "_must_stay", lambda folder: True)
    rename, moved = Path.rename, []

    def vanish(self, target):
        moved.append(self)
        if len(moved) == 3:
            self.unlink()
        rename(self, target)

    monkeypatch.setattr(Path, "rename", vanish)
    with pytest.raises(FileNotFoundError):
        fitted.save_pretrained(folder, overwrite=True)

    assert {path.name for path in folder.iterdir()} == names - {moved[2].name}


def test_a_folder_that_goes_meanwhile(fitted, tmp_path, monkeypatch):
    """Another writer may have moved it away."""
    folder = tmp_path / "f"
    fitted.save_pretrained(folder)
    rename = Path.rename

    def vanish(self, target):
        if self == folder:
            shutil.rmtree(folder)
        rename(self, target)

    monkeypatch.setattr(Path, "rename", vanish)
    with pytest.raises(FileExistsError, match=r"written\. Save again") as caught:
        fitted.save_pretrained(folder, overwrite=True)
    assert str(caught.value.__cause__).endswith("old'")  # of moving it, not back


def test_a_folder_that_goes_while_it_is_looked_at(tmp_path, monkeypatch):
    """Another writer has just moved it."""
    folder, exists = tmp_path / "f", Path.exists
    folder.mkdir()

    def vanish(self, **options):
        there = exists(self, **options)
        if self == folder and there:
            folder.rmdir()
        return there

    monkeypatch.setattr(Path, "exists", vanish)
    with _whole_folder.written_whole(folder, overwrite=True) as staged:
        (staged / "file").write_text("new")

    assert (folder / "file").read_text() == "new"


def test_old_files_that_cannot_be_deleted_are_in_nobodys_way(
    fitted, fixed, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(_whole_folder.shutil, "rmtree", lambda *args, **options: None)
        fitted.save_pretrained(fixed, overwrite=True)
    assert [*fixed.rglob("old/head.safetensors")]
    fitted.save_pretrained(fixed, overwrite=True)

    assert AdaLoraClassifier.from_pretrained(fixed).ranks_


def test_old_files_that_cannot_be_moved_again_are_deleted(fitted, fixed, monkeypatch):
    """As on Windows, where a program has one of them open."""
    rename = Path.rename

    def refuse(self, target):
        if self.name == "old":
            raise PermissionError(errno.EACCES, "Access is denied", str(self))
        rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    fitted.save_pretrained(fixed, overwrite=True)

    assert not [*fixed.glob(".*")]
    assert AdaLoraClassifier.from_pretrained(fixed).ranks_


def rename_and_interrupt(n_moves):
    """Return what stands for `Path.rename`, and raises after so many moves."""
    rename, moves = Path.rename, []

    def renamed(self, target):
        rename(self, target)
        moves.append(target)
        if len(moves) == n_moves:
            raise KeyboardInterrupt

    return renamed


@pytest.mark.parametrize("refilled", [False, True])
def test_an_interrupt_just_after_a_move_loses_nothing(
    fitted, tmp_path, monkeypatch, refilled
):
    """Python raises it when the file system has done its work."""
    folder = tmp_path / "f"
    fitted.save_pretrained(folder)
    if refilled:  # and moved back, link by link
        (folder / "dangling").symlink_to("nowhere")
    expected, names = fitted.predict(X), sorted(p.name for p in folder.iterdir())
    monkeypatch.setattr(_whole_folder, "_must_stay", lambda folder: refilled)
    for n_moves in range(1, 2 * len(names) if refilled else 3):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename_and_interrupt(n_moves))
            with pytest.raises(KeyboardInterrupt):
                fitted.save_pretrained(folder, overwrite=True)
        loaded = AdaLoraClassifier.from_pretrained(folder)
        np.testing.assert_array_equal(loaded.predict(X), expected)
        assert sorted(p.name for p in folder.iterdir()) == names

    assert [*tmp_path.iterdir()] == [folder]


@pytest.fixture
def usual_umask():
    """Others may read new files, and only the owner writes them."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.skipif(sys.platform != "linux", reason="folders inherit the bit there")
def test_what_is_written_beside_a_folder_of_a_group_is_the_groups(
    fitted, tmp_path, monkeypatch, usual_umask
):
    """New files get the group of their folder where it has the bit for that."""
    tmp_path.chmod(0o2755)
    fitted.save_pretrained(tmp_path / "f")
    write, modes = _folder.write_text, set()

    def noted(path, text):
        modes.update(parent.stat().st_mode & 0o7777 for parent in path.parents[:2])
        write(path, text)

    monkeypatch.setattr(_folder, "write_text", noted)
    (tmp_path / "f").chmod(0o750)
    fitted.save_pretrained(tmp_path / "f", overwrite=True)

    assert all(mode & 0o2000 for mode in modes), modes
    assert min(modes) == 0o2750


@pytest.mark.parametrize("empty", [True, False])
def test_a_file_of_another_writer_stops_a_refill_as_a_whole(
    fitted, tmp_path, monkeypatch, empty
):
    """On Windows, no file is moved onto another one."""
    folder, name = tmp_path / "f", "sk_adalora.json"
    folder.mkdir()
    if not empty:
        fitted.save_pretrained(folder)
    names = {path.name for path in folder.iterdir()} | {name}
    monkeypatch.setattr(_whole_folder, "_must_stay", lambda folder: True)
    rename = Path.rename

    def refuse(self, target):
        if target == folder / name and self.parent.name == "new":
            target.write_text("other")
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "File exists", str(target))
        rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(FileExistsError, match=rf"f\W+{name}"):
        fitted.save_pretrained(folder, overwrite=True)

    assert (folder / name).read_text() == "other"
    assert {path.name for path in folder.glob("[!.]*")} == names
    (kept,) = [None] if empty else folder.glob(".f-*/old/*")
    assert empty or kept.name == name  # whoever finds it can put it back


def test_what_replaces_a_closed_folder_is_closed_meanwhile(
    fitted, tmp_path, monkeypatch
):
    folder = tmp_path / "f"
    fitted.save_pretrained(folder)
    folder.chmod(0o700)
    write, modes = _folder.write_text, []

    def noted(path, text):
        modes.append(path.parents[1].stat().st_mode & 0o777)
        write(path, text)

    monkeypatch.setattr(_folder, "write_text", noted)
    fitted.save_pretrained(folder, overwrite=True)

    assert set(modes) == {folder.stat().st_mode & 0o777}


def test_no_folder_is_closed_to_other_users_of_windows(fitted, tmp_path, monkeypatch):
    """Mode 0o700 is heard there, and goes with the files wherever they are moved."""
    make_folder, modes = os.mkdir, {}

    def noted(path, mode=0o777, **options):
        modes[str(path)] = mode
        make_folder(path, mode, **options)

    monkeypatch.setattr(os, "mkdir", noted)
    fitted.save_pretrained(tmp_path / "f")

    assert len(modes) > 2
    assert 0o700 not in modes.values(), modes


def test_a_file_system_without_permissions(fitted, tmp_path, monkeypatch):
    """As FAT, where the mode of a file cannot be changed."""

    def refuse(self, mode):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "chmod", refuse)
    for _ in range(2):
        fitted.save_pretrained(tmp_path / "f", overwrite=True)

    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "f")
    assert_equal_estimators(loaded, fitted)


@pytest.fixture
def text_mode_of_windows(monkeypatch):
    """Files that are written as text get its line ends, unless others are asked for."""
    write, opened = Path.write_text, open

    def write_text(path, text, *given, newline=None, **named):
        return write(path, text, *given, newline=newline or "\r\n", **named)

    def open_file(file, mode="r", *given, newline=None, **named):
        if "w" in mode and "b" not in mode:
            newline = newline or "\r\n"
        return opened(file, mode, *given, newline=newline, **named)

    monkeypatch.setattr(os, "linesep", "\r\n")
    monkeypatch.setattr(Path, "write_text", write_text)
    monkeypatch.setattr("builtins.open", open_file)


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_files_are_the_same_on_every_system(tiny_model, tmp_path, request, pooling):
    fitted = make(tiny_model, pooling=pooling).fit(X, Y)
    fitted.save_pretrained(tmp_path / "here")
    request.getfixturevalue("text_mode_of_windows")
    fitted.save_pretrained(tmp_path / "there")
    (tmp_path / "plain.txt").write_text("\n")

    assert (tmp_path / "plain.txt").read_bytes() == b"\r\n"
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")


def test_texts_of_other_writers_are_the_same_on_every_system(
    fitted, tmp_path, text_mode_of_windows
):
    config = AdaLoraConfig.from_dict(fitted._adapter.config)
    config.save_pretrained(tmp_path / "config")
    fitted.export_lora(tmp_path / "lora")

    for folder in ("config", "lora"):
        texts = bytes_of(tmp_path / folder)
        assert b"\r" not in texts["adapter_config.json"]


# ---- several writers --------------------------------------------------------


@pytest.fixture
def fixed(fitted, tmp_path, monkeypatch):
    """A folder that is refilled, with a saved estimator in it."""
    fitted.save_pretrained(tmp_path / "volume")
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    return tmp_path / "volume"


def test_another_writer_of_the_same_mounted_folder_is_left_alone(
    fitted, fixed, monkeypatch
):
    """It saves whole, between two files of ours."""
    other = AdaLoraClassifier.from_pretrained(fixed)
    save_tokenizer = _folder.save_tokenizer

    def meanwhile(*args):
        monkeypatch.setattr(_folder, "save_tokenizer", save_tokenizer)
        other.save_pretrained(fixed, overwrite=True)
        save_tokenizer(*args)

    monkeypatch.setattr(_folder, "save_tokenizer", meanwhile)
    fitted.save_pretrained(fixed, overwrite=True)

    assert not [*fixed.glob(".*")]
    loaded = AdaLoraClassifier.from_pretrained(fixed)
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_a_writer_that_begins_to_move_files_at_the_same_time(
    fitted, fixed, monkeypatch
):
    make_folder, left = Path.mkdir, []

    def meanwhile(self, *args, **kwargs):
        make_folder(self, *args, **kwargs)
        if self.name == "old":
            monkeypatch.setattr(Path, "mkdir", make_folder)
            left.append(leave(fixed, "old"))

    before = bytes_of(fixed)
    monkeypatch.setattr(Path, "mkdir", meanwhile)
    with pytest.raises(FileExistsError, match="by two at the same time"):
        fitted.save_pretrained(fixed, overwrite=True)

    assert [*fixed.glob(".*")] == left
    shutil.rmtree(left[0])
    assert bytes_of(fixed) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_writer_that_was_killed_while_it_moved_files(fitted, fixed, overwrite):
    """What it has moved away may be all that is left of it."""
    left = leave(fixed, "new", "old")
    (fixed / "head.safetensors").rename(left / "old" / "head.safetensors")
    before = bytes_of(fixed)
    match = r"by two at the same time.*volume-0{15}.\W+old'.*move back the files"
    with pytest.raises(FileExistsError, match=match):
        fitted.save_pretrained(fixed, overwrite=overwrite)
    assert bytes_of(fixed) == before

    shutil.rmtree(left)
    fitted.save_pretrained(fixed, overwrite=True)
    assert AdaLoraClassifier.from_pretrained(fixed).ranks_


@pytest.mark.parametrize("there", [False, True])
def test_what_is_saved_just_before_the_files_are_moved_is_kept(
    fitted, tmp_path, monkeypatch, there
):
    """Unless it may be overwritten."""
    folder = tmp_path / "f"
    if there:
        folder.mkdir()
    other = strengthen(copy.copy(fitted), 2)
    write = _folder.write_text

    def meanwhile(path, text):
        monkeypatch.setattr(_folder, "write_text", write)
        other.save_pretrained(folder)
        write(path, text)

    monkeypatch.setattr(_folder, "write_text", meanwhile)
    with pytest.raises(FileExistsError, match="Pass overwrite=True"):
        fitted.save_pretrained(folder)

    assert not [*tmp_path.rglob(".*")]
    loaded = AdaLoraClassifier.from_pretrained(folder)
    np.testing.assert_array_equal(loaded.predict_proba(X), other.predict_proba(X))


def test_an_incomplete_folder_is_not_sealed(fitted, saved, tmp_path, monkeypatch):
    """As when another program deletes the hidden folder, which is then made anew."""
    folder = Path(shutil.copytree(saved, tmp_path / "f"))
    save_tokenizer = _folder.save_tokenizer

    def deleted(tokenizer, staged, row_format):
        shutil.rmtree(staged.parent)
        save_tokenizer(tokenizer, staged, row_format)

    monkeypatch.setattr(_folder, "save_tokenizer", deleted)
    match = r"must hold \['adapter_config\.json', .*'head.*deleted .*: save again"
    with pytest.raises(OSError, match=match):
        fitted.save_pretrained(folder, overwrite=True)

    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert bytes_of(folder) == bytes_of(saved)


# ---- writers that were killed -----------------------------------------------


def leave(beside, *parts):
    """Leave the hidden folder of a writer that was killed."""
    scratch = beside / f".{beside.name}-{len([*beside.iterdir()]):016x}"
    scratch.mkdir()
    for part in parts:
        (scratch / part).mkdir()
        (scratch / part / "config.json").write_text("{}")
    return scratch


def test_a_folder_where_a_writer_was_killed_can_be_saved_to(fitted, tmp_path):
    """It was made in advance, empty, and so is written to from inside."""
    folder = tmp_path / "f"
    folder.mkdir()
    left = leave(folder, "new")
    fitted.save_pretrained(folder)
    with pytest.raises(FileExistsError, match="Pass overwrite=True"):
        fitted.save_pretrained(folder)
    fitted.save_pretrained(folder, overwrite=True)

    assert [*folder.glob(".*")] == [left]  # its writer may live
    loaded = AdaLoraClassifier.from_pretrained(folder)
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_a_file_with_the_name_of_a_hidden_folder_is_kept(fitted, tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / f".f-{1:016x}").write_text("mine")
    with pytest.raises(FileExistsError, match="must be new or empty"):
        fitted.save_pretrained(folder, overwrite=True)

    assert (folder / f".f-{1:016x}").read_text() == "mine"


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_a_hidden_folder_that_shows_nothing_is_of_a_writer(
    fitted, tmp_path, monkeypatch, error
):
    """It has just been deleted, or is closed to others."""
    folder = tmp_path / "f"
    folder.mkdir()
    left = leave(folder, "new")
    look = Path.iterdir

    def refuse(self):
        if self == left:
            raise error(errno.EACCES, "Refused", str(self))
        return look(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    fitted.save_pretrained(folder)

    assert left.exists()
    assert AdaLoraClassifier.from_pretrained(folder).ranks_

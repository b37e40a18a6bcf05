"""Folders of fitted estimators are written whole, or not at all."""

import copy
import errno
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from _folders import assert_equal_estimators, bytes_of, strengthen
from _toy import make, topics

from sk_adalora import AdaLoraClassifier
from sk_adalora.adalora import json_file
from sk_adalora.files import folder as _folder
from sk_adalora.files import write as _write
from sk_adalora.files.layout import OUR_MARK

X, Y = topics(48)
WRITERS = ["save_pretrained", "export_lora", "merge_and_save"]


@pytest.fixture
def there(saved, tmp_path):
    """A folder with a saved estimator, which may be replaced."""
    return Path(shutil.copytree(saved, tmp_path / "f"))


@pytest.fixture
def refilled(there, monkeypatch):
    """One that cannot be renamed, as the output volume of a container."""
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    return there


@pytest.fixture
def other(fitted):
    """Another estimator than the one in these folders."""
    return strengthen(copy.copy(fitted), 2)


def assert_holds(folder, fitted):
    loaded = AdaLoraClassifier.from_pretrained(folder)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


# ---- existing folders -------------------------------------------------------


@pytest.mark.parametrize("method", WRITERS)
@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_an_existing_folder_is_kept(tiny_model, tmp_path, method, pooling):
    fitted = make(tiny_model, pooling=pooling).fit(X, Y)
    write = getattr(fitted, method)
    write(tmp_path / "f")
    (tmp_path / "f" / "stale").write_text("old")
    if method == "save_pretrained":  # it is known by other files, too
        (tmp_path / "f" / "README.md").write_text("# Our tagger")
    before = bytes_of(tmp_path / "f")
    with pytest.raises(FileExistsError, match=r"which is not\. Pass overwrite=True"):
        write(tmp_path / "f")
    assert bytes_of(tmp_path / "f") == before

    write(tmp_path / "f", overwrite=True)
    assert set(bytes_of(tmp_path / "f")) == set(before) - {"stale"}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_sk_adalora_did_not_write_is_never_replaced(
    fitted, saved, tiny_model, tmp_path, overwrite
):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "thesis.tex").write_text("years of work")
    card = f"# Ma thèse\n\n\n\nIt is not of\n{OUR_MARK}\n".encode("latin-1")
    (tmp_path / "f" / "README.md").write_bytes(card)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / f".f-{1:016x}").write_text("mine")
    (tmp_path / "folders" / "README.md").mkdir(parents=True)
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(saved)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = {path.name for path in tmp_path.iterdir()}, bytes_of(tmp_path)
    for name in before[0]:
        why = "link" if (tmp_path / name).is_symlink() else "did not write it"
        with pytest.raises(FileExistsError, match=f"must be new or empty.*{why}"):
            fitted.save_pretrained(tmp_path / name, overwrite=overwrite)

    assert ({path.name for path in tmp_path.iterdir()}, bytes_of(tmp_path)) == before


def test_new_and_empty_folders(fitted, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    before = (tmp_path / "empty").stat().st_ino  # as a program wants it that watches
    fitted.save_pretrained(tmp_path / "empty")
    fitted.save_pretrained(tmp_path / "new" / "parents" / "f")
    monkeypatch.chdir(tmp_path)
    fitted.save_pretrained("with slash/")

    assert (tmp_path / "empty").stat().st_ino == before
    for place in ("empty", "new/parents/f", "with slash"):
        assert_holds(tmp_path / place, fitted)
        assert not [*Path(place).glob(".*")]


def test_the_current_folder_is_filled(fitted, other, tmp_path, monkeypatch):
    """It is not replaced, nor opened to others."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    monkeypatch.chdir(private)
    fitted.save_pretrained(".")
    other.save_pretrained(".", overwrite=True)

    assert os.path.samefile(".", private)
    assert private.stat().st_mode & 0o777 == 0o700
    assert not [*private.glob(".*")]
    assert_holds(private, other)


def test_a_mounted_folder_is_filled(other, refilled):
    before = refilled.stat().st_ino
    other.save_pretrained(refilled, overwrite=True)

    assert refilled.stat().st_ino == before
    assert [*refilled.parent.iterdir()] == [refilled]
    assert not [*refilled.glob(".*")]
    assert_holds(refilled, other)


def test_a_folder_in_a_closed_one_is_refilled(fitted, there, monkeypatch):
    """As the one that a service may write to."""
    before, access = there.stat().st_ino, os.access
    monkeypatch.setattr(os, "access", lambda p, m: p != there.parent and access(p, m))
    fitted.save_pretrained(there, overwrite=True)

    assert there.stat().st_ino == before
    assert_holds(there, fitted)


def test_a_relative_path_is_of_the_folder_where_the_writing_began(
    fitted, tmp_path, monkeypatch
):
    """Another thread may go elsewhere meanwhile."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    meanwhile(monkeypatch, lambda: os.chdir(tmp_path / "elsewhere"))
    fitted.save_pretrained("f")

    assert not any(Path.cwd().iterdir())
    assert_holds(tmp_path / "f", fitted)


# ---- permissions ------------------------------------------------------------


@pytest.fixture
def usual_umask():
    """Others may read new files, and only the owner writes them."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.skipif(sys.platform != "linux", reason="folders inherit the bit there")
def test_what_is_closed_or_of_a_group_stays_so_meanwhile(
    fitted, there, monkeypatch, usual_umask
):
    """New files get the group of their folder where it has the bit for that."""
    there.parent.chmod(0o2755)
    there.chmod(0o2750)
    write, modes = _folder.write_text, []

    def noted(path, text):
        modes.append(path.parents[1].stat().st_mode & 0o7777)
        write(path, text)

    monkeypatch.setattr(_folder, "write_text", noted)
    fitted.save_pretrained(there, overwrite=True)

    assert set(modes) == {there.stat().st_mode & 0o7777} == {0o2750}


def test_a_file_system_without_permissions(fitted, there, monkeypatch):
    """As FAT, where the mode of a file cannot be changed."""

    def refuse(self, mode):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "chmod", refuse)
    fitted.save_pretrained(there, overwrite=True)

    assert_equal_estimators(AdaLoraClassifier.from_pretrained(there), fitted)


# ---- nothing half-written ---------------------------------------------------

FULL = OSError(errno.ENOSPC, "No space left on device")


def fail(*args, **kwargs):
    raise FULL


def meanwhile(monkeypatch, act):
    """Have something happen once, just before the card is written."""
    write = _folder.write_text

    def first(path, text):
        monkeypatch.setattr(_folder, "write_text", write)
        act()
        write(path, text)

    monkeypatch.setattr(_folder, "write_text", first)


@pytest.mark.parametrize("method", WRITERS)
@pytest.mark.parametrize("folder", ["f", "new"])
def test_a_full_disk(fitted, there, saved, monkeypatch, method, folder):
    meanwhile(monkeypatch, fail)
    with pytest.raises(OSError, match="No space left on device"):
        getattr(fitted, method)(there.parent / folder, overwrite=True)

    assert [*there.parent.iterdir()] == [there]
    assert bytes_of(there) == bytes_of(saved)


def test_a_training_that_is_too_long_to_be_read(fitted, tmp_path, monkeypatch):
    """About a million steps: a folder that cannot be loaded would lose the model."""
    fitted.save_pretrained(tmp_path / "f")
    length = (tmp_path / "f" / "sk_adalora.json").stat().st_size
    monkeypatch.setattr(json_file, "MAX_BYTES", length)
    monkeypatch.setattr(_write, "MAX_BYTES", length)
    fitted.save_pretrained(tmp_path / "f", overwrite=True)
    AdaLoraClassifier.from_pretrained(tmp_path / "f")

    monkeypatch.setattr(_write, "MAX_BYTES", length - 1)
    with pytest.raises(ValueError, match=r"a history of \d+ steps\. Save with joblib"):
        fitted.save_pretrained(tmp_path / "g")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def stop_at_move(monkeypatch, n_moves, error):
    """Have an error come at one of the moves.

    Python raises an interrupt when the file system has done its work.
    """
    rename, moves = Path.rename, []

    def stopped(self, target):
        moves.append(self)
        if len(moves) != n_moves or error is not FULL:
            rename(self, target)
        if len(moves) == n_moves:
            raise error

    monkeypatch.setattr(Path, "rename", stopped)


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "stop"])
@pytest.mark.parametrize("n_moves", range(1, 16))
def test_a_failure_at_any_move_of_a_refill_loses_nothing(
    other, refilled, saved, monkeypatch, n_moves, error
):
    (refilled / "dangling").symlink_to("nowhere")
    stop_at_move(monkeypatch, n_moves, error)
    with pytest.raises(type(error)):
        other.save_pretrained(refilled, overwrite=True)

    assert bytes_of(refilled) == bytes_of(saved)
    assert os.path.lexists(refilled / "dangling")
    assert not [*refilled.glob(".*")]


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "stop"])
@pytest.mark.parametrize("n_moves", [1, 2])
def test_a_failure_at_any_move_leaves_one_or_the_other(
    fitted, other, there, monkeypatch, n_moves, error
):
    stop_at_move(monkeypatch, n_moves, error)
    with pytest.raises(type(error)):
        other.save_pretrained(there, overwrite=True)

    assert [*there.parent.iterdir()] == [there]
    assert_holds(there, fitted if error is FULL or n_moves == 1 else other)


def test_the_old_folder_outlives_any_failure(fitted, there, saved, monkeypatch):
    """When it cannot even be moved back, it is left where it is."""
    rename = Path.rename

    def only_away(self, target):
        if self.name != "f":
            raise FULL
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", only_away)
    with pytest.raises(OSError, match="No space"):
        fitted.save_pretrained(there, overwrite=True)

    (left,) = there.parent.rglob("old")
    assert bytes_of(left) == bytes_of(saved)


# ---- writers that are killed ------------------------------------------------


def save_and_die(estimator, folder, moment):
    """Save in a process that is killed as it opens or moves its `moment`th file.

    Return whether it was.
    """
    child = os.fork()
    if child == 0:
        seen = []

        def watch(event, arguments):
            if event in ("open", "os.rename", "os.mkdir", "shutil.rmtree"):
                if str(folder.parent) in str(arguments[0]):
                    seen.append(event)
                if len(seen) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            estimator.save_pretrained(folder, overwrite=True)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("refill", [False, True])
def test_kill_9_while_saving(fitted, other, tmp_path, monkeypatch, refill):
    """The folder is the old or the new one; or its files wait in the hidden one."""
    monkeypatch.setattr(os.path, "ismount", lambda path: refill)
    whole, moment, found = tmp_path / "whole", 0, set()
    fitted.save_pretrained(whole)
    other.save_pretrained(tmp_path / "new")
    old, new = bytes_of(whole), bytes_of(tmp_path / "new")
    killed = True
    while killed:
        moment += 1
        root = tmp_path / str(moment)
        folder = Path(shutil.copytree(whole, root / "f"))
        killed = save_and_die(other, folder, moment)
        moved = [bytes_of(path) for path in root.rglob("old")]
        there = {n: d for n, d in bytes_of(folder).items() if n[0] != "."}
        # A refilled folder may be left with some files of one save, never of both.
        kinds = [k for k, of in {"old": old, "new": new}.items() if there == of]
        found.update(kinds)
        assert kinds or {**there, **moved[0]} == old or there.items() <= new.items()
        assert kinds or moved[0].items() <= old.items()

    assert found == {"old", "new"}
    assert moment > 10


def leave(beside, *parts):
    """Leave the hidden folder of a writer that was killed."""
    scratch = beside / f".{beside.name}-{len([*beside.iterdir()]):016x}"
    for part in parts:
        (scratch / part).mkdir(parents=True)
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
    assert_holds(folder, fitted)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_writer_that_was_killed_while_it_moved_files(fitted, refilled, overwrite):
    """What it has moved away may be all that is left of it."""
    left = leave(refilled, "new", "old")
    (refilled / "head.safetensors").rename(left / "old" / "head.safetensors")
    before = bytes_of(refilled)
    with pytest.raises(FileExistsError, match=r"by two at .*move back"):
        fitted.save_pretrained(refilled, overwrite=overwrite)
    assert bytes_of(refilled) == before

    shutil.rmtree(left)
    fitted.save_pretrained(refilled, overwrite=True)
    assert_holds(refilled, fitted)


# ---- several writers --------------------------------------------------------


@pytest.mark.parametrize("before", ["nothing", "an empty folder"])
def test_what_appears_while_it_is_written_is_kept(
    fitted, other, tmp_path, monkeypatch, before
):
    folder = tmp_path / "f"
    if before == "an empty folder":
        folder.mkdir()
    meanwhile(monkeypatch, lambda: other.save_pretrained(folder))
    with pytest.raises(FileExistsError, match="Pass overwrite=True"):
        fitted.save_pretrained(folder)

    assert not [*tmp_path.rglob(".*")]
    assert_holds(folder, other)


def test_another_writer_of_the_same_mounted_folder_is_left_alone(
    fitted, other, refilled, monkeypatch
):
    """It saves whole, between two files of ours."""
    meanwhile(monkeypatch, lambda: other.save_pretrained(refilled, overwrite=True))
    fitted.save_pretrained(refilled, overwrite=True)

    assert not [*refilled.glob(".*")]
    assert_holds(refilled, fitted)


def test_a_writer_that_begins_to_move_files_at_the_same_time(
    fitted, saved, refilled, monkeypatch
):
    make_folder, left = Path.mkdir, []

    def begin(self, *args, **kwargs):
        make_folder(self, *args, **kwargs)
        if self.name == "old":
            monkeypatch.setattr(Path, "mkdir", make_folder)
            left.append(leave(refilled, "old"))

    monkeypatch.setattr(Path, "mkdir", begin)
    with pytest.raises(FileExistsError, match="by two at the same time"):
        fitted.save_pretrained(refilled, overwrite=True)

    assert [*refilled.glob(".*")] == left
    shutil.rmtree(left[0])
    assert bytes_of(refilled) == bytes_of(saved)

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
from sk_adalora.adalora import untrusted
from sk_adalora.files import folder as _folder
from sk_adalora.files import write as _write
from sk_adalora.files.layout import OUR_MARK, settled

X, Y = topics(48)
WRITERS = ["save_pretrained", "export_lora", "merge_and_save"]


@pytest.fixture
def there(saved, tmp_path):
    """A folder with a saved estimator, which may be replaced."""
    return Path(shutil.copytree(saved, tmp_path / "f"))


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


def test_a_folder_stays_and_its_files_are_replaced(other, there):
    """As the output volume of a container, or one that a service may write to."""
    before = there.stat().st_ino
    other.save_pretrained(there, overwrite=True)

    assert there.stat().st_ino == before
    assert [*there.parent.iterdir()] == [there]
    assert not [*there.glob(".*")]
    assert_holds(there, other)


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


@pytest.mark.skipif(sys.platform == "win32", reason="it limits no files")
@pytest.mark.parametrize("method", WRITERS)
@pytest.mark.parametrize("size", [100, 3_000])
@pytest.mark.parametrize("folder", ["f", "new"])
def test_a_disk_without_room(fitted, there, saved, method, size, folder):
    import resource

    target, limits = there.parent / folder, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            getattr(fitted, method)(target, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(target))
    assert "Make room there" in caught.value.__notes__[0]
    assert [*there.parent.iterdir()] == [there]
    assert bytes_of(there) == bytes_of(saved)


def test_a_training_that_is_too_long_to_be_read(fitted, tmp_path, monkeypatch):
    """Some 250,000 steps: a folder that cannot be loaded would lose the model."""
    fitted.save_pretrained(tmp_path / "f")
    length = (tmp_path / "f" / "sk_adalora.json").stat().st_size
    monkeypatch.setattr(untrusted, "MAX_BYTES", length)
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


# What is kept gets its name, seven files move in, and what was kept is given up.
MOVES = 9


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "stop"])
@pytest.mark.parametrize("n_moves", range(1, MOVES + 1))
def test_a_failure_at_any_move_loses_nothing(
    other, there, saved, monkeypatch, n_moves, error
):
    (there / "dangling").symlink_to("nowhere")
    stop_at_move(monkeypatch, n_moves, error)
    with pytest.raises(type(error)):
        other.save_pretrained(there, overwrite=True)

    assert not [*there.glob(".*")]
    if n_moves == MOVES and error is not FULL:  # all was done
        assert_holds(there, other)
    else:
        assert bytes_of(there) == bytes_of(saved)
        assert os.path.lexists(there / "dangling")


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "stop"])
def test_a_failure_to_move_a_new_folder(fitted, tmp_path, monkeypatch, error):
    stop_at_move(monkeypatch, 1, error)
    with pytest.raises(type(error)):
        fitted.save_pretrained(tmp_path / "f")

    assert [p.name for p in tmp_path.iterdir()] == ([] if error is FULL else ["f"])


def test_the_old_files_outlive_any_failure(fitted, other, there, saved, monkeypatch):
    """When they cannot even be put back, they are loaded from where they are."""
    stop_at_move(monkeypatch, 3, FULL)
    monkeypatch.setattr(os, "link", fail)
    copy_file, copied = shutil.copy2, []

    def first_only(source, target):
        copied.append(target)
        return (
            fail() if len(copied) > len(bytes_of(saved)) else copy_file(source, target)
        )

    monkeypatch.setattr(shutil, "copy2", first_only)
    with pytest.raises(OSError, match="No space"):
        other.save_pretrained(there, overwrite=True)

    assert_holds(there, fitted)
    monkeypatch.undo()
    other.save_pretrained(there, overwrite=True)
    assert not [*there.glob(".*")]
    assert_holds(there, other)


# ---- writers that are killed ------------------------------------------------

EVENTS = "open mkdir rename link symlink remove rmdir chmod".split()
EVENTS = {"open", *(f"os.{name}" for name in EVENTS), "shutil.rmtree"}


def save_and_die(estimator, root, place, moment):
    """Save in a process that is killed before its `moment`th change of a file.

    Return whether it was.
    """
    child = os.fork()
    if child == 0:
        seen = []

        def watch(event, arguments):
            # What is deleted by the name in an open folder has no whole path.
            path = str(arguments[0]) if event in EVENTS else "/"
            if str(root) in path or not os.path.isabs(path):
                seen.append(event)
                if len(seen) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            estimator.save_pretrained(place, overwrite=True)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.fixture(params=["new", "working directory", "closed parent"])
def place(request, there, monkeypatch):
    """What is saved to, and the folder that it means."""
    if request.param == "new":
        shutil.rmtree(there)
    if request.param == "working directory":
        monkeypatch.chdir(there)
    if request.param == "closed parent":
        there.parent.chmod(0o555)
    yield "." if request.param == "working directory" else there, there
    there.parent.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_kill_9_while_saving(fitted, other, place, tmp_path_factory):
    """The folder holds one of both at any moment, and in the end nothing else."""
    given, folder = place
    both, is_new = (fitted, other), not folder.exists()
    saved = []
    for estimator in both:
        estimator.save_pretrained(path := tmp_path_factory.mktemp("saved") / "f")
        saved.append(bytes_of(path))
    killed, moment, kept, holds = True, 0, 0, [0]
    while killed:
        moment += 1
        killed = save_and_die(both[1 - holds[-1]], folder.parent, given, moment)
        whole = settled(folder)
        if whole.exists():
            holds.append(saved.index(visible(whole)))
        if whole != folder:  # the next one begins by putting it back
            kept += 1
            if kept < 3:
                assert_holds(folder, both[holds[-1]])
        elif killed:
            for left in [folder] * is_new + [*folder.parent.rglob(".*")]:
                shutil.rmtree(left, ignore_errors=True)

    assert moment > 20
    assert {*holds[:-1]} == {0, 1} or is_new
    assert kept > 3 or is_new
    assert not [*folder.parent.rglob(".*")]


def visible(folder):
    """The files of a folder, but for what writers keep in it."""
    return {n: data for n, data in bytes_of(folder).items() if not n.startswith(".")}


def leave(beside, *parts):
    """Leave the hidden folder of a writer that was killed."""
    scratch = beside / f".{beside.name}-{len([*beside.iterdir()]):016x}"
    for part in parts:
        (scratch / part).mkdir(parents=True)
        (scratch / part / "config.json").write_text("{}")
    return scratch


def test_a_writer_that_was_killed_as_it_saved_for_the_first_time(fitted, tmp_path):
    """Some files are in the folder, and nothing was there before."""
    folder = tmp_path / "f"
    folder.mkdir()
    scratch = leave(folder, "moving", "old")
    (scratch / "old" / "config.json").unlink()
    (folder / "head.safetensors").write_text("new")
    with pytest.raises(FileNotFoundError, match=r"did not finish: save again"):
        AdaLoraClassifier.from_pretrained(folder)

    fitted.save_pretrained(folder)
    assert not [*folder.glob(".*")]
    assert_holds(folder, fitted)


# ---- several writers --------------------------------------------------------


def test_the_folder_of_a_writer_that_lives_is_left_alone(fitted, other, there):
    fcntl = pytest.importorskip("fcntl", reason="needs locks of folders")
    held = leave(there, "new")
    handle = os.open(held, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    fitted.save_pretrained(there, overwrite=True)
    (held / "moving").mkdir()
    before = bytes_of(there)
    with pytest.raises(FileExistsError, match="by two at the same time"):
        other.save_pretrained(there, overwrite=True)

    assert [*there.glob(".*")] == [held]
    assert bytes_of(there) == before
    os.close(handle)
    other.save_pretrained(there, overwrite=True)
    assert not [*there.glob(".*")]
    assert_holds(there, other)


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


def test_another_writer_of_the_same_folder_is_left_alone(
    fitted, other, there, monkeypatch
):
    """It saves whole, between two files of ours."""
    meanwhile(monkeypatch, lambda: other.save_pretrained(there, overwrite=True))
    fitted.save_pretrained(there, overwrite=True)

    assert not [*there.glob(".*")]
    assert_holds(there, fitted)

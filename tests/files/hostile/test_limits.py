"""Every reader meets many broken files, each within 2 seconds and 200 MB."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import joblib
import pytest
from _hostile import X, Y
from _limits import READERS
from _tiny import adapted_bert
from _toy import make, save_each_step

from sk_adalora.adalora import save_adapter

FEWEST = 120


@pytest.fixture
def root(tiny_model, tmp_path):
    """Folder of those that are broken, one for each reader."""
    estimator = make(tiny_model).fit(X, Y)
    estimator.save_pretrained(tmp_path / "estimator" / "f", include_backbone=True)
    leave_a_checkpoint(tiny_model, tmp_path / "checkpoint" / "f")
    save_adapter(adapted_bert(), tmp_path / "adapter" / "f")
    (tmp_path / "state" / "f").mkdir(parents=True)
    joblib.dump(estimator.__getstate__(), tmp_path / "state" / "f" / "state.joblib")
    shutil.copytree(tiny_model, tmp_path / "backbone" / "f")
    return tmp_path


def leave_a_checkpoint(model, folder):
    """Interrupt a fit as it writes its fifth checkpoint."""

    def fsync(handle):
        if next(count) == 5:
            raise KeyboardInterrupt

    count = iter(range(1, 10))
    (folder / "own").mkdir(parents=True)
    (folder / "model").write_text(str(model), "utf8")
    own = {"checkpoint_dir": folder / "own", "epochs": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        save_each_step(patch)
        with pytest.raises(KeyboardInterrupt):
            make(model, **own).fit(X, Y)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_readers_under_limits(root):
    program = Path(__file__).with_name("_limits.py")
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, program, root],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    cases = [line.split("\t") for line in done.stdout.splitlines()]
    wrong = [case for case in cases if case[-1] not in ("read", "refused")]

    assert done.returncode == 0, (done.stdout[-200:], done.stderr[-2000:])
    assert not wrong
    counts = Counter(reader for reader, *_ in cases)
    assert counts.keys() == READERS.keys()
    assert min(counts.values()) >= FEWEST

"""Every reader meets many broken files, each within 2 seconds and 200 MB."""

import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from _hostile import X, Y
from _limits import READERS
from _tiny import adapted_bert
from _toy import make

from sk_adalora.adalora import save_adapter

FEWEST = 120


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """The folders that are broken, by reader. Do not write into them."""
    root = tmp_path_factory.mktemp("whole")
    estimator = make(tiny_model).fit(X, Y)
    estimator.save_pretrained(root / "estimator" / "f", include_backbone=True)
    leave_a_checkpoint(tiny_model, root / "checkpoint" / "f")
    save_adapter(adapted_bert(), root / "adapter" / "f")
    (root / "state" / "f").mkdir(parents=True)
    joblib.dump(estimator.__getstate__(), root / "state" / "f" / "state.joblib")
    return {
        "state": root / "state" / "f",
        "estimator": root / "estimator" / "f",
        "checkpoint": root / "checkpoint" / "f",
        "adapter": root / "adapter" / "f",
        "backbone": Path(tiny_model),
    }


def leave_a_checkpoint(model, folder):
    """Interrupt a fit as it writes its fifth checkpoint."""

    def fsync(handle):
        if next(count) == 5:
            raise KeyboardInterrupt

    count = iter(range(1, 10))
    (folder / "own").mkdir(parents=True)
    (folder / "model").write_text(str(model), "utf8")
    own = {"checkpoint_dir": folder / "own", "checkpoint_every": 1, "epochs": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(KeyboardInterrupt):
            make(model, **own).fit(X, Y)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_under_limits(whole, reader):
    program = Path(__file__).with_name("_limits.py")
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, program, reader, whole[reader]],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    cases = dict(line.split("\t") for line in done.stdout.splitlines())
    wrong = {n: c for n, c in cases.items() if c not in ("read", "refused")}

    assert done.returncode == 0, (done.stdout[-200:], done.stderr[-2000:])
    assert not wrong
    assert len(cases) >= FEWEST

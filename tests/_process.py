"""Python programs in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import sk_adalora

PLACES = [Path(sk_adalora.__file__).parent.parent, Path(__file__).parent]


def run_python(program, *arguments, cwd=None, timeout=120, **environment):
    """Run a program without network and GPU, and return what it printed.

    It finds the package and the modules beside this one, whatever folder it runs in.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, PLACES)),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done

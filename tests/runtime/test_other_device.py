"""Fits, predictions, files and the engine on a device that is not the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

CASES = Path(__file__).parents[1] / "_other_device.py"


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no device made in Python",
)
def test_on_another_device():
    """In a process of its own: what _pretend.py registers with torch stays there."""
    outer = [name for name in os.environ if name.startswith(("PYTEST_", "COV_"))]
    environment = {k: v for k, v in os.environ.items() if k not in outer}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", CASES]
    done = subprocess.run(
        command,
        env=environment,
        cwd=CASES.parent.parent,
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_the_device_is_not_in_this_process():
    assert "_pretend" not in sys.modules
    assert torch._C._get_privateuse1_backend_name() != "pretend"

"""Say what a benchmark ran on."""

import os
import platform
import subprocess
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch


def describe_machine():
    """Return one line: date, processor, cores, card, versions."""
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "scikit-learn")
    )
    parts = [
        date.today().isoformat(),
        describe_processor(),
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
        f"Python {platform.python_version()}",
        versions,
    ]
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        parts.append(f"ONEDNN_MAX_CPU_ISA={limit}")
    if torch.cuda.is_available():
        parts.insert(2, torch.cuda.get_device_name())
    return "; ".join(parts)


def describe_commit():
    """Return the commit of the checkout, as ``c173dd9`` or ``c173dd9-dirty``.

    It is "" where there is no checkout, as in an unpacked archive.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # a folder around it may be one of another project
        return ""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    # As in a hook of git's, which names the repository that it is of.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    given = {"cwd": root, "env": env, "capture_output": True, "text": True}
    try:
        return subprocess.run(command, check=True, **given).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def describe_processor():
    """Return name and family of the processor, and what it has for half precision."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    lines = cpuinfo.read_text().splitlines()
    # Several generations are called "AMD EPYC" where a machine is a virtual one.
    name = _field(lines, "model name", "CPU")
    family = _field(lines, "cpu family", "")
    if family:
        name += f" (family {family})"
    flags = "".join(lines)
    # What half precision runs on makes more of a difference than the model.
    for flag, unit in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")):
        if flag in flags:
            return f"{name} with {unit}"
    return name


def _field(lines, name, otherwise):
    """Return what the first line of that name says."""
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(values, otherwise)

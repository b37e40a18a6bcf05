"""Files of results, and what they were measured on.

A file of results is ``NAME-DEVICE.jsonl``: a line that says what was measured, how and
where (it has the key "what"), then a line for each result.
"""

import json
import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"  # the published ones
MINE, QUICK = RESULTS / "mine", RESULTS / "tmp"  # ignored by git
_PACKAGES = ("torch", "transformers", "scikit-learn")
_OTHERS = ("peft", "accelerate", "skorch", "setfit", "sk-adalora")


def say(*parts):
    """Tell how far a measurement is, beside its result."""
    print(*parts, file=sys.stderr, flush=True)


def read(path):
    """Return what a file says of itself, and its results; both empty without a file.

    Raises
    ------
    ValueError
        If a line is no record, as where a disk was full while it was written.
    """
    about, records = {}, []
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"Each line of {path} must be a whole record. Got another one in line "
                f"{number}. Delete that line: it is measured again."
            ) from error
        if "what" in record:
            about = record
        else:
            records.append(record)
    return about, records


def append(path, record):
    """Write a result to a line of a file, which keeps it if the rest is interrupted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def write(path, about, records):
    """Write a file of results anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) + "\n" for record in (about, *records)]
    path.write_text("".join(lines), encoding="utf-8")


def find(folder, what):
    """Return the results of a measurement by file: the CPU first, then the card.

    ``speed-cpu.jsonl`` is before ``speed-cpu-NAME.jsonl``, as of another machine.
    """
    paths = sorted(folder.glob(f"{what}-*.jsonl"), key=lambda path: path.stem)
    return [read(path) for path in paths]


def table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


# ---- the machine -------------------------------------------------------------


def describe():
    """Return one line: date, machine, all versions, and the commit of ours."""
    commit = describe_commit()
    of_ours = f" ({commit})" if commit else ""
    threads = os.environ.get("OMP_NUM_THREADS")
    limit = f"; OMP_NUM_THREADS={threads}" if threads else ""
    return f"{describe_machine()}, {_versions(_OTHERS)}{of_ours}{limit}"


def origin():
    """Return what a line says of where it is from."""
    return {"commit": describe_commit(), "machine": describe_processor()}


def describe_machine():
    """Return one line: date, processor, cores, card, versions."""
    parts = [
        date.today().isoformat(),
        describe_processor(),
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
        f"Python {platform.python_version()}",
        _versions(_PACKAGES),
    ]
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        parts.append(f"ONEDNN_MAX_CPU_ISA={limit}")
    if torch.cuda.is_available():
        parts.insert(2, torch.cuda.get_device_name())
    return "; ".join(parts)


def _versions(packages):
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


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

"""Where results lie, and what they ran on."""

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .machine import describe_commit, describe_machine

RESULTS = Path(__file__).parent / "results"  # the published ones
MINE, QUICK = RESULTS / "mine", RESULTS / "tmp"  # ignored by git
_OTHERS = ("peft", "accelerate", "skorch", "setfit", "sk-adalora")


def say(*parts):
    """Tell how far a measurement is, beside its result."""
    print(*parts, file=sys.stderr, flush=True)


def describe():
    """Return the machine, the versions of all contestants, and the commit of ours."""
    found = []
    for package in _OTHERS:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    threads = os.environ.get("OMP_NUM_THREADS")
    limit = f"; OMP_NUM_THREADS={threads}" if threads else ""
    commit = describe_commit()
    of_ours = f" ({commit})" if commit else ""
    return f"{describe_machine()}, {', '.join(found)}{of_ours}{limit}"


def write(folder, what, kept_as, command, **content):
    """Write the result of a subcommand, and return the path.

    Parameters
    ----------
    folder : Path
        `RESULTS` or another.
    what, kept_as : str
        Parts of the file's name: the subcommand, and ``cpu`` or ``cuda``, with the
        ``--name`` behind it.
    command : str
        What reproduces the result.
    **content : dict
        The result, ready for JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{what}-{kept_as}.json"
    said = {"what": what, "kept_as": kept_as, "machine": describe()}
    record = {**said, "command": command, **content}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def read(folder, what):
    """Return the results of a subcommand by file: the CPU first, then the card.

    ``speed-cpu.json`` is before ``speed-cpu-NAME.json``, as of another machine.
    """
    paths = sorted(folder.glob(f"{what}-*.json"), key=lambda path: path.stem)
    return [json.loads(path.read_text("utf-8")) for path in paths]


def append(path, record):
    """Write a record to a line of a file, which keeps it if the rest is interrupted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_lines(path):
    """Return the records in the lines of a file, if there is one.

    Raises
    ------
    ValueError
        If a line is no record, as where a disk was full while it was written.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"Each line of {path} must be a whole record. Got another one in line "
                f"{number}. Delete that line: it is measured again."
            ) from error
    return records


def table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)

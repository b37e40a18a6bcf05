"""The one entry point: ``python -m benchmarks WHAT [options]``; see README.md."""

import argparse
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import torch

from . import (
    calibration,
    explain,
    memory,
    operations,
    parts_of_a_fit,
    report,
    results,
    scale_budget,
    scale_predict,
    scale_ranks,
    ship,
    soak,
    speed,
    step,
)
from .contestants import DEFAULT_MODEL, FINE_TUNING
from .data import TASKS, load_csv, load_task
from .inside import resolve_compute
from .studies import STUDIES, TIMINGS, overlap, public_data, study, timings

MEASUREMENTS = {
    "speed": speed,
    "step": step,
    "operations": operations,
    "profile": parts_of_a_fit,
    "memory": memory,
    "soak": soak,
    "ship": ship,
    "calibration": calibration,
    "explain": explain,
    "scale-budget": scale_budget,
    "scale-predict": scale_predict,
    "scale-ranks": scale_ranks,
}
# These use all threads, as a user would; CPU seconds of the others are of one.
ALL_THREADS = {*MEASUREMENTS, "score", "all", "short", "report", "list"}
_OF_FITS = {"speed", "profile"}  # which have options of the fits
COMMANDS = {"overlap": overlap, "public": public_data}
# What `all` and `short` run: of the latter, few rows and rounds of what matters most.
ALL = {name: [] for name in ("speed", "step", "operations", "profile", "memory")}
ALL["score"] = []
SHORT = {
    "speed": ["--n-train", "1000", "--epochs", "2", "--rounds", "1"],
    "step": ["--rounds", "3"],
    "score": [
        *["--tasks", "headlines", "quotes", "--sizes", "200", "--seeds", "0"],
        "--again",  # what an earlier version scored is no answer
    ],
}
_TEXTS = {
    "all": "all measurements one after the other, then the report",
    "short": "a part of speed, step and score, in about twenty minutes",
    "report": "write the generated parts of benchmarks/RESULTS.md",
    "list": "list all of these, with what they ask",
}


def main(arguments=None):
    """Parse the command line and run what it asks for."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = make_parser().parse_args(arguments)
    what = options.what
    warnings.simplefilter("ignore")  # of the contestants' libraries: not our subject
    if what not in ALL_THREADS and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"  # of processes that a study starts
        torch.set_num_threads(1)
    if what == "list":
        for name, text in questions().items():
            print(f"{name:14} {text}")
        return
    if what in COMMANDS:
        COMMANDS[what].main(options)
        return
    complete(options, arguments)
    if what == "report":
        report.run(options.results)
    elif what in ("all", "short"):
        run_all(options, ALL if what == "all" else SHORT)
    elif what in STUDIES:
        study.run(what, STUDIES[what], options)
    elif what in TIMINGS:
        timings.run(what, TIMINGS[what], options)
    else:
        measure(options)


def questions():
    """Return what each command asks or does, in one line."""
    modules = {**MEASUREMENTS, **COMMANDS}
    return {
        **{name: module.__doc__.splitlines()[0] for name, module in modules.items()},
        **{name: x.question for name, x in {**STUDIES, **TIMINGS}.items()},
        **_TEXTS,
    }


def make_parser():
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, text in questions().items():
        form = argparse.ArgumentDefaultsHelpFormatter
        text = text.replace("%", "%%")
        own = subparsers.add_parser(
            name, help=text, description=text, formatter_class=form
        )
        add = own.add_argument
        if name in COMMANDS:
            COMMANDS[name].add_options(add)
        elif name != "list":
            own_threads = name in ALL_THREADS
            _add_common_options(add, "auto" if own_threads else "cpu")
        if name in STUDIES:
            study.add_options(add, STUDIES[name])
        elif name in {*MEASUREMENTS, *TIMINGS}:
            add("--model", default=DEFAULT_MODEL, help="folder or Hugging Face id")
        if name in _OF_FITS:
            _add_options_of_fits(add)
        if name in MEASUREMENTS:
            MEASUREMENTS[name].add_options(add)
    return parser


def _add_common_options(add, device):
    add("--device", default=device, help="auto, cpu or cuda")
    add("--quick", action="store_true", help="a smoke test, into results/tmp")
    add("--results", type=Path, default=results.MINE, help="folder of the results")
    add("--name", type=_part_of_a_name, help="what the names of files end with")


def _add_options_of_fits(add):
    add("--task", choices=list(TASKS), default="quotes")
    add("--data", help="a CSV file of your own instead, with --text and --label")
    add("--text", help="name of the column with the texts")
    add("--label", help="name of the column with the labels")
    add("--n-test", type=int, default=1000, help="rows to predict")
    add("--epochs", type=int, default=3, help="of all fine-tuning contestants")
    add("--batch-size", type=int, default=32)
    add("--max-length", type=int, default=128, help="tokens")
    text = "of contestants, such as peft-lora=2e-3"
    add("--learning-rate", nargs="+", type=_rate, default=[], metavar="X=Y", help=text)


def _rate(text):
    name, _, value = text.partition("=")
    if name not in FINE_TUNING:
        known = ", ".join(FINE_TUNING)
        raise argparse.ArgumentTypeError(f"{text!r}: name one of {known}")
    return name, float(value)


def _part_of_a_name(text):
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise argparse.ArgumentTypeError(
            f"must be of letters, digits, - and _. Got {text!r}"
        )
    return text


def complete(options, arguments):
    """Add what the measurements use beside what was typed."""
    what = options.what
    if options.quick:  # what hours have measured stays
        mine = options.results == results.MINE
        options.results = results.QUICK if mine else options.results / "quick"
    elif what == "short" and options.results == results.MINE:
        options.results = results.MINE / "short"
    kept_as = resolve_compute(options.device).device.type
    options.kept_as = f"{kept_as}-{options.name}" if options.name else kept_as
    asked = _without(arguments, "--results", "--name")
    options.command = shlex.join(["python", "-m", "benchmarks", *asked])
    if options.quick and what in STUDIES:
        study.quicken(STUDIES[what], options)
    if options.quick and what in MEASUREMENTS:
        if what in _OF_FITS:
            options.n_test = 64
        MEASUREMENTS[what].quicken(options)

    def load():
        if options.data:
            task = load_csv(options.data, options.text, options.label)
            options.n_test = min(options.n_test, max(1, len(task.texts) // 4))
            return task
        return load_task(options.task)

    options.load = load


def _without(arguments, *names):
    """Return a command line without some options: they are no part of a result."""
    parser = argparse.ArgumentParser(add_help=False)
    for name in names:
        parser.add_argument(name)
    return parser.parse_known_args(arguments)[1]


def measure(options):
    """Run a measurement; write its file and print its Markdown."""
    module = MEASUREMENTS[options.what]
    said, rows = module.run(options)
    about = {"what": options.what, "kept_as": options.kept_as}
    about |= {"machine": results.describe(), "command": options.command, **said}
    path = options.results / f"{options.what}-{options.kept_as}.jsonl"
    results.write(path, about, rows)
    print(f"> {about['machine']}\n\n{module.to_markdown(about, rows)}")
    results.say(f"\nWrote {path}.")


def run_all(options, commands):
    """Run commands each in a process of its own, so that none warms another."""
    name = ["--name", options.name] if options.name else []
    quick = ["--quick"] if options.quick else ["--results", str(options.results)]
    for what, given in commands.items():
        command = [sys.executable, "-m", "benchmarks", what, *given]
        command += ["--device", options.device, *name, *quick]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"`{what}` failed; what came before it is kept.")
    if not options.quick:
        report.run(options.results)


if __name__ == "__main__":
    main()

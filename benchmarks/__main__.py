"""The one entry point: ``python -m benchmarks WHAT [options]``; see README.md."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # packages hold all that is needed

import argparse
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

from sk_adalora.pretrained.find import DEFAULT_MODEL
from sk_adalora.runtime.devices import resolve_compute

from . import (
    defaults,
    memory,
    operations,
    report,
    results,
    score,
    speed,
    step,
    time_profile,
)
from .arguments import part_of_a_name, positive, without_results
from .contestants import CONTESTANTS, FINE_TUNING, ON_REQUEST
from .data import TASKS, load_csv, load_task

MEASUREMENTS = {
    "speed": speed,
    "step": step,
    "operations": operations,
    "profile": time_profile,
    "memory": memory,
    "score": score,
    "defaults": defaults,
}
SCRIPTS = {
    "attention": "attention_kernels",
    "quickstart": "quickstart_baselines",
    "racing": "search_racing",
    "batches": "prediction_batches",
    "busy": "busy_cores",
    "lengths": "length_multiples",
    "latency": "latency",
    "parts": "training_parts",
    "float32": "float32_products",
    "bias": "bias_products",
    "narrow": "narrow_products",
    "regression": "regression",
    "grouping": "grouping",
    "features": "feature_sizes",
    "few": "few_rows",
    "interpolation": "interpolation",
    "calibration": "calibration",
    "voting": "voting",
    "guide": "guide_figures",
    "overlap": "shared_rows",
    "public": "public_data",
    "many": "many_classes",
    "faster": "faster_learning",
    "wrong": "wrong_labels",
    "epochs": "epochs",
    "models": "other_models",
    "ranks": "ranks",
}
# Scripts with options of their own, which they get as they are.
_WITH_OPTIONS = {
    "epochs",
    "faster",
    "few",
    "grouping",
    "interpolation",
    "many",
    "models",
    "public",
    "racing",
    "ranks",
    "regression",
    "wrong",
}
COMMON_DEFAULTS = {
    "task": "quotes",
    "batch_size": 32,
    "max_length": 128,
    "model": DEFAULT_MODEL,
    "learning_rate": [],
}
# Common options that a measurement would ignore.
_OF_FITS = ("task", "data", "epochs", "batch_size", "max_length", "learning_rate")
UNUSED = {
    "step": _OF_FITS,
    "operations": _OF_FITS,
    "memory": (*_OF_FITS, "model"),
    "defaults": (*_OF_FITS, "model"),
    "score": ("task",),
    "profile": ("learning_rate",),
    "report": (*_OF_FITS, "model", "name"),
    "short": ("task", "data"),
}
# What `all` runs, each without options: `defaults` compares nothing with others.
ALL = {name: [] for name in MEASUREMENTS if name != "defaults"}
# What `short` runs: few rows and rounds of what matters most.
_SCORED = [name for name in CONTESTANTS if name not in ON_REQUEST]
SHORT = {
    "speed": ["--n-train", "1000", "--epochs", "2", "--rounds", "1"],
    "step": ["--rounds", "3"],
    "score": [
        *["--tasks", "headlines", "quotes", "--sizes", "200", "--seeds", "0"],
        *["--again", *_SCORED],  # what an earlier version scored is no answer
    ],
}
# Epochs where --epochs is not given: None is as many as ours takes by itself.
_EPOCHS = {"speed": 3, "profile": 3}
_TO_PREDICT = 1000  # rows where --n-test is not given; of a short file, a quarter


def main(arguments=None):
    """Parse the command line and run what it asks for."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.what not in _WITH_OPTIONS:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.what in SCRIPTS:
        command = [sys.executable, "-m", f"benchmarks.{SCRIPTS[options.what]}", *rest]
        sys.exit(subprocess.run(command, check=False).returncode)
    _refuse_unused(parser, options)
    complete(options)
    if options.what == "report":
        report.run(options)
    elif options.what == "all":
        run_all(options, ALL, arguments)
    elif options.what == "short":
        run_all(options, SHORT, arguments)
    else:
        measure(options, arguments)


def _refuse_unused(parser, options):
    """Refuse options that would change nothing, unless they are for all."""
    for name in () if options.of_all else UNUSED.get(options.what, ()):
        if getattr(options, name) != COMMON_DEFAULTS.get(name):
            option = "--" + name.replace("_", "-")
            parser.error(f"`{options.what}` has no use for {option}")
    if options.data and not (options.text and options.label):
        parser.error("--data needs --text and --label, the names of its columns")
    if (options.text or options.label) and not options.data:
        parser.error("--text and --label are of --data, which is not given")
    if options.data and options.task != COMMON_DEFAULTS["task"]:
        parser.error("--data is classified instead of a --task: give one of them")
    idle = set(getattr(options, "again", ())) - set(getattr(options, "contestants", ()))
    if idle:
        parser.error(f"--again {min(idle)} needs it among the --contestants")
    if options.what in ("speed", "score"):
        ours = ["ours"] if options.what == "speed" else []  # which all are beside
        rates = dict(options.learning_rate)
        idle = rates.keys() - {*ours, *options.contestants}
        if idle and not options.of_all:
            parser.error(
                f"--learning-rate {min(idle)} needs it among the --contestants"
            )


def make_parser():
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, module in MEASUREMENTS.items():
        text = (module.__doc__ or "").splitlines()[0]
        subparser = subparsers.add_parser(name, help=text, description=text)
        add_common_options(subparser)
        module.add_options(subparser)
    for name, script in SCRIPTS.items():
        own = name in _WITH_OPTIONS
        subparsers.add_parser(name, help=f"run {script}.py", add_help=not own)
    for name, text in (
        ("report", "write the generated parts of docs/benchmarks.md"),
        ("all", "all measurements one after the other, then the report"),
        ("short", "a part of speed, step and score, in about twenty minutes"),
    ):
        add_common_options(subparsers.add_parser(name, help=text, description=text))
    return parser


def add_common_options(parser):
    """Declare the options that all subcommands know."""
    parser.set_defaults(**COMMON_DEFAULTS)
    add = parser.add_argument
    add("--of-all", action="store_true", help=argparse.SUPPRESS)
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--quick", action="store_true", help="a smoke test, into results/tmp")
    add(
        "--results",
        type=Path,
        help="folder of the results (default: benchmarks/results/mine)",
    )
    add("--name", type=part_of_a_name, help="what the names of files end with")
    add("--task", choices=list(TASKS), help="(default: quotes)")
    add("--data", help="a CSV file of your own instead, with --text and --label")
    add("--text", help="name of the column with the texts")
    add("--label", help="name of the column with the labels")
    add("--epochs", type=positive, help="of all fine-tuning contestants")
    add("--batch-size", type=positive, help="(default: 32)")
    add("--max-length", type=positive, help="tokens (default: 128)")
    add("--model", help="folder or Hugging Face id (default: MiniLM)")
    add(
        "--learning-rate",
        nargs="+",
        type=_named_rate,
        metavar="NAME=VALUE",
        help="of contestants, such as peft-lora=2e-3",
    )


def _named_rate(text):
    name, _, value = text.partition("=")
    if name not in FINE_TUNING:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write one of {', '.join(FINE_TUNING)}, '=' and a number"
        )
    rate = float(value)
    if not rate > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: the number must be above 0")
    return name, rate


def complete(options):
    """Add what the measurements use beside what was typed."""
    if options.results is None:
        mine = results.MINE / "short" if options.what == "short" else results.MINE
        options.results = results.QUICK if options.quick else mine
    elif options.quick:  # what hours have measured stays
        options.results = options.results / "quick"
    device_type = resolve_compute(options.device).device.type
    options.kept_as = f"{device_type}-{options.name}" if options.name else device_type
    options.epochs = options.epochs or _EPOCHS.get(options.what)
    options.learning_rates = dict(options.learning_rate)
    if options.quick and options.what in MEASUREMENTS:
        MEASUREMENTS[options.what].quicken(options)

    def load(name=None):
        if options.data:
            return load_csv(options.data, options.text, options.label)
        return load_task(name or options.task)

    options.load, options.say = load, results.say
    n_test = getattr(options, "n_test", 0)
    if n_test is None or (n_test and options.quick):
        options.n_test = n_test or _TO_PREDICT
        if options.data:
            options.n_test = min(options.n_test, max(1, len(load().texts) // 4))
    options.show = lambda name, turn, result: results.say(
        f"round {turn}, {name}: fit {result['fit_wall']:.1f} s, predict "
        f"{result['predict_wall']:.2f} s, accuracy {result['accuracy']:.3f}"
    )


def measure(options, arguments):
    """Run a measurement; write its JSON and print its Markdown."""
    module = MEASUREMENTS[options.what]
    warnings.simplefilter("ignore")  # of the contestants' libraries: not our subject
    asked = without_results(arguments)
    command = shlex.join(["python", "-m", "benchmarks", *asked])
    result = module.run(options)
    path = results.write(
        options.results, options.what, options.kept_as, command, **result
    )
    print(f"> {results.describe()}\n\n{module.to_markdown(result)}")
    options.say(f"\nWrote {path}.")


def run_all(options, measurements, arguments):
    """Run measurements each in a process of its own, so that none warms another.

    `measurements` has the options of each, before what was typed behind the name.
    """
    for what, given in measurements.items():
        where = [] if options.quick else ["--results", str(options.results)]
        command = [sys.executable, "-m", "benchmarks", what, "--of-all"]
        command += [*given, *arguments[1:], *where]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"`{what}` failed; what came before it is kept.")
    if not options.quick:
        report.run(options)


if __name__ == "__main__":
    main()

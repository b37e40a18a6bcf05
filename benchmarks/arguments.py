"""What the command lines share."""

import argparse
import re
from pathlib import Path


def positive(text):
    """Return the positive integer that an argument is, as an argparse type."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer. Got {text!r}")
    return number


def part_of_a_name(text):
    """Return what can be a part of a file's name, as an argparse type."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise argparse.ArgumentTypeError(
            f"must be of letters, digits, - and _. Got {text!r}"
        )
    return text


def without_results(arguments):
    """Return arguments without those that are no part of a result, as its place."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--results")
    parser.add_argument("--name")
    parser.add_argument("--of-all", action="store_true")  # which nobody types
    return parser.parse_known_args(arguments)[1]


def chosen_sizes(arguments, script, description, sizes):
    """Parse the command line of a script that has only --sizes."""
    return _parser_of_sizes(script, description, sizes).parse_args(arguments).sizes


def chosen_files_and_sizes(arguments, script, description, names, sizes):
    """Parse the command line of a script of public data, which has --sizes.

    Returns
    -------
    files : dict of str to Path
        The file of each name, which exists.
    sizes : list of int
    """
    parser = _parser_of_sizes(script, description, sizes)
    parser.add_argument("folder", type=Path, help="where the CSV files are")
    options = parser.parse_args(arguments)
    files = {name: options.folder / f"{name}.csv" for name in names}
    missing = [file.name for file in files.values() if not file.exists()]
    if missing:
        parser.error(
            f"{options.folder} lacks {missing[0]}: run `python -m benchmarks public "
            f"{options.folder}` first"
        )
    return files, options.sizes


def script_parser(script, description):
    """Return a parser for one of the scripts, called as one command runs it."""
    prog = f"python -m benchmarks {script}"
    return argparse.ArgumentParser(prog=prog, description=description)


def add_sizes(parser, sizes):
    """Declare --sizes, by default all."""
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        choices=sizes,
        default=sizes,
        help="rows to learn from (default: all)",
    )


def _parser_of_sizes(script, description, sizes):
    parser = script_parser(script, description)
    add_sizes(parser, sizes)
    return parser

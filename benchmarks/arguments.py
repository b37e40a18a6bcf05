"""What the command lines share."""

import argparse


def positive(text):
    """Return the positive integer that an argument is, as an argparse type."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer. Got {text!r}")
    return number


def without_results(arguments):
    """Return arguments without --results: where a result went is no part of it."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--results")
    return parser.parse_known_args(arguments)[1]

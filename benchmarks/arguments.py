"""What the command lines share."""

import argparse


def without_results(arguments):
    """Return arguments without --results: where a result went is no part of it."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--results")
    return parser.parse_known_args(arguments)[1]

"""A training step against the floor, and what of it is not forward and backward."""

from sk_adalora.runtime.devices import resolve_compute

from . import results
from .arguments import positive
from .timing import median_seconds
from .training_steps import make_step, steps_of


def add_options(parser):
    """Declare the options of the subcommand."""
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=_shape,
        default=[(32, 32), (32, 128)],
        help="texts x tokens of a batch (default: 32x32 32x128)",
    )
    parser.add_argument(
        "--rounds", type=positive, default=30, help="steps of each (default: 30)"
    )


def _shape(text):
    rows, length = text.split("x")
    return positive(rows), positive(length)


def quicken(options):
    """Set the options to a smoke test."""
    options.shapes, options.rounds = [(4, 16)], 2


def run(options):
    """Time steps of all in turn, in one process."""
    own = resolve_compute(options.device, "auto").precision
    rows = []
    for precision in dict.fromkeys(["float32", own]):
        for shape in options.shapes:
            row = measure(options, resolve_compute(options.device, precision), *shape)
            rows.append(row)
            options.say(
                f"{precision} {shape}: ours {row['seconds']['ours'] * 1e3:.1f} ms, "
                f"{row['ratio']['ours']:.2f} of the floor"
            )
    return {"rounds": options.rounds, "rows": rows}


def measure(options, compute, rows, length):
    """Return medians of a shape: seconds, ratios to the floor, and parts of ours."""
    steps = {
        name: make_step(name, rows, length, compute, options.model)
        for name in steps_of(options.model)
    }
    warm_ups = min(3, options.rounds)
    seconds = median_seconds(steps, compute.device, options.rounds, warm_ups)
    parts = steps["ours"].parts()
    parts = median_seconds(parts, compute.device, options.rounds, warm_ups)
    return {
        "precision": compute.precision,
        "rows": rows,
        "length": length,
        "seconds": seconds,
        "ratio": {name: s / seconds["floor"] for name, s in seconds.items()},
        "parts": {name: s / seconds["ours"] for name, s in parts.items()},
    }


def to_markdown(result):
    """Return the tables of ratios and of parts."""
    names = [name for name in result["rows"][0]["ratio"] if name != "floor"]
    lines = [
        [
            row["precision"],
            f"{row['rows']} x {row['length']}",
            f"{row['seconds']['floor'] * 1e3:.1f}",
            *(f"{row['ratio'][name]:.2f}" for name in names),
        ]
        for row in result["rows"]
    ]
    header = ["precision", "texts x tokens", "floor, ms"]
    text = results.table(header + [f"{name} / floor" for name in names], lines)
    parts = list(result["rows"][0]["parts"])
    lines = [
        [
            row["precision"],
            f"{row['rows']} x {row['length']}",
            *(f"{row['parts'][name]:.1%}" for name in parts),
            f"{sum(row['parts'].values()):.1%}",
        ]
        for row in result["rows"]
    ]
    header = ["precision", "texts x tokens", *parts, "together"]
    return (
        f"{text}\n\nShares of a step of ours that allocates:\n\n"
        f"{results.table(header, lines)}"
    )

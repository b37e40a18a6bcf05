"""How memory grows with the rows: fits of made-up texts, stopped after some steps."""

from . import results
from .arguments import positive
from .timing import run_job

# Ours, and those of Trainer, which can be stopped after some steps.
CONTESTANTS = ("ours", "peft-adalora", "peft-tuned", "peft-lora", "full")


def add_options(parser):
    """Declare the options of the subcommand."""
    parser.add_argument(
        "--rows",
        nargs="+",
        type=positive,
        default=[10_000, 100_000, 1_000_000],
        help="numbers of rows (default: 10000 100000 1000000)",
    )
    parser.add_argument(
        "--steps", type=positive, default=20, help="optimizer steps (default: 20)"
    )
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=CONTESTANTS,
        default=["ours", "peft-adalora"],
        help="who is measured: ours and those of Trainer (default: ours peft-adalora)",
    )


def quicken(options):
    """Set the options to a smoke test."""
    options.rows, options.steps = [200, 2_000], 2


def run(options):
    """Measure each contestant with each number of rows, each in its own process."""
    settings = {"epochs": 1, "device": options.device}
    rows = []
    for contestant in options.contestants:
        for n_rows in options.rows:
            job = {
                "kind": "memory",
                "contestant": contestant,
                "n_rows": n_rows,
                "steps": options.steps,
                "settings": settings,
            }
            result = run_job(job)
            rows.append({"contestant": contestant, "rows": n_rows, **result})
            options.say(f"{contestant}, {n_rows:,} rows: {_gigabytes(rows[-1])} GB")
    return {"rows": rows}


def to_markdown(result):
    """Return the table."""
    on_cuda = any(row.get("cuda_peak_bytes") for row in result["rows"])
    lines = []
    for row in result["rows"]:
        lines.append(
            [
                row["contestant"],
                f"{row['rows']:,}",
                row["steps"],
                f"{row['seconds']:.0f}",
                _gigabytes(row),
                f"{(row['peak_bytes'] - row['bytes_before']) / 1e9:.2f}",
                *([f"{row['cuda_peak_bytes'] / 1e9:.2f}"] if on_cuda else []),
            ]
        )
    header = ["contestant", "rows", "steps", "seconds", "peak, GB", "of the fit, GB"]
    header += ["on the card, GB"] if on_cuda else []
    return results.table(header, lines)


def _gigabytes(row):
    return f"{row['peak_bytes'] / 1e9:.2f}"

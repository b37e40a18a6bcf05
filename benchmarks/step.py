"""A training step against the floor, and what of it is not forward and backward."""

from .inside import resolve_place
from .results import say, table
from .timing import median_seconds
from .training_steps import make_step, steps_of


def add_options(add):
    """Declare the options of the command."""
    default = [(32, 32), (32, 128)]
    add("--shapes", nargs="+", type=_shape, default=default, help="texts x tokens")
    add("--rounds", type=int, default=30, help="steps of each")


def _shape(text):
    rows, length = text.split("x")
    return int(rows), int(length)


def quicken(options):
    """Set the options to a smoke test."""
    options.shapes, options.rounds = [(4, 16)], 2


def run(options):
    """Time steps of all in turn, in one process."""
    own = resolve_place(options.device, "auto").precision
    rows = []
    for precision in dict.fromkeys(["float32", own]):
        for shape in options.shapes:
            row = measure(options, resolve_place(options.device, precision), *shape)
            rows.append(row)
            ours, floor = row["seconds"]["ours"], row["seconds"]["floor"]
            say(f"{precision} {shape}: ours {ours:.3f} s, {ours / floor:.2f} floors")
    return {"rounds": options.rounds}, rows


def measure(options, place, rows, length):
    """Return medians of a shape: seconds, ratios to the floor, and parts of ours."""
    steps = {
        name: make_step(name, rows, length, place, options.model)
        for name in steps_of(options.model)
    }
    warm_ups = min(3, options.rounds)
    seconds = median_seconds(steps, place.device, options.rounds, warm_ups)
    parts = steps["ours"].parts()
    parts = median_seconds(parts, place.device, options.rounds, warm_ups)
    return {
        "precision": place.precision,
        "rows": rows,
        "length": length,
        "seconds": seconds,
        "ratio": {name: s / seconds["floor"] for name, s in seconds.items()},
        "parts": {name: s / seconds["ours"] for name, s in parts.items()},
    }


def to_markdown(about, rows):
    """Return the tables of ratios and of parts."""
    names = [name for name in rows[0]["ratio"] if name != "floor"]
    parts = list(rows[0]["parts"])
    ratios, shares = [], []
    for row in rows:
        shape = [row["precision"], f"{row['rows']} x {row['length']}"]
        floor = f"{row['seconds']['floor'] * 1e3:.1f}"
        ratios.append([*shape, floor, *(f"{row['ratio'][n]:.2f}" for n in names)])
        of_ours = [*row["parts"].values(), sum(row["parts"].values())]
        shares.append([*shape, *(f"{share:.1%}" for share in of_ours)])
    header = ["precision", "texts x tokens", "floor, ms"]
    return (
        f"{table(header + [f'{name} / floor' for name in names], ratios)}\n\n"
        "Shares of a step of ours that allocates:\n\n"
        f"{table([*header[:2], *parts, 'together'], shares)}"
    )

"""Fit and predict: ours beside PEFT's AdaLoRA with Trainer, in seconds and bytes."""

from dataclasses import asdict

from sk_adalora.runtime.devices import resolve_compute

from . import results
from .arguments import positive
from .contestants import CONTESTANTS, settings_of
from .data import split
from .timing import medians, run_job, take_turns

_MEASURED = ("fit_wall", "fit_cpu", "predict_wall", "predict_cpu", "peak_bytes")


def add_options(parser):
    """Declare the options of the subcommand."""
    parser.add_argument(
        "--n-train",
        type=positive,
        default=4000,
        help="rows to learn from (default: 4000)",
    )
    parser.add_argument(
        "--n-test", type=positive, help="rows to predict (default: 1000, fewer of few)"
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=3,
        help="turns of each contestant (default: 3)",
    )
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=[n for n in CONTESTANTS if n not in ("ours", "setfit")],
        default=["peft-adalora", "peft-tuned"],
        help="who is compared with ours (default: peft-adalora peft-tuned)",
    )


def quicken(options):
    """Set the options to a smoke test."""
    options.n_train, options.n_test, options.rounds, options.epochs = 96, 64, 1, 1


def run(options):
    """Let all take turns, each in a process of its own."""
    task = options.load()
    splits = [
        split(task, options.n_train, options.n_test, seed)
        for seed in range(options.rounds)
    ]
    own = resolve_compute(options.device, "auto").precision
    calls = {}
    for name in ["ours", *options.contestants]:
        for precision in dict.fromkeys(["float32", own]):
            if not (name == "skorch" and precision != "float32"):
                calls[f"{name} {precision}"] = _call(options, splits, name, precision)
    measured = take_turns(calls, options.rounds, show=options.show)
    contestants = [
        {
            "contestant": key.split()[0],
            "precision": key.split()[1],
            **medians(rows),
            "accuracies": [row["accuracy"] for row in rows],
            "rounds": rows,
        }
        for key, rows in measured.items()
    ]
    return {
        "task": task.name,
        "n_train": len(splits[0][0]),
        "n_test": options.n_test,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
        "own_precision": own,
        "contestants": contestants,
        "ratios": ratios(contestants, own),
    }


def _call(options, splits, name, precision):
    def call(turn):
        rate = options.learning_rates.get(name)
        settings = settings_of(
            options, precision=precision, seed=turn, learning_rate=rate
        )
        names = ("X_train", "y_train", "X_test", "y_test")
        job = {"kind": "fit", "contestant": name, "settings": asdict(settings)}
        return run_job({**job, "data": dict(zip(names, splits[turn], strict=True))})

    return call


def ratios(contestants, own):
    """Compare ours with each other contestant: on defaults, and in equal precision.

    Parameters
    ----------
    contestants : list of dict
        Medians by contestant and precision.
    own : str
        Precision that ours takes by itself.

    Returns
    -------
    list of dict
        Ours divided by theirs, and the difference of the mean accuracies.
    """
    by_key = {(row["contestant"], row["precision"]): row for row in contestants}
    compared = []
    for name in dict.fromkeys(row["contestant"] for row in contestants):
        pairs = {
            f"defaults ({own} / float32)": (own, "float32"),
            "both float32": ("float32", "float32"),
            f"both {own}": (own, own),
        }
        if own == "float32":
            pairs = {"defaults, both float32": (own, own)}
        for how, (ours, theirs) in pairs.items():
            if name != "ours" and (name, theirs) in by_key:
                pair = by_key["ours", ours], by_key[name, theirs]
                compared.append({"against": name, "how": how, **_divide(*pair)})
    return compared


def _divide(ours, theirs):
    ratio = {key: ours[key] / theirs[key] for key in _MEASURED}
    rises = [row["peak_bytes"] - row["bytes_before"] for row in (ours, theirs)]
    ratio["rise_bytes"] = rises[0] / rises[1] if rises[1] else None
    if ours.get("cuda_peak_bytes"):
        ratio["cuda_peak_bytes"] = ours["cuda_peak_bytes"] / theirs["cuda_peak_bytes"]
    means = [sum(row["accuracies"]) / len(row["accuracies"]) for row in (ours, theirs)]
    return {**ratio, "accuracy": means[0] - means[1]}


def to_markdown(result):
    """Return the tables of medians and of ratios."""
    epochs = result["epochs"]
    passes = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    lines = [
        f"Task `{result['task']}`: {result['n_train']:,} rows to learn from, "
        f"{result['n_test']:,} to predict, {passes}, batches of "
        f"{result['batch_size']}, at most {result['max_length']} tokens. Medians.\n"
    ]
    on_cuda = "cuda_peak_bytes" in result["contestants"][0]
    rows = [
        [
            row["contestant"],
            row["precision"],
            f"{row['fit_wall']:.1f}",
            f"{row['fit_cpu']:.1f}",
            f"{row['predict_wall']:.2f}",
            f"{row['predict_cpu']:.2f}",
            _gigabytes(row["peak_bytes"]),
            _gigabytes(row["bytes_before"]),
            *([_gigabytes(row["cuda_peak_bytes"])] if on_cuda else []),
            " ".join(f"{a:.3f}" for a in row["accuracies"]),
        ]
        for row in result["contestants"]
    ]
    header = ["contestant", "precision", "fit, s", "CPU s", "predict, s", "CPU s"]
    header += ["peak memory, GB", "before the fit, GB"]
    header += [*(["on the card, GB"] if on_cuda else []), "accuracy by seed"]
    lines.append(results.table(header, rows))
    lines.append("\nOurs divided by theirs (below 1: ours takes less):\n")
    rows = [
        [
            ratio["against"],
            ratio["how"],
            *(f"{ratio[key]:.2f}" for key in _MEASURED),
            _two_digits(ratio["rise_bytes"]),
            *([_two_digits(ratio["cuda_peak_bytes"])] if on_cuda else []),
            f"{100 * ratio['accuracy']:+.1f}",
        ]
        for ratio in result["ratios"]
    ]
    header = ["against", "precision", "fit", "fit, CPU", "predict", "predict, CPU"]
    header += ["peak memory", "peak less before the fit"]
    header += [*(["on the card"] if on_cuda else []), "accuracy, points"]
    lines.append(results.table(header, rows))
    return "\n".join(lines)


def _gigabytes(count):
    return f"{count / 1e9:.2f}"


def _two_digits(ratio):
    return "-" if ratio is None else f"{ratio:.2f}"

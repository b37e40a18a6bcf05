"""Fit and predict: ours beside PEFT's AdaLoRA with Trainer, in seconds and bytes."""

from dataclasses import asdict
from statistics import mean, median

from .contestants import CONTESTANTS, settings_of
from .data import split
from .inside import resolve_place
from .results import say, table
from .timing import take_turns
from .worker import run_job

_MEASURED = ("fit_wall", "fit_cpu", "predict_wall", "predict_cpu", "peak_bytes")


def add_options(add):
    """Declare the options of the command."""
    add("--n-train", type=int, default=4000, help="rows to learn from")
    add("--rounds", type=int, default=3, help="turns of each contestant")
    add(
        "--contestants",
        nargs="+",
        choices=[n for n in CONTESTANTS if n not in ("ours", "setfit")],
        default=["peft-adalora", "peft-tuned"],
        help="who is compared with ours",
    )


def quicken(options):
    """Set the options to a smoke test."""
    options.n_train, options.rounds, options.epochs = 96, 1, 1


def run(options):
    """Let all take turns, each in a process of its own."""
    task = options.load()
    seeds = range(options.rounds)
    splits = [split(task, options.n_train, options.n_test, seed) for seed in seeds]
    own = resolve_place(options.device, "auto").precision
    calls = {}
    for name in ["ours", *options.contestants]:
        for precision in dict.fromkeys(["float32", own]):
            if not (name == "skorch" and precision != "float32"):
                calls[name, precision] = _call(options, splits, name, precision)
    rows = []
    for (name, precision), found in take_turns(calls, options.rounds).items():
        numbers = [k for k, v in found[0].items() if isinstance(v, int | float)]
        medians = {key: median(row[key] for row in found) for key in numbers}
        accuracies = [row["accuracy"] for row in found]
        row = {"contestant": name, "precision": precision, **medians}
        rows.append({**row, "accuracies": accuracies, "rounds": found})
    about = {"task": task.name, "n_train": len(splits[0][0]), "own_precision": own}
    shared = ("n_test", "epochs", "batch_size", "max_length")
    return {**about, **{name: getattr(options, name) for name in shared}}, rows


def _call(options, splits, name, precision):
    def call(turn):
        rate = dict(options.learning_rate).get(name)
        settings = settings_of(
            options, precision=precision, seed=turn, learning_rate=rate
        )
        given = {"settings": asdict(settings), "data": splits[turn]}
        result = run_job(job="fit", contestant=name, **given)
        say(
            f"round {turn}, {name} {precision}: fit {result['fit_wall']:.1f} s, "
            f"predict {result['predict_wall']:.2f} s, {result['accuracy']:.3f}"
        )
        return result

    return call


def ratios(rows, own):
    """Compare ours with each other contestant: on defaults, and in equal precision.

    Parameters
    ----------
    rows : list of dict
        Medians by contestant and precision.
    own : str
        Precision that ours takes by itself.

    Returns
    -------
    list of dict
        Ours divided by theirs, and the difference of the mean accuracies.
    """
    by_key = {(row["contestant"], row["precision"]): row for row in rows}
    pairs = {
        f"defaults ({own} / float32)": (own, "float32"),
        "both float32": ("float32", "float32"),
        f"both {own}": (own, own),
    }
    if own == "float32":
        pairs = {"defaults, both float32": (own, own)}
    compared = []
    for name in dict.fromkeys(row["contestant"] for row in rows):
        for how, (ours, theirs) in pairs.items():
            if name != "ours" and (name, theirs) in by_key:
                pair = by_key["ours", ours], by_key[name, theirs]
                compared.append({"against": name, "how": how, **_divide(*pair)})
    return compared


def _divide(ours, theirs):
    ratio = {key: ours[key] / theirs[key] for key in _MEASURED}
    rises = [row["peak_bytes"] - row["bytes_before"] for row in (ours, theirs)]
    ratio["rise_bytes"] = rises[0] / rises[1]
    if ours.get("cuda_peak_bytes"):
        ratio["cuda_peak_bytes"] = ours["cuda_peak_bytes"] / theirs["cuda_peak_bytes"]
    return {**ratio, "accuracy": mean(ours["accuracies"]) - mean(theirs["accuracies"])}


def to_markdown(about, rows):
    """Return the tables of medians and of ratios."""
    epochs = about["epochs"]
    passes = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    on_cuda = "cuda_peak_bytes" in rows[0]
    card = ["cuda_peak_bytes"] if on_cuda else []
    lines = []
    for row in rows:
        line = [row["contestant"], row["precision"]]
        line += [f"{row['fit_wall']:.1f}", f"{row['fit_cpu']:.1f}"]
        line += [f"{row['predict_wall']:.2f}", f"{row['predict_cpu']:.2f}"]
        of_memory = ("peak_bytes", "bytes_before", *card)
        line += [f"{row[key] / 1e9:.2f}" for key in of_memory]
        lines.append([*line, " ".join(f"{a:.3f}" for a in row["accuracies"])])
    header = ["contestant", "precision", "fit, s", "CPU s", "predict, s", "CPU s"]
    header += ["peak memory, GB", "before the fit, GB"]
    header += ["on the card, GB"] if on_cuda else []
    measured = table([*header, "accuracy by seed"], lines)
    lines = []
    for ratio in ratios(rows, about["own_precision"]):
        line = [ratio["against"], ratio["how"]]
        line += [f"{ratio[key]:.2f}" for key in (*_MEASURED, "rise_bytes", *card)]
        lines.append([*line, f"{100 * ratio['accuracy']:+.1f}"])
    header = ["against", "precision", "fit", "fit, CPU", "predict", "predict, CPU"]
    header += ["peak memory", "peak less before the fit"]
    header += ["on the card"] if on_cuda else []
    compared = table([*header, "accuracy, points"], lines)
    return (
        f"Task `{about['task']}`: {about['n_train']:,} rows to learn from, "
        f"{about['n_test']:,} to predict, {passes}, batches of {about['batch_size']}, "
        f"at most {about['max_length']} tokens. Medians.\n\n{measured}\n\n"
        f"Ours divided by theirs (below 1: ours takes less):\n\n{compared}"
    )

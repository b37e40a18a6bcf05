"""Where the time of a fit and of a prediction of ours goes."""

import torch

from sk_adalora.adalora import AdaLoraModel
from sk_adalora.estimators import fitting as _fitting
from sk_adalora.estimators import predicting as _predicting
from sk_adalora.network.network import TextNetwork
from sk_adalora.runtime.devices import resolve_compute
from sk_adalora.training import loop as _training

from . import results
from .arguments import positive
from .contestants import fit, settings_of
from .data import split
from .timing import Stopwatch
from .worker import warm_up

REST = "the rest"
# What the code calls it -> what it is. A name that is gone is an error.
FIT = [
    (_predicting, "load_backbone", "reading the model"),
    (_fitting, "encode_for_training", "tokenising"),
    (_fitting, "fit_head", "linear model that the head starts at"),
    (_training, "training_batches", "batching"),
    (_training, "pad", "batching"),
    (TextNetwork, "forward", "forward"),
    (torch.Tensor, "backward", "backward"),
    (torch.nn.utils, "clip_grad_norm_", "clipping"),
    (torch.optim.AdamW, "step", "optimizer"),
    (AdaLoraModel, "orthogonality_loss", "orthogonality, forward"),
    (AdaLoraModel, "update_and_allocate", "allocation"),
    (AdaLoraModel, "compact", "compaction"),
    (_fitting.FitMixin, "_fitted_attributes", "keeping the result"),
    (_fitting, "rebuild_network", "keeping the result"),
]
PREDICT = [
    (_predicting, "encode_for_prediction", "tokenising"),
    (_predicting, "prediction_batches", "batching"),
    (_predicting, "pad", "batching"),
    (TextNetwork, "forward", "forward"),
]


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


def quicken(options):
    """Set the options to a smoke test."""
    options.n_train, options.n_test, options.epochs = 96, 64, 1


def run(options):
    """Fit and predict under a stopwatch, in each precision."""
    X_train, y_train, X_test, _ = split(
        options.load(), options.n_train, options.n_test, 0
    )
    own = resolve_compute(options.device, "auto").precision
    rows = []
    for precision in dict.fromkeys(["float32", own]):
        settings = settings_of(options, precision=precision)
        warm_up(fit, "ours", X_train, y_train, settings)
        row = {"precision": precision, **measure(X_train, y_train, X_test, settings)}
        rows.append(row)
        options.say(f"{precision}: fit {sum(row['fit'].values()):.1f} s")
    return {"n_train": len(X_train), "n_test": len(X_test), "rows": rows}


def measure(X_train, y_train, X_test, settings):
    """Return the seconds of each part of a fit, and of each part of a prediction."""
    device = settings.compute.device
    fitting, predicting = Stopwatch(device), Stopwatch(device)
    with fitting.watching(FIT), fitting.watch(REST):
        classifier = fit("ours", X_train, y_train, settings)
    with predicting.watching(PREDICT), predicting.watch(REST):
        classifier.predict(X_test)
    return {"fit": dict(fitting.seconds), "predict": dict(predicting.seconds)}


def to_markdown(result):
    """Return a table for the fit and one for the prediction."""
    text = []
    for phase, n_rows in (("fit", result["n_train"]), ("predict", result["n_test"])):
        found = [row[phase] for row in result["rows"]]
        parts = dict.fromkeys(name for seconds in found for name in seconds)
        lines = [
            [name, *(_share(seconds, name) for seconds in found)] for name in parts
        ]
        lines.append(["together", *(f"{sum(s.values()):.2f} s" for s in found)])
        precisions = [row["precision"] for row in result["rows"]]
        text.append(results.table([f"{phase}, {n_rows:,} rows", *precisions], lines))
    return "\n\n".join(text)


def _share(seconds, name):
    part = seconds.get(name, 0)
    return f"{part:.2f} s, {part / sum(seconds.values()):.1%}"

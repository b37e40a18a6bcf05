"""Where the time of a fit and of a prediction of ours goes."""

import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from transformers import AutoModel, PreTrainedTokenizerBase

from sk_adalora import AdaLoraModel

from .contestants import fit, settings_of
from .data import split
from .inside import resolve_compute
from .results import say, table
from .timing import wait_for
from .worker import warm_up

REST = "the rest"
# Whose method, its name, and what it is. All are public: of torch, of transformers and
# of the engine. A name that is gone is an error.
PARTS = [
    (AutoModel, "from_pretrained", "reading the model"),
    (PreTrainedTokenizerBase, "__call__", "tokenising"),
    (torch.optim.LBFGS, "step", "linear model that the head starts at"),
    (AdaLoraModel, "__call__", "forward"),
    (torch.Tensor, "backward", "backward"),
    (torch.nn.utils, "clip_grad_norm_", "clipping"),
    (torch.optim.AdamW, "step", "optimizer"),
    (AdaLoraModel, "orthogonality_loss", "orthogonality, forward"),
    (AdaLoraModel, "update_and_allocate", "allocation"),
    (AdaLoraModel, "compact", "compaction"),
]


class Stopwatch:
    """Where the time goes: seconds inside some functions, without what these call.

    Parameters
    ----------
    device : torch.device
        Waited for at each border, so that its work is counted where it was asked for.

    Attributes
    ----------
    seconds : dict of name -> float
        Seconds by name. What a watched function spends in another watched one is
        counted there only.
    """

    def __init__(self, device):
        self.device = device
        self.seconds = defaultdict(float)
        self._running = []
        self._since = 0.0

    @contextmanager
    def watch(self, name):
        """Count the time of a block."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def _switch(self):
        """Give the time since the last border to whoever ran."""
        wait_for(self.device)
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def watching(self, functions):
        """Watch functions, as `PARTS` lists them, while a block runs."""
        with ExitStack() as stack:
            for owner, attribute, name in functions:
                wrapped = self._wrap(getattr(owner, attribute), name)
                stack.enter_context(mock.patch.object(owner, attribute, wrapped))
            yield self

    def _wrap(self, function, name):
        def watched(*args, **kwargs):
            with self.watch(name):
                return function(*args, **kwargs)

        return watched


def add_options(add):
    """Declare the options of the command."""
    add("--n-train", type=int, default=4000, help="rows to learn from")


def quicken(options):
    """Set the options to a smoke test."""
    options.n_train, options.epochs = 96, 1


def run(options):
    """Fit and predict under a stopwatch, in each precision."""
    rows_of_split = split(options.load(), options.n_train, options.n_test, 0)
    X_train, y_train, X_test, _ = rows_of_split
    own = resolve_compute(options.device, "auto").precision
    rows = []
    for precision in dict.fromkeys(["float32", own]):
        settings = settings_of(options, precision=precision)
        warm_up(fit, "ours", X_train, y_train, settings)
        row = {"precision": precision, **measure(X_train, y_train, X_test, settings)}
        rows.append(row)
        say(f"{precision}: fit {sum(row['fit'].values()):.1f} s")
    return {"n_train": len(X_train), "n_test": len(X_test)}, rows


def measure(X_train, y_train, X_test, settings):
    """Return the seconds of each part of a fit, and of each part of a prediction."""
    device = settings.compute.device
    fitting, predicting = Stopwatch(device), Stopwatch(device)
    with fitting.watching(PARTS), fitting.watch(REST):
        classifier = fit("ours", X_train, y_train, settings)
    with predicting.watching(PARTS), predicting.watch(REST):
        classifier.predict(X_test)
    return {"fit": dict(fitting.seconds), "predict": dict(predicting.seconds)}


def to_markdown(about, rows):
    """Return a table for the fit and one for the prediction."""
    text = []
    for phase, n_rows in (("fit", about["n_train"]), ("predict", about["n_test"])):
        found = [row[phase] for row in rows]
        parts = dict.fromkeys(name for seconds in found for name in seconds)
        lines = [
            [name, *(_share(seconds, name) for seconds in found)] for name in parts
        ]
        lines.append(["together", *(f"{sum(s.values()):.2f} s" for s in found)])
        precisions = [row["precision"] for row in rows]
        text.append(table([f"{phase}, {n_rows:,} rows", *precisions], lines))
    return "\n\n".join(text)


def _share(seconds, name):
    part = seconds.get(name, 0)
    return f"{part:.2f} s, {part / sum(seconds.values()):.1%}"

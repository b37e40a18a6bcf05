"""What the defaults reach with another pretrained model, and other learning rates.

Beside them, two linear models with settings searched by cross-validation: of the mean
of the model's frozen vectors, and of counted words. Prints a table.

    python -m benchmarks models FOLDER [--pooling last] [--sizes 200]
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
import warnings
from collections import defaultdict
from statistics import mean

from sklearn.metrics import accuracy_score

from sk_adalora import AdaLoraClassifier

from .arguments import add_sizes, script_parser
from .contestants import Settings, fit
from .data import load_task, split
from .machine import describe_machine
from .results import say, table

# The splits of each task and number of rows; no value of a setting was chosen on them.
SEEDS = {
    ("headlines", 200): [20, 21],
    ("headlines", 1000): [20, 21],
    ("quotes", 200): [20],
}
RATES = [0.002, 0.004, 0.008, 0.016]  # 0.008 is the default
N_TEST, MAX_LENGTH = 600, 64
_LINEAR = ["tfidf", "embeddings"]


def main(arguments=None):
    """Measure all cells, and print a table of their means."""
    options = _parse(arguments)
    warnings.simplefilter("ignore")  # that some texts are cut
    scores, seconds = defaultdict(list), defaultdict(list)
    lines = []
    cells = [cell for cell in SEEDS if cell[1] in options.sizes]
    # All of them first: one may be missing.
    tasks = {name: load_task(name) for name, _ in cells}
    for name, size in cells:
        for seed in SEEDS[name, size]:
            rows = split(tasks[name], size, N_TEST, seed)
            X_train, y_train, X_test, y_test = rows
            for who in [*_LINEAR, *RATES]:
                begun = time.process_time()
                fitted = _fit(who, X_train, y_train, seed, options)
                took = time.process_time() - begun
                score = accuracy_score(y_test, fitted.predict(X_test))
                scores[name, size, who].append(score)
                seconds[name, size, who].append(took)
                say(f"{name} {size} seed {seed}, {who}: {score:.3f} ({took:.0f} s)")
        line = [f"{mean(scores[name, size, who]):.3f}" for who in [*_LINEAR, *RATES]]
        taken = mean(took for rate in RATES for took in seconds[name, size, rate])
        lines.append([name, f"{size:,}", len(SEEDS[name, size]), *line, f"{taken:.0f}"])
    print(f"{describe_machine()}\n\nAccuracy on {N_TEST} rows, by learning rate:\n")
    heads = ["TF-IDF", "embeddings", *map(str, RATES), "CPU s of a fit"]
    print(table(["task", "rows", "splits", *heads], lines))


def _parse(arguments):
    parser = script_parser("models", __doc__.partition("\n")[0])
    parser.add_argument("model", help="folder, or id of a model in the local cache")
    parser.add_argument(
        "--pooling",
        choices=["mean", "cls", "last", "max"],
        default="mean",
        help="of ours (default: mean)",
    )
    add_sizes(parser, sorted({size for _, size in SEEDS}))
    return parser.parse_args(arguments)


def _fit(who, texts, labels, seed, options):
    """Fit a linear contestant, or ours with the learning rate that `who` is."""
    if who in _LINEAR:
        settings = Settings(
            max_length=MAX_LENGTH, device="cpu", seed=seed, model=options.model
        )
        return fit(who, texts, labels, settings)
    classifier = AdaLoraClassifier(
        options.model,
        pooling=options.pooling,
        learning_rate=who,
        max_length=MAX_LENGTH,
        device="cpu",
        random_state=seed,
    )
    return classifier.fit(texts, labels)


if __name__ == "__main__":
    main()

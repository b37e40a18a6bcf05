"""How much to penalise the linear model that the head starts at: many or rare classes.

"0.01" is the penalty of few frequent classes. The default falls with the square of the
number of classes, and of the share of a class, and "a quarter" is a quarter of that,
but at least 0.0001. The rows of many classes once more as labels, one a row. FOLDER is
what `public_data.py` wrote. Prints two tables.

    python -m benchmarks many FOLDER
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import warnings
from unittest import mock

from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import LabelBinarizer

from sk_adalora import AdaLoraClassifier
from sk_adalora.training import linear_probe as _linear_probe

from .arguments import chosen_files_and_sizes
from .contestants import Settings, fit
from .data import load_csv, split
from .machine import describe_machine
from .probabilities import accuracy_and_loss
from .results import say, table

# 200 rows of 150 classes would be one of each. The last two have few classes, of which
# some are rare.
MANY = {"banking": [200, 1000], "intents": [1000]}
TASKS = {**MANY, "newswire": [200, 1000], "questions": [1000]}
TIMES = {"0.01": 1e9, "default": _linear_probe._PENALTY_OF_SHARES, "a quarter": 1}
SEEDS, N_TEST = [30, 31], 1000


def main(arguments=None):
    """Measure all cells, and print two tables of them."""
    files, wanted = chosen_files_and_sizes(
        arguments, "many", __doc__.partition("\n")[0], list(TASKS), [200, 1000]
    )
    warnings.simplefilter("ignore")  # that folds lack classes
    of_classes, of_labels = [], []
    for name, sizes in TASKS.items():
        task = load_csv(files[name], "text", "label")
        for size in filter(wanted.__contains__, sizes):
            splits = [(seed, split(task, size, N_TEST, seed)) for seed in SEEDS]
            line = [name, f"{size:,}"]
            embeddings = _mean(frozen(*rows, seed) for seed, rows in splits)
            of_classes.append([*line, embeddings])
            of_classes[-1] += _each_way(classify, splits)
            say(*of_classes[-1])
            if name in MANY:
                of_labels.append([*line, *_each_way(tag, splits)])
                say(*of_labels[-1])
    print(f"{describe_machine()}\n\nAccuracy / log loss, classes:\n")
    print(table(["task", "rows", "embeddings", *TIMES], of_classes))
    print("\nMicro-averaged F1, labels:\n")
    print(table(["task", "rows", *TIMES], of_labels))


def _each_way(measure, splits):
    """Return the mean of what is measured with each penalty."""
    found = []
    for times in TIMES.values():
        with mock.patch.object(_linear_probe, "_PENALTY_OF_SHARES", times):
            found.append(_mean(measure(*rows, seed) for seed, rows in splits))
    return found


def classify(X_train, y_train, X_test, y_test, seed):
    """Return accuracy and log loss."""
    classifier = make(seed).fit(X_train, y_train)
    return accuracy_and_loss(classifier, X_test, y_test)


def tag(X_train, y_train, X_test, y_test, seed):
    """Return the F1 score of the same rows with a column a class."""
    encoder = LabelBinarizer().fit(y_train)
    tagger = make(seed).fit(X_train, encoder.transform(y_train))
    predicted = tagger.predict(X_test)
    return (f1_score(encoder.transform(y_test), predicted, average="micro"),)


def frozen(X_train, y_train, X_test, y_test, seed):
    """Return the accuracy of logistic regression on frozen embeddings."""
    settings = Settings(device="cpu", seed=seed)
    predicted = fit("embeddings", X_train, y_train, settings).predict(X_test)
    return (accuracy_score(y_test, predicted),)


def make(seed):
    """Return the estimator."""
    return AdaLoraClassifier(max_length=128, device="cpu", random_state=seed)


def _mean(found):
    parts = [statistics.mean(part) for part in zip(*found, strict=True)]
    return " / ".join(f"{part:.{3 - i}f}" for i, part in enumerate(parts))


if __name__ == "__main__":
    main()

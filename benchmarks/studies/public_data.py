"""Public data sets as CSV files: no setting was chosen on six of the twelve.

Three lie in a package, and nine are downloaded, from commits that are named here.
Writes FOLDER/NAME.csv with the columns `text` and `label`, and prints a table of them,
whose last column tells whether they are the rows that the published scores are of.

    python -m benchmarks public FOLDER
"""

import csv
import io
import json
import urllib.request
from collections import Counter
from functools import partial
from pathlib import Path

from benchmarks.data import digest, labels_and_texts, load_csv, orange_datasets
from benchmarks.results import table

BASE = "https://raw.githubusercontent.com"
# Texts that a class of these has at least: the rarest could not be split.
_FREQUENT = {"stories": 20, "kinds": 20, "abstracts": 20}


def add_options(add):
    """Declare the options of the command."""
    add("folder", type=Path, help="where the CSV files go")
    add("--only", nargs="+", choices=ALL, default=ALL)
    add("--base", default=BASE, help="address of the repositories")


def main(options):
    """Write the files, and print a line of each."""
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in options.only:
        file = options.folder / f"{name}.csv"
        rows = PACKAGED[name]() if name in PACKAGED else download(name, options.base)
        counts = Counter(label for _, label in rows)
        fewest = _FREQUENT.get(name, 0)
        write(file, [row for row in rows if counts[row[1]] >= fewest])
        task = load_csv(file, "text", "label")
        counts = Counter(task.labels).most_common()
        most, least = counts[0][1] / len(task.labels), counts[-1][1]
        rows = f"{len(task.labels):,}"
        lines.append([name, rows, len(counts), f"{most:.3f}", least, digest(task)])
    heads = ["classes", "most frequent class", "texts of the rarest", "digest"]
    print(table(["task", "texts", *heads], lines))


def write(file, rows):
    """Write pairs of a text and a label."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label"])
        writer.writerows(rows)


# ---- out of a package --------------------------------------------------------


def read_tweets():
    """Return what two candidates of 2016 wrote, and which of them."""
    file = orange_datasets() / "election-tweets-2016.tab"
    lines = csv.reader(io.StringIO(file.read_text("utf-8"), newline=""), delimiter="\t")
    names, _, _, *rows = lines
    rows = [dict(zip(names, row, strict=False)) for row in rows]
    # A retweet is of somebody else.
    return [(r["Content"], r["Author"]) for r in rows if r["Is retweet"] == "False"]


def read_reuters(name):
    """Return Reuters stories of 1987 (lower case, no signs), and their topics."""
    return [(text, topic) for topic, text in labels_and_texts(name) if topic]


PACKAGED = {
    "tweets": read_tweets,
    "newswire": partial(read_reuters, "reuters-r8"),
    "stories": partial(read_reuters, "reuters-r52"),
}

# ---- downloaded --------------------------------------------------------------


def _label_first(separator):
    """Return a reader of lines: a label, a separator, a text."""

    def read(text):
        lines = (line.partition(separator) for line in text.split("\n") if line.strip())
        return [(rest, label) for label, _, rest in lines]

    return read


def _columns(texts, labels):
    """Return a reader of a CSV file with a header, by the names of two columns."""

    def read(text):
        rows = csv.DictReader(io.StringIO(text, newline=""))
        return [(row[texts], row[labels]) for row in rows]

    return read


def _news(text):
    rows = csv.reader(io.StringIO(text, newline=""))
    return [(f"{title}\n{summary}", topic) for topic, title, summary in rows]


def _intents(text):
    parts = json.loads(text)  # "oos" are no intents
    return [row for part in ("train", "val", "test") for row in parts[part]]


_SENTENCES = (
    "AcademiaSinicaNLPLab/sentiment_dataset/23c72429de5fb3d2f3da87bf2efb5559c15b78f7"
)
# Repository and commit, files in it, and how to read each.
HOSTED = {
    "questions": (
        _SENTENCES,
        ["data/TREC.train.all", "data/TREC.test.all"],
        _label_first(" "),
    ),
    "subjectivity": (_SENTENCES, ["data/subj.all"], _label_first(" ")),
    "news": (
        "mhjabreel/CharCnn_Keras/555590db4219b1243abb1918effd6a7425a2d75f",
        ["data/ag_news_csv/test.csv"],
        _news,
    ),
    "messages": (
        "justmarkham/pycon-2016-tutorial/5339710562cc46c4a32a369d63f1e8751a18a54e",
        ["data/sms.tsv"],
        _label_first("\t"),
    ),
    "abuse": (
        "t-davidson/hate-speech-and-offensive-language/"
        "cb50f7e9eb855a99abc51423bf40df0e26d6fe30",
        ["data/labeled_data.csv"],
        _columns("tweet", "class"),
    ),
    "banking": (
        "PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b",
        ["banking_data/train.csv", "banking_data/test.csv"],
        _columns("text", "category"),
    ),
    "intents": (
        "clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de",
        ["data/data_full.json"],
        _intents,
    ),
    "kinds": (
        "architrathore/QueClassifier/7186612140df79f0d9683ecb1475938e139d0412",
        ["data/train_5500.label"],
        _label_first(" "),
    ),
    "abstracts": (
        "saditya13/G-Loss-based-fine-of-LM/94fabf408ac90c4ce733aac83bc6670e790961ad",
        ["data/ohsumed/train.csv", "data/ohsumed/val.csv"],
        _columns("text", "label"),
    ),
}
ALL = [*PACKAGED, *HOSTED]


def download(name, base=BASE):
    """Return the texts and labels of `HOSTED`.

    Raises
    ------
    OSError
        If a file cannot be read; the message names the address.
    """
    folder, paths, read = HOSTED[name]
    rows = []
    for url in (f"{base}/{folder}/{path}" for path in paths):
        try:
            with urllib.request.urlopen(url) as answer:
                rows += read(answer.read().decode("utf-8", errors="replace"))
        except (OSError, ValueError) as error:  # the latter of a path, say
            raise OSError(
                f"{url} must be reachable. Got: {error}. Connect to the network, or "
                "give --base the address of copies, such as file:///home/me/copies."
            ) from error
    return rows

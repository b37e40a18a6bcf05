"""
A search that races makes fewer fits
====================================

A grid search spends as much on the worst candidate as on the best.
:class:`~sk_adalora.AdaLoraSearchCV` asks `Optuna <https://optuna.org>`_ for one setting
after the other and scores it fold by fold. A trial that falls behind does not get the
other folds.
"""

# %%
# What may be tried
# -----------------
#
# :class:`~sk_adalora.AdaLoraSpace` has a range for each parameter worth a search.
# ``None`` leaves one out. With few trials, search few parameters.

from gallery_data import headlines
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier, AdaLoraSearchCV, AdaLoraSpace

texts, topics = headlines()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=120, test_size=400, stratify=topics, random_state=0
)
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
# Trial 0 has the classifier's own settings. Trials can fall behind once three are
# complete. ``n_folds`` is how many of the four folds a trial got.

import numpy as np
import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)
classifier = AdaLoraClassifier(epochs=2, random_state=0)
search = AdaLoraSearchCV(classifier, space, n_trials=9, cv=4, random_state=0)
search.fit(X, y)

results = search.cv_results_
folds = np.array([results[f"split{fold}_test_score"] for fold in range(4)])
n_folds = np.isfinite(folds).sum(axis=0)
print("trial  n_folds  score  init_r  target_r  learning_rate")
for i, params in enumerate(results["params"]):
    print(
        f"{results['trial_number'][i]:>5}{n_folds[i]:>9}"
        f"{results['running_mean'][i]:7.3f}{params['init_r']:>8}"
        f"{params['target_r']:>10.2f}{params['learning_rate']:>15.4f}"
    )
print(f"{n_folds.sum()} of {folds.size} fits were made")

# %%
# Was it worth it?
# ----------------
#
# The winner's own score is partly luck: it is the best of many. So score it, and the
# defaults, on headlines that no trial has seen.

default = classifier.fit(X, y).score(X_test, y_test)
winner = search.score(X_test, y_test)
error = np.sqrt(winner * (1 - winner) / len(y_test))
print(f"defaults {default:.3f}, winner {winner:.3f}, standard error {error:.3f}")

# %%
# ``search.study_`` is a study of Optuna's, which ``optuna.visualization`` draws, too.
# Here, a line is the mean of a trial's scores so far. Short lines were given up.

import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(6, 4), layout="tight")
for trial in search.study_.trials:
    means = trial.intermediate_values
    is_best = trial.number == search.study_.best_trial.number
    ax.plot(means.keys(), means.values(), "o-", lw=3 if is_best else 1)
ax.set(xlabel="fold", ylabel="mean accuracy so far", xticks=range(4))
plt.show()

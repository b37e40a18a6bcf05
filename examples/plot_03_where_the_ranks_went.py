"""
Where the ranks went: the model decides, not the task
=====================================================

AdaLoRA gives rank to the weight matrices where a change pays, and takes it from the
others. ``rank_table()`` shows where it went. Before you read a story into such a map,
compare it with that of another random state, and of another task.
"""

# %%
# Two tasks, four fits
# --------------------
#
# Topics of headlines, and genres of films from title, director and country, with 150
# rows each. The model has six layers of six matrices. All start at rank 8. Training
# gives up half of the directions.

from gallery_data import genres_of_films, headlines
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier

fits = {}
for name, (texts, labels) in {
    "headlines": headlines(),
    "films": genres_of_films(),
}.items():
    X, _, y, _ = train_test_split(
        texts, labels, train_size=150, stratify=labels, random_state=0
    )
    for seed in (0, 1):
        classifier = AdaLoraClassifier(
            init_r=8, target_r=4, epochs=5, random_state=seed
        )
        fits[name, seed] = classifier.fit(X, y)

fits["headlines", 0].rank_table()

# %%
# What is stable?
# ---------------
#
# The correlation of two maps over their 36 matrices says how much they agree. If a task
# had a map of its own, two fits of one task would agree better than fits of two tasks.

from itertools import combinations

import numpy as np

ranks = {key: np.array(list(fit.ranks_.values())) for key, fit in fits.items()}
for one, other in combinations(ranks, 2):
    correlation = np.corrcoef(ranks[one], ranks[other])[0, 1]
    print(f"{one[0]:>9} {one[1]} and {other[0]:>9} {other[1]}: {correlation:5.2f}")

# %%
# A row is a layer, counted from the input. *query* and *key* decide which words look at
# which; *value* and *attention out* carry what is seen; *up* and *down* work on each
# word by itself. Bright cells kept most of their rank. Hatched matrices are as they
# were before training. Left and right differ in nothing but the random state.

import matplotlib.pyplot as plt

from sk_adalora import RankAllocationDisplay

white = {"facecolor": "white"}
figure, axes = plt.subplots(
    2, 2, figsize=(11, 8), subplot_kw=white, layout="constrained"
)
for ax, ((name, seed), fit) in zip(axes.flat, fits.items(), strict=True):
    RankAllocationDisplay.from_estimator(fit, ax=ax)
    ax.set_title(f"{name}, random state {seed}", loc="left")
plt.show()

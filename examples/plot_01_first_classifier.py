"""
Fifty fine-tuned headlines beat 450 counted ones
================================================

The task is the topic of a news story, from its headline. Three methods learn it from
50, 150 and 450 headlines: counted words, the vectors of a pretrained model as it is,
and the same model fine-tuned by :class:`~sk_adalora.AdaLoraClassifier`.
"""

# %%
# The data
# --------
#
# Headlines of the BBC in five topics. 600 of them are kept to compare the methods.

from gallery_data import COLORS, embed, headlines
from sklearn.model_selection import train_test_split

texts, topics = headlines()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=450, test_size=600, stratify=topics, random_state=0
)
for headline, topic in zip(X[:4], y[:4], strict=True):
    print(f"{topic:<14} {headline}")

# %%
# The classifier
# --------------
#
# Texts in, labels out, like any classifier of scikit-learn. The fit freezes a
# pretrained model, MiniLM, and trains small low-rank updates beside its layers and a
# linear head.

from sk_adalora import AdaLoraClassifier

classifier = AdaLoraClassifier(target_r=4, random_state=0).fit(X, y)
classifier.predict(["Shares fall as oil prices rise", "Striker signs new contract"])

# %%
# What to compare it with
# -----------------------
#
# Counting words takes a tenth of a second. Vectors of MiniLM take one pass over the
# texts, without training. Try both first. The values of ``C`` were chosen by
# cross-validation.

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

words = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000))
frozen = LogisticRegression(C=1, max_iter=1000)
vectors, vectors_test = embed(X), embed(X_test)

# %%
# How many rows does it take?
# ---------------------------

sizes = [50, 150, 450]
scores = {"words counted": [], "frozen vectors": [], "fine-tuned": []}
for n in sizes:
    tuned = classifier
    if n < len(X):
        tuned = AdaLoraClassifier(target_r=4, random_state=0).fit(X[:n], y[:n])
    words.fit(X[:n], y[:n])
    frozen.fit(vectors[:n], y[:n])
    scores["words counted"].append(words.score(X_test, y_test))
    scores["frozen vectors"].append(frozen.score(vectors_test, y_test))
    scores["fine-tuned"].append(tuned.score(X_test, y_test))

print(f"{'headlines':<16}" + "".join(f"{n:>8}" for n in sizes))
for name, row in scores.items():
    print(f"{name:<16}" + "".join(f"{score:8.3f}" for score in row))

# %%
# A bar is one standard error of an accuracy on 600 headlines.

import matplotlib.pyplot as plt
import numpy as np

figure, ax = plt.subplots(figsize=(7.5, 4), layout="constrained")
for (name, row), marker in zip(scores.items(), "sDo", strict=True):
    row = np.array(row)
    error = np.sqrt(row * (1 - row) / len(y_test))
    look = {"marker": marker, "color": COLORS[name], "capsize": 3, "lw": 2}
    ax.errorbar(sizes, row, error, label=name, **look)
ax.set(xscale="log", xticks=sizes, xticklabels=sizes)
ax.minorticks_off()
ax.set(xlabel="headlines to learn from", ylabel="accuracy on 600 others")
ax.legend(loc="lower right", reverse=True)
ax.grid()
plt.show()

"""
A table of films
================

Text often comes in tables, with names, places, numbers, and cells that nobody filled
in. Both estimators take such a table as it is. From nine columns, this example predicts
the genres of a film (several labels) and the rating by critics (a number).

The films come with ``pip install bokeh-sampledata==2026.1``, the model with
``pip install "sk-adalora[offline,plot]"``; nothing is downloaded.
"""

# %%
# The table
# ---------
#
# No column has a plot or a review, only what is on a poster. Four of five films have no
# certificate, and two of five no studio.

from gallery_data import films
from sklearn.model_selection import train_test_split

table = films()
columns = list(table.columns.drop(["writer", "genres", "rating"]))
print(table[columns].isna().mean().round(2).to_string())

train, test = train_test_split(table, train_size=400, test_size=400, random_state=1)
train[["title", "director", "cast", "studio", "genres", "rating"]].head()

# %%
# Each row becomes one text, with a line for each column and without the missing cells.
# Numbers become words, too, of which the fits below warn. This is what the model reads
# of the first film:

for name, value in train[columns].iloc[0].dropna().items():
    print(f"{name}: {value:g}" if isinstance(value, float) else f"{name}: {value}")

# %%
# Genres: several labels a row
# ----------------------------
#
# An indicator matrix has a column for each genre, and asks for a yes or no in each. We
# take the genres that at least one film in twenty has. There is little to learn from
# 400 rows of names, so we train less than by default: for four epochs.

from sklearn.preprocessing import MultiLabelBinarizer

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor

share = table["genres"].explode().value_counts() / len(table)
genres = sorted(share.index[share >= 0.05])
binarizer = MultiLabelBinarizer(classes=genres)
Y, Y_test = (
    binarizer.fit_transform([[g for g in row if g in genres] for row in part["genres"]])
    for part in (train, test)
)

short = {"target_r": 4, "epochs": 4, "max_length": 64, "random_state": 0}
classifier = AdaLoraClassifier(**short).fit(train[columns], Y)
probabilities = classifier.predict_proba(test[columns])

# %%
# The rating: a number
# --------------------
#
# :class:`~sk_adalora.AdaLoraRegressor` scales the target internally, and predicts in
# the target's own unit: here, points from 0 to 10. Four epochs are one more than it
# takes by default.

regressor = AdaLoraRegressor(**short).fit(train[columns], train["rating"])
ratings = regressor.predict(test[columns])

# %%
# Something to compare with
# -------------------------
#
# This is a usual model of such a table. It counts the words of the text columns, fills
# in and scales the numbers, and fits a linear model to both.

from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler


def joined(part):
    """Return the texts of each row as one."""
    return part.fillna("").agg(" ".join, axis=1)


numbers = ["year", "minutes"]
words = [name for name in columns if name not in numbers]
features = make_column_transformer(
    (make_pipeline(FunctionTransformer(joined), TfidfVectorizer()), words),
    (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
)
logistic = OneVsRestClassifier(LogisticRegression(C=10, max_iter=1000))
baseline = make_pipeline(features, logistic).fit(train[columns], Y)
ridge = make_pipeline(features, Ridge(alpha=1.0)).fit(train[columns], train["rating"])

# %%
# How good is it?
# ---------------
#
# Average precision is high if the films of a genre are ranked first. Guessing gets the
# share of the genre among all films. R² is 0 for always predicting the mean rating, and
# 1 for always the right one.

from sklearn.metrics import average_precision_score, r2_score

precision = {
    "words and numbers, linear": average_precision_score(
        Y_test, baseline.predict_proba(test[columns]), average=None
    ),
    "MiniLM fine-tuned": average_precision_score(Y_test, probabilities, average=None),
}
guess = Y_test.mean(axis=0)
r2 = {
    "words and numbers, linear": r2_score(test["rating"], ridge.predict(test[columns])),
    "MiniLM fine-tuned": r2_score(test["rating"], ratings),
}
print(f"{'':<28}mean precision   R² of the rating")
print(f"{'guessing':<28}{guess.mean():14.3f}{0:19.3f}")
for name in precision:
    print(f"{name:<28}{precision[name].mean():14.3f}{r2[name]:19.3f}")

# %%
# The picture
# -----------
#
# The fine-tuned model is ahead on average, not for each genre. Names tell some genres,
# but hardly others, whichever model reads the table. For the rating, counted words and
# numbers do better: make such a comparison of R² before you fine-tune. The predicted
# ratings on the right are close to the middle, as they must be where little is known.

import matplotlib.pyplot as plt
import numpy as np

order = np.argsort(precision["MiniLM fine-tuned"])
names = np.array(genres)[order]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 5), width_ratios=(3, 2), layout="constrained"
)
left.plot(guess[order], names, "|", color="0.4", ms=14, mew=2, label="guessing")
for (name, values), marker in zip(precision.items(), "so", strict=True):
    left.plot(values[order], names, marker, ms=8, label=name)
left.set(xlabel="average precision on 400 other films", xlim=(0, 1))
left.set_title("genres")
left.grid(alpha=0.3)
left.legend(loc="lower right")

right.scatter(test["rating"], ratings, s=10, alpha=0.4)
right.axline((6, 6), slope=1, color="0.4", ls="--", label="right")
right.set(xlabel="rating by the critics", ylabel="predicted rating")
right.set(xlim=(1, 10), ylim=(1, 10), aspect="equal")
ours, linear = r2["MiniLM fine-tuned"], r2["words and numbers, linear"]
right.set_title(f"rating, R² = {ours:.2f} (linear: {linear:.2f})")
right.legend(loc="upper left")
plt.show()

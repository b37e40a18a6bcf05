"""
One number makes probabilities honest
=====================================

A model that has seen few rows many times is surer than it should be. The genres of
films are hard to tell, so it shows there. ``calibrate="temperature"`` divides the
outputs by one number, and the probabilities say how often the model is right.

Model and films come with ``pip install "sk-adalora[demo,plot]"
bokeh-sampledata==2026.1``; nothing is downloaded.
"""

# %%
# Comedies among films
# --------------------
#
# Is a film a comedy? The model learns it from the titles, directors and casts of 200
# films, and predicts 600 others. What it predicts without a temperature needs no
# second fit: the two differ by that number alone.

from gallery_data import films
from scipy.special import expit
from sklearn.model_selection import train_test_split

table = films().dropna(subset=["director", "cast"])
rows = table["title"] + ", " + table["director"] + ", " + table["cast"]
comedy = table["genres"].map(lambda genres: "Comedy" in genres).astype(int)
X, X_test, y, y_test = train_test_split(
    list(rows), comedy.to_numpy(), train_size=200, test_size=600, random_state=0
)

# %%
# One fit
# -------
#
# Its three folds and the fit to all rows take about three times as long as one fit.

from sk_adalora import AdaLoraClassifier

classifier = AdaLoraClassifier(
    epochs=6, max_length=32, calibrate="temperature", random_state=0
)
classifier.fit(X, y)
calibrated = classifier.decision_function(X_test)
before = calibrated * classifier.temperature_
print(f"temperature: {classifier.temperature_:.2f}")

# %%
# The picture
# -----------
#
# Each point holds a fifth of the films: what the model said, and what was so. On the
# dashed line, both are the same.

import matplotlib.pyplot as plt
from sklearn.calibration import CalibrationDisplay

figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
for name, outputs in {"as trained": before, "calibrated": calibrated}.items():
    CalibrationDisplay.from_predictions(
        y_test, expit(outputs), n_bins=5, strategy="quantile", name=name, ax=ax
    )
ax.set_xlabel("predicted probability of a comedy")
ax.set_ylabel("share of comedies")
plt.show()

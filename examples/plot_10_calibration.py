"""
One number makes probabilities honest
=====================================

A model that learned few rows many times is surer than it should be.
``calibrate="temperature"`` divides its outputs by one number, and the probabilities say
how often the model is right.
"""

# %%
# One fit
# -------
#
# Is a film a comedy? 200 rows of title, director and country say little, so a model
# trained on them is often sure and wrong. The temperature is found in three folds, so
# the fit takes four times as long as without. The predictions without it need no second
# fit: they differ by that number alone.

from gallery_data import films
from scipy.special import expit
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier

table = films().dropna(subset=["director", "country"])
rows = table["title"] + ", " + table["director"] + ", " + table["country"]
comedy = table["genres"].map(lambda genres: "Comedy" in genres).astype(int)
X, X_test, y, y_test = train_test_split(
    list(rows), comedy.to_numpy(), train_size=200, test_size=600, random_state=0
)
classifier = AdaLoraClassifier(
    epochs=6, max_length=32, calibrate="temperature", random_state=0
)
classifier.fit(X, y)
print(f"temperature: {classifier.temperature_:.2f}")

# %%
# Before and after
# ----------------

outputs = classifier.decision_function(X_test)
told = {
    "as trained": expit(outputs * classifier.temperature_),
    "calibrated": expit(outputs),
}
for name, probabilities in told.items():
    right = ((probabilities > 0.5) == y_test).mean()
    loss = log_loss(y_test, probabilities)
    print(f"{name}: accuracy {right:.3f}, log loss {loss:.3f}")

# %%
# A point holds a fifth of the 600 test films: what the model said, and what was so. On
# the dashed line, both are the same.

import matplotlib.pyplot as plt
from sklearn.calibration import CalibrationDisplay

figure, ax = plt.subplots(figsize=(6, 4.6), layout="constrained")
for (name, probabilities), color in zip(
    told.items(), ("#E69F00", "#0072B2"), strict=True
):
    CalibrationDisplay.from_predictions(
        y_test,
        probabilities,
        n_bins=5,
        strategy="quantile",
        name=name,
        ax=ax,
        color=color,
        ref_line=name == "calibrated",
    )
ax.set(xlabel="predicted probability of a comedy", ylabel="share of comedies")
ax.lines[-1].set_color("0.5")
plt.show()

"""
Fine-tuning parts the topics, and words show why
================================================

What did the fit do to the texts? A map puts headlines that the fit has not seen on a
plane, as the pretrained model sees them and as the tuned one does. And each prediction
can say which words decided it.
"""

# %%
# Fit
# ---
#
# Five topics of news, 500 headlines to learn from.

from gallery_data import headlines
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier

texts, topics = headlines()
X, X_new, y, y_new = train_test_split(
    texts, topics, train_size=500, test_size=300, stratify=topics, random_state=0
)
classifier = AdaLoraClassifier(epochs=3, random_state=0).fit(X, y)
print(f"accuracy on 300 other headlines: {classifier.score(X_new, y_new):.3f}")

# %%
# Which words decided?
# --------------------
#
# Each is left out, and the headline is predicted again: orange words speak for the
# topic, blue ones against it.

classifier.explain(X_new[:4])

# %%
# ``EmbeddingMapDisplay.from_estimator`` draws it. A point is a headline, its colour the
# topic. The silhouette says how far the topics are apart, in the whole vectors: near 0
# they are mixed, near 1 apart.

import matplotlib.pyplot as plt

from sk_adalora import EmbeddingMapDisplay

EmbeddingMapDisplay.from_estimator(classifier, X_new, y_new)
plt.show()

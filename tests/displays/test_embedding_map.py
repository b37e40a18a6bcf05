"""The map shows the vectors of the pretrained and of the tuned model."""

import numpy as np
import pytest
from _toy import make, make_regressor, topics, toy
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, normalize

from sk_adalora import AdaLoraEncoder, EmbeddingMapDisplay

pytestmark = pytest.mark.usefixtures("plt")


def test_points_are_vectors_before_and_after(tiny_model):
    X, y = topics(24)
    classifier = make(tiny_model).fit(X, y)
    display = EmbeddingMapDisplay.from_estimator(classifier, X, y, projection="pca")

    same = {"device": "cpu", "precision": "float32"}
    frozen = AdaLoraEncoder(tiny_model, tune=False, n_components=None, **same)
    vectors = [frozen.fit_transform(X), classifier.transform(X)]
    planes = [display.before, display.after]
    for one, plane, score in zip(vectors, planes, display.silhouettes, strict=True):
        expected = PCA(2, random_state=0).fit_transform(normalize(one))
        np.testing.assert_allclose(plane, expected, atol=1e-4)
        assert score == pytest.approx(silhouette_score(one, y, metric="cosine"), 1e-3)
    legends = [ax.get_legend() for ax in display.ax_]
    assert legends[0] is None
    assert [t.get_text() for t in legends[1].get_texts()] == [
        "art",
        "business",
        "sport",
    ]
    assert [len(ax.collections) for ax in display.ax_] == [3, 3]
    assert f"{display.silhouettes[1]:.2f}" in display.ax_[1].get_title("left")


def test_numbers_have_a_colour_bar_and_steps_before_are_taken(tiny_model):
    X, y = toy(16)
    upper = FunctionTransformer(lambda X: [text.lower() for text in X])
    pipeline = make_pipeline(upper, make_regressor(tiny_model)).fit(X, y * 2.0)
    shouted = [text.upper() for text in X]
    display = EmbeddingMapDisplay.from_estimator(
        pipeline, shouted, y, before_after=False
    )

    assert display.before is None
    assert display.after.shape == (16, 2)
    assert len(display.figure_.axes) == 2
    assert display.silhouettes == (None, None)


def test_what_cannot_be_drawn_is_refused(tiny_model):
    X, y = toy(16)
    classifier = make(tiny_model).fit(X, y)
    draw = EmbeddingMapDisplay.from_estimator
    with pytest.raises(ValueError, match=r"`y` must hold one label.*shape \(16, 2\)"):
        draw(classifier, X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match=r"`projection` must be .* Got 'umap'"):
        draw(classifier, X, y, projection="umap")
    with pytest.raises(ValueError, match=r"at least 3 rows"):
        draw(classifier, X[:2], y[:2])
    with pytest.raises(TypeError, match=r"EmbeddingMapDisplay"):
        draw(PCA(), X, y)

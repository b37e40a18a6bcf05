"""What the tests of broken and hostile folders share."""

import pytest
from _folders import bytes_of
from _toy import topics

from sk_adalora import AdaLoraClassifier

X, Y = topics(48)
STATE = "sk_adalora.json"
CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
HEAD = "head.safetensors"
ARRAYS = "arrays.safetensors"
CHECKED = [STATE, CONFIG, ADAPTER, HEAD]
LAYER = "encoder.layer.0.attention.self.query"
# What may be raised: nothing of these says "there is a bug in the reader".
CLEAR = (ValueError, OSError)


def assert_refused(folder, match="", estimator=AdaLoraClassifier):
    """Loading, or else the first prediction, says in short what is wrong."""
    before = bytes_of(folder)
    with pytest.raises(CLEAR, match=match or None) as caught:
        use(estimator.from_pretrained(folder))

    assert not isinstance(caught.value, UnicodeError)
    assert len(str(caught.value)) < 1500
    assert bytes_of(folder) == before
    assert not [*folder.parent.glob(".*")]


def use(loaded):
    """Predict, or encode."""
    return getattr(loaded, "predict", loaded.transform)(X[:4])


def put(*path, value):
    """A change: set what stands at a path of keys; `...` deletes it."""

    def change(described):
        *outer, last = path
        for key in outer:
            described = described[key]
        if value is ...:
            del described[last]
        else:
            described[last] = value

    return change

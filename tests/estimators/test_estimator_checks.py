"""scikit-learn's own checks of an estimator, on a tiny random encoder."""

import atexit
import shutil
import tempfile

import pytest
import sklearn
from _tiny_model import write_tiny_model
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)

from sk_adalora import (
    AdaLoraClassifier,
    AdaLoraEncoder,
    AdaLoraRegressor,
    AdaLoraSearchCV,
)

# The checks are collected before fixtures exist, so the model is written here.
_FOLDER = tempfile.mkdtemp()
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_TINY = {
    # One layer and few tokens: the checks ask what an estimator does, not how well.
    "model": write_tiny_model(_FOLDER, n_layers=1),
    "target_r": 2,
    "epochs": 1,
    "max_length": 32,
    "device": "cpu",
    "precision": "float32",
    "random_state": 0,
    # A step of Adam takes the sign of a gradient, last digits or not: with weights
    # beside repeated rows, steps of the usual size would differ by more than 1e-7.
    # tests/test_training.py compares weights and rows at such steps.
    "learning_rate": 1e-9,
    "head_learning_rate": 1e-9,
}


class Named:
    """Called the same in every process, for the names of the tests."""

    def __str__(self):
        return type(self).__name__


class TinyClassifier(Named, AdaLoraClassifier):
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # A random encoder does not know what the digits of a number mean.
        tags.classifier_tags.poor_score = True
        return tags


class TinyRegressor(Named, AdaLoraRegressor):
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags


class TinyEncoder(Named, AdaLoraEncoder):
    pass


class TinySearch(Named, AdaLoraSearchCV):
    # It hands on `transform`. The checks want `fit_transform` of whatever has that, and
    # no search of scikit-learn's has one.
    transform = property()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # scikit-learn's searches do not hand on what their estimator says of these.
        tags.input_tags = self.estimator.__sklearn_tags__().input_tags
        tags.classifier_tags.poor_score = True
        return tags


_CLASSIFIER = TinyClassifier(**_TINY)
# An epoch from a random head leaves outputs so small that their last digits may agree.
_REGRESSOR = TinyRegressor(head_init="linear_probe", **_TINY)
_ENCODER = TinyEncoder(n_components=4, cv=2, **_TINY)
_SEARCH = TinySearch(
    AdaLoraClassifier(**_TINY), {"target_r": [1, 2]}, n_trials=1, cv=2, random_state=0
)
_LAST_DIGITS = (
    "The check allows 1e-7, and float32 matrix products of one row and of twenty "
    "differ in their last digits: outputs around 1 by about 2e-6. So does any neural "
    "network in float32."
)


def _checks(*estimators):
    """Mark a test with the checks. pytest 8 uses up a mark with one test."""
    return parametrize_with_checks(
        estimators,
        expected_failed_checks=lambda _: {
            "check_methods_subset_invariance": _LAST_DIGITS
        },
        xfail_strict=True,
    )


# What the checks bring about on purpose: numbers are long texts, columns of y.
@pytest.mark.filterwarnings("ignore:.*of the texts are longer:UserWarning")
# Of scikit-learn's splits, where it checks that NaN in y is refused.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@_checks(_CLASSIFIER, _REGRESSOR, _SEARCH)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:.*of the texts are longer:UserWarning")
@pytest.mark.filterwarnings("ignore:X should hold texts, not numbers:UserWarning")
@parametrize_with_checks([_ENCODER])
def test_scikit_learn_check_of_a_transformer(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:.*of the texts are longer:UserWarning")
@_checks(_CLASSIFIER, _REGRESSOR)
def test_scikit_learn_check_with_metadata_routing(estimator, check):
    with sklearn.config_context(enable_metadata_routing=True):
        check(estimator)


_OF_THE_DEFAULT = [
    pytest.param(estimator, check, id=check.func.__name__)
    for estimator, check in estimator_checks_generator(TinyRegressor(**_TINY))
    if check.func.__name__ != "check_methods_subset_invariance"
]


@pytest.mark.filterwarnings("ignore:.*of the texts are longer:UserWarning")
@pytest.mark.parametrize(("estimator", "check"), _OF_THE_DEFAULT)
def test_scikit_learn_check_of_a_regressor_with_its_default_head(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "minimum"),
    [(_CLASSIFIER, 65), (_REGRESSOR, 58), (_SEARCH, 56), (_ENCODER, 50)],
    ids=["classifier", "regressor", "search", "encoder"],
)
def test_the_checks_are_really_collected(estimator, minimum):
    """One wrong tag makes scikit-learn collect a single check, which passes."""
    checks = list(estimator_checks_generator(estimator))
    assert len(checks) >= minimum

"""scikit-learn's own checks of the estimators of mixed tables."""

import pytest
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)

from sk_adalora import AdaLoraTableClassifier, AdaLoraTableRegressor

pytest.importorskip("skrub", reason="needs the extra `tables`")

# The checks pass numbers, or texts that no check fits.
_CLASSIFIER = AdaLoraTableClassifier(cv=2, random_state=0)
_CLASSIFIER.set_params(final_estimator__max_iter=10)
_REGRESSOR = AdaLoraTableRegressor(cv=2, random_state=0)
_REGRESSOR.set_params(final_estimator__max_iter=10)
_UNWEIGHTED_BINS = (
    "HistGradientBoosting bins features without looking at weights, and fails the "
    "check, too."
)


# Of scikit-learn's splits, where it checks that NaN in y is refused.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*found no column of text:UserWarning")
@parametrize_with_checks(
    [_CLASSIFIER, _REGRESSOR],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": _UNWEIGHTED_BINS
    },
    xfail_strict=True,
)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "minimum"), [(_CLASSIFIER, 65), (_REGRESSOR, 58)]
)
def test_the_checks_are_really_collected(estimator, minimum):
    """One wrong tag makes scikit-learn collect a single check, which passes."""
    assert len(list(estimator_checks_generator(estimator))) >= minimum

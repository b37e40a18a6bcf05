"""What predicted probabilities are worth."""

import statistics

import numpy as np
from sklearn.metrics import log_loss


def accuracy_and_loss(classifier, X, y):
    """Return the accuracy of a classifier's likeliest classes, and its log loss."""
    return of_shares(classifier.classes_, classifier.predict_proba(X), y)


def of_shares(classes, shares, truth):
    """Return the accuracy of the likeliest classes, and the log loss.

    Parameters
    ----------
    classes : ndarray of shape (k,)
        Classes that the columns of `shares` are of.
    shares : ndarray of shape (n, k)
        Predicted probabilities.
    truth : list of str of length n
        The class of each row.

    Returns
    -------
    accuracy, loss : float
    """
    accuracy = np.mean(classes[shares.argmax(axis=1)] == np.asarray(truth))
    return float(accuracy), float(log_loss(truth, shares, labels=classes))


def means(found):
    """Return a cell of a table: the means of accuracies and of log losses."""
    accuracy, loss = map(statistics.mean, zip(*found, strict=True))
    return f"{accuracy:.3f} / {loss:.2f}"

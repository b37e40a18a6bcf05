"""What predicted probabilities are worth."""

import numpy as np
from sklearn.metrics import log_loss


def accuracy_and_loss(classes, shares, truth):
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

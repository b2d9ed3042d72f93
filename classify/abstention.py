"""What is gained by leaving the unsure images to a person: accuracy against the share answered."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AbstentionCurve:
    """Images sorted from the surest to the least sure.

    Attributes
    ----------
    answered : (n,) float64
        Share of images that are answered, 1/n to 1.
    error : (n,) float64
        Share of wrong answers among them.
    confidence : (n,) float64
        Smallest confidence that is still answered.
    area : float
        Mean error over all shares (AURC, Geifman & El-Yaniv 2017); 0 is perfect.
    """

    answered: np.ndarray
    error: np.ndarray
    confidence: np.ndarray
    area: float


def abstention_curve(probabilities: np.ndarray, labels: np.ndarray) -> AbstentionCurve:
    """Curve of (n, K) probabilities; equal confidences keep their order."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    count = np.arange(1, len(labels) + 1)
    error = np.cumsum(wrong) / count
    return AbstentionCurve(count / len(labels), error, confidence[order], float(error.mean()))


def recall_when_answering(
    probabilities: np.ndarray, labels: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Per class (K,): recall among its answered images, and the share of it that is answered.

    The surest ``share`` of all images is answered; a class whose images are all left out has a
    NaN recall, which an average over images would hide.
    """
    confidence = probabilities.max(axis=1)
    answered = np.zeros(len(labels), bool)
    most = round(share * len(labels))
    answered[np.argsort(-confidence, kind="stable")[:most]] = True
    right = probabilities.argmax(axis=1) == labels
    classes = probabilities.shape[1]
    recall, kept = np.full(classes, np.nan), np.full(classes, np.nan)
    for k in range(classes):
        mine = labels == k
        if mine.any():
            kept[k] = answered[mine].mean()
        if (mine & answered).any():
            recall[k] = right[mine & answered].mean()
    return recall, kept

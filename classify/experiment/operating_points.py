"""Where a score becomes a decision: thresholds chosen on validation, and measures at them.

A classifier that calls everything a merger has the recall of a perfect one. So recall is also
compared where it cannot be bought with false alarms: at one false-positive rate, at one
precision, and over all thresholds (average precision). Thresholds are always chosen on
validation images and applied to test images.
"""

import numpy as np

from galaxies.errors import InputError

_LARGEST_TABLE = 10**7
"""Comparisons of images with images of the class that are held in memory at once."""


def threshold_at_false_positive_rate(
    scores: np.ndarray, positive: np.ndarray, rate: float
) -> float:
    """Lowest threshold whose false-positive rate on these images is at most ``rate``.

    An image is called positive where its score is *greater* than the threshold.

    Parameters
    ----------
    scores : (n,) float
        Probability of the class, on validation images.
    positive : (n,) bool
        Whether the image is of the class.
    rate
        Share of the negatives that may be called positive.
    """
    negatives = np.sort(scores[~positive])[::-1]
    if len(negatives) == 0:
        raise InputError("the validation split holds no image of another class: no threshold")
    allowed = int(np.floor(rate * len(negatives) + 1e-9))
    return float(negatives[allowed]) if allowed < len(negatives) else -np.inf


def threshold_at_precision(scores: np.ndarray, positive: np.ndarray, precision: float) -> float:
    """Threshold of the greatest recall among those with at least ``precision`` on these images.

    Returns +inf (nothing is called positive) where no threshold reaches ``precision``. An image
    is called positive where its score is greater than the threshold, which lies half-way to the
    next lower score.
    """
    if not positive.any():
        raise InputError("the validation split holds no image of the class: no threshold")
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    found = np.cumsum(positive[order])
    reached = found / np.arange(1, len(scores) + 1)
    last_of_tie = np.append(sorted_scores[1:] < sorted_scores[:-1], True)
    enough = np.flatnonzero(last_of_tie & (reached >= precision - 1e-12) & (found > 0))
    if len(enough) == 0:
        return np.inf
    cut = enough[np.argmax(found[enough])]
    if cut + 1 == len(scores):
        return -np.inf
    return float(sorted_scores[cut] / 2 + sorted_scores[cut + 1] / 2)


def average_precision(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Area under the precision-recall curve, as the sum of precision times the recall gained.

    Parameters
    ----------
    scores : (n,) float
    positive : (n,) bool
    weights : (B, n) float, optional
        One row of image weights per bootstrap draw; default one row of ones.

    Returns
    -------
    (B,) float
        nan where no positive has weight.
    """
    rows = np.ones((1, len(scores)), np.float32) if weights is None else weights
    members = np.flatnonzero(positive)
    if len(scores) * len(members) > _LARGEST_TABLE:
        return _average_precision_of_many(scores, positive, rows)
    # An image counts towards the precision at a positive when it scores as high or higher; one
    # product over all draws instead of a running sum in each.
    as_high = (scores[:, None] >= scores[members]).astype(rows.dtype)
    called = (rows @ as_high).astype(np.float64)
    found = (rows[:, members] @ as_high[members]).astype(np.float64)
    own = rows[:, members].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(called > 0, found / called, 0.0)
        return np.sum(precision * own, axis=1) / own.sum(axis=1)


def _average_precision_of_many(
    scores: np.ndarray, positive: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """As `average_precision`, draw by draw in the memory of a few columns."""
    order = np.argsort(-scores, kind="stable")
    own = positive[order]
    falling = -scores[order]
    last_of_tie = np.searchsorted(falling, falling[own], side="right") - 1
    result = np.empty(len(rows))
    for place, row in enumerate(rows):
        weight = row[order].astype(np.float64)
        called = np.cumsum(weight)[last_of_tie]
        found = np.cumsum(np.where(own, weight, 0))[last_of_tie]
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(called > 0, found / called, 0.0)
            result[place] = np.sum(precision * weight[own]) / weight[own].sum()
    return result


def precision_recall_curve(
    scores: np.ndarray, positive: np.ndarray, recalls: np.ndarray
) -> np.ndarray:
    """Precision at each of ``recalls`` (m,): the best precision at that recall or a greater one.

    Images of one score are called together.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) < 0, True)
    found = np.cumsum(positive[order])[last_of_tie]
    precision = found / (np.flatnonzero(last_of_tie) + 1)
    recall = found / max(1, found[-1])
    best = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(recall, recalls - 1e-12, side="left")
    return np.where(first < len(best), best[np.minimum(first, len(best) - 1)], 0.0)


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over ``bins`` groups of equal size.

    Groups of equal size instead of equal width: none is empty.

    References
    ----------
    A. Kumar, P. Liang, T. Ma (2019), arXiv:1909.10155.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(labels)))
    gaps = [len(g) * abs(confidence[g].mean() - right[g].mean()) for g in groups if len(g)]
    return float(np.sum(gaps) / len(labels))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance between the probabilities (n, K) and the truth; 0 is perfect."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))

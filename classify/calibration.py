"""How far probabilities may be believed, and the one number that repairs most of it."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from galaxies.errors import InputError

BINS = 15


@dataclass(frozen=True)
class ReliabilityBins:
    """Confidence against accuracy, in bins of equal width of the largest probability.

    Attributes
    ----------
    edges : (B + 1,) float64
    count : (B,) int64
    confidence, accuracy : (B,) float64
        Means in each bin; NaN where it is empty.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> ReliabilityBins:
    """Sort (n, K) predictions into bins of their confidence."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    # Right-closed bins, as in Guo et al. 2017; confidence 0 falls into the first.
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(place, confidence, bins) / count
        accuracy = np.bincount(place, right, bins) / count
    return ReliabilityBins(edges, count, mean_confidence, accuracy)


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> float:
    """Mean distance of confidence and accuracy, Guo et al. 2017 (arXiv:1706.04599), eq. 5."""
    found = reliability(probabilities, labels, bins)
    filled = found.count > 0
    gap = np.abs(found.confidence[filled] - found.accuracy[filled])
    return float((gap * found.count[filled]).sum() / len(labels))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance from the one-hot truth, summed over classes (0 best, 2 worst)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def fit_temperature(logits: torch.Tensor, labels: np.ndarray) -> float:
    """Temperature that minimises the log loss of held-out logits (n, K), Guo et al. 2017.

    One number cannot change which class is the largest. The search is over log temperature in
    [1/20, 20]; perfect predictions end at the lower bound.

    Raises
    ------
    InputError
        If there are no logits.
    """
    if not len(logits):
        raise InputError("fitting a temperature needs at least one labelled image")
    values, truth = logits.double(), torch.from_numpy(np.asarray(labels, dtype=np.int64))

    def log_loss(log_temperature: float) -> float:
        scaled = values / float(np.exp(log_temperature))
        return float(torch.nn.functional.cross_entropy(scaled, truth))

    bound = float(np.log(20))
    found = minimize_scalar(
        log_loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))

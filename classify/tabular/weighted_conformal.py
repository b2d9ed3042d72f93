"""Prediction sets where the new rows are not like the calibration rows: weights, per class.

Under covariate shift the calibration scores are weighted by w(x) = p_new(x) / p_calibration(x),
and a new row adds its own weight at infinity (Tibshirani et al. 2019, arXiv:1904.06019, eq. 7):
the set of x holds class k where the score 1 - p_k(x) is at most the ``level`` quantile of

    sum_i w_i delta(s_i) + w(x) delta(infinity),   i over the calibration rows (of class k).

The promise holds if the classes given the features are distributed as before and the weights are
right. Estimated weights make it approximate, which is why coverage is still to be looked at where
some labels are known.
"""

from dataclasses import dataclass

import numpy as np

from classify.conformal import ConformalCalibration, SetKind
from galaxies.errors import InputError


@dataclass(frozen=True)
class WeightedCalibration:
    """Calibration scores with weights.

    Attributes
    ----------
    calibration : ConformalCalibration
    weights : (n,) float64
        Of the calibration rows; any positive scale.
    """

    calibration: ConformalCalibration
    weights: np.ndarray

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.calibration.labels):
            raise InputError(
                f"{len(self.calibration.labels)} calibration rows but {len(self.weights)} weights"
            )
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all()):
            raise InputError("weights of calibration rows must be finite and not negative")

    def sets(
        self,
        probabilities: np.ndarray,
        new_weights: np.ndarray,
        level: float,
        kind: SetKind = "per-class",
    ) -> np.ndarray:
        """(m, K) bool sets of (m, K) probabilities of rows with weights (m,).

        A row whose weight is so large that the calibration rows cannot speak for it gets every
        class: the honest answer where the calibration never looked.
        """
        if not 0 < level < 1:
            raise InputError(f"a confidence level lies between 0 and 1, got {level}")
        scores = 1 - np.asarray(probabilities, dtype=np.float64)
        labels = self.calibration.labels
        own = 1 - self.calibration.probabilities[np.arange(len(labels)), labels]
        found = np.empty(scores.shape, dtype=bool)
        for k in range(scores.shape[1]):
            members = labels == k if kind == "per-class" else np.ones(len(labels), bool)
            threshold = weighted_quantiles(own[members], self.weights[members], new_weights, level)
            found[:, k] = scores[:, k] <= threshold
        return found


def weighted_quantiles(
    scores: np.ndarray, weights: np.ndarray, new_weights: np.ndarray, level: float
) -> np.ndarray:
    """(m,) ``level`` quantiles of the weighted scores with each new weight put at infinity.

    With equal weights this is the ordinary conformal quantile.

    Parameters
    ----------
    scores, weights : (n,)
    new_weights : (m,)
    """
    order = np.argsort(scores, kind="stable")
    cumulated = np.cumsum(weights[order])
    total = (cumulated[-1] if len(cumulated) else 0.0) + np.asarray(new_weights, np.float64)
    # Rounding must not push a sum that equals the level over it.
    place = np.searchsorted(cumulated, level * total * (1 - 1e-12), side="left")
    padded = np.append(scores[order], np.inf)
    return padded[np.minimum(place, len(scores))]

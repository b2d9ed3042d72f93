"""Features as a network wants them: no missing values, zero mean, unit variance, no wild ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST = 10.0
"""Standard deviations beyond which a feature is cut: one wrong magnitude must not rule a batch."""


@dataclass(frozen=True)
class FeatureScaling:
    """Measured on training rows alone; everything else is transformed by it.

    Attributes
    ----------
    median, mean, std : tuple of float
        F numbers; missing values are filled with the median before scaling.
    indicated : tuple of int
        Features that had missing values in training: each gets a column that says so, since
        *not detected in u* is information.
    """

    median: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    indicated: tuple[int, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of columns after scaling."""
        return len(self.median) + len(self.indicated)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(n, F) features, NaN where missing, to (n, outputs) float32."""
        features = np.asarray(features, dtype=np.float64)
        missing = np.isnan(features)
        filled = np.where(missing, np.array(self.median), features)
        scaled = (filled - np.array(self.mean)) / np.array(self.std)
        flags = missing[:, list(self.indicated)].astype(np.float64)
        return np.concatenate([scaled.clip(-LARGEST, LARGEST), flags], axis=1).astype(np.float32)

    def undo(self, scaled: np.ndarray) -> np.ndarray:
        """(n, outputs) back to (n, F) float64; a raised flag becomes a missing value."""
        width = len(self.median)
        features = np.asarray(scaled[:, :width], np.float64) * np.array(self.std) + self.mean
        for place, feature in enumerate(self.indicated):
            features[scaled[:, width + place] > 0.5, feature] = np.nan
        return features

    def as_json(self) -> dict[str, Any]:
        """JSON-able form; `from_json` reads it."""
        return {
            "median": list(self.median),
            "mean": list(self.mean),
            "std": list(self.std),
            "indicated": list(self.indicated),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "FeatureScaling":
        """Read `as_json`."""
        return cls(**{name: tuple(values[name]) for name in ("median", "mean", "std", "indicated")})


def scaling_of(features: np.ndarray) -> FeatureScaling:
    """Measure (n, F) training features.

    A feature that never varies keeps its scale of 1; one that is never measured becomes 0.
    """
    features = np.asarray(features, dtype=np.float64)
    missing = np.isnan(features)
    known = ~missing.all(axis=0)
    median = np.zeros(features.shape[1])
    median[known] = np.nanmedian(features[:, known], axis=0)
    filled = np.where(missing, median, features)
    std = filled.std(axis=0)
    return FeatureScaling(
        tuple(median.tolist()),
        tuple(filled.mean(axis=0).tolist()),
        tuple(np.where(std > 1e-12, std, 1.0).tolist()),
        tuple(np.flatnonzero(missing.any(axis=0)).tolist()),
    )

"""The training images nearest to a new one, and whether it is unlike all of them.

Both come from distances between features of length one, the square root of twice one minus the
cosine. An image whose distance to its `NEIGHBOURS`-th nearest training image is larger than for
99 % of the held-out images is flagged (Sun et al. 2022, arXiv:2204.06507).
"""

from dataclasses import dataclass

import numpy as np
import torch

NEIGHBOURS = 5
OUTLIER_QUANTILE = 0.99
_BLOCK = 1024


@dataclass(frozen=True)
class TrainingNeighbours:
    """Features of the training images of a classifier.

    Attributes
    ----------
    features : (N, d) float32
        Of length one.
    labels : (N,) int64
    ids : (N,) str
    threshold : float
        Distance to the `NEIGHBOURS`-th nearest above which an image is unlike the training data;
        infinite where no held-out images were there to measure it.
    """

    features: torch.Tensor
    labels: np.ndarray
    ids: np.ndarray
    threshold: float

    def nearest(self, features: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances (n, count) ascending and rows (n, count) of the nearest training images."""
        count = min(count, len(self.features))
        queries = unit_length(features)
        distances, rows = [], []
        for start in range(0, len(queries), _BLOCK):
            similarity = queries[start : start + _BLOCK] @ self.features.T
            best = similarity.topk(count, dim=1)
            distances.append((2 - 2 * best.values).clamp_min(0).sqrt())
            rows.append(best.indices)
        if not distances:
            return np.zeros((0, count)), np.zeros((0, count), np.int64)
        return torch.cat(distances).double().numpy(), torch.cat(rows).numpy()

    def distance(self, features: torch.Tensor) -> np.ndarray:
        """(n,) distance to the `NEIGHBOURS`-th nearest training image."""
        return self.nearest(features, NEIGHBOURS)[0][:, -1]

    def is_unlike(self, features: torch.Tensor) -> np.ndarray:
        """(n,) bool: farther from the training images than 99 % of held-out ones."""
        return self.distance(features) > self.threshold


def fit_neighbours(
    train_features: torch.Tensor,
    labels: np.ndarray,
    ids: np.ndarray,
    held_out_features: torch.Tensor | None,
) -> TrainingNeighbours:
    """Remember training features (N, d); set the threshold on held-out ones (m, d)."""
    plain = TrainingNeighbours(unit_length(train_features), labels, ids, float("inf"))
    if held_out_features is None or not len(held_out_features):
        return plain
    threshold = float(np.quantile(plain.distance(held_out_features), OUTLIER_QUANTILE))
    return TrainingNeighbours(plain.features, labels, ids, threshold)


def unit_length(features: torch.Tensor) -> torch.Tensor:
    """(n, d) features scaled to length one; a zero stays zero."""
    return torch.nn.functional.normalize(features.float(), dim=1)

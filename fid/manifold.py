"""Precision, recall, density and coverage: is each image believable, and each kind there.

Balls reach from each image to its k-th nearest other image of the same side. Precision is the
share of fakes inside a real ball, recall the share of reals inside a fake ball (Kynkäänniemi et
al. 2019); density counts in how many real balls a fake lies and coverage is the share of real
balls that hold a fake (Naeem et al. 2020).

Convention: an image does not count as its own neighbour, and the border belongs to the ball
(``<=``). Other programs use ``<``, another k or another network: their numbers are not
comparable.
"""

from dataclasses import dataclass

import numpy as np
import torch

from fid.statistics import checked_features
from galaxies.errors import InputError

_BLOCK_ROWS = 2048


@dataclass(frozen=True)
class Manifold:
    """The four shares, each from 0 to 1 but density, whose value for a perfect set is 1."""

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def precision_recall_density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> Manifold:
    """Measure (m, d) fakes against (n, d) reals with the k-th neighbour, in blocks of rows.

    Raises
    ------
    InputError
        If a side has no more than k images.
    """
    reals = torch.from_numpy(checked_features(np.asarray(real)))
    fakes = torch.from_numpy(checked_features(np.asarray(fake)))
    if reals.shape[1] != fakes.shape[1]:
        raise InputError(f"features have {reals.shape[1]} and {fakes.shape[1]} dimensions")
    if min(len(reals), len(fakes)) <= k:
        raise InputError(
            f"neighbour k = {k} needs more than {k} images a side, "
            f"got {len(reals)} real and {len(fakes)} fake"
        )
    centre = reals.mean(dim=0)  # keeps the squared distances from cancelling
    reals, fakes = reals - centre, fakes - centre
    real_reach, fake_reach = neighbour_reach(reals, k), neighbour_reach(fakes, k)
    in_real_ball = torch.zeros(len(fakes))
    holds_fake = torch.zeros(len(reals), dtype=torch.bool)
    in_fake_ball = torch.zeros(len(reals), dtype=torch.bool)
    for start in range(0, len(reals), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        distances = squared_distances(reals[rows], fakes)
        inside = distances <= real_reach[rows, None]
        in_real_ball += inside.sum(dim=0)
        holds_fake[rows] = inside.any(dim=1)
        in_fake_ball[rows] = (distances <= fake_reach).any(dim=1)
    return Manifold(
        precision=float((in_real_ball > 0).float().mean()),
        recall=float(in_fake_ball.float().mean()),
        density=float(in_real_ball.mean()) / k,
        coverage=float(holds_fake.float().mean()),
        k=k,
    )


def neighbour_reach(features: torch.Tensor, k: int) -> torch.Tensor:
    """(n,) squared distance from each of (n, d) features to its k-th nearest other one."""
    reach = torch.empty(len(features), dtype=features.dtype)
    for start in range(0, len(features), _BLOCK_ROWS):
        block = features[start : start + _BLOCK_ROWS]
        distances = squared_distances(block, features)
        own = torch.arange(len(block))
        distances[own, start + own] = torch.inf
        reach[start : start + len(block)] = distances.kthvalue(k, dim=1).values
    return reach


def squared_distances(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(n, m) squared Euclidean distances of (n, d) and (m, d), by one matrix product."""
    squares = left.square().sum(dim=1)[:, None] + right.square().sum(dim=1)
    return squares.addmm(left, right.T, alpha=-2).clamp_(min=0)

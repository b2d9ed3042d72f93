"""The Fréchet distance between two Gaussians, without the root of a rounded number.

``|m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)`` (Dowson & Landau 1982; Heusel et al. 2017).

The usual way multiplies C1 by C2 and takes the root. The product knows its small eigenvalues
only to eps times the largest, and the root turns eps into 1e-8: with fewer samples than
dimensions, where most eigenvalues are zero, that noise adds up. With any factors
``C1 = F1' F1`` and ``C2 = F2' F2`` the last term is the sum of the singular values of
``F1 F2'``, and nothing is ever rooted. The factors are the centred features themselves where
these are few, and a Cholesky factor otherwise.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

from fid.statistics import FeatureStatistics, statistics_of_features
from galaxies.errors import InputError

_WELL_CONDITIONED = 1e-10
"""Smallest squared ratio of Cholesky pivots that the generalised eigenproblem is trusted with."""

_BLOCK = 512
"""Columns at a time of a triangular product."""


@dataclass(frozen=True)
class FrechetDistance:
    """The distance and what it is made of.

    Attributes
    ----------
    value : float
        ``mean_term + trace_real + trace_fake - 2 * cross_term``; never negative.
    mean_term : float
        Squared distance of the means.
    trace_real, trace_fake : float
        Total variances of the features.
    cross_term : float
        ``tr (C1 C2)^(1/2)``.
    rank : int
        Numerical rank of ``C1 C2``; below the number of dimensions the covariances are not
        fully measured.
    method : str
        ``same``, ``cross-gram``, ``factors`` or ``generalised-eigenvalues``.
    """

    value: float
    mean_term: float
    trace_real: float
    trace_fake: float
    cross_term: float
    rank: int
    method: str


def frechet_distance_of_features(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of (n, d) and (m, d) features; arrays or CPU tensors of any float type.

    Raises
    ------
    InputError
        If a side has fewer than 2 samples, the dimensions differ, or a feature is not finite.
    """
    return frechet_distance(
        statistics_of_features(np.asarray(real)), statistics_of_features(np.asarray(fake))
    ).value


def frechet_distance(real: FeatureStatistics, fake: FeatureStatistics) -> FrechetDistance:
    """Fréchet distance of two statistics, exactly 0 for equal ones."""
    real.require_at_least_two("the real side")
    fake.require_at_least_two("the fake side")
    if real.dimensions != fake.dimensions:
        raise InputError(
            f"the real side has {real.dimensions} features, the fake side {fake.dimensions}: "
            "they come from different networks"
        )
    trace_real, trace_fake = real.trace, fake.trace
    if real.equals(fake):
        rank = real.dimensions if real.rows is None else min(len(real.rows) - 1, real.dimensions)
        return FrechetDistance(0.0, 0.0, trace_real, trace_fake, trace_real, rank, "same")
    mean_term = float(np.square(real.mean - fake.mean).sum())
    cross_term, rank, method = _cross_term(real, fake)
    value = mean_term + trace_real + trace_fake - 2 * cross_term
    return FrechetDistance(
        max(0.0, value), mean_term, trace_real, trace_fake, cross_term, rank, method
    )


def nuclear_norm(matrix: np.ndarray) -> tuple[float, int]:
    """Sum of the singular values of a matrix, and its numerical rank."""
    values = torch.linalg.svdvals(torch.from_numpy(np.ascontiguousarray(matrix))).numpy()
    if len(values) == 0:
        return 0.0, 0
    threshold = values[0] * max(matrix.shape) * np.finfo(np.float64).eps
    return float(values.sum()), int((values > threshold).sum())


def _cross_term(real: FeatureStatistics, fake: FeatureStatistics) -> tuple[float, int, str]:
    if real.rows is not None and fake.rows is not None:
        value, rank = nuclear_norm(_factor_of_rows(real) @ _factor_of_rows(fake).T)
        return value, rank, "cross-gram"
    if real.rows is None and fake.rows is None:
        full = _by_generalised_eigenvalues(real.covariance, fake.covariance)
        if full is not None:
            return *full, "generalised-eigenvalues"
    value, rank = nuclear_norm(_factor(real) @ _factor(fake).T)
    return value, rank, "factors"


def _factor(statistics: FeatureStatistics) -> np.ndarray:
    """(r, d) F with F' F = C."""
    if statistics.rows is not None:
        return _factor_of_rows(statistics)
    return pivoted_cholesky(statistics.covariance)


def _factor_of_rows(statistics: FeatureStatistics) -> np.ndarray:
    assert statistics.count is not None
    return statistics.centred_rows / np.sqrt(statistics.count - 1)


def pivoted_cholesky(covariance: np.ndarray) -> np.ndarray:
    """(r, d) F with F' F = covariance, r its numerical rank; no eigenvalue is ever computed."""
    upper, pivots, rank, _ = scipy.linalg.lapack.dpstrf(covariance, lower=0)
    factor = np.zeros((rank, len(covariance)))
    factor[:, pivots - 1] = np.triu(upper)[:rank]
    return factor


def _by_generalised_eigenvalues(first: np.ndarray, second: np.ndarray) -> tuple[float, int] | None:
    """``tr (C1 C2)^(1/2)`` where both are safely positive definite, else ``None``.

    With ``C2 = L L'`` the eigenvalues of C1 C2 are those of the symmetric ``L' C1 L``. A
    dimension that is constant on one side adds nothing and is left out first.
    """
    alive = (np.diagonal(first) > 0) & (np.diagonal(second) > 0)
    if not alive.all():
        first, second = first[np.ix_(alive, alive)], second[np.ix_(alive, alive)]
    if not alive.any():
        return None
    lower = _safe_cholesky(second)
    if lower is None:
        return None
    reduced = _lower_congruence(torch.from_numpy(first), torch.from_numpy(lower))
    values = torch.linalg.eigvalsh(reduced, UPLO="L").numpy()
    # The smallest eigenvalue of C1 is at least that of L' C1 L over the norm of C2, and no pivot
    # lies below it: mostly that is enough to know that C1 is safe, without its Cholesky factor.
    least = values[0] / np.abs(second).sum(axis=0).max() / np.diagonal(first).max()
    if least <= _WELL_CONDITIONED and _safe_cholesky(first) is None:
        return None
    return float(np.sqrt(np.clip(values, 0, None)).sum()), len(values)


def _lower_congruence(matrix: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """Lower triangle of ``L' A L`` by blocks, a third of the arithmetic of two full products."""
    starts = range(0, len(matrix), _BLOCK)
    product = torch.cat([matrix[:, s:] @ lower[s:, s : s + _BLOCK] for s in starts], dim=1)
    result = torch.zeros_like(matrix)
    for s in starts:
        columns = slice(0, s + _BLOCK)
        result[s : s + _BLOCK, columns] = lower[s:, s : s + _BLOCK].T @ product[s:, columns]
    return result


def _safe_cholesky(matrix: np.ndarray) -> np.ndarray | None:
    """Lower Cholesky factor, or ``None`` where a pivot drowns in rounding."""
    lower, failed = torch.linalg.cholesky_ex(torch.from_numpy(np.ascontiguousarray(matrix)))
    if failed.item():
        return None
    # Relative to the variance of its own dimension: what is left of it given the others.
    pivots = lower.diagonal().square().numpy() / np.diagonal(matrix)
    return lower.numpy() if pivots.min() > _WELL_CONDITIONED else None

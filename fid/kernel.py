"""Kernel distance (KID): an unbiased comparison that means something for few images.

Squared maximum mean discrepancy with the kernel ``(x.y / d + 1)^3`` over all pairs, the
U-statistic of Bińkowski et al. (ICLR 2018), with a standard error from the jackknife: leaving
out one image changes only sums over one row of the Gram matrix, so all the leave-one-out values
cost as much as the first. Peers report the spread over random subsets instead, which says how
large the subsets were and not how well the distance is known.
"""

from dataclasses import dataclass

import numpy as np

from fid.statistics import checked_features
from galaxies.errors import InputError

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class KernelDistance:
    """KID and how well it is known.

    Attributes
    ----------
    value : float
        Unbiased, so it may be slightly negative when the two sets are alike.
    standard_error : float
        Jackknife standard error over the images of both sides.
    """

    value: float
    standard_error: float

    def interval(self, sigmas: float = 1.96) -> tuple[float, float]:
        """Two-sided interval under the normal approximation, 95 % by default."""
        half = sigmas * self.standard_error
        return self.value - half, self.value + half


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> KernelDistance:
    """KID of (n, d) and (m, d) features over all pairs, in blocks of rows.

    Raises
    ------
    InputError
        If a side has fewer than 3 samples (no standard error), or the dimensions differ.
    """
    real, fake = checked_features(np.asarray(real)), checked_features(np.asarray(fake))
    if real.shape[1] != fake.shape[1]:
        raise InputError(f"features have {real.shape[1]} and {fake.shape[1]} dimensions")
    if min(len(real), len(fake)) < 3:
        raise InputError(f"KID needs at least 3 images a side, got {len(real)} and {len(fake)}")
    return distance_of_row_sums(
        _row_sums(real, real, leave_diagonal=True),
        _row_sums(fake, fake, leave_diagonal=True),
        _row_sums(real, fake),
        _row_sums(fake, real),
    )


def polynomial_kernel(products: np.ndarray, dimensions: int) -> np.ndarray:
    """``(x.y / d + 1)^3`` of inner products."""
    return (products / dimensions + 1) ** 3


def distance_of_row_sums(
    within_real: np.ndarray,
    within_fake: np.ndarray,
    real_to_fake: np.ndarray,
    fake_to_real: np.ndarray,
) -> KernelDistance:
    """U-statistic and jackknife error from row sums of the kernel matrix.

    Parameters
    ----------
    within_real, within_fake
        (n,) and (m,): sum over the other images of the same side, without the image itself.
    real_to_fake, fake_to_real
        (n,) and (m,): sum over all images of the other side.
    """
    n, m = len(within_real), len(within_fake)
    real_sum, fake_sum, cross_sum = within_real.sum(), within_fake.sum(), real_to_fake.sum()
    real_mean = real_sum / (n * (n - 1))
    fake_mean = fake_sum / (m * (m - 1))
    value = real_mean + fake_mean - 2 * cross_sum / (n * m)
    without_real = (
        (real_sum - 2 * within_real) / ((n - 1) * (n - 2))
        + fake_mean
        - 2 * (cross_sum - real_to_fake) / ((n - 1) * m)
    )
    without_fake = (
        real_mean
        + (fake_sum - 2 * within_fake) / ((m - 1) * (m - 2))
        - 2 * (cross_sum - fake_to_real) / (n * (m - 1))
    )
    variance = _jackknife_variance(without_real) + _jackknife_variance(without_fake)
    return KernelDistance(float(value), float(np.sqrt(variance)))


def _jackknife_variance(values: np.ndarray) -> float:
    count = len(values)
    return float((count - 1) / count * np.square(values - values.mean()).sum())


def _row_sums(left: np.ndarray, right: np.ndarray, *, leave_diagonal: bool = False) -> np.ndarray:
    sums = np.empty(len(left))
    for start in range(0, len(left), _BLOCK_ROWS):
        block = left[start : start + _BLOCK_ROWS]
        kernel = polynomial_kernel(block @ right.T, left.shape[1])
        if leave_diagonal:
            kernel[np.arange(len(block)), start + np.arange(len(block))] = 0
        sums[start : start + len(block)] = kernel.sum(axis=1)
    return sums

"""Tests of a paired difference over repeats, their correction, and what they can detect.

One *difference* is the measure of an arm less that of its baseline in the same repeat: both
share their seed, so what they have in common cancels. The unit of replication is the trained
network, never the test image: two trainings of one recipe differ by more than the test images
explain, so a test over images calls that difference an effect (`single_pair_p` is kept to show
it).
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from galaxies.errors import InputError

EXACT_SIGN_FLIPS = 20
"""Up to this many repeats all sign flips are counted, beyond it they are drawn."""


@dataclass(frozen=True)
class Estimate:
    """A mean difference with its uncertainty.

    Attributes
    ----------
    difference : float
        Mean over the units.
    standard_error : float
        Of that mean.
    degrees_of_freedom : float
        Of Student's t.
    interval : (float, float)
        Two-sided, at the level asked for.
    p : float
        Two-sided, of the hypothesis that the difference is 0.
    """

    difference: float
    standard_error: float
    degrees_of_freedom: float
    interval: tuple[float, float]
    p: float


def student_estimate(
    difference: float, standard_error: float, degrees_of_freedom: float, level: float = 0.95
) -> Estimate:
    """Interval and p of a difference whose error follows Student's t.

    A standard error of 0 (all units equal) gives an interval of no width and p = 1 where the
    difference is 0; elsewhere p = 0, which callers bound from below by the sign-flip test.
    """
    if standard_error == 0:
        return Estimate(difference, 0.0, degrees_of_freedom, (difference, difference),
                        1.0 if difference == 0 else 0.0)  # fmt: skip
    half = student_quantile((1 - level) / 2, degrees_of_freedom) * standard_error
    p = 2 * float(special.stdtr(degrees_of_freedom, -abs(difference) / standard_error))
    interval = (difference - half, difference + half)
    return Estimate(difference, standard_error, degrees_of_freedom, interval, p)


def student_quantile(tail: float, degrees_of_freedom: float) -> float:
    """What Student's t exceeds with chance ``tail``; tens of times faster than `scipy.stats.t`."""
    return -float(special.stdtrit(degrees_of_freedom, tail))


def paired_t(differences: Sequence[float] | np.ndarray, level: float = 0.95) -> Estimate:
    """Student's t over independent repeats.

    Parameters
    ----------
    differences
        (R,) one per repeat, R >= 2.

    Raises
    ------
    InputError
        If fewer than 2 differences are given.
    """
    return corrected_paired_t(differences, test_to_train=0.0, level=level)


def corrected_paired_t(
    differences: Sequence[float] | np.ndarray, test_to_train: float, level: float = 0.95
) -> Estimate:
    """Student's t where the units share training images (resampled or cross-validated splits).

    The variance of the mean is ``(1/R + n_test/n_train) s^2`` instead of ``s^2/R``.

    Parameters
    ----------
    differences
        (R,) one per split.
    test_to_train
        ``n_test / n_train`` of one split; 0 gives the plain paired t.

    References
    ----------
    C. Nadeau, Y. Bengio (2003), Machine Learning 52, 239, section 3.2.
    """
    values = _finite(differences)
    if test_to_train < 0:
        raise InputError(f"test_to_train must not be negative, got {test_to_train}")
    variance = float(values.var(ddof=1)) * (1 / len(values) + test_to_train)
    mean = float(values.mean())
    # Rounding must not turn equal differences into a tiny variance and an absurd t.
    if np.ptp(values) <= 1e-12 * max(1.0, abs(mean)):
        estimate = student_estimate(mean, 0.0, len(values) - 1, level)
        return Estimate(mean, 0.0, len(values) - 1, estimate.interval, sign_flip_p(values))
    return student_estimate(mean, math.sqrt(variance), len(values) - 1, level)


def sign_flip_p(
    differences: Sequence[float] | np.ndarray, rng: np.random.Generator | None = None
) -> float:
    """Two-sided permutation test: under the null each difference may as well change its sign.

    Exact up to `EXACT_SIGN_FLIPS` repeats, so p is at least ``2^(1 - R)``: 5 repeats cannot go
    below .0625. Beyond, 100,000 flips are drawn from ``rng`` (default seed 0), the observed one
    counted among them.

    Parameters
    ----------
    differences
        (R,) one per repeat.
    """
    values = _finite(differences)
    observed = abs(values.sum())
    slack = 1e-9 * max(1e-12, np.abs(values).sum())
    if len(values) <= EXACT_SIGN_FLIPS:
        sums = np.zeros(1)
        for value in values[1:]:  # the first sign is fixed: the test is symmetric
            sums = np.concatenate((sums + value, sums - value))
        sums += values[0]
        return float(np.mean(np.abs(sums) >= observed - slack))
    rng = rng or np.random.default_rng(0)
    draws = 100_000
    at_least = 1
    for _ in range(10):
        signs = rng.integers(0, 2, (draws // 10, len(values))) * 2 - 1
        at_least += int(np.sum(np.abs(signs @ values) >= observed - slack))
    return at_least / (draws + 1)


def holm_adjusted(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment: the chance of any false claim in the family stays at alpha.

    Parameters
    ----------
    p_values
        (m,) in [0, 1]; nan (no test was possible) stays nan and is no member of the family.

    Returns
    -------
    (m,) float
        Adjusted p in the order given.

    References
    ----------
    S. Holm (1979), Scand. J. Stat. 6, 65.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    members = np.flatnonzero(~np.isnan(p))
    order = members[np.argsort(p[members], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variance estimates (variance, its df).

    References
    ----------
    F. E. Satterthwaite (1946), Biometrics Bulletin 2, 110.
    """
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / freedom for variance, freedom in parts if variance > 0)
    return total**2 / spread if spread > 0 else max(freedom for _, freedom in parts)


def minimum_detectable_effect(
    standard_error: float,
    degrees_of_freedom: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float:
    """Smallest true difference that a two-sided t test finds with chance ``power``.

    Solved with the noncentral t: 1.00 standard deviations of a paired difference for 10
    repeats, 3.27 for 3.

    Parameters
    ----------
    standard_error
        Of the mean difference.
    degrees_of_freedom
        Of the test.
    alpha
        Two-sided level; divide it by the size of the family for Holm's first step.
    """
    if standard_error == 0:
        return 0.0
    return _detectable_noncentrality(round(degrees_of_freedom, 2), power, alpha) * standard_error


@functools.lru_cache(maxsize=4096)
def _detectable_noncentrality(degrees_of_freedom: float, power: float, alpha: float) -> float:
    """The minimum detectable effect in standard errors."""
    critical = student_quantile(alpha / 2, degrees_of_freedom)
    # The noncentral t as a mean over the spread that a study may find: quantiles of chi^2 / df.
    # (SciPy's own distribution function gives nan for few degrees of freedom.)
    middles = (np.arange(4000) + 0.5) / 4000
    found_spread = np.sqrt(special.gammaincinv(degrees_of_freedom / 2, middles))
    found_spread *= math.sqrt(2 / degrees_of_freedom)

    def shortfall(shift: float) -> float:
        above = special.ndtr(shift - critical * found_spread)
        below = special.ndtr(-shift - critical * found_spread)
        return float(np.mean(above + below)) - power

    high = critical + 2.0
    while shortfall(high) < 0:
        high *= 1.5
    return float(optimize.brentq(shortfall, 0.0, high, xtol=1e-6))


def planned_detectable_effect(
    test_positives: int,
    repeats: int,
    *,
    item_spread: float = 0.30,
    training_spread: float = 0.06,
    alpha: float = 0.05,
) -> float:
    """Smallest difference in recall that a design can be expected to see, before it is run.

    Parameters
    ----------
    test_positives
        Test images of the class, over all folds.
    repeats
        Paired trainings.
    item_spread
        Standard deviation over images of the expected gain of an image; .30 is what real pairs
        of arms showed (0.1 to 0.4).
    training_spread
        Standard deviation of the recall difference between two trainings of one recipe.

    Returns
    -------
    float
        In recall (0 to 1), at power .8.
    """
    if test_positives < 1 or repeats < 2:
        return math.inf
    of_items = item_spread**2 / test_positives
    of_trainings = training_spread**2 / repeats
    freedom = satterthwaite([(of_items, max(1, test_positives - 1)), (of_trainings, repeats - 1)])
    return min(
        math.inf,
        minimum_detectable_effect(math.sqrt(of_items + of_trainings), freedom, alpha=alpha),
    )


def single_pair_p(right: np.ndarray, baseline_right: np.ndarray) -> float:
    """Exact McNemar test between two trained networks: what papers report, and too eager.

    It answers whether these two *networks* differ on these images, not whether the recipes do.

    Parameters
    ----------
    right, baseline_right
        (n,) bool: each image found by the arm, by the baseline.
    """
    won = int(np.sum(right & ~baseline_right))
    lost = int(np.sum(~right & baseline_right))
    return 1.0 if won + lost == 0 else float(stats.binomtest(won, won + lost, 0.5).pvalue)


def _finite(differences: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise InputError(f"a paired test needs 2 differences or more, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError("a paired test needs finite differences")
    return values

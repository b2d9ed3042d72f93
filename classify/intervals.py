"""Confidence intervals of a proportion: Wilson's score interval and Clopper and Pearson's."""

import math

from scipy import stats

from galaxies.errors import InputError


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Its mean coverage is close to ``level`` at every proportion and it is never empty: at 0 of 67
    it gives [0, .054], where the normal approximation gives [0, 0].

    Parameters
    ----------
    successes, trials
        Counts; with no trials the interval is [0, 1].
    level
        Confidence level in (0, 1).

    Returns
    -------
    (low, high)

    References
    ----------
    E. B. Wilson (1927), J. Am. Stat. Assoc. 22, 209, equation 6.
    """
    _check(successes, trials, level)
    if trials == 0:
        return 0.0, 1.0
    z = float(stats.norm.isf((1 - level) / 2))
    share = successes / trials
    scale = 1 / (1 + z * z / trials)
    centre = scale * (share + z * z / (2 * trials))
    half = scale * z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def clopper_pearson_interval(
    successes: int, trials: int, level: float = 0.95
) -> tuple[float, float]:
    """Clopper and Pearson's exact interval: covers at least ``level`` at every proportion.

    Wider than Wilson's; printed beside it where counts are small.

    References
    ----------
    C. J. Clopper, E. S. Pearson (1934), Biometrika 26, 404.
    """
    _check(successes, trials, level)
    if trials == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else stats.beta.ppf(tail, successes, trials - successes + 1)
    high = 1.0 if successes == trials else stats.beta.isf(tail, successes + 1, trials - successes)
    return float(low), float(high)


def _check(successes: int, trials: int, level: float) -> None:
    if not 0 <= successes <= trials:
        raise InputError(f"{successes} successes of {trials} trials is not a proportion")
    if not 0 < level < 1:
        raise InputError(f"a confidence level lies between 0 and 1, got {level}")

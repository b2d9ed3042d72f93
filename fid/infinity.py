"""The Fréchet distance extrapolated to infinitely many images, where that is possible.

The bias of the distance falls as 1/N once N is well above the number of features (Chong &
Forsyth, CVPR 2020); there a straight line in 1/N ends at the distance of the two populations.
Below, the curve is not straight and the line ends far from the truth, so it is refused.
"""

from dataclasses import dataclass

import numpy as np

from fid.frechet import frechet_distance_of_features
from galaxies.errors import InputError

POINTS = 8
_FITS = 5
_LEAST_RATIO = 2
"""Images per feature from which the line ends within 0.5 % of the variance (see the tests)."""


@dataclass(frozen=True)
class Extrapolated:
    """Intercept of the line, and its standard error.

    Attributes
    ----------
    value : float
        Distance at infinitely many images.
    standard_error : float
        Of the intercept: its spread over fits with other random groups, which is on the safe
        side by up to 1.8 times (the groups of one fit overlap).
    least, most : int
        Range of N that was fitted.
    """

    value: float
    standard_error: float
    least: int
    most: int


def frechet_at_infinity(
    real: np.ndarray, fake: np.ndarray, rng: np.random.Generator
) -> Extrapolated:
    """Fit the distances of random groups of N images a side against 1/N.

    Raises
    ------
    InputError
        If there are fewer than 2 images per feature on a side: refused, not guessed.
    """
    most, dimensions = min(len(real), len(fake)), real.shape[1]
    if most < _LEAST_RATIO * dimensions:
        raise InputError(
            f"{most} images a side are too few to extrapolate {dimensions} features: "
            f"{_LEAST_RATIO * dimensions} are needed"
        )
    least = most // 2
    sizes = np.round(1 / np.linspace(1 / least, 1 / most, POINTS)).astype(int)
    intercepts = []
    for _ in range(_FITS):
        order_real, order_fake = rng.permutation(len(real)), rng.permutation(len(fake))
        values = [
            frechet_distance_of_features(real[order_real[:size]], fake[order_fake[:size]])
            for size in sizes
        ]
        _, intercept = np.polyfit(1 / sizes, values, 1)
        intercepts.append(intercept)
    return Extrapolated(
        float(np.mean(intercepts)),
        float(np.std(intercepts, ddof=1)),
        int(sizes[0]),
        int(sizes[-1]),
    )

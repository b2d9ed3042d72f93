"""Measure one stretch for all images of a set, so that their brightness stays comparable."""

import numpy as np
import torch

from galaxies.image_set import ImageSet
from galaxies.pixels import Stretch
from galaxies.resize import crop_and_resize

MOST_IMAGES = 500
"""So many images, evenly spaced through the set, say where its sky and its bright end lie."""

BRIGHT_SHARE = 0.99
"""`white` lies above the brightest pixel of this share of the images; the others are clipped."""

_NORMAL = 1.4826  # standard deviations per median absolute deviation of a normal distribution
_LEAST_RANGE = 10  # standard deviations of the noise between black and white


def survey_stretch(
    image_set: ImageSet, *, crop: int | None = None, size: int | None = None
) -> Stretch:
    """Black one noise below the sky, white above nearly every galaxy, linear up to three noises.

    Parameters
    ----------
    image_set
        float32 flux (N, C, H, W) in any unit, all of it finite, at least one image.
    crop, size
        As in `crop_and_resize`: the stretch is that of what is left.
    """
    count = min(len(image_set), MOST_IMAGES)
    rows = np.unique(np.linspace(0, len(image_set) - 1, count).round().astype(np.int64))
    # Image by image: those of the source may be large.
    pieces = [crop_and_resize(image_set.read(row), crop=crop, size=size) for row in rows[:, None]]
    flux = torch.cat(pieces)
    sky, noise = sky_and_noise(flux)
    brightest = torch.quantile(flux.flatten(1).amax(1), BRIGHT_SHARE, interpolation="higher")
    black = sky - noise
    return Stretch(
        black=black, white=max(float(brightest), black + _LEAST_RANGE * noise), softening=3 * noise
    )


def sky_and_noise(flux: torch.Tensor) -> tuple[float, float]:
    """Median of all pixels, and the standard deviation of the noise around it.

    The noise comes from the median absolute deviation, which galaxies hardly move. Where more
    than half of the pixels are equal it is the deviation of all of them, and 1 where all are.
    """
    values = flux.numpy()
    sky = float(np.median(values))
    noise = _NORMAL * float(np.median(np.abs(values - sky)))
    return sky, noise or float(values.std()) or 1.0

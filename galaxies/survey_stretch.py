"""Measure one stretch for all images of a set, so that their brightness stays comparable."""

from dataclasses import dataclass

import numpy as np
import torch

from galaxies.command_line import warn
from galaxies.image_set import ImageSet
from galaxies.pixels import Stretch
from galaxies.resize import crop_and_resize

MOST_IMAGES = 500
"""So many images, evenly spaced through the set, say where its sky and its bright end lie."""

BRIGHT_SHARE = 0.99
"""`white` lies above the brightest pixel of this share of the images; the others are clipped."""

_NORMAL = 1.4826  # standard deviations per median absolute deviation of a normal distribution
_FAR_APART = 10  # standard deviations of the noise between the skies of two channels
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
    pieces, ranges = [], PixelRanges()
    for row in rows[:, None]:
        image = image_set.read(row)
        ranges.add(image)
        pieces.append(crop_and_resize(image, crop=crop, size=size))
    flux = torch.cat(pieces)
    for doubt in (ranges.doubt(), _doubt_of_channels(flux)):
        if doubt:
            warn(doubt)
    sky, noise = sky_and_noise(flux)
    brightest = torch.quantile(flux.flatten(1).amax(1), BRIGHT_SHARE, interpolation="higher")
    black = sky - noise
    return Stretch(
        black=black, white=max(float(brightest), black + _LEAST_RANGE * noise), softening=3 * noise
    )


@dataclass
class PixelRanges:
    """What the values of float images, seen one after the other, have in common."""

    least: float = np.inf
    most: float = -np.inf
    whole: bool = True

    def add(self, images: torch.Tensor) -> None:
        """Look at further images."""
        self.least = min(self.least, float(images.min()))
        self.most = max(self.most, float(images.max()))
        self.whole = self.whole and bool((images == images.round()).all())

    def doubt(self) -> str | None:
        """Why the images seem to be pictures rather than flux, and what to do."""
        if self.least < 0:
            return None
        if self.whole and 1 < self.most <= 255:
            found, convert, linear = "whole numbers from 0 to 255", "images", "0 255 25500"
        elif 0.9 <= self.most <= 1:
            found, convert, linear = "values from 0 to 1", "(images * 255).round()", "0 1 100"
        else:
            return None
        return (
            f"float32 images of {found} look like pictures that are stretched already, and get a "
            f"second stretch as flux; store them as uint8, {convert}.astype('uint8'), or keep "
            f"their scale with --stretch {linear}"
        )


def _doubt_of_channels(flux: torch.Tensor) -> str | None:
    """Say so where one stretch cannot suit all channels."""
    measured = [sky_and_noise(channel) for channel in flux.unbind(dim=1)]
    skies, noises = zip(*measured, strict=True)
    if max(skies) - min(skies) <= _FAR_APART * max(noises):
        return None
    return (
        f"the channels have different sky levels ({', '.join(f'{sky:.4g}' for sky in skies)}; "
        f"noise {', '.join(f'{noise:.4g}' for noise in noises)}), and one stretch serves them "
        "all; take its sky off each channel before packing, or give --stretch"
    )


def sky_and_noise(flux: torch.Tensor) -> tuple[float, float]:
    """Median of all pixels, and the standard deviation of the noise around it.

    The noise comes from the median absolute deviation, which galaxies hardly move. Where more
    than half of the pixels are equal it is the deviation of all of them, and 1 where all are.
    """
    values = flux.numpy()
    sky = float(np.median(values))
    noise = _NORMAL * float(np.median(np.abs(values - sky)))
    return sky, noise or float(values.std(dtype=np.float64)) or 1.0

"""FITS images: the HDU, masked pixels, and the stretch that turns flux into what was trained on.

Axes and rows are those of `galaxies.fits_images`, as when a set is packed. Masked pixels, which a
set refuses, are filled here: who asks about one image wants an answer.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from galaxies.fits_images import astropy_fits, flux_of_array, is_fits_file
from galaxies.image_files import BadImageError
from galaxies.pixels import Stretch
from galaxies.survey_stretch import sky_and_noise

MOST_MASKED = 0.5

_FITS_START = b"SIMPLE  ="
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"BM")


@dataclass(frozen=True)
class FitsReading:
    """How FITS files are read.

    Attributes
    ----------
    hdu : int or None
        Number of the HDU; ``None`` takes the first that holds an image.
    stretch : Stretch or None
        Flux to [0, 1]; ``None`` measures it on each image: black one standard deviation below
        the sky, softening three above it, white at the 99.7th percentile.
    """

    hdu: int | None = None
    stretch: Stretch | None = None


def is_fits(source: Path | bytes, name: str) -> bool:
    """Whether a file is FITS by its first bytes; by its name where those tell nothing."""
    if isinstance(source, bytes):
        start = source[:9]
    else:
        try:
            with source.open("rb") as file:
                start = file.read(9)
        except OSError:
            return is_fits_file(name)  # whoever reads it says what is wrong
    return start == _FITS_START or (is_fits_file(name) and not start.startswith(_PICTURE_STARTS))


def read_flux(source: Path | bytes, name: str, reading: FitsReading) -> tuple[np.ndarray, float]:
    """Flux (C, H, W) float32 with masked pixels filled by the sky, and the share that was masked.

    Raises
    ------
    BadImageError
        If the file is not FITS, has no such image, or more than half of its pixels are NaN.
    InputError
        If astropy is not installed.
    """
    fits = astropy_fits()
    try:
        with fits.open(io.BytesIO(source) if isinstance(source, bytes) else source) as units:
            data = _choose(units, name, reading.hdu)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise BadImageError(f"{name} is corrupt or not FITS ({error})") from None
    try:
        flux = flux_of_array(data).transpose(2, 0, 1).copy()
    except ValueError as error:
        raise BadImageError(f"{name}: {error}") from None
    masked = ~np.isfinite(flux)
    share = float(masked.mean())
    if share > MOST_MASKED:
        raise BadImageError(f"{name}: {100 * share:.0f} % of the pixels are NaN or infinite")
    for band, mask in zip(flux, masked, strict=True):
        if mask.any():
            band[mask] = np.median(band[~mask]) if not mask.all() else 0.0
    return flux, share


def flux_to_bytes(flux: np.ndarray, stretch: Stretch | None) -> np.ndarray:
    """Flux (C, H, W) float32 to (H, W, C) uint8 by an asinh stretch, the same for all bands."""
    unit = (stretch or measured_stretch(flux)).compress(torch.from_numpy(flux))
    return np.rint(unit.numpy() * 255).astype(np.uint8).transpose(1, 2, 0)


def measured_stretch(flux: np.ndarray) -> Stretch:
    """Stretch from the sky's median and median absolute deviation, and the bright end."""
    sky, noise = sky_and_noise(torch.from_numpy(flux))
    black = sky - noise
    white = max(float(np.percentile(flux, 99.7)), black + 10 * noise)
    return Stretch(black=black, white=white, softening=3 * noise)


def _choose(units: Iterable[Any], name: str, number: int | None) -> np.ndarray:
    images = [
        (index, unit)
        for index, unit in enumerate(units)
        if getattr(unit, "is_image", False) and unit.header.get("NAXIS", 0) >= 2
    ]
    listed = ", ".join(str(index) for index, _ in images) or "none"
    if number is None:
        if not images:
            raise BadImageError(f"{name} holds no image")
        return np.asarray(images[0][1].data)
    for index, unit in images:
        if index == number:
            return np.asarray(unit.data)
    raise BadImageError(f"{name}: HDU {number} is not an image (images: {listed})")

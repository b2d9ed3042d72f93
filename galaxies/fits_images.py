"""FITS cut-outs: the image of a file as float32 flux, whatever the order of its axes.

Rows of a FITS image count from the bottom, those of a picture from the top; the array is turned
over, so that a spiral winds the same way in both. Axes of length 1 (frequency and polarisation of
radio maps) are dropped; the bands of a cube may stand first or last.
"""

from pathlib import Path
from typing import Any

import numpy as np

from galaxies.errors import InputError

FITS_ENDINGS = (".fits", ".fit", ".fts", ".fits.gz", ".fits.fz")
MOST_BANDS = 10


def is_fits_file(name: str) -> bool:
    """Whether a file name has a FITS ending; hidden files do not count."""
    name = Path(name).name
    return name.lower().endswith(FITS_ENDINGS) and not name.startswith(".")


def fits_shape(path: Path) -> tuple[int, int, int]:
    """(height, width, bands) of the first image of a file, without its pixels.

    Raises
    ------
    ValueError
        If it holds no image of two axes, or of three with 1 to 10 bands.
    OSError
        If it is no FITS file.
    InputError
        If astropy is not installed.
    """
    with astropy_fits().open(path, memmap=False) as units:
        shape = _shape_of_image(_first_image(units).shape)
    return (*shape, 1) if len(shape) == 2 else _bands_last(shape)


def read_fits(path: Path) -> np.ndarray:
    """(H, W, bands) float32 flux of the first image of a file; the errors of `fits_shape`."""
    with astropy_fits().open(path, memmap=False) as units:
        return flux_of_array(np.asarray(_first_image(units).data))


def flux_of_array(data: np.ndarray) -> np.ndarray:
    """(H, W, bands) float32 flux of an image unit's array, turned over, whatever its axes.

    Raises
    ------
    ValueError
        If it has not two axes, or three with 1 to 10 bands, beside those of length 1.
    """
    flux = data.reshape(_shape_of_image(data.shape))
    if flux.ndim == 2:
        flux = flux[..., None]
    elif _bands_last(flux.shape) != flux.shape:
        flux = flux.transpose(1, 2, 0)
    return np.ascontiguousarray(flux[::-1], dtype=np.float32)


def astropy_fits() -> Any:
    """``astropy.io.fits``; `InputError` if it is not installed."""
    try:
        from astropy.io import fits
    except ImportError:
        raise InputError("FITS files need an extra: pip install 'galaxy-augment[fits]'") from None
    return fits


def _first_image(units: Any) -> Any:
    for unit in units:
        if getattr(unit, "is_image", False) and len(unit.shape) >= 2:
            return unit
    raise ValueError("no header unit holds an image")


def _shape_of_image(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of length 1, but with at least two."""
    kept = tuple(length for length in shape if length > 1)
    kept = kept if len(kept) > 1 else shape[-2:]
    if len(kept) > 3:
        raise ValueError(f"the image has the shape {shape}; two axes and bands are needed")
    return kept


def _bands_last(shape: tuple[int, ...]) -> tuple[int, int, int]:
    first, middle, last = shape
    if first <= MOST_BANDS:
        return middle, last, first
    if last <= MOST_BANDS:
        return first, middle, last
    raise ValueError(f"the image has the shape {shape}; 1 to {MOST_BANDS} bands are supported")

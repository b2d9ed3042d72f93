"""Whether two images are copies of each other: rotated, mirrored, re-encoded, slightly shifted.

Round galaxies look alike, so their light says little; what tells a copy is that the noise and
the neighbours are the same too. Images are therefore compared on a logarithmic scale, without
their smooth part. Two signatures propose pairs, and a correlation of pixels under the eight
symmetries and small shifts decides:

- a perceptual hash, the signs of low frequencies of the cosine transform, compared under the
  eight symmetries; it survives strong compression;
- the logarithm of the power spectrum averaged over the symmetries, which neither they nor a
  shift change.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

from galaxies.symmetry import SYMMETRIES, all_symmetries

SIDE = 64
"""Larger images are averaged down to this side before they are compared."""

HASH_BITS = 144
CLOSEST_HASH = 38
"""Pairs whose hashes differ in at most so many of 144 bits are looked at: unrelated galaxies
differ in about 48 or more for all but one pair in 1,000, JPEG copies in 13 (median 8)."""

CLOSEST_SPECTRUM = 0.75
"""Pairs whose spectra correlate at least so much are looked at."""

SAME_PIXELS = 0.3
"""Correlation from which a pair is a copy. Measured on real and simulated galaxies: unrelated
pairs reach 0.20, copies saved as JPEG at quality 90 have at least 0.52, shifted ones 0.80; of
32-pixel images (Galaxy Zoo 1) unrelated pairs reach 0.15 and such copies have at least 0.34."""

LARGEST_SHIFT = 4
"""Pixels (of `SIDE`) that a copy may be shifted along each axis."""

_HASH_SIDE = 32
_LOWEST, _HIGHEST = 2, 14  # frequencies of the hash: below is the galaxy's shape, above is noise
_SMOOTH = 2.0  # standard deviation of the smooth part at `SIDE` pixels
_SMOOTH_POWER = 1.3  # 0.8 pixels at 32: there, unlike pairs stay below 0.3 and JPEG copies above
_LOG_OFFSET = 4.0  # grey levels: evens out noise between dark and bright skies
_LOW_RADIUS, _HIGH_RADIUS = 5, 32  # frequencies of the spectrum


@dataclass(frozen=True)
class Signatures:
    """What images are compared by.

    Attributes
    ----------
    hashes : (8, n, 144) float32
        +1 and -1, of each image under each symmetry.
    spectra : (n, d) float32
        Logarithm of the symmetric power spectrum.
    residuals : (n, SIDE, SIDE) float32
        Image without its smooth part, in units of its own noise.
    """

    hashes: torch.Tensor
    spectra: torch.Tensor
    residuals: np.ndarray


def signatures(images: torch.Tensor) -> Signatures:
    """Compute the signatures of (n, C, H, H) images, uint8 or float32."""
    grey = _grey(images)
    residuals = _residuals(grey)
    return Signatures(_hashes(grey), _spectra(residuals), residuals)


def same_pixels(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest correlation of pairs of residuals (n, S, S) over symmetries and small shifts.

    Returns
    -------
    correlation, symmetry
        (n,) float32 and (n,) int64: which symmetry of ``second`` fits ``first`` best.
    """
    spectrum = scipy.fft.rfft2(first)
    turned = all_symmetries(torch.from_numpy(second)[:, None])[:, :, 0].numpy()
    window = 2 * LARGEST_SHIFT + 1
    fits = np.empty((SYMMETRIES, len(first)), np.float32)
    for element in range(SYMMETRIES):
        product = spectrum * scipy.fft.rfft2(turned[element]).conj()
        correlation = scipy.fft.irfft2(product, s=first.shape[1:])
        near = np.roll(correlation, (LARGEST_SHIFT, LARGEST_SHIFT), axis=(1, 2))
        fits[element] = near[:, :window, :window].max(axis=(1, 2))
    norm = np.sqrt((first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2)))
    best = fits.argmax(axis=0)
    return fits[best, np.arange(len(first))] / np.maximum(norm, 1e-9), best


def _grey(images: torch.Tensor) -> torch.Tensor:
    """(n, S, S) float32 mean of the channels, as 0 to 255, averaged down to at most `SIDE`."""
    grey = images.to(torch.float32).mean(dim=1)
    if images.dtype != torch.uint8:  # flux has no fixed scale: take each image's own range
        low = grey.amin(dim=(1, 2), keepdim=True)
        span = grey.amax(dim=(1, 2), keepdim=True) - low
        grey = (grey - low) / span.masked_fill(span == 0, 1) * 255
    if grey.shape[-1] > SIDE:
        grey = interpolate(grey[:, None], (SIDE, SIDE), mode="area")[:, 0]
    return grey


def _hashes(grey: torch.Tensor) -> torch.Tensor:
    logarithm = torch.log(_centred(grey) + _LOG_OFFSET)[:, None]
    small = interpolate(logarithm, (_HASH_SIDE, _HASH_SIDE), mode="area")[:, 0].numpy()
    waves = scipy.fft.dctn(small, axes=(1, 2), norm="ortho")
    parity = np.where(np.arange(_HASH_SIDE) % 2, -1, 1)
    versions = []
    for element in range(SYMMETRIES):
        # A flip changes the sign of the odd waves of its axis; a transposition swaps the axes.
        turned = waves * parity[None, None, :] if element & 1 else waves
        turned = turned * parity[None, :, None] if element & 2 else turned
        turned = turned.transpose(0, 2, 1) if element & 4 else turned
        band = turned[:, _LOWEST:_HIGHEST, _LOWEST:_HIGHEST].reshape(len(waves), -1)
        versions.append(np.where(band > 0, 1, -1).astype(np.float32))
    return torch.from_numpy(np.stack(versions))


def _centred(grey: torch.Tensor) -> torch.Tensor:
    """Roll each image so that the centroid of its brightest tenth stands in the middle."""
    side = grey.shape[-1]
    flat = grey.flatten(1)
    threshold = torch.quantile(flat, 0.95, dim=1)[:, None, None]
    light = (grey - threshold).clamp(min=0)
    total = light.sum(dim=(1, 2)) + 1e-6
    axis = torch.arange(side) - (side - 1) / 2
    down = ((light * axis[:, None]).sum(dim=(1, 2)) / total).round().long()
    right = ((light * axis).sum(dim=(1, 2)) / total).round().long()
    index = torch.arange(side)
    rows = (index + down[:, None]) % side
    columns = (index + right[:, None]) % side
    pictures = torch.arange(len(grey))[:, None, None]
    return grey[pictures, rows[:, :, None], columns[:, None, :]]


def _residuals(grey: torch.Tensor) -> np.ndarray:
    logarithm = np.log(grey.numpy() + _LOG_OFFSET)
    # With one width for all sizes the outlines of small galaxies would count as their noise, and
    # edge-on ones of equal slant as copies.
    width = _SMOOTH * (grey.shape[-1] / SIDE) ** _SMOOTH_POWER
    rough = logarithm - gaussian_filter(logarithm, (0, width, width))
    noise = 1.4826 * np.median(np.abs(rough), axis=(1, 2), keepdims=True) + 1e-3
    return np.clip(rough / noise, -3, 3).astype(np.float32)


def _spectra(residuals: np.ndarray) -> torch.Tensor:
    side = residuals.shape[-1]
    half = side // 2
    taper = np.sqrt(np.hanning(side + 2)[1:-1]).astype(np.float32)
    power = np.abs(scipy.fft.fft2(residuals * taper[:, None] * taper)) ** 2
    logarithm = np.log(power + 1e-2 * power.mean(axis=(1, 2), keepdims=True) + 1e-12)
    mirrored = np.concatenate([[0], np.arange(side - 1, side - half - 1, -1)])
    quarter = logarithm[:, : half + 1, : half + 1] + logarithm[:, mirrored, : half + 1]
    symmetric = quarter + quarter.transpose(0, 2, 1)
    rows, columns = np.triu_indices(half + 1)
    radius = np.hypot(rows, columns) * SIDE / side
    kept = (radius >= _LOW_RADIUS) & (radius <= _HIGH_RADIUS)
    return torch.from_numpy(symmetric[:, rows[kept], columns[kept]].astype(np.float32))

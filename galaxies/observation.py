"""From light to data: seeing, pixels, photon noise, the colour picture and the photometry.

The instrument is like SDSS: 0.4 arcsec pixels, about 54 seconds on a 2.5 m telescope, asinh
magnitudes (Lupton, Gunn & Szalay 1999) and asinh colour pictures (Lupton et al. 2004).
"""

from dataclasses import dataclass

import galsim
import numpy as np
import scipy.fft

from galaxies.morphology import BANDS, Scene

FIELD_ARCSECONDS = 25.6
"""Side of the sky that an image shows, whatever its size in pixels."""

OVERSAMPLING = 2
MARGIN = 0.125
"""Share of the stamp that the scene extends beyond each of its sides."""

ZERO_POINTS = np.array([28.3, 30.0, 29.9, 29.6, 28.2])
"""(5,) magnitude in u, g, r, i, z that gives one photo-electron."""

_SKY = np.array([22.1, 21.8, 20.9, 20.3, 19.1])  # magnitudes per square arcsecond
_READ_NOISE = 6.0  # electrons per pixel of 0.4 arcsec
_WAVELENGTHS = np.array([354.0, 475.0, 622.0, 763.0, 905.0])  # nanometres
_KERNEL_ARCSECONDS = 13.0
_REDDENING = 0.2  # seeing falls with wavelength to this power (Kolmogorov)

# The picture: i, r, g as red, green, blue, in r-band electrons per square arcsecond.
_PICTURE_BANDS = np.array([3, 2, 1])
_PICTURE_WEIGHTS = np.array([0.85, 1.0, 1.55])
_BLACK = -80.0
_WHITE = 38000.0
_ASINH_Q = 21.0

FEATURES = (
    *(f"{band}_magnitude" for band in BANDS),
    *(f"{band}_error" for band in BANDS),
    "half_light_radius",
    "concentration",
    "ellipticity",
)
"""Names of what `measure` returns."""


@dataclass(frozen=True)
class Exposure:
    """Sky-subtracted images of one field in five bands.

    Attributes
    ----------
    electrons : (5, size, size) float64
        Photo-electrons per pixel, with noise.
    variance : (5,) float64
        Variance of an empty pixel.
    scale : float
        Arcseconds per pixel.
    """

    electrons: np.ndarray
    variance: np.ndarray
    scale: float


def empty_scene(size: int) -> Scene:
    """Scene whose inner part becomes an image of ``size`` pixels."""
    scale = FIELD_ARCSECONDS / size / OVERSAMPLING
    points = OVERSAMPLING * (size + 2 * round(MARGIN * size))
    return Scene(scipy.fft.next_fast_len(points + points % 2, real=True), scale)


def expose(scene: Scene, size: int, rng: np.random.Generator) -> Exposure:
    """Blur with the seeing of each band, sum into pixels, add the noise of sky and photons."""
    blurred = _convolve(scene.light, _point_spread(scene, rng))
    edge = (scene.points - OVERSAMPLING * size) // 2
    inner = blurred[:, edge : edge + OVERSAMPLING * size, edge : edge + OVERSAMPLING * size]
    pixels = inner.reshape(len(BANDS), size, OVERSAMPLING, size, OVERSAMPLING).sum(axis=(2, 4))
    # The scene counts in r-band electrons; each band has its own throughput.
    pixels = (
        np.maximum(pixels.astype(np.float64), 0)
        * 10 ** (0.4 * (ZERO_POINTS - ZERO_POINTS[2]))[:, None, None]
    )
    scale = FIELD_ARCSECONDS / size
    sky = 10 ** (-0.4 * (_SKY - ZERO_POINTS)) * scale**2 * rng.uniform(0.8, 1.3)
    read = _READ_NOISE * scale / 0.4
    photons = rng.poisson(pixels + sky[:, None, None])
    counted = photons + rng.normal(0, read, pixels.shape)
    # The sky is subtracted as well as a survey can: with a small error.
    subtracted = sky * (1 + rng.normal(0, 5e-4, len(BANDS)))
    return Exposure(counted - subtracted[:, None, None], sky + read**2, scale)


def _point_spread(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """(5, points, points) Moffat profiles around the first point, the seeing of each band."""
    width = rng.normal(1.25, 0.14)
    shear = galsim.Shear(g1=rng.normal(0, 0.02), g2=rng.normal(0, 0.02))
    side = min(2 * round(_KERNEL_ARCSECONDS / 2 / scene.scale) + 1, scene.points - 1)
    kernels = np.zeros((len(BANDS), scene.points, scene.points), np.float32)
    for kernel, wavelength in zip(kernels, _WAVELENGTHS, strict=True):
        seeing = max(width, 0.9) * (wavelength / _WAVELENGTHS[2]) ** -_REDDENING
        profile = galsim.Moffat(beta=3.5, fwhm=seeing).shear(shear)
        image = galsim.ImageF(side, side, scale=scene.scale)
        stamp = profile.drawImage(image=image, method="no_pixel").array
        kernel[:side, :side] = stamp / stamp.sum()
    return np.roll(kernels, (-(side // 2), -(side // 2)), axis=(1, 2))


def _convolve(light: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Circular convolution over the last two axes; the margin keeps the seam out of the image."""
    product = scipy.fft.rfft2(light) * scipy.fft.rfft2(kernels)
    return scipy.fft.irfft2(product, s=light.shape[1:])


def picture(exposure: Exposure) -> np.ndarray:
    """(3, size, size) uint8: red, green and blue from i, r and g by the asinh of their mean.

    The same stretch for every image of a survey; a colour does not depend on brightness, and a
    pixel that is too bright for a channel keeps its colour (Lupton et al. 2004, equation 2).
    """
    throughput = 10 ** (0.4 * (ZERO_POINTS[_PICTURE_BANDS] - ZERO_POINTS[2]))
    weights = _PICTURE_WEIGHTS / throughput / exposure.scale**2
    channels = exposure.electrons[_PICTURE_BANDS] * weights[:, None, None] - _BLACK
    mean = channels.mean(axis=0)
    bright = np.arcsinh(_ASINH_Q * np.maximum(mean, 0) / _WHITE) / np.arcsinh(_ASINH_Q)
    colour = channels * (bright / np.where(mean > 0, mean, 1))
    colour = colour / np.maximum(colour.max(axis=0), 1)
    return np.rint(255 * colour.clip(0, 1)).astype(np.uint8)


def measure(exposure: Exposure) -> np.ndarray:
    """(13,) float32 photometry in the order of `FEATURES`, measured on the noisy images.

    Asinh magnitudes and their errors in an aperture of three second-moment radii, the radius of
    half of the r light in arcseconds, the concentration ``5 log10(r80 / r20)`` (Bershady et al.
    2000), and the ellipticity ``1 - b / a`` of Gaussian-weighted moments. Always finite.
    """
    r_image = exposure.electrons[2]
    size = r_image.shape[0]
    axis = np.arange(size) - (size - 1) / 2
    x, y, moments = _weighted_moments(r_image, axis, 3.0 / exposure.scale)
    spread = np.sqrt(max(np.trace(moments) / 2, 1.0))
    radius = np.hypot(axis[None, :] - x, axis[:, None] - y)
    limit = min(max(4.5 * spread, 4.0), size / 2)
    inside = radius <= limit
    flux = exposure.electrons[:, inside].sum(axis=1)
    noise = np.sqrt(np.maximum(flux, 0) + inside.sum() * exposure.variance)
    softening = 1e-10 * 10 ** (0.4 * ZERO_POINTS) * 10  # b of asinh magnitudes, in electrons
    magnitude = -2.5 / np.log(10) * np.arcsinh(flux / (2 * softening))
    magnitude += ZERO_POINTS - 2.5 * np.log10(softening)
    error = 2.5 / np.log(10) * noise / np.hypot(flux, 2 * softening)
    order = np.argsort(radius[inside], kind="stable")
    growth = np.maximum.accumulate(np.cumsum(r_image[inside][order]))
    growth = growth / max(growth[-1], 1e-9)
    radii = np.sort(radius[inside])
    reached = np.searchsorted(growth, (0.2, 0.5, 0.8))
    r20, r50, r80 = radii[np.minimum(reached, len(radii) - 1)]
    concentration = 5 * np.log10(max(r80, 0.5) / max(r20, 0.5))
    small, large = np.sqrt(np.maximum(np.linalg.eigvalsh(moments), 1e-3))
    shape = [r50 * exposure.scale, concentration, 1 - small / large]
    return np.concatenate([magnitude, error, shape]).astype(np.float32)


def _weighted_moments(
    image: np.ndarray, axis: np.ndarray, width: float
) -> tuple[float, float, np.ndarray]:
    """Centroid and second moments (2, 2) under a round Gaussian that follows the centroid.

    The Gaussian's own narrowing is undone: ``1 / M = 1 / measured - 1 / width**2``.
    """
    x = y = 0.0
    moments = np.eye(2) * width**2 / 4
    light = np.maximum(image, 0)
    for _ in range(6):
        dx, dy = axis[None, :] - x, axis[:, None] - y
        weight = light * np.exp(-0.5 * (dx**2 + dy**2) / width**2)
        total = max(weight.sum(), 1e-9)
        step_x, step_y = (weight * dx).sum() / total, (weight * dy).sum() / total
        x, y = np.clip([x + step_x, y + step_y], axis[0] / 3, axis[-1] / 3)
        dx, dy = axis[None, :] - x, axis[:, None] - y
        xy = (weight * dx * dy).sum() / total
        moments = np.array(
            [[(weight * dx * dx).sum() / total, xy], [xy, (weight * dy * dy).sum() / total]]
        )
    inverse = np.linalg.inv(moments + 1e-3 * np.eye(2)) - np.eye(2) / width**2
    values, vectors = np.linalg.eigh(inverse)
    return x, y, (vectors / np.clip(values, 1e-3, None)) @ vectors.T

"""What an astronomer measures on a galaxy, for thousands of small images at once.

Definitions follow Conselice (2003) and Lotz et al. (2004) as statmorph implements them
(Rodriguez-Gomez et al. 2019), vectorised for stamps: sky from the frame of the image, the
segment that holds the centre, circular Petrosian apertures. A test compares with statmorph.
"""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F

from galaxies.errors import InputError

LEAST_SIDE = 4
"""Pixels: of smaller images there are no rings to measure."""

PROFILE_BINS = 12
SPECTRUM_BINS = 12
_ETA = 0.2  # Petrosian: surface brightness there, over the mean inside
_APERTURE = 1.5  # Petrosian radii that hold the total flux
_STEPS_PER_PIXEL = 4  # of the growth curve
_BLOCK = 128  # images of 64 pixels to a side, which stay in the processor's cache

SCALARS = (
    "flux",
    "half_light_radius",
    "concentration",
    "asymmetry",
    "gini",
    "m20",
    "ellipticity",
)


@dataclass(frozen=True)
class PhysicalTable:
    """Measurements of n images; NaN where an image holds nothing to measure.

    Attributes
    ----------
    names : tuple of str
        Columns of ``values``: `SCALARS`, then one colour per pair of neighbouring channels.
    values : (n, P) float64
        flux: sum in the aperture, in units of full scale; half_light_radius in pixels;
        concentration ``5 log10(r80 / r20)``; colours in magnitudes.
    profile : (n, PROFILE_BINS) float64
        Mean surface brightness in rings, over the mean in the aperture.
    spectrum : (n, SPECTRUM_BINS) float64
        log10 of the power in rings of spatial frequency.
    """

    names: tuple[str, ...]
    values: np.ndarray
    profile: np.ndarray
    spectrum: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """(n,) values of one measurement."""
        return self.values[:, self.names.index(name)]

    def __len__(self) -> int:
        return len(self.values)


def measure(images: torch.Tensor) -> PhysicalTable:
    """Measure (n, C, H, H) images, uint8 or float (linear flux over its `flux_scale`).

    Raises
    ------
    InputError
        If they are not square, or smaller than `LEAST_SIDE`.
    """
    if images.shape[-1] != images.shape[-2]:
        raise InputError(
            f"images are {images.shape[-1]}x{images.shape[-2]}; physics needs square ones"
        )
    if images.shape[-1] < LEAST_SIDE:
        raise InputError(
            f"images of {images.shape[-1]} pixels to a side are too small to measure; at least "
            f"{LEAST_SIDE} are needed"
        )
    # One image of 1024 pixels takes 143 MB on the way.
    step = max(1, min(_BLOCK, _BLOCK * 64**2 // images.shape[-1] ** 2))
    tables = [_measure_block(images[s : s + step]) for s in range(0, len(images), step)]
    names = SCALARS + colour_names(images.shape[1])
    if not tables:
        return PhysicalTable(
            names,
            np.zeros((0, len(names))),
            np.zeros((0, PROFILE_BINS)),
            np.zeros((0, SPECTRUM_BINS)),
        )
    return PhysicalTable(names, *(np.concatenate(parts) for parts in zip(*tables, strict=True)))


def flux_scale(images: torch.Tensor) -> float:
    """Median absolute flux of float images: divided by it, flux in any unit is of order one.

    `measure` has floors for flux of that order; in janskys or in cgs units everything would lie
    below them. Of uint8 images, and where all flux is zero, it is 1.
    """
    if images.dtype == torch.uint8 or not images.numel():
        return 1.0
    flux = images.numpy()
    return float(np.median(np.abs(flux))) or float(np.abs(flux).mean(dtype=np.float64)) or 1.0


def colour_names(channels: int) -> tuple[str, ...]:
    """Names of the colours: ``colour_0_1`` is -2.5 log10(flux of channel 0 / channel 1)."""
    return tuple(f"colour_{band}_{band + 1}" for band in range(channels - 1))


def _measure_block(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flux = images.to(torch.float32)
    if images.dtype == torch.uint8:
        flux = flux / 255
    flux = flux - sky_level(flux)[:, :, None, None]  # n x C x H x W
    grey = flux.mean(dim=1)
    noise = sky_noise(grey)
    segment, neighbours = segment_and_neighbours(grey, noise)
    found = segment.flatten(1).any(dim=1)
    clean = grey.masked_fill(neighbours, 0)
    centre = centroid(clean * segment)
    distance = distance_from(centre, grey.shape[-1])
    growth = growth_curve(clean, distance)
    petrosian = petrosian_radius(growth)
    aperture = (_APERTURE * petrosian).clamp(max=(grey.shape[-1] - 1) / 2)
    total = interpolate(growth, aperture)
    found &= (total > 0) & torch.isfinite(petrosian)
    radius = {share: radius_of_share(growth, total * share) for share in (0.2, 0.5, 0.8)}
    axis_ratio, angle = ellipse(clean, segment)
    body = gini_segment(clean, centre, axis_ratio, angle)
    columns = [
        total,
        radius[0.5],
        5 * torch.log10(radius[0.8] / radius[0.2]),
        asymmetry(clean, centre, aperture, noise_region(segment, neighbours)),
        gini(clean, body),
        m20(clean, body),
        1 - axis_ratio,
    ]
    inside = distance <= aperture[:, None, None]
    bands = (flux.masked_fill(neighbours[:, None], 0) * inside[:, None]).sum(dim=(2, 3))
    floor = total.abs().clamp(min=1e-12)[:, None] * 1e-3  # a band without flux has no colour
    magnitudes = -2.5 * torch.log10(bands.maximum(floor))
    columns += list((magnitudes[:, :-1] - magnitudes[:, 1:]).T)
    table = torch.stack(columns, dim=1).to(torch.float64)
    table[~found] = torch.nan
    profile = radial_profile(clean, centre, aperture).to(torch.float64)
    profile[~found] = torch.nan
    spectrum = power_spectrum(grey).to(torch.float64)
    return table.numpy(), profile.numpy(), spectrum.numpy()


def sky_level(flux: torch.Tensor) -> torch.Tensor:
    """(n, C): median of the frame of each image and channel."""
    return flux[:, :, _frame(flux.shape[-1])].median(dim=-1).values


def sky_noise(grey: torch.Tensor) -> torch.Tensor:
    """(n,): 1.4826 times the median absolute deviation of the frame, at least one 8-bit step."""
    frame = grey[:, _frame(grey.shape[-1])]
    middle = frame.median(dim=-1, keepdim=True).values
    deviation = 1.4826 * (frame - middle).abs().median(dim=-1).values
    scale = grey.flatten(1).abs().amax(dim=1).clamp(max=1)
    return deviation.maximum(scale / 255 / 12**0.5)


def segment_and_neighbours(
    grey: torch.Tensor, noise: torch.Tensor, sigmas: float = 1.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of the object at the centre, and those of other objects, (n, H, W) bool each."""
    smooth = _gaussian(grey, torch.full((len(grey),), 1.0))
    above = (smooth > sigmas * noise[:, None, None]).numpy()
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = True
    labels, _ = scipy.ndimage.label(above, structure=in_plane)
    # The object: where the light near the centre is brightest.
    side = grey.shape[-1]
    middle = torch.full((len(grey), 2), (side - 1) / 2)
    near = distance_from(middle, side) <= max(2.0, side / 8)
    peak = smooth.masked_fill(~near, -torch.inf).flatten(1).argmax(dim=1).numpy()
    own = labels.reshape(len(labels), -1)[np.arange(len(labels)), peak][:, None, None]
    segment = (labels == own) & (own > 0)
    return torch.from_numpy(segment), torch.from_numpy(above & ~segment)


def noise_region(segment: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Pixels of no object."""
    return ~(segment | neighbours)


def centroid(weights: torch.Tensor) -> torch.Tensor:
    """(n, 2) row and column of the mean light of (n, H, W); the middle where there is none."""
    side = weights.shape[-1]
    weights = weights.clamp(min=0)
    total = weights.sum(dim=(1, 2))
    axis = torch.arange(side, dtype=weights.dtype)
    rows = (weights.sum(dim=2) * axis).sum(dim=1) / total
    columns = (weights.sum(dim=1) * axis).sum(dim=1) / total
    return torch.stack([rows, columns], dim=1).nan_to_num((side - 1) / 2)


def distance_from(centre: torch.Tensor, side: int) -> torch.Tensor:
    """(n, side, side) distance of each pixel from (n, 2) centres."""
    axis = torch.arange(side, dtype=torch.float32)
    rows = (axis - centre[:, :1]).square()
    columns = (axis - centre[:, 1:]).square()
    return (rows[:, :, None] + columns[:, None, :]).sqrt()


def elliptical_distance(
    centre: torch.Tensor, axis_ratio: torch.Tensor, angle: torch.Tensor, side: int
) -> torch.Tensor:
    """(n, side, side) semi-major axis of the ellipse through each pixel."""
    axis = torch.arange(side, dtype=torch.float32)
    rows = (axis - centre[:, :1])[:, :, None]
    columns = (axis - centre[:, 1:])[:, None, :]
    cosine, sine = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    along = columns * cosine + rows * sine
    across = (rows * cosine - columns * sine) / axis_ratio[:, None, None]
    return (along.square() + across.square()).sqrt()


def growth_curve(grey: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """(n, R) flux within the radii 0, 1/4, 2/4, ... pixels of (n, H, W) distances.

    A pixel whose middle is at r counts by the share ``clamp(radius - r + 1/2, 0, 1)``, which is
    the overlap of pixel and circle to a percent; corners beyond the frame are not seen.
    """
    side = grey.shape[-1]
    radii = int(side / 2 * _STEPS_PER_PIXEL) + 1
    distance = distance.flatten(1)
    values = grey.flatten(1)
    curve = torch.zeros((len(grey), radii))
    for offset in range(_STEPS_PER_PIXEL):
        shift = offset / _STEPS_PER_PIXEL
        count = len(range(offset, radii, _STEPS_PER_PIXEL))
        first = torch.ceil(distance - 0.5 - shift).clamp(min=0, max=side)  # far corners
        share = (first + shift - distance + 0.5).clamp(0, 1)
        bins = torch.zeros((len(grey), side * 2 + 2))
        bins.scatter_add_(1, first.long(), values * share)
        bins.scatter_add_(1, first.long() + 1, values * (1 - share))
        curve[:, offset::_STEPS_PER_PIXEL] = bins.cumsum(dim=1)[:, :count]
    return curve


def _radii(growth: torch.Tensor) -> torch.Tensor:
    return torch.arange(growth.shape[1]) / _STEPS_PER_PIXEL


def petrosian_radius(growth: torch.Tensor) -> torch.Tensor:
    """(n,) radius where the brightness falls to 0.2 of the mean inside; the edge if it does not."""
    radius = _radii(growth)
    step = _STEPS_PER_PIXEL  # rings one pixel wide on each side
    ring = growth[:, 2 * step :] - growth[:, : -2 * step]
    area = np.pi * (radius[2 * step :].square() - radius[: -2 * step].square())
    inside = growth[:, step:-step] / (np.pi * radius[step:-step].square())
    ratio = ring / area / inside
    below = ratio < _ETA
    first = below.to(torch.int8).argmax(dim=1)
    first = torch.where(below.any(dim=1), first, ratio.shape[1] - 1)
    before = (first - 1).clamp(min=0)
    own = torch.arange(len(growth))
    high, low = ratio[own, before], ratio[own, first]
    fraction = ((high - _ETA) / (high - low)).nan_to_num(1.0).clamp(0, 1)
    return (before + fraction * (first - before) + step) / _STEPS_PER_PIXEL


def interpolate(growth: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """(n,) flux within (n,) radii."""
    position = (radius * _STEPS_PER_PIXEL).clamp(0, growth.shape[1] - 1.001)
    low = position.floor().long()
    own = torch.arange(len(growth))
    fraction = position - low
    return growth[own, low] * (1 - fraction) + growth[own, low + 1] * fraction


def radius_of_share(growth: torch.Tensor, flux: torch.Tensor) -> torch.Tensor:
    """(n,) smallest radius that holds (n,) fluxes."""
    reached = growth >= flux[:, None]
    first = reached.to(torch.int8).argmax(dim=1)
    first = torch.where(reached.any(dim=1), first, growth.shape[1] - 1).clamp(min=1)
    own = torch.arange(len(growth))
    low, high = growth[own, first - 1], growth[own, first]
    fraction = ((flux - low) / (high - low)).nan_to_num(1.0).clamp(0, 1)
    return (first - 1 + fraction) / _STEPS_PER_PIXEL


def gini_segment(
    grey: torch.Tensor, centre: torch.Tensor, axis_ratio: torch.Tensor, angle: torch.Tensor
) -> torch.Tensor:
    """(n, H, W) bool: smoothed light above the brightness at the elliptical Petrosian radius."""
    flat = axis_ratio.clamp(min=0.1)
    distance = elliptical_distance(centre, flat, angle, grey.shape[-1])
    petrosian = petrosian_radius(growth_curve(grey, distance))
    smooth = _gaussian(grey, 0.2 * petrosian)
    ring = ((distance - petrosian[:, None, None]).abs() <= 0.5).to(grey.dtype)
    level = (smooth * ring).sum(dim=(1, 2)) / ring.sum(dim=(1, 2)).clamp(min=1)
    return (smooth >= level[:, None, None]) & (distance <= 2 * petrosian[:, None, None])


def gini(grey: torch.Tensor, segment: torch.Tensor) -> torch.Tensor:
    """(n,) Gini coefficient of the light in a segment: 0 even, 1 all in one pixel."""
    light = grey.abs().masked_fill(~segment, torch.inf).flatten(1).sort(dim=1).values
    count = segment.flatten(1).sum(dim=1).to(torch.float32)
    rank = torch.arange(1, light.shape[1] + 1)
    light = light.masked_fill(rank > count[:, None], 0)
    weight = 2 * rank - count[:, None] - 1
    return (weight * light).sum(dim=1) / (light.sum(dim=1) * (count - 1))


def m20(grey: torch.Tensor, segment: torch.Tensor) -> torch.Tensor:
    """(n,) log10 of the second moment of the brightest 20 % of the light over the whole's."""
    light = grey.masked_fill(~segment, 0)
    moment = light * distance_from(centroid(light), grey.shape[-1]).square()
    order = light.flatten(1).argsort(dim=1, descending=True)
    sorted_light = light.flatten(1).gather(1, order)
    brightest = sorted_light.cumsum(dim=1) <= 0.2 * sorted_light.sum(dim=1, keepdim=True)
    brightest[:, 0] = True
    bright = (moment.flatten(1).gather(1, order) * brightest).sum(dim=1)
    return torch.log10(bright.clamp(min=1e-12) / moment.sum(dim=(1, 2)))


def ellipse(grey: torch.Tensor, segment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) axis ratio and (n,) angle of the second moments of the light in a segment."""
    light = grey.clamp(min=0) * segment
    total = light.sum(dim=(1, 2))
    centre = centroid(light)
    axis = torch.arange(grey.shape[-1], dtype=torch.float32)
    rows, columns = axis - centre[:, :1], axis - centre[:, 1:]
    yy = (light.sum(dim=2) * rows.square()).sum(dim=1) / total
    xx = (light.sum(dim=1) * columns.square()).sum(dim=1) / total
    xy = torch.einsum("nij,ni,nj->n", light, rows, columns) / total
    half, spread = (xx + yy) / 2, (((xx - yy) / 2).square() + xy.square()).sqrt()
    axis_ratio = ((half - spread).clamp(min=0) / (half + spread)).sqrt().nan_to_num(1.0)
    return axis_ratio, 0.5 * torch.atan2(2 * xy, xx - yy).nan_to_num(0.0)


def asymmetry(
    grey: torch.Tensor, centre: torch.Tensor, aperture: torch.Tensor, empty: torch.Tensor
) -> torch.Tensor:
    """(n,) light that a half turn does not match, over the light; least over the centre.

    The sky's own asymmetry, measured where there is no object, is taken off.
    """
    sky = _half_turn_gap(grey, torch.full_like(centre, (grey.shape[-1] - 1) / 2))
    both_empty = empty & empty.flip(1, 2)
    per_pixel = (sky * both_empty).sum(dim=(1, 2)) / both_empty.sum(dim=(1, 2)).clamp(min=1)
    inside = (distance_from(centre, grey.shape[-1]) <= aperture[:, None, None]).to(grey.dtype)
    best = torch.full((len(grey),), torch.inf)
    origin = centre
    for step in (1.0, 0.5, 0.25):
        found = origin
        for row in (-step, 0.0, step):
            for column in (-step, 0.0, step):
                moved = origin + torch.tensor([row, column])
                gap = torch.einsum("nij,nij->n", _half_turn_gap(grey, moved), inside)
                better = gap < best
                best = torch.where(better, gap, best)
                found = torch.where(better[:, None], moved, found)
        origin = found
    light = (grey.abs() * inside).sum(dim=(1, 2))
    return (best - per_pixel * inside.sum(dim=(1, 2))) / light


def _half_turn_gap(grey: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """|image - image turned by 180 degrees about (n, 2) centres|, (n, H, W)."""
    side = grey.shape[-1]
    axis = torch.arange(side, dtype=torch.float32)
    rows = 2 * centre[:, :1] - axis
    columns = 2 * centre[:, 1:] - axis
    scale = 2 / (side - 1)
    grid = torch.stack(
        [
            (columns * scale - 1)[:, None, :].expand(-1, side, -1),
            (rows * scale - 1)[:, :, None].expand(-1, -1, side),
        ],
        dim=-1,
    )
    turned = F.grid_sample(grey[:, None], grid, align_corners=True)[:, 0]
    return (grey - turned).abs()


def radial_profile(
    grey: torch.Tensor, centre: torch.Tensor, aperture: torch.Tensor
) -> torch.Tensor:
    """(n, PROFILE_BINS) mean light in rings up to the aperture, over the mean in it."""
    share = distance_from(centre, grey.shape[-1]) / aperture[:, None, None]
    bins = (share * PROFILE_BINS).long().clamp(max=PROFILE_BINS).flatten(1)
    sums = torch.zeros((len(grey), PROFILE_BINS + 1)).scatter_add_(1, bins, grey.flatten(1))
    counts = torch.zeros_like(sums).scatter_add_(1, bins, torch.ones_like(grey.flatten(1)))
    mean = sums[:, :-1].sum(dim=1) / counts[:, :-1].sum(dim=1)
    return sums[:, :-1] / counts[:, :-1].clamp(min=1) / mean[:, None]


def power_spectrum(grey: torch.Tensor) -> torch.Tensor:
    """(n, SPECTRUM_BINS) log10 of the mean power in rings of frequency up to Nyquist's."""
    side = grey.shape[-1]
    window = torch.hann_window(side, periodic=False)
    power = torch.fft.rfft2(grey * window[:, None] * window).abs().square()
    rows = torch.fft.fftfreq(side)[:, None]
    frequency = (rows.square() + torch.fft.rfftfreq(side).square()).sqrt()
    bins = (frequency / 0.5 * SPECTRUM_BINS).long().flatten()
    kept = (bins < SPECTRUM_BINS) & (frequency.flatten() > 0)
    counts = torch.bincount(bins[kept], minlength=SPECTRUM_BINS).clamp(min=1)
    sums = torch.zeros((len(grey), SPECTRUM_BINS))
    sums.index_add_(1, bins[kept], power.flatten(1)[:, kept])
    return torch.log10(sums / counts + 1e-12)


def _gaussian(grey: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Smooth (n, H, W) by Gaussians of (n,) widths in pixels, mirrored at the border."""
    side = grey.shape[-1]
    padded = F.pad(grey[:, None], (side // 2,) * 4, mode="reflect")[:, 0]
    rows = torch.fft.fftfreq(padded.shape[-2])[:, None]
    squared = rows.square() + torch.fft.rfftfreq(padded.shape[-1]).square()
    kernel = torch.exp(-2 * np.pi**2 * sigma[:, None, None].square() * squared)
    smooth = torch.fft.irfft2(torch.fft.rfft2(padded) * kernel, s=padded.shape[-2:])
    half = side // 2
    return smooth[:, half : half + side, half : half + side]


def _frame(side: int) -> torch.Tensor:
    """(side, side) bool: the outermost sixteenth of the image, at least two pixels wide."""
    width = max(2, side // 16)
    frame = torch.ones((side, side), dtype=torch.bool)
    frame[width : side - width, width : side - width] = False
    return frame

"""One simulated image: which galaxy is drawn, what stands near it, how it is observed.

Imports neither torch nor h5py, so that worker processes start fast.
"""

from collections.abc import Sequence

import galsim
import numpy as np

from galaxies.morphology import (
    BANDS,
    Galaxy,
    Scene,
    add_disturbed,
    add_edge_on,
    add_elliptical,
    add_merger,
    add_spiral,
    population,
)
from galaxies.observation import (
    FIELD_ARCSECONDS,
    ZERO_POINTS,
    empty_scene,
    expose,
    measure,
    picture,
)

_BRIGHTEST, _FAINTEST = 14.6, 17.6  # r magnitudes of the galaxies, near those of Galaxy Zoo
_COUNT_SLOPE = 0.35  # counts grow by 10 to this power per magnitude
_REDDENING_BY_REDSHIFT = np.array([5.0, 3.0, 0.0, -0.6, -0.9])  # magnitudes per unit of redshift
_NEIGHBOURS = 1.4


def render_batch(
    class_names: Sequence[str], streams: Sequence[np.random.SeedSequence], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Render one image per class name from its own random stream.

    Returns
    -------
    pictures, photometry : ndarray
        (n, 3, size, size) uint8 and (n, features) float32.
    """
    pictures, photometry = [], []
    for name, stream in zip(class_names, streams, strict=True):
        rng = np.random.default_rng(stream)
        scene = empty_scene(size)
        _add_galaxy(scene, name, rng)
        _add_neighbours(scene, rng)
        exposure = expose(scene, size, rng)
        pictures.append(picture(exposure))
        photometry.append(measure(exposure))
    return np.stack(pictures), np.stack(photometry)


def _add_galaxy(scene: Scene, name: str, rng: np.random.Generator) -> None:
    magnitude = _draw_magnitude(rng, _BRIGHTEST, _FAINTEST)
    radius = 3.4 * 10 ** (-0.1 * (magnitude - 16.5) + rng.normal(0, 0.12))
    centre = rng.normal(0, 0.35, 2)
    # A spiral whose arms cannot be seen is not called one; an edge-on disc draws its own tilt.
    lowest = {"elliptical": 0.5, "disturbed": 0.4}.get(name, 0.38)
    galaxy = Galaxy(
        flux=float(10 ** (-0.4 * (magnitude - ZERO_POINTS[2]))),
        radius=float(np.clip(radius, 1.8, 5.5)),
        angle=float(rng.uniform(0, np.pi)),
        ratio=float(rng.uniform(lowest, 1.0)),
        centre=(float(centre[0]), float(centre[1])),
    )
    if name == "elliptical":
        add_elliptical(scene, galaxy, rng)
    elif name == "edge_on":
        add_edge_on(scene, galaxy, rng)
    elif name == "merger":
        add_merger(scene, galaxy, rng)
    elif name == "disturbed":
        add_disturbed(scene, galaxy, rng)
    else:
        sense = 1 if name == "spiral_clockwise" else -1
        add_spiral(scene, galaxy, rng, sense, arms=rng.uniform(0.1, 0.45))
    redshift = rng.uniform(0.01, 0.1)
    scene.light *= 10 ** (-0.4 * redshift * _REDDENING_BY_REDSHIFT)[:, None, None]


def _add_neighbours(scene: Scene, rng: np.random.Generator) -> None:
    """Stars and small galaxies anywhere in the field, most of them faint."""
    half = FIELD_ARCSECONDS / 2
    for _ in range(rng.poisson(_NEIGHBOURS)):
        x, y = rng.uniform(-half, half, 2)
        flux = 10 ** (-0.4 * (_draw_magnitude(rng, 16.5, 22.0) - ZERO_POINTS[2]))
        if rng.random() < 0.45:
            width = np.array([0.6 * scene.scale])  # a point, as far as the grid can hold one
            surface = scene.spots(np.array([x]), np.array([y]), width, np.ones(1))
            scene.add(surface, flux, _star_colours(rng))
        else:
            profile = galsim.Exponential(half_light_radius=rng.uniform(0.5, 1.3))
            profile = profile.shear(
                q=rng.uniform(0.4, 1.0), beta=rng.uniform(0, np.pi) * galsim.radians
            )
            stars = rng.choice(["old", "disc", "disc", "young", "dusty"])
            scene.add(scene.smooth(profile, (x, y)), flux, population(str(stars), rng, 0.15))


def _star_colours(rng: np.random.Generator) -> np.ndarray:
    """(5,) flux in u, g, r, i, z of a star, 1 in r: along the stellar locus, mostly red dwarfs."""
    g_r = rng.choice([rng.uniform(0.2, 0.9), rng.normal(1.4, 0.05)])
    r_i = 0.36 * g_r if g_r < 1.2 else rng.uniform(0.5, 1.8)
    magnitudes = np.array([g_r + 1.6 * g_r + 0.3, g_r, 0, -r_i, -1.55 * r_i])
    assert len(magnitudes) == len(BANDS)
    return 10 ** (-0.4 * magnitudes)


def _draw_magnitude(rng: np.random.Generator, brightest: float, faintest: float) -> float:
    """Draw from number counts that grow exponentially with magnitude."""
    low, high = 10 ** (_COUNT_SLOPE * brightest), 10 ** (_COUNT_SLOPE * faintest)
    return float(np.log10(rng.uniform(low, high)) / _COUNT_SLOPE)

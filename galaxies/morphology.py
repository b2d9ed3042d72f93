"""Light of a simulated galaxy above the atmosphere: bulge, disc, arms, dust and tidal features.

Each function adds components to a `Scene`: a surface brightness and a stellar population, whose
colours give its brightness in u, g, r, i and z. Smooth profiles are GalSim's; arms, dust lanes,
tails and shells are drawn on the same grid.

The sense of a spiral follows Galaxy Zoo. On the screen, with row 0 at the top, the arms of a
*clockwise* one turn anticlockwise on their way out: it rotates clockwise and its arms trail.
"""

import math
from dataclasses import dataclass, field

import galsim
import numpy as np

BANDS = ("u", "g", "r", "i", "z")

# Colours u-g, g-r, r-i, i-z of stellar populations at low redshift (Strateva et al. 2001;
# Fukugita et al. 1995).
_COLOURS = {
    "old": (1.75, 0.80, 0.40, 0.32),
    "disc": (1.35, 0.58, 0.33, 0.23),
    "young": (0.95, 0.22, 0.10, 0.04),
    "dusty": (1.70, 0.95, 0.50, 0.38),
}

_SERSIC_INDICES = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)


def population(name: str, rng: np.random.Generator, scatter: float = 0.05) -> np.ndarray:
    """Return (5,) flux in u, g, r, i, z of a population, 1 in r; ``scatter`` in magnitudes."""
    u_g, g_r, r_i, i_z = np.array(_COLOURS[name]) + rng.normal(0, scatter, 4)
    magnitudes = np.array([u_g + g_r, g_r, 0, -r_i, -r_i - i_z])
    return 10 ** (-0.4 * magnitudes)


@dataclass
class Scene:
    """Surface brightness in five bands on a fine grid that is wider than the stamp.

    Attributes
    ----------
    points : int
        Side of the grid in points.
    scale : float
        Distance of two points in arcseconds.
    light : (5, points, points) float32
        Flux per point in u, g, r, i, z, in units of the r flux that components are added with.
    """

    points: int
    scale: float
    light: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.light = np.zeros((len(BANDS), self.points, self.points), np.float32)
        axis = ((np.arange(self.points) - (self.points - 1) / 2) * self.scale).astype(np.float32)
        self.x, self.y = axis[None, :], -axis[:, None]  # y points up on the screen

    def add(self, surface: np.ndarray, flux: float, colours: np.ndarray) -> None:
        """Add a component: its shape (points, points) is normalised to the r flux given."""
        total = float(surface.sum(dtype=np.float64))
        if total > 0:
            weights = (flux / total * colours).astype(np.float32)
            self.light += weights[:, None, None] * surface.astype(np.float32, copy=False)

    def plane(
        self, angle: float, ratio: float, centre: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Radius and azimuth (points, points) in a disc seen with axis ratio ``ratio``."""
        x, y = self.x - centre[0], self.y - centre[1]
        along = x * math.cos(angle) + y * math.sin(angle)
        across = (y * math.cos(angle) - x * math.sin(angle)) / ratio
        return np.hypot(along, across) + 1e-6, np.arctan2(across, along)

    def smooth(
        self, profile: galsim.GSObject, centre: tuple[float, float] = (0.0, 0.0)
    ) -> np.ndarray:
        """Draw a GalSim profile on the grid."""
        image = galsim.ImageF(self.points, self.points, scale=self.scale)
        profile.shift(centre[0], -centre[1]).drawImage(image=image, method="no_pixel")
        return image.array

    def spots(
        self, x: np.ndarray, y: np.ndarray, width: np.ndarray, flux: np.ndarray
    ) -> np.ndarray:
        """Sum of round Gaussians: positions, widths and fluxes are (n,), in arcseconds."""
        x, y, width = (values.astype(np.float32) for values in (x, y, width))
        in_x = np.exp(-0.5 * ((self.x.T - x) / width) ** 2)
        in_y = np.exp(-0.5 * ((self.y - y) / width) ** 2) * (flux / width**2).astype(np.float32)
        # Not a matrix product: einsum sums in one order, whatever the number of threads.
        return np.einsum("in,jn->ij", in_y, in_x)


@dataclass(frozen=True)
class Galaxy:
    """What all components of one galaxy share.

    Attributes
    ----------
    flux : float
        Total flux in r.
    radius : float
        Half-light radius in arcseconds, before inclination.
    angle : float
        Position angle in radians, from the x axis towards the top.
    ratio : float
        Apparent axis ratio.
    centre : (float, float)
        Offset from the centre of the stamp in arcseconds, to the right and to the top.
    """

    flux: float
    radius: float
    angle: float
    ratio: float
    centre: tuple[float, float] = (0.0, 0.0)


def add_elliptical(scene: Scene, galaxy: Galaxy, rng: np.random.Generator) -> None:
    """A Sérsic profile of old stars; one in five is a lenticular with a smooth disc."""
    colours = population("old", rng)
    if rng.random() < 0.2:
        _add_smooth_disc(scene, galaxy, 0.6, rng, "old")
        _add_bulge(scene, galaxy, 0.4, rng)
        return
    profile = _sersic(rng.choice(_SERSIC_INDICES[3:]), galaxy.radius, galaxy.ratio, galaxy.angle)
    scene.add(scene.smooth(profile, galaxy.centre), galaxy.flux, colours)


def add_spiral(
    scene: Scene, galaxy: Galaxy, rng: np.random.Generator, sense: int, arms: float
) -> None:
    """Bulge, disc, sometimes a bar, and logarithmic arms with knots of young stars.

    ``sense`` is +1 for clockwise, -1 for anticlockwise; ``arms`` is the share of the disc's
    light in the arms.
    """
    bulge = rng.beta(1.6, 5.0)
    bar = rng.uniform(0.04, 0.12) if rng.random() < 0.3 else 0.0
    disc = 1 - bulge - bar
    _add_bulge(scene, galaxy, bulge, rng)
    length = galaxy.radius / 1.678  # exponential scale length of a half-light radius
    radius, azimuth = scene.plane(galaxy.angle, galaxy.ratio, galaxy.centre)
    count = int(rng.choice([2, 2, 2, 2, 3, 4]))
    pitch = math.radians(rng.uniform(11, 30))
    start = rng.uniform(0.5, 1.0) * length
    offset = rng.uniform(0, 2 * math.pi)
    wobble = rng.normal(0, 0.25) * np.sin(rng.uniform(1, 3) * np.log(radius / start + 0.3))
    phase = count * (azimuth - sense * np.log(radius / start) / math.tan(pitch) - offset + wobble)
    crest = np.exp(rng.uniform(1.5, 4.0) * (np.cos(phase) - 1))
    inside = 0.5 * (1 + np.tanh((radius - 0.7 * start) / (0.3 * start)))
    outside = 0.5 * (1 + np.tanh((radius - 4 * length) / (0.8 * length)))
    fade = np.exp(-radius / length) * inside * (1 - outside)
    scene.add(np.exp(-radius / length), galaxy.flux * disc * (1 - arms), population("disc", rng))
    knots = 0.2 * arms
    scene.add(crest * fade, galaxy.flux * disc * (arms - knots), population("young", rng, 0.1))
    _add_knots(scene, galaxy, crest * fade, galaxy.flux * disc * knots, rng)
    if bar:
        # In the disc's plane, along the beginning of an arm; then the disc is inclined and turned.
        shape = galsim.Sersic(n=0.5, half_light_radius=0.45 * start)
        shape = shape.shear(q=0.35, beta=-offset * galsim.radians)
        shape = shape.shear(q=galaxy.ratio, beta=0 * galsim.radians)
        shape = shape.rotate(-galaxy.angle * galsim.radians)
        scene.add(scene.smooth(shape, galaxy.centre), galaxy.flux * bar, population("old", rng))


def add_edge_on(scene: Scene, galaxy: Galaxy, rng: np.random.Generator) -> None:
    """A thin disc from its side, with a bulge and often a dust lane; ``ratio`` is not used."""
    inclination = rng.uniform(78, 90)
    disc = galsim.InclinedExponential(
        inclination=inclination * galsim.degrees,
        half_light_radius=galaxy.radius,
        scale_h_over_r=rng.uniform(0.08, 0.2),
    ).rotate(-galaxy.angle * galsim.radians)
    surface = scene.smooth(disc, galaxy.centre)
    x, y = scene.x - galaxy.centre[0], scene.y - galaxy.centre[1]
    along = x * math.cos(galaxy.angle) + y * math.sin(galaxy.angle)
    across = y * math.cos(galaxy.angle) - x * math.sin(galaxy.angle)
    colours = population("disc", rng, 0.12)
    bulge = rng.beta(1.5, 5)
    if inclination > 82 and rng.random() < 0.7:
        lane = np.exp(-0.5 * ((across - rng.normal(0, 0.15)) / rng.uniform(0.2, 0.4)) ** 2)
        lane *= np.exp(-0.5 * (along / (1.5 * galaxy.radius)) ** 2)
        surface = surface * (1 - rng.uniform(0.3, 0.75) * lane)
        colours = colours * 10 ** (
            -0.4 * rng.uniform(0.1, 0.4) * np.array([1.6, 1.2, 0.85, 0.65, 0.5])
        )
    scene.add(surface, galaxy.flux * (1 - bulge), colours)
    round_bulge = Galaxy(
        galaxy.flux, galaxy.radius, galaxy.angle, rng.uniform(0.6, 0.9), galaxy.centre
    )
    _add_bulge(scene, round_bulge, bulge, rng)


def add_merger(scene: Scene, galaxy: Galaxy, rng: np.random.Generator) -> None:
    """Two galaxies that touch, each often with a tail, often with a bridge between them."""
    share = 1 / (1 + rng.uniform(1.0, 4.0))
    late = rng.random() < 0.3
    distance = galaxy.radius * (rng.uniform(0.35, 0.7) if late else rng.uniform(0.8, 2.0))
    direction = rng.uniform(0, 2 * np.pi)
    step = distance * np.array([np.cos(direction), np.sin(direction)])
    first = tuple(np.add(galaxy.centre, -share * step))
    second = tuple(np.add(galaxy.centre, (1 - share) * step))
    tidal = rng.uniform(0.08, 0.25)
    for centre, part in ((first, 1 - share), (second, share)):
        member = Galaxy(
            galaxy.flux * part * (1 - tidal),
            galaxy.radius * (0.6 + 0.4 * rng.random()) * part**0.4,
            rng.uniform(0, np.pi),
            rng.uniform(0.4, 1.0),
            (float(centre[0]), float(centre[1])),
        )
        if rng.random() < 0.6:
            add_spiral(scene, member, rng, rng.choice([-1, 1]), rng.uniform(0.15, 0.5))
        else:
            add_elliptical(scene, member, rng)
        if rng.random() < 0.75:
            reach = galaxy.radius * rng.uniform(1.5, 3.5)
            _add_tail(scene, member, galaxy.flux * part * tidal, reach, rng)
        if late:
            _add_shells(scene, member, galaxy.flux * part * tidal, rng)
    if rng.random() < 0.6:
        along = np.linspace(0, 1, 24)[:, None]
        path = np.array(first) * (1 - along) + np.array(second) * along
        path = path + rng.normal(0, 0.15 * distance, 2) * np.sin(np.pi * along)
        width = np.full(24, 0.25 * galaxy.radius)
        bridge = scene.spots(path[:, 0], path[:, 1], width, width**2)
        scene.add(bridge, 0.4 * tidal * galaxy.flux, population("young", rng, 0.1))


def add_disturbed(scene: Scene, galaxy: Galaxy, rng: np.random.Generator) -> None:
    """One galaxy out of balance: two of a tail, shells, a lopsided disc, debris of a companion."""
    tidal = rng.uniform(0.12, 0.3)
    body = Galaxy(
        galaxy.flux * (1 - tidal), galaxy.radius, galaxy.angle, galaxy.ratio, galaxy.centre
    )
    before = scene.light.copy()
    if rng.random() < 0.65:
        add_spiral(scene, body, rng, rng.choice([-1, 1]), rng.uniform(0.15, 0.5))
    else:
        add_elliptical(scene, body, rng)
    chosen = rng.choice(4, 2, replace=False)
    flux = galaxy.flux * tidal / 2
    if 0 in chosen:
        _add_tail(scene, body, flux, galaxy.radius * rng.uniform(1.8, 4.0), rng)
    if 1 in chosen:
        _add_shells(scene, body, flux, rng)
    if 2 in chosen:
        towards = rng.uniform(0, 2 * np.pi)
        x, y = scene.x - galaxy.centre[0], scene.y - galaxy.centre[1]
        slope = (x * math.cos(towards) + y * math.sin(towards)) / galaxy.radius
        lopsided = 1 + rng.uniform(0.5, 0.9) * np.tanh(slope)
        scene.light = before + (scene.light - before) * lopsided
    if 3 in chosen:
        count = int(rng.integers(3, 8))
        turn = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.5, count)
        radius = galaxy.radius * rng.uniform(0.8, 2.2, count)
        width = galaxy.radius * rng.uniform(0.08, 0.3, count)
        x, y = radius * np.cos(turn) + galaxy.centre[0], radius * np.sin(turn) + galaxy.centre[1]
        debris = scene.spots(x, y, width, rng.lognormal(0, 0.7, count))
        scene.add(debris, flux, population("young", rng, 0.15))


def _add_tail(
    scene: Scene, galaxy: Galaxy, flux: float, reach: float, rng: np.random.Generator
) -> None:
    """A curved stream that leaves the disc, widens and fades."""
    along = np.linspace(0, 1, 40)
    turn = rng.uniform(0, 2 * np.pi) + rng.choice([-1, 1]) * rng.uniform(0.6, 2.2) * along
    radius = 0.6 * galaxy.radius + reach * along
    stretch = rng.uniform(0.5, 1.0)  # the stream's own plane is tilted
    x, y = radius * np.cos(turn), stretch * radius * np.sin(turn)
    x, y = (
        x * np.cos(galaxy.angle) - y * np.sin(galaxy.angle) + galaxy.centre[0],
        x * np.sin(galaxy.angle) + y * np.cos(galaxy.angle) + galaxy.centre[1],
    )
    width = galaxy.radius * rng.uniform(0.1, 0.22) * (1 + 1.5 * along)
    surface = scene.spots(x, y, width, np.exp(-1.6 * along) + 0.15)
    scene.add(surface, flux, population(rng.choice(["young", "disc"]), rng, 0.1))


def _add_shells(scene: Scene, galaxy: Galaxy, flux: float, rng: np.random.Generator) -> None:
    """Arcs of old stars around the centre, sharp on their outer side."""
    radius, azimuth = scene.plane(galaxy.angle, max(galaxy.ratio, 0.6), galaxy.centre)
    surface = np.zeros_like(radius)
    for _ in range(int(rng.integers(2, 5))):
        edge = galaxy.radius * rng.uniform(1.0, 2.8)
        depth = (edge - radius) / (0.25 * galaxy.radius)
        ridge = np.where(depth > 0, np.exp(-np.maximum(depth, 0)), np.exp(-((4 * depth) ** 2)))
        middle = rng.uniform(-np.pi, np.pi)
        off = np.angle(np.exp(1j * (azimuth - middle)))
        surface += rng.uniform(0.5, 1) * ridge * np.exp(-0.5 * (off / rng.uniform(0.3, 0.8)) ** 2)
    scene.add(surface, flux, population("old", rng, 0.08))


def _add_knots(
    scene: Scene, galaxy: Galaxy, where: np.ndarray, flux: float, rng: np.random.Generator
) -> None:
    """Star-forming knots drawn where the arms are bright."""
    count = int(rng.integers(8, 28))
    chance = np.cumsum(where.ravel())
    cells = np.searchsorted(chance, rng.random(count) * chance[-1])
    rows, columns = np.unravel_index(np.minimum(cells, where.size - 1), where.shape)
    width = galaxy.radius * rng.uniform(0.04, 0.1, count)
    surface = scene.spots(
        scene.x[0, columns], scene.y[rows, 0], width, rng.lognormal(0, 0.8, count)
    )
    scene.add(surface, flux, population("young", rng, 0.15))


def _add_bulge(scene: Scene, galaxy: Galaxy, share: float, rng: np.random.Generator) -> None:
    ratio = 1 - 0.5 * (1 - galaxy.ratio)  # a bulge is rounder than its disc
    radius = galaxy.radius * rng.uniform(0.15, 0.35)
    profile = _sersic(rng.choice(_SERSIC_INDICES[:7]), radius, ratio, galaxy.angle)
    colours = population("old", rng)
    scene.add(scene.smooth(profile, galaxy.centre), galaxy.flux * share, colours)


def _add_smooth_disc(
    scene: Scene, galaxy: Galaxy, share: float, rng: np.random.Generator, stars: str
) -> None:
    radius, _ = scene.plane(galaxy.angle, galaxy.ratio, galaxy.centre)
    surface = np.exp(-radius * 1.678 / galaxy.radius)
    scene.add(surface, galaxy.flux * share, population(stars, rng))


def _sersic(index: float, radius: float, ratio: float, angle: float) -> galsim.GSObject:
    """Sérsic profile; GalSim counts angles from the x axis towards increasing rows, downwards."""
    profile = galsim.Sersic(n=float(index), half_light_radius=radius)
    return profile.shear(q=ratio, beta=-angle * galsim.radians)

"""Real against generated galaxies in what astronomers measure, each beside its own floor.

The distance is the Wasserstein distance of the two distributions in units of the real standard
deviation: 0.3 means that, on average, the light has to be moved by three tenths of a standard
deviation. Two halves of the real set never agree exactly either; that distance, at the same
number of images, is the floor.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from fid.physics import PhysicalTable
from galaxies.errors import InputError

_SPLITS = 100
_LEAST_IMAGES = 8
_TINY = 1e-9  # of a standard deviation


@dataclass(frozen=True)
class PhysicalDistance:
    """One measurement compared.

    Attributes
    ----------
    name : str
    real_median, fake_median : float or None
        In the measurement's unit; NaN for the two curves.
    distance : float
        Wasserstein distance of all images, in real standard deviations; for a curve the mean
        over its bins.
    low, high : float
        95 % interval by groups drawn without replacement.
    at_floor_count, floor, floor_high : float
        Mean distance of real and generated images at the count of the floor; mean and 95th
        percentile of the distance between two groups of real images.
    count : int
        Images a side behind the floor.
    differs : bool
        Whether ``at_floor_count`` lies above ``floor_high``.
    """

    name: str
    real_median: float | None
    fake_median: float | None
    distance: float
    low: float
    high: float
    at_floor_count: float
    floor: float
    floor_high: float
    count: int
    differs: bool

    def in_unit(self, unit: float) -> "PhysicalDistance":
        """The same with medians that were measured in so much of another unit."""
        return dataclasses.replace(
            self,
            real_median=None if self.real_median is None else self.real_median * unit,
            fake_median=None if self.fake_median is None else self.fake_median * unit,
        )


@dataclass(frozen=True)
class PhysicalComparison:
    """Every measurement compared.

    Attributes
    ----------
    measurements : list of PhysicalDistance
    differing : int
        How many of them differ.
    chance : float
        Share of the splits of the real set whose farthest measurement lies at least as far out, in
        units of its bound, as the farthest here. Each measurement alone exceeds its bound in 5 of
        100 splits, so among eleven one often does; the splits know how they vary together.
    """

    measurements: list[PhysicalDistance]
    differing: int
    chance: float

    def __getitem__(self, name: str) -> PhysicalDistance:
        return next(item for item in self.measurements if item.name == name)


def compare_physics(
    real: PhysicalTable, fake: PhysicalTable, rng: np.random.Generator
) -> PhysicalComparison:
    """Compare every measurement, and the two curves, of two tables.

    Raises
    ------
    InputError
        If a side has fewer than 8 images with something to measure.
    """
    if real.names != fake.names:
        raise InputError("the two sides have different numbers of channels: colours differ")
    kept_real, kept_fake = _measurable(real), _measurable(fake)
    if min(len(kept_real), len(kept_fake)) < _LEAST_IMAGES:
        raise InputError(
            f"only {len(kept_real)} real and {len(kept_fake)} generated images show an object; "
            f"{_LEAST_IMAGES} a side are needed"
        )
    real_columns, fake_columns = _columns(real, kept_real), _columns(fake, kept_fake)
    # The same splits for all: how measurements vary together is part of the chance.
    splits = [
        (rng.permutation(len(kept_real)), rng.permutation(len(kept_fake))) for _ in range(_SPLITS)
    ]
    results, floors = [], []
    for name, values in real_columns.items():
        result, floor = _compare(name, values, fake_columns[name], splits)
        results.append(result)
        floors.append(floor / max(result.floor_high, _TINY))
    # A measurement that never varies, such as the colour of grey images, has no floor.
    farthest = max(result.at_floor_count / max(result.floor_high, _TINY) for result in results)
    as_far = np.max(floors, axis=0) >= farthest
    differing = sum(result.differs for result in results)
    return PhysicalComparison(results, differing, float((1 + as_far.sum()) / (1 + _SPLITS)))


def _columns(table: PhysicalTable, rows: np.ndarray) -> dict[str, np.ndarray]:
    columns = {name: table.values[rows, index, None] for index, name in enumerate(table.names)}
    return columns | {
        "radial profile": table.profile[rows],
        "power spectrum": table.spectrum[rows],
    }


def share_without_object(table: PhysicalTable) -> float:
    """Share of images on which nothing can be measured."""
    return 1 - len(_measurable(table)) / max(1, len(table))


def wasserstein(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over columns of the Wasserstein distance of (n, P) and (m, P) values."""
    if len(first) == len(second):
        return float(np.abs(np.sort(first, axis=0) - np.sort(second, axis=0)).mean())
    import scipy.stats

    pairs = zip(first.T, second.T, strict=True)
    return float(np.mean([scipy.stats.wasserstein_distance(a, b) for a, b in pairs]))


def _compare(
    name: str,
    real: np.ndarray,
    fake: np.ndarray,
    splits: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[PhysicalDistance, np.ndarray]:
    """One measurement, (n, P) and (m, P), and its floor in each split."""
    alone = real.shape[1] == 1
    medians = [float(np.median(side)) if alone else None for side in (real, fake)]
    spread = np.maximum(real.std(axis=0), 1e-12)
    centre = real.mean(axis=0)
    real, fake = (real - centre) / spread, (fake - centre) / spread
    count = min(len(real) // 2, len(fake))
    against_real, against_fake, halves = [], [], []
    for of_real, of_fake in splits:
        first, second = real[of_real[:count]], real[of_real[count : 2 * count]]
        against_real.append(wasserstein(first, second))
        against_fake.append(wasserstein(first, fake[of_fake[:count]]))
        half_real, half_fake = real[of_real[: len(real) // 2]], fake[of_fake[: len(fake) // 2]]
        halves.append(wasserstein(half_real, half_fake))
    distance = wasserstein(real, fake)
    error = 1.96 * float(np.std(halves, ddof=1))
    floor = np.array(against_real)
    floor_high = float(np.quantile(floor, 0.95))
    at_floor_count = float(np.mean(against_fake))
    result = PhysicalDistance(
        name=name,
        real_median=medians[0],
        fake_median=medians[1],
        distance=distance,
        low=max(0.0, distance - error),
        high=distance + error,
        at_floor_count=at_floor_count,
        floor=float(floor.mean()),
        floor_high=floor_high,
        count=count,
        differs=at_floor_count > floor_high,
    )
    return result, floor


def _measurable(table: PhysicalTable) -> np.ndarray:
    finite = np.isfinite(table.values).all(axis=1) & np.isfinite(table.profile).all(axis=1)
    return np.flatnonzero(finite)
